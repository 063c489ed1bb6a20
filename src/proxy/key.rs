//! The keys of a request: what its arm is drawn from, what joins it with others, and the number of its operation.

use http::Request;

use super::context;
use super::pass::Here;
use super::trial::Trial;
use super::worker::Worker;
use crate::experiment::{By, Experiment};
use crate::measure::Phase;
use crate::service::Body;

/// What is drawn for a request. Own load always has a key: its index.
pub(super) fn of(by: &By, here: &Here<'_>, request: &Request<Body>, own: Option<u64>, number: u32) -> Option<Vec<u8>> {
    let itself = || own.map_or_else(|| nobodys(here.worker, number), u64::to_be_bytes).to_vec();
    let written = context::key(by, request.headers(), here.caller);
    match by {
        By::Request | By::Trace => Some(written.unwrap_or_else(itself)),
        _ => written.or_else(|| own.map(|index| index.to_be_bytes().to_vec())),
    }
}

/// The key of what stands for itself and says nothing.
pub(super) fn alone(worker: &Worker) -> [u8; 8] {
    nobodys(worker, worker.next_operation())
}

fn nobodys(worker: &Worker, number: u32) -> [u8; 8] {
    ((worker.index as u64) << 32 | u64::from(number)).to_be_bytes()
}

/// What joins the attempts of an operation: what the experiment says, else the slice's key. Somebody's key (a user, an
/// address) joins only where attempts are asked for: doing the same twice is not trying again.
pub(super) fn joined(experiment: &Experiment) -> Option<By> {
    let written = experiment.operations().map(|(by, _)| by.clone());
    let by = &experiment.slice.by;
    written.or_else(|| (!by.is_sticky() || experiment.inject.attempts.is_some()).then(|| by.clone()))
}

/// The hash of what joins an operation with others, if anything does. `key` is that of what was drawn: mostly it is the same.
pub(super) fn join(
    trial: &Trial,
    key: u64,
    here: &Here<'_>,
    request: &Request<Body>,
    own: Option<u64>,
    number: u32,
) -> Option<u64> {
    let by = trial.joined.as_ref()?;
    if *by == trial.experiment.slice.by {
        return Some(key);
    }
    of(by, here, request, own, number).map(|joined| trial.chance.bits("key", &joined))
}

/// The number of an operation, by the hash of its key and of what joins it with others.
pub(super) fn number(here: &Here<'_>, key: u64, joined: Option<u64>, number: u32, phase: Phase) -> u128 {
    match joined {
        // The same key again is another attempt of the same operation.
        Some(joined) => u128::from(joined) << 64 | phase as u128,
        // The key's hash, a number that is new, the worker and the phase: the same key draws the same, no two are one.
        None => {
            u128::from(key) << 64 | (here.worker.index as u128 & 0xff) << 40 | u128::from(number) << 8 | phase as u128
        }
    }
}
