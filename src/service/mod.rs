//! What every seam of the data plane speaks: a body that streams, and an error that knows whose fault it is.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::clock::Coarse;

mod error;

pub use self::error::{Cut, Error, Origin};

/// A body on its way through: nothing is ever buffered whole.
///
/// A struct over an enum instead of a boxed body: a request that meets no fault must not pay for a box.
pub struct Body {
    inner: Inner,
    watch: Watchers,
    stall: Option<Stall>,
    busy: Option<Busy>,
}

/// A connection with an exchange under way, for as long as this lives.
#[derive(Debug)]
pub struct Busy(Arc<Quiet>);

/// Since when a connection has had nothing to do. Only one thread touches it.
#[derive(Debug)]
pub struct Quiet {
    clock: Arc<Coarse>,
    busy: AtomicU32,
    since: AtomicU64,
    /// What was written last has not all gone into the socket.
    unwritten: AtomicBool,
}

impl Quiet {
    /// Nothing to do from now on.
    pub fn new(clock: Arc<Coarse>) -> Arc<Self> {
        let (busy, since) = (AtomicU32::new(0), AtomicU64::new(clock.nanos()));
        Arc::new(Self { busy, since, unwritten: AtomicBool::new(false), clock })
    }

    /// Something was written; whether all of it went into the socket.
    pub fn wrote(&self, whole: bool) {
        self.unwritten.store(!whole, Relaxed);
    }

    /// Whether what was written last has not all gone into the socket.
    pub fn has_unwritten(&self) -> bool {
        self.unwritten.load(Relaxed)
    }

    /// An exchange begins.
    pub fn begin(self: &Arc<Self>) -> Busy {
        self.busy.store(self.busy.load(Relaxed) + 1, Relaxed);
        Busy(self.clone())
    }

    /// Since when there has been nothing to do, in nanoseconds of its clock; nothing while there is.
    pub fn since(&self) -> Option<u64> {
        (self.busy.load(Relaxed) == 0).then(|| self.since.load(Relaxed))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let Quiet { clock, busy, since, .. } = &*self.0;
        let left = busy.load(Relaxed) - 1;
        busy.store(left, Relaxed);
        if left == 0 {
            since.store(clock.nanos(), Relaxed);
        }
    }
}

/// How long a body may stand still.
struct Stall {
    after: Duration,
    timer: Option<Box<Standstill>>,
}

/// A body that has stood still once. The timer is set anew only when it runs out.
struct Standstill {
    since: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Stall {
    /// Whether the body has stood still for too long; called while it does.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { after, timer } = self;
        let still = timer.get_or_insert_with(|| {
            let now = Instant::now();
            Box::new(Standstill { since: Some(now), timer: Box::pin(sleep_until(now + *after)) })
        });
        let due = *still.since.get_or_insert_with(Instant::now) + *after;
        loop {
            ready!(still.timer.as_mut().poll(cx));
            if still.timer.deadline() >= due {
                return Poll::Ready(());
            }
            still.timer.as_mut().reset(due);
        }
    }

    fn moves(&mut self) {
        if let Some(still) = &mut self.timer {
            still.since = None;
        }
    }
}

/// What a body that does not move comes to, where it may not stand still for ever.
fn still(stall: &mut Option<Stall>, cx: &mut Context<'_>) -> Poll<Error> {
    let Some(stall) = stall else { return Poll::Pending };
    stall.poll(cx).map(|()| Error::Timeout)
}

enum Inner {
    Empty,
    Bytes(Bytes),
    Incoming(Incoming),
    Streamed(Box<Streamed>),
    Read(FaultedBody),
    Broken(Box<Broken>),
    Faulted(FaultedBody),
    /// Somebody else's, who takes it back where nobody has read of it.
    Lent(Rc<RefCell<Lent>>),
}

/// An answer's body on a stream of HTTP/2.
///
/// A stream that is reset with NO_ERROR ends like any other for hyper: it says that the answer was whole and the rest of
/// the request is not wanted (RFC 9113, 8.1). Without END_STREAM, and where the whole request was sent, it broke off.
struct Streamed {
    incoming: Incoming,
    /// Whether the request was sent to its end.
    sent: Option<Box<dyn Fn() -> bool>>,
}

impl Streamed {
    /// At the end of what came: whether that was all.
    fn is_whole(&self) -> bool {
        let missing = self.incoming.size_hint().exact().is_some_and(|left| left > 0);
        let sent = || self.sent.as_ref().is_none_or(|sent| sent());
        self.incoming.is_end_stream() || !missing && !sent()
    }
}

/// A body that has broken off, which is told when it is asked for again: what came before goes first. What hyper has not
/// written by then, it throws away.
#[derive(Debug)]
pub struct Broken {
    error: Option<Error>,
    since: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

/// How often it is looked whether what came before a break is written.
const LOOKS: Duration = Duration::from_millis(20);

impl Broken {
    /// It broke off now.
    pub fn new(error: Error) -> Self {
        Self { error: Some(error), since: Instant::now(), timer: None }
    }

    /// The error, told once, when nobody waits any more; `waits` is asked now and then, with the time since the break.
    pub fn poll(&mut self, waits: impl Fn(Duration) -> bool, cx: &mut Context<'_>) -> Poll<Option<Error>> {
        while waits(self.since.elapsed()) {
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(LOOKS)));
            ready!(timer.as_mut().poll(cx));
            self.timer = None;
        }
        Poll::Ready(self.error.take())
    }
}

/// Fields that say where a message ends or what a connection does (RFC 9110, 6.5.1 and 7.6.1): the proxy writes them, and
/// nobody else; no trailer may be one.
pub const OF_ONE_HOP: [&str; 8] =
    ["connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// A body that a fault made or changed.
pub type FaultedBody = Pin<Box<dyn HttpBody<Data = Bytes, Error = Error>>>;

struct Lent {
    body: Body,
    read: bool,
}

/// What a body was lent for: whoever has it can have the body back until somebody has read of it.
#[derive(Debug)]
pub struct Loan(Rc<RefCell<Lent>>);

impl Loan {
    /// Takes the body back; nothing where somebody has read of it, or has it for good.
    pub fn back(self) -> Option<Body> {
        let mut lent = self.0.borrow_mut();
        let whole = !lent.read;
        lent.read = true;
        whole.then(|| std::mem::replace(&mut lent.body, Body::empty()))
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("body", &self.body).field("read", &self.read).finish()
    }
}

/// Somebody who wants to know how a body ends. Dropped without [`Watch::end`]: nobody read it to its end.
pub trait Watch {
    /// A piece went through.
    fn piece(&mut self, _piece: &[u8]) {}

    /// The trailers, if there are any.
    fn trailers(&mut self, _trailers: &http::HeaderMap) {}

    /// The body is over, whole or broken; told once.
    fn end(&mut self, result: Result<(), &Error>);
}

/// Whoever watches a body, the last first: one allocation each, and none where nobody does.
type Watchers = Option<Box<Link<dyn Watch>>>;

struct Link<W: ?Sized> {
    before: Watchers,
    watch: W,
}

fn tell(mut watchers: Option<&mut Link<dyn Watch>>, news: impl Fn(&mut dyn Watch)) {
    while let Some(link) = watchers {
        news(&mut link.watch);
        watchers = link.before.as_deref_mut();
    }
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Inner::Empty.into()
    }

    /// A body that a fault made or changed; boxed, because only faulted requests pay for it.
    pub fn faulted(body: impl HttpBody<Data = Bytes, Error = Error> + 'static) -> Self {
        Inner::Faulted(Box::pin(body)).into()
    }

    /// An answer's body that is read from a connection when it is asked for.
    pub fn read(body: impl HttpBody<Data = Bytes, Error = Error> + 'static) -> Self {
        Inner::Read(Box::pin(body)).into()
    }

    /// An answer's body on a stream of HTTP/2. `sent` says whether the request was sent to its end; it was where nothing is
    /// given.
    pub fn streamed(incoming: Incoming, sent: Option<Box<dyn Fn() -> bool>>) -> Self {
        Inner::Streamed(Box::new(Streamed { incoming, sent })).into()
    }

    /// Leaves in its place a body that reads from it, and can be had back as long as nobody does.
    pub fn lend(&mut self) -> Loan {
        let body = std::mem::replace(self, Self::empty());
        let lent = Rc::new(RefCell::new(Lent { body, read: false }));
        *self = Inner::Lent(lent.clone()).into();
        Loan(lent)
    }

    /// What was lent is the reader's for good: it is read as if it had never been lent.
    pub fn keep_loan(&mut self) {
        if let Inner::Lent(lent) = &self.inner
            && self.watch.is_none()
            && let Some(body) = Loan(lent.clone()).back()
        {
            *self = body;
        }
    }

    /// Puts something around a body that a fault made; any other stays as it is.
    pub fn around_faulted(&mut self, wrap: impl FnOnce(FaultedBody) -> FaultedBody) {
        self.inner = match std::mem::replace(&mut self.inner, Inner::Empty) {
            Inner::Faulted(body) => Inner::Faulted(wrap(body)),
            other => other,
        };
    }

    /// Whether all of it is here already.
    pub fn is_at_hand(&self) -> bool {
        matches!(self.inner, Inner::Empty | Inner::Bytes(_))
    }

    /// Adds somebody who wants to know the end.
    pub fn watch(&mut self, watch: impl Watch + 'static) {
        let before = self.watch.take();
        self.watch = Some(Box::new(Link { before, watch }));
    }

    /// Keeps the connection busy for as long as the body lives.
    pub fn keep(&mut self, busy: Busy) {
        self.busy = Some(busy);
    }

    /// Breaks the body off when nothing comes for so long.
    pub fn stall_after(&mut self, after: Duration) {
        self.stall = Some(Stall { after, timer: None });
    }

    fn over(&mut self, result: Result<(), &Error>) {
        tell(self.watch.take().as_deref_mut(), |watch| watch.end(result));
    }
}

impl From<Inner> for Body {
    fn from(inner: Inner) -> Self {
        Self { inner, watch: None, stall: None, busy: None }
    }
}

impl From<Incoming> for Body {
    fn from(incoming: Incoming) -> Self {
        Inner::Incoming(incoming).into()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::empty() } else { Inner::Bytes(bytes).into() }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let mut frame = match &mut this.inner {
            Inner::Empty => None,
            Inner::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                this.inner = Inner::Empty;
                Some(Ok(Frame::data(bytes)))
            }
            Inner::Incoming(incoming) => match Pin::new(incoming).poll_frame(cx) {
                Poll::Ready(frame) => frame.map(|frame| frame.map_err(Error::Body)),
                Poll::Pending => Some(Err(ready!(still(&mut this.stall, cx)))),
            },
            Inner::Streamed(streamed) => match Pin::new(&mut streamed.incoming).poll_frame(cx) {
                Poll::Ready(None) if !streamed.is_whole() => Some(Err(Error::Torn)),
                Poll::Ready(frame) => frame.map(|frame| frame.map_err(Error::Body)),
                Poll::Pending => Some(Err(ready!(still(&mut this.stall, cx)))),
            },
            Inner::Read(body) => match body.as_mut().poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => Some(Err(ready!(still(&mut this.stall, cx)))),
            },
            Inner::Broken(broken) => {
                // Where nobody bounds a standstill, nobody waits.
                let patience = this.stall.as_ref().map_or(Duration::ZERO, |stall| stall.after);
                let unwritten = || this.busy.as_ref().is_some_and(|busy| busy.0.has_unwritten());
                ready!(broken.poll(|since| since < patience && unwritten(), cx)).map(Err)
            }
            Inner::Faulted(body) => ready!(body.as_mut().poll_frame(cx)),
            Inner::Lent(lent) => {
                let mut lent = lent.borrow_mut();
                lent.read = true;
                match Pin::new(&mut lent.body).poll_frame(cx) {
                    Poll::Ready(frame) => frame,
                    Poll::Pending => Some(Err(ready!(still(&mut this.stall, cx)))),
                }
            }
        };
        if let Inner::Incoming(_) | Inner::Streamed(_) | Inner::Read(_) = &this.inner
            && let Some(Err(error)) = frame
        {
            this.inner = Inner::Broken(Box::new(Broken::new(error)));
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(stall) = &mut this.stall {
            stall.moves();
        }
        if let Some(trailers) = frame.as_mut().and_then(|frame| frame.as_mut().ok()?.trailers_mut()) {
            OF_ONE_HOP.iter().chain(&["host"]).for_each(|name| drop(trailers.remove(*name)));
        }
        match &frame {
            None => this.over(Ok(())),
            Some(Err(error)) => this.over(Err(error)),
            Some(Ok(frame)) => {
                tell(this.watch.as_deref_mut(), |watch| match frame.trailers_ref() {
                    Some(trailers) => watch.trailers(trailers),
                    None => watch.piece(frame.data_ref().map_or(&[], Bytes::as_ref)),
                });
                // hyper does not poll again once a length-delimited body says that it is complete, nor behind trailers.
                if this.watch.is_some() && (frame.is_trailers() || this.is_end_stream()) {
                    this.over(Ok(()));
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Empty => true,
            Inner::Bytes(_) | Inner::Broken(_) => false,
            Inner::Incoming(incoming) => incoming.is_end_stream(),
            Inner::Streamed(streamed) => streamed.incoming.is_end_stream(),
            Inner::Read(body) | Inner::Faulted(body) => body.is_end_stream(),
            Inner::Lent(lent) => lent.borrow().body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Broken(_) => SizeHint::default(),
            Inner::Incoming(incoming) => incoming.size_hint(),
            Inner::Streamed(streamed) => streamed.incoming.size_hint(),
            Inner::Read(body) | Inner::Faulted(body) => body.size_hint(),
            Inner::Lent(lent) => lent.borrow().body.size_hint(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.inner {
            Inner::Empty => "empty",
            Inner::Bytes(_) => "bytes",
            Inner::Incoming(_) | Inner::Streamed(_) | Inner::Read(_) | Inner::Broken(_) => "incoming",
            Inner::Faulted(_) => "faulted",
            Inner::Lent(_) => "lent",
        };
        f.debug_struct("Body").field("kind", &kind).field("watched", &self.watch.is_some()).finish()
    }
}
