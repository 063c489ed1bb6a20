//! Who takes part: the same key falls into the same arm, on every worker and every proxy.

use std::fmt;
use std::str::FromStr;

use http::HeaderName;

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
    Header(HeaderName),
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

/// Why a word is not one of those that a key takes.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct WordError(pub String);

impl FromStr for By {
    type Err = WordError;
    fn from_str(text: &str) -> Result<Self, WordError> {
        Ok(match text.split_once(':') {
            None if text == "trace" => Self::Trace,
            None if text == "request" => Self::Request,
            None if text == "client-ip" => Self::ClientIp,
            Some(("header", name)) => Self::Header(header_name(name)?),
            Some(("cookie", name)) if http::Method::from_bytes(name.as_bytes()).is_ok() => {
                // Methods and the names of cookies are both tokens.
                Self::Cookie(name.to_owned())
            }
            Some(("cookie", name)) => return Err(WordError(format!("`{name}` cannot be the name of a cookie"))),
            _ => return Err(WordError(format!("`{text}` is nothing to draw by"))),
        })
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trace => f.write_str("trace"),
            Self::Request => f.write_str("request"),
            Self::ClientIp => f.write_str("client-ip"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

/// A header field's name, in small letters.
pub(super) fn header_name(text: &str) -> Result<HeaderName, WordError> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        WordError(match text {
            "" => "the name of the header field is missing".to_owned(),
            _ => format!("`{text}` cannot be the name of a header field"),
        })
    })
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
    Header(HeaderName),
    /// Nothing: phases are compared instead of arms.
    None,
}

impl FromStr for Carry {
    type Err = WordError;
    fn from_str(text: &str) -> Result<Self, WordError> {
        Ok(match text {
            "auto" => Self::Auto,
            "baggage" => Self::Baggage,
            "traceparent" => Self::Traceparent,
            "b3" => Self::B3,
            "none" => Self::None,
            _ => match text.strip_prefix("header:") {
                Some(name) => Self::Header(header_name(name)?),
                None => return Err(WordError(format!("`{text}` is no way to carry the arm"))),
            },
        })
    }
}

impl fmt::Display for Carry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Baggage => f.write_str("baggage"),
            Self::Traceparent => f.write_str("traceparent"),
            Self::B3 => f.write_str("b3"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::None => f.write_str("none"),
        }
    }
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

    #[test]
    fn keys_and_carriers_read_what_people_write_and_write_it_back() {
        for text in ["trace", "request", "client-ip", "header:x-user-id", "cookie:session"] {
            assert_eq!(text.parse::<By>().map(|by| by.to_string()), Ok(text.to_owned()));
        }
        for text in ["auto", "baggage", "traceparent", "b3", "header:x-request-id", "none"] {
            assert_eq!(text.parse::<Carry>().map(|carry| carry.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "header", "header:", "header:a b", "cookie:", "cookie:a=b", "user", "Trace"] {
            assert!(text.parse::<By>().is_err() && text.parse::<Carry>().is_err(), "{text}");
        }
    }
}
