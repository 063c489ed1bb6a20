//! Open-loop load: requests leave at their intended instants, whatever happened to the ones before them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Rate;

/// Traffic of our own: requests at a rate, or a command that makes them.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// How many requests per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// How they are spread; `constant` where nothing is written.
    #[serde(default)]
    pub arrivals: Arrivals,
    /// The version of HTTP, 1 or 2.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 2))]
    pub http: u8,
    /// Whether only these requests take part in the experiment.
    #[serde(default = "yes")]
    pub only_own: bool,
    /// What is sent, drawn by weight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<Template>,
    /// A command that makes the traffic instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// The command's environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// How requests are spread over time.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// One every `1/rate`.
    #[default]
    Constant,
    /// From nothing to `rate` over the baseline, then constant.
    Ramp,
    /// Exponential gaps, as strangers arrive.
    Poisson,
}

/// One kind of request.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// How often, against the others.
    #[serde(default = "one_u32")]
    pub weight: u32,
    /// The method.
    #[serde(default = "get")]
    pub method: String,
    /// The path; `{1..500}` is a uniform number, `{uuid}` a new id.
    pub path: String,
    /// The header fields.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The body, with the same placeholders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

fn one() -> u8 {
    1
}
fn one_u32() -> u32 {
    1
}
fn yes() -> bool {
    true
}
fn get() -> String {
    "GET".to_owned()
}
