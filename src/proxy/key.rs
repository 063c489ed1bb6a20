//! The keys of a request: what its arm is drawn from, what joins it with others, and the number of its operation.

use std::borrow::Cow;
use std::ops::Deref;

use super::brought::Brought;
use super::pass::Here;
use super::trial::Trial;
use super::worker::Worker;
use crate::experiment::{By, Experiment};
use crate::measure::Phase;

/// What is drawn.
pub(super) enum Key<'h> {
    /// What the request brought.
    Brought(Cow<'h, [u8]>),
    /// A number of its own.
    Own([u8; 8]),
}

impl Deref for Key<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Brought(key) => key,
            Self::Own(number) => number,
        }
    }
}

/// What is drawn for a request. Own load always has a key: its index.
pub(super) fn of<'h>(
    by: &By,
    here: &Here<'_>,
    brought: &Brought<'h>,
    own: Option<u64>,
    number: u32,
) -> Option<Key<'h>> {
    let itself = || match (by, own) {
        (_, Some(index)) => Some(index.to_be_bytes()),
        (By::Request | By::Trace, None) => Some(nobodys(here.worker, number)),
        _ => None,
    };
    brought.key(by, here.caller).map(Key::Brought).or_else(|| itself().map(Key::Own))
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
    brought: &Brought<'_>,
    own: Option<u64>,
    number: u32,
) -> Option<u64> {
    let by = trial.joined.as_ref()?;
    if *by == trial.experiment.slice.by {
        return Some(key);
    }
    of(by, here, brought, own, number).map(|joined| trial.key(&joined))
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
