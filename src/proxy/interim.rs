//! Interim answers (RFC 9110, 15.2): who expects 100 waits for the upstream's word, and early hints go on.
//!
//! hyper's client tells of interim answers only through a callback in the request's extensions, which costs three
//! allocations. So it is asked only for a request with `Expect`, and where the listener says `early_hints`.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::header::{CONTENT_LENGTH, EXPECT, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Request, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::hop;
use super::wire::Socket;
use crate::service::{Body, Error};

/// How long an upstream may keep the body waiting. RFC 9110, 10.1.1: nobody waits for ever, for there are servers that
/// never say 100; one second is what common clients give them.
const PATIENCE: Duration = Duration::from_secs(1);

/// Longer early hints are not sent on: they would not fit into any socket at once.
const LONGEST: usize = 4096;

/// What happens to a request before its answer. When this is dropped, nothing does any more.
#[derive(Debug)]
pub(super) struct Interim(Arc<Between>);

#[derive(Debug)]
struct Between {
    gate: AtomicU8,
    waker: AtomicWaker,
    /// The final answer is there, or nobody waits for it any more.
    over: AtomicBool,
    /// Where early hints go.
    hints: Option<Socket>,
}

/// The body waits for a word.
const WAITS: u8 = 0;
/// The body may go.
const GOES: u8 = 1;
/// The body will never go: the answer came without.
const STAYS: u8 = 2;

impl Interim {
    /// Listens to what the upstream says before its answer: early hints are said to the caller at `hints`.
    pub(super) fn hear<B>(request: &mut Request<B>, hints: Option<Socket>) -> Self {
        let gate = AtomicU8::new(GOES);
        let between = Arc::new(Between { gate, waker: AtomicWaker::new(), over: AtomicBool::new(false), hints });
        let heard = between.clone();
        request.extensions_mut().insert(Hints(between.clone()));
        hyper::ext::on_informational(request, move |answer| heard.hear(answer.status(), answer.headers()));
        Self(between)
    }

    /// Keeps the body until the upstream says 100, and asks it to.
    pub(super) fn expect(&self, request: &mut Request<Body>, stall: Duration) {
        self.0.gate.store(WAITS, Ordering::Relaxed);
        request.headers_mut().insert(EXPECT, HeaderValue::from_static("100-continue"));
        request.extensions_mut().insert(Goes(self.0.clone()));
        let mut body = std::mem::replace(request.body_mut(), Body::empty());
        body.stall_after(stall);
        *request.body_mut() = Body::faulted(Kept { body, between: self.0.clone(), timer: None });
    }

    /// The answer is there. Says whether the body was never asked for; then it never will be.
    pub(super) fn end(&self) -> bool {
        self.0.over.store(true, Ordering::Relaxed);
        let kept = self.0.turn(STAYS);
        self.0.waker.wake();
        kept
    }
}

impl Drop for Interim {
    fn drop(&mut self) {
        self.end();
    }
}

/// Who listens, for those who do not go by hyper.
#[derive(Clone)]
pub(super) struct Hints(Arc<Between>);

impl Hints {
    pub(super) fn hear(&self, status: StatusCode, headers: &HeaderMap) {
        self.0.hear(status, headers);
    }
}

/// Lets the body of a request go that nobody will be asked about: there is no `Expect` on the way that it takes.
#[derive(Clone)]
struct Goes(Arc<Between>);

/// Takes the expectation away: on HTTP/2 upstreams are not asked.
pub(super) fn forgo<B>(request: &mut Request<B>) {
    if request.headers_mut().remove(EXPECT).is_some()
        && let Some(Goes(between)) = request.extensions_mut().remove()
    {
        between.turn(GOES);
    }
}

impl Between {
    fn turn(&self, to: u8) -> bool {
        self.gate.compare_exchange(WAITS, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn hear(&self, status: StatusCode, headers: &HeaderMap) {
        if status == StatusCode::CONTINUE {
            self.turn(GOES);
            self.waker.wake();
        } else if let Some(socket) = self.hints.as_ref().filter(|_| !self.over.load(Ordering::Relaxed)) {
            let head = head(status, headers.clone());
            if head.len() <= LONGEST {
                socket.interject(&head);
            }
        }
    }
}

fn head(status: StatusCode, mut headers: HeaderMap) -> Vec<u8> {
    hop::strip(&mut headers);
    // RFC 9110, 8.6; RFC 9112, 6.1: it has no body to frame, and who believed that would be out of step.
    for framing in [CONTENT_LENGTH, TRANSFER_ENCODING] {
        headers.remove(framing);
    }
    let mut head = format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or("")).into_bytes();
    for (name, value) in &headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// A body that waits. To ask for its first piece is what makes hyper say 100 to the caller.
struct Kept {
    body: Body,
    between: Arc<Between>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for Kept {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        this.between.waker.register(cx.waker());
        match this.between.gate.load(Ordering::Relaxed) {
            GOES => return Pin::new(&mut this.body).poll_frame(cx),
            STAYS => {
                // hyper's server ends the connection after the answer when it sees that nobody wants the body.
                this.body = Body::empty();
                return Poll::Pending;
            }
            _ => {}
        }
        ready!(this.timer.get_or_insert_with(|| Box::pin(sleep(PATIENCE))).as_mut().poll(cx));
        this.between.turn(GOES);
        Pin::new(&mut this.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.between.gate.load(Ordering::Relaxed) == GOES && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
