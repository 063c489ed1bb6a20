//! The hinge between lab and traffic: who is enrolled, and who meets the fault.
//!
//! Being enrolled and injecting are values. Whatever the way out of a run, dropping them ends it: no fault stays on,
//! and whoever is held is let go.

use std::future::Future;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use http::{Request, Response};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::budget::FaultBudget;
use super::carry::{self, Memory, Told};
use super::compare;
use super::config::ListenerConfig;
use super::context::{self, Mark};
use super::injecting::Injecting;
use super::key;
use super::listen::Listener;
use super::meet::{Attempts, meet};
use super::observe;
use super::sight::Sight;
use super::wire::Socket;
use super::worker::Worker;
use crate::chance::Chance;
use crate::experiment::limits::Limits;
use crate::experiment::{By, Experiment, Slice, health};
use crate::fault::{Fault, Release};
use crate::measure::{Arm, Arrival, Batch, Budget, Keep, Note, Phase, PhaseMark, Recorder, Rule, Unit};
use crate::service::{Body, Error};
use crate::units::Seed;

/// What comes after us on a request's way: the upstream.
pub type Next = Rc<dyn Fn(Request<Body>) -> Pin<Box<dyn Future<Output = Result<Response<Body>, Error>>>>>;

/// One run, as the data plane sees it.
#[derive(Debug)]
pub struct Trial {
    /// The run's id: callers see it on answers that a fault made.
    pub run: String,
    /// What marks the run's own requests; nobody outside can guess it.
    pub token: u64,
    pub(super) chance: Chance,
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
    operations: Option<By>,
    pub(super) only_own: bool,
    /// Whether calls are looked for at every listener, as a rehearsal does.
    everywhere: AtomicBool,
    /// Phases are compared, not arms.
    phases: bool,
    pub(super) epoch: Instant,
    treatment: AtomicU64,
    control: f64,
    pub(super) phase: ArcSwap<PhaseMark>,
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
        let trial = Self {
            chance: Chance::new(terms.seed, &experiment.name),
            token: rand::random(),
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
            phase: ArcSwap::from_pointee(PhaseMark { phase: Phase::Baseline, since: now }),
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
        let mark = PhaseMark { phase, since: Instant::now() };
        self.phase.store(Arc::new(mark));
        mark
    }

    /// Has calls looked for at every listener, as a rehearsal does.
    pub fn look_everywhere(&self) {
        self.everywhere.store(true, Ordering::Relaxed);
    }

    fn looks_everywhere(&self) -> bool {
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
            && !(place == self.slice_at && slice.matches.names(request))
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

    /// Counts a request as held, for as long as the guard lives.
    pub(super) fn hold(self: &Arc<Self>) -> Held {
        self.held.fetch_add(1, Ordering::Relaxed);
        Held(self.clone())
    }

    pub(super) fn arm(&self, key: &[u8]) -> Arm {
        let mut treatment = f64::from_bits(self.treatment.load(Ordering::Relaxed));
        if let Some(most) = self.limits.max_slice.filter(|_| !self.only_own) {
            treatment = treatment.min(most.ratio());
        }
        Arm::of(self.chance.draw("arm", key), treatment, self.control)
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

/// Where a request is.
pub struct Here<'a> {
    /// The worker that has it.
    pub worker: &'a Rc<Worker>,
    /// The place of the listener it came to.
    pub listener: usize,
    /// What this listener was told.
    pub config: &'a ListenerConfig,
    /// Who sent it.
    pub caller: IpAddr,
    /// Where they wait for the answer; nowhere in simulations.
    pub socket: Option<&'a Socket>,
    /// The runs that are live.
    pub trials: &'a [Arc<Trial>],
}

impl std::fmt::Debug for Here<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Here").field("listener", &self.config.name).finish_non_exhaustive()
    }
}

/// Takes a request through the runs that are live: enrolled where a slice is, faulted where a fault waits.
pub async fn pass(here: &Here<'_>, mut request: Request<Body>, next: Next) -> Result<Response<Body>, Error> {
    let index = here.listener;
    let mark = context::read(request.headers());
    let _seen = seen(here, mark, &request);
    if let Some(trial) = here.trials.iter().find(|trial| trial.slice_at == index) {
        return enter(here, trial, mark, request, next).await;
    }
    if let Some(trial) = here.trials.iter().find(|trial| trial.inject_at == index) {
        return arrive(here, trial, mark, request, next).await;
    }
    if !here.config.trust_baggage || here.config.external {
        context::strip(request.headers_mut());
    }
    next(request).await
}

/// Writes down that a call was here, where a rehearsal looks for it. Where the fault waits, others than those it is for are
/// none of its business.
fn seen(here: &Here<'_>, mark: Option<Mark>, request: &Request<Body>) -> Option<Sight> {
    let index = here.listener;
    let trial = here.trials.iter().find(|trial| trial.looks_everywhere() && trial.slice_at != index)?;
    trial.guarded(|| {
        let meant = trial.inject_at != index || trial.experiment.inject.matches.matches(request, Some(here.caller));
        let op = match mark {
            Some(Mark::Arm { token, op, .. }) if token == trial.token => Some(op),
            _ => None,
        };
        meant.then(|| Sight::new(here, trial, op, request))
    })
}

/// A request that takes part.
pub(super) struct Part {
    pub(super) arm: Arm,
    pub(super) op: u128,
    pub(super) recorder: Rc<Recorder>,
    pub(super) unit: Unit,
}

/// At the slice: chooses the arm, marks the request, and watches what becomes of it.
async fn enter(
    here: &Here<'_>,
    trial: &Arc<Trial>,
    mark: Option<Mark>,
    mut request: Request<Body>,
    next: Next,
) -> Result<Response<Body>, Error> {
    // Who carries nothing may stand between the two listeners of another run.
    if carry::writes(&trial.experiment.slice.carry) || !here.config.trust_baggage || here.config.external {
        context::strip(request.headers_mut());
    }
    let Some(part) = trial.guarded(|| choose(here, trial, mark, &mut request)) else { return next(request).await };
    let Part { arm, op, recorder, unit } = part;
    let _seen = trial.looks_everywhere().then(|| Sight::new(here, trial, Some(op), &request));
    let result = if trial.inject_at == trial.slice_at && arm != Arm::Bystander {
        meet(here, trial, &recorder, arm, op, request, next).await
    } else {
        next(request).await
    };
    observe::unit(unit, result)
}

fn choose(here: &Here<'_>, trial: &Arc<Trial>, mark: Option<Mark>, request: &mut Request<Body>) -> Option<Part> {
    let slice = &trial.experiment.slice;
    let own = match mark {
        Some(Mark::Own { token, index, intended }) if token == trial.token => Some((index, intended)),
        _ => None,
    };
    if trial.only_own && own.is_none() {
        return None;
    }
    if trial.phases {
        return compare::measured(here, trial, own.map(|(_, intended)| Duration::from_micros(intended)));
    }
    if !slice.matches.matches(request, Some(here.caller)) {
        return None;
    }
    let recorder = here.worker.recorder(trial);
    if trial.limits.protects(&slice.at, request.uri().path()) {
        recorder.note(Note::Protected);
        return None;
    }
    // What the run itself sends is named by its document.
    if own.is_none() && trial.spares_probe(here.listener, request) {
        recorder.note(Note::SparedProbe);
        return None;
    }
    let number = here.worker.next_operation();
    let own_index = own.map(|(index, _)| index);
    let Some(drawn) = key::of(&slice.by, here, request, own_index, number) else {
        recorder.note(Note::Unkeyed);
        return None;
    };
    let operation = match &trial.operations {
        None => None,
        Some(by) => match key::of(by, here, request, own_index, number) {
            Some(key) => Some(trial.chance.bits("key", &key)),
            None => {
                recorder.note(Note::Unkeyed);
                return None;
            }
        },
    };
    let phase = **trial.phase.load();
    let arm = trial.arm(&drawn);
    let joined = trial.joined.as_ref().and_then(|by| key::of(by, here, request, own_index, number));
    let key = trial.chance.bits("key", &drawn);
    let op = key::number(here, trial, key, joined, number, phase.phase);
    if let Err(why) = carry::send(trial, request.headers_mut(), (arm, op), &drawn, here.config.external) {
        recorder.note(why);
        return None;
    }
    let start = own.map_or_else(Instant::now, |(_, intended)| trial.epoch + Duration::from_micros(intended));
    let patience = here.config.timeouts.response.get();
    let key = operation.unwrap_or(key);
    let unit = recorder.begin(Arrival { arm, mark: phase, start, patience, key, op });
    Some(Part { arm, op, recorder, unit })
}

/// Where the fault is: only who carries this run's mark of the treatment can meet it.
async fn arrive(
    here: &Here<'_>,
    trial: &Arc<Trial>,
    mark: Option<Mark>,
    mut request: Request<Body>,
    next: Next,
) -> Result<Response<Body>, Error> {
    if here.config.external {
        context::strip(request.headers_mut());
    }
    let carried = trial.guarded(|| {
        if trial.phases {
            return compare::drawn(here, trial, &request);
        }
        let recorder = here.worker.recorder(trial);
        match carry::receive(trial, request.headers(), mark) {
            Told::By(carrier, arm, op) => {
                recorder.note(carrier);
                recorder.note(if arm == Arm::Treatment { Note::CarriedTreatment } else { Note::CarriedControl });
                return Some((recorder, arm, op));
            }
            told if trial.experiment.inject.matches.matches(&request, Some(here.caller)) => {
                recorder.note(if told == Told::Ambiguous { Note::Ambiguous } else { Note::Uncarried });
            }
            _ => {}
        }
        None
    });
    match carried {
        Some((recorder, arm, op)) => meet(here, trial, &recorder, arm, op, request, next).await,
        None => next(request).await,
    }
}
