//! What a run saw, as far as its verdict depends on it: plain figures that are stored, so that a verdict can be replayed.

use serde::{Deserialize, Serialize};

use crate::measure::block::Pair;
use crate::report::Counted;

/// What a run saw.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Evidence {
    /// What was seen of each indicator.
    pub indicators: Vec<Seen>,
    /// Arrivals of treatment and control by block of inject, with the treatment's share among both.
    pub arrivals: Vec<(u64, u64, f64)>,
    /// How the inject phase ended.
    pub ended: Ended,
    /// How far the fault reached.
    pub reach: Reach,
    /// Seconds of inject.
    pub inject_secs: f64,
    /// Whether there was a recovery phase to judge.
    pub recovery_seen: bool,
}

/// What was seen of one indicator.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Seen {
    /// All matching traffic of baseline.
    pub baseline: Counted,
    /// Control in baseline.
    pub baseline_control: Counted,
    /// Bystanders in baseline.
    pub baseline_bystanders: Counted,
    /// The two halves of baseline, all matching traffic, tick by tick: the later as if treated.
    pub halves: Vec<Pair>,
    /// Blocks of inject.
    pub inject: Vec<Pair>,
    /// Bystanders in inject.
    pub bystanders: Counted,
    /// Attempts, and the operations that made them, in treatment and control of inject, where operations are the units.
    #[serde(default)]
    pub attempts: Option<[(u64, u64); 2]>,
    /// Blocks of the second half of recovery.
    pub recovery: Vec<Pair>,
}

/// How the inject phase ended.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// At its planned end.
    #[default]
    Planned,
    /// A bound was shown broken.
    Broken,
    /// Before its plan, by something else: a guard, a budget, a person, a lease.
    Early(String),
    /// Nothing was injected, because the run could not have told anything.
    Never(String),
    /// The set-up turned out to be wrong: no traffic.
    Invalid(String),
}

/// How far the fault reached.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Reach {
    /// Treated units of inject that arrived.
    pub treated: u64,
    /// Calls at the fault's listener that carried the mark of an arm, in any phase.
    pub carried: u64,
    /// Calls there that did not.
    pub uncarried: u64,
    /// Treated calls that came while the fault was on, and were not those that it is for.
    #[serde(default)]
    pub no_match: u64,
    /// Treated calls on protected routes.
    #[serde(default)]
    pub protected_calls: u64,
    /// Requests and calls that looked like health probes, and that nothing named.
    #[serde(default)]
    pub probes: u64,
    /// Treated calls that matched while the fault was on.
    pub eligible: u64,
    /// Calls that met the fault.
    pub faulted: u64,
    /// Treated units that met it.
    pub exposed: u64,
    /// Units that matched and could be in no arm, because they had no key.
    pub unkeyed: u64,
    /// Units that matched on a protected route.
    pub protected: u64,
    /// Calls whose id is that of requests in several arms.
    #[serde(default)]
    pub ambiguous: u64,
    /// Units that matched and could be in no arm, because they had none of the ids that carry it.
    #[serde(default)]
    pub no_id: u64,
}
