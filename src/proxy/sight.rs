//! Where a request of a rehearsal is seen: from its arrival at a listener to the head of its answer.

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, Request};
use tokio::time::Instant;

use super::brought::Brought;
use super::pass::Here;
use super::trial::Trial;
use crate::experiment::Carry;
use crate::measure::{Arm, Recorder, Shown, Sighting};

/// A call that is at a listener. Dropping it writes down that it was.
pub(super) struct Sight {
    recorder: Rc<Recorder>,
    sighting: Sighting,
}

impl Sight {
    /// A call that came now. `of` is the enrolled request that it is known to belong to without any id.
    pub(super) fn new<B>(here: &Here<'_>, trial: &Arc<Trial>, of: Option<(Arm, u128)>, request: &Request<B>) -> Self {
        let target = request.uri().path_and_query().map_or("", |target| target.as_str());
        let call = trial.chance.bits("call", format!("{} {target}", request.method()).as_bytes());
        let ids = ids(trial, request.headers());
        let now = Instant::now();
        let sighting = Sighting { listener: here.listener, arrived: now, left: now, of, ids, call };
        Self { recorder: here.worker.recorder(trial), sighting }
    }
}

impl Drop for Sight {
    fn drop(&mut self) {
        self.sighting.left = Instant::now();
        self.recorder.sight(self.sighting);
    }
}

/// What a run would ask for, and then what else there is: it may show another way to carry the arm.
fn ids(trial: &Trial, headers: &HeaderMap) -> [Option<Shown>; 4] {
    let (mut shown, brought) = ([None; 4], Brought::of(headers));
    let (asked, all) = (&trial.experiment.slice.carry, &Carry::Auto);
    for (carry, carries) in [(asked, true), (all, false)] {
        for id in brought.ids(carry).into_iter().flatten() {
            let (by, id) = (id.by, trial.id(&id));
            let known = |shown: &Option<Shown>| shown.is_some_and(|shown| shown.id == id);
            if !shown.iter().any(known)
                && let Some(free) = shown.iter_mut().find(|shown| shown.is_none())
            {
                *free = Some(Shown { by, id, carries });
            }
        }
    }
    shown
}
