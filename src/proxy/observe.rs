//! Watches an answer to its last byte, so that its unit is settled with what really happened.

use http::{HeaderMap, HeaderName, Response};

use crate::measure::{End, Unit};
use crate::service::{Body, Error, Origin, Watch};

/// Settles a unit by what became of its request: at once where there is no answer, at the end of its body otherwise.
pub(super) fn unit(mut unit: Unit, result: Result<&mut Response<Body>, &Error>) {
    match result {
        Ok(response) => {
            unit.head(response.status().as_u16(), grpc_status(response.headers()));
            if http_body::Body::is_end_stream(response.body()) {
                unit.settle(End::Complete);
            } else {
                response.body_mut().watch(Observed(Some(unit)));
            }
        }
        Err(error) => unit.settle(end(error)),
    }
}

/// A unit whose answer is on its way. Dropped before the end, its caller gave up.
struct Observed(Option<Unit>);

impl Watch for Observed {
    fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some((code, unit)) = grpc_status(trailers).zip(self.0.as_mut()) {
            unit.grpc(code);
        }
    }

    fn end(&mut self, result: Result<(), &Error>) {
        if let Some(unit) = self.0.take() {
            unit.settle(result.map_or_else(end, |()| End::Complete));
        }
    }
}

fn end(error: &Error) -> End {
    match (error, error.origin()) {
        (Error::Timeout, _) => End::Timeout,
        (_, Origin::Caller) => End::GaveUp,
        _ => End::Transport,
    }
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// In one walk: of the few fields of an answer, to look at each costs less than to look one up.
fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    let (_, status) = headers.iter().find(|(name, _)| **name == GRPC_STATUS)?;
    status.to_str().ok()?.parse().ok()
}
