//! The hypothesis in numbers, and the conditions that halt a run.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::By;
use super::slice::WordError;
use crate::fault::grpc;
pub use crate::measure::{Count, Until};
use crate::units::{Increase, Percent, Rate, Span};

/// One measure of the steady state with its bounds.
#[derive(Clone, Debug)]
pub struct Indicator {
    /// What people call it.
    pub name: String,
    /// The listener where it is measured.
    pub at: String,
    /// What is measured, and what is allowed.
    pub measure: Measure,
}

/// What is measured.
#[derive(Clone, Debug)]
pub enum Measure {
    /// The share of units that failed.
    ErrorRate {
        /// What counts as an error.
        count: Vec<Count>,
        /// What is allowed.
        bounds: Bounds,
    },
    /// The share of units that were slow.
    SlowRate {
        /// Slower than this is slow.
        over: Threshold,
        /// Where the clock stops.
        until: Until,
        /// What is allowed.
        bounds: Bounds,
    },
    /// The share of whole operations, with all their attempts, that failed.
    FailedOperations {
        /// What joins the attempts of an operation.
        by: By,
        /// When an operation without success has failed.
        deadline: Span,
        /// What is allowed.
        bounds: Bounds,
        /// The mean number of attempts that is allowed.
        max_attempts: Option<f64>,
    },
    /// A reading of the outside world.
    Probe(ProbeBounds),
}

/// What a share may be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    /// In the treatment, absolutely.
    pub max: Option<Percent>,
    /// In the treatment, against control.
    pub max_increase: Option<Increase>,
}

/// What a probe may read.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ProbeBounds {
    /// The probe's name in the system file.
    pub name: String,
    /// At most.
    pub max: Option<f64>,
    /// At least.
    pub min: Option<f64>,
    /// Exactly, as text.
    pub equals: Option<String>,
}

/// From when on a unit is slow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Threshold {
    /// Over a span.
    Over(Span),
    /// Over the 95th percentile of the baseline, frozen when the fault begins.
    BaselineP95,
}

impl Count {
    /// What counts as an error where nothing is written: decisions.md 2.11.
    pub const DEFAULT: [Self; 10] = [
        Self::Class(5),
        Self::Transport,
        Self::Timeout,
        Self::GaveUp,
        Self::Grpc(2),
        Self::Grpc(4),
        Self::Grpc(12),
        Self::Grpc(13),
        Self::Grpc(14),
        Self::Grpc(15),
    ];
}

impl FromStr for Count {
    type Err = WordError;
    fn from_str(text: &str) -> Result<Self, WordError> {
        match text {
            "transport" => return Ok(Self::Transport),
            "timeout" => return Ok(Self::Timeout),
            "gave_up" => return Ok(Self::GaveUp),
            _ => {}
        }
        if let Some(name) = text.strip_prefix("grpc:") {
            return grpc::code(name)
                .map(Self::Grpc)
                .ok_or_else(|| WordError(format!("there is no gRPC status `{name}`")));
        }
        match text.as_bytes() {
            [class @ b'1'..=b'5', b'x', b'x'] => Ok(Self::Class(class - b'0')),
            [b'1'..=b'5', b'0'..=b'9', b'0'..=b'9'] => {
                Ok(Self::Status(text.parse().expect("three digits are a number")))
            }
            _ => Err(WordError(format!("`{text}` is nothing that can be counted as an error"))),
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class(class) => write!(f, "{class}xx"),
            Self::Status(status) => status.fmt(f),
            Self::Transport => f.write_str("transport"),
            Self::Timeout => f.write_str("timeout"),
            Self::GaveUp => f.write_str("gave_up"),
            Self::Grpc(code) => write!(f, "grpc:{}", grpc::NAMES.get(usize::from(*code)).unwrap_or(&"?")),
        }
    }
}

/// A condition that halts a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Guard {
    /// Too many errors for too long.
    ErrorRate {
        /// At most this share.
        max: Percent,
        /// As the mean of this window.
        window: Span,
        /// Among whom.
        of: Of,
    },
    /// Too many slow ones for too long.
    SlowRate {
        /// Slower than this is slow.
        over: Span,
        /// At most this share.
        max: Percent,
        /// As the mean of this window.
        window: Span,
        /// Among whom.
        of: Of,
    },
    /// A failure budget: treated units that came to harm.
    Harmed {
        /// At most so many.
        max: u64,
    },
    /// A budget of faults.
    Faulted {
        /// At most so many.
        max: Option<u64>,
        /// At most so many per time.
        rate: Option<Rate>,
        /// At most so many per caller.
        per_caller: Option<u64>,
    },
    /// A reading of the outside world.
    Probe(ProbeBounds),
}

/// Whose units a guard looks at.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Of {
    /// Everybody except the treatment, which is what we break on purpose.
    #[default]
    Rest,
    /// Only the treatment.
    Treatment,
    /// Everybody.
    All,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_read_what_people_write_and_write_it_back() {
        for text in ["4xx", "5xx", "429", "transport", "timeout", "gave_up", "grpc:UNAVAILABLE"] {
            assert_eq!(text.parse::<Count>().map(|count| count.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "6xx", "600", "42", "5XX", "grpc:", "grpc:SLEEPY", "grpc:unavailable", "Timeout"] {
            assert!(text.parse::<Count>().is_err(), "{text}");
        }
        let words = Count::DEFAULT.map(|count| count.to_string()).join(" ");
        assert_eq!(
            words,
            "5xx transport timeout gave_up grpc:UNKNOWN grpc:DEADLINE_EXCEEDED grpc:UNIMPLEMENTED grpc:INTERNAL \
             grpc:UNAVAILABLE grpc:DATA_LOSS"
        );
    }
}
