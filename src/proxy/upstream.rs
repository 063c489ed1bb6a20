//! The way to an upstream: one pool a worker, no locks.
//!
//! HTTP/1 connections are taken last in, first out, so that the hottest is used and the rest can age. A connection goes
//! back when the body of its answer has been read to the end, and never after an error.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::config::{Scheme, Target, Timeouts};
use super::worker::LocalExec;
use crate::service::{Body, Error, Watch};

/// Idle connections that a worker keeps for one upstream, at most: as many as nginx is usually told to.
const MOST_IDLE: usize = 256;

/// How long an idle connection is trusted: most servers keep theirs for 60 s or more, some for 5 s and say so by closing.
const IDLE_FOR: Duration = Duration::from_secs(50);

/// A worker's connections to all upstreams.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    pools: RefCell<HashMap<Target, Rc<Pool>>>,
}

#[derive(Debug, Default)]
struct Pool {
    idle: RefCell<Vec<(Line, Instant)>>,
    shared: RefCell<Option<http2::SendRequest<Body>>>,
}

/// An HTTP/1 connection. Dropped in the middle of an exchange it ends at once: hyper alone would first want to flush,
/// and an upstream that reads no more would keep connection and caller for ever.
#[derive(Debug)]
struct Line {
    sender: http1::SendRequest<Body>,
    task: JoinHandle<hyper::Result<()>>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstreams {
    /// Sends a request that has the upstream's form already.
    pub(super) async fn send(
        &self,
        target: &Target,
        timeouts: &Timeouts,
        request: Request<Body>,
    ) -> Result<Response<Body>, Error> {
        let pool = self.pool(target);
        match target.scheme {
            Scheme::Http => pool.send_h1(target, timeouts, request).await,
            Scheme::H2c => pool.send_h2(target, timeouts, request).await,
            Scheme::Https => Err(Error::Refused("upstreams over TLS are not served by this version")),
        }
    }

    fn pool(&self, target: &Target) -> Rc<Pool> {
        if let Some(pool) = self.pools.borrow().get(target) {
            return pool.clone();
        }
        self.pools.borrow_mut().entry(target.clone()).or_default().clone()
    }
}

impl Pool {
    async fn send_h1(
        self: Rc<Self>,
        target: &Target,
        timeouts: &Timeouts,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Error> {
        if let Some(mut line) = self.take() {
            let again = Again::of(&request);
            match answer(timeouts, request, |request| line.sender.try_send_request(request)).await? {
                Ok(response) => return Ok(self.lend(line, response, timeouts)),
                // Nothing was sent, or nothing that must not be sent twice: the connection had died unnoticed.
                Err(Unanswered { unsent: Some(unsent), .. }) => request = *unsent,
                Err(Unanswered { error, unsent: None }) => match again {
                    Some(again) if died(&error) => request = again.request(),
                    _ => return Err(error),
                },
            }
        }
        let stream = connect(target, timeouts).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(Error::Broken)?;
        let mut line = Line { sender, task: tokio::task::spawn_local(connection) };
        match answer(timeouts, request, |request| line.sender.try_send_request(request)).await? {
            Ok(response) => Ok(self.lend(line, response, timeouts)),
            Err(unanswered) => Err(unanswered.error),
        }
    }

    async fn send_h2(
        self: Rc<Self>,
        target: &Target,
        timeouts: &Timeouts,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Error> {
        let whole =
            |response: Response<Incoming>| response.map(|body| Body::from(body).stall_after(timeouts.body_stall.get()));
        let ready = self.shared.borrow().clone().filter(|sender| !sender.is_closed());
        if let Some(mut sender) = ready {
            let again = Again::of(&request);
            match answer(timeouts, request, |request| sender.try_send_request(request)).await? {
                Ok(response) => return Ok(whole(response)),
                Err(Unanswered { unsent: Some(unsent), .. }) => request = *unsent,
                Err(Unanswered { error, unsent: None }) => match again {
                    Some(again) if died(&error) && sender.is_closed() => request = again.request(),
                    _ => return Err(error),
                },
            }
        }
        let stream = connect(target, timeouts).await?;
        let handshake = http2::handshake(LocalExec, TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(Error::Broken)?;
        tokio::task::spawn_local(connection);
        *self.shared.borrow_mut() = Some(sender.clone());
        match answer(timeouts, request, |request| sender.try_send_request(request)).await? {
            Ok(response) => Ok(whole(response)),
            Err(unanswered) => Err(unanswered.error),
        }
    }

    fn take(&self) -> Option<Line> {
        let mut idle = self.idle.borrow_mut();
        while let Some((line, since)) = idle.pop() {
            if line.sender.is_ready() && since.elapsed() < IDLE_FOR {
                return Some(line);
            }
        }
        None
    }

    fn put(&self, line: Line) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= MOST_IDLE || idle.first().is_some_and(|(_, since)| since.elapsed() > IDLE_FOR) {
            idle.remove(0);
        }
        idle.push((line, Instant::now()));
    }

    fn lend(self: Rc<Self>, line: Line, response: Response<Incoming>, timeouts: &Timeouts) -> Response<Body> {
        let (head, body) = response.into_parts();
        if body.is_end_stream() {
            self.put(line);
            return Response::from_parts(head, Body::empty());
        }
        let body = Body::from(body).stall_after(timeouts.body_stall.get());
        Response::from_parts(head, body.watch(|before| Lease { pool: self, line, before }))
    }
}

/// Gives a connection back when the body of its answer is over. Dropped before that, the connection is closed.
struct Lease {
    pool: Rc<Pool>,
    line: Line,
    before: Option<Box<dyn Watch>>,
}

impl Watch for Lease {
    fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some(before) = &mut self.before {
            before.trailers(trailers);
        }
    }

    fn end(self: Box<Self>, result: Result<(), &Error>) {
        if result.is_ok() {
            self.pool.put(self.line);
        }
        if let Some(before) = self.before {
            before.end(result);
        }
    }
}

/// A request that may be sent again: a GET or HEAD without a body.
struct Again {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Again {
    fn of(request: &Request<Body>) -> Option<Self> {
        let safe = matches!(*request.method(), Method::GET | Method::HEAD) && request.body().is_end_stream();
        safe.then(|| Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        })
    }

    fn request(self) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
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

/// Why there is no answer, and the request where nothing of it was sent.
struct Unanswered {
    error: Error,
    unsent: Option<Box<Request<Body>>>,
}

/// Waits for the head of the answer. The timeout runs from the end of the request, so that an upload may take its time
/// as long as it moves.
async fn answer<F>(
    timeouts: &Timeouts,
    request: Request<Body>,
    send: impl FnOnce(Request<Body>) -> F,
) -> Result<Result<Response<Incoming>, Unanswered>, Error>
where
    F: Future<Output = Result<Response<Incoming>, TrySendError<Request<Body>>>>,
{
    let (span, stall) = (timeouts.response.get(), timeouts.body_stall.get());
    if request.body().is_end_stream() {
        let sent = timeout(span, send(request)).await.map_err(|_| Error::Timeout)?;
        return Ok(sent.map_err(|error| unanswered(error, Error::Broken)));
    }
    let upload = Rc::new(Cell::new(Upload::Moved(Instant::now())));
    let moving = upload.clone();
    let request = request.map(|body| body.stall_after(stall).watch(|before| Sent { upload: moving, before }));
    let mut sending = std::pin::pin!(send(request));
    let mut deadline = Instant::now() + span;
    loop {
        if let Ok(sent) = tokio::time::timeout_at(deadline, &mut sending).await {
            let why = match upload.get() {
                Upload::Broken => Error::Upload,
                Upload::Stalled => Error::Stalled,
                _ => Error::Broken,
            };
            return Ok(sent.map_err(|error| unanswered(error, why)));
        }
        deadline = match upload.get() {
            // Longer than the caller may stand still: here it is the upstream that takes nothing.
            Upload::Moved(at) => at + stall + span,
            Upload::Sent(at) => at + span,
            Upload::Broken | Upload::Stalled => return Err(Error::Timeout),
        };
        if deadline <= Instant::now() {
            return Err(Error::Timeout);
        }
    }
}

fn unanswered(mut error: TrySendError<Request<Body>>, why: impl FnOnce(hyper::Error) -> Error) -> Unanswered {
    Unanswered { unsent: error.take_message().map(Box::new), error: why(error.into_error()) }
}

/// How far the body of a request is.
#[derive(Clone, Copy)]
enum Upload {
    Moved(Instant),
    Sent(Instant),
    Broken,
    Stalled,
}

/// Notes how far the body of a request is.
struct Sent {
    upload: Rc<Cell<Upload>>,
    before: Option<Box<dyn Watch>>,
}

impl Watch for Sent {
    fn piece(&mut self) {
        self.upload.set(Upload::Moved(Instant::now()));
        if let Some(before) = &mut self.before {
            before.piece();
        }
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some(before) = &mut self.before {
            before.trailers(trailers);
        }
    }

    fn end(self: Box<Self>, result: Result<(), &Error>) {
        self.upload.set(match result {
            Ok(()) => Upload::Sent(Instant::now()),
            Err(Error::Timeout) => Upload::Stalled,
            Err(_) => Upload::Broken,
        });
        if let Some(before) = self.before {
            before.end(result);
        }
    }
}

async fn connect(target: &Target, timeouts: &Timeouts) -> Result<TcpStream, Error> {
    let connecting = TcpStream::connect((target.host.as_str(), target.port));
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time");
    let stream = timeout(timeouts.connect.get(), connecting).await.map_err(late).flatten().map_err(Error::Connect)?;
    stream.set_nodelay(true).map_err(Error::Connect)?;
    Ok(stream)
}
