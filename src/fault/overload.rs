//! Behaves like a dependency that sheds load: more than it can take is turned away.
//!
//! ```yaml
//! - overload: { rate: 50/s, in_flight: 20, status: 503 }
//! ```

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Rate;

/// How much it can take: `rate`, `in_flight` or both.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Overload {
    /// So many requests per time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// So many requests at one moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub in_flight: Option<u32>,
    /// The status of what is turned away; 503 where nothing is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 400, max = 599))]
    pub status: Option<u16>,
}

impl Overload {
    /// The status of what is turned away.
    pub fn status(&self) -> u16 {
        self.status.unwrap_or(503)
    }
}
