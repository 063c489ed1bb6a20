//! A new connection to an upstream: its name, its addresses, its socket, its handshake.

use std::cell::RefCell;
use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::config::{Scheme, Target};

/// How long the addresses of a name are used: the resolver of the system does not tell their TTL, and five seconds is
/// what orchestrators give a service that moves.
const KNOWN_FOR: Duration = Duration::from_secs(5);

/// How long an address may keep the next one waiting (RFC 8305, 5: 250 ms).
const HEAD_START: Duration = Duration::from_millis(250);

/// How to get to an upstream.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) target: Target,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// The same without HTTP/2: nothing can be upgraded there.
    tls_http1: Option<Arc<ClientConfig>>,
    known: RefCell<Option<(Vec<SocketAddr>, Instant)>>,
}

/// What went wrong once the upstream was reached: a certificate, mostly.
#[derive(Debug, thiserror::Error)]
#[error("the TLS handshake failed")]
struct Handshake(#[source] io::Error);

/// Whether a connection was there, and its handshake failed.
pub(super) fn is_handshake(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|error| error.is::<Handshake>())
}

/// A connection to an upstream.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Way {
    /// The name is what the certificate of an `https://` upstream must be for.
    pub(super) fn new(target: Target, tls: Option<Arc<ClientConfig>>, name: Option<&str>) -> Self {
        let name = ServerName::try_from(name.unwrap_or(&target.host).to_owned());
        let tls = tls.filter(|_| target.scheme == Scheme::Https).zip(name.ok());
        let tls_http1 = tls.as_ref().map(|(tls, _)| {
            let mut tls = ClientConfig::clone(tls);
            tls.alpn_protocols = vec![b"http/1.1".to_vec()];
            Arc::new(tls)
        });
        Self { target, tls, tls_http1, known: RefCell::default() }
    }

    /// Connects; whether HTTP/2 was agreed on comes with it. It is not offered to whoever wants to upgrade.
    pub(super) async fn connect(&self, upgrade: bool) -> io::Result<(Stream, bool)> {
        if let Some(path) = self.target.socket() {
            return Ok((Stream::Unix(UnixStream::connect(path).await?), false));
        }
        let stream = dial(&self.addresses().await?).await?;
        stream.set_nodelay(true)?;
        match (self.target.scheme, &self.tls) {
            (Scheme::Http, _) => Ok((Stream::Tcp(stream), false)),
            (Scheme::H2c, _) => Ok((Stream::Tcp(stream), true)),
            (Scheme::Https, None) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the upstream has no name that a certificate could be for",
            )),
            (Scheme::Https, Some((config, name))) => {
                let config = self.tls_http1.as_ref().filter(|_| upgrade).unwrap_or(config);
                let stream = TlsConnector::from(config.clone()).connect(name.clone(), stream).await;
                let stream = stream.map_err(|error| io::Error::new(error.kind(), Handshake(error)))?;
                let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                Ok((Stream::Tls(Box::new(stream)), h2))
            }
        }
    }

    async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let Target { host, port, .. } = &self.target;
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, *port)]);
        }
        let known = self.known.borrow().clone();
        if let Some((addresses, since)) = &known
            && since.elapsed() < KNOWN_FOR
        {
            return Ok(addresses.clone());
        }
        let found = lookup_host((host.as_str(), *port)).await.map(Iterator::collect::<Vec<_>>);
        match (found, known) {
            (Ok(found), _) if !found.is_empty() => {
                *self.known.borrow_mut() = Some((found.clone(), Instant::now()));
                Ok(found)
            }
            // A resolver that is away for a while is no reason to lose an upstream that is there.
            (_, Some((addresses, _))) => Ok(addresses),
            (Err(error), None) => Err(error),
            (Ok(_), None) => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
        }
    }
}

/// Whether somebody takes connections there.
pub async fn reach(target: &Target) -> io::Result<()> {
    if let Some(path) = target.socket() {
        return UnixStream::connect(path).await.map(drop);
    }
    let addresses: Vec<SocketAddr> = lookup_host((target.host.as_str(), target.port)).await?.collect();
    dial(&addresses).await.map(drop)
}

/// Tries the addresses in their order, each with a head start before the next; the first connection wins.
async fn dial(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    if let [address] = addresses {
        return TcpStream::connect(address).await;
    }
    let mut trying = FuturesUnordered::new();
    let mut left = addresses.iter();
    let mut failed = None;
    loop {
        match left.next() {
            Some(address) => trying.push(TcpStream::connect(*address)),
            None if trying.is_empty() => {
                return Err(failed.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()));
            }
            None => {}
        }
        let next = async { if left.len() > 0 { sleep(HEAD_START).await } else { pending().await } };
        tokio::select! {
            Some(tried) = trying.next() => match tried {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = Some(error),
            },
            () = next => {}
        }
    }
}

impl Stream {
    /// Whether it is open and nothing has come: so it is between two exchanges.
    pub(super) fn is_silent(&mut self) -> bool {
        let mut byte = [0];
        let read = match self {
            Self::Tcp(stream) => stream.try_read(&mut byte),
            Self::Unix(stream) => stream.try_read(&mut byte),
            Self::Tls(stream) => {
                // A ticket for the next session may have come, which is no word of the upstream's.
                let mut room = ReadBuf::new(&mut byte);
                let nobody = &mut Context::from_waker(Waker::noop());
                return Pin::new(&mut **stream).poll_read(nobody, &mut room).is_pending();
            }
        };
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Has its end be an RST.
    pub(super) fn reset(&self) {
        let stream = match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
            // Nothing but an end is known there.
            Self::Unix(_) => return,
        };
        // A socket that is gone already needs no RST.
        let _ = stream.set_zero_linger();
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // Sockets hold nothing back.
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
