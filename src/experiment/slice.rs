//! Who takes part: the same key falls into the same arm, on every worker and every proxy.

use super::matcher::Match;
pub use crate::measure::Arm;
use crate::units::{Percent, Span};

/// Who takes part, decided where the traffic enters.
#[derive(Clone, Debug)]
pub struct Slice {
    /// The listener where the arm is chosen.
    pub at: String,
    /// Which requests may be chosen.
    pub matches: Match,
    /// The treatment's share, one for each equal part of inject; a single one where there is no ramp.
    pub treatment: Vec<Percent>,
    /// The control's share, the same from baseline to recovery.
    pub control: Percent,
    /// What is drawn.
    pub by: By,
    /// How long a sticky unit is watched from its first request on.
    pub unit_window: Span,
    /// How the arm reaches the fault.
    pub carry: Carry,
}

impl Slice {
    /// The largest share that the treatment will reach.
    pub fn final_treatment(&self) -> Percent {
        self.treatment.last().copied().expect("a slice has at least one share")
    }
}

/// What is drawn: a key of the request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum By {
    /// The trace the request belongs to; the request itself where it belongs to none.
    Trace,
    /// Each request for itself.
    Request,
    /// The caller's address.
    ClientIp,
    /// A header, by its lower-case name.
    Header(http::HeaderName),
    /// A cookie.
    Cookie(String),
}

impl By {
    /// Whether many requests share a key, so that the unit is somebody, not a request.
    pub fn is_sticky(&self) -> bool {
        match self {
            Self::ClientIp | Self::Cookie(_) => true,
            // A request id is as unique as the request; other headers name somebody.
            Self::Header(name) => name != "x-request-id",
            Self::Trace | Self::Request => false,
        }
    }
}

/// How the arm reaches the fault.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Carry {
    /// Whatever arrives.
    Auto,
    /// The baggage member only.
    Baggage,
    /// The trace id of `traceparent`.
    Traceparent,
    /// The trace id of `b3`.
    B3,
    /// A header that the application passes on.
    Header(http::HeaderName),
    /// Nothing: phases are compared instead of arms.
    None,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;
    use crate::units::Seed;

    #[test]
    fn a_larger_slice_contains_the_smaller_and_arms_are_as_large_as_asked() {
        let chance = Chance::new(Seed(7), "nested");
        let (mut small, mut large, mut control) = (0, 0, 0);
        for key in 0u32..40_000 {
            let u = chance.draw("arm", &key.to_be_bytes());
            let five = Arm::of(u, 0.05, 0.05);
            let ten = Arm::of(u, 0.10, 0.05);
            assert!(five != Arm::Treatment || ten == Arm::Treatment, "{key} left the treatment when it grew");
            small += u32::from(five == Arm::Treatment);
            large += u32::from(ten == Arm::Treatment);
            control += u32::from(ten == Arm::Control);
        }
        // Three standard errors of a binomial with n = 40,000 are 131 at 5 % and 180 at 10 %.
        assert!(small.abs_diff(2000) < 131 && control.abs_diff(2000) < 131 && large.abs_diff(4000) < 180);
    }
}
