//! From a hypothesis and evidence to a verdict: pure, so that it can be replayed and simulated.
//!
//! The order of the questions is the order of honesty: was the set-up right, was a bound shown crossed, did the run go
//! to its planned end, was the world quiet, was every bound shown kept. No data is never a success.

use std::time::Duration;

use super::bound::{Allowed, Bound, Levels, QUIET};
use super::evidence::{Ended, Evidence, Seen};
use super::missing::missing;
use super::not_reached::not_reached;
use super::pairing::{After, Pairing};
use crate::experiment::{Ending, Experiment, Measure};
use crate::measure::Tally;
use crate::measure::block::{self, Pair, Ticks, Undecided};
use crate::report::{BoundVerdict, Counted, words};
use crate::stats::interval::{mantel_haenszel, newcombe, wilson};
use crate::stats::plan::treated_needed_one_arm;
use crate::stats::ratio::{SAMPLE_RATIO_ALARM, SampleRatio};
use crate::stats::{Block, OneArm, Side, TwoArm};
use crate::units::Span;

/// Calls that must have met the fault before a hypothesis can be called held (decisions.md 2.15).
const ENOUGH_FAULTED: u64 = 30;

/// What the evidence says.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The verdict.
    pub ending: Ending,
    /// Why, in one sentence.
    pub reason: String,
    /// What would settle it.
    pub missing: Option<String>,
    /// Each bound for itself.
    pub bounds: Vec<BoundVerdict>,
    /// Others than the treatment came to harm, in words.
    pub spillover: Vec<String>,
}

/// Judges a run.
pub fn judge(experiment: &Experiment, evidence: &Evidence) -> Judgement {
    let bounds = Bound::all(experiment);
    let levels = Levels::new(bounds.len(), experiment.confidence.ratio());
    let verdicts: Vec<BoundVerdict> =
        bounds.iter().map(|bound| verdict(experiment, bound, &evidence.indicators[bound.indicator], levels)).collect();
    let spilled = |bound: &Bound| spilled(bound, &evidence.indicators[bound.indicator]);
    // Where nobody met a fault, nothing of it can have spilt.
    let arms = evidence.reach.faulted > 0 && !experiment.compares_phases();
    let spillover = bounds.iter().filter(|_| arms).filter_map(spilled).collect();
    let decided = decide(experiment, &bounds, &verdicts, evidence, levels);
    let missing = (decided.0 == Ending::Inconclusive).then(|| missing(&bounds, &verdicts, evidence, levels)).flatten();
    Judgement { ending: decided.0, reason: decided.1, missing, bounds: verdicts, spillover }
}

fn decide(
    experiment: &Experiment,
    bounds: &[Bound],
    verdicts: &[BoundVerdict],
    evidence: &Evidence,
    levels: Levels,
) -> (Ending, String) {
    if let Ended::Never(why) = &evidence.ended {
        return (Ending::Inconclusive, why.clone());
    }
    let reach = &evidence.reach;
    let finished = matches!(evidence.ended, Ended::Planned | Ended::Broken);
    if reach.faulted == 0 && (finished || reach.treated >= ENOUGH_FAULTED) {
        return (Ending::Invalid, not_reached(experiment, reach));
    }
    let invalid = match &evidence.ended {
        Ended::Invalid(why) => Some(why.clone()),
        _ => None,
    };
    if let Some(why) = invalid.clone().filter(|_| reach.faulted == 0) {
        // Those who came and could be in no arm are no units: it only looks as if nobody had come.
        let came = reach.treated == 0 && reach.unkeyed + reach.no_id + reach.protected > 0;
        return (Ending::Invalid, if came { not_reached(experiment, reach) } else { why });
    }
    let mut ratio = SampleRatio::default();
    for (treated, control, rho) in &evidence.arrivals {
        ratio.push(*treated, *control, *rho);
    }
    if ratio.log_e() >= SAMPLE_RATIO_ALARM {
        return (
            Ending::Invalid,
            "the arms are not as large as they should be: something sorts requests by arm".into(),
        );
    }
    // Without arms there is no control that could be unwell: nobody knows what the world did meanwhile.
    let unwell = |bound: &Bound| match experiment.compares_phases() {
        true => None,
        false => control_unwell(bound, &evidence.indicators[bound.indicator]),
    };
    let unwell: Vec<Option<String>> = bounds.iter().map(unwell).collect();
    for ((bound, verdict), unwell) in bounds.iter().zip(verdicts).zip(&unwell) {
        let ours = unwell.is_none() || is_ours(bound, &evidence.indicators[bound.indicator], levels);
        if verdict.log_e_broken >= levels.broken && ours {
            return (Ending::Broken, format!("{}: {}", bound.name, verdict.why));
        }
        if verdict.log_e_not_recovered.is_some_and(|log_e| log_e >= levels.broken) && ours {
            return (Ending::Broken, format!("{}: not well again after the fault was gone", bound.name));
        }
    }
    let attempts = attempts(experiment, evidence);
    if let Some((true, why)) = &attempts {
        return (Ending::Broken, why.clone());
    }
    if let Some(why) = invalid {
        return (Ending::Invalid, why);
    }
    if let Ended::Early(by) = &evidence.ended {
        return (Ending::Halted, format!("ended before its plan: {by}"));
    }
    if let Some(unwell) = unwell.into_iter().flatten().next() {
        return (Ending::Inconclusive, unwell);
    }
    let open = verdicts.iter().find(|verdict| verdict.ending != Ending::Held);
    match open {
        // The fault was taken off for a bound that the whole evidence does not show crossed.
        _ if evidence.ended != Ended::Planned => {
            (Ending::Inconclusive, "the fault was taken off before the planned end".into())
        }
        Some(open) => (Ending::Inconclusive, format!("{}: {}", open.indicator, open.why)),
        None if attempts.is_some() => (Ending::Inconclusive, attempts.unwrap_or_default().1),
        None if verdicts.is_empty() => (Ending::Inconclusive, "there is no bound that evidence decides".into()),
        None if reach.faulted < ENOUGH_FAULTED => {
            let faulted = reach.faulted;
            (Ending::Invalid, format!("only {faulted} calls met the fault; {ENOUGH_FAULTED} are needed to say held"))
        }
        None => (Ending::Held, "every bound was shown to be kept".into()),
    }
}

/// Operations took more attempts than they may, and why; `true` where that is the fault's doing. The mean is observed, it
/// is no evidence of the kind that bounds have (decisions.md 2.13).
fn attempts(experiment: &Experiment, evidence: &Evidence) -> Option<(bool, String)> {
    let (indicator, seen) = experiment.steady_state.iter().zip(&evidence.indicators).next()?;
    let Measure::FailedOperations { max_attempts: Some(max), .. } = indicator.measure else { return None };
    let [treated, control] = seen.attempts?;
    let mean = |(attempts, operations): (u64, u64)| attempts as f64 / operations.max(1) as f64;
    let figures = |of| {
        format!("observed {} attempts on average{of}, and at most {max} are allowed", words::number(mean(treated), 2))
    };
    if mean(treated) <= max {
        return None;
    }
    let ours = treated.1 >= ENOUGH_FAULTED && mean(control) <= max;
    let of = match (ours, mean(control) > max) {
        (true, _) => String::new(),
        (false, true) => ", and in control too".to_owned(),
        (false, false) => format!(" of {} only", words::many(treated.1, "operation", "operations")),
    };
    Some((ours, format!("{}: {}", indicator.name, figures(of))))
}

/// Whether a bound has been shown crossed by now: asked again and again while the fault is on, so it goes on where it
/// stopped.
#[derive(Clone, Debug)]
pub(super) struct SoFar {
    indicator: usize,
    process: Process,
    /// What is in a block already.
    after: After,
    /// Whether it is compared with baseline, where phases are.
    paired: bool,
}

impl SoFar {
    pub(super) fn new(experiment: &Experiment, bound: &Bound, seen: &Seen) -> Self {
        let process = Process::new(bound.allowed, Side::Broken, prior(experiment, bound, seen));
        let paired = is_paired(experiment, bound.indicator);
        Self { indicator: bound.indicator, process, after: After::default(), paired }
    }

    /// The first tick that is in no block yet.
    pub(super) fn from(&self) -> u32 {
        self.after.from
    }

    /// Takes the blocks that can be judged by now; ln E after the one where it was largest.
    pub(super) fn look(&mut self, units: &Ticks, complete: u32, beside: Option<(&Pairing, &Tally)>) -> f64 {
        let (rule, wait) = (self.indicator, Undecided::Wait);
        let blocks = match beside {
            Some((pairing, tally)) => pairing.cut(tally, rule, self.paired, self.after, (units, complete, wait)),
            None => block::cut(units.range(self.after.from..), rule, complete, wait),
        };
        let mut highest: f64 = 0.0;
        for block in blocks {
            highest = highest.max(self.process.push(&block));
            self.after.and(&block);
        }
        highest
    }
}

/// A bound's e-process.
#[derive(Clone, Debug)]
enum Process {
    One(OneArm),
    Two(TwoArm),
}

impl Process {
    fn new(allowed: Allowed, side: Side, p0: f64) -> Self {
        match allowed {
            Allowed::Max(max) => Self::One(OneArm::new(side, max, p0)),
            Allowed::More(margin) => Self::Two(TwoArm::new(side, margin, p0)),
        }
    }

    fn push(&mut self, block: &Pair) -> f64 {
        match self {
            Self::One(process) => process.push(block.bad_t, block.n_t as f64),
            // Where phases are compared, more blocks may have come than baseline can stand beside.
            Self::Two(process) if block.n_c == 0 => process.log_e(),
            Self::Two(process) => process.push(pair(block)),
        }
    }
}

/// What the experts expect: all matching traffic of baseline, frozen when the fault begins (decisions.md 2.20). Where
/// baseline is itself one side of the comparison, half of what is allowed.
fn prior(experiment: &Experiment, bound: &Bound, seen: &Seen) -> f64 {
    if experiment.compares_phases() {
        return bound.margin() / 2.0;
    }
    prior_of(seen)
}

/// Whether an indicator has a bound against baseline, where phases are compared.
pub(super) fn is_paired(experiment: &Experiment, indicator: usize) -> bool {
    let bounds = Bound::all(experiment);
    bounds.iter().any(|bound| bound.indicator == indicator && matches!(bound.allowed, Allowed::More(_)))
}

fn prior_of(seen: &Seen) -> f64 {
    (seen.baseline.bad + 0.5) / (seen.baseline.of as f64 + 1.0)
}

/// ln E after each block.
fn path(bound: &Bound, side: Side, blocks: &[Pair], p0: f64) -> Vec<f64> {
    let mut process = Process::new(bound.allowed, side, p0);
    blocks.iter().map(|block| process.push(block)).collect()
}

fn pair(block: &Pair) -> Block {
    Block { bad_t: block.bad_t, n_t: block.n_t as f64, bad_c: block.bad_c, n_c: block.n_c as f64 }
}

fn highest(path: &[f64]) -> f64 {
    path.iter().copied().fold(0.0, f64::max)
}

fn verdict(experiment: &Experiment, bound: &Bound, seen: &Seen, levels: Levels) -> BoundVerdict {
    let p0 = prior(experiment, bound, seen);
    let log_e_held = path(bound, Side::Held, &seen.inject, p0).last().copied().unwrap_or(0.0);
    let log_e_broken = highest(&path(bound, Side::Broken, &seen.inject, p0));
    let recovery = path(bound, Side::Broken, &seen.recovery, p0);
    let (treated, control) = sums(&seen.inject);
    let control = if experiment.compares_phases() { seen.baseline } else { control };
    let (estimate, interval) = estimate(bound, &seen.inject, treated, control);
    let (ending, why) = if log_e_broken >= levels.broken {
        (Ending::Broken, "shown to cross its bound")
    } else if log_e_held >= levels.held {
        (Ending::Held, "shown to keep its bound")
    } else if seen.inject.is_empty() {
        (Ending::Inconclusive, "nothing was measured while the fault was on")
    } else {
        (Ending::Inconclusive, "not enough evidence either way")
    };
    BoundVerdict {
        indicator: bound.name.clone(),
        at: bound.at.clone(),
        bound: bound.words.clone(),
        margin: bound.margin(),
        increase: bound.increase,
        ending,
        treated,
        control,
        estimate,
        interval,
        log_e_held,
        log_e_broken,
        needs_held: levels.held,
        needs_broken: levels.broken,
        broken_after_ms: None,
        log_e_not_recovered: (!recovery.is_empty()).then(|| highest(&recovery)),
        why: format!("{why} ({})", bound.words),
    }
}

fn sums(blocks: &[Pair]) -> (Counted, Counted) {
    let mut sums = (Counted::default(), Counted::default());
    for block in blocks {
        sums.0.bad += block.bad_t;
        sums.0.of += block.n_t;
        sums.1.bad += block.bad_c;
        sums.1.of += block.n_c;
    }
    sums
}

/// What to print: the treated share with Wilson's interval, or the difference with Newcombe's, stratified where it can be.
fn estimate(bound: &Bound, blocks: &[Pair], treated: Counted, control: Counted) -> (f64, (f64, f64)) {
    let (n_t, n_c) = (treated.of as f64, control.of as f64);
    match bound.allowed {
        Allowed::Max(_) if treated.of == 0 => (0.0, (0.0, 1.0)),
        Allowed::Max(_) => (treated.share(), wilson(treated.bad, n_t, 0.95)),
        Allowed::More(_) if treated.of == 0 || control.of == 0 => (0.0, (-1.0, 1.0)),
        Allowed::More(_) => {
            let blocks: Vec<Block> = blocks.iter().map(pair).collect();
            let difference = mantel_haenszel(&blocks).map(|(rd, _)| rd);
            let difference = difference.unwrap_or_else(|| treated.share() - control.share());
            (difference, newcombe(treated.bad, n_t, control.bad, n_c, 0.95))
        }
    }
}

/// Why a run says nothing: the baseline was not what the hypothesis takes for granted (decisions.md 2.5).
pub fn baseline_unquiet(bounds: &[Bound], seen: &[Seen]) -> Option<String> {
    let absolute = bounds.iter().any(|bound| matches!(bound.allowed, Allowed::Max(_)));
    for bound in bounds {
        let seen = &seen[bound.indicator];
        match bound.allowed {
            Allowed::Max(max) => {
                let mut process = OneArm::new(Side::Broken, max, max / 2.0);
                let crossed = process.push(seen.baseline.bad, seen.baseline.of as f64) >= QUIET;
                if crossed || seen.baseline.share() > max {
                    let share = words::share(seen.baseline.share());
                    return Some(format!("{}: {share} before any fault, and {} is allowed", bound.name, bound.words));
                }
            }
            Allowed::More(margin) if no_room(seen.baseline, margin) => {
                let (share, margin) = (words::share(seen.baseline.share()), words::distance(margin));
                return Some(format!("{}: {share} before any fault leaves no room to be {margin} worse", bound.name));
            }
            // A run with a `max` has said what quiet is.
            Allowed::More(_) if absolute => {}
            Allowed::More(margin) => {
                let apart = |turn: fn(&Pair) -> Pair| {
                    let mut process = TwoArm::new(Side::Broken, margin, margin / 2.0);
                    seen.halves.iter().map(|half| process.push(pair(&turn(half)))).fold(0.0, f64::max) >= QUIET
                };
                let turned = |half: &Pair| Pair {
                    bad_t: half.bad_c,
                    n_t: half.n_c,
                    bad_c: half.bad_t,
                    n_c: half.n_t,
                    last_tick: half.last_tick,
                };
                if apart(|half| *half) || apart(turned) {
                    return Some(format!("{}: the two halves of the baseline do not agree", bound.name));
                }
            }
        }
    }
    None
}

/// Whether so many are bad without the fault that a difference could not show itself.
fn no_room(without: Counted, margin: f64) -> bool {
    without.of > 0 && without.share() + margin >= 1.0
}

/// Bounds of which baseline has not shown that they were kept before any fault, with the time that it would have taken
/// (decisions.md 2.5). `secs` is how long it was.
pub fn baseline_short(bounds: &[Bound], seen: &[Seen], secs: f64) -> Vec<String> {
    let short = |bound: &Bound| {
        let (Allowed::Max(max), Counted { bad, of }) = (bound.allowed, seen[bound.indicator].baseline) else {
            return None;
        };
        if of == 0 || OneArm::new(Side::Held, max, max / 2.0).push(bad, of as f64) >= QUIET {
            return None;
        }
        let share = ((bad + 0.5) / (of as f64 + 1.0)).min(max * 0.9);
        let needed = treated_needed_one_arm(share, max, (-QUIET).exp());
        let time = Duration::from_secs_f64((needed / of as f64 * secs).clamp(1.0, 1e9).ceil());
        Some(format!(
            "{}: baseline was too short to show {} before any fault: {}, and about {} are needed (`baseline: {}`)",
            bound.name,
            bound.words,
            words::many(of, "request", "requests"),
            words::count(needed as u64),
            Span::from(time)
        ))
    };
    bounds.iter().filter_map(short).collect()
}

/// Whether the treatment crossed a bound by the fault, although control was unwell: an absolute bound says nothing about
/// the fault when the untreated cross it too, unless what the treatment has *more* than they is above it already.
fn is_ours(bound: &Bound, seen: &Seen, levels: Levels) -> bool {
    let Allowed::Max(max) = bound.allowed else { return true };
    let mut process = Process::new(Allowed::More(max), Side::Broken, prior_of(seen));
    let path: Vec<f64> = seen.inject.iter().map(|block| process.push(block)).collect();
    highest(&path) >= levels.broken
}

/// Why control was unwell, if it was.
fn control_unwell(bound: &Bound, seen: &Seen) -> Option<String> {
    let (_, control) = sums(&seen.inject);
    let worse = match bound.allowed {
        Allowed::Max(max) => {
            let mut process = OneArm::new(Side::Broken, max, prior_of(seen));
            let path: Vec<f64> = seen.inject.iter().map(|block| process.push(block.bad_c, block.n_c as f64)).collect();
            highest(&path) >= QUIET
        }
        Allowed::More(margin) => no_room(control, margin) || worse_than_before(control, seen.baseline_control, margin),
    };
    worse.then(|| format!("{}: control was unwell too ({})", bound.name, words::share(control.share())))
}

/// Whether others than the treatment came to harm: the failure was not contained.
fn spilled(bound: &Bound, seen: &Seen) -> Option<String> {
    let (_, control) = sums(&seen.inject);
    let margin = bound.margin();
    let who = if worse_than_before(control, seen.baseline_control, margin) {
        ("control", control, seen.baseline_control)
    } else if worse_than_before(seen.bystanders, seen.baseline_bystanders, margin) {
        ("bystanders", seen.bystanders, seen.baseline_bystanders)
    } else {
        return None;
    };
    let (now, before) = (words::share(who.1.share()), words::share(who.2.share()));
    Some(format!("{}: {} went from {before} to {now} while others were treated", bound.name, who.0))
}

/// A phase against an earlier one, at twice the margin, because nothing else is held equal.
fn worse_than_before(now: Counted, before: Counted, margin: f64) -> bool {
    if now.of == 0 || before.of == 0 {
        return false;
    }
    let mut process =
        TwoArm::new(Side::Broken, (2.0 * margin).min(0.99), (before.bad + 0.5) / (before.of as f64 + 1.0));
    // In tenths, so that the experts have something earlier to learn from.
    let tenth = Block {
        bad_t: now.bad / 10.0,
        n_t: now.of as f64 / 10.0,
        bad_c: before.bad / 10.0,
        n_c: before.of as f64 / 10.0,
    };
    (0..10).map(|_| process.push(tenth)).fold(0.0, f64::max) >= QUIET
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
