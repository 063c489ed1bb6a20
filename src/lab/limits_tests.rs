//! What the limits say is kept from the start of a run to its end, and what goes wrong in a fault ends its run.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::control::Control;
use super::counters::Counters;
use super::preflight::{limits, places};
use super::stage::{DOCUMENT, LATENCY, PHASES, SLOW, Stage, document, on_stage};
use super::{Lab, Refusal, Stop};
use crate::clock;
use crate::experiment::glob::PathGlob;
use crate::experiment::limits::{Limits, Protected};
use crate::experiment::{Ending, Experiment};
use crate::fault::{Fault, Latency};
use crate::measure::Note;
use crate::units::{Percent, Span};

fn limited(stage: &Stage, change: impl FnOnce(&mut Limits)) -> Lab {
    let mut limits = Limits::clone(&stage.lab.limits);
    change(&mut limits);
    Lab { limits: Arc::new(limits), ..stage.lab.clone() }
}

/// Everybody who is treated hangs, and nothing in the hypothesis minds.
fn hanging() -> Arc<Experiment> {
    let errors = "{ name: well, error_rate: { max_increase: 10pp } }";
    let text = DOCUMENT.replace(SLOW, errors).replace(LATENCY, "{ drop: { how: hang } }");
    document(&[(DOCUMENT, &text)])
}

fn changed(change: impl FnOnce(&mut Experiment)) -> Arc<Experiment> {
    let mut experiment = Arc::unwrap_or_clone(document(&[]));
    change(&mut experiment);
    Arc::new(experiment)
}

#[tokio::test(start_paused = true)]
async fn a_run_ends_with_the_hours_in_which_it_began() {
    on_stage(|stage| async move {
        // A Thursday. Inject begins after five seconds.
        clock::follow_tokio("2026-11-19T14:59:48Z".parse().unwrap());
        let lab = limited(&stage, |limits| limits.hours = vec!["Mon-Thu 09:00-15:00 UTC".parse().unwrap()]);
        let live = stage.start_in(lab.clone(), hanging());
        sleep(Duration::from_secs(11)).await;
        assert!(stage.shop.waiting.get() > 20, "people are held");
        let report = live.run.await.unwrap().unwrap();
        assert_eq!(report.verdict.ending, Ending::Halted, "{}", report.verdict.reason);
        assert_eq!(report.verdict.ended_by.as_deref(), Some("the hours of `limits.hours` are over"));
        let inject = report.phases.iter().find(|phase| phase.name == "inject").unwrap();
        assert!((6800..7400).contains(&inject.millis), "{} ms", inject.millis);
        stage.is_quiet("the hours are over").await;
        let refused = stage.start_in(lab, hanging()).run.await.unwrap();
        assert_eq!(refused.unwrap_err(), Refusal::NotNow("it is outside `limits.hours`".into()));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_baseline_that_takes_its_time_leaves_less_for_inject_and_never_too_little() {
    on_stage(|stage| async move {
        stage.shop.timeout.set(Some(Duration::from_millis(300)));
        // An automatic baseline takes twenty seconds here.
        for (inject, most, injected) in
            [("20s", 46, true), ("20s", 44, false), ("auto", 240, true), ("auto", 26, false)]
        {
            let phases = format!("{{ inject: {inject}, recovery: 5s }}");
            let lab = limited(&stage, |limits| limits.max_duration = Span::secs(most));
            let report = stage.start_in(lab, document(&[(PHASES, &phases)])).run.await.unwrap().unwrap();
            let ending = if injected { Ending::Held } else { Ending::Inconclusive };
            assert_eq!(report.verdict.ending, ending, "{inject} within {most} s: {}", report.verdict.reason);
            assert_eq!(report.fidelity.faulted > 0, injected, "{inject} within {most} s");
            let end = report.phases.last().unwrap();
            assert!(end.from_ms + end.millis < most * 1000 + 1500, "{} ms", end.from_ms + end.millis);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn limits_that_are_tightened_end_the_run_that_they_no_longer_allow() {
    on_stage(|stage| async move {
        clock::follow_tokio("2026-11-19T12:00:00Z".parse().unwrap()); // a Thursday
        let route = Protected { at: "inventory".into(), path: PathGlob::new("/pay").unwrap() };
        type Change = Box<dyn Fn(&mut Limits)>;
        let changes: [(&str, Option<&str>, Change); 8] = [
            ("faults", Some("not armed"), Box::new(|limits| limits.faults = vec!["latency".into()])),
            ("max_slice", Some("limits.max_slice"), Box::new(|limits| limits.max_slice = "10%".parse().ok())),
            ("max_duration", Some("limits.max_duration"), Box::new(|limits| limits.max_duration = Span::secs(10))),
            ("max_held", Some("limits.max_held"), Box::new(|limits| limits.max_held = 5)),
            (
                "hours",
                Some("limits.hours"),
                Box::new(|limits| limits.hours = vec!["Mon-Wed 09:00-15:00 UTC".parse().unwrap()]),
            ),
            ("protect", Some("limits.protect"), Box::new(move |limits| limits.protect = vec![route.clone()])),
            ("max_running", None, Box::new(|limits| limits.max_running = 3)),
            ("max_slice", None, Box::new(|limits| limits.max_slice = "50%".parse().ok())),
        ];
        for (key, why, change) in changes {
            let control = Control::new(stage.lab.clone(), None);
            let started = control.start(Stage::order(hanging(), 1), false).unwrap();
            sleep(Duration::from_secs(8)).await;
            assert!(stage.shop.waiting.get() > 10, "{key}: people are held");
            let mut tighter = Limits::clone(&stage.lab.limits);
            change(&mut tighter);
            assert_eq!(control.reload(tighter, None, &[]), usize::from(why.is_some()), "{key}");
            let Some(why) = why else {
                assert!(control.live() == 1 && stage.shop.waiting.get() > 10, "{key}: it goes on");
                control.stop(&started.run, Stop::Lease);
                started.result.await.unwrap().unwrap();
                continue;
            };
            let report = started.result.await.unwrap().unwrap();
            let ended_by = report.verdict.ended_by.unwrap();
            assert!(ended_by.contains(why), "{key}: {ended_by}");
            stage.is_quiet(key).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn no_more_runs_are_live_than_the_limits_say() {
    on_stage(|stage| async move {
        for (most, fits) in [(1, false), (2, true)] {
            let control = Control::new(limited(&stage, |limits| limits.max_running = most), None);
            let alone = |at: &str| {
                let mut order = Stage::order(
                    changed(|experiment| {
                        at.clone_into(&mut experiment.slice.at);
                        at.clone_into(&mut experiment.inject.at);
                        at.clone_into(&mut experiment.steady_state[0].at);
                    }),
                    1,
                );
                order.run = format!("R-{at}");
                order
            };
            control.start(alone("front"), false).unwrap();
            let second = control.start(alone("inventory"), false);
            assert_eq!(second.is_ok(), fits);
            assert!(second.err().is_none_or(|why| why.to_string().contains("`limits.max_running` is 1")));
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn faults_that_meet_new_connections_are_refused_where_they_cannot_be_or_must_not() {
    on_stage(|stage| async move {
        let with = |fault: &str| {
            let fault = serde_yaml::from_str(fault).unwrap();
            changed(|experiment| experiment.inject.faults = vec![fault])
        };
        let (tls, refuse) = (with("tls: { how: stall }"), with("drop: { how: refuse }"));
        let places = |experiment: &Arc<Experiment>| places(experiment, &stage.lab.proxy).map(drop);
        assert!(matches!(places(&tls), Err(Refusal::Document(why)) if why.contains("speaks in the clear")));
        assert!(places(&refuse).is_ok());
        let path = PathGlob::new("/pay").unwrap();
        for (at, refused) in [("inventory", true), ("front", false)] {
            let route = Protected { at: at.into(), path: path.clone() };
            let lab = limited(&stage, |limits| limits.protect = vec![route]);
            for (experiment, refused) in [(&refuse, refused), (&with("drop: { how: goaway }"), false)] {
                let asked = limits(experiment, &lab.limits);
                assert_eq!(matches!(asked, Err(Refusal::NotNow(why)) if why.contains("`limits.protect`")), refused);
            }
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_panics_on_a_request_ends_its_run_and_is_reported() {
    on_stage(|stage| async move {
        // No clock can count to this, and no document can have it.
        let forever = Latency::constant(Span::from(Duration::MAX));
        let live = stage.start(changed(|experiment| experiment.inject.faults = vec![Fault::Latency(forever)]));
        let report = live.run.await.unwrap().unwrap();
        assert_eq!(report.verdict.ending, Ending::Invalid);
        assert!(report.verdict.reason.contains("panicked"), "{}", report.verdict.reason);
        let inject = report.phases.iter().find(|phase| phase.name == "inject").unwrap();
        assert!(inject.millis < 1000, "{} ms", inject.millis);
        assert_eq!(stage.shop.late.get(), 0, "every call was answered well and at once");
        stage.is_quiet("a panic").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_runs_have_counted_only_grows_also_when_they_are_forgotten() {
    on_stage(|stage| async move {
        let control = Control::new(stage.lab.clone(), None);
        let budget = "halt_when: [{ faulted: { max: 3 } }]";
        let text = format!("{}\n{budget}\n", DOCUMENT.replace(PHASES, "{ baseline: 1s, inject: 1s, recovery: 0s }"));
        let sum = |counters: &Counters| {
            let met = counters.met.get(&("inventory".into(), "slow-inventory".into(), "latency"));
            (met.copied().unwrap_or_default(), counters.spared["budget"])
        };
        assert_eq!(control.counted().spared.len(), Note::ALL.into_iter().filter_map(Note::spared).count());
        let (mut before, mut spared) = (0, 0);
        for number in 1..=55 {
            let mut order = Stage::order(document(&[(DOCUMENT, &text)]), number);
            order.run = format!("R-{number:03}");
            let mut started = control.start(order, false).unwrap();
            while started.progress.borrow_and_update().met.is_empty() {
                started.progress.changed().await.unwrap();
            }
            assert!(sum(&control.counted()).0 > before, "it is counted while it is live");
            started.result.await.unwrap().unwrap();
            let counted = sum(&control.counted());
            assert_eq!(counted.0, before + 3, "run {number}");
            assert!(counted.1 >= spared, "run {number}");
            (before, spared) = counted;
        }
        assert!(control.runs_here().len() <= 50 && spared > 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn those_who_are_held_leave_in_turn_and_within_a_tenth_of_a_second_of_the_halt() {
    on_stage(|stage| async move {
        stage.shop.rate.set(200);
        let live = stage.start(hanging());
        sleep(Duration::from_secs(20)).await;
        let held = stage.shop.waiting.get();
        assert!(held > 500, "{held} are held");
        live.stop.send(Some(Stop::Halt("ada".into()))).unwrap();
        // So long they are on their way to inventory.
        sleep(Duration::from_millis(5)).await;
        let mut left = Vec::new();
        for _ in 0..4 {
            sleep(Duration::from_millis(10)).await;
            left.push(f64::from(stage.shop.waiting.get()) / f64::from(held));
        }
        sleep(Duration::from_millis(10)).await;
        // Evenly over forty milliseconds.
        let evenly = [0.65..0.85, 0.4..0.6, 0.15..0.35, 0.0..0.1];
        assert!(evenly.iter().zip(&left).all(|(share, left)| share.contains(left)), "{left:?}");
        assert!(stage.shop.waiting.get() <= 2, "nobody is held any more");
        live.run.await.unwrap().unwrap();
    })
    .await;
}

#[test]
fn own_load_that_carries_nothing_is_no_way_around_the_largest_slice() {
    let text = "version: 1\nexperiment: own\nhypothesis: All is well.\nslice: { at: back, treatment: 50%, CARRY }\n\
        inject: { at: back, faults: [{ latency: { delay: 1s } }] }\n\
        steady_state: [{ at: front, error_rate: { max: 2% } }]\n\
        traffic: { rate: 10/s, requests: [{ path: / }] }\n";
    let most = Arc::new(Limits {
        max_slice: Some(Percent::from_ratio(0.05).unwrap()),
        ..Limits::default().with_every_fault()
    });
    for (slice, fits) in [("by: request, carry: none", false), ("by: request", true)] {
        let text = text
            .replace("CARRY", slice)
            .replace("at: back, treatment", if fits { "at: front, treatment" } else { "at: back, treatment" });
        let (experiment, _) = Experiment::parse("own", &text, &|_| None).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!(limits(&experiment, &most).is_ok(), fits, "{slice}");
    }
}
