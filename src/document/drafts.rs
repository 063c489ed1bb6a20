//! Documents of the kinds that we read, small enough for tests.

#![allow(dead_code, reason = "what is read is mostly looked at for its problems")]

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::units::{Increase, Percent, Span};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Draft {
    /// The version of this grammar.
    #[schemars(range(min = 1, max = 1))]
    pub(super) version: u8,
    /// The name of the experiment.
    pub(super) experiment: String,
    pub(super) owner: Option<String>,
    pub(super) slice: Slice,
    pub(super) inject: Inject,
    #[schemars(length(min = 1, max = 3))]
    pub(super) steady_state: Vec<Indicator>,
    pub(super) workers: Option<u32>,
    pub(super) own: Option<bool>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    pub(super) baseline: Option<Length>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Slice {
    pub(super) at: String,
    pub(super) treatment: Option<Percent>,
    pub(super) control: Option<Percent>,
    pub(super) carry: Option<Carry>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Carry {
    /// Whatever comes.
    Auto,
    /// Nothing.
    None,
    Baggage,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Inject {
    pub(super) at: Option<String>,
    pub(super) faults: Vec<Fault>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fault {
    Latency(Latency),
    Error(ErrorFault),
    Duplicate {},
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Latency {
    pub(super) delay: Option<Span>,
    pub(super) jitter: Option<Span>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ErrorFault {
    pub(super) status: u16,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Indicator {
    pub(super) name: Option<String>,
    pub(super) error_rate: Option<Rate>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rate {
    pub(super) max: Option<Percent>,
    pub(super) max_increase: Option<Increase>,
}

/// A short form as the grammar writes them: a word, a span or a mapping.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Value")]
pub(super) struct Length(Value);

impl From<Value> for Length {
    fn from(value: Value) -> Self {
        Self(value)
    }
}

impl JsonSchema for Length {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Length".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let span = generator.subschema_for::<Span>();
        schemars::json_schema!({ "anyOf": [
            { "const": "auto" },
            span,
            { "type": "object", "properties": { "at_most": span }, "required": ["at_most"], "additionalProperties": false },
        ]})
    }
}

/// Keys of everybody's choice.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
pub(super) struct Labelled {
    pub(super) owner: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) list: Vec<Named>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    pub(super) name: String,
}

/// A text of which the schema does not know all.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Strict {
    pub(super) inner: Vec<Dated>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Dated {
    pub(super) day: Day,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub(super) struct Day(String);

impl TryFrom<String> for Day {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text.starts_with("20") { Ok(Self(text)) } else { Err(format!("`{text}` is not a day")) }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Short {
    #[schemars(schema_with = "short")]
    pub(super) length: Value,
}

fn short(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let span = generator.subschema_for::<Span>();
    schemars::json_schema!({ "anyOf": [
        { "const": "auto" },
        span,
        { "type": "integer", "minimum": 1, "maximum": 10 },
        { "type": "object", "properties": { "at_most": span }, "required": ["at_most"] },
        { "type": "object", "properties": { "from": span, "to": span }, "required": ["from", "to"] },
        { "type": "array", "items": span, "minItems": 1 },
        { "type": "null" },
    ]})
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Worded {
    #[schemars(extend("const" = 1, "x-message" = "this pratfall reads `version: 1`"))]
    pub(super) version: u8,
    #[schemars(extend("x-expected" = "`trace`, `request` or `header:NAME`"))]
    pub(super) who: Option<String>,
    #[schemars(regex(pattern = "^[a-z-]+$"), extend("x-message" = "a name has small letters and hyphens"))]
    pub(super) name: String,
}
