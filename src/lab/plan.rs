//! How long a run must be to answer: known before the fault, from the rate of traffic and what is allowed.

use std::time::Duration;

use super::bound::{Allowed, Bound, Levels};
use crate::experiment::{Experiment, Length};
use crate::report::words;
use crate::stats::plan::{treated_needed_one_arm, treated_needed_two_arm};
use crate::units::Span;

/// How long baseline, and recovery, are where nothing is written (decisions.md 2.20).
pub const QUIET_PHASE: Duration = Duration::from_secs(20);

/// Matching units that an automatic baseline waits for, if that takes longer.
pub const BASELINE_UNITS: u64 = 200;

/// The longest that an automatic phase may be where nothing is written.
pub const AT_MOST: Duration = Duration::from_secs(15 * 60);

/// What a run needs to say HELD with a chance of 90 %, if everything is as well as baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Treated units.
    pub treated: u64,
    /// The bound that needs the most.
    pub bound: String,
    /// How long that takes at the rate that was given.
    pub time: Option<Duration>,
}

/// What a run needs. `p0` is the share that was bad in baseline, for each indicator; a guess of half a percent where
/// nothing was seen yet. `rate` is matching units per second.
pub fn plan(experiment: &Experiment, p0: impl Fn(usize) -> Option<f64>, rate: Option<f64>) -> Option<Plan> {
    let alpha = 1.0 - experiment.confidence.ratio();
    let (t, c) = (experiment.slice.final_treatment().ratio(), experiment.slice.control.ratio());
    let needed = |bound: &Bound| {
        let usual = match bound.allowed {
            Allowed::Max(max) => max / 5.0,
            Allowed::More(margin) => margin / 2.0,
        };
        let p0 = p0(bound.indicator).unwrap_or_else(|| usual.min(0.005));
        match bound.allowed {
            Allowed::Max(max) => treated_needed_one_arm(p0.min(max * 0.95), max, alpha),
            Allowed::More(margin) => treated_needed_two_arm(p0, p0, margin, c / t, alpha),
        }
    };
    let bounds = Bound::all(experiment);
    let (units, bound) =
        bounds.iter().map(|bound| (needed(bound), bound)).max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    let treated = units.min(1e12).ceil() as u64;
    let time = rate.filter(|rate| *rate > 0.0).map(|rate| {
        // The mean of a ramp, not its end, is what treats.
        let shares = &experiment.slice.treatment;
        let mean = shares.iter().map(|share| share.ratio()).sum::<f64>() / shares.len() as f64;
        Duration::from_secs_f64((treated as f64 / (rate * mean)).min(1e9))
    });
    Some(Plan { treated, bound: format!("{} ({})", bound.name, bound.words), time })
}

/// What is left for inject of the longest run that the limits allow: a baseline that takes as long as it needs has used
/// some of it.
pub fn left(experiment: &Experiment, baseline: Duration, longest: Duration) -> Duration {
    let phases = &experiment.phases;
    let baseline = match phases.baseline {
        // Not as long as it took: what was written fits, to the last millisecond.
        Length::Fixed(span) => span.get(),
        Length::Auto { .. } => baseline,
    };
    let recovery = match phases.recovery {
        Length::Fixed(span) => span.get(),
        Length::Auto { at_most } => at_most.map_or(QUIET_PHASE, Span::get),
    };
    longest.saturating_sub(baseline + recovery)
}

/// How long inject is, fixed before the fault; the reason why there can be none otherwise.
pub fn inject(experiment: &Experiment, plan: Option<&Plan>, longest: Duration) -> Result<Duration, String> {
    let too_long = |span: Duration| {
        let [left, wanted] = [longest, span].map(|span| Span::from(Duration::from_secs(span.as_secs())));
        format!("`limits.max_duration` leaves {left:#} for inject after this baseline, and it needs {wanted:#}")
    };
    let at_most = match experiment.phases.inject {
        Length::Fixed(span) if span.get() > longest => return Err(too_long(span.get())),
        Length::Fixed(span) => return Ok(span.get()),
        Length::Auto { at_most } => at_most.map_or(AT_MOST, Span::get).min(longest),
    };
    let Some(plan) = plan else {
        return if QUIET_PHASE > longest { Err(too_long(QUIET_PHASE)) } else { Ok(QUIET_PHASE) };
    };
    let needed = plan.time.ok_or("no traffic matched in baseline: nothing can be planned or measured")?;
    if needed > at_most {
        return Err(format!(
            "this run could not have answered: {} needs about {} treated requests, {:#} at this rate and slice, and at most {:#} are allowed",
            plan.bound,
            words::count(plan.treated),
            Span::from(Duration::from_secs(needed.as_secs().max(1))),
            Span::from(at_most)
        ));
    }
    // A second in hand, and never so short that one hiccup decides.
    Ok(Duration::from_secs(needed.as_secs() + 1).max(Duration::from_secs(10)).min(at_most))
}

/// What is said before a run whose declared rate is too low, with the way out.
pub fn too_low(experiment: &Experiment) -> Option<String> {
    let rate = experiment.traffic.as_ref()?.rate?.per_second();
    let Length::Fixed(inject) = experiment.phases.inject else { return None };
    let plan = plan(experiment, |_| None, Some(rate))?;
    let needed = plan.time?;
    (needed > inject.get()).then(|| {
        format!(
            "this run cannot answer: {} needs about {} treated requests, which take {:#} at {rate}/s; `inject` is {inject:#}. Write `inject: {}` or a larger slice or rate, or run with --underpowered",
            plan.bound,
            words::count(plan.treated),
            Span::from(Duration::from_secs(needed.as_secs() + 1)),
            Span::from(Duration::from_secs(needed.as_secs() + 1)),
        )
    })
}

/// The levels of an experiment.
pub fn levels(experiment: &Experiment) -> Levels {
    Levels::new(Bound::all(experiment).len(), experiment.confidence.ratio())
}
