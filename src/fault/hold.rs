//! Holding: waiting on purpose, with an end that comes at once when the injection ends.
//!
//! Whoever is let go then leaves in turn, within [`Release::LONGEST`]: a thousand that were held are not one burst at the
//! upstream.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
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
pub struct Witness {
    told: Arc<Mutex<Testimony>>,
    /// When it leaves if it is let go; at once where nothing is said.
    turn: Option<(Release, f64)>,
}

/// What a call met.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Testimony {
    /// How long it was to be held, and from when on.
    pub asked: Option<(Duration, Instant)>,
    /// Held to the end.
    pub waited: Option<Duration>,
    /// Let go before the end, because the injection ended.
    pub released: bool,
    /// A fault that does not meet every call met this one.
    pub met: bool,
    /// A fault that does not meet every call passed this one by.
    pub spared: Option<Spared>,
    /// A body is on its way that may still meet the fault.
    pub awaited: bool,
    /// A body was changed or slowed.
    pub changed: bool,
    /// A body was broken off.
    pub torn: bool,
}

/// Why a fault passes a call by that it was meant for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Spared {
    /// It cannot be sent twice without harm: its method is not safe, or it asks for an upgrade.
    NotRepeatable,
    /// Its body is too large to be kept, or was not over when the answer came.
    TooLarge,
    /// The dependency can take it.
    BelowLimit,
    /// As many as may be are under way.
    TooMany,
}

impl Witness {
    /// A witness of a call that leaves in turn: `place`, in [0, 1), says when among the others.
    pub fn in_turn(release: Release, place: f64) -> Self {
        Self { turn: Some((release, place)), ..Self::default() }
    }

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

    /// A fault that does not meet every call met this one.
    pub(super) fn met(&self) {
        self.lock().met = true;
    }

    /// A fault that does not meet every call passed this one by.
    pub(super) fn spared(&self, why: Spared) {
        self.lock().spared = Some(why);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Testimony> {
        self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// How long it stays after the injection ended.
    fn turn(&self) -> Duration {
        self.turn.as_ref().map_or(Duration::ZERO, |(release, place)| release.spread().mul_f64(*place))
    }
}

/// How those who are held are let go when the injection ends: one after the other, over a moment.
#[derive(Clone, Debug, Default)]
pub struct Release(Arc<AtomicU64>);

impl Release {
    /// The last one leaves within this. Of the tenth of a second in which a halt takes every fault off, another process
    /// needs a part to see the halt, and a worker that is busy another to send them all on.
    pub const LONGEST: Duration = Duration::from_millis(40);

    /// A few are let go almost at once; the more there are the longer it takes, up to [`Self::LONGEST`].
    const EACH: Duration = Duration::from_millis(1);

    /// Says how many are held; before they are let go.
    pub fn prepare(&self, held: u64) {
        let each = Self::EACH.as_micros() as u64;
        let spread = each.saturating_mul(held.saturating_sub(1)).min(Self::LONGEST.as_micros() as u64);
        self.0.store(spread, Ordering::Release);
    }

    fn spread(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Acquire))
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
        #[pin]
        turn: Option<Delay>,
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
        Self { timer, stop: stop.cancelled_owned(), since, witness, turn: None }
    }
}

impl Future for Hold {
    type Output = Held;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Held> {
        let mut this = self.project();
        let held = if let Some(turn) = this.turn.as_mut().as_pin_mut() {
            ready!(turn.poll(cx));
            Held::Released
        } else if this.timer.as_pin_mut().is_some_and(|timer| timer.poll(cx).is_ready()) {
            Held::ToTheEnd
        } else {
            ready!(this.stop.poll(cx));
            let turn = this.witness.as_ref().map_or(Duration::ZERO, Witness::turn);
            if !turn.is_zero() {
                this.turn.set(Some(Delay::until(Instant::now() + turn)));
                ready!(this.turn.as_pin_mut().expect("it was set").poll(cx));
            }
            Held::Released
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_thousand_are_let_go_in_turn_and_all_within_the_moment() {
        let (stop, release) = (CancellationToken::new(), Release::default());
        let mut held = tokio::task::JoinSet::new();
        for index in 0..1000 {
            let witness = Witness::in_turn(release.clone(), f64::from(index) / 1000.0);
            let hold = Hold::new(Instant::now(), Some(Duration::from_secs(3600)), stop.clone(), Some(witness.clone()));
            held.spawn(async move {
                assert_eq!(hold.await, Held::Released);
                assert!(witness.hear().released);
                Instant::now()
            });
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(held.try_join_next().is_none(), "nobody left before");
        let ended = Instant::now();
        release.prepare(1000);
        stop.cancel();
        let mut tenths = [0; 4];
        while let Some(left) = held.join_next().await {
            let after = left.unwrap() - ended;
            // Tokio's clock counts whole milliseconds and rounds up.
            assert!(after <= Release::LONGEST, "{after:?}");
            tenths[((after.as_millis().max(1) - 1) / 10) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (225..275).contains(count)), "they leave evenly: {tenths:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_alone_is_let_go_at_once_and_a_delay_that_ends_meanwhile_does_not_cut_it() {
        let (stop, release) = (CancellationToken::new(), Release::default());
        let start = Instant::now();
        let hold = |millis| {
            let witness = Witness::in_turn(release.clone(), 0.99);
            Hold::new(start, Some(Duration::from_millis(millis)), stop.clone(), Some(witness))
        };
        release.prepare(1);
        let (alone, short) = (hold(1000), hold(10));
        stop.cancel();
        assert_eq!((alone.await, start.elapsed()), (Held::Released, Duration::ZERO));
        release.prepare(1000);
        assert_eq!((short.await, start.elapsed()), (Held::Released, Release::LONGEST));
    }
}
