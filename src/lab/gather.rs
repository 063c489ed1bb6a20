//! Gathers what a run saw into evidence, when a phase is over.

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use super::evidence::{Evidence, Seen};
use super::pairing::Pairing;
use super::watch::Watch;
use crate::experiment::{Measure, Threshold};
use crate::measure::block::{self, Pair, Ticks, Undecided};
use crate::measure::{Arm, Counts, Phase, PhaseMark, TICK};
use crate::report::Counted;

/// What baseline was like.
pub(super) fn baseline(watch: &Watch<'_>, mark: PhaseMark) -> Vec<Seen> {
    let sums = watch.tally.units_of(Phase::Baseline);
    let units = watch.tally.units(Phase::Baseline, 0, u32::MAX);
    let middle = mark.tick(Instant::now()) / 2;
    (0..watch.experiment.steady_state.len())
        .map(|rule| {
            // A threshold at the 95th percentile is known when baseline is over: one in twenty was slower, by its meaning.
            let measure = &watch.experiment.steady_state[rule].measure;
            let relative = matches!(measure, Measure::SlowRate { over: Threshold::BaselineP95, .. });
            let counted = |counts: &Counts| {
                if relative {
                    return Counted { bad: 0.05 * counts.arrived as f64, of: counts.arrived };
                }
                Counted { bad: counts.bad[rule], of: counts.decided[rule] }
            };
            let [_, control, bystanders] = sums.each_ref().map(counted);
            let mut all = Counts::default();
            sums.iter().for_each(|counts| all.add(counts));
            let of_tick = |tick: u32| {
                let mut all = Counts::default();
                units.get(&tick).into_iter().flatten().for_each(|counts| all.add(counts));
                (all.bad[rule], all.decided[rule])
            };
            let halves = (0..middle).map(|tick| {
                let ((bad_c, n_c), (bad_t, n_t)) = (of_tick(tick), of_tick(tick + middle));
                Pair { bad_t, n_t, bad_c, n_c, last_tick: tick }
            });
            Seen {
                baseline: counted(&all),
                baseline_control: control,
                baseline_bystanders: bystanders,
                halves: halves.collect(),
                ..Seen::default()
            }
        })
        .collect()
}

/// What was seen while the fault was on.
pub(super) fn inject(watch: &Watch<'_>, mark: PhaseMark, undecided: Undecided, evidence: &mut Evidence) {
    let sums = watch.tally.units_of(Phase::Inject);
    for (rule, seen) in evidence.indicators.iter_mut().enumerate() {
        seen.inject = watch.blocks(mark.phase, rule, undecided);
        let bystanders = &sums[Arm::Bystander as usize];
        seen.bystanders = Counted { bad: bystanders.bad[rule], of: bystanders.decided[rule] };
    }
    let attempts = |arm| watch.tally.attempts(Phase::Inject, arm);
    if let (Some(seen), Some(treated), Some(control)) =
        (evidence.indicators.first_mut(), attempts(Arm::Treatment), attempts(Arm::Control))
    {
        seen.attempts = Some([treated, control]);
    }
    if watch.experiment.compares_phases() {
        return; // everybody is measured: there are no arms to be uneven
    }
    let control = watch.experiment.slice.control.ratio();
    let units = watch.tally.units(Phase::Inject, 0, u32::MAX);
    let sticky = watch.experiment.slice.by.is_sticky();
    let steps = |tick: u32| step(watch, TICK * tick, watch.inject_length);
    let arrivals = units.iter().filter_map(|(tick, arms)| {
        let (now, share) = steps(*tick);
        // A step of the ramp does not fall on a tick: those around it are mixed.
        let mixed = steps(tick + 2).0 != now || steps(tick.saturating_sub(1)).0 != now;
        // Of people who come again and again, a later step only brings those who are new to the treatment.
        let uneven = sticky && now > 0;
        (!mixed && !uneven).then_some((arms[0].arrived, arms[1].arrived, share / (share + control)))
    });
    evidence.arrivals = arrivals.collect();
}

/// The second half of recovery, when the system should be well again.
pub(super) fn recovery(watch: &Watch<'_>, judged: Range<u32>, evidence: &mut Evidence) {
    let units = watch.tally.units(Phase::Recovery, 0, u32::MAX);
    let baseline = watch.marks.windows(2).next().map_or(TICK, |marks| marks[1].since - marks[0].since);
    let length = TICK * (judged.end - judged.start);
    let pairing = watch.pairing.as_ref().map(|_| Pairing::new(&watch.tally, baseline, length));
    for (rule, seen) in evidence.indicators.iter_mut().enumerate() {
        seen.recovery = match &pairing {
            None => block::cut(units.range(judged.clone()), rule, u32::MAX, Undecided::Bad),
            Some(pairing) => {
                let judged: Ticks = units.range(judged.clone()).map(|(tick, arms)| (*tick, *arms)).collect();
                watch.pairs(pairing, rule, &judged, 0, Undecided::Bad)
            }
        };
    }
    evidence.recovery_seen = true;
}

/// Which step of the ramp it is after so long, and its share.
pub(super) fn step(watch: &Watch<'_>, after: Duration, length: Duration) -> (usize, f64) {
    let shares = &watch.experiment.slice.treatment;
    let part = after.as_secs_f64() / length.as_secs_f64().max(0.001) * shares.len() as f64;
    let step = (part as usize).min(shares.len() - 1);
    (step, shares[step].ratio())
}
