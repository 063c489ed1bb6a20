//! Lets a body through no faster than a rate.
//!
//! ```yaml
//! - throttle: { rate: 32KiB/s }
//! ```

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pace::Pace;
use super::stream::Treatment;
use super::{Direction, Sheet};
use crate::units::Throughput;

/// How fast, and which way.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    /// The data per second of one exchange.
    pub rate: Throughput,
    /// The body of the request, or of the response; the response's where nothing is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
}

/// For docs/faults.md.
pub(super) const SHEET: Sheet = Sheet {
    examples: &["throttle: { rate: 32KiB/s }"],
    http1: "the body, slowly",
    http2: "the same, each stream by itself",
    grpc: "as on HTTP/2",
};

impl Throttle {
    /// Whose body it is.
    pub fn direction(&self) -> Direction {
        self.direction.unwrap_or(Direction::Response)
    }

    /// What it does to a body.
    pub(super) fn treatment(&self) -> Treatment {
        Treatment::pace(self.direction(), Pace::Rate(self.rate.per_second()))
    }
}
