//! Connections that wait for a next request: last in, first out, so that the hottest is used and the rest can age.

use std::cell::{Cell, RefCell};

use super::exchange::Line;

/// How many a worker keeps for one upstream, at most: as many as nginx is usually told to.
const MOST: usize = 256;

/// Sweeps that an idle connection survives, 50 s in all: most servers keep theirs for 60 s or more, some for 5 s and say so
/// by closing.
const SURVIVES: u32 = 50;

/// What can wait for a next request.
pub(super) trait Reusable {
    /// Whether it can still be used.
    fn is_usable(&mut self) -> bool;

    /// Gives back the memory that it needs only at work.
    fn rest(&mut self) {}
}

impl Reusable for Line {
    fn is_usable(&mut self) -> bool {
        self.is_ready()
    }

    fn rest(&mut self) {
        self.forget_room();
    }
}

/// Connections of a kind that wait.
#[derive(Debug)]
pub(super) struct Idle<T> {
    waiting: RefCell<Vec<(T, u32)>>,
    sweeps: Cell<u32>,
}

impl<T> Default for Idle<T> {
    fn default() -> Self {
        Self { waiting: RefCell::default(), sweeps: Cell::new(0) }
    }
}

impl<T: Reusable> Idle<T> {
    /// The hottest that can still be used.
    pub(super) fn take(&self) -> Option<T> {
        let mut waiting = self.waiting.borrow_mut();
        while let Some((mut one, _)) = waiting.pop() {
            if one.is_usable() {
                return Some(one);
            }
        }
        None
    }

    pub(super) fn put(&self, one: T) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= MOST {
            waiting.remove(0);
        }
        waiting.push((one, self.sweeps.get()));
    }

    /// Closes what has waited for too long, or cannot be used any more.
    pub(super) fn sweep(&self) {
        let now = self.sweeps.get().wrapping_add(1);
        self.sweeps.set(now);
        self.waiting.borrow_mut().retain_mut(|(one, since)| {
            one.rest();
            now.wrapping_sub(*since) <= SURVIVES && one.is_usable()
        });
    }
}
