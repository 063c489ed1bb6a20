//! A listener: where it listens, what it forwards to, whom it believes and how long it waits.
//!
//! ```yaml
//! front: { bind: 127.0.0.1:8080, upstream: "http://127.0.0.1:3000" }
//! ```

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::experiment::glob::PathGlob;
use crate::units::{ByteSize, Span};

/// A listener as it was written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerDraft {
    /// The address and port where it listens.
    #[schemars(example = &"127.0.0.1:8080")]
    pub bind: String,
    /// What it forwards to: `http://`, `https://` or `h2c://`, a host and a port; or `unix:` and the path of a socket.
    #[schemars(example = &"http://127.0.0.1:3000")]
    pub upstream: Option<String>,
    /// Other upstreams by host and path; the first that fits is taken, `upstream` where none does.
    #[serde(default)]
    pub routes: Vec<RouteDraft>,
    /// The host that the upstream is told: `preserve`, `upstream` or a name; the caller's where nothing is written.
    #[schemars(example = &"upstream")]
    pub host: Option<String>,
    /// What it is: `reverse` forwards to its upstream, `forward` to whatever the caller names.
    #[serde(default)]
    pub mode: Mode,
    /// Networks whose `X-Forwarded-For` is believed.
    #[serde(default)]
    #[schemars(example = ["10.0.0.0/8"])]
    pub trusted_proxies: Vec<String>,
    /// Whether every connection begins with a PROXY protocol header, version 1 or 2.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// Whether an arm that arrives in the baggage is left there; needed between the slice and the fault.
    #[serde(default)]
    pub trust_baggage: bool,
    /// Whether answers that were made up here say so in `x-pratfall`; they do where nothing is written.
    pub mark: Option<bool>,
    /// Whether header names keep their capital letters on HTTP/1; costs a map for each message.
    #[serde(default)]
    pub keep_case: bool,
    /// Whether interim answers such as 103 go on to callers of HTTP/1.1 in the clear; costs a callback for each request.
    #[serde(default)]
    pub early_hints: bool,
    /// Whether the upstream belongs to somebody else, so that nothing of ours is sent there; so where it is `https://`.
    pub external: Option<bool>,
    /// How long it waits.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// How much it takes.
    #[serde(default)]
    pub bounds: BoundsConfig,
    /// Its certificate; without one it speaks in the clear.
    pub tls: Option<ListenerTls>,
    /// How `https://` upstreams are checked and how they can check us.
    pub upstream_tls: Option<UpstreamTls>,
}

/// A route as it was written: `host`, `path` or both.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteDraft {
    /// The host, without its port.
    pub host: Option<String>,
    /// A pattern of the path: `*` within a segment, `**` for any segments.
    #[schemars(example = &"/stock/**")]
    pub path: Option<String>,
    /// What it forwards to.
    #[schemars(example = &"http://127.0.0.1:4000")]
    pub upstream: String,
}

/// A listener as it was meant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListenerConfig {
    /// Its name: part of experiments, metrics and reports.
    pub name: String,
    /// Where it listens.
    pub bind: SocketAddr,
    /// What it forwards to where no route fits.
    pub upstream: Option<Target>,
    /// The first that fits is taken.
    pub routes: Vec<RouteConfig>,
    /// The host that the upstream is told.
    pub host: HostPolicy,
    /// Whether the caller may name the upstream.
    pub mode: Mode,
    /// How long it waits.
    pub timeouts: Timeouts,
    /// How much it takes.
    pub bounds: BoundsConfig,
    /// Whether answers that were made up here say so.
    pub mark: bool,
    /// Whether an arm that arrives in the baggage is left there.
    pub trust_baggage: bool,
    /// Whether header names keep their capital letters on HTTP/1.
    pub keep_case: bool,
    /// Whether interim answers such as 103 go on.
    pub early_hints: bool,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether every connection begins with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Whether the upstream belongs to somebody else, so that nothing of ours is sent there.
    pub external: bool,
    /// Its certificate.
    pub tls: Option<ListenerTls>,
    /// How `https://` upstreams are checked.
    pub upstream_tls: Option<UpstreamTls>,
}

impl ListenerConfig {
    /// A listener of which nothing else is written.
    pub fn plain(name: &str, bind: SocketAddr, upstream: Option<Target>) -> Self {
        Self {
            name: name.to_owned(),
            bind,
            upstream,
            routes: Vec::new(),
            host: HostPolicy::default(),
            mode: Mode::default(),
            timeouts: Timeouts::default(),
            bounds: BoundsConfig::default(),
            mark: true,
            trust_baggage: false,
            keep_case: false,
            early_hints: false,
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            external: false,
            tls: None,
            upstream_tls: None,
        }
    }

    /// Has relative paths begin at a folder.
    pub fn within(mut self, folder: &Path) -> Self {
        let own = self.tls.iter_mut().flat_map(|tls| [Some(&mut tls.cert), Some(&mut tls.key), tls.client_ca.as_mut()]);
        let upstream = self.upstream_tls.iter_mut();
        let upstream = upstream.flat_map(|tls| [tls.ca.as_mut(), tls.cert.as_mut(), tls.key.as_mut()]);
        for path in own.chain(upstream).flatten() {
            *path = folder.join(&*path);
        }
        self
    }

    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let own = self.tls.iter().flat_map(|tls| [Some(&tls.cert), Some(&tls.key), tls.client_ca.as_ref()]);
        let upstream = self.upstream_tls.iter();
        let upstream = upstream.flat_map(|tls| [tls.ca.as_ref(), tls.cert.as_ref(), tls.key.as_ref()]);
        own.chain(upstream).flatten().map(PathBuf::as_path)
    }

    /// Everything it can forward to.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.upstream.iter().chain(self.routes.iter().map(|route| &route.upstream))
    }
}

/// One of several upstreams, by host and path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RouteConfig {
    /// The host in small letters, without its port.
    pub host: Option<String>,
    /// A pattern of the path.
    pub path: Option<PathGlob>,
    /// What it forwards to.
    pub upstream: Target,
}

/// An upstream.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Target {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// A name or an address, an IPv6 address without its brackets; or the path of a unix socket.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Target {
    /// The path of the unix socket, where it is one.
    pub fn socket(&self) -> Option<&str> {
        self.host.starts_with('/').then_some(self.host.as_str())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = self.socket() {
            return write!(f, "unix:{path}");
        }
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::H2c => "h2c",
            Scheme::Https => "https",
        };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

/// How an upstream is spoken to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Scheme {
    /// HTTP/1.1 in the clear.
    Http,
    /// HTTP/2 in the clear, from the first byte on.
    H2c,
    /// TLS; HTTP/2 where the upstream offers it.
    Https,
}

/// The host that the upstream is told.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum HostPolicy {
    /// What the caller asked for.
    #[default]
    Preserve,
    /// The upstream's own host and port.
    Upstream,
    /// A name.
    Name(String),
}

/// What a listener is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Forwards to its upstream.
    #[default]
    Reverse,
    /// Forwards to whatever the caller names, `CONNECT` included.
    Forward,
}

/// How long a listener waits. Injected delays do not count.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// For a connection to the upstream, its TLS handshake included.
    pub connect: Span,
    /// For the head of the answer, from the moment the request was sent.
    pub response: Span,
    /// For the next piece of a body, in either direction.
    pub body_stall: Span,
    /// For the head of a request, from its connection's first byte or the request before.
    pub request_header: Span,
    /// For the next request on a connection that has nothing to do.
    pub idle: Span,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            // A lost SYN is sent again after one second; a second loss is somebody else's outage.
            connect: Span::secs(2),
            // Longer than any answer that a person waits for, shorter than the minute at which load balancers give up.
            response: Span::secs(30),
            // As long as for the head: a stream that keeps talking is never cut.
            body_stall: Span::secs(30),
            // A head fits into one packet on any network; ten seconds of it are somebody holding the door open.
            request_header: Span::secs(10),
            // What common clients and load balancers keep their own idle connections for.
            idle: Span::secs(60),
        }
    }
}

/// How much a listener takes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BoundsConfig {
    /// Header fields of a message.
    #[schemars(range(min = 1))]
    pub headers: u32,
    /// Bytes of a message's head.
    pub header_bytes: ByteSize,
    /// Bytes of a request's target, its path and query.
    pub target_bytes: ByteSize,
    /// Connections at one time.
    #[schemars(range(min = 1))]
    pub connections: u32,
    /// HTTP/2 streams of a connection at one time.
    #[schemars(range(min = 1))]
    pub streams: u32,
}

impl Default for BoundsConfig {
    fn default() -> Self {
        Self {
            // The common limit of servers behind a proxy; what is refused here would be refused there.
            headers: 100,
            header_bytes: ByteSize::new(32 << 10),
            // Twice what browsers and most servers take.
            target_bytes: ByteSize::new(16 << 10),
            // About a gigabyte of socket buffers at their worst.
            connections: 10_000,
            // RFC 9113 recommends no less than 100.
            streams: 100,
        }
    }
}

/// A listener's certificate, as files.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// The certificate and its chain, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Whoever vouches for callers; callers without a certificate are then refused.
    pub client_ca: Option<PathBuf>,
}

/// How `https://` upstreams are checked, as files.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTls {
    /// Whoever vouches for the upstream, PEM; the system's authorities where nothing is written.
    pub ca: Option<PathBuf>,
    /// The name in its certificate; the upstream's host where nothing is written.
    pub server_name: Option<String>,
    /// Our certificate, PEM, with its `key`.
    pub cert: Option<PathBuf>,
    /// Our key, PEM.
    pub key: Option<PathBuf>,
}
