//! Phases instead of arms (`carry: none`): everybody is measured where the indicators are, and the calls that meet the
//! fault are drawn where it waits. Nothing tells which call belongs to which request, and nothing is written.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use tokio::time::Instant;

use super::brought::Brought;
use super::key;
use super::pass::{Here, Part};
use super::trial::Trial;
use crate::measure::{Arm, Arrival, Note, Phase, Recorder};
use crate::service::Body;

/// Where the indicators are: whoever comes in inject lives with the fault, as the treatment does elsewhere.
pub(super) fn measured(here: &Here<'_>, trial: &Arc<Trial>, own: Option<Duration>) -> Option<Part> {
    let recorder = here.worker.recorder(trial);
    let phase = trial.phase();
    let now = Instant::now();
    let start = own.map_or(now, |intended| trial.epoch + intended);
    let patience = here.config.timeouts.response.get();
    let unit = recorder.begin(Arrival { arm: Arm::Treatment, mark: phase, now, start, patience, key: 0, op: 0 });
    Some(Part { arm: Arm::Bystander, op: 0, recorder, unit, member: None })
}

/// Where the fault waits: a call that was drawn, in inject.
pub(super) fn drawn(here: &Here<'_>, trial: &Arc<Trial>, request: &Request<Body>) -> Option<(Rc<Recorder>, Arm, u128)> {
    let slice = &trial.experiment.slice;
    if !slice.matches.matches(request, Some(here.caller)) {
        return None;
    }
    let recorder = here.worker.recorder(trial);
    let count = here.worker.next_operation();
    let brought = Brought::of(request.headers());
    let Some(drawn) = key::of(&slice.by, here, &brought, None, count) else {
        recorder.note(Note::Unkeyed);
        return None;
    };
    let phase = trial.phase().phase;
    let key = trial.key(&drawn);
    let treated = trial.arm(key) == Arm::Treatment;
    if phase == Phase::Inject && trial.experiment.inject.matches.matches(request, Some(here.caller)) {
        recorder.note(if treated { Note::CarriedTreatment } else { Note::CarriedControl });
    }
    let joined = key::join(trial, key, here, &brought, None, count);
    let op = key::number(here, key, joined, count, phase);
    treated.then_some((recorder, Arm::Treatment, op))
}
