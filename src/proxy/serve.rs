//! One connection, from its first byte to its last request.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::answer::Connection;
use super::config::ListenerConfig;
use super::site::Site;
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
    let socket = Socket::new(stream);
    let mut wire = Wire::new(socket.clone());
    let patience = config.timeouts.request_header.get();
    let connection =
        |site, caller| Rc::new(Connection { worker, site, caller, socket: socket.clone(), _counted: counted });
    match plan.setup.tls.server.clone() {
        None => {
            let first = tokio::select! {
                // Whoever has said something before the end is answered.
                biased;
                protocol = wire.protocol() => protocol,
                () = site.listener.drain.cancelled() => return,
                _ = socket.abandoned(&config.timeouts) => return,
            };
            let Ok(protocol) = first else { return };
            speak(wire, protocol, config, &socket, connection(site, peer)).await;
        }
        Some(tls) => {
            let Ok(Ok(stream)) = timeout(patience, TlsAcceptor::from(tls).accept(wire)).await else { return };
            // RFC 9113, 3.2: over TLS, HTTP/2 is agreed on and nothing else.
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let protocol = if h2 { Protocol::Http2 } else { Protocol::Http1 };
            speak(stream, protocol, config, &socket, connection(site, peer)).await;
        }
    }
}

async fn speak<I>(io: I, protocol: Protocol, config: &ListenerConfig, socket: &Socket, connection: Rc<Connection>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let drain = connection.site.listener.drain.clone();
    let answers = connection.clone();
    let service = service_fn(move |request: Request<Incoming>| answers.clone().answer(request.map(Body::from)));
    let result = match protocol {
        Protocol::Http1 => {
            let mut builder = http1::Builder::new();
            // The socket looks after slow heads and idle connections itself: hyper has one timeout for both, sets a timer
            // for each request, and none before the first byte.
            builder.header_read_timeout(None).preserve_header_case(config.keep_case);
            builder.max_headers(config.bounds.headers as usize);
            let serving = builder.serve_connection(TokioIo::new(io), service).with_upgrades();
            live(serving, http1::UpgradeableConnection::graceful_shutdown, socket, config, &drain).await
        }
        Protocol::Http2 => {
            let mut builder = http2::Builder::new(LocalExec);
            builder.timer(TokioTimer::new()).max_concurrent_streams(config.bounds.streams);
            builder.max_header_list_size(config.bounds.header_bytes.get().min(1 << 20) as u32);
            builder.max_pending_accept_reset_streams(RESET_STREAMS).max_local_error_reset_streams(LOCAL_RESETS);
            let serving = builder.serve_connection(TokioIo::new(io), service);
            live(serving, http2::Connection::graceful_shutdown, socket, config, &drain).await
        }
    };
    if let Err(error) = result {
        tracing::debug!(peer = %connection.caller, %error, "connection ended");
    }
}

/// Lets a connection live until it ends by itself, the listener drains, or the caller has been gone for too long.
async fn live<C>(
    mut serving: C,
    shutdown: impl Fn(Pin<&mut C>),
    socket: &Socket,
    config: &ListenerConfig,
    drain: &tokio_util::sync::CancellationToken,
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>> + Unpin,
{
    tokio::select! {
        biased;
        served = &mut serving => served,
        () = drain.cancelled() => {
            shutdown(Pin::new(&mut serving));
            serving.await
        }
        _ = socket.abandoned(&config.timeouts) => {
            // On HTTP/2 the caller is told, and has the time of a head to hear it.
            shutdown(Pin::new(&mut serving));
            timeout(config.timeouts.request_header.get(), serving).await.unwrap_or(Ok(()))
        }
    }
}
