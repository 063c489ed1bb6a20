//! Whole documents with mistakes, and what is said about them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::*;
use crate::units::{Increase, Percent, Span};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Draft {
    /// The version of this grammar.
    #[schemars(range(min = 1, max = 1))]
    version: u8,
    /// The name of the experiment.
    experiment: String,
    owner: Option<String>,
    slice: Slice,
    inject: Inject,
    #[schemars(length(min = 1, max = 3))]
    steady_state: Vec<Indicator>,
    workers: Option<u32>,
    own: Option<bool>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    baseline: Option<Length>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Slice {
    at: String,
    treatment: Option<Percent>,
    control: Option<Percent>,
    carry: Option<Carry>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Carry {
    /// Whatever comes.
    Auto,
    /// Nothing.
    None,
    Baggage,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Inject {
    at: Option<String>,
    faults: Vec<Fault>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code)]
enum Fault {
    Latency(Latency),
    Error(ErrorFault),
    Duplicate {},
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Latency {
    delay: Option<Span>,
    jitter: Option<Span>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct ErrorFault {
    status: u16,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Indicator {
    name: Option<String>,
    error_rate: Option<Rate>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Rate {
    max: Option<Percent>,
    max_increase: Option<Increase>,
}

/// A short form as the grammar writes them: a word, a span or a mapping.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Value")]
#[allow(dead_code)]
struct Length(Value);

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

fn unset(_: &str) -> Option<String> {
    None
}

#[test]
fn every_mistake_of_a_file_is_named() {
    let text = r#"
version: 2
experiment: 12
ownr: me
slice:
  at: front
  treatmnt: 10%
  control: 10
  carry: baggge
inject:
  faults:
    - latency: { delay: 50, jiter: 5ms }
    - latensy: { delay: 50s }
    - error: {}
    - error: { status: 99999 }
      latency: {}
    - {}
    - latency
    - duplicate:
    - 7
steady_state:
  - error_rate: { max: 1pp, max_increase: 3, max: 3% }
  - [a]
  - name: x
  - name: y
workers: two
own: yes
labels: { 503: a, on: b, c: 5 }
baseline: atuo
owner: ~
"#;
    let reading = read::<Draft>("a.yaml", text, &unset);
    assert!(reading.value.is_none());
    assert_eq!(reading.problems.errors().count(), 26, "{}", reading.problems);
}
