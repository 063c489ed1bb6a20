//! The sum of what all workers saw, by phase and tick.

use std::collections::{BTreeMap, HashMap, hash_map};
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use super::block;
use super::operation::Operations;
use super::whole::Whole;
use super::{Arm, Batch, Budget, Entry, MAX_RULES, Note, Phase, Sighting, sighting, ticks};

/// What was seen of one arm in one tick.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Units that arrived.
    pub arrived: u64,
    /// Units of these that are decided, by rule.
    pub decided: [u64; MAX_RULES],
    /// Units of these that were bad, by rule; a fraction where a unit had several requests.
    pub bad: [f64; MAX_RULES],
}

impl Counts {
    /// Adds what somebody else saw.
    pub fn add(&mut self, other: &Self) {
        self.arrived += other.arrived;
        for rule in 0..MAX_RULES {
            self.decided[rule] += other.decided[rule];
            self.bad[rule] += other.bad[rule];
        }
    }

    /// Whether every unit is decided.
    pub fn is_decided(&self, rule: usize) -> bool {
        self.decided[rule] >= self.arrived
    }
}

type Ticks = BTreeMap<(Phase, u32), [Counts; 3]>;

/// The sum of what all workers saw.
#[derive(Debug)]
pub struct Tally {
    requests: Ticks,
    /// How many ticks a sticky unit is watched; nothing where the unit is the request.
    window: Option<u32>,
    people: HashMap<(Phase, Arm, u64), Person>,
    /// Who came first in which tick, so that nobody looks at all people to find the latest.
    newcomers: BTreeMap<(Phase, u32), Vec<(Arm, u64)>>,
    /// Operations with all their attempts, where these are the units.
    whole: Option<Whole>,
    latencies: BTreeMap<(Phase, Arm), Histogram<u32>>,
    /// When ticks of decisions began to be counted.
    began: Instant,
    /// Decisions by the tick in which they were made, whenever the unit arrived.
    decisions: BTreeMap<u32, [Counts; 3]>,
    seen_until: Vec<Option<Instant>>,
    /// Treated operations.
    pub operations: Operations,
    /// Where calls were seen, in a rehearsal.
    pub sightings: Vec<Sighting>,
    notes: [u64; Note::ALL.len()],
}

/// A sticky unit in one phase.
#[derive(Clone, Copy, Debug)]
struct Person {
    first: u32,
    arrived: u32,
    decided: [u32; MAX_RULES],
    bad: [u32; MAX_RULES],
}

/// People who are told apart, at most: 100 MiB. Whoever comes later, in either arm, is nobody's unit.
const MOST_PEOPLE: usize = 500_000;

impl Tally {
    /// Nothing yet, from so many workers; with `window`, units are people who are watched for so many ticks.
    pub fn new(workers: usize, window: Option<u32>) -> Self {
        Self {
            requests: Ticks::new(),
            window,
            people: HashMap::new(),
            newcomers: BTreeMap::new(),
            whole: None,
            latencies: BTreeMap::new(),
            began: Instant::now(),
            decisions: BTreeMap::new(),
            seen_until: vec![None; workers],
            operations: Operations::default(),
            sightings: Vec::new(),
            notes: [0; Note::ALL.len()],
        }
    }

    /// Units are operations that must be answered well by this deadline; treated ones that are not spend the budget.
    pub fn joining(self, deadline: Duration, harmed: Arc<Budget>) -> Self {
        Self { whole: Some(Whole::new(deadline, harmed)), ..self }
    }

    /// Whether units are operations.
    pub fn joins(&self) -> bool {
        self.whole.is_some()
    }

    /// Attempts of an arm in a phase, and the operations that made them, where these are the units.
    pub fn attempts(&self, phase: Phase, arm: Arm) -> Option<(u64, u64)> {
        self.whole.as_ref().map(|whole| whole.attempts(phase, arm))
    }

    /// Adds a batch.
    pub fn add(&mut self, batch: Batch) {
        let decided_in = self.tick(batch.until);
        for (tick, arms) in &batch.ticks {
            let arrivals = self.requests.entry(*tick).or_default();
            let decisions = self.decisions.entry(decided_in).or_default();
            for ((arrived, decided), counts) in arrivals.iter_mut().zip(decisions).zip(arms) {
                arrived.add(counts);
                decided.add(counts);
            }
        }
        for entry in &batch.entries {
            self.enter(entry);
        }
        for (phase, arm, micros) in batch.latencies {
            let histogram = self.latencies.entry((phase, arm)).or_insert_with(|| {
                // One microsecond to ten minutes with two digits: 13 KiB.
                Histogram::new_with_bounds(1, 600_000_000, 2).expect("the bounds are sound")
            });
            histogram.saturating_record(u64::from(micros));
        }
        for (sum, count) in self.notes.iter_mut().zip(batch.notes) {
            *sum += count;
        }
        for event in batch.events {
            self.operations.hear(event);
        }
        let room = sighting::MOST - self.sightings.len();
        self.sightings.extend(batch.sightings.into_iter().take(room));
        if let Some(seen) = self.seen_until.get_mut(batch.worker) {
            *seen = Some(batch.until);
        }
        let until = self.complete_until();
        if let Some(whole) = &mut self.whole {
            batch.attempts.iter().for_each(|attempt| whole.hear(attempt));
            until.into_iter().for_each(|until| whole.settle(until));
        }
    }

    /// How often something was noted.
    pub fn noted(&self, note: Note) -> u64 {
        self.notes[note as usize]
    }

    fn enter(&mut self, entry: &Entry) {
        let Some(window) = self.window else { return };
        let Entry { key, arm, phase, tick: first, .. } = *entry;
        let crowded = self.people.len() >= MOST_PEOPLE;
        let person = match self.people.entry((phase, arm, key)) {
            hash_map::Entry::Occupied(known) => known.into_mut(),
            hash_map::Entry::Vacant(_) if crowded => return,
            hash_map::Entry::Vacant(new) => {
                self.newcomers.entry((phase, first)).or_default().push((arm, key));
                new.insert(Person { first, arrived: 0, decided: [0; MAX_RULES], bad: [0; MAX_RULES] })
            }
        };
        if first.saturating_sub(person.first) >= window {
            return;
        }
        match entry.decided {
            None => person.arrived += 1,
            Some((rule, bad)) => {
                person.decided[rule as usize] += 1;
                person.bad[rule as usize] += u32::from(bad);
            }
        }
    }

    /// Until when everything that arrived is in here.
    pub fn complete_until(&self) -> Option<Instant> {
        self.seen_until.iter().copied().min().flatten()
    }

    fn tick(&self, at: Instant) -> u32 {
        ticks(self.began, at)
    }

    /// What was decided in the last so many whole ticks, whenever it arrived; nothing while there were not so many.
    ///
    /// Guards ask this. By arrival, whoever hangs would leave their window before anybody could tell.
    pub fn decided_lately(&self, ticks: u32) -> Option<[Counts; 3]> {
        let now = self.tick(self.complete_until()?);
        let mut sums = [Counts::default(); 3];
        for arms in self.decisions.range(now.checked_sub(ticks)?..now).map(|(_, arms)| arms) {
            sums.iter_mut().zip(arms).for_each(|(sum, counts)| sum.add(counts));
        }
        Some(sums)
    }

    /// Requests by the tick of their arrival, for charts, whatever the unit is.
    pub fn requests(&self, phase: Phase) -> impl Iterator<Item = (u32, &[Counts; 3])> {
        self.requests_from(phase, 0)
    }

    /// The same, from a tick on.
    pub fn requests_from(&self, phase: Phase, from: u32) -> impl Iterator<Item = (u32, &[Counts; 3])> {
        self.requests.range((phase, from)..=(phase, u32::MAX)).map(|((_, tick), arms)| (*tick, arms))
    }

    /// Units by the tick of their arrival, from a tick on. People are decided when their window is over at tick `now`.
    pub fn units(&self, phase: Phase, from: u32, now: u32) -> BTreeMap<u32, [Counts; 3]> {
        if let Some(whole) = &self.whole {
            return whole.units(phase, from);
        }
        let Some(window) = self.window else {
            return self.requests_from(phase, from).map(|(tick, arms)| (tick, *arms)).collect();
        };
        let mut ticks = BTreeMap::new();
        for ((_, tick), people) in self.newcomers.range((phase, from)..=(phase, u32::MAX)) {
            let arms: &mut [Counts; 3] = ticks.entry(*tick).or_default();
            for (arm, key) in people {
                let (person, counts) = (&self.people[&(phase, *arm, *key)], &mut arms[*arm as usize]);
                counts.arrived += 1;
                if now.saturating_sub(*tick) < window {
                    continue;
                }
                for rule in (0..MAX_RULES).filter(|rule| person.decided[*rule] >= person.arrived) {
                    counts.decided[rule] += 1;
                    counts.bad[rule] += f64::from(person.bad[rule]) / f64::from(person.arrived.max(1));
                }
            }
        }
        ticks
    }

    /// What is shown of a phase: operations where these are the units, since a failed attempt says little; else requests.
    pub fn shown(&self, phase: Phase) -> block::Ticks {
        match &self.whole {
            Some(whole) => whole.units(phase, 0),
            None => self.requests(phase).map(|(tick, arms)| (tick, *arms)).collect(),
        }
    }

    /// The sum of what is shown of a phase, by arm.
    pub fn shown_sum(&self, phase: Phase) -> [Counts; 3] {
        if self.joins() { self.units_of(phase) } else { self.sum(phase) }
    }

    /// The units of a phase that is over, by arm: nobody's window lasts longer than the phase.
    pub fn units_of(&self, phase: Phase) -> [Counts; 3] {
        let mut sums = [Counts::default(); 3];
        for arms in self.units(phase, 0, u32::MAX).values() {
            sums.iter_mut().zip(arms).for_each(|(sum, counts)| sum.add(counts));
        }
        sums
    }

    /// The sum of a phase's requests by arm.
    pub fn sum(&self, phase: Phase) -> [Counts; 3] {
        let mut sums = [Counts::default(); 3];
        for (_, arms) in self.requests(phase) {
            for (sum, counts) in sums.iter_mut().zip(arms) {
                sum.add(counts);
            }
        }
        sums
    }

    /// Latency of whole answers in milliseconds at some quantiles.
    pub fn quantiles(&self, phase: Phase, arm: Arm, at: [f64; 4]) -> Option<[f64; 4]> {
        let histogram = self.latencies.get(&(phase, arm))?;
        Some(at.map(|quantile| histogram.value_at_quantile(quantile) as f64 / 1e3))
    }

    /// One quantile over all arms of a phase, in microseconds.
    pub fn quantile_of_all(&self, phase: Phase, quantile: f64) -> Option<u64> {
        let mut all = Histogram::<u32>::new_with_bounds(1, 600_000_000, 2).expect("the bounds are sound");
        for arm in Arm::ALL {
            if let Some(histogram) = self.latencies.get(&(phase, arm)) {
                all.add(histogram).expect("both have the same bounds");
            }
        }
        (!all.is_empty()).then(|| all.value_at_quantile(quantile))
    }
}
