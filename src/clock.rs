//! Wall-clock time and delays that can follow Tokio's clock, so that a paused test has a fixed date; on a worker's thread
//! delays are exact.
//!
//! Tokio's timers count whole milliseconds and are a millisecond late at the median. An injected delay is a measurement:
//! [`sharpen`] gives a thread one timerfd for all its delays, which are then late by what it takes to wake a thread.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use jiff::Timestamp;
use tokio::time::{Instant, Sleep, sleep_until};

#[cfg(target_os = "linux")]
use self::exact::Entry;

thread_local! {
    static FROZEN: Cell<Option<Began>> = const { Cell::new(None) };
}

/// The time of day; in a thread that called [`follow_tokio`], the frozen date plus what Tokio's clock has run since.
pub fn now() -> Timestamp {
    match FROZEN.get() {
        Some(began) => began.until_now(),
        None => Timestamp::now(),
    }
}

/// When something began. It ends so much later as has passed: a clock that is set in between moves neither.
#[derive(Clone, Copy, Debug)]
pub struct Began {
    /// The time of day.
    pub at: Timestamp,
    since: Instant,
}

impl Began {
    /// At this moment.
    pub fn now() -> Self {
        Self { at: now(), since: Instant::now() }
    }

    /// The time of day at this moment, by the clock of its beginning.
    pub fn until_now(&self) -> Timestamp {
        self.at + self.since.elapsed()
    }
}

/// Makes [`now`] follow Tokio's clock from a date on, in this thread. For tests.
pub fn follow_tokio(date: Timestamp) {
    FROZEN.set(Some(Began { at: date, since: Instant::now() }));
}

/// A time that somebody tells now and then: reading it costs an instruction, and it is as old as the last telling.
#[derive(Debug)]
pub struct Coarse {
    start: Instant,
    nanos: AtomicU64,
}

impl Coarse {
    /// Begins at one, so that zero can stand for never.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), nanos: AtomicU64::new(1) })
    }

    /// Nanoseconds from its beginning to the last telling.
    pub fn nanos(&self) -> u64 {
        self.nanos.load(Relaxed)
    }

    /// Tells the time.
    pub fn tell(&self) {
        self.nanos.store(1 + self.start.elapsed().as_nanos() as u64, Relaxed);
    }
}

/// Waits until an instant: never less, and on a sharpened thread hardly more.
#[derive(Debug)]
pub struct Delay(Inner);

#[derive(Debug)]
enum Inner {
    #[cfg(target_os = "linux")]
    Exact(Entry),
    Tokio(Pin<Box<Sleep>>),
}

impl Delay {
    /// Until an instant.
    pub fn until(due: Instant) -> Self {
        #[cfg(target_os = "linux")]
        if let Some(entry) = Entry::new(due) {
            return Self(Inner::Exact(entry));
        }
        Self(Inner::Tokio(Box::pin(sleep_until(due))))
    }
}

impl Future for Delay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            #[cfg(target_os = "linux")]
            Inner::Exact(entry) => entry.poll(cx),
            Inner::Tokio(sleep) => sleep.as_mut().poll(cx),
        }
    }
}

/// Makes the delays of this thread exact from now on, where the system can; to be called in the `LocalSet` that they are
/// awaited in.
pub fn sharpen() {
    #[cfg(target_os = "linux")]
    if let Err(error) = exact::start() {
        tracing::warn!(%error, "there is no timerfd: injected delays may be a millisecond late");
    }
}

#[cfg(target_os = "linux")]
mod exact {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::io;
    use std::os::fd::OwnedFd;
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
    use std::task::{Context, Poll, Waker};

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;
    use tokio::time::Instant;

    thread_local! {
        static TIMER: RefCell<Option<Arc<Timer>>> = const { RefCell::new(None) };
    }

    /// Who waits, by the instant and a number.
    type Waiting = BTreeMap<(Instant, u64), Waker>;

    /// All delays that begin on a thread; the earliest is in the timerfd. The lock is there for futures that move.
    #[derive(Debug)]
    struct Timer {
        fd: AsyncFd<OwnedFd>,
        waiting: Mutex<Waiting>,
    }

    /// One delay.
    #[derive(Debug)]
    pub(super) struct Entry {
        timer: Arc<Timer>,
        due: Instant,
        /// Its number once it waits.
        number: Option<u64>,
    }

    pub(super) fn start() -> io::Result<()> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // `register` is for descriptors that somebody else may close; this one is owned, and `new` is sound for it.
        #[expect(deprecated, reason = "the other constructor is unsafe, and nothing here is")]
        let timer = Arc::new(Timer { fd: AsyncFd::new(fd)?, waiting: Mutex::default() });
        TIMER.set(Some(timer.clone()));
        tokio::task::spawn_local(timer.run());
        Ok(())
    }

    impl Timer {
        fn waiting(&self) -> MutexGuard<'_, Waiting> {
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
        }

        async fn run(self: Arc<Self>) {
            loop {
                let Ok(mut ready) = self.fd.readable().await else { return };
                let mut expirations = [0; 8];
                // How often it ran out does not matter; reading makes it run out again.
                let _ = rustix::io::read(&self.fd, &mut expirations);
                ready.clear_ready();
                self.fire();
            }
        }

        fn fire(&self) {
            let now = Instant::now();
            let mut waiting = self.waiting();
            while let Some(first) = waiting.first_entry().filter(|first| first.key().0 <= now) {
                first.remove().wake();
            }
            let next = waiting.first_key_value().map(|((due, _), _)| *due);
            drop(waiting);
            if let Some(due) = next {
                self.arm(due);
            }
        }

        fn arm(&self, due: Instant) {
            let left = due.saturating_duration_since(Instant::now());
            let (tv_sec, tv_nsec) = (left.as_secs() as i64, i64::from(left.subsec_nanos()).max(1)); // nothing disarms it
            let spec =
                Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: Timespec { tv_sec, tv_nsec } };
            if let Err(error) = timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &spec) {
                tracing::error!(%error, "a timerfd that cannot be set: delays end at once");
                let waiting = std::mem::take(&mut *self.waiting());
                waiting.into_values().for_each(Waker::wake);
            }
        }
    }

    impl Entry {
        pub(super) fn new(due: Instant) -> Option<Self> {
            let timer = TIMER.with_borrow(Clone::clone)?;
            Some(Self { timer, due, number: None })
        }

        pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            if self.due <= Instant::now() {
                return Poll::Ready(());
            }
            let mut waiting = self.timer.waiting();
            let number = *self.number.get_or_insert_with(|| {
                let before = waiting.range((self.due, 0)..=(self.due, u64::MAX)).next_back();
                before.map_or(0, |((_, number), _)| number + 1)
            });
            let first = waiting.first_key_value().is_none_or(|(&(first, _), _)| self.due < first);
            waiting.insert((self.due, number), cx.waker().clone());
            drop(waiting);
            if first {
                self.timer.arm(self.due);
            }
            Poll::Pending
        }
    }

    impl Drop for Entry {
        fn drop(&mut self) {
            if let Some(number) = self.number {
                self.timer.waiting().remove(&(self.due, number));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::LocalSet;
    use tokio::time::Instant;

    use super::{Delay, sharpen};

    #[tokio::test]
    async fn delays_come_in_the_order_they_are_due_and_never_early() {
        let tasks = LocalSet::new();
        let order = tasks.run_until(async {
            sharpen();
            let start = Instant::now();
            let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
            for millis in [9, 3, 6, 3, 0] {
                let told = told.clone();
                tokio::task::spawn_local(async move {
                    let due = start + Duration::from_millis(millis);
                    Delay::until(due).await;
                    told.send((millis, Instant::now() >= due)).expect("somebody listens");
                });
            }
            let left = Delay::until(start + Duration::from_millis(1));
            drop(left);
            drop(told);
            let mut order = Vec::new();
            while let Some(one) = heard.recv().await {
                order.push(one);
            }
            order
        });
        assert_eq!(order.await, [(0, true), (3, true), (3, true), (6, true), (9, true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thread_that_was_not_sharpened_follows_a_paused_clock() {
        let start = Instant::now();
        Delay::until(start + Duration::from_secs(3600)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(3600));
    }
}
