//! Who has waited for too long: one look at all that wait, many times a second, instead of a timer for each request.
//!
//! A timer of Tokio's costs a request five hundred instructions, most of them for being cancelled in time. Here it costs a
//! place in a list. What is due is noticed within two looks, and never before its time.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use slab::Slab;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::site::Plan;
use super::wire::Socket;
use crate::clock::Coarse;

/// How often it looks while requests are under way: a fiftieth of a second is short beside any timeout.
const BUSY: Duration = Duration::from_millis(20);

/// How often it looks at connections that have nothing to do.
const QUIET: Duration = Duration::from_millis(100);

/// A worker's watchdog.
#[derive(Debug)]
pub(super) struct Watchdog {
    /// When it looked last.
    clock: Arc<Coarse>,
    requests: RefCell<Slab<Waiting>>,
    connections: RefCell<Slab<Watched>>,
    /// Something waits again.
    called: Notify,
}

#[derive(Debug)]
struct Waiting {
    /// In nanoseconds of the clock; nothing once it is too late.
    due: Option<u64>,
    waker: Waker,
}

#[derive(Debug)]
struct Watched {
    socket: Socket,
    plan: Rc<Plan>,
    until: Until,
    end: Option<End>,
    waker: Waker,
}

/// Until when a connection lives, if nothing is wrong with it.
#[derive(Clone, Debug)]
pub(super) enum Until {
    /// Until the listener drains.
    Drain(CancellationToken),
    /// Until it is quiet, but not before a moment: the caller was told that it ends.
    Quiet(u64),
}

/// How long somebody has to leave who was told to.
const LEAVES: Duration = Duration::from_secs(1);

/// Why a connection is to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// The listener drains.
    Drain,
    /// The head of a request took too long.
    SlowHead,
    /// The next request did not come.
    Idle,
}

/// It took too long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Late;

impl Watchdog {
    /// A watchdog on the thread that this is called on, for as long as somebody holds it.
    pub(super) fn start() -> Rc<Self> {
        let watchdog = Rc::new(Self {
            clock: Coarse::new(),
            requests: RefCell::default(),
            connections: RefCell::default(),
            called: Notify::new(),
        });
        tokio::task::spawn_local(watch(Rc::downgrade(&watchdog)));
        watchdog
    }

    /// The time of its last look, for whoever it looks after: told anew before the first of them is.
    pub(super) fn clock(&self) -> Arc<Coarse> {
        self.now();
        self.clock.clone()
    }

    /// Lets a future take so long.
    pub(super) async fn within<F: Future>(&self, span: Duration, future: F) -> Result<F::Output, Late> {
        let mut future = pin!(future);
        let mut place = Place { list: &self.requests, key: None };
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            let Some(key) = place.key else {
                // It looked a while ago: the span counts from its next look at the latest.
                let due = Some(self.now().saturating_add((span + BUSY).as_nanos() as u64));
                place.key = Some(self.requests.borrow_mut().insert(Waiting { due, waker: cx.waker().clone() }));
                return Poll::Pending;
            };
            let mut requests = self.requests.borrow_mut();
            let waiting = &mut requests[key];
            if waiting.due.is_none() {
                return Poll::Ready(Err(Late));
            }
            if !waiting.waker.will_wake(cx.waker()) {
                waiting.waker.clone_from(cx.waker());
            }
            Poll::Pending
        })
        .await
    }

    /// Drives a connection until it is over, or has to end.
    pub(super) async fn watch<C: Future>(
        &self,
        mut connection: Pin<&mut C>,
        socket: &Socket,
        plan: &Rc<Plan>,
        until: Until,
    ) -> Result<C::Output, End> {
        let mut place = Place { list: &self.connections, key: None };
        poll_fn(|cx| {
            if let Poll::Ready(output) = connection.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            if let Some(key) = place.key {
                // A task of its own drives a connection: its waker stays the same.
                return self.connections.borrow()[key].end.map_or(Poll::Pending, |end| Poll::Ready(Err(end)));
            }
            self.now();
            let watched = Watched {
                socket: socket.clone(),
                plan: plan.clone(),
                until: until.clone(),
                end: None,
                waker: cx.waker().clone(),
            };
            place.key = Some(self.connections.borrow_mut().insert(watched));
            Poll::Pending
        })
        .await
    }

    /// Until who was told to leave had the time to.
    pub(super) fn leaving(&self) -> Until {
        Until::Quiet(self.clock.nanos() + LEAVES.as_nanos() as u64)
    }

    /// Has a connection end behind what is under way on it. Looks through all of them: only treated calls ask for it.
    pub(super) fn send_away(&self, socket: &Socket) {
        for (_, watched) in self.connections.borrow_mut().iter_mut() {
            if watched.end.is_none() && watched.socket.is(socket) {
                watched.end = Some(End::Drain);
                watched.waker.wake_by_ref();
            }
        }
    }

    /// The time of the last look; of this moment where there was nothing to look at.
    fn now(&self) -> u64 {
        if self.requests.borrow().is_empty() && self.connections.borrow().is_empty() {
            self.clock.tell();
            self.called.notify_one();
        }
        self.clock.nanos()
    }

    /// Looks at all that wait.
    fn look(&self) {
        self.clock.tell();
        let now = self.clock.nanos();
        for (_, waiting) in self.requests.borrow_mut().iter_mut() {
            if waiting.due.is_some_and(|due| due <= now) {
                waiting.due = None;
                waiting.waker.wake_by_ref();
            }
        }
        for (_, watched) in self.connections.borrow_mut().iter_mut() {
            if watched.end.is_none() {
                watched.end = watched.verdict(now);
                if watched.end.is_some() {
                    watched.waker.wake_by_ref();
                }
            }
        }
    }
}

impl Watched {
    fn verdict(&self, now: u64) -> Option<End> {
        let over = match &self.until {
            Until::Drain(drain) => drain.is_cancelled(),
            Until::Quiet(moment) => {
                now >= *moment && self.socket.is_quiet_since(now.saturating_sub(LEAVES.as_nanos() as u64))
            }
        };
        if over { Some(End::Drain) } else { self.socket.overdue(&self.plan.config().timeouts) }
    }
}

/// A place in a list, for as long as this lives.
struct Place<'a, T> {
    list: &'a RefCell<Slab<T>>,
    key: Option<usize>,
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.list.borrow_mut().remove(key);
        }
    }
}

async fn watch(watchdog: Weak<Watchdog>) {
    while let Some(dog) = watchdog.upgrade() {
        if dog.requests.borrow().is_empty() && dog.connections.borrow().is_empty() {
            dog.called.notified().await;
        }
        let pause = if dog.requests.borrow().is_empty() { QUIET } else { BUSY };
        drop(dog);
        sleep(pause).await;
        let Some(dog) = watchdog.upgrade() else { return };
        dog.look();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::task::LocalSet;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_long_is_late_and_never_early() {
        LocalSet::new()
            .run_until(async {
                let watchdog = Watchdog::start();
                for millis in [0, 1, 19, 50, 3_600_000] {
                    let (span, start) = (Duration::from_millis(millis), Instant::now());
                    assert!(watchdog.within(span, pending::<()>()).await.is_err());
                    let took = start.elapsed();
                    assert!(took >= span && took <= span + 3 * BUSY, "{took:?} for {span:?}");
                }
                let quick = watchdog.within(Duration::from_secs(1), sleep(Duration::from_millis(999))).await;
                assert!(quick.is_ok());
                assert!(watchdog.requests.borrow().is_empty(), "who is gone is not waited for");
            })
            .await;
    }
}
