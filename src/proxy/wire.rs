//! The accepted socket: how it ends, whether the caller is still there, and how long one waits for them.
//!
//! hyper ends a connection in good order: it shuts the socket down, so the caller sees a FIN even where linger is zero
//! (decisions.md 1.3). When a reset is asked for, shutting down does nothing and dropping sends the RST.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::Version;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::config::Timeouts;
use crate::service::{Busy, Quiet};

/// An accepted socket as the requests on it see it.
#[derive(Clone, Debug)]
pub struct Socket(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Nothing once the connection is over.
    stream: RefCell<Option<TcpStream>>,
    reset: Cell<bool>,
    quiet: Rc<Quiet>,
    /// When the head of a request began to come, until it is whole.
    head: Cell<Option<Instant>>,
    /// On HTTP/2 there is more to read than heads.
    shared: Cell<bool>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(Rc::new(Shared {
            stream: RefCell::new(Some(stream)),
            reset: Cell::new(false),
            quiet: Quiet::new(),
            head: Cell::new(None),
            shared: Cell::new(false),
        }))
    }

    /// A request is whole, and its exchange begins.
    pub(super) fn begin(&self, version: Version) -> Busy {
        self.0.head.set(None);
        self.0.shared.set(version >= Version::HTTP_2);
        self.0.quiet.begin()
    }

    /// Waits until the caller has taken too long: for a head, or for a next request. One timer a connection, set anew
    /// only when it has run out, so that a request costs none.
    pub(super) async fn abandoned(&self, timeouts: &Timeouts) {
        let (head, idle) = (timeouts.request_header.get(), timeouts.idle.get());
        loop {
            let due = match (self.0.head.get(), self.0.quiet.since()) {
                (Some(since), _) => Some(since + head),
                (None, since) => since.map(|since| since + idle),
            };
            let now = Instant::now();
            if due.is_some_and(|due| due <= now) {
                return;
            }
            // A head may begin while we sleep.
            let look = now + head.min(idle);
            sleep_until(due.map_or(look, |due| due.min(look))).await;
        }
    }

    /// From now on the connection's end is an RST.
    pub(super) fn reset(&self) {
        self.0.reset.set(true);
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
        let stream = self.0.stream.borrow();
        let twin = SockRef::from(stream.as_ref().ok_or(io::ErrorKind::NotConnected)?).try_clone()?;
        TcpStream::from_std(twin.into())
    }
}

/// The accepted socket as hyper sees it; the connection is over when it is dropped.
#[derive(Debug)]
pub(super) struct Wire(Socket);

/// So much of what the caller still said is read before the end, at most: a socket with unread bytes ends with an RST,
/// and an RST can overtake the answer.
const LAST_WORDS: usize = 256 * 1024;

impl Wire {
    pub(super) fn new(socket: Socket) -> Self {
        Self(socket)
    }

    fn with<T>(&self, work: impl FnOnce(Pin<&mut TcpStream>) -> T) -> T {
        let mut stream = self.0.0.stream.borrow_mut();
        work(Pin::new(stream.as_mut().expect("it is taken when this is dropped")))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let Some(stream) = self.0.0.stream.borrow_mut().take() else { return };
        if self.0.0.reset.get() {
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
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = self.with(|stream| stream.poll_read(cx, buf));
        let Shared { quiet, head, shared, .. } = &*self.0.0;
        if buf.filled().len() > before && !shared.get() && head.get().is_none() && quiet.since().is_some() {
            head.set(Some(Instant::now()));
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.0.reset.get() { Poll::Ready(Ok(())) } else { self.with(|stream| stream.poll_shutdown(cx)) }
    }
}
