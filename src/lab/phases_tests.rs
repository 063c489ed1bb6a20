//! Phases instead of arms: whole runs on the paused clock, and what their verdict is worth on simulated traffic.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;

use super::evidence::{Ended, Evidence, Reach, Seen};
use super::judge::{SoFar, judge};
use super::pairing::{After, Pairing};
use super::simulations::{binomial, rng};
use super::stage::on_stage;
use super::{bound::Bound, plan};
use crate::experiment::{Ending, Experiment};
use crate::measure::block::{Ticks, Undecided};
use crate::measure::{Batch, Counts, Phase, TICK, Tally};
use crate::report::{Counted, Report};
use tokio::time::Instant;

const DOCUMENT: &str = "
version: 1
experiment: legacy
hypothesis: If inventory is slow, then orders are quick, because there is a timeout.
slice: { at: inventory, treatment: 20%, by: request, carry: none }
inject: { faults: [{ latency: { delay: 2s } }] }
steady_state: [{ name: quick, at: front, slow_rate: { over: 800ms, max_increase: 5pp } }]
phases: { baseline: 20s, inject: 20s, recovery: 10s }
";
const SLOW: &str = "slow_rate: { over: 800ms, max_increase: 5pp }";

fn document(changes: &[(&str, &str)]) -> Arc<Experiment> {
    let text = changes.iter().fold(DOCUMENT.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "`{old}` is not in the document");
        text.replace(old, new)
    });
    Arc::new(Experiment::parse("test.yaml", &text, &|_| None).unwrap_or_else(|problems| panic!("{problems}")).0)
}

fn found(report: &Report, kind: &str) -> bool {
    report.findings.iter().any(|finding| finding.kind == kind)
}

#[tokio::test(start_paused = true)]
async fn without_context_everybody_is_measured_the_calls_are_drawn_and_a_timeout_holds() {
    on_stage(|stage| async move {
        stage.shop.carries.set(false);
        stage.shop.timeout.set(Some(Duration::from_millis(300)));
        let report = stage.run(document(&[])).await;
        assert_eq!(report.verdict.ending, Ending::Held, "{}", report.verdict.reason);
        let fidelity = &report.fidelity;
        assert!(fidelity.phases_compared && (fidelity.treatment_asked - 0.2).abs() < 1e-9);
        assert!((fidelity.treatment_applied - 0.2).abs() < 0.04, "{}", fidelity.treatment_applied);
        assert_eq!((fidelity.carried[0], fidelity.faulted), (fidelity.eligible, fidelity.eligible));
        assert!((160..240).contains(&fidelity.faulted), "a fifth of 1,000 calls, not {}", fidelity.faulted);
        assert_eq!((fidelity.enrolled[1], fidelity.enrolled[2], fidelity.uncarried), (0, 0, 0));
        // Everybody in inject, with everybody in baseline beside them.
        let bound = &report.verdict.bounds[0];
        assert_eq!((bound.bound.as_str(), bound.at.as_str()), ("at most 5 pp more than in baseline", "front"));
        let all = |of: u64| of.abs_diff(1000) < 10;
        assert!(all(bound.treated.of) && all(bound.control.of), "{bound:?}");
        assert_eq!((bound.treated.bad, report.impact.harmed), (0.0, 0));
        assert!(found(&report, "phases_compared") && found(&report, "timeout_worked"), "{:?}", report.findings);
        let said = &report.findings.iter().find(|finding| finding.kind == "phases_compared").unwrap().text;
        assert!(said.contains("other changes in that minute would look the same"), "{said}");
        assert_eq!(
            report.seen,
            "quick: 0 % bad while the fault was on, 0 % before; allowed was at most 5 pp more than in baseline."
        );
        assert!(report.recovery.unwrap().recovered);
        stage.is_quiet("held").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn without_context_harm_is_found_while_the_fault_is_on_by_either_bound() {
    on_stage(|stage| async move {
        stage.shop.carries.set(false);
        for indicator in [SLOW, "slow_rate: { over: 800ms, max: 5% }"] {
            let report = stage.run(document(&[(SLOW, indicator)])).await;
            assert_eq!(report.verdict.ending, Ending::Broken, "{indicator}: {}", report.verdict.reason);
            let bound = &report.verdict.bounds[0];
            let after = bound.broken_after_ms.expect("it was seen while the fault was on");
            assert!((1000..8000).contains(&after), "{indicator}: {after} ms");
            assert!((0.1..0.3).contains(&bound.treated.share()), "a fifth waits: {}", bound.treated.share());
            assert!(bound.control.bad == 0.0 && bound.control.of.abs_diff(1000) < 10, "{indicator}: {bound:?}");
            assert!(report.impact.harmed > 5 && found(&report, "no_timeout") || found(&report, "still_waiting"));
            assert!(found(&report, "phases_compared") && !found(&report, "spillover"));
            stage.is_quiet(indicator).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn without_context_guards_and_budgets_look_at_everybody() {
    on_stage(|stage| async move {
        stage.shop.carries.set(false);
        stage.shop.timeout.set(Some(Duration::from_millis(300)));
        let guard = format!("{DOCUMENT}halt_when: [{{ error_rate: {{ max: 30%, for: 1s, of: rest }} }}]\n");
        let hour = Duration::from_secs(3600);
        stage.shop.sick.set(Some((stage.shop.age() + Duration::from_secs(25), stage.shop.age() + hour)));
        let report = stage.run(document(&[(DOCUMENT, &guard)])).await;
        assert_eq!(report.verdict.ending, Ending::Halted, "{}", report.verdict.reason);
        let by = report.verdict.ended_by.unwrap();
        assert!(by.starts_with("guard: errors of everybody at "), "{by}");
        stage.is_quiet("guard").await;

        stage.shop.sick.set(None);
        stage.shop.timeout.set(None);
        let budget = format!("{DOCUMENT}halt_when: [{{ harmed: {{ max: 3 }} }}]\n");
        let report = stage.run(document(&[(DOCUMENT, &budget)])).await;
        assert!(report.verdict.ended_by.is_some_and(|by| by.starts_with("the failure budget is spent")));
        stage.is_quiet("budget").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn without_context_a_fault_that_met_nobody_is_invalid_and_says_why() {
    on_stage(|stage| async move {
        stage.shop.carries.set(false);
        let reason = |report: Report| {
            assert_eq!((report.verdict.ending, report.fidelity.faulted), (Ending::Invalid, 0));
            report.verdict.reason
        };
        let nowhere = "{ at: inventory, match: { path: /nowhere }, treatment";
        let report = stage.run(document(&[("{ at: inventory, treatment", nowhere)])).await;
        assert_eq!(reason(report), "no call came to where the fault waits and was drawn while it was on");
        let report = stage.run(document(&[("by: request", "by: header:x-user")])).await;
        let unkeyed = reason(report);
        assert!(unkeyed.starts_with("nobody could be treated: ") && unkeyed.contains("the key that `by` asks for"));
        stage.shop.rate.set(0);
        let report = stage.run(document(&[])).await;
        assert_eq!(reason(report), "no traffic: for 15 s no request came to be measured");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn without_context_a_change_of_the_world_looks_like_harm_and_the_report_says_so() {
    on_stage(|stage| async move {
        stage.shop.carries.set(false);
        stage.shop.timeout.set(Some(Duration::from_millis(300)));
        let well = [
            ("name: quick", "name: well"),
            (SLOW, "error_rate: { max_increase: 5pp }"),
            ("treatment: 20%", "treatment: 5%"),
        ];
        let text = well.iter().fold(DOCUMENT.to_owned(), |text, (old, new)| text.replace(old, new));
        stage.shop.sick.set(Some((Duration::from_secs(24), Duration::from_secs(40))));
        let report = stage.run(document(&[(DOCUMENT, &format!("{text}halt_when: none\n"))])).await;
        assert_eq!(report.verdict.ending, Ending::Broken, "{}", report.verdict.reason);
        assert!(found(&report, "phases_compared"));
    })
    .await;
}

/// Traffic of a minute in each phase, and what it is judged by.
struct World {
    steady_state: &'static str,
    usual: f64,
    harm: f64,
    /// Units of each tick, on average, in baseline and in inject.
    units: (f64, f64),
}

const BOTH: &str = "[{ at: front, error_rate: { max: 4%, max_increase: 2pp } }]";
const WORLD: World = World { steady_state: BOTH, usual: 0.01, harm: 0.0, units: (12.0, 12.0) };
const TICKS: u32 = 240;

impl World {
    fn experiment(&self) -> Experiment {
        let text = DOCUMENT
            .replace("[{ name: quick, at: front, slow_rate: { over: 800ms, max_increase: 5pp } }]", self.steady_state);
        Experiment::parse("simulated.yaml", &text, &|_| None).unwrap_or_else(|problems| panic!("{problems}")).0
    }

    fn ticks(&self, rng: &mut SmallRng, ticks: u32, units: f64, bad: f64) -> Ticks {
        let tick = |tick| {
            let mut arms = [Counts::default(); 3];
            let n = (units * rng.random_range(0.5..1.5)).round();
            (arms[0].arrived, arms[0].decided[0], arms[0].bad[0]) = (n as u64, n as u64, binomial(rng, n, bad));
            (tick, arms)
        };
        (0..ticks).map(tick).collect()
    }

    /// How a run ends that is looked at all the time: at a bound shown broken, else at its planned end.
    fn ending(&self, experiment: &Experiment, rng: &mut SmallRng) -> Ending {
        let before = self.ticks(rng, TICKS, self.units.0, self.usual);
        let mut batch = Batch::empty(0, Instant::now());
        batch.ticks = before.iter().map(|(tick, arms)| ((Phase::Baseline, *tick), *arms)).collect();
        let mut tally = Tally::new(1, None);
        tally.add(batch);
        let pairing = Pairing::new(&tally, TICK * TICKS, TICK * TICKS);
        let during = self.ticks(rng, TICKS, self.units.1, self.usual + self.harm);
        let counts = tally.sum(Phase::Baseline)[0];
        let seen = Seen { baseline: Counted { bad: counts.bad[0], of: counts.arrived }, ..Seen::default() };
        let bounds = Bound::all(experiment);
        let levels = plan::levels(experiment);
        let mut processes: Vec<SoFar> = bounds.iter().map(|bound| SoFar::new(experiment, bound, &seen)).collect();
        let beside = Some((&pairing, &tally));
        let shown = |complete: u32, processes: &mut Vec<SoFar>| {
            processes.iter_mut().any(|process| process.look(&during, complete, beside) >= levels.broken)
        };
        let broken = (0..=TICKS).step_by(6).find(|complete| shown(*complete, &mut processes));
        let during: Ticks = during.range(..broken.unwrap_or(TICKS)).map(|(tick, arms)| (*tick, *arms)).collect();
        let undecided = if broken.is_some() { Undecided::LeaveOut } else { Undecided::Bad };
        let cut = |pairing: &Pairing, ticks: &Ticks, undecided| {
            let paired = bounds.iter().any(|bound| bound.increase.is_some());
            pairing.cut(&tally, 0, paired, After::default(), (ticks, u32::MAX, undecided))
        };
        let after = self.ticks(rng, TICKS / 3, self.units.0, self.usual);
        let recovery = Pairing::new(&tally, TICK * TICKS, TICK * (TICKS / 3));
        let (inject, recovery) = (cut(&pairing, &during, undecided), cut(&recovery, &after, Undecided::Bad));
        let reach = Reach { treated: 2000, eligible: 400, faulted: 400, exposed: 400, ..Reach::default() };
        let ended = if broken.is_some() { Ended::Broken } else { Ended::Planned };
        let indicators = vec![Seen { inject, recovery, ..seen }];
        let evidence =
            Evidence { indicators, ended, reach, inject_secs: 60.0, recovery_seen: true, ..Evidence::default() };
        let judged = judge(experiment, &evidence).ending;
        assert!(broken.is_none() || judged == Ending::Broken, "what was shown while it ran is shown at its end");
        judged
    }

    fn rate(&self, runs: usize, ending: Ending) -> f64 {
        let experiment = self.experiment();
        let ends = (0..runs).filter(|number| self.ending(&experiment, &mut rng(*number)) == ending);
        ends.count() as f64 / runs as f64
    }
}

#[tokio::test(start_paused = true)]
async fn phases_are_compared_as_promised() {
    let runs = if std::env::var_os("PRATFALL_LONG").is_some() { 10_000 } else { 120 };
    // A promise plus three standard errors.
    let most = 0.05 + 3.0 * (0.05_f64 * 0.95 / runs as f64).sqrt();
    for (name, steady_state) in [
        ("both bounds", BOTH),
        ("2pp more", "[{ at: front, error_rate: { max_increase: 2pp } }]"),
        ("at most 4 %", "[{ at: front, error_rate: { max: 4% } }]"),
    ] {
        // As much traffic in both, much more in inject, much less.
        for units in [(12.0, 12.0), (6.0, 18.0), (12.0, 3.0)] {
            let world = World { steady_state, units, ..WORLD };
            let (broken, held) = (world.rate(runs, Ending::Broken), world.rate(runs, Ending::Held));
            let margin = if name == "at most 4 %" { 0.03 } else { 0.02 };
            let at_margin = World { harm: margin, ..world };
            let (false_held, there) = (at_margin.rate(runs, Ending::Held), at_margin.rate(runs, Ending::Broken));
            let harmed = World { steady_state, units, harm: 0.1, ..WORLD }.rate(runs / 3, Ending::Broken);
            println!(
                "{name} {units:?}: A/A broken {broken:.4}, held {held:.3}; at the margin held {false_held:.4}, broken \
                 {there:.4}; ten points of harm broken {harmed:.3}"
            );
            assert!(broken <= most, "{name} {units:?}: false broken {broken}");
            assert!(false_held <= most && there <= most, "{name} {units:?}: at the margin {false_held} {there}");
            assert!(harmed >= 0.97, "{name} {units:?}: real harm was called broken in {harmed} only");
        }
    }
}
