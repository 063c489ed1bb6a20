//! A listener as meant.

use std::net::SocketAddr;

use crate::units::Span;

/// A named entry point with its upstream.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub bind: SocketAddr,
    /// Where requests go that no route takes.
    pub upstream: Option<Target>,
    /// Where others go, first match first.
    pub routes: Vec<RouteConfig>,
    /// The `Host` that the upstream sees.
    pub host: HostPolicy,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Whether answers that we made up are marked.
    pub mark: bool,
    /// Whether baggage of ours is believed although it comes from outside.
    pub trust_baggage: bool,
    /// Whether the upstream belongs to somebody else: nothing of ours goes there.
    pub external: bool,
}

/// An upstream for some requests.
#[derive(Clone, Debug)]
pub struct RouteConfig {
    /// The host, exactly, in lower case, without a port.
    pub host: Option<String>,
    /// The path.
    pub path: Option<crate::experiment::Match>,
    /// Where they go.
    pub upstream: Target,
}

/// An upstream.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Target {
    /// How to speak to it.
    pub scheme: Scheme,
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// How to speak to an upstream.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Scheme {
    /// HTTP/1.1 in the clear.
    Http,
    /// HTTP/2 in the clear, by prior knowledge.
    H2c,
    /// TLS.
    Https,
}

/// The `Host` that the upstream sees.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum HostPolicy {
    /// The caller's.
    #[default]
    Preserve,
    /// The upstream's own.
    Upstream,
    /// A name.
    Name(String),
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// To connect to the upstream.
    pub connect: Span,
    /// Until the upstream's head is there.
    pub response: Span,
    /// Between two pieces of a body.
    pub body_stall: Span,
    /// For the caller's head to be whole.
    pub request_header: Span,
    /// For a connection to be idle.
    pub idle: Span,
}
