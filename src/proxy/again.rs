//! What it takes to send a request once more, on a fresh connection, when a reused one had died unnoticed.
//!
//! Only a GET or HEAD without a body may be sent again (RFC 9110, 9.2.2), and hyper does not give back what it has begun
//! to write. To copy every head in case of need costs a thousand instructions; the bytes on the wire cost a few.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connect::Stream;
use super::wire;
use crate::fault::Outlet;
use crate::service::Body;

/// Longer heads are not kept.
const LONGEST: usize = 16 * 1024;

/// No head that we send has more fields: no listener takes more.
const FIELDS: usize = 1024;

/// The head that was written last.
#[derive(Clone, Debug, Default)]
pub(super) struct Sent(Arc<Kept>);

#[derive(Debug, Default)]
struct Kept {
    record: Mutex<Record>,
    /// Something of the answer has come.
    answered: AtomicBool,
}

#[derive(Debug, Default)]
struct Record {
    awaited: bool,
    /// The socket has not taken all that was written last.
    unwritten: bool,
    head: Vec<u8>,
}

impl Sent {
    /// The way out of a connection.
    pub(super) fn outlet(&self) -> Outlet {
        let sent = self.clone();
        Outlet::new(move || !sent.record().unwritten)
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.0.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    /// Notes whether all of it went.
    fn wrote(&mut self, length: usize, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.unwritten = !matches!(written, Poll::Ready(Ok(written)) if written == length);
        written
    }
}

/// A request that may be sent again.
#[derive(Debug)]
pub(super) struct Again(Sent);

impl Again {
    /// Has the head of this request kept, if it may be sent again.
    pub(super) fn of(request: &Request<Body>, sent: &Sent) -> Option<Self> {
        if !may_be_sent_again(request) {
            return None;
        }
        let mut record = sent.record();
        record.awaited = true;
        sent.0.answered.store(false, Relaxed);
        record.head.clear();
        drop(record);
        Some(Self(sent.clone()))
    }

    /// The request, as it was written; nothing where a byte of an answer has come.
    pub(super) fn request(self) -> Option<Request<Body>> {
        if self.0.0.answered.load(Relaxed) {
            return None;
        }
        let record = self.0.record();
        let mut fields = vec![httparse::EMPTY_HEADER; FIELDS];
        let mut head = httparse::Request::new(&mut fields);
        if !head.parse(&record.head).ok()?.is_complete() {
            return None;
        }
        let mut request = Request::new(Body::empty());
        *request.version_mut() = Version::HTTP_11;
        *request.method_mut() = Method::from_bytes(head.method?.as_bytes()).ok()?;
        *request.uri_mut() = head.path?.parse::<Uri>().ok()?;
        for field in head.headers {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            request.headers_mut().append(name, HeaderValue::from_bytes(field.value).ok()?);
        }
        Some(request)
    }

    /// A copy of this request, if it may be sent again. On HTTP/2 a head is not written as it is.
    pub(super) fn copy(request: &Request<Body>) -> Option<Request<Body>> {
        may_be_sent_again(request).then(|| {
            let mut copy = Request::new(Body::empty());
            *copy.version_mut() = request.version();
            *copy.method_mut() = request.method().clone();
            *copy.uri_mut() = request.uri().clone();
            *copy.headers_mut() = request.headers().clone();
            copy
        })
    }
}

/// RFC 9110, 9.2.2.
pub(super) fn may_be_sent_again(request: &Request<Body>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD) && request.body().is_end_stream()
}

/// A connection that keeps the head which is written next, if somebody wants it.
#[derive(Debug)]
pub(super) struct Carrier {
    stream: Stream,
    sent: Sent,
}

impl Carrier {
    pub(super) fn new(stream: Stream) -> (Self, Sent) {
        let sent = Sent::default();
        (Self { stream, sent: sent.clone() }, sent)
    }

    /// Has its end be an RST.
    pub(super) fn reset(&self) {
        self.stream.reset();
    }
}

impl AsyncRead for Carrier {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.sent.0.answered.store(true, Relaxed);
        }
        read
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Self { stream, sent } = self.get_mut();
        let mut record = sent.record();
        if record.awaited {
            record.awaited = false;
            // hyper offers a head without a body in one piece.
            if buf.len() <= LONGEST {
                record.head.extend_from_slice(buf);
            }
        }
        record.wrote(buf.len(), Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        wire::together(bufs, |one| match one {
            Some(one) => self.as_mut().poll_write(cx, one),
            None => {
                let Self { stream, sent } = self.as_mut().get_mut();
                let length = bufs.iter().map(|buf| buf.len()).sum();
                let written = Pin::new(stream).poll_write_vectored(cx, bufs);
                sent.record().wrote(length, written)
            }
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
