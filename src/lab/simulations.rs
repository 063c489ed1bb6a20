//! What a verdict is worth: whole experiments on simulated traffic, from arrivals to `judge`. Each test prints its rates
//! (`cargo test lab::simulations -- --nocapture`); all chance comes from one seed. With `PRATFALL_LONG=1` there are ten
//! thousand experiments of each kind instead of one thousand.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::evidence::{Ended, Evidence, Reach, Seen};
use super::judge::{Judgement, judge};
use crate::experiment::{Ending, Experiment};
use crate::measure::Counts;
use crate::measure::block::{Ticks, Undecided, cut};
use crate::report::Counted;

/// A kind of experiment, and the world that it is done in.
pub(super) struct World {
    /// Treatment's share in each part of inject.
    pub(super) treatment: &'static [f64],
    /// Control's share.
    pub(super) control: f64,
    /// What is measured.
    pub(super) steady_state: &'static str,
    /// The share that is bad by each indicator without any fault.
    pub(super) usual: &'static [f64],
    /// What the fault adds.
    pub(super) harm: &'static [f64],
    /// What the world itself adds in the second half of inject, to everybody.
    pub(super) drift: f64,
    /// The share of treated units that get lost on their way to the recorder.
    pub(super) lost: f64,
}

pub(super) const WORLD: World = World {
    treatment: &[0.1],
    control: 0.1,
    steady_state: "[{ error_rate: { max_increase: 1pp } }]",
    usual: &[0.005],
    harm: &[0.0],
    drift: 0.0,
    lost: 0.0,
};

/// Matching units of a tick, on average, and ticks of each phase. Each tick is a block, and each block is looked at.
const MATCHING: f64 = 1000.0;
const TICKS: (u32, u32, u32) = (5, 24, 8);
const SEED: u64 = 20_261_122;

pub(super) fn rng(number: usize) -> SmallRng {
    SmallRng::seed_from_u64(SEED + number as u64)
}

/// How many of `n` are so, by jumping from one to the next: quick where they are rare.
pub(super) fn binomial(rng: &mut SmallRng, n: f64, p: f64) -> f64 {
    if p > 0.5 {
        return n - binomial(rng, n, 1.0 - p);
    }
    let (mut found, mut place) = (0.0, 0.0);
    while p > 0.0 {
        place += (rng.random::<f64>().ln() / (-p).ln_1p()).floor() + 1.0;
        if place > n {
            break;
        }
        found += 1.0;
    }
    found
}

impl World {
    pub(super) fn experiment(&self) -> Experiment {
        let shares: Vec<String> = self.treatment.iter().map(|share| format!("{}%", share * 100.0)).collect();
        let shares = match &shares[..] {
            [share] => format!("treatment: {share}"),
            ramp => format!("ramp: [{}]", ramp.join(", ")),
        };
        let text = format!(
            "version: 1\nexperiment: simulated\nhypothesis: If stock is slow, then orders succeed, because of a cache.\n\
             slice: {{ at: front, {shares} }}\n\
             inject: {{ at: inventory, faults: [{{ latency: {{ delay: 1s }} }}] }}\nsteady_state: {}\n",
            self.steady_state
        );
        Experiment::parse("simulated.yaml", &text, &|_| None).unwrap_or_else(|problems| panic!("{problems}")).0
    }

    /// One tick of traffic: the arms by chance, and in each the bad ones by chance.
    fn tick(&self, rng: &mut SmallRng, share: f64, bad: impl Fn(usize, usize) -> f64) -> [Counts; 3] {
        let matching = (MATCHING * rng.random_range(0.5..1.5)).round();
        let treated = binomial(rng, matching, share);
        let control = binomial(rng, matching - treated, self.control / (1.0 - share));
        let treated = treated - binomial(rng, treated, self.lost);
        let mut arms = [Counts::default(); 3];
        for (arm, (counts, n)) in arms.iter_mut().zip([treated, control, matching - treated - control]).enumerate() {
            counts.arrived = n as u64;
            for rule in 0..self.usual.len() {
                counts.decided[rule] = n as u64;
                counts.bad[rule] = binomial(rng, n, bad(rule, arm).min(1.0));
            }
        }
        arms
    }

    /// Everything that a run in this world sees.
    pub(super) fn evidence(&self, rng: &mut SmallRng) -> Evidence {
        let (baseline, inject, recovery) = TICKS;
        let quiet = |rng: &mut SmallRng, ticks: u32| -> Ticks {
            (0..ticks).map(|tick| (tick, self.tick(rng, self.treatment[0], |rule, _| self.usual[rule]))).collect()
        };
        let before = sums(&quiet(rng, baseline));
        let mut arrivals = Vec::new();
        let mut during = BTreeMap::new();
        for tick in 0..inject {
            let share = self.treatment[(tick as usize * self.treatment.len()) / inject as usize];
            let drift = if tick >= inject / 2 { self.drift } else { 0.0 };
            let harmed =
                |rule: usize, arm: usize| self.usual[rule] + drift + if arm == 0 { self.harm[rule] } else { 0.0 };
            let arms = self.tick(rng, share, harmed);
            arrivals.push((arms[0].arrived, arms[1].arrived, share / (share + self.control)));
            during.insert(tick, arms);
        }
        let after = quiet(rng, recovery);
        let treated = sums(&during)[0].arrived;
        let indicators = (0..self.usual.len()).map(|rule| {
            let counted = |counts: &Counts| Counted { bad: counts.bad[rule], of: counts.decided[rule] };
            let mut all = Counts::default();
            before.iter().for_each(|counts| all.add(counts));
            Seen {
                baseline: counted(&all),
                baseline_control: counted(&before[1]),
                baseline_bystanders: counted(&before[2]),
                inject: cut(&during, rule, u32::MAX, Undecided::Bad),
                bystanders: counted(&sums(&during)[2]),
                recovery: cut(&after, rule, u32::MAX, Undecided::Bad),
                ..Seen::default()
            }
        });
        Evidence {
            indicators: indicators.collect(),
            arrivals,
            ended: Ended::Planned,
            reach: Reach {
                treated,
                carried: treated,
                eligible: treated,
                faulted: treated,
                exposed: treated,
                ..Reach::default()
            },
            inject_secs: 60.0,
            recovery_seen: true,
        }
    }

    fn judged(&self, runs: usize) -> Vec<Judgement> {
        let experiment = self.experiment();
        (0..runs).map(|number| judge(&experiment, &self.evidence(&mut rng(number)))).collect()
    }
}

fn sums(ticks: &Ticks) -> [Counts; 3] {
    let mut sums = [Counts::default(); 3];
    for arms in ticks.values() {
        sums.iter_mut().zip(arms).for_each(|(sum, counts)| sum.add(counts));
    }
    sums
}

/// The share of experiments that ended in one way.
fn rate(judged: &[Judgement], ending: Ending) -> f64 {
    judged.iter().filter(|judgement| judgement.ending == ending).count() as f64 / judged.len() as f64
}

fn runs() -> usize {
    if std::env::var_os("PRATFALL_LONG").is_some() { 10_000 } else { 1000 }
}

/// A promise plus three standard errors of a rate over so many experiments.
fn allowed(promise: f64, runs: usize) -> f64 {
    promise + 3.0 * (promise * (1.0 - promise) / runs as f64).sqrt()
}

/// In this world nothing is wrong; with `margin` everything is exactly as wrong as it may be; with `far` much more.
fn promises(name: &str, world: &World, margin: &'static [f64], far: &'static [f64]) {
    let runs = runs();
    let well = world.judged(runs);
    let broken = rate(&well, Ending::Broken);
    let uneven = well.iter().filter(|judgement| judgement.reason.contains("as large")).count() as f64 / runs as f64;
    let held = rate(&well, Ending::Held);
    let at_margin = World { harm: margin, ..*world }.judged(runs);
    let false_held = rate(&at_margin, Ending::Held);
    let few = runs / 10;
    let found = rate(&World { harm: far, ..*world }.judged(few), Ending::Broken);
    println!(
        "{name}: {runs} runs, false broken {broken:.4}, false held at the margin {false_held:.4} (broken there {:.4}), \
         uneven {uneven:.4}; held where all is well {held:.3}, broken where much is wrong {found:.3}",
        rate(&at_margin, Ending::Broken)
    );
    assert!(broken <= allowed(0.05, runs), "false broken: {broken}");
    assert!(false_held <= allowed(0.05, runs), "false held: {false_held}");
    assert!(uneven <= allowed(0.001, runs), "false alarms about uneven arms: {uneven}");
    assert!(found >= 0.97, "much harm was called broken in {found} only");
    assert!(world.drift > 0.0 || held >= 0.8, "nothing was wrong, and that was said in {held} only");
}

#[test]
fn an_increase_is_judged_as_promised() {
    promises("max_increase 1pp at 0.5 %", &WORLD, &[0.01], &[0.05]);
}

#[test]
fn an_absolute_bound_is_judged_as_promised() {
    let world = World { steady_state: "[{ error_rate: { max: 2% } }]", ..WORLD };
    promises("max 2 % at 0.5 %", &world, &[0.015], &[0.06]);
}

#[test]
fn two_indicators_are_judged_as_promised() {
    let steady_state = "[{ error_rate: { max_increase: 1pp } }, { slow_rate: { over: 800ms, max_increase: 5pp } }]";
    let world = World { steady_state, usual: &[0.005, 0.02], harm: &[0.0, 0.0], ..WORLD };
    promises("1pp of errors and 5pp of slow answers", &world, &[0.01, 0.05], &[0.0, 0.2]);
}

#[test]
fn a_ramp_is_judged_as_promised() {
    let world = World { treatment: &[0.05, 0.1, 0.2], control: 0.2, ..WORLD };
    promises("a ramp of 5, 10 and 20 %", &world, &[0.01], &[0.05]);
}

#[test]
fn a_world_that_gets_worse_for_everybody_is_no_evidence_against_the_treatment() {
    promises("a drift of 3 points for everybody", &World { drift: 0.03, ..WORLD }, &[0.01], &[0.15]);
}

#[test]
fn a_world_that_is_unwell_is_no_evidence_for_the_fault_unless_the_fault_adds_more_than_is_allowed() {
    let steady_state = "[{ error_rate: { max: 2% } }]";
    let runs = runs() / 5;
    let sick = World { steady_state, drift: 0.08, ..WORLD }.judged(runs);
    let spilling = World { steady_state, drift: 0.2, harm: &[0.9], ..WORLD }.judged(runs / 4);
    let (false_broken, unwell) = (rate(&sick, Ending::Broken), rate(&sick, Ending::Inconclusive));
    println!("control unwell: {runs} runs, broken {false_broken:.4}, inconclusive {unwell:.4}");
    assert!(false_broken <= allowed(0.05, runs) && unwell >= 0.95);
    assert!(sick.iter().all(|judgement| judgement.ending != Ending::Held));
    assert_eq!(rate(&spilling, Ending::Broken), 1.0, "control fell ill with the treatment, which is far worse");
    assert!(spilling.iter().all(|judgement| !judgement.spillover.is_empty()));
}

#[test]
fn arms_that_lose_units_are_found() {
    let runs = runs() / 5;
    let found = rate(&World { lost: 0.2, ..WORLD }.judged(runs), Ending::Invalid);
    println!("a fifth of the treated lost: {runs} runs, invalid {found:.3}");
    assert!(found > 0.97, "{found}");
}
