//! Where the requests of a rehearsal are seen again: one line for each call at each listener.

use tokio::time::Instant;

use super::{Arm, Note};

/// A call at a listener.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    /// The listener, by its place.
    pub listener: usize,
    /// When it came.
    pub arrived: Instant,
    /// When the head of its answer went back, or its caller left.
    pub left: Instant,
    /// The enrolled request that it belongs to, with its arm: by our own mark, or because it is that request.
    pub of: Option<(Arm, u128)>,
    /// The ids that it has, those first that carry the arm.
    pub ids: [Option<Shown>; 4],
    /// Method, path and query as a hash: the same again is another attempt.
    pub call: u64,
}

/// An id that a call has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shown {
    /// What says it.
    pub by: Note,
    /// The id as a hash.
    pub id: u64,
    /// Whether it carries the arm, as the experiment is written.
    pub carries: bool,
}

/// Sightings that are kept, at most: 50 MiB. Later ones are nobody's.
pub(super) const MOST: usize = 250_000;

const _: () = assert!(MOST * size_of::<Sighting>() <= 50 << 20);
