//! Holding: waiting on purpose, with an end that comes at once when the injection ends.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::clock::Delay;

/// When the proxy had the request in its hands: injected delays count from here.
#[derive(Clone, Copy, Debug)]
pub struct Arrived(pub Instant);

/// What a call met, told by the faults themselves; put into the request's extensions by whoever wants to know.
#[derive(Clone, Debug, Default)]
pub struct Witness(Arc<Mutex<Testimony>>);

/// What a call met.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Testimony {
    /// How long it was to be held, and from when on.
    pub asked: Option<(Duration, Instant)>,
    /// Held to the end.
    pub waited: Option<Duration>,
    /// Let go before the end, because the injection ended.
    pub released: bool,
    /// A body is on its way that may still meet the fault.
    pub awaited: bool,
    /// A body was changed or slowed.
    pub changed: bool,
    /// A body was broken off.
    pub torn: bool,
}

impl Witness {
    /// What has been told so far.
    pub fn hear(&self) -> Testimony {
        *self.lock()
    }

    /// Whether the call is held at this moment.
    pub fn holds(&self) -> bool {
        let Testimony { asked, waited, released, .. } = self.hear();
        asked.is_some() && waited.is_none() && !released
    }

    /// Tells something.
    pub(super) fn tell(&self, news: impl FnOnce(&mut Testimony)) {
        news(&mut self.lock());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Testimony> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// How a hold ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Held {
    /// The time passed.
    ToTheEnd,
    /// The injection ended first.
    Released,
}

pin_project! {
    /// Waits for an instant, or for the end of the injection, whichever comes first.
    #[derive(Debug)]
    pub(super) struct Hold {
        #[pin]
        timer: Option<Delay>,
        #[pin]
        stop: WaitForCancellationFutureOwned,
        since: Instant,
        witness: Option<Witness>,
    }
}

impl Hold {
    /// Holds for a span counted from `since`; without a span, until the injection ends.
    pub(super) fn new(
        since: Instant,
        span: Option<Duration>,
        stop: CancellationToken,
        witness: Option<Witness>,
    ) -> Self {
        if let Some(witness) = &witness {
            witness.lock().asked = Some((span.unwrap_or(Duration::MAX), since));
        }
        let timer = span.map(|span| Delay::until(since + span));
        Self { timer, stop: stop.cancelled_owned(), since, witness }
    }
}

impl Future for Hold {
    type Output = Held;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Held> {
        let this = self.project();
        let held = if this.timer.as_pin_mut().is_some_and(|timer| timer.poll(cx).is_ready()) {
            Held::ToTheEnd
        } else if this.stop.poll(cx).is_ready() {
            Held::Released
        } else {
            return Poll::Pending;
        };
        if let Some(witness) = this.witness.take() {
            let mut testimony = witness.lock();
            match held {
                Held::ToTheEnd => testimony.waited = Some(this.since.elapsed()),
                Held::Released => testimony.released = true,
            }
        }
        Poll::Ready(held)
    }
}
