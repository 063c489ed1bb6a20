//! One connection, from its first byte to its last request.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::answer::Connection;
use super::config::{BoundsConfig, ListenerConfig};
use super::greet::{Greeting, greet};
use super::head;
use super::listen::Stats;
use super::peer;
use super::site::{Plan, Site};
use super::watchdog::{End, Until};
use super::wire::{Protocol, Socket, Wire};
use super::worker::{Counted, LocalExec, Worker};
use crate::service::Body;

/// Streams that a caller may open and reset before we have answered: the default of h2, written down because CVE-2023-44487
/// (rapid reset) lives here.
const RESET_STREAMS: usize = 20;

/// Resets that we may be made to send, for the same reason (RUSTSEC-2024-0003).
const LOCAL_RESETS: usize = 1024;

/// Serves one connection to its end.
pub(super) async fn serve(
    worker: Rc<Worker>,
    site: Rc<Site>,
    stream: std::net::TcpStream,
    peer: SocketAddr,
    counted: Counted,
) {
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let plan = site.plan();
    let config = plan.config();
    let socket = Socket::new(stream, worker.watchdog.clock());
    socket.patience(Some(config.timeouts.body_stall.get()));
    let mut wire = Wire::new(socket.clone());
    let mut caller = peer;
    if config.proxy_protocol {
        let announced = tokio::select! {
            announced = timeout(config.timeouts.request_header.get(), peer::announced(&mut wire, peer)) => announced,
            () = site.listener.drain.cancelled() => return,
        };
        caller = match announced {
            Ok(Ok(told)) => told,
            Ok(Err(error)) => return tracing::debug!(listener = config.name, %peer, %error, "no PROXY protocol"),
            Err(_) => return,
        };
        socket.greeted();
    }
    let connection = Rc::new(Connection { worker, site, caller, socket, _counted: counted });
    let mut tls = plan.setup.tls.server.clone();
    if connection.site.listener.live.load(Ordering::Relaxed) > 0 {
        match Box::pin(greet(&connection, &plan)).await {
            Greeting::AsEver => {}
            Greeting::With(other) => tls = Some(other),
            Greeting::NoMore => return,
        }
    }
    let Some(tls) = tls else {
        let first = connection.watched(&plan, pin!(wire.protocol())).await;
        return match first {
            Ok(Ok(protocol)) => speak(wire, protocol, &plan, connection).await,
            Err(End::SlowHead) => too_late(wire, config, connection.site.stats()).await,
            Ok(Err(_)) | Err(_) => {}
        };
    };
    // A box: who speaks in the clear need not keep room for a handshake.
    Box::pin(secured(wire, tls, &plan, connection)).await;
}

async fn secured(wire: Wire, tls: Arc<ServerConfig>, plan: &Rc<Plan>, connection: Rc<Connection>) {
    let config = plan.config();
    connection.socket.encrypt();
    let shaken = tokio::select! {
        shaken = timeout(config.timeouts.request_header.get(), TlsAcceptor::from(tls).accept(wire)) => shaken,
        () = connection.site.listener.drain.cancelled() => return,
    };
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return tracing::debug!(listener = config.name, peer = %connection.caller, %error, "no TLS");
        }
        Err(_) => return,
    };
    connection.socket.greeted();
    // RFC 9113, 3.2: over TLS, HTTP/2 is agreed on and nothing else.
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let protocol = if h2 { Protocol::Http2 } else { Protocol::Http1 };
    speak(stream, protocol, plan, connection).await;
}

async fn speak<I>(io: I, protocol: Protocol, plan: &Rc<Plan>, connection: Rc<Connection>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config = plan.config();
    let patience = config.timeouts.request_header.get();
    let answers = connection.clone();
    let answer = move |request: Request<Incoming>| answers.clone().answer(Box::new(request.map(Body::from)));
    let result = match protocol {
        Protocol::Http1 => {
            let mut builder = http1::Builder::new();
            // The watchdog looks after slow heads and idle connections: hyper has one timeout for both, sets a timer for
            // each request, and none before the first byte.
            builder.header_read_timeout(None).preserve_header_case(config.keep_case);
            // Our own bounds are looked at later, and say who refused; hyper's must not be below them.
            if config.bounds.headers as usize > head::FIELDS {
                builder.max_headers(config.bounds.headers as usize);
            }
            let most = (config.bounds.header_bytes.get() + config.bounds.target_bytes.get()) as usize;
            if most > head::BYTES {
                builder.max_buf_size(most);
            }
            let mut serving = builder.serve_connection(TokioIo::new(io), service_fn(answer)).with_upgrades();
            let shutdown = http1::UpgradeableConnection::graceful_shutdown;
            match live(Pin::new(&mut serving), shutdown, plan, &connection).await {
                Ok(served) => served,
                Err(End::SlowHead) => {
                    // Not behind an answer that the caller has not taken yet: there it would be taken for its body.
                    if let Some(parts) = serving.into_parts().filter(|_| connection.socket.has_said_all()) {
                        Box::pin(too_late(parts.io.into_inner(), config, connection.site.stats())).await;
                    }
                    Ok(())
                }
                // Was told already.
                Err(End::Drain) => Ok(()),
                Err(End::Idle) => {
                    shutdown(Pin::new(&mut serving));
                    timeout(patience, &mut serving).await.unwrap_or(Ok(()))
                }
            }
        }
        Protocol::Http2 => {
            connection.socket.shares();
            let mut builder = http2::Builder::new(LocalExec);
            builder.timer(TokioTimer::new()).max_concurrent_streams(config.bounds.streams);
            builder.max_header_list_size(header_list(&config.bounds));
            builder.max_pending_accept_reset_streams(RESET_STREAMS).max_local_error_reset_streams(LOCAL_RESETS);
            // Each request becomes a task, and is moved eight times until it is one: better a box than the whole of it.
            let service = service_fn(move |request| Box::pin(answer(request)));
            // A box, for it is three times as large as HTTP/1's.
            let mut serving = Box::pin(builder.serve_connection(TokioIo::new(io), service));
            let ended = live(Pin::new(&mut serving), |it| it.get_mut().as_mut().graceful_shutdown(), plan, &connection);
            match ended.await {
                Ok(served) => served,
                Err(End::Drain) => Ok(()),
                Err(End::Idle | End::SlowHead) => {
                    // The caller is told, and has the time of a head to hear it.
                    serving.as_mut().graceful_shutdown();
                    timeout(patience, serving).await.unwrap_or(Ok(()))
                }
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(peer = %connection.caller, %error, "connection ended");
    }
}

/// What h2 takes of a head: more than our own bounds, so that it is us who refuse; and 32 bytes for each field (RFC 9113,
/// 6.5.2).
fn header_list(bounds: &BoundsConfig) -> u32 {
    let fields = (u64::from(bounds.headers) + 8) * 32;
    (2 * (bounds.header_bytes.get() + bounds.target_bytes.get()) + fields).min(1 << 20) as u32
}

/// Lets a connection live until it ends by itself or the caller has been gone for too long. When the listener drains, it
/// ends after what is under way.
async fn live<C>(
    mut serving: Pin<&mut C>,
    shutdown: impl Fn(Pin<&mut C>),
    plan: &Rc<Plan>,
    connection: &Connection,
) -> Result<hyper::Result<()>, End>
where
    C: Future<Output = hyper::Result<()>>,
{
    match connection.watched(plan, serving.as_mut()).await {
        Err(End::Drain) => {
            shutdown(serving.as_mut());
            let Connection { worker, socket, .. } = connection;
            worker.watchdog.watch(serving, socket, plan, worker.watchdog.leaving()).await
        }
        ended => ended,
    }
}

impl Connection {
    async fn watched<C: Future>(&self, plan: &Rc<Plan>, connection: Pin<&mut C>) -> Result<C::Output, End> {
        let until = Until::Drain(self.site.listener.drain.clone());
        self.worker.watchdog.watch(connection, &self.socket, plan, until).await
    }
}

/// Answers the head that never came whole (RFC 9110, 15.5.9), and ends the connection.
async fn too_late<I: AsyncRead + AsyncWrite + Unpin>(mut io: I, config: &ListenerConfig, stats: &Stats) {
    let mark = if config.mark { "x-pratfall: proxy; error=slow_head\r\n" } else { "" };
    let answer = format!("HTTP/1.1 408 Request Timeout\r\n{mark}connection: close\r\ncontent-length: 0\r\n\r\n");
    stats.proxy_error();
    stats.answered(StatusCode::REQUEST_TIMEOUT);
    let said = async {
        io.write_all(answer.as_bytes()).await?;
        io.shutdown().await
    };
    // Who does not even take this is gone.
    let _ = timeout(config.timeouts.request_header.get(), said).await;
}
