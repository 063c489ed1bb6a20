//! What may be injected, and how far.

/// Limits of a system.
#[derive(Clone, Debug, Default)]
pub struct Limits {}

impl Limits {
    /// Whether a route must never be touched.
    pub fn protects(&self, _listener: &str, _path: &str) -> bool {
        false
    }

    /// How many requests may be held at one time.
    pub fn max_held(&self) -> u64 {
        1000
    }
}
