//! Watching a phase: taking in what workers recorded, looking at it every tick, and noticing why it must end.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::bound::Bound;
use super::guard::Rules;
use super::judge::{SoFar, is_paired};
use super::pairing::{After, Pairing};
use super::stop::Stop;
use super::{Progress, plan};
use crate::experiment::Experiment;
use crate::experiment::limits::Limits;
use crate::measure::block::{self, Pair, Ticks, Undecided};
use crate::measure::{Arm, Batch, Counts, Note, Phase, PhaseMark, TICK, Tally};
use crate::proxy::Trial;
use crate::report::{Counted, Moment, words};

/// How long a worker may take to tell of what it has recorded: five times what it needs.
const HEAR_OUT: Duration = Duration::from_millis(250);

/// How long nobody may come before a run is called off: three windows of a default guard (decisions.md 2.8).
const NO_TRAFFIC: Duration = Duration::from_secs(15);

/// Why a phase ended before its time.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cut {
    /// Somebody said stop.
    Stop(Stop),
    /// A guard was crossed.
    Guard(String),
    /// The failure budget is spent.
    Budget(String),
    /// Nobody came.
    NoTraffic(String),
    /// The limits of the system do not allow it any longer.
    Limit(String),
    /// The run's own code panicked on a request.
    Failed(String),
    /// A bound was shown broken, and watched for long enough.
    Broken,
}

/// A run under watch.
pub(super) struct Watch<'a> {
    pub(super) experiment: Arc<Experiment>,
    pub(super) trial: Arc<Trial>,
    pub(super) bounds: Vec<Bound>,
    pub(super) rules: Rules,
    pub(super) tally: Tally,
    pub(super) timeline: Vec<Moment>,
    pub(super) started: Instant,
    /// The phases that have begun.
    pub(super) marks: Vec<PhaseMark>,
    /// How long inject was to be.
    pub(super) inject_length: Duration,
    /// When a bound was first shown broken, since the fault began.
    pub(super) broken_after: Vec<Option<Duration>>,
    /// What of baseline stands beside the blocks of inject, where phases are compared.
    pub(super) pairing: Option<Pairing>,
    pub(super) batches: UnboundedReceiver<Batch>,
    pub(super) spent: CancellationToken,
    pub(super) stop: watch::Receiver<Option<Stop>>,
    pub(super) progress: &'a watch::Sender<Progress>,
    pub(super) limits: Arc<Limits>,
}

impl Watch<'_> {
    /// Writes a line of the timeline.
    pub(super) fn say(&mut self, source: &str, text: impl Into<String>) {
        let at_ms = self.started.elapsed().as_millis() as u64;
        let text = text.into();
        tracing::info!(run = self.trial.run, source, "{text}");
        self.timeline.push(Moment { at_ms, source: source.to_owned(), text });
    }

    /// Begins a phase.
    pub(super) fn begin(&mut self, phase: Phase) -> PhaseMark {
        let mark = self.trial.begin(phase);
        self.marks.push(mark);
        mark
    }

    /// Watches a phase until `done` says so, or something ends it.
    pub(super) async fn until(
        &mut self,
        mark: PhaseMark,
        planned: Duration,
        mut look: impl FnMut(&mut Self) -> Option<Cut>,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> Option<Cut> {
        let mut ticks = interval(TICK / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let stop = self.stop.borrow_and_update().clone();
            if let Some(stop) = stop {
                return Some(Cut::Stop(stop));
            }
            tokio::select! {
                biased;
                Ok(()) = self.stop.changed() => continue,
                () = self.spent.cancelled(), if mark.phase == Phase::Inject => {
                    // Judged once more: what spent the budget may be what shows the bound broken.
                    self.drain();
                    look(self);
                    let max = self.trial.harmed().max();
                    let max = words::count(max);
                    return Some(Cut::Budget(format!("the failure budget is spent: {max} treated units came to harm")));
                }
                Some(batch) = self.batches.recv() => self.tally.add(batch),
                _ = ticks.tick() => {
                    self.show(mark, planned);
                    if let Some(cut) = self.lost(mark).or_else(|| look(self)) {
                        return Some(cut);
                    }
                    if done(self) {
                        return None;
                    }
                }
            }
        }
    }

    /// Takes in whatever has been handed over.
    pub(super) fn drain(&mut self) {
        while let Ok(batch) = self.batches.try_recv() {
            self.tally.add(batch);
        }
    }

    /// Hears the workers out about everything before an instant: they tell every 50 ms. One that is stuck is not waited for.
    pub(super) async fn hear_of(&mut self, instant: Instant) {
        let all = async {
            while self.tally.complete_until().is_none_or(|until| until <= instant) {
                let Some(batch) = self.batches.recv().await else { return };
                self.tally.add(batch);
            }
        };
        let _ = timeout(HEAR_OUT, all).await;
        self.drain();
    }

    /// The first tick of a phase that may still get arrivals.
    pub(super) fn complete(&self, mark: PhaseMark) -> u32 {
        self.tally.complete_until().map_or(0, |until| mark.tick(until))
    }

    /// Why the run must end by a guard, if it must.
    pub(super) fn guarded(&self) -> Option<Cut> {
        let why = self.rules.guards.iter().find_map(|guard| guard.crossed(&self.tally))?;
        let before = self.marks.last().is_some_and(|mark| mark.phase == Phase::Baseline);
        Some(Cut::Guard(if before { format!("the system was not well before any fault: {why}") } else { why }))
    }

    /// Why the run must end whatever it measures, if it must.
    fn lost(&self, mark: PhaseMark) -> Option<Cut> {
        if self.trial.failed() {
            let why = "the code of a fault panicked on a request: the fault was taken off, and the run says nothing";
            return Some(Cut::Failed(why.to_owned()));
        }
        let over = mark.phase != Phase::Recovery && !self.limits.allows_now(crate::clock::now());
        over.then(|| Cut::Limit("the hours of `limits.hours` are over".to_owned()))
    }

    /// The blocks of one indicator in a phase that is over, and with it everybody's window.
    pub(super) fn blocks(&self, phase: Phase, rule: usize, undecided: Undecided) -> Vec<Pair> {
        let units = self.tally.units(phase, 0, u32::MAX);
        match &self.pairing {
            Some(pairing) => self.pairs(pairing, rule, &units, 0, undecided),
            None => block::cut(&units, rule, u32::MAX, undecided),
        }
    }

    /// The blocks of a phase that is over, from a tick on, each with what stands beside it.
    pub(super) fn pairs(
        &self,
        pairing: &Pairing,
        rule: usize,
        units: &Ticks,
        from: u32,
        undecided: Undecided,
    ) -> Vec<Pair> {
        let after = After { from, ..After::default() };
        pairing.cut(&self.tally, rule, is_paired(&self.experiment, rule), after, (units, u32::MAX, undecided))
    }

    /// Notes which bounds have been shown broken by now.
    pub(super) fn judge_so_far(&mut self, mark: PhaseMark, so_far: &mut [SoFar]) {
        let levels = plan::levels(&self.experiment);
        let complete = self.complete(mark);
        let from = so_far.iter().map(SoFar::from).min().unwrap_or_default();
        let units = self.tally.units(mark.phase, from, complete);
        for (index, process) in so_far.iter_mut().enumerate() {
            let beside = self.pairing.as_ref().map(|pairing| (pairing, &self.tally));
            if process.look(&units, complete, beside) >= levels.broken && self.broken_after[index].is_none() {
                let bound = &self.bounds[index];
                let after = mark.since.elapsed();
                let length = words::length(after.as_millis() as u64);
                let text = format!("{}: shown broken after {length} ({})", bound.name, bound.words);
                self.broken_after[index] = Some(after);
                self.say("judge", text);
            }
        }
    }

    /// Whether every unit that arrived in some ticks of a phase is decided by every indicator.
    pub(super) fn is_decided(&self, mark: PhaseMark, arrived: Range<u32>) -> bool {
        if self.tally.joins() {
            let units = self.tally.units(mark.phase, arrived.start, u32::MAX);
            return units.range(arrived).all(|(_, arms)| arms[..2].iter().all(|counts| counts.is_decided(0)));
        }
        let rules = self.experiment.steady_state.len();
        let mut ticks = self.tally.requests_from(mark.phase, arrived.start).take_while(|(tick, _)| *tick < arrived.end);
        ticks.all(|(_, arms)| arms[..2].iter().all(|counts| (0..rules).all(|rule| counts.is_decided(rule))))
    }

    /// Why the run must end for want of traffic, if it must.
    pub(super) fn deserted(&self, mark: PhaseMark) -> Option<Cut> {
        let ticks = (NO_TRAFFIC.as_millis() / TICK.as_millis()) as u32;
        let from = self.complete(mark).checked_sub(ticks)?;
        let came = self.tally.requests_from(mark.phase, from).next().is_some();
        let what = if self.experiment.compares_phases() { "came to be measured" } else { "matched the slice" };
        (!came).then(|| Cut::NoTraffic(format!("no traffic: for {} s no request {what}", NO_TRAFFIC.as_secs())))
    }

    fn show(&self, mark: PhaseMark, planned: Duration) {
        let mut sums = self.tally.shown_sum(mark.phase);
        let phases = self.experiment.compares_phases();
        if phases && mark.phase != Phase::Baseline {
            // What they are compared with.
            sums[Arm::Control as usize] = self.tally.sum(Phase::Baseline)[Arm::Treatment as usize];
        }
        let counted = |counts: &Counts, rule: usize| Counted { bad: counts.bad[rule], of: counts.decided[rule] };
        let indicators = self.experiment.steady_state.iter().enumerate().map(|(rule, indicator)| {
            let of = |arm: Arm| counted(&sums[arm as usize], rule);
            (indicator.name.clone(), of(Arm::Treatment), of(Arm::Control))
        });
        let mut progress = Progress {
            run: self.trial.run.clone(),
            experiment: self.experiment.name.clone(),
            title: self.experiment.title.clone(),
            phase: mark.phase.word(),
            phases_compared: phases,
            elapsed: mark.since.elapsed(),
            planned,
            indicators: indicators.collect(),
            at: self.experiment.inject.at.clone(),
            held: self.trial.held(),
            broken_after: self.broken_after.iter().flatten().min().copied(),
            ..Progress::default()
        };
        // In one piece: counters that are read in between must not fall.
        self.count_into(&mut progress);
        self.progress.send_replace(progress);
    }

    /// Shows what was counted by now.
    pub(super) fn count(&self) {
        self.progress.send_modify(|progress| self.count_into(progress));
    }

    /// Calls that could have met the fault and did not, by each reason there is.
    pub(super) fn spared(&self) -> BTreeMap<&'static str, u64> {
        let noted = |note: Note| self.tally.noted(note);
        let mut spared: BTreeMap<_, _> =
            Note::ALL.into_iter().filter_map(|note| Some((note.spared()?, noted(note)))).collect();
        // Requests of the slice on a protected route are as safe as calls there.
        *spared.entry("protected").or_default() += noted(Note::Protected);
        if self.experiment.steady_state.is_empty() {
            // By hand nobody is compared: who was not drawn is spared.
            *spared.entry("share").or_default() += self.tally.sum(Phase::Inject)[Arm::Bystander as usize].arrived;
        }
        spared
    }

    fn count_into(&self, progress: &mut Progress) {
        progress.faulted = self.tally.noted(Note::Faulted);
        progress.harmed = self.trial.harmed().spent();
        progress.injecting = self.trial.is_injecting();
        progress.met = self.trial.met().into_iter().collect();
        progress.spared = self.spared();
    }
}
