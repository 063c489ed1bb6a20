//! What was learned: the model of a report. JSON is the model itself; Markdown, HTML and JUnit are renderings of it.
//!
//! Nothing here is invented: what only people can know is an empty prompt. Bodies, cookies, credentials, query values
//! and raw paths never get here; routes are named by their patterns.

pub mod files;
pub mod html;
pub mod junit;
pub mod markdown;

mod chart;
mod evidence;
mod page;
mod people;
mod playbook;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
pub mod words;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use crate::experiment::{Arm, Ending, Hypothesis};
use crate::units::{Increase, Percent, Seed, Span};

/// The version of this model; a change that a reader could stumble over raises it.
pub const SCHEMA: u32 = 1;

/// Everything that one run has to tell.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Report {
    /// The version of the model.
    pub schema: u32,
    /// The run's id.
    pub run: String,
    /// The experiment's name.
    pub experiment: String,
    /// What people call it.
    pub title: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Free words to find it by.
    pub tags: Vec<String>,
    /// When the run began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// What we believed, in words.
    pub hypothesis: Hypothesis,
    /// What we expected, in one sentence.
    pub expected: String,
    /// What we saw, in one sentence.
    pub seen: String,
    /// How it ended and why.
    pub verdict: Verdict,
    /// Who came to harm.
    pub impact: ImpactReport,
    /// What was asked and what was applied.
    pub fidelity: Fidelity,
    /// What happened when, each line with its source.
    pub timeline: Vec<Moment>,
    /// What was measured in each phase.
    pub phases: Vec<PhaseReport>,
    /// One point a second, for charts.
    pub series: Vec<Point>,
    /// Things seen beyond the hypothesis.
    pub findings: Vec<Finding>,
    /// Whether and when the system was well again.
    pub recovery: Option<Recovery>,
    /// The kind of weakness, where the evidence names one; `untriaged` where it does not.
    pub class: Option<Class>,
    /// How the prediction compares with the outcome.
    pub surprise: Option<Surprise>,
    /// What the run could not answer.
    pub questions: Vec<String>,
    /// Five whys as a tree: the first level from evidence, the rest for people.
    pub whys: Vec<Why>,
    /// What people will do about it; empty until they say so.
    pub actions: Vec<String>,
    /// The experiment that would show that the weakness is gone.
    pub follow_up: Option<FollowUp>,
    /// The failure in the ledger that this run opened or added to.
    pub failure: Option<String>,
    /// Failures of the same experiment, fault or class that were in the ledger before.
    pub similar: Vec<String>,
    /// What is needed to reach the same verdict again.
    pub replay: Replay,
}

/// How a run ended and why.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Verdict {
    /// The word for it.
    pub ending: Ending,
    /// What ended the run before its plan, if anything did.
    pub ended_by: Option<String>,
    /// Why, in one sentence.
    pub reason: String,
    /// What would settle it, where the run could not tell.
    pub missing: Option<String>,
    /// The verdict on each bound of each indicator.
    pub bounds: Vec<BoundVerdict>,
    /// 1 - alpha.
    pub confidence: Percent,
}

/// The verdict on one bound.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct BoundVerdict {
    /// The indicator's name.
    pub indicator: String,
    /// Where it was measured.
    pub at: String,
    /// The bound in words: `at most 1pp more than control`.
    pub bound: String,
    /// The margin as a share.
    pub margin: f64,
    /// The bound as written, where it is one against control; none where it is a `max`.
    #[serde(default)]
    pub increase: Option<Increase>,
    /// How this bound alone would end: held, broken or inconclusive.
    pub ending: Ending,
    /// Treated units that were judged.
    pub treated: Counted,
    /// Control units that were judged.
    pub control: Counted,
    /// The estimate: the treated share for a `max`, the difference stratified by block (Mantel-Haenszel) for an increase.
    pub estimate: f64,
    /// A 95 % interval for it, one look, descriptive: the e-values decide.
    pub interval: (f64, f64),
    /// ln E against "the bound is crossed", at the end of inject.
    pub log_e_held: f64,
    /// The largest ln E against "the bound is kept".
    pub log_e_broken: f64,
    /// What `log_e_held` must reach.
    pub needs_held: f64,
    /// What `log_e_broken` must reach.
    pub needs_broken: f64,
    /// When it was shown broken, in milliseconds from the start of inject.
    pub broken_after_ms: Option<u64>,
    /// The same question asked of recovery: ln E against "well again".
    pub log_e_not_recovered: Option<f64>,
    /// Why, in one sentence.
    pub why: String,
}

/// So many of so many.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Counted {
    /// Bad units; fractions where a sticky unit had several requests.
    pub bad: f64,
    /// All units.
    pub of: u64,
}

impl Counted {
    /// The share, zero of nothing.
    pub fn share(self) -> f64 {
        if self.of == 0 { 0.0 } else { self.bad / self.of as f64 }
    }
}

/// Who came to harm.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ImpactReport {
    /// Treated units that were bad by any indicator, while the fault was on.
    pub harmed: u64,
    /// Treated units while the fault was on.
    pub treated: u64,
    /// Harmed among the treated.
    pub share_of_treated: f64,
    /// Harmed among all matching traffic while the fault was on.
    pub share_of_traffic: f64,
    /// Harmed units per minute of fault, if everybody had been treated.
    pub projected_per_minute: f64,
    /// What an outage of `outage` would cost at 100 %, where a value per request is written.
    pub projected_loss: Option<f64>,
    /// How long that outage would last.
    pub outage: Span,
    /// 0 to 100, for broken runs.
    pub score: Option<u32>,
    /// The parts of the score, in words.
    pub score_parts: String,
}

/// What was asked and what was applied.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Fidelity {
    /// Share of the matching traffic that was to be treated, and that was.
    pub treatment_asked: f64,
    /// See above.
    pub treatment_applied: f64,
    /// Phases were compared, not arms: the share is that of the calls that were drawn, and baseline is in control's place.
    #[serde(default)]
    pub phases_compared: bool,
    /// Matching requests per arm at the slice, all phases: treatment, control, bystander.
    pub enrolled: [u64; 3],
    /// Requests that matched and had no key to draw by.
    pub unkeyed: u64,
    /// Requests whose baggage had no room for our member.
    pub no_room: u64,
    /// Calls at the fault's listener that carried the run's mark: treatment, control.
    pub carried: [u64; 2],
    /// Calls at the fault's listener without the mark, while the run was live.
    pub uncarried: u64,
    /// What carried the arm of those that are in `carried`, and how often: baggage, traceparent, b3, x-request-id, header.
    #[serde(default)]
    pub carried_by: Vec<(String, u64)>,
    /// Calls with an id that requests of several arms have: whose they are nobody knows.
    #[serde(default)]
    pub ambiguous: u64,
    /// Requests that matched and had none of the ids that carry the arm.
    #[serde(default)]
    pub no_id: u64,
    /// Treated calls that matched while the fault was on.
    pub eligible: u64,
    /// Calls that met the fault.
    pub faulted: u64,
    /// Treated units of the slice that met it.
    pub exposed_units: u64,
    /// Eligible calls that were let through, and why.
    pub spared: Vec<(String, u64)>,
    /// Treated units that were under way when the fault was taken off early: let go, and in no verdict.
    #[serde(default)]
    pub undecided: u64,
    /// Delay asked and applied in milliseconds, where the fault is a delay.
    pub delay: Option<DelayFidelity>,
    /// The fault, as it was written.
    pub faults: Vec<String>,
    /// Where it waited.
    pub at: String,
    /// What the run's own load generator did, where it had one.
    pub load: Option<LoadFidelity>,
}

/// Delays as asked and as applied, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct DelayFidelity {
    /// How many.
    pub n: u64,
    /// Median of what was asked.
    pub asked_p50: f64,
    /// 99th percentile of what was asked.
    pub asked_p99: f64,
    /// Median of what was applied to calls that waited to the end.
    pub applied_p50: f64,
    /// 99th percentile of the same.
    pub applied_p99: f64,
}

/// What the own load generator did.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct LoadFidelity {
    /// Requests per second that were asked for.
    pub asked_rate: f64,
    /// Requests that were sent.
    pub sent: u64,
    /// Requests that were due and could not be sent, because too many were under way.
    pub shed: u64,
    /// Requests whose connection failed before the listener saw them.
    pub failed: u64,
}

/// One line of the timeline.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Moment {
    /// Milliseconds from the start of the run.
    pub at_ms: u64,
    /// Who says so: run, proxy, judge, guard, operator.
    pub source: String,
    /// What happened.
    pub text: String,
}

/// What was measured in one phase.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PhaseReport {
    /// baseline, inject or recovery.
    pub name: String,
    /// When it began, in milliseconds from the start of the run.
    pub from_ms: u64,
    /// How long it was.
    pub millis: u64,
    /// Each arm, in the order treatment, control, bystander.
    pub arms: Vec<ArmReport>,
}

/// What was measured in one arm of one phase.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ArmReport {
    /// Which arm.
    pub arm: Arm,
    /// Units that arrived.
    pub units: u64,
    /// Bad units by each indicator, in the order of the verdict's indicators.
    pub bad: Vec<Counted>,
    /// Latency in milliseconds at p50, p90, p95, p99; none where there were no answers.
    pub quantiles: Option<[f64; 4]>,
}

/// One second of the run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Point {
    /// Seconds from the start of the run.
    pub second: u64,
    /// Each arm, in the order treatment, control, bystander.
    pub arms: [PointArm; 3],
}

/// One arm in one second.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct PointArm {
    /// Units that arrived.
    pub units: u64,
    /// Bad units by each indicator.
    pub bad: Vec<f64>,
}

/// Something seen beyond the hypothesis.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Finding {
    /// A stable word: `no_timeout`, `fallback_worked`, …
    pub kind: String,
    /// In one sentence, with its figures.
    pub text: String,
    /// Where the figures come from.
    pub evidence: String,
    /// What to do about it, where the evidence says so.
    pub advice: Option<String>,
}

impl Finding {
    /// Whether it may say why something broke; others speak of the run itself, or of the ledger.
    pub fn is_cause(&self) -> bool {
        ![
            "baseline_short",
            "phases_compared",
            "attempts_observed",
            "failure_open",
            "failure_closed",
            "partial_exposure",
        ]
        .contains(&&*self.kind)
    }
}

/// Whether the system was well again.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Recovery {
    /// Whether the recovery phase says "not recovered".
    pub recovered: bool,
    /// Milliseconds from the end of the fault to the first tick from which on everything was inside its bounds.
    pub after_ms: Option<u64>,
}

/// The kind of weakness.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Latency passes through one to one.
    TimeoutMissing,
    /// Attempts multiply.
    RetryStorm,
    /// Errors pass through to the user.
    FallbackAbsent,
    /// A breaker that never opens, flaps or sticks.
    BreakerMisfit,
    /// Others than the treatment came to harm.
    Spillover,
    /// Waiting for connections.
    PoolExhaustion,
    /// A wrong status, or a crash on an odd answer.
    ErrorMapping,
    /// Duplicates, lost writes.
    DataIntegrity,
    /// Not well again in time.
    SlowRecovery,
    /// Broken, and no alarm.
    DetectionGap,
    /// Over the objective at a small dose.
    Headroom,
    /// What was thought optional is not.
    HiddenDependency,
    /// The evidence names none: for people to decide.
    Untriaged,
}

/// How the prediction compares with the outcome.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Surprise {
    /// What was predicted.
    pub predicted: Ending,
    /// How sure somebody was.
    pub sure: Percent,
    /// (probability given to what happened - 1)², 0 is perfect (Brier 1950, for the event that was predicted).
    pub brier: f64,
    /// In words.
    pub text: String,
}

/// One why; the deeper ones are left for people.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Why {
    /// The question.
    pub question: String,
    /// The answer, where evidence gives one.
    pub answer: Option<String>,
    /// Where that evidence is.
    pub evidence: Option<String>,
    /// The next level.
    pub whys: Vec<Self>,
}

/// The experiment that would show that the weakness is gone.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct FollowUp {
    /// What should be changed first, in one sentence.
    pub first: String,
    /// The document.
    pub document: String,
    /// What to type to run it, where whoever wrote the report knew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// What is needed to reach the same verdict again.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Replay {
    /// The version of the engine that judged.
    pub engine: String,
    /// Where chance came from.
    pub seed: Seed,
    /// The experiment's document, as it was read.
    pub document: String,
    /// The block counts of each indicator, inject then recovery.
    pub blocks: Vec<IndicatorBlocks>,
    /// Everything that the verdict depends on, as the engine takes it.
    #[serde(default)]
    pub evidence: serde_json::Value,
    /// What to type for it, where whoever wrote the report knew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// The blocks of one indicator.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct IndicatorBlocks {
    /// Its name.
    pub indicator: String,
    /// All matching units of baseline, bad and all: the prior of the experts.
    pub baseline: Counted,
    /// (bad treated, treated, bad control, control) of each block of inject.
    pub inject: Vec<(f64, u64, f64, u64)>,
    /// The same of the second half of recovery.
    pub recovery: Vec<(f64, u64, f64, u64)>,
}
