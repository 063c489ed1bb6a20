//! A fault whose own code panics costs the run, not the request: it goes on to the upstream as it came.

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use http::Request;
use http::request::Parts;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::trial::Trial;
use crate::service::{Body, Error, FaultedBody, Loan};

/// A request that a fault has, kept so that it can go on without the fault.
pub(super) struct Kept {
    head: Parts,
    body: Loan,
    called: Rc<Cell<bool>>,
}

/// Whether the upstream has been called.
#[derive(Clone)]
pub(super) struct Called(Rc<Cell<bool>>);

impl Kept {
    /// Keeps a request; the fault gets one like it.
    pub(super) fn of(request: Request<Body>) -> (Self, Request<Body>) {
        let (head, mut body) = request.into_parts();
        let loan = body.lend();
        let kept = Self { head: head.clone(), body: loan, called: Rc::default() };
        (kept, Request::from_parts(head, body))
    }

    /// For whoever calls the upstream.
    pub(super) fn called(&self) -> Called {
        Called(self.called.clone())
    }

    /// Its body, where nobody has read of it.
    pub(super) fn body(self) -> Option<Body> {
        self.body.back()
    }

    /// The request as it came; nothing where the upstream has it, or something of it was read.
    pub(super) fn back(self) -> Option<Request<Body>> {
        let body = self.body.back().filter(|_| !self.called.get())?;
        Some(Request::from_parts(self.head, body))
    }
}

impl Called {
    /// The upstream is called: the request is its own now.
    pub(super) fn now(&self, trial: &Arc<Trial>, request: &mut Request<Body>) {
        self.0.set(true);
        request.body_mut().keep_loan();
        guard(trial, request.body_mut());
    }
}

/// Does a fault's work on a call; nothing where it panicked, and the run is over then.
pub(super) async fn caught<F: Future>(trial: &Trial, faulted: F) -> Option<F::Output> {
    match AssertUnwindSafe(faulted).catch_unwind().await {
        Ok(output) => Some(output),
        Err(_) => {
            trial.fail();
            None
        }
    }
}

/// Has a body that a fault made break off where its code panics, instead of the connection's task.
pub(super) fn guard(trial: &Arc<Trial>, body: &mut Body) {
    body.around_faulted(|inner| Box::pin(Guarded { inner: Some(inner), trial: trial.clone() }));
}

struct Guarded {
    /// Nothing once it has panicked.
    inner: Option<FaultedBody>,
    trial: Arc<Trial>,
}

impl Guarded {
    fn caught<T>(&self, work: impl FnOnce(&FaultedBody) -> T, otherwise: T) -> T {
        let Some(inner) = &self.inner else { return otherwise };
        catch_unwind(AssertUnwindSafe(|| work(inner))).unwrap_or_else(|_| {
            self.trial.fail();
            otherwise
        })
    }
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        catch_unwind(AssertUnwindSafe(|| inner.as_mut().poll_frame(cx))).unwrap_or_else(|_| {
            self.inner = None;
            self.trial.fail();
            Poll::Ready(Some(Err(Error::Failed)))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.caught(|inner| inner.is_end_stream(), false)
    }

    fn size_hint(&self) -> SizeHint {
        self.caught(|inner| inner.size_hint(), SizeHint::default())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http_body_util::BodyExt;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::experiment::Experiment;
    use crate::measure::Budget;
    use crate::proxy::Terms;
    use crate::units::Seed;

    fn trial() -> Arc<Trial> {
        let text = "version: 1\nexperiment: test\nhypothesis: All is well.\nslice: { at: front }\n\
            inject: { at: back, faults: [{ error: { status: 503 } }] }\nsteady_state: [{ error_rate: { max: 1% } }]\n";
        let (experiment, _) = Experiment::parse("test", text, &|_| None).unwrap_or_else(|wrong| panic!("{wrong}"));
        let terms = Terms {
            run: "R-test".into(),
            seed: Seed(7),
            rules: Vec::new(),
            limits: Arc::default(),
            harmed: Budget::new(u64::MAX, CancellationToken::new()),
            max_faulted: None,
            places: (0, 1),
            patience: std::time::Duration::from_secs(30),
        };
        Trial::new(experiment.into(), terms).0
    }

    /// Says three bytes, then panics.
    struct Bomb(bool);

    impl HttpBody for Bomb {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            assert!(!std::mem::replace(&mut self.0, true), "planted");
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"abc")))))
        }
    }

    #[tokio::test]
    async fn a_body_whose_code_panics_breaks_off_and_the_run_is_over() {
        let trial = trial();
        let mut body = Body::faulted(Bomb(false));
        guard(&trial, &mut body);
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
        assert!(!trial.failed());
        assert!(matches!(body.frame().await, Some(Err(Error::Failed))));
        assert!(trial.failed() && body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_request_comes_back_whole_unless_something_of_it_went_on() {
        let trial = trial();
        let request = || Request::post("/up").header("x-a", "1").body(Body::from(Bytes::from_static(b"abc"))).unwrap();
        let (kept, faulted) = Kept::of(request());
        assert_eq!(faulted.body().size_hint().exact(), Some(3));
        drop(faulted);
        let back = kept.back().unwrap();
        assert_eq!((back.uri().path(), back.headers()["x-a"].as_bytes()), ("/up", &b"1"[..]));
        assert_eq!(back.into_body().collect().await.unwrap().to_bytes(), "abc");

        let (kept, mut faulted) = Kept::of(request());
        poll_fn(|cx| Pin::new(faulted.body_mut()).poll_frame(cx)).await.unwrap().unwrap();
        assert!(kept.back().is_none(), "it was read");

        let (kept, mut faulted) = Kept::of(request());
        kept.called().now(&trial, &mut faulted);
        assert_eq!(faulted.into_body().collect().await.unwrap().to_bytes(), "abc");
        assert!(kept.back().is_none(), "the upstream has it");
    }
}
