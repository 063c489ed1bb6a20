//! The experiment as it was written: the grammar of the document, and the source of its JSON Schema.
//!
//! Nothing is decided here. What the keys mean together, and what is refused, is in [`check`](super::check).

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::indicator::{Of, Until};
use super::written::{OneOrMany, Scalar, TextOr, Version};
use super::{Ending, Impact, Prediction};
use crate::fault::Fault;
use crate::load::Traffic;
use crate::units::{Increase, Percent, Rate, Seed, Span};

/// One hypothesis about one system, with everything that is needed to test it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Pratfall experiment")]
pub struct Draft {
    /// The version of the grammar.
    #[schemars(required)]
    pub version: Option<Version>,
    /// The name: small letters, digits and hyphens.
    #[schemars(example = &"slow-inventory")]
    #[schemars(required)]
    pub experiment: Option<String>,
    /// What people call it.
    pub title: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Free words to find it by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// What is believed: one sentence, or `given`, `when` and `then`.
    #[schemars(extend("x-expected" = "a sentence, or `given`, `when` and `then`"))]
    #[schemars(required)]
    pub hypothesis: Option<TextOr<Steps>>,
    /// Who takes part, decided where the traffic enters.
    #[schemars(required)]
    pub slice: Option<SliceDraft>,
    /// What the treatment meets, and where.
    #[schemars(required)]
    pub inject: Option<InjectDraft>,
    /// A search for the dose at which the hypothesis breaks.
    pub search: Option<SearchDraft>,
    /// The hypothesis in numbers: one to three indicators.
    #[schemars(required, extend("x-expected" = "a list of indicators, as in `- error_rate: { max_increase: 1pp }`"))]
    pub steady_state: Option<Vec<IndicatorDraft>>,
    /// Conditions that halt the run, or `none`; `error_rate: { max: 50%, for: 5s, of: all }` and `harmed: { max: 1000 }`
    /// where nothing is written.
    #[schemars(extend("x-expected" = "a list of guards or `none`"))]
    pub halt_when: Option<TextOr<Vec<GuardDraft>>>,
    /// How long each phase is.
    #[serde(default)]
    pub phases: PhasesDraft,
    /// How long the fault stays after the hypothesis has been shown broken; `0s` where nothing is written.
    pub observe: Option<Span>,
    /// How sure a verdict must be; `95%` where nothing is written.
    pub confidence: Option<Percent>,
    /// Where chance comes from; drawn anew where nothing is written.
    pub seed: Option<Seed>,
    /// Which endings fail the command; all but `held` where nothing is written.
    pub fail_on: Option<Vec<Ending>>,
    /// What a failure would cost.
    pub impact: Option<Impact>,
    /// Traffic of Pratfall's own.
    pub traffic: Option<Traffic>,
    /// A failure that is known, and tolerated until a day.
    pub known: Option<KnownDraft>,
}

/// What is believed, in steps.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Steps {
    /// The state of the world before.
    pub given: String,
    /// What is done to it.
    pub when: String,
    /// What is expected.
    pub then: String,
    /// How the run will end, written before it began.
    pub predict: Option<Prediction>,
}

/// Who takes part.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SliceDraft {
    /// The listener where the arm is chosen.
    pub at: String,
    /// Which requests may be chosen; all where nothing is written.
    #[serde(default, rename = "match")]
    pub matches: MatchDraft,
    /// The share that meets the fault; `5%` where nothing is written, `50%` with `traffic`.
    pub treatment: Option<Percent>,
    /// Growing shares, one for each equal part of the inject phase, instead of `treatment`.
    pub ramp: Option<Vec<Percent>>,
    /// The share that is compared with it; as large as the treatment where nothing is written.
    pub control: Option<Percent>,
    /// What is drawn: `trace`, `request`, `client-ip`, `header:NAME` or `cookie:NAME`; `trace` where nothing is written.
    #[schemars(example = &"trace", example = &"header:x-user-id")]
    pub by: Option<String>,
    /// How long a user, an address or a cookie is watched from its first request on; `10s` where nothing is written.
    pub unit_window: Option<Span>,
    /// How the arm reaches the fault: `auto`, `baggage`, `traceparent`, `b3`, `header:NAME` or `none`; `auto` where
    /// nothing is written.
    #[schemars(example = &"auto", example = &"none")]
    pub carry: Option<String>,
}

/// Conditions on a request: keys are AND, lists are OR.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MatchDraft {
    /// The method.
    pub method: OneOrMany<String>,
    /// A pattern of the path as it is on the wire: `*` within a segment, `**` for any segments.
    #[schemars(example = &"/checkout/**")]
    pub path: OneOrMany<String>,
    /// A regular expression of the path.
    pub path_regex: Option<String>,
    /// The host, without its port.
    pub host: OneOrMany<String>,
    /// Header fields by name; any of a field's values fits the pattern.
    pub header: BTreeMap<String, OneOrMany<String>>,
    /// Parameters of the query by name.
    pub query: BTreeMap<String, OneOrMany<String>>,
    /// Cookies by name.
    pub cookie: BTreeMap<String, OneOrMany<String>>,
    /// The networks that the caller's address is in.
    #[schemars(example = &"10.0.0.0/8")]
    pub caller: OneOrMany<String>,
    /// Members of the baggage by name.
    pub baggage: BTreeMap<String, OneOrMany<String>>,
    /// A gRPC method, `package.Service/Method`; `*` is any method of the service.
    #[schemars(example = &"shop.Ranker/Rank")]
    pub grpc: OneOrMany<String>,
    /// None of these.
    pub not: OneOrMany<Self>,
    /// At least one of these.
    pub any: Vec<Self>,
}

/// What the treatment meets, and where.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InjectDraft {
    /// The listener whose calls meet the fault; the slice's where nothing is written.
    pub at: Option<String>,
    /// Which of the calls; all where nothing is written.
    #[serde(default, rename = "match")]
    pub matches: MatchDraft,
    /// The share of the treated calls; all where nothing is written.
    pub share: Option<Percent>,
    /// Only the first so many attempts of an operation.
    #[schemars(range(min = 1), extend("x-message" = "the first attempt is number 1: write 1 or more, or leave it out for all"))]
    pub attempts: Option<u32>,
    /// What they meet; the first is the outermost.
    #[schemars(extend("x-expected" = "a list of faults, as in `- error: { status: 503 }`"))]
    pub faults: Vec<Fault>,
}

/// A search for the dose at which the hypothesis breaks.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchDraft {
    /// A key of the fault: `latency.delay`.
    #[schemars(example = &"latency.delay")]
    pub vary: String,
    /// Its values, from the mildest on.
    pub through: Vec<Scalar>,
    /// Further steps between the last held and the first broken value; 0 where nothing is written.
    #[serde(default)]
    #[schemars(range(max = 16))]
    pub bisect: u32,
}

/// One measure of the steady state: exactly one of `error_rate`, `slow_rate`, `failed_operations` or `probe`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IndicatorDraft {
    /// What people call it.
    pub name: Option<String>,
    /// The listener where it is measured; the slice's where nothing is written.
    pub at: Option<String>,
    /// The share of units that failed.
    pub error_rate: Option<ErrorRateDraft>,
    /// The share of units that were slow.
    pub slow_rate: Option<SlowRateDraft>,
    /// The share of whole operations, with all their attempts, that failed.
    pub failed_operations: Option<OperationsDraft>,
    /// A reading of the outside world.
    pub probe: Option<ProbeDraft>,
}

/// The share of units that failed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErrorRateDraft {
    /// At most this share of the treatment.
    pub max: Option<Percent>,
    /// At most this much worse than control.
    pub max_increase: Option<Increase>,
    /// What counts as an error: `4xx`, `5xx`, a status, `transport`, `timeout`, `gave_up` or `grpc:CODE`.
    pub count: Option<Vec<Scalar>>,
}

/// The share of units that were slow.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlowRateDraft {
    /// Slower than this is slow: a length of time, or `baseline_p95`.
    #[schemars(schema_with = "threshold")]
    pub over: String,
    /// Where the clock stops; at the last byte where nothing is written.
    #[serde(default)]
    pub until: Until,
    /// At most this share of the treatment.
    pub max: Option<Percent>,
    /// At most this much worse than control.
    pub max_increase: Option<Increase>,
}

fn threshold(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [{ "const": "baseline_p95" }, generator.subschema_for::<Span>()],
        "x-message": "what is slow is a length of time, as in `800ms`",
    })
}

/// The share of whole operations that failed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperationsDraft {
    /// What joins the attempts of one operation: `trace`, `header:NAME` or `cookie:NAME`.
    #[schemars(example = &"header:x-request-id")]
    pub by: String,
    /// When an operation without a success has failed.
    pub deadline: Span,
    /// At most this share of the treatment.
    pub max: Option<Percent>,
    /// At most this much worse than control.
    pub max_increase: Option<Increase>,
    /// The mean number of attempts, at most.
    pub max_attempts: Option<f64>,
}

/// What a probe may read: `max` and `min`, or `equals`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbeDraft {
    /// The probe's name in the system file.
    pub name: String,
    /// At most.
    pub max: Option<f64>,
    /// At least.
    pub min: Option<f64>,
    /// Exactly.
    pub equals: Option<Scalar>,
}

/// A condition that halts the run.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GuardDraft {
    /// Too many errors for too long.
    ErrorRate(ErrorGuardDraft),
    /// Too many slow ones for too long.
    SlowRate(SlowGuardDraft),
    /// A failure budget: treated units that came to harm.
    Harmed(HarmedDraft),
    /// A budget of faults.
    Faulted(FaultedDraft),
    /// A reading of the outside world.
    Probe(ProbeDraft),
}

/// Too many errors for too long.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErrorGuardDraft {
    /// At most this share.
    pub max: Percent,
    /// As the mean of this window; `5s` where nothing is written.
    #[serde(rename = "for")]
    pub window: Option<Span>,
    /// Among whom; `rest` where nothing is written.
    #[serde(default)]
    pub of: Of,
}

/// Too many slow ones for too long.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlowGuardDraft {
    /// Slower than this is slow.
    pub over: Span,
    /// At most this share.
    pub max: Percent,
    /// As the mean of this window; `5s` where nothing is written.
    #[serde(rename = "for")]
    pub window: Option<Span>,
    /// Among whom; `rest` where nothing is written.
    #[serde(default)]
    pub of: Of,
}

/// A failure budget.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-expected" = "`{ max: 100 }`"))]
pub struct HarmedDraft {
    /// At most so many.
    pub max: u64,
}

/// A budget of faults: at least one of its keys.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultedDraft {
    /// At most so many.
    pub max: Option<u64>,
    /// At most so many per time.
    pub rate: Option<Rate>,
    /// At most so many per caller.
    #[schemars(range(min = 1))]
    pub per_caller: Option<u64>,
}

fn length(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [{ "const": "auto" }, generator.subschema_for::<Span>(), generator.subschema_for::<AtMost>()],
        "x-message": "a phase is a length of time, as in `60s`, or as long as the plan needs, up to `{ at_most: 10m }`",
    })
}

/// How long each phase is; each is `auto` where nothing is written.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PhasesDraft {
    /// Both arms, no fault.
    #[schemars(schema_with = "length")]
    pub baseline: Option<TextOr<AtMost>>,
    /// Both arms, the treatment meets the fault.
    #[schemars(schema_with = "length")]
    pub inject: Option<TextOr<AtMost>>,
    /// Both arms, no fault any more.
    #[schemars(schema_with = "length")]
    pub recovery: Option<TextOr<AtMost>>,
}

/// As long as the plan needs, up to a bound.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AtMost {
    /// The bound.
    pub at_most: Span,
}

/// A failure that is known, and tolerated until a day.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KnownDraft {
    /// The failure's id in the ledger.
    #[schemars(example = &"F-7k2m")]
    pub failure: String,
    /// The last day on which it is tolerated.
    #[schemars(example = &"2027-01-31")]
    pub until: String,
}
