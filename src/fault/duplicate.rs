//! Sends the request to the upstream twice, as a retry on the way would; the caller sees the first answer.
//!
//! ```yaml
//! - duplicate: {}
//! ```

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Nothing to choose: each request goes up twice.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Duplicate {}
