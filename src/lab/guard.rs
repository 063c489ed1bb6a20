//! Conditions that halt a run, looked at every tick.

use std::time::Duration;

use crate::experiment::{Experiment, Guard, Of};
use crate::measure::{Arm, Counts, Rule, TICK, Tally, Until};
use crate::report::words;
use crate::units::{Percent, Span};

/// A guard does not decide on fewer units than this (decisions.md 2.8).
const ENOUGH: u64 = 20;

/// The rules of an experiment, in the order in which recorders ask them: the indicators first, then the guards.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// All rules.
    pub(super) all: Vec<Rule>,
    /// The guards that look at a share.
    pub(super) guards: Vec<Watched>,
}

/// A guard that looks at a share.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    rule: usize,
    max: Percent,
    window: Duration,
    of: Of,
    what: String,
}

impl Watched {
    /// Why the run must end, if it must. A window that is not full yet says nothing.
    pub(super) fn crossed(&self, tally: &Tally) -> Option<String> {
        let ticks = (self.window.as_millis() / TICK.as_millis()).max(1) as u32;
        let arms = tally.decided_lately(ticks)?;
        let mut sum = Counts::default();
        for arm in Arm::ALL.into_iter().filter(|arm| self.looks_at(*arm)) {
            sum.add(&arms[arm as usize]);
        }
        let (decided, bad) = (sum.decided[self.rule], sum.bad[self.rule]);
        let share = bad / decided.max(1) as f64;
        (decided >= ENOUGH && share > self.max.ratio()).then(|| {
            let of = match self.of {
                Of::Rest => "everybody but the treatment",
                Of::Treatment => "the treatment",
                Of::All => "everybody",
            };
            let (share, window) = (words::share(share), Span::from(self.window));
            format!("guard: {} of {of} at {share} for {window:#}, {:#} is allowed", self.what, self.max)
        })
    }

    fn looks_at(&self, arm: Arm) -> bool {
        match self.of {
            Of::All => true,
            Of::Treatment => arm == Arm::Treatment,
            Of::Rest => arm != Arm::Treatment,
        }
    }
}

/// The budgets of an experiment: harmed units, and faults.
pub(super) fn budgets(experiment: &Experiment) -> (u64, Option<u64>) {
    let mut budgets = (u64::MAX, None);
    for guard in &experiment.guards {
        match guard {
            Guard::Harmed { max } => budgets.0 = *max,
            Guard::Faulted { max, .. } => budgets.1 = *max,
            _ => {}
        }
    }
    budgets
}

/// Adds the guards' rules to the indicators' own.
pub(super) fn rules(experiment: &Experiment, indicators: Vec<Rule>) -> Rules {
    let mut rules = Rules { all: indicators, guards: Vec::new() };
    for guard in &experiment.guards {
        let (rule, max, window, of, what) = match guard {
            Guard::ErrorRate { max, window, of } => {
                (Rule::Error(crate::experiment::Count::DEFAULT.into()), *max, window, *of, "errors".to_owned())
            }
            Guard::SlowRate { over, max, window, of } => {
                (Rule::slow(over.get(), Until::Body), *max, window, *of, format!("slower than {over:#}"))
            }
            _ => continue,
        };
        // Without arms everybody lives with the fault.
        let of = if experiment.compares_phases() { Of::All } else { of };
        rules.guards.push(Watched { rule: rules.all.len(), max, window: window.get(), of, what });
        rules.all.push(rule);
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Batch, Phase};
    use tokio::time::Instant;

    /// What was decided in each tick: its number, when the units had arrived, how many of each arm, how many were bad.
    fn tally(ticks: &[(u32, u32, [u64; 3], [f64; 3])]) -> Tally {
        let mut tally = Tally::new(1, None);
        let began = Instant::now();
        for (tick, arrived, decided, bad) in ticks {
            let mut batch = Batch::empty(0, began + TICK * *tick + TICK / 2);
            let arms = batch.ticks.entry((Phase::Inject, *arrived)).or_default();
            for arm in 0..3 {
                arms[arm].decided[0] = decided[arm];
                arms[arm].bad[0] = bad[arm];
            }
            tally.add(batch);
        }
        let last = ticks.last().expect("there is one").0;
        tally.add(Batch::empty(0, began + TICK * (last + 1)));
        tally
    }

    fn guard(of: Of) -> Watched {
        let (max, window) = ("20%".parse().unwrap(), Duration::from_secs(1));
        Watched { rule: 0, max, window, of, what: "errors".into() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_guard_looks_at_its_window_and_its_people_and_waits_for_enough_of_them() {
        let all_bad = |ticks| (0..ticks).map(|tick| (tick, tick, [10, 10, 10], [10.0, 0.0, 0.0])).collect::<Vec<_>>();
        let bad = tally(&all_bad(8));
        assert!(guard(Of::Treatment).crossed(&bad).is_some());
        assert!(guard(Of::All).crossed(&bad).is_some(), "a third is over a fifth");
        assert_eq!(guard(Of::Rest).crossed(&bad), None, "the treatment is broken on purpose");
        assert_eq!(guard(Of::Treatment).crossed(&tally(&all_bad(3))), None, "the window is not full");
        let few = tally(&[(0, 0, [4, 0, 0], [4.0, 0.0, 0.0]), (3, 3, [15, 0, 0], [15.0, 0.0, 0.0])]);
        assert_eq!(guard(Of::All).crossed(&few), None, "19 units do not decide");
        let past = tally(&[(0, 0, [30, 0, 0], [30.0, 0.0, 0.0]), (8, 8, [30, 0, 0], [0.0; 3])]);
        assert_eq!(guard(Of::All).crossed(&past), None, "what is over is over");
    }

    #[tokio::test(start_paused = true)]
    async fn a_guard_sees_units_whose_fate_is_known_long_after_they_came() {
        // All time out after thirty seconds; a window of arrivals would only ever hold those that nobody knows of yet.
        let late = tally(&[(0, 0, [0, 0, 5], [0.0; 3]), (121, 1, [0, 0, 25], [0.0, 0.0, 25.0])]);
        assert!(guard(Of::Rest).crossed(&late).is_some());
    }
}
