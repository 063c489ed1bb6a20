//! Sets and removes header fields.
//!
//! ```yaml
//! - headers: { set: { cache-control: no-store }, remove: [etag], direction: response }
//! ```

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Direction;

/// Which fields are set and removed.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Headers {
    /// Fields that replace all values of the same name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Names of fields that are taken out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// On the request, or on the response; on the request where nothing is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
}

impl Headers {
    /// Whose fields they are.
    pub fn direction(&self) -> Direction {
        self.direction.unwrap_or(Direction::Request)
    }
}
