//! What makes two failures the same: the experiment, what was broken where, what gave way, and how.
//!
//! Neither the dose nor any text is part of it, so that a longer delay or a better title is the same failure still.
//! The id is derived from it, so that runners which never meet call one failure by one name.

use serde::{Deserialize, Serialize};

use super::events::sha256;
use super::id::letters;
use super::tables::written;
use crate::report::{Class, Ending, Report};

/// What makes two failures the same.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Fingerprint {
    /// The experiment's name.
    pub experiment: String,
    /// The kinds of fault, sorted and joined with `+`.
    pub fault: String,
    /// The listener whose calls met it.
    pub at: String,
    /// The first indicator of the document that was broken; `recovery` where the system was not well again in time.
    pub indicator: String,
    /// The kind of weakness.
    pub class: String,
}

/// The fingerprint of what a broken run shows.
pub fn fingerprint(report: &Report, fault_kinds: &[String]) -> Fingerprint {
    Fingerprint {
        experiment: report.experiment.clone(),
        fault: joined(fault_kinds),
        at: report.fidelity.at.clone(),
        indicator: indicator(report).to_owned(),
        class: written(report.class.unwrap_or(Class::Untriaged)),
    }
}

impl Fingerprint {
    /// SHA-256 over all parts, each with its length, in hexadecimal.
    pub fn hash(&self) -> String {
        let mut bytes = b"pratfall failure 1\n".to_vec();
        for part in [&self.experiment, &self.fault, &self.at, &self.indicator, &self.class] {
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part.as_bytes());
        }
        sha256(&bytes)
    }

    /// The failure's id, with so many letters: four, and more where another failure has that one already.
    pub(super) fn id(&self, length: usize) -> String {
        let hash = self.hash();
        let byte = |n: usize| u8::from_str_radix(&hash[2 * n..2 * n + 2], 16).expect("the hash is hexadecimal");
        format!("F-{}", letters(&(0..32).map(byte).collect::<Vec<_>>(), length))
    }
}

/// The order in which faults are written changes what callers see, not what kind of failure it is.
pub(super) fn joined(fault_kinds: &[String]) -> String {
    let mut kinds: Vec<_> = fault_kinds.iter().map(String::as_str).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds.join("+")
}

/// In the document's order, because which bound breaks first is a matter of luck.
fn indicator(report: &Report) -> &str {
    let bounds = &report.verdict.bounds;
    bounds.iter().find(|bound| bound.ending == Ending::Broken).map_or_else(
        || if report.recovery.as_ref().is_some_and(|recovery| !recovery.recovered) { "recovery" } else { "" },
        |bound| &bound.indicator,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tests_sample as sample;
    use crate::report::Recovery;

    fn kinds(kinds: &[&str]) -> Vec<String> {
        kinds.iter().map(|&kind| kind.to_owned()).collect()
    }

    #[test]
    fn neither_the_dose_nor_the_text_makes_another_failure() {
        let report = sample::broken("r-1", "slow-inventory");
        let mut other = sample::broken("r-2", "slow-inventory");
        other.title = "Another title".to_owned();
        other.seen = "something else".to_owned();
        other.fidelity.faults = vec!["latency: { delay: 9s }".to_owned()];
        other.verdict.bounds[0].estimate = 0.9;
        assert_eq!(fingerprint(&report, &kinds(&["latency"])).hash(), fingerprint(&other, &kinds(&["latency"])).hash());
    }

    #[test]
    fn each_part_makes_another_failure() {
        let report = sample::broken("r-1", "slow-inventory");
        let same = fingerprint(&report, &kinds(&["latency"]));
        let mut at = report.clone();
        at.fidelity.at = "payment".to_owned();
        let mut indicator = report.clone();
        indicator.verdict.bounds[0].indicator = "orders succeed".to_owned();
        let mut class = report.clone();
        class.class = None;
        let experiment = sample::broken("r-1", "slow-payment");
        for other in [at, indicator, class, experiment] {
            assert_ne!(fingerprint(&other, &kinds(&["latency"])).hash(), same.hash(), "{other:?}");
        }
        assert_ne!(fingerprint(&report, &kinds(&["drop"])).hash(), same.hash());
    }

    #[test]
    fn the_order_of_faults_is_no_part_of_it() {
        let report = sample::broken("r-1", "slow-inventory");
        let one = fingerprint(&report, &kinds(&["latency", "error", "latency"]));
        assert_eq!(one, fingerprint(&report, &kinds(&["error", "latency"])));
        assert_eq!(one.fault, "error+latency");
    }

    #[test]
    fn what_was_not_well_again_is_broken_in_recovery() {
        let mut report = sample::broken("r-1", "slow-inventory");
        report.verdict.bounds[0].ending = Ending::Held;
        report.recovery = Some(Recovery { recovered: false, after_ms: None });
        assert_eq!(fingerprint(&report, &[]).indicator, "recovery");
    }

    #[test]
    fn a_longer_id_begins_like_the_short_one_and_never_changes() {
        let one = fingerprint(&sample::broken("r-1", "slow-inventory"), &kinds(&["latency"]));
        assert!(one.id(6).starts_with(&one.id(4)));
        assert_eq!(one.id(4), "F-1ahj", "other runners call this failure by this name");
    }
}
