//! Waiting for the head of an answer, while the request may still be on its way up.

use std::cell::Cell;
use std::rc::Rc;

use http::{Request, Response, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::time::{Instant, timeout_at};

use super::config::Timeouts;
use super::watchdog::Watchdog;
use crate::fault::Witness;
use crate::service::{Body, Cut, Error, Watch};

/// Why there is no answer, and the request where nothing of it was sent.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) error: Error,
    pub(super) unsent: Option<Box<Request<Body>>>,
}

impl From<Error> for Unanswered {
    fn from(error: Error) -> Self {
        Self { error, unsent: None }
    }
}

/// Sends the request, and waits for the head of the answer. The timeout runs from the end of the request, so that an
/// upload may take its time as long as it moves.
pub(super) async fn answer<F, B>(
    watchdog: &Watchdog,
    timeouts: &Timeouts,
    request: Box<Request<Body>>,
    send: impl FnOnce(Request<Body>) -> F,
) -> Result<Box<Response<Body>>, Unanswered>
where
    F: Future<Output = Result<Response<Incoming>, TrySendError<Request<B>>>>,
    Body: From<B>,
{
    let span = timeouts.response.get();
    if !request.body().is_end_stream() {
        return Box::pin(upload(timeouts, *request, send)).await;
    }
    match watchdog.within(span, send(*request)).await {
        Ok(Ok(response)) => Ok(whole(response, None)),
        Ok(Err(error)) => Err(unanswered(error, Error::Broken)),
        Err(_) => Err(Error::Timeout.into()),
    }
}

/// The answer with a body that knows whether it is whole. Nothing is known of an upload where there is none.
fn whole(response: Response<Incoming>, upload: Option<Rc<Cell<Upload>>>) -> Box<Response<Body>> {
    if response.version() != Version::HTTP_2 {
        return Box::new(response.map(Body::from));
    }
    let sent = upload.map(|upload| Box::new(move || matches!(upload.get(), Upload::Sent(_))) as Box<dyn Fn() -> bool>);
    Box::new(response.map(|body| Body::streamed(body, sent)))
}

async fn upload<F, B>(
    timeouts: &Timeouts,
    mut request: Request<Body>,
    send: impl FnOnce(Request<Body>) -> F,
) -> Result<Box<Response<Body>>, Unanswered>
where
    F: Future<Output = Result<Response<Incoming>, TrySendError<Request<B>>>>,
    Body: From<B>,
{
    let (span, stall) = (timeouts.response.get(), timeouts.body_stall.get());
    let upload = Rc::new(Cell::new(Upload::Moved(Instant::now())));
    let moving = upload.clone();
    let witness = request.extensions().get::<Witness>().cloned();
    request.body_mut().stall_after(stall);
    request.body_mut().watch(Sent(moving));
    let mut sending = std::pin::pin!(send(request));
    let mut deadline = Instant::now() + span;
    loop {
        if let Ok(sent) = timeout_at(deadline, &mut sending).await {
            let why = match upload.get() {
                Upload::Cut(cut) if sent.is_err() => return Err(Error::from(cut).into()),
                Upload::Broken => Error::Upload,
                Upload::Stalled => Error::Stalled,
                _ => Error::Broken,
            };
            let answer = sent.map_err(|error| unanswered(error, why))?;
            return Ok(whole(answer, Some(upload)));
        }
        deadline = match upload.get() {
            // It is us who hold it.
            _ if witness.as_ref().is_some_and(Witness::holds) => Instant::now() + stall + span,
            // Longer than the caller may stand still: here it is the upstream that takes nothing.
            Upload::Moved(at) => at + stall + span,
            Upload::Sent(at) => at + span,
            Upload::Broken | Upload::Stalled | Upload::Cut(_) => return Err(Error::Timeout.into()),
        };
        if deadline <= Instant::now() {
            return Err(Error::Timeout.into());
        }
    }
}

fn unanswered<B>(mut error: TrySendError<Request<B>>, why: impl FnOnce(hyper::Error) -> Error) -> Unanswered
where
    Body: From<B>,
{
    let unsent = error.take_message().map(|request| Box::new(request.map(Body::from)));
    Unanswered { unsent, error: why(error.into_error()) }
}

/// How far the body of a request is.
#[derive(Clone, Copy)]
enum Upload {
    Moved(Instant),
    Sent(Instant),
    Broken,
    Stalled,
    /// A fault broke it off.
    Cut(Cut),
}

/// Notes how far the body of a request is.
struct Sent(Rc<Cell<Upload>>);

impl Watch for Sent {
    fn piece(&mut self, _: &[u8]) {
        self.0.set(Upload::Moved(Instant::now()));
    }

    fn end(&mut self, result: Result<(), &Error>) {
        self.0.set(match result {
            Ok(()) => Upload::Sent(Instant::now()),
            Err(Error::Timeout) => Upload::Stalled,
            Err(Error::Injected(cut, _)) => Upload::Cut(*cut),
            Err(_) => Upload::Broken,
        });
    }
}
