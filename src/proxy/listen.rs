//! From an accepted connection to its last request.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::config::ListenerConfig;
use super::hop;
use super::route::route;
use super::trial::{self, Trial};
use super::wire::{Socket, Wire};
use super::worker::{Counted, LocalExec, Worker};
use crate::service::{Body, Cut, Error, Origin, Watch};

/// The field that marks answers which did not come from the upstream.
pub const MARK: HeaderName = HeaderName::from_static("x-pratfall");

/// A listener as all workers see it.
#[derive(Debug)]
pub struct Listener {
    /// Its place among the listeners.
    pub index: usize,
    /// Its configuration.
    pub config: ListenerConfig,
    /// How many runs are live: one load and one branch for everybody else.
    pub(super) live: AtomicUsize,
    /// The runs that are live.
    pub(super) trials: ArcSwap<Vec<Arc<Trial>>>,
    pub(super) drain: CancellationToken,
    /// What was counted.
    pub stats: Stats,
}

/// What a listener counted; each field only grows.
#[derive(Debug, Default)]
pub struct Stats {
    /// Answers by class of status: 1xx to 5xx, and none at all.
    pub answers: [AtomicU64; 6],
    /// Errors that the proxy met itself.
    pub proxy_errors: AtomicU64,
    /// Connections that were accepted.
    pub accepted: AtomicU64,
}

impl Listener {
    /// A listener that nobody has bound yet.
    pub fn new(index: usize, config: ListenerConfig, drain: CancellationToken) -> Arc<Self> {
        let trials = ArcSwap::from_pointee(Vec::new());
        Arc::new(Self { index, config, live: AtomicUsize::new(0), trials, drain, stats: Stats::default() })
    }

    /// The runs that are live here.
    pub fn trials(&self) -> Arc<Vec<Arc<Trial>>> {
        self.trials.load_full()
    }
}

/// What the requests of one connection share.
pub(super) struct Connection {
    pub(super) worker: Rc<Worker>,
    pub(super) listener: Arc<Listener>,
    pub(super) peer: SocketAddr,
    socket: Socket,
}

/// Serves one connection to its end.
pub(super) async fn serve(
    worker: Rc<Worker>,
    listener: Arc<Listener>,
    stream: std::net::TcpStream,
    peer: SocketAddr,
    _counted: Counted,
) {
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let socket = Socket::new(stream);
    let io = TokioIo::new(Wire::new(socket.clone()));
    let connection = Rc::new(Connection { worker, listener: listener.clone(), peer, socket: socket.clone() });
    let mut builder = auto::Builder::new(LocalExec);
    // The socket looks after slow heads and idle connections itself: hyper has one timeout for both, sets a timer for
    // each request, and none before the first byte.
    builder.http1().header_read_timeout(None);
    // RFC 9113, 6.5.2 recommends at least 100 streams; more would let one connection crowd out the others.
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(100).max_header_list_size(64 * 1024);
    let service = service_fn(move |request: Request<Incoming>| {
        let connection = connection.clone();
        async move { connection.answer(request.map(Body::from)).await }
    });
    let mut serving = pin!(builder.serve_connection(io, service));
    let timeouts = &listener.config.timeouts;
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = listener.drain.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
        () = socket.abandoned(timeouts) => {
            // On HTTP/2 the caller is told, and has the time of a head to hear it.
            serving.as_mut().graceful_shutdown();
            let Ok(served) = tokio::time::timeout(timeouts.request_header.get(), serving).await else { return };
            served
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

impl Connection {
    /// One request: route, *(only while a run is live)* trial, upstream. Whatever the proxy itself meets becomes an answer.
    async fn answer(self: Rc<Self>, request: Request<Body>) -> Result<Response<Body>, Error> {
        let version = request.version();
        let busy = self.socket.begin(version);
        let result = if self.listener.live.load(Ordering::Relaxed) > 0 {
            Box::pin(self.clone().tried(request)).await
        } else {
            forward(&self.worker, &self.listener, request).await
        };
        let stats = &self.listener.stats;
        let response = match result {
            Ok(response) => response,
            // Nobody is there to read an answer.
            Err(Error::Gone) => return Err(Error::Gone),
            Err(error) if error.origin() == Origin::Injected => {
                // On HTTP/2 the stream alone is reset: others share the connection.
                if matches!(error, Error::Injected(Cut::Reset, _)) && version < Version::HTTP_2 {
                    self.socket.reset();
                }
                stats.answers[5].fetch_add(1, Ordering::Relaxed);
                return Err(error);
            }
            Err(error) => {
                stats.proxy_errors.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(listener = self.listener.config.name, error = error.chain(), "no answer");
                let mut response = made_up(&error, self.listener.config.mark);
                // What cannot be trusted to have been read to its end is the last on its connection.
                if matches!(error.origin(), Origin::Caller | Origin::Proxy)
                    && version < Version::HTTP_2
                    && !matches!(error, Error::NoRoute)
                {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                response
            }
        };
        let class = usize::from(response.status().as_u16() / 100).clamp(1, 5) - 1;
        stats.answers[class].fetch_add(1, Ordering::Relaxed);
        let response = response.map(|body| body.keep(busy));
        if version == Version::HTTP_10 {
            let socket = self.socket.clone();
            return Ok(response.map(|body| body.watch(|before| Torn { socket, before })));
        }
        Ok(response)
    }

    async fn tried(self: Rc<Self>, request: Request<Body>) -> Result<Response<Body>, Error> {
        let trials = self.listener.trials();
        let here = trial::Here {
            worker: &self.worker,
            listener: &self.listener,
            caller: self.peer.ip(),
            socket: Some(&self.socket),
            trials: &trials,
        };
        // Checked before a trial sees it: what is refused is nobody's unit.
        hop::refuse(&request)?;
        let (worker, listener) = (self.worker.clone(), self.listener.clone());
        let next: trial::Next = Rc::new(move |request| {
            let (worker, listener) = (worker.clone(), listener.clone());
            Box::pin(async move { forward(&worker, &listener, request).await })
        });
        trial::pass(&here, request, next).await
    }
}

/// A caller of HTTP/1.0 takes the end of the connection for the end of the body: only an RST tells it that this is torn.
struct Torn {
    socket: Socket,
    before: Option<Box<dyn Watch>>,
}

impl Watch for Torn {
    fn piece(&mut self) {
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
        if result.is_err() {
            self.socket.reset();
        }
        if let Some(before) = self.before {
            before.end(result);
        }
    }
}

/// Sends a request on, and brings the answer back.
async fn forward(worker: &Worker, listener: &Listener, mut request: Request<Body>) -> Result<Response<Body>, Error> {
    hop::refuse(&request)?;
    let config = &listener.config;
    let target = route(config, &request).ok_or(Error::NoRoute)?;
    hop::strip(request.headers_mut());
    hop::address(&mut request, target, &config.host)?;
    let mut response = worker.upstreams.send(target, &config.timeouts, request).await?;
    hop::strip(response.headers_mut());
    // RFC 9110, 2.5: a version is a matter of the hop.
    *response.version_mut() = Version::HTTP_11;
    Ok(response)
}

/// The answer to a request that the proxy could not send on.
fn made_up(error: &Error, mark: bool) -> Response<Body> {
    let status = match error {
        Error::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Error::Refused(_) | Error::Upload(_) => StatusCode::BAD_REQUEST,
        Error::Stalled(_) => StatusCode::REQUEST_TIMEOUT,
        Error::NoRoute => StatusCode::NOT_FOUND,
        _ => StatusCode::BAD_GATEWAY,
    };
    let mut response = Response::new(Body::from(bytes::Bytes::from(format!("pratfall: {error}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if mark && let Ok(value) = HeaderValue::try_from(format!("proxy; error={}", error.kind())) {
        headers.insert(MARK, value);
    }
    response
}
