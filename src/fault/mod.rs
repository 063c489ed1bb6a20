//! What we break. One fault is one file: its YAML, its layer, its tests.

pub mod drop;
pub mod error;
pub mod latency;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::drop::Drop;
pub use self::error::ErrorAnswer;
pub use self::latency::Latency;

/// The closed list of faults, as documents write them: `- latency: { delay: 250ms }`.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Holds a request or its answer for a while.
    Latency(Latency),
    /// Answers in the upstream's place, with a status of its own.
    Error(ErrorAnswer),
    /// Ends the exchange without an answer.
    Drop(Drop),
}

/// Which way a fault looks.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// On the way to the upstream.
    #[default]
    Request,
    /// On the way back.
    Response,
}
