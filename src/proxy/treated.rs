//! A tunnel that meets a fault: what goes each way is a body that the fault treats, and what comes of it is written on.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::again::Carrier;
use super::wire::Socket;
use crate::fault::{Direction, Tunnel};
use crate::service::{Body, Cut, Error};

/// How much is read at once.
const PIECE: usize = 16 * 1024;

/// Copies both ways through what the fault does, until both sides have ended. Says with what it broke off.
pub(super) async fn join<C>(
    caller: C,
    upstream: Carrier,
    first: Bytes,
    tunnel: &Tunnel,
    head: &HeaderMap,
    socket: &Socket,
) -> Result<(), Error>
where
    C: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (caller, upstream) = (Rc::new(RefCell::new(caller)), Rc::new(RefCell::new(upstream)));
    let down = tunnel.treat(Direction::Response, Reading::body(first, upstream.clone()), head);
    let up = tunnel.treat(Direction::Request, Reading::body(Bytes::new(), caller.clone()), head);
    let joined = tokio::try_join!(write(down, caller.clone()), write(up, upstream.clone()));
    if let Err(error) = &joined
        && !matches!(error, Error::Injected(Cut::Close, _))
    {
        // What will not come must be seen on both sides, before either is dropped.
        socket.reset();
        upstream.borrow().reset();
    }
    drop(caller);
    joined.map(|_| ())
}

async fn write<W: AsyncWrite + Unpin>(mut body: Body, to: Rc<RefCell<W>>) -> Result<(), Error> {
    let mut to = Half(to);
    while let Some(frame) = body.frame().await {
        if let Ok(piece) = frame?.into_data() {
            to.write_all(&piece).await.map_err(|_| Error::Gone)?;
            to.flush().await.map_err(|_| Error::Gone)?;
        }
    }
    to.shutdown().await.map_err(|_| Error::Gone)
}

/// What comes from one side.
struct Reading<R> {
    first: Bytes,
    from: Rc<RefCell<R>>,
    piece: Box<[u8]>,
}

impl<R: AsyncRead + Unpin + 'static> Reading<R> {
    fn body(first: Bytes, from: Rc<RefCell<R>>) -> Body {
        Body::faulted(Self { first, from, piece: vec![0; PIECE].into() })
    }
}

impl<R: AsyncRead + Unpin> HttpBody for Reading<R> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.first)))));
        }
        let mut room = ReadBuf::new(&mut this.piece);
        let read = ready!(Pin::new(&mut *this.from.borrow_mut()).poll_read(cx, &mut room));
        Poll::Ready(match read {
            Ok(()) if room.filled().is_empty() => None,
            Ok(()) => Some(Ok(Frame::data(Bytes::copy_from_slice(room.filled())))),
            Err(_) => Some(Err(Error::Gone)),
        })
    }
}

/// The way to one side. Nobody holds it across a wait.
struct Half<W>(Rc<RefCell<W>>);

impl<W: AsyncWrite + Unpin> AsyncWrite for Half<W> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, piece: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, piece)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)
    }
}
