//! A fault by hand: what, where, for how many and for how long, and no hypothesis.
//!
//! ```yaml
//! at: inventory
//! match: { path: /stock/** }
//! faults: [{ latency: { delay: 400ms } }]
//! share: 10%
//! for: 5m
//! ```

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::check::{help, percent};
use super::draft::MatchDraft;
use super::{By, Carry, Experiment, Guard, Length, Match, Phases, check_faults, check_slice};
use crate::document::{self, Problems};
use crate::fault::Fault;
use crate::units::{Percent, Seed, Span};

/// The share that meets the fault where nothing is said.
pub const SHARE: &str = "5%";

/// How long the fault stays where nothing is said.
pub const LENGTH: &str = "1m";

/// Calls that meet the fault at the most where nothing is said.
pub const BUDGET: u64 = 1000;

/// What is asked for, as it travels.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ByHandDraft {
    /// The listener whose calls meet the fault.
    pub at: String,
    /// Which of them; all where nothing is written.
    #[serde(default, rename = "match")]
    pub matches: MatchDraft,
    /// What they meet; the first is the outermost.
    pub faults: Vec<Fault>,
    /// The share that meets it; `5%` where nothing is written.
    pub share: Option<Percent>,
    /// How long; `1m` where nothing is written.
    #[serde(rename = "for")]
    pub length: Option<Span>,
    /// Calls that meet it at the most; 1000 where nothing is written.
    #[schemars(range(min = 1))]
    pub budget: Option<u64>,
    /// Where chance comes from; drawn anew where nothing is written.
    pub seed: Option<Seed>,
}

/// What is asked for, as it was meant.
#[derive(Clone, Debug)]
pub struct ByHand {
    /// The listener whose calls meet the fault.
    pub at: String,
    /// Which of them.
    pub matches: Written<Match>,
    /// What they meet.
    pub faults: Vec<Written<Fault>>,
    /// The share that meets it.
    pub share: Percent,
    /// How long.
    pub length: Span,
    /// Calls that meet it at the most.
    pub budget: u64,
    /// Where chance comes from.
    pub seed: Option<Seed>,
}

/// What was meant, beside what was written.
#[derive(Clone, Debug)]
pub struct Written<T> {
    /// As it was meant.
    pub meant: T,
    /// As it was written.
    pub text: Value,
}

type Variables<'v> = &'v dyn Fn(&str) -> Option<String>;

/// Reads one fault: `latency: { delay: 400ms }`. Without it, everything that is wrong.
pub fn read_fault(name: &str, text: &str, variables: Variables<'_>) -> Result<Written<Fault>, Problems> {
    let reading = document::read::<Fault>(name, text, variables);
    let mut problems = reading.problems;
    if let Some(fault) = &reading.value {
        check_faults::fault(fault, &format!("/{}", fault.kind()), &mut problems);
    }
    let text = document::read::<Value>(name, text, variables).value;
    match (reading.value, text) {
        (Some(meant), Some(text)) if !problems.has_errors() => Ok(Written { meant, text }),
        _ => Err(problems),
    }
}

/// Reads conditions on a request: `{ path: /stock/** }`. Without them, everything that is wrong.
pub fn read_match(name: &str, text: &str, variables: Variables<'_>) -> Result<Written<Match>, Problems> {
    let reading = document::read::<MatchDraft>(name, text, variables);
    let mut problems = reading.problems;
    let meant = reading.value.map(|draft| check_slice::matcher(&draft, "", &mut problems));
    let text = document::read::<Value>(name, text, variables).value;
    match (meant, text) {
        (Some(meant), Some(text)) if !problems.has_errors() => Ok(Written { meant, text }),
        _ => Err(problems),
    }
}

impl Default for Written<Match> {
    fn default() -> Self {
        Self { meant: Match::any(), text: json!({}) }
    }
}

impl ByHand {
    /// Reads what has travelled. Without it, everything that is wrong.
    pub fn parse(name: &str, text: &str) -> Result<Self, Problems> {
        let nothing = |_: &str| None;
        let reading = document::read::<ByHandDraft>(name, text, &nothing);
        let mut problems = reading.problems;
        let written = document::read::<Value>(name, text, &nothing).value.unwrap_or_default();
        let by_hand = reading.value.map(|draft| meant(draft, &written, &mut problems));
        match by_hand {
            Some(by_hand) if !problems.has_errors() => Ok(by_hand),
            _ => Err(problems),
        }
    }

    /// The same, to travel.
    pub fn document(&self) -> String {
        let faults: Vec<&Value> = self.faults.iter().map(|fault| &fault.text).collect();
        let mut document = json!({
            "at": self.at,
            "match": self.matches.text,
            "faults": faults,
            "share": self.share.to_string(),
            "for": self.length.to_string(),
            "budget": self.budget,
        });
        if let Some(seed) = self.seed {
            document["seed"] = json!(seed.0);
        }
        document.to_string()
    }

    /// What they meet, in a few words.
    pub fn describe(&self) -> String {
        let faults: Vec<String> = self.faults.iter().map(|fault| fault.meant.describe()).collect();
        faults.join(" and ")
    }

    /// What must be known before it begins: a fault that meets a connection meets whatever else goes over it.
    pub fn warning(&self) -> Option<String> {
        let fault = self.faults.iter().map(|fault| &fault.meant).find(|fault| fault.meets_connections())?;
        let (what, at) = (fault.describe(), &self.at);
        let share = self.share;
        Some(match fault.meets_new_connections() {
            true => {
                format!("{what}: this meets {share:#} of the new connections at {at}, and all that would go over them")
            }
            false => format!(
                "{what}: this ends the connections of {share:#} of the calls at {at}, and all that go over them"
            ),
        })
    }

    /// The experiment that would make it one, ready to be saved. `others` are the system's other listeners: people have to
    /// say what they believe, and where the traffic comes in.
    pub fn offer(&self, others: &[&str]) -> String {
        let kind = self.faults.first().map_or("fault", |fault| fault.meant.kind());
        let name: String = format!("{kind}-at-{}", self.at).chars().take(63).collect();
        let (at, what) = (&self.at, self.describe());
        let share = if self.share.ratio() > 0.5 { percent(0.5) } else { self.share };
        let connections = self.faults.iter().any(|fault| fault.meant.meets_connections());
        let entry = others.first();
        let seen = entry.map_or(at.as_str(), |entry| entry);
        let sentence = format!(
            "If calls to {at} meet a fault ({what}), then whoever calls {seen} notices nothing, because (say why)."
        );
        let mut text = format!("version: 1\nexperiment: {name}\nhypothesis: {}\n", json!(sentence));
        text += &match entry {
            Some(entry) if !connections => {
                format!("slice: {{ at: {entry}, treatment: {share} }}   # where your callers come in\n")
            }
            _ if connections => format!("slice: {{ at: {at}, treatment: {share}, by: request, carry: none }}\n"),
            _ => format!("slice: {{ at: {at}, treatment: {share}, by: header:x-request-id }}\n"),
        };
        text += &format!("inject:\n  at: {at}\n");
        if self.matches.text.as_object().is_some_and(|keys| !keys.is_empty()) {
            text += &format!("  match: {}\n", flow(&self.matches.text));
        }
        text += "  faults:\n";
        for fault in &self.faults {
            text += &format!("    - {}\n", flow(&fault.text));
        }
        text += "steady_state:\n";
        text += &match entry {
            Some(entry) if connections => {
                format!("  - {{ name: callers of {entry}, at: {entry}, error_rate: {{ max: 2% }} }}\n")
            }
            Some(_) => "  - error_rate: { max_increase: 1pp }\n".to_owned(),
            None => "  - failed_operations: { by: header:x-request-id, deadline: 5s, max: 2% }\n".to_owned(),
        };
        text
    }

    /// What the data plane does: everybody at the listener is drawn, nothing is compared and nothing is carried.
    pub fn experiment(&self, others: &[&str]) -> Result<Experiment, Problems> {
        let (mut experiment, _) = Experiment::parse("<by hand>", &self.offer(others), &|_| None)?;
        experiment.title = format!("by hand: {} at {}, {:#}", self.describe(), self.at, self.share);
        experiment.seed = self.seed;
        // With what was read of their files.
        experiment.inject.faults = self.faults.iter().map(|fault| fault.meant.clone()).collect();
        experiment.steady_state.clear();
        experiment.guards = vec![Guard::Faulted { max: Some(self.budget), rate: None, per_caller: None }];
        let none = Length::Fixed(Span::default());
        experiment.phases = Phases { baseline: none, inject: Length::Fixed(self.length), recovery: none };
        let slice = &mut experiment.slice;
        (slice.at, slice.matches) = (self.at.clone(), self.matches.meant.clone());
        (slice.treatment, slice.control) = (vec![self.share], percent(0.0));
        (slice.by, slice.carry) = (By::Request, Carry::None);
        Ok(experiment)
    }
}

fn meant(draft: ByHandDraft, written: &Value, problems: &mut Problems) -> ByHand {
    if draft.faults.is_empty() {
        problems.error("/faults", "there is no fault", help("add one, as in `- latency: { delay: 250ms }`"));
    }
    if draft.share.is_some_and(|share| share.ratio() == 0.0) {
        problems.error("/share", "nobody would meet the fault: the share is `0%`", help("`1%` is a careful beginning"));
    }
    if draft.length == Some(Span::default()) {
        problems.error("/for", "a fault of `0s` is none", help("write how long it stays, as in `5m`"));
    }
    let faults = draft.faults.into_iter().enumerate().map(|(index, fault)| {
        let pointer = format!("/faults/{index}/{}", fault.kind());
        check_faults::fault(&fault, &pointer, problems);
        check_faults::travelled(&fault, &pointer, problems);
        Written { text: written["faults"][index].clone(), meant: fault }
    });
    let faults = faults.collect();
    let text = written.get("match").cloned().unwrap_or_else(|| json!({}));
    ByHand {
        matches: Written { meant: check_slice::matcher(&draft.matches, "/match", problems), text },
        at: draft.at,
        faults,
        share: draft.share.unwrap_or_else(|| SHARE.parse().expect("it is a share")),
        length: draft.length.unwrap_or_else(|| LENGTH.parse().expect("it is a length of time")),
        budget: draft.budget.unwrap_or(BUDGET),
        seed: draft.seed,
    }
}

/// A value on one line, as people write it.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(map) if map.is_empty() => "{}".to_owned(),
        Value::Object(map) => format!("{{ {} }}", entries(map)),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::String(text) if is_plain(text) => text.clone(),
        other => other.to_string(),
    }
}

fn entries(map: &Map<String, Value>) -> String {
    let key = |key: &str| if is_plain(key) { key.to_owned() } else { json!(key).to_string() };
    map.iter().map(|(name, value)| format!("{}: {}", key(name), flow(value))).collect::<Vec<_>>().join(", ")
}

/// Whether text means itself in YAML without quotes, wherever it stands.
fn is_plain(text: &str) -> bool {
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/');
    begins
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/_.*%-".contains(c))
        && text.parse::<f64>().is_err()
        && !text.starts_with("0x")
        && !text.starts_with("0o")
        && !words.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_hand(faults: &[&str], matches: &str) -> ByHand {
        let fault = |text: &&str| read_fault("fault", text, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
        ByHand {
            at: "inventory".into(),
            matches: read_match("--match", matches, &|_| None).unwrap_or_else(|problems| panic!("{problems}")),
            faults: faults.iter().map(fault).collect(),
            share: "10%".parse().unwrap(),
            length: "5m".parse().unwrap(),
            budget: 70,
            seed: Some(Seed(3)),
        }
    }

    #[test]
    fn what_is_wrong_with_a_fault_is_said_as_in_a_document_all_at_once() {
        let said = read_fault("fault", "latency: { delay: 400, jiter: 5ms }", &|_| None).unwrap_err().to_string();
        assert!(said.contains("fault:1:19") && said.contains("did you mean `jitter`?"), "{said}");
        assert!(said.contains('^'), "{said}");
        let said = read_fault("fault", "latency: { delay: 0s }", &|_| None).unwrap_err().to_string();
        assert!(said.contains("no fault"), "{said}");
        assert!(read_fault("fault", "latancy: { delay: 1s }", &|_| None).unwrap_err().to_string().contains("latency"));
        let said = read_match("--match", "{ pth: /a, method: 'G T' }", &|_| None).unwrap_err().to_string();
        assert!(said.contains("did you mean `path`?") && said.contains("G T"), "{said}");
    }

    #[test]
    fn what_travels_arrives_as_it_was_meant() {
        let sent =
            by_hand(&["latency: { delay: 400ms }", "error: { status: 503 }"], "{ path: /stock/**, query: { v: '2' } }");
        let got = ByHand::parse("<body>", &sent.document()).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(got.document(), sent.document());
        assert_eq!(got.describe(), sent.describe());
        let wrong = r#"{ "at": "inventory", "faults": [], "share": "0%", "for": "0s", "budgt": 1 }"#;
        let problems = ByHand::parse("<body>", wrong).unwrap_err();
        assert_eq!(problems.errors().count(), 4, "{problems}");
        let file = "at: a\nfaults:\n  - error: { status: 503, body_file: /etc/passwd }\n";
        let problems = ByHand::parse("<body>", file).unwrap_err();
        assert!(problems.to_string().starts_with("<body>:3:38: error: ") && problems.list().len() == 1, "{problems}");
        let usual = ByHand::parse("<body>", "at: a\nfaults: [{ error: { status: 500 } }]\n").unwrap();
        assert_eq!((usual.share.to_string(), usual.length.to_string(), usual.budget), ("5%".into(), "1m".into(), 1000));
    }

    #[test]
    fn the_experiment_that_is_offered_is_one_whatever_the_fault() {
        for fault in [
            "latency: { delay: 400ms, jitter: 50ms }",
            "latency: { p50: 300ms, p99: 2s }",
            "error: { status: 503, headers: { retry-after: '2', x-a: 'b: c, {d}' }, body: '{\"a\": 1}' }",
            "error: { grpc: UNAVAILABLE }",
            "drop: { how: reset, at: { bytes: 4KiB } }",
            "drop: { how: refuse }",
            "tls: { how: expired }",
            "body: { corrupt: 1% }",
            "throttle: { rate: 32KiB/s }",
            "overload: { rate: 50/s, in_flight: 20 }",
            "duplicate: {}",
        ] {
            for others in [&["front", "catalogue"][..], &["front"], &[]] {
                if others.is_empty() && fault.contains("refuse") || fault.contains("tls") && others.is_empty() {
                    continue; // nobody else is there to be measured
                }
                // A new connection says nothing but where it comes from.
                let matching = match fault.contains("refuse") || fault.contains("tls") {
                    true => "{ caller: 10.0.0.0/8 }",
                    false => "{ path: '/stock/**', header: { x-tier: 'gold*', x-on: 'on' } }",
                };
                let by_hand = by_hand(&[fault], matching);
                let offer = by_hand.offer(others);
                let parsed = Experiment::parse("offer.yaml", &offer, &|_| None);
                let (offered, warnings) = parsed.unwrap_or_else(|problems| panic!("{offer}\n{problems}"));
                assert!(warnings.is_empty(), "{offer}\n{warnings}");
                assert_eq!(offered.inject.faults, [by_hand.faults[0].meant.clone()], "{offer}");
                assert_eq!(offered.inject.matches.describe(), by_hand.matches.meant.describe(), "{offer}");
            }
        }
    }

    #[test]
    fn everybody_at_the_listener_is_drawn_and_nothing_is_carried() {
        let experiment = by_hand(&["latency: { delay: 400ms }"], "{ path: /stock/** }").experiment(&["front"]).unwrap();
        let slice = &experiment.slice;
        assert_eq!((slice.at.as_str(), experiment.inject.at.as_str()), ("inventory", "inventory"));
        assert_eq!((slice.treatment[0].ratio(), slice.control.ratio()), (0.1, 0.0));
        assert_eq!((&slice.by, &slice.carry), (&By::Request, &Carry::None));
        assert!(experiment.steady_state.is_empty());
        assert_eq!(experiment.guards, [Guard::Faulted { max: Some(70), rate: None, per_caller: None }]);
    }
}
