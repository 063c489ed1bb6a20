//! The system file as it was written: the grammar of the document, and the source of its JSON Schema.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::experiment::limits::LimitsDraft;
use crate::experiment::written::{Named, TextOr, Version};
use crate::notify::{Moment, Pagerduty, Slack, Webhook};
use crate::probe::ProbeConfig;
use crate::proxy::config::ListenerDraft;
use crate::units::{Percent, Span};

/// What is under test, where its traffic comes in and goes to, and what may be done to it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Pratfall system")]
pub struct SystemDraft {
    /// The version of the grammar.
    #[schemars(required)]
    pub version: Option<Version>,
    /// The name: small letters, digits and hyphens.
    #[schemars(example = &"shop")]
    #[schemars(required)]
    pub system: Option<String>,
    /// Where traffic comes in and goes to, by name.
    #[schemars(required)]
    pub listeners: Option<Named<ListenerDraft>>,
    /// How many threads move traffic; 1 where nothing is written.
    #[schemars(range(min = 1, max = 256))]
    pub workers: Option<u32>,
    /// The operator's door: API, console, metrics.
    pub admin: Option<AdminDraft>,
    /// Where health and metrics are read; at the admin listener where nothing is written.
    pub telemetry: Option<TelemetryDraft>,
    /// How a serving process ends.
    #[serde(default)]
    pub drain: Drain,
    /// A log of requests; none where nothing is written.
    pub access_log: Option<AccessLog>,
    /// Where runs and failures are remembered: a file, or another Pratfall; `pratfall.db` where nothing is written.
    #[schemars(extend("x-expected" = "a file, or `{ url, token_file }`"))]
    pub ledger: Option<TextOr<RemoteLedgerDraft>>,
    /// The folder that reports are written to; `reports` where nothing is written.
    pub reports: Option<PathBuf>,
    /// What a serving proxy may do at most.
    #[serde(default)]
    pub limits: LimitsDraft,
    /// What we can ask the world, by name.
    #[serde(default)]
    pub probes: Named<ProbeConfig>,
    /// Processes of the system under test, started by `run` and never by `serve`.
    #[serde(default)]
    pub start: Vec<StartDraft>,
    /// Who is told.
    #[serde(default)]
    pub notify: Vec<NotifyDraft>,
}

/// How a serving process ends once it is told to: not ready, faults off, then these.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// How long connections are still accepted, until nobody sends any more; not after SIGINT.
    pub delay: Span,
    /// How long requests that are under way may take after that.
    pub grace: Span,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            // Right where nobody has to be told; behind a load balancer it is as long as that takes to notice.
            delay: Span::default(),
            // Kubernetes kills after 30 s: five of them are left for a delay and for the reports.
            grace: Span::secs(25),
        }
    }
}

/// A log of requests: one line each, without query, cookies or paths.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct AccessLog {
    /// The share of requests that is written down.
    #[schemars(example = &"1%")]
    pub sample: Percent,
}

/// The operator's door.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminDraft {
    /// The address and port where it listens.
    #[schemars(example = &"127.0.0.1:9900")]
    pub bind: String,
    /// A file with the token that changes need; one is made beside the ledger where nothing is written.
    pub token_file: Option<PathBuf>,
}

/// Where health and metrics are read.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TelemetryDraft {
    /// The address and port where it listens.
    #[schemars(example = &"0.0.0.0:9901")]
    pub bind: String,
}

/// The ledger of another Pratfall.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoteLedgerDraft {
    /// Its admin listener.
    #[schemars(example = &"http://pratfall.internal:9900")]
    pub url: String,
    /// A file with its token.
    pub token_file: Option<PathBuf>,
}

/// A process of the system under test.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StartDraft {
    /// The program and its arguments; no shell is in between.
    #[schemars(extend("x-expected" = "a list of words, as in `[node, shop.js]`"))]
    pub run: Vec<String>,
    /// What is added to its environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// A page that answers once the process is ready.
    #[schemars(example = &"http://127.0.0.1:3000/healthz")]
    pub ready: Option<String>,
    /// How long that may take; `30s` where nothing is written.
    pub ready_within: Option<Span>,
}

/// Who is told, and of what: exactly one of `slack`, `pagerduty` or `webhook`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotifyDraft {
    /// The moments.
    pub on: Vec<Moment>,
    /// Only of runs with at least this impact score.
    #[serde(default)]
    #[schemars(range(max = 100))]
    pub min_impact: u8,
    /// A Slack channel.
    pub slack: Option<Slack>,
    /// Whoever is on call.
    pub pagerduty: Option<Pagerduty>,
    /// A page of one's own.
    pub webhook: Option<Webhook>,
}
