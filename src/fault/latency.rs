//! Holds a request, or its answer, for a while.
//!
//! ```yaml
//! - latency: { delay: 1s, jitter: 50ms }
//! ```

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Direction;
use crate::units::Span;

/// How long to hold: exactly one of `delay`, `p50` with `p99`, `distribution` or `histogram` is written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Latency {
    /// A fixed delay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Span>,
    /// Uniform, plus or minus, around `delay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Span>,
    /// The median of a log-normal delay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50: Option<Span>,
    /// The 99th percentile of a log-normal delay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99: Option<Span>,
    /// The shape of a drawn delay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distribution: Option<Distribution>,
    /// Of a normal distribution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Span>,
    /// Of a normal distribution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stddev: Option<Span>,
    /// Of a uniform distribution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<Span>,
    /// Of a uniform distribution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Span>,
    /// A file of measured delays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub histogram: Option<String>,
    /// Before the request goes up, or before the answer goes down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Once, or for each chunk of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per: Option<Per>,
}

/// The shape of a drawn delay.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// Between `min` and `max`.
    Uniform,
    /// With `mean` and `stddev`, cut at zero.
    Normal,
}

/// What is held.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// Each chunk of the body.
    Chunk,
}
