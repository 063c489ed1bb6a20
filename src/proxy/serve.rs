//! One connection, from its first byte to its last request.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::answer::Connection;
use super::site::{Plan, Site};
use super::watchdog::End;
use super::wire::{Protocol, Socket, Wire};
use super::worker::{Counted, LocalExec, Worker};
use crate::service::Body;

/// Streams that a caller may open and reset before we have answered: the default of h2, written down because CVE-2023-44487
/// (rapid reset) lives here.
const RESET_STREAMS: usize = 20;

/// Resets that we may be made to send, for the same reason (RUSTSEC-2024-0003).
const LOCAL_RESETS: usize = 1024;

/// Fields that hyper takes without being told: where that is enough, it need not make room for each request.
const USUAL_FIELDS: u32 = 100;

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
    let socket = Socket::new(stream, worker.watchdog.clock());
    let mut wire = Wire::new(socket.clone());
    let connection = Rc::new(Connection { worker, site, caller: peer, socket, _counted: counted });
    match plan.setup.tls.server.clone() {
        None => {
            let first = connection.watched(&plan, pin!(wire.protocol())).await;
            let Ok(Ok(protocol)) = first else { return };
            speak(wire, protocol, &plan, connection).await;
        }
        // A box: who speaks in the clear need not keep room for a handshake.
        Some(tls) => Box::pin(secured(wire, tls, &plan, connection)).await,
    }
}

async fn secured(wire: Wire, tls: Arc<ServerConfig>, plan: &Rc<Plan>, connection: Rc<Connection>) {
    let patience = plan.config().timeouts.request_header.get();
    let Ok(Ok(stream)) = timeout(patience, TlsAcceptor::from(tls).accept(wire)).await else { return };
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
    let answers = connection.clone();
    let service =
        service_fn(move |request: Request<Incoming>| answers.clone().answer(Box::new(request.map(Body::from))));
    let result = match protocol {
        Protocol::Http1 => {
            let mut builder = http1::Builder::new();
            // The watchdog looks after slow heads and idle connections: hyper has one timeout for both, sets a timer for
            // each request, and none before the first byte.
            builder.header_read_timeout(None).preserve_header_case(config.keep_case);
            if config.bounds.headers > USUAL_FIELDS {
                builder.max_headers(config.bounds.headers as usize);
            }
            let serving = pin!(builder.serve_connection(TokioIo::new(io), service).with_upgrades());
            live(serving, http1::UpgradeableConnection::graceful_shutdown, plan, &connection).await
        }
        Protocol::Http2 => {
            let mut builder = http2::Builder::new(LocalExec);
            builder.timer(TokioTimer::new()).max_concurrent_streams(config.bounds.streams);
            builder.max_header_list_size(config.bounds.header_bytes.get().min(1 << 20) as u32);
            builder.max_pending_accept_reset_streams(RESET_STREAMS).max_local_error_reset_streams(LOCAL_RESETS);
            // A box, for it is three times as large as HTTP/1's.
            let serving = Box::pin(builder.serve_connection(TokioIo::new(io), service));
            live(pin!(serving), |serving| serving.get_mut().as_mut().graceful_shutdown(), plan, &connection).await
        }
    };
    if let Err(error) = result {
        tracing::debug!(peer = %connection.caller, %error, "connection ended");
    }
}

/// Lets a connection live until it ends by itself, the listener drains, or the caller has been gone for too long.
async fn live<C>(
    mut serving: Pin<&mut C>,
    shutdown: impl Fn(Pin<&mut C>),
    plan: &Rc<Plan>,
    connection: &Connection,
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    match connection.watched(plan, serving.as_mut()).await {
        Ok(served) => served,
        Err(why) => {
            shutdown(serving.as_mut());
            match why {
                End::Drain => serving.await,
                // On HTTP/2 the caller is told, and has the time of a head to hear it.
                End::SlowHead | End::Idle => {
                    let patience = plan.config().timeouts.request_header.get();
                    timeout(patience, serving).await.unwrap_or(Ok(()))
                }
            }
        }
    }
}

impl Connection {
    async fn watched<C: Future>(&self, plan: &Rc<Plan>, connection: Pin<&mut C>) -> Result<C::Output, End> {
        self.worker.watchdog.watch(connection, &self.socket, plan, &self.site.listener.drain).await
    }
}
