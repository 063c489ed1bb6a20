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
