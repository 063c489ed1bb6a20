//! The way of a request through the runs that are live: enrolled where a slice is, and on to the fault where one waits.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, Version};
use tokio::time::Instant;

use super::brought::Brought;
use super::carry::{self, Told};
use super::compare;
use super::config::ListenerConfig;
use super::context::{self, Mark, Member};
use super::key;
use super::meet::{Meeting, meet};
use super::observe;
use super::sight::Sight;
use super::trial::Trial;
use super::wire::Socket;
use super::worker::Worker;
use crate::measure::{Arm, Arrival, Note, Recorder, Unit};
use crate::service::{Body, Error};

/// What comes after us on a request's way: the upstream.
pub type Next = Rc<dyn Fn(Request<Body>) -> Pin<Box<dyn Future<Output = Result<Response<Body>, Error>>>>>;

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

/// Takes a request through the runs that are live.
pub async fn pass(here: &Here<'_>, mut request: Request<Body>, next: Next) -> Result<Response<Body>, Error> {
    let (version, Way { meeting, watched, member }) = (request.version(), way(here, &mut request));
    Member::join(member.as_ref(), request.headers_mut());
    let mut result = match meeting {
        Some(meeting) => meet(here, meeting, request, next).await,
        None => next(request).await,
    };
    watched.settle(result.as_mut().map_err(|error| &*error), version);
    result
}

/// How a request goes on, now that the runs that are live have seen it.
#[derive(Default)]
pub(super) struct Way {
    /// The fault that it may meet.
    pub(super) meeting: Option<Meeting>,
    pub(super) watched: Watched,
    /// What goes up as its baggage, where that is not among its fields.
    pub(super) member: Option<Member>,
}

/// Who looks after a request until its answer is there.
#[derive(Default)]
pub(super) struct Watched {
    unit: Option<Unit>,
    /// Where rehearsals look: for each as a call, or as a request of its slice.
    _sights: Vec<Sight>,
}

impl Watched {
    /// Tells what became of it, for a caller that speaks this version.
    pub(super) fn settle(self, result: Result<&mut Response<Body>, &Error>, caller: Version) {
        if let Some(unit) = self.unit {
            observe::unit(unit, result, caller);
        }
    }
}

/// Enrolls a request where a slice is, and finds out whether it may meet a fault where one waits.
pub(super) fn way(here: &Here<'_>, request: &mut Request<Body>) -> Way {
    let index = here.listener;
    let mut baggage = context::is_there(request.headers());
    let mark = baggage.then(|| context::read(request.headers())).flatten();
    let mut sights = Vec::new();
    for trial in here.trials.iter().filter(|trial| trial.looks_everywhere()) {
        sights.extend(seen(here, trial, mark, request));
    }
    if let Some(trial) = here.trials.iter().find(|trial| trial.slice_at == index) {
        // Who carries nothing may stand between the two listeners of another run.
        let ours = carry::writes(&trial.experiment.slice.carry) || !here.config.trust_baggage || here.config.external;
        if baggage && ours {
            context::strip(request.headers_mut());
            baggage = context::is_there(request.headers());
        }
        return enter(here, trial, (mark, baggage), sights, request);
    }
    let watched = Watched { unit: None, _sights: sights };
    if let Some(trial) = here.trials.iter().find(|trial| trial.inject_at == index) {
        return Way { meeting: arrive(here, trial, mark, request), watched, member: None };
    }
    if baggage && (!here.config.trust_baggage || here.config.external) {
        context::strip(request.headers_mut());
    }
    Way { watched, ..Way::default() }
}

/// Writes down that a call was here, where a rehearsal looks for it. Where the fault waits, others than those it is for are
/// none of its business.
fn seen(here: &Here<'_>, trial: &Arc<Trial>, mark: Option<Mark>, request: &Request<Body>) -> Option<Sight> {
    let index = here.listener;
    if trial.slice_at == index {
        return None;
    }
    trial.guarded(|| {
        let meant = trial.inject_at != index || trial.experiment.inject.matches.matches(request, Some(here.caller));
        let of = match mark {
            Some(Mark::Arm { token, arm, op }) if token == trial.token => Some((arm, op)),
            _ => None,
        };
        meant.then(|| Sight::new(here, trial, of, request))
    })
}

/// A request that takes part.
pub(super) struct Part {
    pub(super) arm: Arm,
    pub(super) op: u128,
    pub(super) recorder: Rc<Recorder>,
    pub(super) unit: Unit,
    pub(super) member: Option<Member>,
}

/// At the slice: chooses the arm, marks the request, and has it watched.
fn enter(
    here: &Here<'_>,
    trial: &Arc<Trial>,
    brought: (Option<Mark>, bool),
    mut sights: Vec<Sight>,
    request: &mut Request<Body>,
) -> Way {
    let Some(part) = trial.guarded(|| choose(here, trial, brought, request)) else {
        return Way { watched: Watched { unit: None, _sights: sights }, ..Way::default() };
    };
    let Part { arm, op, recorder, unit, member } = part;
    if trial.looks_everywhere() {
        sights.push(Sight::new(here, trial, Some((arm, op)), request));
    }
    let meeting = trial.has_one_place().then(|| Meeting::of(trial, recorder, arm, op)).flatten();
    Way { meeting, watched: Watched { unit: Some(unit), _sights: sights }, member }
}

fn choose(
    here: &Here<'_>,
    trial: &Arc<Trial>,
    (mark, baggage): (Option<Mark>, bool),
    request: &mut Request<Body>,
) -> Option<Part> {
    let slice = &trial.experiment.slice;
    let own = match mark {
        Some(Mark::Own { token, index, intended }) if token == trial.token => Some((index, intended)),
        _ => None,
    };
    if trial.only_own && own.is_none() {
        return None;
    }
    if trial.compares_phases() {
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
    let brought = Brought::of(request.headers());
    let Some(drawn) = key::of(&slice.by, here, &brought, own_index, number) else {
        recorder.note(Note::Unkeyed);
        return None;
    };
    let operation = match &trial.operations {
        None => None,
        Some(by) => match key::of(by, here, &brought, own_index, number) {
            Some(key) => Some(trial.key(&key)),
            None => {
                recorder.note(Note::Unkeyed);
                return None;
            }
        },
    };
    let phase = trial.phase();
    let key = trial.key(&drawn);
    let arm = trial.arm(key);
    let joined = key::join(trial, key, here, &brought, own_index, number);
    let op = key::number(here, key, joined, number, phase.phase);
    let ids = carry::ids(trial, &brought, (&drawn, key));
    let now = Instant::now();
    let member = match carry::send(trial, request.headers_mut(), (arm, op), ids, (here.config.external, baggage), now) {
        Ok(member) => member,
        Err(why) => {
            recorder.note(why);
            return None;
        }
    };
    let start = own.map_or(now, |(_, intended)| trial.epoch + Duration::from_micros(intended));
    let patience = here.config.timeouts.response.get();
    let key = operation.unwrap_or(key);
    let unit = recorder.begin(Arrival { arm, mark: phase, now, start, patience, key, op });
    Some(Part { arm, op, recorder, unit, member })
}

/// Where the fault is: only who carries this run's mark of the treatment can meet it.
fn arrive(here: &Here<'_>, trial: &Arc<Trial>, mark: Option<Mark>, request: &mut Request<Body>) -> Option<Meeting> {
    if here.config.external {
        context::strip(request.headers_mut());
    }
    let (recorder, arm, op) = trial.guarded(|| {
        if trial.compares_phases() {
            return compare::drawn(here, trial, request);
        }
        let recorder = here.worker.recorder(trial);
        match carry::receive(trial, request.headers(), mark) {
            Told::By(carrier, arm, op) => {
                recorder.note(carrier);
                recorder.note(if arm == Arm::Treatment { Note::CarriedTreatment } else { Note::CarriedControl });
                return Some((recorder, arm, op));
            }
            told if trial.experiment.inject.matches.matches(request, Some(here.caller)) => {
                recorder.note(if told == Told::Ambiguous { Note::Ambiguous } else { Note::Uncarried });
            }
            _ => {}
        }
        None
    })?;
    Meeting::of(trial, recorder, arm, op)
}
