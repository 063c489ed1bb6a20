//! Hand-made reports, one for each way a run can end; for tests of what shows or stores reports.
//!
//! Everything is named through `super`, so that a test outside the library can take this file by its path, beneath
//! `use pratfall::report::*` and the units.

use super::*;

/// One of each.
pub(crate) fn all() -> Vec<(&'static str, Report)> {
    vec![
        ("broken", broken()),
        ("held", held()),
        ("inconclusive", inconclusive()),
        ("invalid", invalid()),
        ("halted", halted()),
    ]
}

/// Checkout has no timeout: two seconds of a slow inventory reach the customer.
pub(crate) fn broken() -> Report {
    let mut report = sound();
    measure(&mut report, 60, &[(0.0, 0.003), (0.984, 0.004)], 2000.0);
    let (treated, control) = during(&report, 1);
    report.run = "r-0199b2c4d1".into();
    report.tags = vec!["checkout".into(), "game day".into()];
    report.hypothesis = Hypothesis::Steps {
        given: "checkout asks inventory for stock on every order".into(),
        when: "inventory answers two seconds late for one order in ten".into(),
        then: "those orders still succeed, and hardly more of them take over 800 ms".into(),
        predict: serde_json::from_value(serde_json::json!({ "outcome": "held", "sure": "80%" })).unwrap(),
    };
    report.expected = "Orders still succeed while inventory is two seconds late, and at most 5pp more of them than \
                       without take over 800 ms."
        .into();
    report.seen =
        format!("{} orders that met the delay took over 800 ms (control: {}); none failed.", of(treated), of(control));
    report.verdict.ending = Ending::Broken;
    report.verdict.reason =
        "`orders are quick` was shown broken 3.2 s after the fault began: the whole delay reaches the customer.".into();
    report.verdict.bounds = vec![
        BoundVerdict {
            log_e_not_recovered: Some(-1.9),
            why: "Too early to say: the run ended its question when the other bound broke.".into(),
            ending: Ending::Inconclusive,
            log_e_held: 1.4,
            ..succeed(during(&report, 0).0, during(&report, 0).1)
        },
        BoundVerdict {
            indicator: "orders are quick".into(),
            bound: "at most 5pp more than control slower than 800ms".into(),
            margin: 0.05,
            increase: Some("5pp".parse().unwrap()),
            ending: Ending::Broken,
            estimate: treated.share() - control.share(),
            interval: (0.9694, 0.9934),
            log_e_held: -212.7,
            log_e_broken: 386.1,
            broken_after_ms: Some(3200),
            log_e_not_recovered: Some(-2.2),
            why: format!("{} treated orders were slow; 5pp more than control would have been 19.", of(treated)),
            ..succeed(treated, control)
        },
    ];
    report.impact.projected_loss = Some(report.impact.projected_per_minute * 30.0 * 0.4);
    report.impact.score = Some(75);
    report.impact.score_parts = "10 × weight 5 × 1 (at least half of the treated harmed) × 1.5 (no alarm fired)".into();
    report.fidelity.load = Some(LoadFidelity { asked_rate: 60.0, sent: 6000, shed: 0, failed: 0 });
    report.findings = vec![
        Finding {
            kind: "no_timeout".into(),
            text: format!("Checkout waited through the whole delay in all of {} calls, up to 2,061 ms.", treated.of),
            evidence: "calls at inventory that met the fault and were not given up by their caller".into(),
            advice: Some("Give the call to inventory a timeout well under 800 ms, 300 ms for example.".into()),
        },
        Finding {
            kind: "no_retry".into(),
            text: "Nothing was asked twice: 1.00 attempts per operation.".into(),
            evidence: "attempts joined by the operation's key, inject".into(),
            advice: None,
        },
    ];
    report.class = Some(Class::TimeoutMissing);
    report.surprise = Some(Surprise {
        predicted: Ending::Held,
        sure: "80%".parse().unwrap(),
        brier: 0.64,
        text: "A surprise: held was predicted with 80 % certainty, and it broke.".into(),
    });
    report.questions = vec![
        "Does checkout run out of workers when every order waits? At 10 % of the traffic it did not.".into(),
        "Which alarm should have rung? None is configured for this journey.".into(),
    ];
    report.whys = vec![Why {
        question: "Why were treated orders slow?".into(),
        answer: Some("Their calls to inventory took 2 s longer, and checkout waited for all of it.".into()),
        evidence: Some("delay applied: median 2,000 ms; treated p50: 2,040 ms; control p50: 41 ms".into()),
        whys: vec![
            Why {
                question: "Why does checkout wait that long?".into(),
                answer: Some("No call was given up, so there is no timeout below 2 s.".into()),
                evidence: Some("finding no_timeout".into()),
                whys: Vec::new(),
            },
            Why {
                question: "Why does an order need inventory's answer before it is placed?".into(),
                answer: None,
                evidence: None,
                whys: Vec::new(),
            },
        ],
    }];
    report.follow_up = Some(FollowUp {
        first: "Give checkout's call to inventory a timeout of 300 ms, and place the order without the stock level."
            .into(),
        document: DOCUMENT.replace("experiment: slow-inventory", "experiment: slow-inventory-follow-up"),
        command: None,
    });
    report.failure = Some("F-7k2m".into());
    report.similar = vec!["F-3hq9: slow-payment, timeout-missing, closed on 2026-06-12 when its follow-up held".into()];
    report.timeline.insert(3, moment(23_200, "judge", "`orders are quick` is broken: ln E 5.1 of 4.4"));
    report
}

/// The same experiment after the repair: the fallback works.
pub(crate) fn held() -> Report {
    let mut report = sound();
    measure(&mut report, 60, &[(0.003, 0.003)], 0.0);
    let (treated, control) = during(&report, 0);
    report.seen =
        format!("While inventory answered 503, {} treated orders failed (control: {}).", of(treated), of(control));
    report.expected = "Orders are placed without the stock level while inventory answers 503.".into();
    report.title = "Checkout has a fallback when inventory fails".into();
    report.experiment = "failing-inventory".into();
    report.hypothesis = Hypothesis::Sentence(
        "If inventory answers 503, then orders are still placed, because checkout leaves the stock level out.".into(),
    );
    report.verdict.reason = "Every bound was shown to be kept at the planned end.".into();
    report.verdict.bounds = vec![BoundVerdict {
        log_e_held: 4.9,
        log_e_broken: -1.2,
        log_e_not_recovered: Some(-1.6),
        why: format!("{} treated and {} control orders failed; 1pp more is excluded.", of(treated), of(control)),
        ..succeed(treated, control)
    }];
    report.fidelity.faults = vec!["error: { status: 503 }".into()];
    report.findings = vec![Finding {
        kind: "fallback_worked".into(),
        text: format!("All but {} orders whose call to inventory failed were placed all the same.", of(treated)),
        evidence: "treated operations with an injected 503 and a 2xx at the slice".into(),
        advice: None,
    }];
    report.surprise = Some(Surprise {
        predicted: Ending::Held,
        sure: "80%".parse().unwrap(),
        brier: 0.04,
        text: "As predicted, with 80 % certainty.".into(),
    });
    report.replay.document = DOCUMENT.replace("slow-inventory", "failing-inventory");
    report
}

/// Too little traffic to tell; it says how much more is needed.
pub(crate) fn inconclusive() -> Report {
    let mut report = sound();
    measure(&mut report, 60, &[(0.005, 0.003)], 1000.0);
    let (treated, control) = during(&report, 0);
    report.seen =
        format!("{} treated orders failed (control: {}): too few to exclude 1pp more.", of(treated), of(control));
    report.verdict.ending = Ending::Inconclusive;
    report.verdict.reason = "The evidence for `orders succeed` reached 1.8 of the 3.0 that it needs.".into();
    report.verdict.missing = Some("About 1,170 more treated requests: 19 min at this slice, or 4 min at 50 %.".into());
    report.verdict.bounds = vec![BoundVerdict {
        ending: Ending::Inconclusive,
        log_e_held: 1.8,
        log_e_broken: 0.2,
        why: format!("{} treated and {} control orders failed: 1pp more is not excluded.", of(treated), of(control)),
        ..succeed(treated, control)
    }];
    report.questions = vec!["Whether orders fail more often than 1pp above control.".into()];
    report.follow_up = Some(FollowUp {
        first: "Run it again with `inject: 20m`, or ask for `max_increase: 3pp`, which this traffic can answer.".into(),
        document: DOCUMENT.replace("inject: 60s", "inject: 20m"),
        command: None,
    });
    report
}

/// The application does not pass the context on, so that nothing met the fault.
pub(crate) fn invalid() -> Report {
    let mut report = sound();
    measure(&mut report, 60, &[(0.002, 0.003)], 0.0);
    let (treated, control) = during(&report, 0);
    report.seen =
        "204 calls reached inventory and none of them carried the run's mark, so that none met the fault.".into();
    report.verdict.ending = Ending::Invalid;
    report.verdict.reason = "No fault was applied: calls came to inventory, none carried the mark.".into();
    report.verdict.missing =
        Some("Let checkout pass the `baggage` header on to inventory: switch OpenTelemetry's propagators on.".into());
    report.verdict.bounds = vec![BoundVerdict {
        why: "The arms do not differ, and they should not: nothing was done to either.".into(),
        ..succeed(treated, control)
    }];
    report.fidelity.faults = vec!["latency: { delay: 1s, jitter: 50ms }".into()];
    report.fidelity.carried = [0, 0];
    report.fidelity.uncarried = 204;
    report.fidelity.eligible = 0;
    report.fidelity.faulted = 0;
    report.fidelity.exposed_units = 0;
    report.fidelity.spared = Vec::new();
    report.findings = vec![Finding {
        kind: "context_lost".into(),
        text: format!("Between front and inventory the mark is lost in all of {} treated requests.", treated.of),
        evidence: "requests marked at front, calls with a mark at inventory".into(),
        advice: Some("Where no header is passed on at all, compare phases with `carry: none`; it is weaker.".into()),
    }];
    report.recovery = None;
    report
}

/// A guard ended it: others than the treatment came to harm.
pub(crate) fn halted() -> Report {
    let mut report = sound();
    measure(&mut report, 12, &[(0.26, 0.23)], 1000.0);
    let (treated, control) = during(&report, 0);
    report.seen = "12 s after the fault began, 22 % of everybody else's orders failed, and the run was halted.".into();
    report.verdict.ending = Ending::Halted;
    report.verdict.ended_by =
        Some("guard error_rate: 22 % of 118 orders outside the treatment, at most 20% for 3s".into());
    report.verdict.reason = "A guard ended the run before any bound was decided.".into();
    report.verdict.missing = Some("Find out what the arms share before the next attempt; then start at 1 %.".into());
    report.verdict.bounds = vec![BoundVerdict {
        ending: Ending::Inconclusive,
        interval: (-0.191, 0.098),
        log_e_held: -0.4,
        log_e_broken: 0.6,
        why: "Both arms failed alike, so that their difference says nothing.".into(),
        ..succeed(treated, control)
    }];
    report.ended_at = "2026-10-03T14:02:52Z".parse().unwrap();
    report.findings = vec![Finding {
        kind: "spillover".into(),
        text: "Control failed in 23 % of its orders, 0.3 % in its own baseline: the failure was not contained.".into(),
        evidence: "control against its own baseline, ln E 14.2 of 4.6".into(),
        advice: Some("Give calls to inventory a pool of their own.".into()),
    }];
    report.timeline[3] = moment(32_000, "guard", "error_rate: 22 % over 3 s among everybody else; all faults off");
    report.timeline.truncate(4);
    report.timeline.push(moment(32_060, "proxy", "7 held requests let go"));
    report.recovery = Some(Recovery { recovered: true, after_ms: Some(1900) });
    report.class = Some(Class::Spillover);
    report
}

/// What all samples share: a run whose set-up was sound, and that held.
fn sound() -> Report {
    Report {
        schema: SCHEMA,
        run: "r-0199b2a07e".into(),
        experiment: "slow-inventory".into(),
        title: "Checkout survives a slow inventory service".into(),
        owner: Some("checkout-team".into()),
        tags: vec!["checkout".into()],
        started_at: "2026-10-03T14:02:00Z".parse().unwrap(),
        ended_at: "2026-10-03T14:03:40Z".parse().unwrap(),
        hypothesis: Hypothesis::Sentence("If inventory is late, then orders still succeed.".into()),
        expected: "Orders still succeed while inventory is one second late.".into(),
        seen: String::new(),
        verdict: Verdict {
            ending: Ending::Held,
            ended_by: None,
            reason: String::new(),
            missing: None,
            bounds: Vec::new(),
            confidence: "95%".parse().unwrap(),
        },
        // Filled by `measure`.
        impact: ImpactReport {
            harmed: 0,
            treated: 0,
            share_of_treated: 0.0,
            share_of_traffic: 0.0,
            projected_per_minute: 0.0,
            projected_loss: None,
            outage: Span::secs(1800),
            score: None,
            score_parts: String::new(),
        },
        fidelity: Fidelity::default(),
        timeline: vec![
            moment(0, "run", "baseline begins: 600 expected in treatment, as many in control"),
            moment(120, "operator", "started from the command line"),
            moment(20_000, "run", "inject begins: latency at inventory"),
            moment(80_000, "run", "inject ends as planned; the last delay runs out after 1.9 s"),
            moment(81_900, "proxy", "no fault is on"),
            moment(100_000, "run", "recovery ends"),
        ],
        phases: Vec::new(),
        series: Vec::new(),
        findings: Vec::new(),
        recovery: Some(Recovery { recovered: true, after_ms: Some(2300) }),
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
            engine: "pratfall 0.1.0".into(),
            seed: Seed(4_126_398_127_334_410),
            document: DOCUMENT.into(),
            evidence: serde_json::Value::Null,
            blocks: vec![IndicatorBlocks {
                indicator: "orders succeed".into(),
                baseline: Counted { bad: 3.0, of: 1207 },
                inject: vec![(0.0, 21, 0.0, 20), (0.0, 20, 1.0, 22)],
                recovery: vec![(0.0, 20, 0.0, 21)],
            }],
        },
    }
}

/// What an indicator counted while the fault was on: treatment, control.
fn during(report: &Report, indicator: usize) -> (Counted, Counted) {
    let arms = &report.phases[1].arms;
    (arms[0].bad[indicator], arms[1].bad[indicator])
}

/// `3 of 372`.
fn of(counted: Counted) -> String {
    format!("{} of {}", counted.bad, counted.of)
}

fn succeed(treated: Counted, control: Counted) -> BoundVerdict {
    BoundVerdict {
        indicator: "orders succeed".into(),
        at: "front".into(),
        bound: "at most 1pp more than control".into(),
        margin: 0.01,
        increase: Some("1pp".parse().unwrap()),
        ending: Ending::Held,
        treated,
        control,
        estimate: treated.share() - control.share(),
        interval: (-0.0121, 0.0088),
        log_e_held: 3.4,
        log_e_broken: -0.7,
        needs_held: 3.0,
        needs_broken: 4.4,
        broken_after_ms: None,
        log_e_not_recovered: None,
        why: String::new(),
    }
}

fn moment(at_ms: u64, source: &str, text: &str) -> Moment {
    Moment { at_ms, source: source.into(), text: text.into() }
}

/// Traffic in which each indicator has a share of bad units (treatment, control) while the fault is on, and what follows
/// from it: 20 seconds of baseline, some of inject, 20 of recovery.
fn measure(report: &mut Report, inject: usize, during: &[(f64, f64)], delay: f64) {
    let mut units = draws(7);
    let mut fate = draws(11);
    let fault = 20..20 + inject;
    report.series = (0..fault.end + 20)
        .map(|second| {
            let on = fault.contains(&second);
            let arms = [0, 1, 2].map(|arm| {
                let units = if arm == 2 { 44 + (units() * 11.0) as u64 } else { 4 + (units() * 5.0) as u64 };
                let bad = during.iter().map(|(treated, control)| {
                    let share = if !on { 0.003 } else { [*treated, *control, *control][arm] };
                    (0..units).filter(|_| fate() < share).count() as f64
                });
                PointArm { bad: bad.collect(), units }
            });
            Point { second: second as u64, arms }
        })
        .collect();
    let phases = [("baseline", 0..20), ("inject", fault.clone()), ("recovery", fault.end..fault.end + 20)];
    report.phases = phases
        .map(|(name, seconds)| {
            let points = &report.series[seconds.clone()];
            let arms = Arm::ALL.into_iter().enumerate().map(|(place, arm)| {
                let units = points.iter().map(|point| point.arms[place].units).sum();
                let bad = (0..during.len()).map(|indicator| Counted {
                    bad: points.iter().map(|it| it.arms[place].bad[indicator]).sum(),
                    of: units,
                });
                let late = if name == "inject" && arm == Arm::Treatment { delay } else { 0.0 };
                let drift = seconds.start as f64 / 40.0 + place as f64 * 0.4;
                let quantiles = Some([41.0, 63.0, 88.0, 142.0].map(|quiet: f64| quiet + drift + late));
                ArmReport { arm, units, bad: bad.collect(), quantiles }
            });
            let (from_ms, millis) = (seconds.start as u64 * 1000, seconds.len() as u64 * 1000);
            PhaseReport { name: name.into(), from_ms, millis, arms: arms.collect() }
        })
        .into();
    let all = |arm: usize| report.phases.iter().map(|phase| phase.arms[arm].units).sum();
    let enrolled: [u64; 3] = [all(0), all(1), all(2)];
    let faulted = report.phases[1].arms[0].units;
    let harmed = report.phases[1].arms[0].bad.iter().map(|it| it.bad as u64).max().unwrap_or(0);
    let traffic: u64 = report.phases[1].arms.iter().map(|arm| arm.units).sum();
    report.impact = ImpactReport {
        harmed,
        treated: faulted,
        share_of_treated: harmed as f64 / faulted as f64,
        share_of_traffic: harmed as f64 / traffic as f64,
        projected_per_minute: traffic as f64 / inject as f64 * 60.0 * harmed as f64 / faulted as f64,
        projected_loss: None,
        outage: Span::secs(1800),
        score: None,
        score_parts: String::new(),
    };
    report.fidelity = Fidelity {
        undecided: 0,
        treatment_asked: 0.1,
        treatment_applied: enrolled[0] as f64 / enrolled.iter().sum::<u64>() as f64,
        enrolled,
        unkeyed: 2,
        no_room: 0,
        carried: [enrolled[0], enrolled[1]],
        uncarried: 14,
        carried_by: Vec::new(),
        phases_compared: false,
        ambiguous: 0,
        no_id: 0,
        eligible: faulted + 1,
        faulted,
        exposed_units: faulted,
        spared: vec![("protected route /stock/health".into(), 1)],
        delay: (delay > 0.0).then_some(DelayFidelity {
            n: faulted,
            asked_p50: delay + 0.4,
            asked_p99: delay + 49.0,
            applied_p50: delay + 1.1,
            applied_p99: delay + 51.7,
        }),
        faults: vec![format!("latency: {{ delay: {}, jitter: 50ms }}", Span::millis(delay as u64))],
        at: "inventory".into(),
        load: None,
    };
}

/// Any fixed sequence will do; this one is splitmix64 (Steele, Lea and Flood 2014).
fn draws(mut state: u64) -> impl FnMut() -> f64 {
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

const DOCUMENT: &str = "\
version: 1
experiment: slow-inventory
title: Checkout survives a slow inventory service
owner: checkout-team
hypothesis:
  given: checkout asks inventory for stock on every order
  when: inventory answers two seconds late for one order in ten
  then: those orders still succeed, and hardly more of them take over 800 ms
  predict: { outcome: held, sure: 80% }
slice:
  at: front
  match: { method: GET, path: /checkout/** }
  treatment: 10%
inject:
  at: inventory
  faults:
    - latency: { delay: 2s, jitter: 50ms }
steady_state:
  - name: orders succeed
    error_rate: { max_increase: 1pp }
  - name: orders are quick
    slow_rate: { over: 800ms, max_increase: 5pp }
phases: { baseline: 20s, inject: 60s, recovery: 20s }
";
