//! Where a request of a rehearsal is seen: from its arrival at a listener to the head of its answer.

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, Request};
use tokio::time::Instant;

use super::context;
use super::pass::Here;
use super::trial::Trial;
use crate::measure::{Carrier, Recorder, Sighting};

/// A call that is at a listener. Dropping it writes down that it was.
pub(super) struct Sight {
    recorder: Rc<Recorder>,
    sighting: Sighting,
}

impl Sight {
    /// A call that came now. `op` is the enrolled request that it says it belongs to.
    pub(super) fn new<B>(here: &Here<'_>, trial: &Arc<Trial>, op: Option<u128>, request: &Request<B>) -> Self {
        let target = request.uri().path_and_query().map_or("", |target| target.as_str());
        let call = trial.chance.bits("call", format!("{} {target}", request.method()).as_bytes());
        let trace = trace(request.headers()).map(|(carrier, id)| (carrier, trial.chance.bits("trace", id)));
        let now = Instant::now();
        let sighting = Sighting { listener: here.listener, arrived: now, left: now, op, trace, call };
        Self { recorder: here.worker.recorder(trial), sighting }
    }
}

impl Drop for Sight {
    fn drop(&mut self) {
        self.sighting.left = Instant::now();
        self.recorder.sight(self.sighting);
    }
}

/// The trace that a request belongs to, with what says so.
fn trace(headers: &HeaderMap) -> Option<(Carrier, &[u8])> {
    let id = context::trace(headers)?;
    let says = |name: &str| {
        headers.get(name).is_some_and(|value| value.as_bytes().windows(id.len()).any(|window| window == id))
    };
    let carrier = if says("traceparent") {
        Carrier::Traceparent
    } else if says("b3") || says("x-b3-traceid") {
        Carrier::B3
    } else {
        Carrier::RequestId
    };
    Some((carrier, id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_trace_is_known_by_the_field_that_says_it() {
        let mut headers = HeaderMap::new();
        let mut with = |name: &'static str, value: &'static str| {
            headers.insert(name, HeaderValue::from_static(value));
            trace(&headers).map(|(carrier, _)| carrier)
        };
        assert_eq!(with("x-other", "1"), None);
        assert_eq!(with("x-request-id", "r1"), Some(Carrier::RequestId));
        assert_eq!(with("x-b3-traceid", "80f198ee56343ba8"), Some(Carrier::B3));
        let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(with("traceparent", traceparent), Some(Carrier::Traceparent));
    }
}
