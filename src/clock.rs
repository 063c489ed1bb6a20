//! Wall-clock time that can follow Tokio's clock, so that a paused test has a fixed date.

use std::cell::Cell;

use jiff::Timestamp;
use tokio::time::Instant;

thread_local! {
    static FROZEN: Cell<Option<(Timestamp, Instant)>> = const { Cell::new(None) };
}

/// The time of day; in a thread that called [`follow_tokio`], the frozen date plus what Tokio's clock has run since.
pub fn now() -> Timestamp {
    match FROZEN.get() {
        Some((date, since)) => date + since.elapsed(),
        None => Timestamp::now(),
    }
}

/// Makes [`now`] follow Tokio's clock from a date on, in this thread. For tests.
pub fn follow_tokio(date: Timestamp) {
    FROZEN.set(Some((date, Instant::now())));
}
