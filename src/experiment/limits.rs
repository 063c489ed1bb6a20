//! What may be injected, and how far.

/// Limits of a system.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest treatment.
    pub max_slice: crate::units::Percent,
    /// The longest inject phase.
    pub max_duration: crate::units::Span,
}

impl Limits {
    /// Whether a route must never be touched.
    pub fn protects(&self, _listener: &str, _path: &str) -> bool {
        false
    }

    /// Whether a fault is armed.
    pub fn allows(&self, _kind: &str) -> bool {
        true
    }

    /// Whether it is the time.
    pub fn allows_now(&self, _now: jiff::Timestamp) -> bool {
        true
    }

    /// How many requests may be held at one time.
    pub fn max_held(&self) -> u64 {
        1000
    }
}
