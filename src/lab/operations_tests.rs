//! Whole operations with all their attempts, judged where the fault is: runs on the paused clock.

use std::sync::Arc;

use super::stage::{Stage, on_stage};
use crate::experiment::{Ending, Experiment};
use crate::report::Report;

/// As `client-retries.yaml`, in less time.
const DOCUMENT: &str = "
version: 1
experiment: client-retries
hypothesis: If the first attempt is refused, then every operation succeeds, because the client tries again.
slice: { at: front, treatment: 20%, by: header:x-request-id }
inject: { attempts: 1, faults: [{ error: { status: 503 } }] }
steady_state: [{ name: in the end, failed_operations: { by: header:x-request-id, deadline: 3s, max: 3%, max_increase: 5pp, max_attempts: 2.5 } }]
phases: { baseline: 20s, inject: 30s, recovery: 10s }
";

fn document(changes: &[(&str, &str)]) -> Arc<Experiment> {
    let text = changes.iter().fold(DOCUMENT.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "`{old}` is not in the document");
        text.replace(old, new)
    });
    Arc::new(Experiment::parse("test.yaml", &text, &|_| None).unwrap_or_else(|problems| panic!("{problems}")).0)
}

fn found(report: &Report, kind: &str) -> Option<String> {
    report.findings.iter().find(|finding| finding.kind == kind).map(|finding| finding.text.clone())
}

/// A run among callers that try again so often.
async fn run(stage: &Stage, retries: u32, changes: &[(&str, &str)]) -> Report {
    stage.shop.retries.set(Some(retries));
    stage.run(document(changes)).await
}

#[tokio::test(start_paused = true)]
async fn operations_that_are_tried_again_in_time_hold_although_their_first_attempts_fail() {
    on_stage(|stage| async move {
        let report = run(&stage, 3, &[]).await;
        assert_eq!(report.verdict.ending, Ending::Held, "{}", report.verdict.reason);
        let bound = &report.verdict.bounds[0];
        assert!((240..360).contains(&bound.treated.of), "a fifth of 1,500 operations: {bound:?}");
        assert!((240..360).contains(&bound.control.of) && bound.control.bad == 0.0, "{bound:?}");
        assert_eq!((bound.treated.bad, report.impact.harmed), (0.0, 0), "attempts come to no harm");
        // Each treated operation met the fault once, and counts once however often it was tried.
        assert_eq!((report.fidelity.faulted, report.impact.treated), (bound.treated.of, bound.treated.of));
        assert_eq!(report.fidelity.exposed_units, bound.treated.of);
        assert!((report.fidelity.treatment_applied - 0.2).abs() < 0.04, "retries make no arm larger");
        let attempts = found(&report, "attempts_observed").expect("they are observed");
        assert!(attempts.starts_with("operations took 2 attempts on average among the treated and 1 in"), "{attempts}");
        assert!(found(&report, "retry_worked").is_some(), "{:?}", report.findings);
        assert!(report.recovery.as_ref().unwrap().recovered);
        let inject = report.phases.iter().find(|phase| phase.name == "inject").unwrap();
        assert_eq!((inject.arms[0].units, inject.arms[0].bad[0].bad), (bound.treated.of, 0.0));
        stage.is_quiet("held").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn operations_that_nobody_tries_again_are_broken_at_their_deadline() {
    on_stage(|stage| async move {
        let report = run(&stage, 0, &[]).await;
        assert_eq!(report.verdict.ending, Ending::Broken, "{}", report.verdict.reason);
        let bound = &report.verdict.bounds[0];
        let after = bound.broken_after_ms.expect("it was seen while the fault was on");
        // Nobody knows before the deadline of those who came first.
        assert!((3000..8000).contains(&after), "{after}");
        assert!(bound.treated.share() > 0.9 && bound.control.bad == 0.0, "{bound:?}");
        assert!(report.impact.harmed >= bound.treated.bad as u64, "{} {bound:?}", report.impact.harmed);
        stage.is_quiet("broken").await;

        // A deadline that the back-off of the client does not meet.
        let report = run(&stage, 3, &[("deadline: 3s", "deadline: 150ms")]).await;
        assert_eq!(report.verdict.ending, Ending::Broken, "{}", report.verdict.reason);
        let budget = format!("{DOCUMENT}halt_when: [{{ harmed: {{ max: 3 }} }}]\n");
        let report = run(&stage, 0, &[(DOCUMENT, &budget)]).await;
        assert!(report.verdict.ended_by.is_some_and(|by| by.starts_with("the failure budget is spent")));
        stage.is_quiet("budget").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn too_many_attempts_break_the_hypothesis_although_every_operation_succeeds() {
    on_stage(|stage| async move {
        let twice = [("attempts: 1,", "attempts: 2,")];
        let report = run(&stage, 3, &twice).await;
        assert_eq!(report.verdict.ending, Ending::Broken);
        let reason = "in the end: observed 3 attempts on average, and at most 2.5 are allowed";
        assert_eq!(report.verdict.reason, reason);
        assert!(report.verdict.bounds.iter().all(|bound| bound.ending == Ending::Held));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_request_without_the_key_of_an_operation_is_in_none() {
    on_stage(|stage| async move {
        let report = stage.run(document(&[])).await;
        assert_eq!((report.verdict.ending, report.fidelity.faulted), (Ending::Invalid, 0));
        let reason = &report.verdict.reason;
        let unkeyed = report.fidelity.unkeyed;
        let expected = "requests matched, and none had the key that `by` asks for";
        assert_eq!(*reason, format!("nobody could be treated: {unkeyed} {expected}"));
        assert!(unkeyed > 500);
    })
    .await;
}
