//! Answers in the upstream's place, with a status of its own. The upstream is not called.
//!
//! ```yaml
//! - error: { status: 503, headers: { retry-after: "1" }, body: "asleep" }
//! ```

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is answered: `status`, or `grpc`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ErrorAnswer {
    /// The status, 200 to 599.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 200, max = 599))]
    pub status: Option<u16>,
    /// Fields of the answer.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The body of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// A file with the body of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_file: Option<String>,
    /// A gRPC status, by its name: `UNAVAILABLE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<String>,
    /// The message beside a gRPC status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
