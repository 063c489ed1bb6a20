//! Operations as units: all requests with one key, from the first arrival to the deadline, whatever became of each of them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::block::Ticks;
use super::{Arm, Budget, Counts, Phase};

/// The place of the only question that operations are asked: were they answered well in time?
const RULE: usize = 0;

/// Operations that are told apart, at most: 60 MiB. Whoever comes later is in no operation.
const MOST: usize = 500_000;

/// An attempt of an operation: that it came, or that it was answered well.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// What joins it with others, as a hash.
    pub key: u64,
    /// Its arm.
    pub arm: Arm,
    /// When it arrived.
    pub phase: Phase,
    /// When it arrived.
    pub tick: u32,
    /// When its clock began.
    pub start: Instant,
    /// When it was answered well; nothing for its arrival.
    pub well: Option<Instant>,
}

/// All operations of a run.
#[derive(Debug)]
pub(super) struct Whole {
    deadline: Duration,
    harmed: Arc<Budget>,
    all: Vec<Operation>,
    /// The one that a further attempt belongs to.
    latest: HashMap<(Arm, u64), u32>,
    arrivals: BTreeMap<(Phase, u32), Vec<u32>>,
    /// Those that may not be decided yet, in the order in which they came.
    open: VecDeque<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Operation {
    arm: Arm,
    phase: Phase,
    first: Instant,
    attempts: u32,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Open,
    Well,
    Failed,
}

impl Whole {
    pub(super) fn new(deadline: Duration, harmed: Arc<Budget>) -> Self {
        let (latest, arrivals, open) = (HashMap::new(), BTreeMap::new(), VecDeque::new());
        Self { deadline, harmed, all: Vec::new(), latest, arrivals, open }
    }

    /// Takes in what happened to an attempt.
    pub(super) fn hear(&mut self, attempt: &Attempt) {
        let Attempt { key, arm, phase, tick, start, well } = *attempt;
        let crowded = self.all.len() >= MOST;
        let known = self.latest.get(&(arm, key)).and_then(|index| self.all.get_mut(*index as usize));
        match (known, well) {
            (Some(operation), Some(at))
                if operation.fate == Fate::Open
                    && start >= operation.first
                    && at <= operation.first + self.deadline =>
            {
                operation.fate = Fate::Well;
            }
            // One that is tried again after the end of a phase is still the same; later, the same key means it anew.
            (Some(operation), None) if operation.phase == phase || start <= operation.first + self.deadline => {
                operation.attempts += 1;
                // Workers tell one after the other.
                operation.first = operation.first.min(start);
            }
            (_, None) if !crowded => {
                let index = self.all.len() as u32;
                self.all.push(Operation { arm, phase, first: start, attempts: 1, fate: Fate::Open });
                self.latest.insert((arm, key), index);
                self.arrivals.entry((phase, tick)).or_default().push(index);
                self.open.push_back(index);
            }
            _ => {}
        }
    }

    /// Everything until an instant has been heard: whoever was not answered well by their deadline has failed.
    pub(super) fn settle(&mut self, until: Instant) {
        while let Some(index) = self.open.front() {
            let operation = &mut self.all[*index as usize];
            if operation.fate == Fate::Open && operation.first + self.deadline >= until {
                return;
            }
            if operation.fate == Fate::Open {
                operation.fate = Fate::Failed;
                if operation.arm == Arm::Treatment && operation.phase == Phase::Inject {
                    self.harmed.spend();
                }
            }
            self.open.pop_front();
        }
    }

    /// Operations by the tick of their first arrival, from a tick on.
    pub(super) fn units(&self, phase: Phase, from: u32) -> Ticks {
        let mut ticks = Ticks::new();
        for ((_, tick), operations) in self.arrivals.range((phase, from)..=(phase, u32::MAX)) {
            let arms: &mut [Counts; 3] = ticks.entry(*tick).or_default();
            for operation in operations.iter().map(|index| &self.all[*index as usize]) {
                let counts = &mut arms[operation.arm as usize];
                counts.arrived += 1;
                counts.decided[RULE] += u64::from(operation.fate != Fate::Open);
                counts.bad[RULE] += f64::from(operation.fate == Fate::Failed);
            }
        }
        ticks
    }

    /// Attempts, and the operations that made them, of an arm in a phase.
    pub(super) fn attempts(&self, phase: Phase, arm: Arm) -> (u64, u64) {
        let mine = self.all.iter().filter(|operation| operation.phase == phase && operation.arm == arm);
        mine.fold((0, 0), |(attempts, operations), one| (attempts + u64::from(one.attempts), operations + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_util::sync::CancellationToken;

    const DEADLINE: Duration = Duration::from_secs(3);

    struct Desk {
        whole: Whole,
        began: Instant,
        harmed: Arc<Budget>,
    }

    impl Desk {
        fn new() -> Self {
            let harmed = Arc::new(Budget::new(100, CancellationToken::new()));
            Self { whole: Whole::new(DEADLINE, harmed.clone()), began: Instant::now(), harmed }
        }

        /// An attempt of the treatment that came after so many seconds, and when it was answered well.
        fn attempt(&mut self, key: u64, phase: Phase, came: f64, well: Option<f64>) {
            let at = |secs| self.began + Duration::from_secs_f64(secs);
            let tick = (came * 4.0) as u32;
            let arrival = Attempt { key, arm: Arm::Treatment, phase, tick, start: at(came), well: None };
            let answer = well.map(|well| Attempt { well: Some(at(well)), ..arrival });
            self.whole.hear(&arrival);
            answer.iter().for_each(|answer| self.whole.hear(answer));
        }

        /// Operations, decided ones, failed ones by then.
        fn by(&mut self, phase: Phase, secs: f64) -> (u64, u64, f64) {
            self.whole.settle(self.began + Duration::from_secs_f64(secs));
            let mut sum = Counts::default();
            self.whole.units(phase, 0).values().for_each(|arms| sum.add(&arms[Arm::Treatment as usize]));
            (sum.arrived, sum.decided[RULE], sum.bad[RULE])
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_operation_is_well_as_soon_as_any_attempt_is_and_has_failed_at_its_deadline() {
        let mut desk = Desk::new();
        desk.attempt(1, Phase::Inject, 0.0, None);
        desk.attempt(1, Phase::Inject, 1.0, None);
        assert_eq!(desk.by(Phase::Inject, 2.0), (1, 0, 0.0), "nobody knows yet");
        desk.attempt(1, Phase::Inject, 2.0, Some(3.0));
        assert_eq!(desk.by(Phase::Inject, 2.0), (1, 1, 0.0));
        desk.attempt(2, Phase::Inject, 2.0, None);
        desk.attempt(2, Phase::Inject, 4.9, Some(5.1));
        assert_eq!(desk.by(Phase::Inject, 5.0), (2, 1, 0.0));
        assert_eq!(desk.harmed.spent(), 0);
        assert_eq!(desk.by(Phase::Inject, 5.2), (2, 2, 1.0), "too late is never");
        assert_eq!(desk.harmed.spent(), 1);
        assert_eq!(desk.whole.attempts(Phase::Inject, Arm::Treatment), (5, 2));
        assert_eq!(desk.whole.attempts(Phase::Inject, Arm::Control), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_operation_belongs_to_the_phase_in_which_it_was_first_tried() {
        let mut desk = Desk::new();
        desk.attempt(1, Phase::Inject, 0.0, None);
        desk.attempt(1, Phase::Recovery, 1.0, Some(1.5));
        assert_eq!((desk.by(Phase::Inject, 9.0), desk.by(Phase::Recovery, 9.0)), ((1, 1, 0.0), (0, 0, 0.0)));
        desk.attempt(1, Phase::Recovery, 4.0, Some(4.5));
        assert_eq!(desk.by(Phase::Recovery, 9.0), (1, 1, 0.0), "the same key, meant anew");
        // An attempt that another worker tells of later was still the first.
        desk.attempt(2, Phase::Recovery, 12.0, None);
        desk.attempt(2, Phase::Recovery, 11.9, None);
        assert_eq!(desk.by(Phase::Recovery, 14.95), (2, 2, 1.0));
        assert_eq!(desk.harmed.spent(), 0, "the fault was off");
    }
}
