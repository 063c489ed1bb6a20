//! Faults around one call, folded at run time: only treated calls pay for the boxes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{Method, Request, Response};
use tokio_util::sync::CancellationToken;
use tower::{Layer, Service, ServiceExt};

use super::overload::Taken;
use super::stream::Treatment;
use super::{Duplicate, Fault, Spared};
use crate::service::{Body, Error};

/// What a call draws its chances from: the same call of the same run draws the same.
#[derive(Clone, Copy, Debug)]
pub struct Draw(pub u64);

impl Draw {
    /// Uniform in [0, 1), another one for every salt.
    pub fn uniform(self, salt: u64) -> f64 {
        crate::chance::unit(self.bits(salt))
    }

    /// 64 uniform bits, others for every salt.
    pub(super) fn bits(self, salt: u64) -> u64 {
        // splitmix64 (Steele, Lea and Flood 2014): one round spreads neighbouring inputs over all bits.
        let mut z = self.0.wrapping_add(salt.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Marks an answer that a fault made, with the fault's kind, so that nobody blames the upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Injected(pub &'static str);

impl Fault {
    /// Why this fault cannot be injected by this version, where it cannot.
    pub fn not_yet(&self) -> Option<String> {
        match self {
            Self::Latency(latency) => latency.not_yet(),
            _ => None,
        }
    }

    /// The same fault as one injection has it: what its calls share begins anew. `twice` are methods that may be sent
    /// twice beside the safe ones.
    pub fn begun(mut self, twice: &[Method]) -> Self {
        match &mut self {
            Self::Error(error) => error.prepare(),
            Self::Duplicate(duplicate) => *duplicate = Duplicate { more: twice.to_vec(), ..Duplicate::default() },
            Self::Overload(overload) => overload.taken = Taken::default(),
            _ => {}
        }
        self
    }

    /// Whether every call that gets here meets it; else it says to the call's [`Witness`](super::Witness) which did.
    pub fn meets_every_call(&self) -> bool {
        !matches!(self, Self::Duplicate(_) | Self::Overload(_)) && !self.meets_bodies()
    }

    /// Why this fault passes a call with this head by, where it does.
    pub fn spares<B>(&self, request: &Request<B>) -> Option<Spared> {
        match self {
            Self::Duplicate(duplicate) => duplicate.spares(request),
            _ => None,
        }
    }

    /// What it does to a body on its way, if that is what it does.
    pub(super) fn treatment(&self) -> Option<Treatment> {
        match self {
            Self::Latency(latency) => latency.per_chunk(),
            Self::Drop(drop) => drop.tear(),
            Self::Body(body) => body.treatment(),
            Self::Throttle(throttle) => Some(throttle.treatment()),
            _ => None,
        }
    }

    /// Whether it meets bodies on their way and nothing else: a call without a body has not met it.
    pub fn meets_bodies(&self) -> bool {
        self.treatment().is_some()
    }

    /// Puts this fault around an upstream, for one call; `salt` tells it from the others around the same call.
    fn wrap(&self, inner: Once, salt: u64, stop: &CancellationToken) -> Once {
        if let Some(treatment) = self.treatment() {
            return Once::new(treatment.layer(salt).until(stop.clone()).layer(inner));
        }
        match self {
            Self::Latency(latency) => Once::new(latency.layer(salt).until(stop.clone()).layer(inner)),
            Self::Error(error) => Once::new(error.layer().layer(inner)),
            // Whoever has the connection sees to it.
            _ if self.meets_connections() => inner,
            Self::Drop(drop) => Once::new(drop.layer().until(stop.clone()).layer(inner)),
            Self::Headers(headers) => Once::new(headers.layer().layer(inner)),
            Self::Duplicate(duplicate) => Once::new(duplicate.layer().until(stop.clone()).layer(inner)),
            Self::Overload(overload) => Once::new(overload.layer().layer(inner)),
            // `not_yet` was asked before the run began.
            _ => inner,
        }
    }
}

/// Puts faults around an upstream for one call; the first written is the outermost. `stop` lets go whoever is held.
pub fn stack(faults: &[Fault], upstream: Once, stop: &CancellationToken) -> Once {
    faults.iter().enumerate().rev().fold(upstream, |inner, (salt, fault)| fault.wrap(inner, salt as u64, stop))
}

type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;
type Call = dyn Fn(Request<Body>) -> LocalFuture<Result<Response<Body>, Error>>;

/// A service in a box for one call, which a fault may send a second time. Only treated calls pay for it.
#[derive(Clone)]
pub struct Once(Rc<Call>);

impl Once {
    /// Puts a service into a box.
    pub fn new<S>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Error> + Clone + 'static,
    {
        Self(Rc::new(move |request| Box::pin(service.clone().oneshot(request))))
    }
}

impl Service<Request<Body>> for Once {
    type Response = Response<Body>;
    type Error = Error;
    type Future = LocalFuture<Result<Response<Body>, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        (self.0)(request)
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Once(..)")
    }
}
