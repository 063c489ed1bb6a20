//! The accepted socket: how it ends, whether the caller is still there, and how long one waits for them.
//!
//! hyper ends a connection in good order: it shuts the socket down, so the caller sees a FIN even where linger is zero
//! (decisions.md 1.3). When a reset is asked for, shutting down does nothing and dropping sends the RST.
//!
//! All of it stays on one thread; the locks and atomics are there because hyper hands a connection over, for a tunnel,
//! only if it could be sent to another. Nobody ever waits for them.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, Shutdown};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
#[cfg(target_os = "linux")]
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::config::Timeouts;
use super::watchdog::End;
use crate::clock::Coarse;
use crate::service::{Body, Busy, Error, Quiet, Watch};
use crate::units::Span;

/// An accepted socket as the requests on it see it.
#[derive(Clone, Debug)]
pub struct Socket(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Nothing once the connection is over.
    stream: Mutex<Option<TcpStream>>,
    reset: AtomicBool,
    quiet: Arc<Quiet>,
    clock: Arc<Coarse>,
    /// When the head of a request began to come, until it is whole; 0 is none.
    head: AtomicU64,
    /// On HTTP/2 there is more to read than heads.
    shared: AtomicBool,
    /// On HTTP/1: the body of the request under way is not read to its end.
    unread: AtomicBool,
    /// What was said between two messages did not fit: nothing more can be said.
    torn: AtomicBool,
    encrypted: AtomicBool,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, clock: Arc<Coarse>) -> Self {
        Self(Arc::new(Shared {
            stream: Mutex::new(Some(stream)),
            reset: AtomicBool::new(false),
            quiet: Quiet::new(clock.clone()),
            clock,
            head: AtomicU64::new(0),
            shared: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            torn: AtomicBool::new(false),
            encrypted: AtomicBool::new(false),
        }))
    }

    /// The body of a request of HTTP/1 comes: until it is read to its end, no answer can be followed by another.
    pub(super) fn awaits(&self, body: &mut Body) {
        self.0.unread.store(true, Relaxed);
        body.watch(Awaited(self.clone()));
    }

    /// Ends the connection when the caller takes nothing of what is written to it for so long; a slow one takes something.
    /// The system tells them apart (RFC 5482; tcp(7)): to see that a socket cannot be written to is not enough, for it
    /// becomes writable only when a third of its buffer is free.
    pub(super) fn patience(&self, stall: Option<Duration>) {
        #[cfg(target_os = "linux")]
        if let Some(stream) = self.stream().as_ref() {
            let _ = SockRef::from(stream).set_tcp_user_timeout(stall); // a socket of another kind has none
        }
    }

    /// Whether the body of the request under way is not read to its end.
    pub(super) fn has_more(&self) -> bool {
        self.0.unread.load(Relaxed)
    }

    /// A request is whole, and its exchange begins.
    pub(super) fn begin(&self) -> Busy {
        self.0.head.store(0, Relaxed);
        self.0.unread.store(false, Relaxed);
        self.0.quiet.begin()
    }

    /// What came so far was no head: a handshake, or another proxy's announcement.
    pub(super) fn greeted(&self) {
        self.0.head.store(0, Relaxed);
    }

    /// What goes over it is encrypted.
    pub(super) fn encrypt(&self) {
        self.0.encrypted.store(true, Relaxed);
    }

    /// Whether the caller has been given everything that there was to say.
    pub(super) fn has_said_all(&self) -> bool {
        !self.0.quiet.has_unwritten() && !self.resets()
    }

    /// Whether everything that was written has left for the caller. What is still in the socket is lost with an RST.
    pub(super) fn has_let_all_go(&self) -> bool {
        !self.0.quiet.has_unwritten() && self.stream().as_ref().is_none_or(is_empty)
    }

    /// Whether the socket has taken everything that was written.
    pub(super) fn has_taken_all(&self) -> bool {
        !self.0.quiet.has_unwritten()
    }

    /// Says something of our own between two messages, if it can be said at once and in the clear: what finds nothing before
    /// it in the socket fits in.
    pub(super) fn interject(&self, bytes: &[u8]) {
        if self.0.encrypted.load(Relaxed) || self.resets() || !self.has_let_all_go() {
            return;
        }
        let stream = self.stream();
        if let Some(Ok(written)) = stream.as_ref().map(|stream| stream.try_write(bytes))
            && written < bytes.len()
        {
            self.0.torn.store(true, Relaxed);
            self.reset();
        }
    }

    /// For what the caller has taken too long by now: for a head that has begun, or for a next request.
    pub(super) fn overdue(&self, timeouts: &Timeouts) -> Option<End> {
        let past = |since: u64, span: Span| self.0.clock.nanos() > since.saturating_add(span.get().as_nanos() as u64);
        match self.0.head.load(Relaxed) {
            0 => self.0.quiet.since().filter(|since| past(*since, timeouts.idle)).map(|_| End::Idle),
            since => past(since, timeouts.request_header).then_some(End::SlowHead),
        }
    }

    /// What comes is HTTP/2: there is more to read than heads.
    pub(super) fn shares(&self) {
        self.0.shared.store(true, Relaxed);
        self.0.head.store(0, Relaxed);
    }

    /// Whether nothing has been under way since a moment, or before.
    pub(super) fn is_quiet_since(&self, moment: u64) -> bool {
        self.0.quiet.since().is_some_and(|since| since <= moment) && self.0.head.load(Relaxed) == 0
    }

    /// Whether both are the same connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Where the caller came to.
    pub(super) fn local_address(&self) -> Option<IpAddr> {
        Some(self.stream().as_ref()?.local_addr().ok()?.ip())
    }

    /// From now on the connection's end is an RST.
    pub(super) fn reset(&self) {
        self.0.reset.store(true, Relaxed);
    }

    /// While threatened, the connection's end is an RST whoever ends it, and be it the end of this process.
    pub(super) fn threaten(&self, threatened: bool) {
        self.0.reset.store(threatened, Relaxed);
        if let Some(stream) = self.stream().as_ref() {
            // A socket that is gone already needs no RST.
            let _ = SockRef::from(stream).set_linger(threatened.then_some(Duration::ZERO));
        }
    }

    fn resets(&self) -> bool {
        self.0.reset.load(Relaxed)
    }

    fn stream(&self) -> MutexGuard<'_, Option<TcpStream>> {
        self.0.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the caller has closed its side. hyper looks for that itself, but not while a request's body waits to
    /// be read; a body that is held back must not keep us from noticing.
    pub(super) async fn closed(&self) {
        #[cfg(target_os = "linux")]
        if let Ok(twin) = self.twin()
            // Nothing else tells the end of reading from bytes to read: epoll's RDHUP, without EPOLLIN.
            && twin.ready(tokio::io::Interest::PRIORITY).await.is_ok_and(|ready| ready.is_read_closed())
        {
            return;
        }
        std::future::pending().await
    }

    #[cfg(target_os = "linux")]
    fn twin(&self) -> io::Result<TcpStream> {
        let stream = self.stream();
        let twin = SockRef::from(stream.as_ref().ok_or(io::ErrorKind::NotConnected)?).try_clone()?;
        TcpStream::from_std(twin.into())
    }
}

/// Whether the system has sent everything that it was given.
#[cfg(target_os = "linux")]
fn is_empty(stream: &TcpStream) -> bool {
    let socket = SockRef::from(stream);
    // Below this mark of bytes that are not sent yet a socket is writable: with 1, when there are none.
    let _ = socket.set_tcp_notsent_lowat(1);
    let mut asked = [PollFd::new(stream, PollFlags::OUT)];
    let writable = poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    let _ = socket.set_tcp_notsent_lowat(0); // what the system says
    !matches!(writable, Ok(0))
}

#[cfg(not(target_os = "linux"))]
fn is_empty(_: &TcpStream) -> bool {
    true
}

/// Notes that a body was read to its end.
struct Awaited(Socket);

impl Watch for Awaited {
    fn end(&mut self, result: Result<(), &Error>) {
        if result.is_ok() {
            self.0.0.unread.store(false, Relaxed);
        }
    }
}

/// What a connection speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// How an HTTP/2 connection begins (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The accepted socket as hyper sees it; the connection is over when it is dropped.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    /// What was read to look at it, and is still to be read.
    before: Bytes,
}

/// So much of what the caller still said is read before the end, at most: a socket with unread bytes ends with an RST,
/// and an RST can overtake the answer.
const LAST_WORDS: usize = 256 * 1024;

impl Wire {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket, before: Bytes::new() }
    }

    /// Looks at the first bytes. Whoever says nothing is neither, and gone.
    pub(super) async fn protocol(&mut self) -> io::Result<Protocol> {
        let mut seen = BytesMut::new();
        let protocol = loop {
            let common = PREFACE.iter().zip(&seen).take_while(|(preface, seen)| preface == seen).count();
            if common == PREFACE.len() {
                break Protocol::Http2;
            }
            if common < seen.len() {
                break Protocol::Http1;
            }
            if self.read_buf(&mut seen).await? == 0 {
                break Protocol::Http1;
            }
        };
        self.unread(seen.freeze());
        Ok(protocol)
    }

    /// Gives back what was read to look at it.
    pub(super) fn unread(&mut self, seen: Bytes) {
        if self.before.is_empty() {
            self.before = seen;
        } else {
            self.before = [seen, std::mem::take(&mut self.before)].concat().into();
        }
    }

    /// Writes, and remembers whether all of it went.
    fn write(
        &self,
        length: usize,
        work: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.socket.0.torn.load(Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let written = self.with(work);
        let whole = matches!(written, Poll::Ready(Ok(written)) if written == length);
        self.socket.0.quiet.wrote(whole);
        written
    }

    fn with<T>(&self, work: impl FnOnce(Pin<&mut TcpStream>) -> T) -> T {
        let mut stream = self.socket.stream();
        work(Pin::new(stream.as_mut().expect("it is taken when this is dropped")))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let Some(stream) = self.socket.stream().take() else { return };
        if self.socket.resets() {
            // A socket that is gone already needs no RST.
            let _ = stream.set_zero_linger();
            return;
        }
        let _ = SockRef::from(&stream).shutdown(Shutdown::Write);
        let (mut piece, mut read) = ([0; 8192], 0);
        while let Ok(more) = stream.try_read(&mut piece)
            && more > 0
            && read < LAST_WORDS
        {
            read += more;
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = if self.before.is_empty() {
            self.with(|stream| stream.poll_read(cx, buf))
        } else {
            let length = self.before.len().min(buf.remaining());
            buf.put_slice(&self.before[..length]);
            self.before.advance(length);
            Poll::Ready(Ok(()))
        };
        let Shared { quiet, head, shared, clock, .. } = &*self.socket.0;
        if buf.filled().len() > before && !shared.load(Relaxed) && head.load(Relaxed) == 0 && quiet.since().is_some() {
            head.store(clock.nanos(), Relaxed);
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.write(buf.len(), |stream| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(bufs.iter().map(|buf| buf.len()).sum(), |stream| {
            together(bufs, |one| match one {
                Some(one) => stream.poll_write(cx, one),
                None => stream.poll_write_vectored(cx, bufs),
            })
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // a socket holds nothing back
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.socket.resets() { Poll::Ready(Ok(())) } else { self.with(|stream| stream.poll_shutdown(cx)) }
    }
}

/// Small pieces are copied into one: a plain write costs the kernel 500 instructions less than a vectored one.
pub(super) fn together<T>(bufs: &[io::IoSlice<'_>], write: impl FnOnce(Option<&[u8]>) -> T) -> T {
    if let [one] = bufs {
        return write(Some(one));
    }
    if bufs.iter().map(|buf| buf.len()).sum::<usize>() > SMALL {
        return write(None);
    }
    // Kept by the thread: to clear a fresh one costs more than to fill it. Taken out, for TLS writes while it is written to.
    let mut whole = TOGETHER.take();
    whole.clear();
    bufs.iter().for_each(|buf| whole.extend_from_slice(buf));
    let written = write(Some(&whole));
    TOGETHER.set(whole);
    written
}

/// What is small enough to be copied.
const SMALL: usize = 2048;

thread_local! {
    static TOGETHER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

#[cfg(test)]
mod tests {
    use futures_util::future::poll_fn;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn nothing_is_said_between_the_pieces_of_what_the_caller_has_not_taken_yet() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut caller = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let socket = Socket::new(listener.accept().await.unwrap().0, Coarse::new());
        let mut wire = Wire::new(socket.clone());
        let piece = [b'a'; 65_536];
        let mut full = 0;
        loop {
            // hyper offers what is left over again; whatever it was, it is not all.
            let once = poll_fn(|cx| Poll::Ready(Pin::new(&mut wire).poll_write(cx, &piece))).await;
            let Poll::Ready(written) = once else { break };
            full += written.unwrap();
        }
        assert!(!socket.has_said_all());
        socket.interject(b"hint");
        let mut taken = vec![0; full];
        caller.read_exact(&mut taken).await.unwrap();
        assert!(taken.iter().all(|byte| *byte == b'a'));
        let last = poll_fn(|cx| Pin::new(&mut wire).poll_write(cx, b"b")).await;
        assert!(last.is_ok() && socket.has_said_all());
        socket.interject(b"hint");
        let mut next = [0; 5];
        caller.read_exact(&mut next).await.unwrap();
        assert_eq!(&next, b"bhint");
        socket.encrypt();
        socket.interject(b"hint");
        drop(wire);
        assert_eq!(caller.read(&mut next).await.unwrap(), 0);
    }
}
