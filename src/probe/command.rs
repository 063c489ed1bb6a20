//! Runs a program, and reads the first line that it prints.
//!
//! ```yaml
//! command: { run: [./free-space.sh], every: 5s }
//! ```

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Span;

/// Which program.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The program and its arguments; no shell is in between.
    #[schemars(extend("x-expected" = "a list of words, as in `[./busy.sh]`"))]
    pub run: Vec<String>,
    /// How often; `5s` where nothing is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Span>,
}
