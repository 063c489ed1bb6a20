//! One worker's record of one run: no locks, no atomics, handed over in pieces.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use slab::Slab;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::operation::Event;
use super::tally::Counts;
use super::whole::Attempt;
use super::{Arm, End, Outcome, Phase, Rule, Sighting, ticks};

/// What a worker saw since it last said so.
#[derive(Debug)]
pub struct Batch {
    /// Which worker.
    pub worker: usize,
    /// Everything that arrived before this instant is in this batch or an earlier one.
    pub until: Instant,
    /// Arrivals and decisions by the tick of the arrival.
    pub ticks: BTreeMap<(Phase, u32), [Counts; 3]>,
    /// Latencies in microseconds of whole answers.
    pub latencies: Vec<(Phase, Arm, u32)>,
    /// What became of treated operations and their calls.
    pub events: Vec<Event>,
    /// Arrivals and decisions by key, where the unit is somebody, not a request.
    pub entries: Vec<Entry>,
    /// Where calls were seen, in a rehearsal.
    pub sightings: Vec<Sighting>,
    /// Attempts by key, where the unit is an operation.
    pub attempts: Vec<Attempt>,
    /// How often each thing was noted.
    pub notes: [u64; Note::ALL.len()],
}

impl Batch {
    /// Nothing, seen by a worker until an instant.
    pub fn empty(worker: usize, until: Instant) -> Self {
        Self {
            worker,
            until,
            ticks: BTreeMap::new(),
            latencies: Vec::new(),
            events: Vec::new(),
            entries: Vec::new(),
            sightings: Vec::new(),
            attempts: Vec::new(),
            notes: [0; Note::ALL.len()],
        }
    }
}

/// Something that happened to a request on its way through a run, and is only counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Note {
    /// It matched and had no key to draw by.
    Unkeyed,
    /// Its baggage had no room for our member.
    NoRoom,
    /// It had none of the ids that carry the arm.
    NoId,
    /// It matched the slice on a protected route.
    Protected,
    /// A call of the treatment arrived where the fault is.
    CarriedTreatment,
    /// A call of the control arrived where the fault is.
    CarriedControl,
    /// A call without the run's mark arrived where the fault is.
    Uncarried,
    /// Its arm was carried in the baggage.
    ByBaggage,
    /// Its arm was carried by the trace id of `traceparent`.
    ByTraceparent,
    /// Its arm was carried by the trace id of `b3`.
    ByB3,
    /// Its arm was carried by `x-request-id`.
    ByRequestId,
    /// Its arm was carried by the header that the experiment names.
    ByHeader,
    /// A call came with an id that requests of several arms have.
    Ambiguous,
    /// A treated call matched while the fault was on.
    Eligible,
    /// A call met the fault.
    Faulted,
    /// Spared: its operation arrived while the fault was on, and it was off by then, or before its body came to the fault.
    SparedEnded,
    /// Spared: another call was meant.
    SparedNoMatch,
    /// Spared: a protected route.
    SparedProtected,
    /// Spared, and in no arm: it looks like a health probe, and the experiment names none.
    SparedProbe,
    /// Spared: only a share of the calls is meant.
    SparedShare,
    /// Spared: only the first attempts are meant.
    SparedAttempts,
    /// Spared: as many requests as may be are held already.
    SparedLimit,
    /// Spared: the budget of faults is spent.
    SparedBudget,
    /// Spared: it must not be sent twice.
    SparedNotRepeatable,
    /// Spared: its body is too large to be sent twice.
    SparedTooLarge,
    /// Spared: the overload that is injected takes it.
    SparedBelowLimit,
    /// Spared: it had no body for the fault to meet, or a shorter one.
    SparedNoBody,
}

impl Note {
    /// All notes, in the order of their counters.
    pub const ALL: [Self; 27] = [
        Self::Unkeyed,
        Self::NoRoom,
        Self::NoId,
        Self::Protected,
        Self::CarriedTreatment,
        Self::CarriedControl,
        Self::Uncarried,
        Self::ByBaggage,
        Self::ByTraceparent,
        Self::ByB3,
        Self::ByRequestId,
        Self::ByHeader,
        Self::Ambiguous,
        Self::Eligible,
        Self::Faulted,
        Self::SparedEnded,
        Self::SparedNoMatch,
        Self::SparedProtected,
        Self::SparedProbe,
        Self::SparedShare,
        Self::SparedAttempts,
        Self::SparedLimit,
        Self::SparedBudget,
        Self::SparedNotRepeatable,
        Self::SparedTooLarge,
        Self::SparedBelowLimit,
        Self::SparedNoBody,
    ];

    /// What carried the arm of a call, in the words of reports and metrics.
    pub fn carrier(self) -> Option<&'static str> {
        Some(match self {
            Self::ByBaggage => "baggage",
            Self::ByTraceparent => "traceparent",
            Self::ByB3 => "b3",
            Self::ByRequestId => "x-request-id",
            Self::ByHeader => "header",
            _ => return None,
        })
    }

    /// Why a call was spared, in the words of reports and metrics.
    pub fn spared(self) -> Option<&'static str> {
        Some(match self {
            Self::SparedEnded => "ended",
            Self::SparedNoMatch => "no_match",
            Self::SparedProtected => "protected",
            Self::SparedProbe => "probe",
            Self::SparedShare => "share",
            Self::SparedAttempts => "attempts",
            Self::SparedLimit => "limit",
            Self::SparedBudget => "budget",
            Self::SparedNotRepeatable => "not_repeatable",
            Self::SparedTooLarge => "too_large",
            Self::SparedBelowLimit => "below_limit",
            Self::SparedNoBody => "no_body",
            _ => return None,
        })
    }
}

/// A request of somebody: that it came, or how it ended.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Who, as a hash.
    pub key: u64,
    /// Their arm.
    pub arm: Arm,
    /// When the request arrived.
    pub phase: Phase,
    /// When the request arrived.
    pub tick: u32,
    /// The rule that was decided, and whether it was bad; nothing for an arrival.
    pub decided: Option<(u8, bool)>,
}

/// Which phase it is, and since when.
#[derive(Clone, Copy, Debug)]
pub struct PhaseMark {
    /// Which.
    pub phase: Phase,
    /// Since when.
    pub since: Instant,
}

impl PhaseMark {
    /// The tick that an instant falls into.
    pub fn tick(&self, at: Instant) -> u32 {
        ticks(self.since, at)
    }
}

/// A failure budget. Touched by treated units only.
#[derive(Debug)]
pub struct Budget {
    spent: AtomicU64,
    max: u64,
    on_spent: tokio_util::sync::CancellationToken,
}

impl Budget {
    /// A budget of so many units; `on_spent` is cancelled by the one that spends the last.
    pub fn new(max: u64, on_spent: tokio_util::sync::CancellationToken) -> Self {
        Self { spent: AtomicU64::new(0), max, on_spent }
    }

    /// Spends one.
    pub fn spend(&self) {
        if self.spent.fetch_add(1, Ordering::Relaxed) + 1 >= self.max {
            self.on_spent.cancel();
        }
    }

    /// How much was spent.
    pub fn spent(&self) -> u64 {
        self.spent.load(Ordering::Relaxed)
    }

    /// How much there was.
    pub fn max(&self) -> u64 {
        self.max
    }
}

/// A unit that arrives.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Its arm.
    pub arm: Arm,
    /// The phase that it is.
    pub mark: PhaseMark,
    /// This moment.
    pub now: Instant,
    /// When its clock began.
    pub start: Instant,
    /// The response timeout of the listener that it came to.
    pub patience: Duration,
    /// Who it is, as a hash.
    pub key: u64,
    /// Which operation it is; zero where calls are not joined with their operations.
    pub op: u128,
}

/// What is kept beside the counts of requests, because the unit is another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keep {
    /// Nothing: the unit is the request.
    Nothing,
    /// Entries by key: the unit is somebody.
    People,
    /// Attempts by key: the unit is an operation, and the first rule says whether an attempt was answered well.
    Operations,
}

/// One worker's record of one run.
#[derive(Debug)]
pub struct Recorder {
    worker: usize,
    rules: Arc<[Rule]>,
    /// How many of the rules, from the first on, are indicators; the others are guards'.
    indicators: usize,
    keep: Keep,
    harmed: Arc<Budget>,
    feed: UnboundedSender<Batch>,
    flying: RefCell<Slab<Flying>>,
    /// Counts by tick, not in order: nearly all that comes is of the last one that is here.
    ticks: RefCell<Vec<Tick>>,
    open: RefCell<Batch>,
}

/// What was seen of the units that arrived in one tick.
type Tick = ((Phase, u32), [Counts; 3]);

/// A unit under way.
#[derive(Clone, Copy, Debug)]
struct Flying {
    arm: Arm,
    phase: Phase,
    tick: u32,
    start: Instant,
    patience: Duration,
    head: Option<Instant>,
    key: u64,
    op: u128,
    decided: u8,
    harmed: bool,
}

impl Recorder {
    /// A record of the answers to `rules`, of which the first `indicators` say who came to harm, handed over through
    /// `feed`.
    pub fn new(
        worker: usize,
        rules: Arc<[Rule]>,
        indicators: usize,
        keep: Keep,
        harmed: Arc<Budget>,
        feed: UnboundedSender<Batch>,
    ) -> Rc<Self> {
        assert!(rules.len() <= super::MAX_RULES, "a run asks at most {} questions", super::MAX_RULES);
        let open = RefCell::new(Batch::empty(worker, Instant::now()));
        let (flying, ticks) = (RefCell::default(), RefCell::default());
        Rc::new(Self { worker, rules, indicators, keep, harmed, feed, flying, ticks, open })
    }

    /// A unit arrived and began its clock: at its arrival, or at the intended instant of own load.
    pub fn begin(self: &Rc<Self>, arrival: Arrival) -> Unit {
        let Arrival { arm, mark, now, start, patience, key, op } = arrival;
        let (phase, tick) = (mark.phase, mark.tick(now));
        let flying = Flying { arm, phase, tick, start, patience, head: None, key, op, decided: 0, harmed: false };
        self.counts(&flying, |counts| counts.arrived += 1);
        self.entry(&flying, None);
        self.attempt(&flying, None);
        let slot = self.flying.borrow_mut().insert(flying);
        Unit { recorder: self.clone(), slot, status: None, grpc: None, settled: false }
    }

    /// Tells what became of a treated operation or one of its calls.
    pub fn tell(&self, event: Event) {
        self.open.borrow_mut().events.push(event);
    }

    /// Counts something.
    pub fn note(&self, note: Note) {
        self.open.borrow_mut().notes[note as usize] += 1;
    }

    /// Tells where a call was seen.
    pub fn sight(&self, sighting: Sighting) {
        self.open.borrow_mut().sightings.push(sighting);
    }

    /// Units that are not over yet.
    pub fn under_way(&self) -> usize {
        self.flying.borrow().len()
    }

    /// Decides whoever is overdue, and hands over what was seen. `false` when nobody listens any more.
    pub fn flush(&self) -> bool {
        let now = Instant::now();
        for (_, flying) in self.flying.borrow_mut().iter_mut() {
            let elapsed = now.saturating_duration_since(flying.start);
            let head = flying.head.map(|head| head.saturating_duration_since(flying.start));
            for (index, rule) in self.rules.iter().enumerate() {
                if flying.decided & (1 << index) == 0 && rule.overdue(elapsed, head, flying.patience) {
                    self.decide(flying, index, true);
                }
            }
        }
        let mut batch = self.open.replace(Batch::empty(self.worker, Instant::now()));
        batch.until = now;
        batch.ticks = self.ticks.take().into_iter().collect();
        self.feed.send(batch).is_ok()
    }

    fn settle(&self, slot: usize, status: Option<u16>, grpc: Option<u8>, end: End, at_once: bool) {
        let mut flying = self.flying.borrow_mut().remove(slot);
        let now = Instant::now();
        let total = now.saturating_duration_since(flying.start);
        let head = flying.head.map(|head| head.saturating_duration_since(flying.start));
        let outcome = Outcome { status, grpc, end, head: head.or_else(|| at_once.then_some(total)), total };
        for (index, rule) in self.rules.iter().enumerate() {
            if flying.decided & (1 << index) == 0
                && let Some(bad) = rule.judge(&outcome)
            {
                self.decide(&mut flying, index, bad);
            }
        }
        if self.keep == Keep::Operations && self.rules.first().and_then(|rule| rule.judge(&outcome)) == Some(false) {
            self.attempt(&flying, Some(now));
        }
        let mut open = self.open.borrow_mut();
        if outcome.end == End::Complete {
            let micros = u32::try_from(outcome.total.as_micros()).unwrap_or(u32::MAX);
            open.latencies.push((flying.phase, flying.arm, micros));
        }
        if flying.arm == Arm::Treatment && flying.phase == Phase::Inject && flying.op != 0 {
            let failed = outcome.end != End::Complete || outcome.status.is_none_or(|status| status >= 500);
            open.events.push(Event::Operation { op: flying.op, failed, end: outcome.end, total: outcome.total });
        }
    }

    fn decide(&self, flying: &mut Flying, index: usize, bad: bool) {
        flying.decided |= 1 << index;
        self.counts(flying, |counts| {
            counts.decided[index] += 1;
            counts.bad[index] += f64::from(bad);
        });
        self.entry(flying, Some((index as u8, bad)));
        // A guard says when to stop, not who came to harm: the budget is spent by the hypothesis' own words (2.8).
        let counts = bad && index < self.indicators && flying.arm == Arm::Treatment && flying.phase == Phase::Inject;
        if counts && !flying.harmed {
            flying.harmed = true;
            self.harmed.spend();
        }
    }

    fn attempt(&self, flying: &Flying, well: Option<Instant>) {
        if self.keep == Keep::Operations {
            let Flying { key, arm, phase, tick, start, .. } = *flying;
            self.open.borrow_mut().attempts.push(Attempt { key, arm, phase, tick, start, well });
        }
    }

    fn counts(&self, flying: &Flying, change: impl FnOnce(&mut Counts)) {
        let (mut ticks, of) = (self.ticks.borrow_mut(), (flying.phase, flying.tick));
        let known = ticks.iter().rposition(|(tick, _)| *tick == of);
        let index = known.unwrap_or_else(|| {
            ticks.push((of, Default::default()));
            ticks.len() - 1
        });
        change(&mut ticks[index].1[flying.arm as usize]);
    }

    fn entry(&self, flying: &Flying, decided: Option<(u8, bool)>) {
        if self.keep == Keep::People {
            let Flying { key, arm, phase, tick, .. } = *flying;
            self.open.borrow_mut().entries.push(Entry { key, arm, phase, tick, decided });
        }
    }
}

/// A unit under way. Settled once; dropped before that, its caller gave up.
#[derive(Debug)]
pub struct Unit {
    recorder: Rc<Recorder>,
    slot: usize,
    status: Option<u16>,
    grpc: Option<u8>,
    settled: bool,
}

impl Unit {
    /// The head of the answer is there.
    pub fn head(&mut self, status: u16, grpc: Option<u8>) {
        (self.status, self.grpc) = (Some(status), grpc);
        self.recorder.flying.borrow_mut()[self.slot].head = Some(Instant::now());
    }

    /// The trailers brought a gRPC status.
    pub fn grpc(&mut self, code: u8) {
        self.grpc = Some(code);
    }

    /// The whole answer is there at once.
    pub fn whole(mut self, status: u16, grpc: Option<u8>) {
        (self.status, self.grpc) = (Some(status), grpc);
        self.finish(End::Complete, true);
    }

    /// The exchange is over.
    pub fn settle(mut self, end: End) {
        self.finish(end, false);
    }

    /// Settles it; its head has come just now with all the rest, or before.
    fn finish(&mut self, end: End, at_once: bool) {
        self.settled = true;
        let Self { slot, status, grpc, .. } = *self;
        self.recorder.settle(slot, status, grpc, end, at_once);
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        if !self.settled {
            self.finish(End::GaveUp, false);
        }
    }
}
