//! Runs and reports for the ledger's tests: as small as they may be.

use std::path::Path;

use super::{Closed, Ledger, NewRun};
use crate::report::*;
use crate::units::{Percent, Seed, Span};

/// A ledger in a folder of its own.
pub(super) fn ledger() -> (tempfile::TempDir, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&path(folder.path())).unwrap();
    (folder, ledger)
}

pub(super) fn path(folder: &Path) -> std::path::PathBuf {
    folder.join("pratfall.db")
}

pub(super) fn new_run(id: &str, experiment: &str) -> NewRun {
    NewRun {
        id: id.to_owned(),
        experiment: experiment.to_owned(),
        title: "Checkout survives a slow inventory".to_owned(),
        owner: Some("checkout-team".to_owned()),
        document: "version: 1\n".to_owned(),
        seed: Seed(u64::MAX),
        system: None,
        started_at: "2026-11-21T23:03:41Z".parse().unwrap(),
        fault_kinds: vec!["latency".to_owned()],
        at: "inventory".to_owned(),
        follow_up_of: None,
    }
}

/// A run from its beginning to its end.
pub(super) fn conduct(ledger: &Ledger, run: &NewRun, report: &Report) -> Closed {
    ledger.close_run(ledger.open_run(run).unwrap(), report).unwrap()
}

/// The failure that a broken run of an experiment opens or adds to.
pub(super) fn fail(ledger: &Ledger, run: &str, experiment: &str) -> Closed {
    conduct(ledger, &new_run(run, experiment), &broken(run, experiment))
}

pub(super) fn broken(run: &str, experiment: &str) -> Report {
    let mut report = held(run, experiment);
    report.seen = "42 of 84 orders took more than 800 ms".to_owned();
    report.verdict.ending = Ending::Broken;
    report.verdict.bounds[0].ending = Ending::Broken;
    report.class = Some(Class::TimeoutMissing);
    report.impact.score = Some(50);
    report.findings = vec![Finding {
        kind: "no_timeout".to_owned(),
        text: "the caller waited through the whole hang".to_owned(),
        evidence: "proxy".to_owned(),
        advice: None,
    }];
    report
}

pub(super) fn held(run: &str, experiment: &str) -> Report {
    let counted = Counted { bad: 0.0, of: 84 };
    let bound = BoundVerdict {
        indicator: "orders are quick".to_owned(),
        at: "front".to_owned(),
        bound: "at most 5pp more than control".to_owned(),
        margin: 0.05,
        increase: None,
        ending: Ending::Held,
        treated: counted,
        control: counted,
        estimate: 0.0,
        interval: (0.0, 0.01),
        log_e_held: 3.5,
        log_e_broken: -2.0,
        needs_held: 3.0,
        needs_broken: 4.4,
        broken_after_ms: None,
        log_e_not_recovered: None,
        why: "it kept its bound".to_owned(),
    };
    Report {
        schema: SCHEMA,
        run: run.to_owned(),
        experiment: experiment.to_owned(),
        title: "Checkout survives a slow inventory".to_owned(),
        owner: None,
        tags: Vec::new(),
        started_at: "2026-11-21T23:03:41Z".parse().unwrap(),
        ended_at: "2026-11-21T23:05:21Z".parse().unwrap(),
        hypothesis: Hypothesis::Sentence("if inventory is slow, then orders are quick".to_owned()),
        expected: "orders are quick".to_owned(),
        seen: "orders were quick".to_owned(),
        verdict: Verdict {
            ending: Ending::Held,
            ended_by: None,
            reason: "every bound was kept".to_owned(),
            missing: None,
            bounds: vec![bound],
            confidence: Percent::from_ratio(0.95).unwrap(),
        },
        impact: ImpactReport {
            harmed: 0,
            treated: 84,
            share_of_treated: 0.0,
            share_of_traffic: 0.0,
            projected_per_minute: 0.0,
            projected_loss: None,
            outage: Span::secs(1800),
            score: None,
            score_parts: String::new(),
        },
        fidelity: Fidelity { at: "inventory".to_owned(), faulted: 84, exposed_units: 84, ..Fidelity::default() },
        timeline: Vec::new(),
        phases: Vec::new(),
        series: Vec::new(),
        findings: Vec::new(),
        recovery: None,
        class: None,
        surprise: None,
        questions: Vec::new(),
        whys: Vec::new(),
        actions: Vec::new(),
        follow_up: None,
        failure: None,
        similar: Vec::new(),
        replay: Replay {
            command: None,
            engine: "1".to_owned(),
            seed: Seed(u64::MAX),
            document: String::new(),
            blocks: Vec::new(),
            evidence: serde_json::Value::Null,
        },
    }
}
