//! Asks a page, and reads one value of the JSON that it answers, or its status.
//!
//! ```yaml
//! http: { url: "http://127.0.0.1:3000/healthz", json: /status, every: 1s }
//! ```

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Span;

/// Which page, and which value of it.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// The page.
    #[schemars(example = &"http://127.0.0.1:3000/healthz")]
    pub url: String,
    /// A JSON pointer to the value (RFC 6901); the status of the answer where nothing is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"/status")]
    pub json: Option<String>,
    /// How often; `5s` where nothing is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Span>,
}
