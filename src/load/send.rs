//! How requests reach the target: kept connections that grow as needed, one retry where a kept one had died meanwhile.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::{LoadTally, count};

type Out = Request<Full<Bytes>>;

/// The way to the target.
#[derive(Debug)]
pub(super) enum Sender {
    /// A connection for each request under way; the one used last is used first, so that the others may grow old.
    One { target: SocketAddr, idle: Mutex<Vec<Kept>> },
    /// One connection for all requests; a further one only where the target allows no more streams on it.
    Two { target: SocketAddr, shared: tokio::sync::Mutex<Vec<Shared>> },
}

impl Sender {
    pub(super) fn new(target: SocketAddr, http2: bool) -> Self {
        if http2 {
            Self::Two { target, shared: tokio::sync::Mutex::default() }
        } else {
            Self::One { target, idle: Mutex::default() }
        }
    }

    /// Sends a request and reads its answer to the end.
    pub(super) async fn send(&self, request: Out, tally: &LoadTally) {
        // The tally is kept before the body is read: an answer that stops half way is still one.
        match self {
            Self::One { target, idle } => match one(*target, idle, request).await {
                Ok((mut kept, answer)) => {
                    count(&tally.answered);
                    if discard(answer).await.is_ok() && kept.sender.ready().await.is_ok() {
                        idle.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
                    }
                }
                Err(_) => count(&tally.failed),
            },
            Self::Two { target, shared } => match two(*target, shared, request).await {
                Ok((_stream, answer)) => {
                    count(&tally.answered);
                    let _ = discard(answer).await;
                }
                Err(_) => count(&tally.failed),
            },
        }
    }
}

/// Reads a body to its end, chunk by chunk.
async fn discard(answer: Response<Incoming>) -> hyper::Result<()> {
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("cannot connect to the target")]
    Connect(#[from] io::Error),
    #[error("the connection failed before an answer")]
    Http(#[from] hyper::Error),
}

/// Whether the same request may be sent twice where nobody knows if it arrived.
fn repeatable(request: &Out) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
}

/// An HTTP/1 connection, and how much the target has said on it.
#[derive(Debug)]
pub(super) struct Kept {
    sender: http1::SendRequest<Full<Bytes>>,
    heard: Arc<AtomicU64>,
}

async fn one(
    target: SocketAddr,
    idle: &Mutex<Vec<Kept>>,
    mut request: Out,
) -> Result<(Kept, Response<Incoming>), Unanswered> {
    if let Some(mut kept) = take(idle) {
        let spare = repeatable(&request).then(|| request.clone());
        let heard = kept.heard.load(Ordering::Relaxed);
        match kept.sender.try_send_request(request).await {
            Ok(answer) => return Ok((kept, answer)),
            Err(mut failed) => {
                // What never left may leave again, whatever its method.
                let unsent = failed.take_message();
                let silent = kept.heard.load(Ordering::Relaxed) == heard;
                request = unsent.or_else(|| spare.filter(|_| silent)).ok_or_else(|| failed.into_error())?;
            }
        }
    }
    let heard = Arc::new(AtomicU64::new(0));
    let stream = Listening { stream: connect(target).await?, heard: Arc::clone(&heard) };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with its sender; its errors reach whoever waits for an answer.
    tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    Ok((Kept { sender, heard }, answer))
}

/// The connection that was used last and still stands.
fn take(idle: &Mutex<Vec<Kept>>) -> Option<Kept> {
    let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
    std::iter::from_fn(|| idle.pop()).find(|kept| kept.sender.is_ready())
}

async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An HTTP/2 connection. `streams` is held by every request on it, and so counts them.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    sender: http2::SendRequest<Full<Bytes>>,
    streams: Arc<()>,
    most: Arc<AtomicUsize>,
}

impl Shared {
    fn has_room(&self) -> bool {
        Arc::strong_count(&self.streams) <= self.most.load(Ordering::Relaxed).max(1)
    }
}

async fn two(
    target: SocketAddr,
    shared: &tokio::sync::Mutex<Vec<Shared>>,
    mut request: Out,
) -> Result<(Shared, Response<Incoming>), Unanswered> {
    let (mut connection, reused) = join(target, shared).await?;
    let spare = (reused && repeatable(&request)).then(|| request.clone());
    match connection.sender.try_send_request(request).await {
        Ok(answer) => return Ok((connection, answer)),
        Err(mut failed) => {
            let unsent = failed.take_message().filter(|_| reused);
            let died = died(failed.error());
            if died {
                // Others must not find it, even where the target lets it end slowly.
                shared.lock().await.retain(|other| !Arc::ptr_eq(&other.streams, &connection.streams));
            }
            request = unsent.or_else(|| spare.filter(|_| died)).ok_or_else(|| failed.into_error())?;
        }
    }
    let (mut connection, _) = join(target, shared).await?;
    let answer = connection.sender.send_request(request).await?;
    Ok((connection, answer))
}

/// A connection with room for one more request, and whether it has carried others.
async fn join(target: SocketAddr, shared: &tokio::sync::Mutex<Vec<Shared>>) -> io::Result<(Shared, bool)> {
    // Held while connecting, so that all who are due meanwhile share what comes of it.
    let mut shared = shared.lock().await;
    shared.retain(|connection| !connection.sender.is_closed());
    if let Some(connection) = shared.iter().find(|connection| connection.has_room()) {
        return Ok((connection.clone(), true));
    }
    let stream = connect(target).await?;
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let most = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
    tokio::spawn(watch(connection, Arc::clone(&most)));
    let connection = Shared { sender, streams: Arc::new(()), most };
    shared.push(connection.clone());
    Ok((connection, false))
}

/// Drives a connection and notes how many streams the target allows.
async fn watch(
    mut connection: http2::Connection<TokioIo<TcpStream>, Full<Bytes>, TokioExecutor>,
    most: Arc<AtomicUsize>,
) -> hyper::Result<()> {
    poll_fn(|cx| {
        let ended = Pin::new(&mut connection).poll(cx);
        most.store(connection.current_max_send_streams(), Ordering::Relaxed);
        ended
    })
    .await
}

/// Whether the connection failed rather than the one stream: a reset stream is an answer of its kind, unless it says
/// that nothing was done (RFC 9113, 8.7).
fn died(error: &hyper::Error) -> bool {
    let h2 = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    h2.is_none_or(|error| !error.is_reset() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// A socket that counts what it hears.
#[derive(Debug)]
struct Listening {
    stream: TcpStream,
    heard: Arc<AtomicU64>,
}

impl AsyncRead for Listening {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.heard.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Listening {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
