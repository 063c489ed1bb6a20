//! One request without a body, and the head of its answer, over HTTP/1.1: in the task of whoever asks.
//!
//! That is most of what a proxy does. hyper's client keeps a task for each connection and hands every request, and every
//! piece of an answer, over to it and back, so that uploads and answers can overlap. A request without a body needs none of
//! that, and costs two thirds without it (benches/README.md). What has a body, upgrades or keeps its case goes over hyper.

use std::cell::Cell;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use futures_util::future::poll_fn;
use http::header::TRANSFER_ENCODING;
use http::uri::PathAndQuery;
use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWrite};

use super::again::may_be_sent_again;
use super::connect::Stream;
use super::context::Member;
use super::head::{self, Head};
use super::interim::Hints;
use crate::service::{Body, Error};

/// How much is read at once: at first, and after enough of it has come. A MiB in pieces of 64 KiB costs half as much again.
const LEAST: usize = 8 << 10;
const MOST: usize = head::BYTES; // as hyper does

/// A connection that is used for one exchange after the other.
#[derive(Debug)]
pub(super) struct Line {
    stream: Stream,
    /// What has come and was not taken yet.
    pub(super) seen: BytesMut,
    /// How much is read next.
    room: usize,
}

/// Why there is no head of an answer.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: Error,
    /// The upstream cannot have seen the request, or may see it twice.
    pub(super) again: bool,
}

impl From<&'static str> for Failed {
    fn from(why: &'static str) -> Self {
        Self { error: Error::Nonsense(why), again: false }
    }
}

impl Line {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, seen: BytesMut::new(), room: LEAST }
    }

    /// The connection, for somebody else to use.
    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    /// Whether it waits for a request: it is open, and nothing came that nobody asked for.
    pub(super) fn is_ready(&mut self) -> bool {
        self.stream.is_silent()
    }

    /// Gives back its memory, while nothing is under way.
    pub(super) fn forget_room(&mut self) {
        self.seen = BytesMut::new();
        self.room = LEAST;
    }

    /// Sends the head of a request that has no body, with baggage that is not among its fields, and waits for the head of its
    /// answer.
    pub(super) async fn ask(
        &mut self,
        request: &Request<Body>,
        member: Option<&Member>,
        fields: usize,
    ) -> Result<Head, Failed> {
        // RFC 9110, 9.2.2: who loses the answer to these may ask for it again.
        let mut again = may_be_sent_again(request);
        let failed = |error, again| Failed { error: Error::Ended(error), again };
        let whole = self.send(request, member).await.map_err(|(error, unsent)| failed(error, again || unsent))?;
        let (mut looked, mut came) = (0, !whole);
        loop {
            if !std::mem::take(&mut came) {
                match poll_fn(|cx| self.poll_fill(cx)).await {
                    Ok(0) => return Err(failed(io::ErrorKind::UnexpectedEof.into(), again)),
                    Ok(_) => again = false,
                    Err(error) => return Err(failed(error, again)),
                }
            }
            while may_be_whole(&self.seen, looked) {
                let Some(mut head) = head::take(&mut self.seen, request.method(), fields)? else { break };
                let status = head.response.status();
                if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                    head.keeps &= whole;
                    return Ok(head);
                }
                if let Some(hints) = request.extensions().get::<Hints>() {
                    hints.hear(status, head.response.headers());
                }
                looked = 0;
            }
            looked = self.seen.len();
            if looked > head::BYTES {
                return Err("the head of the upstream's answer does not end".into());
            }
        }
    }

    /// Writes a head. Says whether all of it went, or the upstream began to answer before it took all; where it fails,
    /// whether nothing went.
    async fn send(&mut self, request: &Request<Body>, member: Option<&Member>) -> Result<bool, (io::Error, bool)> {
        let mut written = WRITTEN.take();
        written.clear();
        write(request, member, &mut written);
        let mut left = &written[..];
        let sent = poll_fn(|cx| {
            while !left.is_empty() {
                match Pin::new(&mut self.stream).poll_write(cx, left)? {
                    Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(more) => left = &left[more..],
                    Poll::Pending => {
                        return match ready!(self.poll_fill(cx))? {
                            0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                            _ => Poll::Ready(Ok(false)),
                        };
                    }
                }
            }
            Pin::new(&mut self.stream).poll_flush(cx).map_ok(|()| true)
        })
        .await;
        let unsent = left.len() == written.len();
        WRITTEN.set(written);
        sent.map_err(|error| (error, unsent))
    }

    /// Waits for more to come; nothing more comes where it is 0.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.seen.capacity() - self.seen.len() < self.room / 2 {
            self.seen.reserve(self.room);
        }
        let room = self.seen.capacity() - self.seen.len();
        let read = ready!(pin!(self.stream.read_buf(&mut self.seen)).poll(cx))?;
        if read == room {
            self.room = (self.room * 2).min(MOST);
        } else if read < self.room / 4 {
            self.room = (self.room / 2).max(LEAST);
        }
        Poll::Ready(Ok(read))
    }
}

thread_local! {
    /// Kept by the thread: what is written leaves it at once, but for a rest that does not fit into the socket.
    static WRITTEN: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

fn write(request: &Request<Body>, member: Option<&Member>, to: &mut Vec<u8>) {
    let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    // A whole URI may have a query and no path.
    let slash = if target.starts_with('?') { "/" } else { "" };
    for part in [request.method().as_str(), " ", slash, target, " HTTP/1.1\r\n"] {
        to.extend_from_slice(part.as_bytes());
    }
    for (name, value) in request.headers() {
        // There is nothing to be coded.
        if *name != TRANSFER_ENCODING {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                to.extend_from_slice(part);
            }
        }
    }
    if let Some(member) = member {
        member.push_line(to);
    }
    to.extend_from_slice(b"\r\n");
}

/// Whether it is worth while to read a head, of which so much was looked at before: to begin anew with each byte would take
/// the square of its length.
fn may_be_whole(seen: &[u8], looked: usize) -> bool {
    let news = &seen[looked.saturating_sub(2)..];
    if looked == 0 {
        return !seen.is_empty();
    }
    let behind = |at: usize| matches!(news[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]);
    (0..news.len()).any(|at| news[at] == b'\n' && behind(at))
}
