//! What we can ask the world: a reading every now and then, from Prometheus, from a page or from a program.
//!
//! ```yaml
//! probes:
//!   busy-workers: { prometheus: { url: "http://127.0.0.1:9090", query: "max(shop_busy_workers)", every: 2s } }
//! ```

pub mod command;
pub mod http;
pub mod prometheus;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::command::Command;
pub use self::http::Http;
pub use self::prometheus::Prometheus;
use crate::units::Span;

/// The closed list of probes, as the system file writes them.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeConfig {
    /// The value of a query.
    Prometheus(Prometheus),
    /// What a page says.
    Http(Http),
    /// What a program prints.
    Command(Command),
}

impl ProbeConfig {
    /// How often it is read.
    pub fn every(&self) -> Span {
        let written = match self {
            Self::Prometheus(probe) => probe.every,
            Self::Http(probe) => probe.every,
            Self::Command(probe) => probe.every,
        };
        written.unwrap_or(Span::secs(5))
    }

    /// The word for this kind of probe.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Prometheus(_) => "prometheus",
            Self::Http(_) => "http",
            Self::Command(_) => "command",
        }
    }
}
