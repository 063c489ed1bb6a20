//! Where the requests of a rehearsal are seen again: one line for each call at each listener.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// A call at a listener.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    /// The listener, by its place.
    pub listener: usize,
    /// When it came.
    pub arrived: Instant,
    /// When the head of its answer went back, or its caller left.
    pub left: Instant,
    /// The enrolled request that it belongs to, by our own mark.
    pub op: Option<u128>,
    /// The trace that it belongs to: what says so, and which, as a hash.
    pub trace: Option<(Carrier, u64)>,
    /// Method, path and query as a hash: the same again is another attempt.
    pub call: u64,
}

/// What tells which request a call belongs to.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Carrier {
    /// Our member of the W3C baggage.
    Baggage,
    /// The trace id of `traceparent`.
    Traceparent,
    /// The trace id of `b3`, or of `x-b3-traceid`.
    B3,
    /// The field `x-request-id`.
    RequestId,
}

impl Carrier {
    /// The word for it on screens.
    pub fn word(self) -> &'static str {
        match self {
            Self::Baggage => "baggage",
            Self::Traceparent => "traceparent",
            Self::B3 => "b3",
            Self::RequestId => "x-request-id",
        }
    }
}

/// Sightings that are kept, at most: 25 MiB. Later ones are nobody's.
pub(super) const MOST: usize = 250_000;
