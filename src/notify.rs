//! Who is told how a run went: a channel, and the moments that it is told of.
//!
//! ```yaml
//! notify:
//!   - on: [broken, halted]
//!     slack: { url_file: slack.url }
//! ```

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who is told, and of what.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NotifyConfig {
    /// The moments.
    pub on: Vec<Moment>,
    /// Only of runs with at least this impact score.
    pub min_impact: u8,
    /// Where it is said.
    pub channel: Channel,
}

/// Where it is said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Channel {
    /// A Slack channel.
    Slack(Slack),
    /// Whoever is on call.
    Pagerduty(Pagerduty),
    /// A page of one's own.
    Webhook(Webhook),
}

/// A moment of a run.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// It has begun.
    Started,
    /// The hypothesis stands.
    Held,
    /// The hypothesis is wrong.
    Broken,
    /// The run cannot tell.
    Inconclusive,
    /// The set-up was wrong.
    Invalid,
    /// It ended before its plan.
    Halted,
}

/// A Slack channel, by its incoming webhook.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Slack {
    /// A file with the webhook's URL, which is a secret.
    pub url_file: PathBuf,
}

/// Whoever is on call, by PagerDuty's Events API.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Pagerduty {
    /// A file with the integration's routing key.
    pub routing_key_file: PathBuf,
}

/// A page of one's own, which is sent JSON.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// The page.
    #[schemars(example = &"http://127.0.0.1:7000/hook")]
    pub url: String,
    /// A file with the secret that signs what is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
}
