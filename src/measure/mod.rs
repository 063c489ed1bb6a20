//! What happened. Workers record without locks, in pieces that one tally adds up.
//!
//! A unit belongs to the tick and phase of its *arrival* and is decided later: an error when its answer is over, a slow
//! one as soon as its threshold has passed. Timeouts, resets and callers that gave up are never dropped: they are as
//! slow and as wrong as can be.

mod arm;
pub mod block;
pub mod operation;
mod outcome;
mod recorder;
mod sighting;
mod tally;
#[cfg(test)]
mod tests;
mod whole;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use self::arm::Arm;
pub use self::outcome::{Count, End, Outcome, Rule, Until};
pub use self::recorder::{Arrival, Batch, Budget, Entry, Keep, Note, PhaseMark, Recorder, Unit};
pub use self::sighting::{Shown, Sighting};
pub use self::tally::{Counts, Tally};
pub use self::whole::Attempt;

/// The grain of time in which units are counted; blocks are made of whole ticks (decisions.md 2.2).
pub const TICK: Duration = Duration::from_millis(250);

/// The whole ticks from one instant to another.
fn ticks(from: Instant, to: Instant) -> u32 {
    (to.saturating_duration_since(from).as_millis() as u64 / TICK.as_millis() as u64) as u32
}

/// How many yes-or-no questions are asked of each unit, at most: three indicators, the rest for guards.
pub const MAX_RULES: usize = 8;

/// The three stretches of a run.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Both arms, no fault.
    Baseline,
    /// Both arms, treatment meets the fault.
    Inject,
    /// Both arms, no fault any more.
    Recovery,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Self; 3] = [Self::Baseline, Self::Inject, Self::Recovery];

    /// The word for it in reports and on screens.
    pub fn word(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Inject => "inject",
            Self::Recovery => "recovery",
        }
    }
}
