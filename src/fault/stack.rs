//! Faults around one call, folded at run time: only treated calls pay for the boxes.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tokio_util::sync::CancellationToken;
use tower::{Layer, Service, ServiceExt};

use super::Fault;
use super::stream::Treatment;
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
            Self::Error(error) => error.not_yet(),
            Self::Drop(drop) => drop.not_yet(),
            Self::Body(_) | Self::Throttle(_) => None,
            _ => Some(format!("`{}` is read but not injected by this version", self.kind())),
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
            Self::Drop(drop) => Once::new(drop.layer().until(stop.clone()).layer(inner)),
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
type Call = dyn FnOnce(Request<Body>) -> LocalFuture<Result<Response<Body>, Error>>;

/// A service in a box that is called once, by whichever clone is first. Only treated calls pay for it.
#[derive(Clone)]
pub struct Once(Rc<Cell<Option<Box<Call>>>>);

impl Once {
    /// Puts a service into a box.
    pub fn new<S>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Error> + 'static,
    {
        let call: Box<Call> = Box::new(|request| Box::pin(service.oneshot(request)));
        Self(Rc::new(Cell::new(Some(call))))
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
        match self.0.take() {
            Some(call) => call(request),
            None => Box::pin(std::future::ready(Err(Error::Refused("a call was made twice")))),
        }
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Once(..)")
    }
}
