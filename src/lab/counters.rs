//! What the runs of a process have counted, summed up for metrics: it only ever grows, also when a run is forgotten.

use std::collections::BTreeMap;

use super::Progress;
use crate::measure::Note;

/// What runs have counted.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Calls and connections that met a fault, by its listener, experiment and kind.
    pub met: BTreeMap<(String, String, &'static str), u64>,
    /// Calls that were spared, by the reason.
    pub spared: BTreeMap<&'static str, u64>,
    /// Treated units that came to harm, by experiment.
    pub harmed: BTreeMap<String, u64>,
}

impl Counters {
    /// Nothing yet, for any reason there is.
    pub(super) fn new() -> Self {
        let reasons = Note::ALL.into_iter().filter_map(Note::spared);
        Self { spared: reasons.map(|reason| (reason, 0)).collect(), ..Self::default() }
    }

    /// Adds what a run has counted by now.
    pub(super) fn add(&mut self, run: &Progress) {
        for (kind, count) in &run.met {
            *self.met.entry((run.at.clone(), run.experiment.clone(), kind)).or_default() += count;
        }
        for (reason, count) in &run.spared {
            *self.spared.entry(reason).or_default() += count;
        }
        *self.harmed.entry(run.experiment.clone()).or_default() += run.harmed;
    }
}
