//! The hinge between lab and traffic: a run as the data plane sees it.
//!
//! Being enrolled and injecting are values. Whatever the way out of a run, dropping them ends it: no fault stays on,
//! and whoever is held is let go.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::Request;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::brought::{Id, Space};
use super::budget::FaultBudget;
use super::carry::Memory;
use super::context::{Mark, Members};
use super::injecting::Injecting;
use super::key;
use super::listen::Listener;
use super::meet::Attempts;
use crate::chance::{self, Chance, Draws};
use crate::experiment::limits::Limits;
use crate::experiment::{By, Experiment, Slice, health};
use crate::fault::{Fault, Release};
use crate::measure::{Arm, Batch, Budget, Keep, Phase, PhaseMark, Recorder, Rule};
use crate::service::Body;
use crate::units::Seed;

/// One run, as the data plane sees it.
#[derive(Debug)]
pub struct Trial {
    /// The run's id: callers see it on answers that a fault made.
    pub run: String,
    /// What marks the run's own requests; nobody outside can guess it.
    pub token: u64,
    pub(super) members: Members,
    pub(super) chance: Chance,
    keys: Draws,
    ids: Draws,
    pub(super) experiment: Arc<Experiment>,
    pub(super) slice_at: usize,
    pub(super) inject_at: usize,
    pub(super) limits: Arc<Limits>,
    pub(super) attempts: Mutex<Attempts>,
    /// Which ids were seen at the slice a moment ago.
    pub(super) memory: Memory,
    /// Faults that may still be injected.
    pub(super) budget: FaultBudget,
    /// Calls and connections that met a fault, by its kind.
    met: [AtomicU64; Fault::KINDS.len()],
    /// Requests held at this moment.
    pub(super) held: AtomicU64,
    rules: Arc<[Rule]>,
    /// What joins the attempts of an operation where slice and fault share a listener; else each request is one.
    pub(super) joined: Option<By>,
    /// What makes an operation of requests, where operations are the units.
    pub(super) operations: Option<By>,
    pub(super) only_own: bool,
    /// Whether calls are looked for at every listener, as a rehearsal does.
    everywhere: AtomicBool,
    /// Phases are compared, not arms.
    phases: bool,
    pub(super) epoch: Instant,
    treatment: AtomicU64,
    control: f64,
    /// The phase, and the nanoseconds from the epoch to its beginning, four times.
    phase: AtomicU64,
    pub(super) injecting: ArcSwapOption<Injecting>,
    /// Something of ours panicked: from then on the run touches nobody.
    failed: AtomicBool,
    harmed: Arc<Budget>,
    feed: UnboundedSender<Batch>,
}

/// What a trial is made of, beside the experiment.
#[derive(Debug)]
pub struct Terms {
    /// The run's id.
    pub run: String,
    /// Where chance comes from.
    pub seed: Seed,
    /// What is asked of each unit: the indicators first, then the guards.
    pub rules: Vec<Rule>,
    /// What may be injected.
    pub limits: Arc<Limits>,
    /// Treated units that may come to harm; cancels its token when they have.
    pub harmed: Budget,
    /// Faults that may be injected in all.
    pub max_faulted: Option<u64>,
    /// How long a request may wait for its answer where the slice is chosen.
    pub patience: Duration,
    /// The listeners where the slice is chosen and the fault waits.
    pub places: (usize, usize),
}

impl Trial {
    /// A run that is not enrolled yet, and what its recorders will say.
    pub fn new(experiment: Arc<Experiment>, terms: Terms) -> (Arc<Self>, UnboundedReceiver<Batch>) {
        let (feed, batches) = unbounded_channel();
        let Slice { treatment, control, .. } = &experiment.slice;
        let (now, phases) = (Instant::now(), experiment.compares_phases());
        let (chance, token) = (Chance::new(terms.seed, &experiment.name), rand::random());
        let trial = Self {
            keys: chance.purpose("arm"),
            ids: chance.purpose("id"),
            chance,
            token,
            members: Members::of(token),
            run: terms.run,
            slice_at: terms.places.0,
            inject_at: terms.places.1,
            limits: terms.limits,
            attempts: Mutex::default(),
            memory: Memory::new(terms.patience),
            budget: FaultBudget::of(&experiment, terms.max_faulted),
            met: Default::default(),
            held: AtomicU64::new(0),
            rules: terms.rules.into(),
            joined: key::joined(&experiment).filter(|_| terms.places.0 == terms.places.1 || phases),
            only_own: experiment.traffic.as_ref().is_some_and(|traffic| traffic.only_own && traffic.command.is_none()),
            everywhere: AtomicBool::new(false),
            operations: experiment.operations().map(|(by, _)| by.clone()),
            phases,
            epoch: now,
            treatment: AtomicU64::new(treatment.first().map_or(0.0, |share| share.ratio()).to_bits()),
            control: control.ratio(),
            phase: AtomicU64::new(Phase::Baseline as u64),
            injecting: ArcSwapOption::empty(),
            failed: AtomicBool::new(false),
            harmed: Arc::new(terms.harmed),
            feed,
            experiment,
        };
        (Arc::new(trial), batches)
    }

    /// The value of the baggage field that marks a request of our own load.
    pub fn own_mark(&self, index: u64, intended: Instant) -> String {
        let intended = intended.saturating_duration_since(self.epoch).as_micros() as u64;
        Mark::Own { token: self.token, index, intended }.member()
    }

    /// Begins a phase, and says when it began.
    pub fn begin(&self, phase: Phase) -> PhaseMark {
        let since = Instant::now().saturating_duration_since(self.epoch);
        self.phase.store((since.as_nanos() as u64) << 2 | phase as u64, Ordering::Relaxed);
        self.phase()
    }

    /// Which phase it is.
    pub(super) fn phase(&self) -> PhaseMark {
        let both = self.phase.load(Ordering::Relaxed);
        let since = self.epoch + Duration::from_nanos(both >> 2);
        PhaseMark { phase: Phase::ALL[(both & 3) as usize], since }
    }

    /// Has calls looked for at every listener, as a rehearsal does.
    pub fn look_everywhere(&self) {
        self.everywhere.store(true, Ordering::Relaxed);
    }

    pub(super) fn looks_everywhere(&self) -> bool {
        self.everywhere.load(Ordering::Relaxed)
    }

    /// Changes the treatment's share: the next step of a ramp.
    pub fn treat(&self, share: f64) {
        self.treatment.store(share.to_bits(), Ordering::Relaxed);
    }

    /// The failure budget.
    pub fn harmed(&self) -> &Budget {
        &self.harmed
    }

    /// The failure budget, for whoever else spends it.
    pub fn budget(&self) -> Arc<Budget> {
        self.harmed.clone()
    }

    /// Requests that are held at this moment.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether the run's own code panicked. The traffic goes on without it; the run is good for nothing any more.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Does a run's own work on a request, and fails open: what panics ends the run, not the request.
    pub(super) fn guarded<T>(&self, work: impl FnOnce() -> Option<T>) -> Option<T> {
        if self.failed() {
            return None;
        }
        std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
            self.fail();
            None
        })
    }

    /// Something of ours panicked: the fault goes, and the run touches nobody any more.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
        if let Some(on) = self.injecting.swap(None) {
            on.end(self.held());
        }
        tracing::error!(run = self.run, "the run's own code panicked: it touches no request any more");
    }

    /// Whether the fault is on at this moment.
    pub fn is_injecting(&self) -> bool {
        self.injecting.load().is_some()
    }

    /// Counts a call or a connection that meets faults of these kinds, each once.
    pub(super) fn meets(&self, kinds: impl Iterator<Item = &'static str>) {
        let mut seen = 0u32;
        for index in kinds.filter_map(|kind| Fault::KINDS.iter().position(|known| *known == kind)) {
            if seen & (1 << index) == 0 {
                seen |= 1 << index;
                self.met[index].fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// How many calls and connections have met each kind of fault that any has met.
    pub fn met(&self) -> Vec<(&'static str, u64)> {
        let met = self.met.iter().map(|count| count.load(Ordering::Relaxed));
        Fault::KINDS.into_iter().zip(met).filter(|(_, count)| *count > 0).collect()
    }

    /// Whether a request at a listener looks like a health probe and is not named by what the experiment asks for there.
    pub(super) fn spares_probe(&self, place: usize, request: &Request<Body>) -> bool {
        let Experiment { slice, inject, .. } = &*self.experiment;
        health::is_probe(request)
            && !((place == self.slice_at || self.phases) && slice.matches.names(request))
            && !(place == self.inject_at && inject.matches.names(request))
    }

    pub(super) fn recorder(&self, worker: usize) -> Rc<Recorder> {
        let sticky = self.experiment.slice.by.is_sticky() && !self.phases;
        let (keep, indicators) = match self.operations {
            // Whether somebody came to harm, only the whole operation tells.
            Some(_) => (Keep::Operations, 0),
            None if sticky => (Keep::People, self.experiment.steady_state.len()),
            None => (Keep::Nothing, self.experiment.steady_state.len()),
        };
        Recorder::new(worker, self.rules.clone(), indicators, keep, self.harmed.clone(), self.feed.clone())
    }

    /// Whether the fault waits where the slice is chosen.
    pub(super) fn has_one_place(&self) -> bool {
        self.inject_at == self.slice_at
    }

    /// Whether calls are drawn where the fault waits, and phases are compared.
    pub(super) fn compares_phases(&self) -> bool {
        self.phases
    }

    /// Counts a request as held, for as long as the guard lives.
    pub(super) fn hold(self: &Arc<Self>) -> Held {
        self.held.fetch_add(1, Ordering::Relaxed);
        Held(self.clone())
    }

    /// The hash of a key: its arm is read from it, and its operations are numbered by it.
    pub(super) fn key(&self, key: &[u8]) -> u64 {
        self.keys.bits(key)
    }

    /// The arm of a key, by its hash.
    pub(super) fn arm(&self, key: u64) -> Arm {
        let mut treatment = f64::from_bits(self.treatment.load(Ordering::Relaxed));
        // Calls of own load cannot be told where phases are compared: everybody's are drawn. A rehearsal injects nothing.
        let own = self.only_own && !self.phases;
        if let Some(most) = self.limits.max_slice.filter(|_| !own && !self.looks_everywhere()) {
            treatment = treatment.min(most.ratio());
        }
        Arm::of(chance::unit(key), treatment, self.control)
    }

    /// The hash of an id; that of a trace is a key's, which mostly it is.
    pub(super) fn id(&self, id: &Id<'_>) -> u64 {
        match id.space {
            Space::Trace => self.key(id.text),
            Space::Request => self.ids.bits(id.text),
        }
    }
}

/// A request that is held, in the count of those.
#[derive(Debug)]
pub(super) struct Held(Arc<Trial>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All listeners that a run is known to; a reload adds to them.
pub(super) type Everywhere = Arc<Mutex<Vec<Arc<Listener>>>>;

pub(super) fn lock(everywhere: &Everywhere) -> MutexGuard<'_, Vec<Arc<Listener>>> {
    everywhere.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Both arms are recorded. Dropping it ends the run in the data plane, whatever the reason.
#[derive(Debug)]
pub struct Enrolled {
    listeners: Everywhere,
    trial: Arc<Trial>,
}

impl Enrolled {
    /// Makes a run known to some listeners.
    pub fn new(listeners: &[Arc<Listener>], trial: Arc<Trial>) -> Self {
        Self::everywhere(&Arc::new(Mutex::new(listeners.to_vec())), trial)
    }

    /// Makes a run known to all listeners that are there, and takes it from all that are there at its end.
    pub(super) fn everywhere(listeners: &Everywhere, trial: Arc<Trial>) -> Self {
        for listener in lock(listeners).iter() {
            listener.trials.rcu(|trials| {
                let mut trials = Vec::clone(trials);
                trials.push(trial.clone());
                trials
            });
            listener.live.fetch_add(1, Ordering::Release);
        }
        Self { listeners: listeners.clone(), trial }
    }

    /// Turns the fault on; what the limits do not allow stays out, whoever asked for it.
    pub fn inject(&self) -> Injection {
        let (stop, release) = (CancellationToken::new(), Release::default());
        let (experiment, limits) = (&self.trial.experiment, &self.trial.limits);
        let allowed = |fault: &&Fault| limits.faults.iter().any(|kind| kind == fault.kind());
        let begun = |fault: &Fault| fault.clone().begun(&limits.duplicate_methods);
        let faults: Vec<Fault> = experiment.inject.faults.iter().filter(allowed).map(begun).collect();
        let on = (!faults.is_empty()).then(|| Arc::new(Injecting::new(faults, stop.clone(), release.clone())));
        self.trial.injecting.store(on);
        Injection { trial: self.trial.clone(), stop, release }
    }
}

impl Drop for Enrolled {
    fn drop(&mut self) {
        for listener in lock(&self.listeners).iter() {
            listener.trials.rcu(|trials| {
                trials.iter().filter(|trial| !Arc::ptr_eq(trial, &self.trial)).cloned().collect::<Vec<_>>()
            });
            listener.live.fetch_sub(1, Ordering::Release);
        }
    }
}

/// The fault is on. Dropping it turns it off and lets go whoever is held.
#[derive(Debug)]
pub struct Injection {
    trial: Arc<Trial>,
    stop: CancellationToken,
    release: Release,
}

impl Injection {
    /// No new fault starts; whoever is held stays held until this is dropped.
    pub fn close(&self) {
        self.trial.injecting.store(None);
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        self.close();
        self.release.prepare(self.trial.held());
        self.stop.cancel();
    }
}
