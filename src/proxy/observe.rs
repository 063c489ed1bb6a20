//! Watches an answer to its last byte, so that its unit is settled with what really happened.

use http::{HeaderMap, HeaderName, Response, Version};

use crate::measure::{End, Unit};
use crate::service::{Body, Error, Origin, Watch};

/// Settles a unit by what became of its request: at once where there is no answer or all of it is there, at the end of its
/// body otherwise.
pub(super) fn unit(mut unit: Unit, result: Result<&mut Response<Body>, &Error>, caller: Version) {
    match result {
        Ok(response) => {
            let (status, grpc) = (response.status().as_u16(), grpc_status(response.headers()));
            let body = response.body_mut();
            // What came with its head leaves with it; on HTTP/2 not before the caller has room for it.
            if http_body::Body::is_end_stream(body) || (caller < Version::HTTP_2 && body.is_at_hand()) {
                unit.whole(status, grpc);
            } else {
                unit.head(status, grpc);
                body.watch(Observed(Some(unit)));
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
