//! What docs/faults.md tells of each kind of fault beside its keys, so that it stands where the fault does.

use super::{Fault, body, drop, duplicate, error, headers, latency, overload, throttle, tls};

/// What there is to know of one kind of fault.
#[derive(Clone, Copy, Debug)]
pub struct Sheet {
    /// As documents write it, the commonest first.
    pub examples: &'static [&'static str],
    /// What a caller of HTTP/1 sees.
    pub http1: &'static str,
    /// What a caller of HTTP/2 sees, where that is something else.
    pub http2: &'static str,
    /// What a caller by gRPC sees, where that is something else.
    pub grpc: &'static str,
}

impl Sheet {
    /// One of each kind, in the order of [`Fault::KINDS`].
    pub const ALL: [Self; Fault::KINDS.len()] = [
        latency::SHEET,
        error::SHEET,
        drop::SHEET,
        body::SHEET,
        headers::SHEET,
        throttle::SHEET,
        duplicate::SHEET,
        overload::SHEET,
        tls::SHEET,
    ];

    /// What is there, where nothing else is said.
    pub(super) const SAME: &'static str = "the same";
}
