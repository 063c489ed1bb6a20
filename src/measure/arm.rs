//! The arms of an experiment.

use serde::{Deserialize, Serialize};

/// The part of the slice that a request falls into.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Arm {
    /// Meets the fault.
    Treatment,
    /// Meets nothing, and is measured all the same.
    Control,
    /// Matches, but is in no arm.
    Bystander,
}

impl Arm {
    /// All arms, in the order of their counters.
    pub const ALL: [Self; 3] = [Self::Treatment, Self::Control, Self::Bystander];

    /// The word for it in reports and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Treatment => "treatment",
            Self::Control => "control",
            Self::Bystander => "bystander",
        }
    }

    /// Treatment when `u < t`, control when `u >= 1 - c`: a larger slice contains every smaller one.
    pub fn of(u: f64, treatment: f64, control: f64) -> Self {
        if u < treatment {
            Self::Treatment
        } else if u >= 1.0 - control {
            Self::Control
        } else {
            Self::Bystander
        }
    }
}
