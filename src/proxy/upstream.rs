//! The way to an upstream: one pool a worker, no locks.
//!
//! HTTP/1 connections are taken last in, first out, so that the hottest is used and the rest can age. A connection goes
//! back when the body of its answer has been read to the end, and never after an error.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::ready;
use futures_util::stream::once;
use http::header::HeaderValue;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::again::{Again, Carrier, Sent};
use super::config::{Scheme, Target, Timeouts};
use super::connect::{Stream, Way, is_handshake};
use super::hop;
use super::listen::Setup;
use super::outgoing::Outgoing;
use super::serve::HYPERS_FIELDS;
use super::wait::{Unanswered, answer};
use super::watchdog::Watchdog;
use super::worker::LocalExec;
use crate::fault::Upward;
use crate::service::{Body, Error, Watch};

/// Idle connections that a worker keeps for one upstream, at most: as many as nginx is usually told to.
const MOST_IDLE: usize = 256;

/// How often idle connections are looked through.
pub(super) const SWEEP: Duration = Duration::from_secs(5);

/// Sweeps that an idle connection survives, 50 s in all: most servers keep theirs for 60 s or more, some for 5 s and say so
/// by closing.
const SURVIVES: u32 = 10;

/// A worker's pools. One is shared by all listeners that go the same way, and is gone with the last of them.
#[derive(Debug)]
pub(super) struct Upstreams {
    watchdog: Rc<Watchdog>,
    pools: RefCell<HashMap<Key, Weak<Pool>>>,
}

/// What makes connections interchangeable: where they go, whose files checked them, and how headers are written.
type Key = (Target, usize, bool, Option<usize>);

/// A worker's connections to one upstream.
#[derive(Debug)]
pub(super) struct Pool {
    way: Way,
    watchdog: Rc<Watchdog>,
    /// What the upstream is called.
    pub(super) host: HeaderValue,
    keep_case: bool,
    /// Fields of an answer, where more than usual may come.
    fields: Option<usize>,
    idle: RefCell<Vec<(Line, u32)>>,
    sweeps: Cell<u32>,
    shared: RefCell<Option<http2::SendRequest<Body>>>,
    /// One dials and all wait for it, where the connection will be shared.
    dialing: Mutex<()>,
}

/// An HTTP/1 connection. Dropped in the middle of an exchange it ends at once: hyper alone would first want to flush,
/// and an upstream that reads no more would keep connection and caller for ever.
#[derive(Debug)]
struct Line {
    sender: http1::SendRequest<Outgoing>,
    task: Option<JoinHandle<hyper::Result<()>>>,
    sent: Sent,
}

impl Line {
    async fn ask(
        &mut self,
        watchdog: &Watchdog,
        timeouts: &Timeouts,
        request: Box<Request<Body>>,
    ) -> Result<Box<Response<Body>>, Unanswered> {
        self.tell(&request);
        let send = |request: Request<Body>| self.sender.try_send_request(request.map(Outgoing::from));
        answer(watchdog, timeouts, request, send).await
    }

    /// Tells a fault in the body of a request where it goes.
    fn tell(&self, request: &Request<Body>) {
        if !request.body().is_end_stream()
            && let Some(upward) = request.extensions().get::<Upward>()
        {
            upward.goes(self.sent.outlet());
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Upstreams {
    pub(super) fn new(watchdog: Rc<Watchdog>) -> Self {
        Self { watchdog, pools: RefCell::default() }
    }

    /// The pool for an upstream of a listener.
    pub(super) fn pool(&self, target: &Target, setup: &Setup) -> Rc<Pool> {
        let tls = setup.tls.client.as_ref().filter(|_| target.scheme == Scheme::Https);
        let files = tls.map_or(0, |tls| std::sync::Arc::as_ptr(tls).addr());
        let key = (target.clone(), files, setup.config.keep_case, more_fields(setup));
        let mut pools = self.pools.borrow_mut();
        if let Some(pool) = pools.get(&key).and_then(Weak::upgrade) {
            return pool;
        }
        let name = setup.config.upstream_tls.as_ref().and_then(|tls| tls.server_name.as_deref());
        let pool = Rc::new(Pool {
            way: Way::new(target.clone(), tls.cloned(), name),
            watchdog: self.watchdog.clone(),
            host: hop::host_of(target),
            keep_case: setup.config.keep_case,
            fields: more_fields(setup),
            idle: RefCell::default(),
            sweeps: Cell::new(0),
            shared: RefCell::default(),
            dialing: Mutex::default(),
        });
        pools.insert(key, Rc::downgrade(&pool));
        pool
    }

    /// Closes what has been idle for too long, and forgets pools that nobody uses any more.
    pub(super) fn sweep(&self) {
        self.pools.borrow_mut().retain(|_, pool| pool.upgrade().is_some_and(|pool| pool.sweep()));
    }
}

/// Waits for the first of a body that HTTP/2 does not announce: for most there is none, and none must be announced then.
async fn announced(request: &mut Request<Body>, timeouts: &Timeouts) -> Result<(), Error> {
    let mut body = std::mem::replace(request.body_mut(), Body::empty());
    body.stall_after(timeouts.body_stall.get());
    let first = loop {
        match body.frame().await {
            None => return Ok(()),
            Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
            Some(Ok(frame)) => break frame,
            Some(Err(Error::Body(error))) => return Err(Error::Upload(error)),
            Some(Err(error)) => return Err(error),
        }
    };
    hop::announce(request);
    let whole = once(ready(Ok(first))).chain(BodyStream::new(body));
    *request.body_mut() = Body::faulted(StreamBody::new(whole));
    Ok(())
}

/// Callers and upstreams are held to the same bound, but for what hyper takes anyway.
fn more_fields(setup: &Setup) -> Option<usize> {
    let fields = setup.config.bounds.headers;
    (fields > HYPERS_FIELDS).then_some(fields as usize)
}

impl Pool {
    /// Sends a request, and brings the head of its answer back.
    pub(super) async fn send(
        self: &Rc<Self>,
        timeouts: &Timeouts,
        mut request: Box<Request<Body>>,
        upgrade: bool,
    ) -> Result<Box<Response<Body>>, Error> {
        let shared = match self.way.target.scheme {
            Scheme::Http => false,
            Scheme::H2c => true,
            Scheme::Https => !upgrade && self.ready().is_some(),
        };
        if shared {
            return Box::pin(self.on_a_shared(timeouts, request)).await;
        }
        hop::for_http1(&mut request);
        if !request.body().is_end_stream() && hop::is_unannounced(&request) {
            Box::pin(announced(&mut request, timeouts)).await?;
        }
        if let Some(mut line) = self.take() {
            let again = Again::of(&request, &line.sent);
            match line.ask(&self.watchdog, timeouts, request).await {
                Ok(response) => return Ok(self.lend(line, response, timeouts)),
                Err(unanswered) => request = once_more(unanswered, || again.and_then(Again::request))?,
            }
        }
        Box::pin(self.on_a_fresh(timeouts, request, upgrade)).await
    }

    /// On a connection that is made for it.
    async fn on_a_fresh(
        self: &Rc<Self>,
        timeouts: &Timeouts,
        request: Box<Request<Body>>,
        upgrade: bool,
    ) -> Result<Box<Response<Body>>, Error> {
        let (stream, h2) = self.connect(timeouts, upgrade).await?;
        if h2 {
            self.share(stream).await?;
            return self.on_a_shared(timeouts, request).await;
        }
        let (carrier, sent) = Carrier::new(stream);
        let mut builder = http1::Builder::new();
        builder.preserve_header_case(self.keep_case);
        if let Some(fields) = self.fields {
            builder.max_headers(fields);
        }
        let (sender, connection) = builder.handshake(TokioIo::new(carrier)).await.map_err(Error::Broken)?;
        let task = tokio::task::spawn_local(connection.with_upgrades());
        let mut line = Line { sender, task: Some(task), sent };
        match line.ask(&self.watchdog, timeouts, request).await {
            Ok(response) => Ok(self.lend(line, response, timeouts)),
            Err(unanswered) => Err(unanswered.error),
        }
    }

    /// On the HTTP/2 connection that all share.
    async fn on_a_shared(
        &self,
        timeouts: &Timeouts,
        mut request: Box<Request<Body>>,
    ) -> Result<Box<Response<Body>>, Error> {
        hop::for_http2(&mut request, self.way.target.scheme)?;
        let whole = |mut response: Box<Response<Body>>| {
            response.body_mut().stall_after(timeouts.body_stall.get());
            response
        };
        if let Some(mut sender) = self.ready() {
            let again = Again::copy(&request);
            match answer(&self.watchdog, timeouts, request, |request| sender.try_send_request(request)).await {
                Ok(response) => return Ok(whole(response)),
                Err(unanswered) => request = once_more(unanswered, || again.filter(|_| sender.is_closed()))?,
            }
        }
        let mut sender = {
            let _alone = self.dialing.lock().await;
            match self.ready() {
                Some(sender) => sender,
                None => {
                    let (stream, _) = self.connect(timeouts, false).await?;
                    self.share(stream).await?
                }
            }
        };
        match answer(&self.watchdog, timeouts, request, |request| sender.try_send_request(request)).await {
            Ok(response) => Ok(whole(response)),
            Err(unanswered) => Err(unanswered.error),
        }
    }

    /// The shared connection, if there is one and it takes requests.
    fn ready(&self) -> Option<http2::SendRequest<Body>> {
        self.shared.borrow().clone().filter(|sender| !sender.is_closed())
    }

    async fn share(&self, stream: Stream) -> Result<http2::SendRequest<Body>, Error> {
        let handshake = http2::handshake(LocalExec, TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(Error::Broken)?;
        tokio::task::spawn_local(connection);
        *self.shared.borrow_mut() = Some(sender.clone());
        Ok(sender)
    }

    async fn connect(&self, timeouts: &Timeouts, upgrade: bool) -> Result<(Stream, bool), Error> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time");
        let connected = timeout(timeouts.connect.get(), self.way.connect(upgrade)).await.map_err(late).flatten();
        connected.map_err(|error| if is_handshake(&error) { Error::Tls(error) } else { Error::Connect(error) })
    }

    fn take(&self) -> Option<Line> {
        let mut idle = self.idle.borrow_mut();
        while let Some((line, _)) = idle.pop() {
            if line.sender.is_ready() {
                return Some(line);
            }
        }
        None
    }

    fn put(&self, line: Line) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= MOST_IDLE {
            idle.remove(0);
        }
        idle.push((line, self.sweeps.get()));
    }

    fn sweep(&self) -> bool {
        let now = self.sweeps.get().wrapping_add(1);
        self.sweeps.set(now);
        self.idle.borrow_mut().retain(|(line, since)| line.sender.is_ready() && now.wrapping_sub(*since) <= SURVIVES);
        true
    }

    fn lend(
        self: &Rc<Self>,
        mut line: Line,
        mut response: Box<Response<Body>>,
        timeouts: &Timeouts,
    ) -> Box<Response<Body>> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // From here on the connection belongs to whoever takes it over.
            line.task = None;
        } else if response.body().is_end_stream() {
            self.put(line);
        } else {
            let body = response.body_mut();
            body.stall_after(timeouts.body_stall.get());
            body.watch(Lease { pool: self.clone(), line: Some(line) });
        }
        response
    }
}

/// Gives a connection back when the body of its answer is over. Dropped before that, the connection is closed.
struct Lease {
    pool: Rc<Pool>,
    line: Option<Line>,
}

impl Watch for Lease {
    fn end(&mut self, result: Result<(), &Error>) {
        if let Some(line) = self.line.take().filter(|_| result.is_ok()) {
            self.pool.put(line);
        }
    }
}

/// The request once more: nothing of it was sent, or nothing that must not be sent twice; the connection had died unnoticed.
fn once_more(
    unanswered: Unanswered,
    again: impl FnOnce() -> Option<Request<Body>>,
) -> Result<Box<Request<Body>>, Error> {
    match unanswered {
        Unanswered { unsent: Some(unsent), .. } => Ok(unsent),
        Unanswered { error, unsent: None } if died(&error) => again().map(Box::new).ok_or(error),
        Unanswered { error, .. } => Err(error),
    }
}

/// Whether the connection was gone, as against there and talking nonsense.
fn died(error: &Error) -> bool {
    match error {
        Error::Broken(error) => {
            error.is_incomplete_message() || error.is_canceled() || error.is_closed() || is_io(error)
        }
        _ => false,
    }
}

fn is_io(error: &hyper::Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.is::<io::Error>())
}
