//! The way to an upstream: one pool a worker, no locks.
//!
//! Over HTTP/1 most requests have no body, and go by [`Line`]; what has one, upgrades or keeps its case goes by hyper. Of
//! either kind a connection goes back when the body of its answer has been read to the end, and never after an error. Over
//! HTTP/2 all share one.

use std::cell::RefCell;
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
use super::context::Member;
use super::exchange::Line;
use super::head::{FIELDS, Framing, Head};
use super::hop;
use super::idle::{Idle, Reusable};
use super::listen::Setup;
use super::outgoing::Outgoing;
use super::rest::Rest;
use super::wait::{Unanswered, answer};
use super::watchdog::Watchdog;
use super::worker::LocalExec;
use crate::fault::Upward;
use crate::service::{Body, Error, Watch};

/// How often idle connections are looked through: so long one that the upstream has closed may stay half open.
pub(super) const SWEEP: Duration = Duration::from_secs(1);

/// A worker's pools. One is shared by all listeners that go the same way, and is gone with the last of them.
#[derive(Debug)]
pub(super) struct Upstreams {
    watchdog: Rc<Watchdog>,
    pools: RefCell<HashMap<Key, Weak<Pool>>>,
}

/// What makes connections interchangeable: where they go, whose files checked them, and how headers are written.
type Key = (Target, usize, bool, usize);

/// A worker's connections to one upstream.
#[derive(Debug)]
pub(super) struct Pool {
    way: Way,
    watchdog: Rc<Watchdog>,
    /// What the upstream is called.
    pub(super) host: HeaderValue,
    keep_case: bool,
    /// Fields that an answer may have.
    fields: usize,
    lines: Idle<Line>,
    driven: Idle<Driven>,
    shared: RefCell<Option<http2::SendRequest<Body>>>,
    /// One dials and all wait for it, where the connection will be shared.
    dialing: Mutex<()>,
}

/// An HTTP/1 connection that a task of hyper's drives. Dropped in the middle of an exchange it ends at once: hyper alone would
/// first want to flush, and an upstream that reads no more would keep connection and caller for ever.
#[derive(Debug)]
struct Driven {
    sender: http1::SendRequest<Outgoing>,
    task: Option<JoinHandle<hyper::Result<()>>>,
    sent: Sent,
}

impl Reusable for Driven {
    fn is_usable(&mut self) -> bool {
        self.sender.is_ready()
    }
}

impl Driven {
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

impl Drop for Driven {
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
        let key = (target.clone(), files, setup.config.keep_case, fields(setup));
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
            fields: fields(setup),
            lines: Idle::default(),
            driven: Idle::default(),
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
fn fields(setup: &Setup) -> usize {
    (setup.config.bounds.headers as usize).max(FIELDS)
}

impl Pool {
    /// Sends a request, with baggage that is not among its fields, and brings the head of its answer back.
    pub(super) async fn send(
        self: &Rc<Self>,
        timeouts: &Timeouts,
        mut request: Box<Request<Body>>,
        upgrade: bool,
        member: Option<&Member>,
    ) -> Result<Box<Response<Body>>, Error> {
        let shared = match self.way.target.scheme {
            Scheme::Http => false,
            Scheme::H2c => true,
            Scheme::Https => !upgrade && self.ready().is_some(),
        };
        if shared {
            Member::join(member, request.headers_mut());
            return Box::pin(self.on_a_shared(timeouts, request)).await;
        }
        hop::for_http1(&mut request);
        if request.body().is_end_stream() && !upgrade && !self.keep_case {
            return self.on_a_line(timeouts, request, member).await;
        }
        Member::join(member, request.headers_mut());
        Box::pin(self.on_a_driven(timeouts, request, upgrade, None)).await
    }

    /// A request without a body, on HTTP/1.
    async fn on_a_line(
        self: &Rc<Self>,
        timeouts: &Timeouts,
        mut request: Box<Request<Body>>,
        member: Option<&Member>,
    ) -> Result<Box<Response<Body>>, Error> {
        let span = timeouts.response.get();
        let line = self.lines.take();
        if line.is_none()
            && let Some(driven) = self.driven.take()
        {
            Member::join(member, request.headers_mut());
            return Box::pin(self.on_a_driven(timeouts, request, false, Some(driven))).await;
        }
        if let Some(mut line) = line {
            match self.watchdog.within(span, line.ask(&request, member, self.fields)).await {
                Ok(Ok(head)) => return Ok(self.with_body(line, head, timeouts)),
                // It had died unnoticed.
                Ok(Err(failed)) if failed.again => {}
                Ok(Err(failed)) => return Err(failed.error),
                Err(_) => return Err(Error::Timeout),
            }
        }
        Box::pin(async {
            let (stream, h2) = self.connect(timeouts, false).await?;
            if h2 {
                Member::join(member, request.headers_mut());
                self.share(stream).await?;
                return self.on_a_shared(timeouts, request).await;
            }
            let mut line = Line::new(stream);
            match self.watchdog.within(span, line.ask(&request, member, self.fields)).await {
                Ok(Ok(head)) => Ok(self.with_body(line, head, timeouts)),
                Ok(Err(failed)) => Err(failed.error),
                Err(_) => Err(Error::Timeout),
            }
        })
        .await
    }

    /// The answer: mostly all of it has come with its head.
    fn with_body(self: &Rc<Self>, mut line: Line, head: Head, timeouts: &Timeouts) -> Box<Response<Body>> {
        let Head { mut response, framing, keeps } = head;
        match framing {
            Framing::Length(length) if length <= line.seen.len() as u64 => {
                *response.body_mut() = Body::from(line.seen.split_to(length as usize).freeze());
                if keeps {
                    self.put(line);
                }
            }
            _ => {
                let mut body = Body::read(Rest::new(line, framing, keeps, self.clone()));
                body.stall_after(timeouts.body_stall.get());
                *response.body_mut() = body;
            }
        }
        response
    }

    /// A line that may be used again; where more has come than was asked for, it is not.
    pub(super) fn put(&self, line: Line) {
        if line.seen.is_empty() {
            self.lines.put(line);
        }
    }

    /// Any other request, on HTTP/1; or one that found no other connection than this.
    async fn on_a_driven(
        self: &Rc<Self>,
        timeouts: &Timeouts,
        mut request: Box<Request<Body>>,
        upgrade: bool,
        found: Option<Driven>,
    ) -> Result<Box<Response<Body>>, Error> {
        if !request.body().is_end_stream() && hop::is_unannounced(&request) {
            announced(&mut request, timeouts).await?;
        }
        let mut reused = found.or_else(|| self.driven.take());
        if reused.is_none()
            && let Some(line) = self.lines.take()
        {
            reused = Some(self.drive(line.into_stream()).await?);
        }
        if let Some(mut driven) = reused {
            let again = Again::of(&request, &driven.sent);
            match driven.ask(&self.watchdog, timeouts, request).await {
                Ok(response) => return Ok(self.lend(driven, response, timeouts)),
                Err(unanswered) => request = once_more(unanswered, || again.and_then(Again::request))?,
            }
        }
        let (stream, h2) = self.connect(timeouts, upgrade).await?;
        if h2 {
            self.share(stream).await?;
            return self.on_a_shared(timeouts, request).await;
        }
        let mut driven = self.drive(stream).await?;
        match driven.ask(&self.watchdog, timeouts, request).await {
            Ok(response) => Ok(self.lend(driven, response, timeouts)),
            Err(unanswered) => Err(unanswered.error),
        }
    }

    /// Has a task of hyper's drive a connection.
    async fn drive(&self, stream: Stream) -> Result<Driven, Error> {
        let (carrier, sent) = Carrier::new(stream);
        let mut builder = http1::Builder::new();
        builder.preserve_header_case(self.keep_case);
        if self.fields > FIELDS {
            builder.max_headers(self.fields);
        }
        let (sender, connection) = builder.handshake(TokioIo::new(carrier)).await.map_err(Error::Broken)?;
        let task = tokio::task::spawn_local(connection.with_upgrades());
        Ok(Driven { sender, task: Some(task), sent })
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

    fn sweep(&self) -> bool {
        self.lines.sweep();
        self.driven.sweep();
        true
    }

    fn lend(
        self: &Rc<Self>,
        mut driven: Driven,
        mut response: Box<Response<Body>>,
        timeouts: &Timeouts,
    ) -> Box<Response<Body>> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // From here on the connection belongs to whoever takes it over.
            driven.task = None;
        } else if response.body().is_end_stream() {
            self.driven.put(driven);
        } else {
            let body = response.body_mut();
            body.stall_after(timeouts.body_stall.get());
            body.watch(Lease { pool: self.clone(), driven: Some(driven) });
        }
        response
    }
}

/// Gives a connection back when the body of its answer is over. Dropped before that, the connection is closed.
struct Lease {
    pool: Rc<Pool>,
    driven: Option<Driven>,
}

impl Watch for Lease {
    fn end(&mut self, result: Result<(), &Error>) {
        if let Some(driven) = self.driven.take().filter(|_| result.is_ok()) {
            self.pool.driven.put(driven);
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
