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
use super::config::ListenerConfig;
use super::context::{self, Mark};
use super::injecting::Injecting;
use super::listen::Listener;
use super::meet::{Attempts, meet};
use super::observe;
use super::wire::Socket;
use super::worker::Worker;
use crate::chance::Chance;
use crate::experiment::limits::Limits;
use crate::experiment::{By, Experiment, Measure, Slice, health};
use crate::fault::{Fault, Release};
use crate::measure::{Arm, Arrival, Batch, Budget, Note, Phase, PhaseMark, Recorder, Rule, Unit};
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
    /// Faults that may still be injected.
    pub(super) budget: FaultBudget,
    /// Calls and connections that met a fault, by its kind.
    met: [AtomicU64; Fault::KINDS.len()],
    /// Requests held at this moment.
    pub(super) held: AtomicU64,
    rules: Arc<[Rule]>,
    /// What joins the attempts of an operation where slice and fault share a listener; else each request is one.
    joined: Option<By>,
    pub(super) only_own: bool,
    epoch: Instant,
    treatment: AtomicU64,
    control: f64,
    phase: ArcSwap<PhaseMark>,
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
    /// The listeners where the slice is chosen and the fault waits.
    pub places: (usize, usize),
}

impl Trial {
    /// A run that is not enrolled yet, and what its recorders will say.
    pub fn new(experiment: Arc<Experiment>, terms: Terms) -> (Arc<Self>, UnboundedReceiver<Batch>) {
        let (feed, batches) = unbounded_channel();
        let Slice { treatment, control, .. } = &experiment.slice;
        let now = Instant::now();
        let trial = Self {
            chance: Chance::new(terms.seed, &experiment.name),
            token: rand::random(),
            run: terms.run,
            slice_at: terms.places.0,
            inject_at: terms.places.1,
            limits: terms.limits,
            attempts: Mutex::default(),
            budget: FaultBudget::of(&experiment, terms.max_faulted),
            met: Default::default(),
            held: AtomicU64::new(0),
            rules: terms.rules.into(),
            joined: joined(&experiment).filter(|_| terms.places.0 == terms.places.1),
            only_own: experiment.traffic.as_ref().is_some_and(|traffic| traffic.only_own && traffic.command.is_none()),
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

    /// Changes the treatment's share: the next step of a ramp.
    pub fn treat(&self, share: f64) {
        self.treatment.store(share.to_bits(), Ordering::Relaxed);
    }

    /// The failure budget.
    pub fn harmed(&self) -> &Budget {
        &self.harmed
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
        let sticky = self.experiment.slice.by.is_sticky();
        let indicators = self.experiment.steady_state.len();
        Recorder::new(worker, self.rules.clone(), indicators, sticky, self.harmed.clone(), self.feed.clone())
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
        let faults: Vec<Fault> = experiment.inject.faults.iter().filter(allowed).cloned().collect();
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

/// A request that takes part.
struct Part {
    arm: Arm,
    op: u128,
    recorder: Rc<Recorder>,
    unit: Unit,
}

/// At the slice: chooses the arm, marks the request, and watches what becomes of it.
async fn enter(
    here: &Here<'_>,
    trial: &Arc<Trial>,
    mark: Option<Mark>,
    mut request: Request<Body>,
    next: Next,
) -> Result<Response<Body>, Error> {
    context::strip(request.headers_mut());
    let Some(part) = trial.guarded(|| choose(here, trial, mark, &mut request)) else { return next(request).await };
    let Part { arm, op, recorder, unit } = part;
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
    if (trial.only_own && own.is_none()) || !slice.matches.matches(request, Some(here.caller)) {
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
    let Some(key) = key(&slice.by, here, request, own_index, number) else {
        recorder.note(Note::Unkeyed);
        return None;
    };
    let phase = **trial.phase.load();
    let arm = trial.arm(&key);
    let joined = trial.joined.as_ref().and_then(|by| self::key(by, here, request, own_index, number));
    let key = trial.chance.bits("key", &key);
    let op = match joined {
        // The same key again is another attempt of the same operation.
        Some(joined) => u128::from(trial.chance.bits("key", &joined)) << 64 | phase.phase as u128,
        // The key's hash, a number that is new, the worker and the phase: the same key draws the same, no two are one.
        None => {
            u128::from(key) << 64
                | (here.worker.index as u128 & 0xff) << 40
                | u128::from(number) << 8
                | phase.phase as u128
        }
    };
    if arm != Arm::Bystander && !here.config.external {
        let mark = Mark::Arm { token: trial.token, arm, op };
        if !context::write(request.headers_mut(), &mark) {
            recorder.note(Note::NoRoom);
            return None;
        }
    }
    let start = own.map_or_else(Instant::now, |(_, intended)| trial.epoch + Duration::from_micros(intended));
    let patience = here.config.timeouts.response.get();
    let unit = recorder.begin(Arrival { arm, mark: phase, start, patience, key, op });
    Some(Part { arm, op, recorder, unit })
}

/// What joins the attempts of an operation: what the experiment says, else the slice's key. Somebody's key (a user, an
/// address) joins only where attempts are asked for: doing the same twice is not trying again.
fn joined(experiment: &Experiment) -> Option<By> {
    let written = experiment.steady_state.iter().find_map(|indicator| match &indicator.measure {
        Measure::FailedOperations { by, .. } => Some(by.clone()),
        _ => None,
    });
    let by = &experiment.slice.by;
    written.or_else(|| (!by.is_sticky() || experiment.inject.attempts.is_some()).then(|| by.clone()))
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
        let recorder = here.worker.recorder(trial);
        match mark {
            Some(Mark::Arm { token, arm, op }) if token == trial.token => {
                recorder.note(if arm == Arm::Treatment { Note::CarriedTreatment } else { Note::CarriedControl });
                return Some((recorder, arm, op));
            }
            _ if trial.experiment.inject.matches.matches(&request, Some(here.caller)) => recorder.note(Note::Uncarried),
            _ => {}
        }
        None
    });
    match carried {
        Some((recorder, arm, op)) => meet(here, trial, &recorder, arm, op, request, next).await,
        None => next(request).await,
    }
}

/// What is drawn for a request. Own load always has a key: its index.
fn key(by: &By, here: &Here<'_>, request: &Request<Body>, own: Option<u64>, number: u32) -> Option<Vec<u8>> {
    let headers = request.headers();
    let itself = || {
        let worker = here.worker.index as u64;
        own.unwrap_or_else(|| worker << 32 | u64::from(number)).to_be_bytes().to_vec()
    };
    let written = match by {
        By::Request => return Some(itself()),
        By::Trace => return Some(context::trace(headers).map_or_else(itself, <[u8]>::to_vec)),
        By::ClientIp => return Some(here.caller.to_string().into_bytes()),
        By::Header(name) => headers.get(name).map(|value| value.as_bytes().to_vec()),
        By::Cookie(name) => context::cookie(headers, name).map(<[u8]>::to_vec),
    };
    written.filter(|key| !key.is_empty()).or_else(|| own.map(|index| index.to_be_bytes().to_vec()))
}
