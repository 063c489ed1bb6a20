//! Asks a Prometheus server for the value of a query.
//!
//! ```yaml
//! prometheus: { url: "http://127.0.0.1:9090", query: "max(shop_busy_workers)", every: 2s }
//! ```

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Span;

/// Which server, and which query.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Prometheus {
    /// The server.
    #[schemars(example = &"http://127.0.0.1:9090")]
    pub url: String,
    /// The query; it has one value.
    pub query: String,
    /// How often; `5s` where nothing is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Span>,
}
