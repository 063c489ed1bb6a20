//! Whole experiments on Tokio's paused clock, without a socket: what a run says of the shop on the stage.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::stage::{DOCUMENT, LATENCY, PHASES, SLOW, document, on_stage};
use crate::experiment::Ending;
use crate::ledger::{Ledger, RunState};
use crate::measure::{Budget, Counts, Phase, Rule, Tally, Until};
use crate::proxy::{Terms, Trial};
use crate::report::Report;
use crate::units::Seed;

fn said(report: &Report, words: &str) -> Option<f64> {
    let moment = report.timeline.iter().find(|moment| moment.text.contains(words))?;
    Some(moment.at_ms as f64 / 1e3)
}

fn found(report: &Report, kind: &str) -> bool {
    report.findings.iter().any(|finding| finding.kind == kind)
}

fn millis(report: &Report, phase: &str) -> u64 {
    report.phases.iter().find(|one| one.name == phase).map_or(0, |phase| phase.millis)
}

const ERRORS: &str = "{ name: well, error_rate: { max_increase: 10pp } }";
const HANG: &str = "{ drop: { how: hang } }";

#[tokio::test(start_paused = true)]
async fn a_service_with_a_timeout_and_a_fallback_holds() {
    on_stage(|stage| async move {
        stage.shop.timeout.set(Some(Duration::from_millis(300)));
        let report = stage.run(document(&[])).await;
        assert_eq!(report.verdict.ending, Ending::Held, "{}", report.verdict.reason);
        assert!(found(&report, "timeout_worked") && found(&report, "fallback_worked"), "{:?}", report.findings);
        let fidelity = &report.fidelity;
        assert!((fidelity.treatment_applied - 0.2).abs() < 0.04, "{}", fidelity.treatment_applied);
        assert_eq!((fidelity.faulted, fidelity.exposed_units), (fidelity.eligible, fidelity.eligible));
        // Every treated unit of inject met the fault, and each unit was counted once.
        assert_eq!(fidelity.faulted, report.impact.treated);
        let bound = &report.verdict.bounds[0];
        assert_eq!((bound.treated.of, bound.treated.bad), (report.impact.treated, 0.0));
        assert_eq!(report.impact.harmed, 0);
        assert_eq!(
            report.recovery.as_ref().map(|recovery| (recovery.recovered, recovery.after_ms)),
            Some((true, Some(0)))
        );
        assert_eq!([5000, 20_000], [millis(&report, "baseline"), millis(&report, "inject")].map(|ms| ms / 250 * 250));
        // Everybody who came is in the series, second by second, and nobody twice.
        let units: u64 = report.series.iter().flat_map(|point| &point.arms).map(|arm| arm.units).sum();
        assert_eq!(units, report.fidelity.enrolled.iter().sum::<u64>());
        assert!(report.series.iter().all(|point| point.arms.iter().map(|arm| arm.units).sum::<u64>() <= 63));
        assert!(report.timeline.is_sorted_by_key(|moment| moment.at_ms));
        stage.is_quiet("held").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_waits_is_broken_as_soon_as_it_can_be_known_and_the_fault_goes() {
    on_stage(|stage| async move {
        let report = stage.run(document(&[])).await;
        assert_eq!(report.verdict.ending, Ending::Broken, "{}", report.verdict.reason);
        let after = report.verdict.bounds[0].broken_after_ms.unwrap();
        // Twenty units of each arm take about two seconds to come, and 800 ms to be known as slow.
        assert!((1800..4500).contains(&after), "{after} ms");
        assert!(millis(&report, "inject") < after + 500);
        assert!(said(&report, "shown broken").unwrap() <= said(&report, "the fault was taken off").unwrap());
        assert_eq!(report.verdict.ended_by, None);
        let (judged, left) = (report.verdict.bounds[0].treated.of, report.fidelity.undecided);
        assert!(left > 0 && judged + left == report.impact.treated, "{judged} + {left} v {}", report.impact.treated);
        assert!(report.follow_up.is_some() && report.seen.contains("quick: 100 % bad"), "{}", report.seen);
        assert!(report.recovery.unwrap().recovered);
        stage.is_quiet("broken").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn after_a_broken_bound_the_fault_stays_to_be_observed_but_not_beyond_inject() {
    on_stage(|stage| async move {
        let observe = |span: &str| document(&[(DOCUMENT, &format!("{DOCUMENT}observe: {span}\n"))]);
        let report = stage.run(observe("8s")).await;
        let after = report.verdict.bounds[0].broken_after_ms.unwrap();
        assert_eq!(report.verdict.ending, Ending::Broken);
        assert!((after + 8000..after + 8300).contains(&millis(&report, "inject")), "{}", millis(&report, "inject"));
        let report = stage.run(observe("10m")).await;
        assert_eq!((report.verdict.ending, millis(&report, "inject") / 250), (Ending::Broken, 80));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_ramp_treats_more_step_by_step_and_rings_no_alarm() {
    on_stage(|stage| async move {
        stage.shop.timeout.set(Some(Duration::from_millis(300)));
        stage.shop.rate.set(100);
        for by in ["trace", "header:x-user"] {
            stage.shop.users.set(if by == "trace" { u32::MAX } else { 900 });
            let ramp = format!("ramp: [5%, 20%, 40%], by: {by}");
            let report = stage.run(document(&[("treatment: 20%", &ramp), ("inject: 20s", "inject: 30s")])).await;
            let applied = report.fidelity.treatment_applied;
            assert!((applied - 0.65 / 3.0).abs() < 0.03, "{by}: {applied}");
            assert!(!report.verdict.reason.contains("as large"), "{by}: {}", report.verdict.reason);
            assert!(by != "trace" || report.verdict.ending == Ending::Held, "{by}: {}", report.verdict.reason);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn automatic_phases_are_planned_before_the_fault_and_nothing_is_injected_that_cannot_answer() {
    on_stage(|stage| async move {
        stage.shop.timeout.set(Some(Duration::from_millis(300)));
        let auto = |inject: &str| document(&[(PHASES, &format!("{{ inject: {inject} }}"))]);
        let report = stage.run(auto("auto")).await;
        assert_eq!(report.verdict.ending, Ending::Held, "{}", report.verdict.reason);
        assert_eq!(millis(&report, "baseline") / 250, 80, "200 units came within the twenty seconds");
        let planned = report.timeline.iter().find(|moment| moment.text.starts_with("inject began")).unwrap();
        let seconds = millis(&report, "inject") / 1000;
        assert!(planned.text.ends_with(&format!("for {seconds} s")), "{} {seconds}", planned.text);
        let report = stage.run(auto("{ at_most: 2s }")).await;
        assert_eq!((report.verdict.ending, report.fidelity.faulted), (Ending::Inconclusive, 0));
        assert!(report.verdict.reason.contains("could not have answered"), "{}", report.verdict.reason);
        stage.shop.rate.set(5);
        let report = stage.run(auto("{ at_most: 2s }")).await;
        let baseline = millis(&report, "baseline");
        assert!((39_000..41_000).contains(&baseline), "200 units take forty seconds at 5/s, not {baseline} ms");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_guard_ends_the_run_and_its_own_question_harms_nobody() {
    on_stage(|stage| async move {
        let guard =
            "halt_when: [{ slow_rate: { over: 5s, max: 30%, for: 2s, of: treatment } }, { harmed: { max: 1 } }]";
        let text = DOCUMENT.replace(SLOW, ERRORS).replace(LATENCY, HANG) + guard;
        let report = stage.run(document(&[(DOCUMENT, &text)])).await;
        assert_eq!(report.verdict.ending, Ending::Halted, "{}", report.verdict.reason);
        let by = report.verdict.ended_by.clone().unwrap();
        assert!(by.starts_with("guard: slower than 5 s of the treatment"), "{by}");
        // Whoever hangs is known to be slow after five seconds, and two seconds fill the window.
        assert!((5000..8000).contains(&millis(&report, "inject")), "{}", millis(&report, "inject"));
        assert_eq!(report.impact.harmed, 0, "no indicator said that anybody came to harm");
        stage.is_quiet("guard").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_guard_that_ends_baseline_says_that_the_system_was_not_well_before_any_fault() {
    on_stage(|stage| async move {
        stage.shop.sick.set(Some((Duration::ZERO, Duration::from_secs(3600))));
        let report = stage.run(document(&[("baseline: 5s", "baseline: 20s")])).await;
        assert_eq!((report.verdict.ending, report.fidelity.faulted), (Ending::Halted, 0));
        let reason =
            "ended before its plan: the system was not well before any fault: guard: errors of everybody at 100 %";
        assert!(report.verdict.reason.starts_with(reason), "{}", report.verdict.reason);
        stage.is_quiet("a sick baseline").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_bound_that_baseline_was_too_short_for_is_named_in_the_report() {
    on_stage(|stage| async move {
        stage.shop.timeout.set(Some(Duration::from_millis(300)));
        let max = "{ name: well, error_rate: { max: 2% } }";
        let report = stage.run(document(&[(SLOW, max), ("baseline: 5s", "baseline: 4s")])).await;
        let short = report.findings.iter().find(|finding| finding.kind == "baseline_short").expect("200 are too few");
        assert!(short.text.contains("at most 2 %") && short.text.contains("`baseline: "), "{}", short.text);
        let report = stage.run(document(&[(SLOW, max), ("baseline: 5s", "baseline: 30s")])).await;
        assert!(!found(&report, "baseline_short"), "{:?}", report.findings);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_budget_ends_the_run_at_once() {
    on_stage(|stage| async move {
        let text = format!("{DOCUMENT}halt_when: [{{ harmed: {{ max: 5 }} }}]\n");
        let report = stage.run(document(&[(DOCUMENT, &text)])).await;
        assert_eq!(
            report.verdict.ended_by.as_deref(),
            Some("the failure budget is spent: 5 treated units came to harm")
        );
        assert!((5..8).contains(&report.impact.harmed), "{}", report.impact.harmed);
        assert!(millis(&report, "inject") < 2500, "{}", millis(&report, "inject"));
        stage.is_quiet("budget").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_hang_is_seen_at_the_threshold_the_response_timeout_or_the_end_and_never_held() {
    on_stage(|stage| async move {
        let hang = |indicator: &str, inject: &str| {
            document(&[(LATENCY, HANG), (SLOW, indicator), ("inject: 20s", &format!("inject: {inject}"))])
        };
        let slow = stage.run(hang(SLOW, "20s")).await;
        assert_eq!(slow.verdict.ending, Ending::Broken);
        assert!(slow.verdict.bounds[0].broken_after_ms.unwrap() < 4500);
        // Those who hung longest may have a timeout that is longer still.
        assert!(found(&slow, "still_waiting") && !found(&slow, "no_timeout"), "{:?}", slow.findings);
        stage.is_quiet("a hang by its slowness").await;

        let since = Instant::now();
        let errors = stage.run(hang(ERRORS, "20s")).await;
        assert_eq!(errors.verdict.ending, Ending::Broken, "{}", errors.verdict.reason);
        assert_eq!(errors.verdict.bounds[0].broken_after_ms, None, "nobody could know while the fault was on");
        let bound = &errors.verdict.bounds[0];
        assert_eq!((bound.treated.bad, bound.control.bad), (bound.treated.of as f64, 0.0));
        // Baseline, inject, the response timeout of thirty seconds for the last unit, recovery.
        assert!((60.0..62.0).contains(&since.elapsed().as_secs_f64()), "{:?}", since.elapsed());
        stage.is_quiet("a hang by its errors").await;

        let long = stage.run(hang(ERRORS, "2m")).await;
        let after = long.verdict.bounds[0].broken_after_ms.unwrap();
        assert!((31_000..35_000).contains(&after), "{after}: the response timeout of those who came first");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn without_traffic_a_run_is_invalid_after_fifteen_seconds() {
    on_stage(|stage| async move {
        stage.shop.rate.set(0);
        let since = Instant::now();
        let report = stage.run(document(&[("baseline: 5s", "baseline: 5m")])).await;
        assert_eq!(report.verdict.ending, Ending::Invalid);
        assert!(report.verdict.reason.starts_with("no traffic"), "{}", report.verdict.reason);
        assert!((15.0..16.0).contains(&since.elapsed().as_secs_f64()), "{:?}", since.elapsed());
        stage.is_quiet_without_traffic();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_carry_the_mark_makes_the_run_invalid() {
    on_stage(|stage| async move {
        stage.shop.carries.set(false);
        let report = stage.run(document(&[])).await;
        assert_eq!((report.verdict.ending, report.fidelity.faulted), (Ending::Invalid, 0));
        assert!(report.verdict.reason.starts_with("context was not carried: "), "{}", report.verdict.reason);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_passes_a_request_id_alone_can_be_tested_as_well() {
    on_stage(|stage| async move {
        stage.shop.carries.set(false);
        stage.shop.retries.set(Some(0));
        stage.shop.timeout.set(Some(Duration::from_millis(300)));
        for carry in ["auto", "header:x-request-id"] {
            let report = stage.run(document(&[("treatment: 20%", &format!("treatment: 20%, carry: {carry}"))])).await;
            assert_eq!(report.verdict.ending, Ending::Held, "{}", report.verdict.reason);
            let fidelity = &report.fidelity;
            assert_eq!((fidelity.faulted, fidelity.ambiguous, fidelity.no_id), (report.impact.treated, 0, 0));
            let by = if carry == "auto" { "x-request-id" } else { "header" };
            assert_eq!(fidelity.carried_by, [(by.to_owned(), fidelity.carried.iter().sum())]);
        }
        let report = stage.run(document(&[("treatment: 20%", "treatment: 20%, carry: traceparent")])).await;
        let reason = &report.verdict.reason;
        assert!(report.verdict.ending == Ending::Invalid && reason.contains("(`carry: traceparent`)"), "{reason}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn users_count_once_in_each_phase_whatever_they_ask_for() {
    on_stage(|stage| async move {
        stage.shop.timeout.set(Some(Duration::from_millis(300)));
        stage.shop.users.set(400);
        let sticky = "treatment: 20%, by: header:x-user, unit_window: 5s";
        let changes = [("treatment: 20%", sticky), ("inject: 20s", "inject: 24s"), ("increase: 10pp", "increase: 3pp")];
        let report = stage.run(document(&changes)).await;
        let bound = &report.verdict.bounds[0];
        // 400 users come three times each in 24 s; a fifth of them is in each arm.
        assert!((60..100).contains(&bound.treated.of) && (60..100).contains(&bound.control.of), "{bound:?}");
        assert_eq!((bound.treated.bad, bound.control.bad), (0.0, 0.0), "the last to come are no worse than the first");
        assert!(report.impact.treated > 2 * bound.treated.of, "requests are more than users");
        assert_eq!(report.verdict.ending, Ending::Inconclusive, "{}", report.verdict.reason);
        let missing = report.verdict.missing.unwrap();
        assert!(missing.starts_with("about ") && missing.contains("at this slice"), "{missing}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_system_that_does_not_get_well_is_broken_and_one_that_does_is_told_when() {
    on_stage(|stage| async move {
        stage.shop.timeout.set(Some(Duration::from_millis(300)));
        let max = document(&[(SLOW, "{ name: well, error_rate: { max: 20% } }"), ("recovery: 5s", "recovery: 10s")]);
        let secs = Duration::from_secs;
        stage.shop.sick.set(Some((Duration::from_millis(25_200), secs(60))));
        let report = stage.run(max.clone()).await;
        assert_eq!(report.verdict.ending, Ending::Broken, "{}", report.verdict.reason);
        assert_eq!(report.seen, "well: not well again after the fault was gone.");
        assert!(!report.recovery.unwrap().recovered && report.verdict.bounds[0].ending == Ending::Held);
        assert!(report.whys[0].question.contains("not get well again"), "{:?}", report.whys);

        sleep(secs(60)).await;
        let began = stage.shop.age();
        stage.shop.sick.set(Some((began + Duration::from_millis(25_200), began + secs(28))));
        let report = stage.run(max).await;
        assert_eq!(report.verdict.ending, Ending::Held, "{}", report.verdict.reason);
        let after = report.recovery.unwrap().after_ms.unwrap();
        assert!((1500..3500).contains(&after), "well again after {after} ms");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_run_is_in_the_ledger_before_the_first_fault_and_closed_with_its_report() {
    on_stage(|stage| async move {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Arc::new(Ledger::open(&folder.path().join("pratfall.db")).unwrap());
        let (asked, seen) = (ledger.clone(), std::rc::Rc::new(std::cell::RefCell::new(Vec::new())));
        let states = seen.clone();
        *stage.shop.on_fault.borrow_mut() = Box::new(move || {
            states.borrow_mut().push(asked.run("R-test").map(|run| run.state).ok());
        });
        let live = stage.start_with(ledger.clone(), document(&[]));
        let report = live.run.await.unwrap().unwrap();
        assert_eq!(seen.borrow().first(), Some(&Some(RunState::Open)));
        let row = ledger.run("R-test").unwrap();
        assert_eq!((row.state, row.ending), (RunState::Closed, Some(Ending::Broken)));
        assert!(report.failure.is_some() && row.failure == report.failure);
        assert!(live.progress.borrow().ending == Some(Ending::Broken));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn with_own_load_only_its_requests_take_part_and_count_from_their_intended_instant() {
    on_stage(|stage| async move {
        stage.shop.rate.set(0);
        let traffic = format!("{DOCUMENT}traffic: {{ rate: 50/s, requests: [{{ path: /checkout/1 }}] }}\n");
        let experiment = document(&[(DOCUMENT, &traffic)]);
        let terms = Terms {
            run: "R-test".into(),
            seed: Seed(7),
            rules: vec![Rule::slow(Duration::from_millis(800), Until::Body)],
            limits: stage.lab.limits.clone(),
            harmed: Budget::new(u64::MAX, CancellationToken::new()),
            max_faulted: None,
            patience: Duration::from_secs(30),
            places: (0, 1),
        };
        let (trial, mut batches) = Trial::new(experiment, terms);
        let enrolled = stage.lab.proxy.enroll(&trial);
        sleep(Duration::from_secs(2)).await;
        let now = Instant::now();
        for index in 0..40 {
            let late = if index < 10 { Duration::from_secs(1) } else { Duration::ZERO };
            stage.ask(Some(trial.own_mark(index, now - late))).await;
            stage.ask(None).await;
            stage.ask(Some(format!("pratfall={:x}.o.1.1", trial.token ^ 1))).await;
        }
        sleep(Duration::from_millis(100)).await;
        let mut tally = Tally::new(1, None);
        while let Ok(batch) = batches.try_recv() {
            tally.add(batch);
        }
        let mut all = Counts::default();
        tally.sum(Phase::Baseline).iter().for_each(|counts| all.add(counts));
        assert_eq!((all.arrived, all.decided[0], all.bad[0]), (40, 40, 10.0), "late from when they should have left");
        drop(enrolled);
    })
    .await;
}
