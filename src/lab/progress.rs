//! What is shown of a run under way. Only shown: what must not be lost is in the ledger.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::experiment::Ending;
use crate::report::Counted;

/// A run at this moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Progress {
    /// The run's id.
    pub run: String,
    /// The experiment's name.
    pub experiment: String,
    /// What people call it.
    pub title: String,
    /// baseline, inject, recovery, or over.
    pub phase: &'static str,
    /// Inject is compared with baseline, which is then in the place of control.
    pub phases_compared: bool,
    /// How long the phase has lasted.
    #[serde(serialize_with = "seconds")]
    pub elapsed: Duration,
    /// How long it will last; zero while the last of inject are waited for.
    #[serde(serialize_with = "seconds")]
    pub planned: Duration,
    /// Each indicator: its name, treatment and control in this phase.
    pub indicators: Vec<(String, Counted, Counted)>,
    /// The listener where the fault waits.
    pub at: String,
    /// Whether the fault is on.
    pub injecting: bool,
    /// Calls that met the fault.
    pub faulted: u64,
    /// Calls and connections that met each kind of fault.
    pub met: BTreeMap<&'static str, u64>,
    /// Calls that were spared, by the reason.
    pub spared: BTreeMap<&'static str, u64>,
    /// Treated units that came to harm.
    pub harmed: u64,
    /// Requests held at this moment.
    pub held: u64,
    /// When a bound was shown broken, since the fault began.
    #[serde(serialize_with = "maybe_seconds")]
    pub broken_after: Option<Duration>,
    /// How it ended.
    pub ending: Option<Ending>,
}

impl Progress {
    /// It is over: no fault is on, and nobody is held.
    pub(super) fn over(&mut self) {
        (self.phase, self.injecting, self.held) = ("over", false, 0);
    }
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn maybe_seconds<S: serde::Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
}
