//! YAML, as it comes from the parser: one document, within bounds that keep a hostile one cheap.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::budget::BudgetBreach;
use serde_yaml::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};
use serde_yaml::{Error, Location, MessageFormatter as _, Spanned, UserMessageFormatter};

use super::node::Node;
use super::place::{Place, lines};

/// How deep values may lie within each other: twice what any document needs, and half of what a thread's usual stack
/// can bear.
const DEEPEST: usize = 24;

/// Why a text is no document of ours.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) place: Place,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// Reads the one document of a text.
pub(super) fn parse(text: &str) -> Result<Node, Refusal> {
    let options = serde_yaml::options! {
        // Otherwise the key `on:` is a boolean.
        strict_booleans: true,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        reject_unsupported_tags: true,
        with_snippet: false,
        budget: serde_yaml::budget! {
            max_nodes: 20_000,
            max_depth: DEEPEST,
            max_events: 100_000,
            max_recorded_anchor_events: 20_000,
            flow_nesting_limit: DEEPEST,
        },
        alias_limits: serde_yaml::alias_limits! {
            max_total_replayed_events: 20_000,
            max_replay_stack_depth: 16,
        },
    };
    match serde_yaml::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => Ok(Node::new(raw, text)),
        Err(error) => Err(refusal(&error, text)),
    }
}

/// The parser's errors; where a bound of ours was met, or where people stumble over YAML, in our words.
fn refusal(error: &Error, text: &str) -> Refusal {
    let mut cause = error.without_snippet();
    while let Error::AliasError { error, .. } = cause {
        cause = error;
    }
    let said = UserMessageFormatter.format_message(cause);
    let lines = lines(text);
    let large = "no document of ours is that large: is it the right file?";
    let (message, help) = match cause {
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => ("the document is nested too deeply", Some(large)),
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => ("the document is too large", Some(large)),
        _ if said.contains("recursion limit") => ("the document is nested too deeply", Some(large)),
        Error::MultipleDocuments { .. } => {
            ("a second document begins here", Some("write one document in a file; what follows `---` needs its own"))
        }
        Error::UnknownAnchor { .. } => {
            ("there is no anchor of this name", Some("a text that begins with `*` needs quotes"))
        }
        // Values are taken as they come; keys alone are asked to be texts.
        Error::NullIntoString { .. } | Error::Unexpected { expected: "string scalar", .. } => {
            ("a key must be text", Some("write it in quotes"))
        }
        _ => (&*said, None),
    };
    let mut place = error.location().map(place).unwrap_or_default();
    let mut line = lines.get(place.line.max(1) as usize - 1).copied().unwrap_or_default();
    // What is missed at the end is shown behind the last thing that is there.
    if line.trim().is_empty()
        && let Some(last) = lines.iter().take(place.line as usize).rposition(|line| !line.trim().is_empty())
    {
        line = lines[last];
        place.line = last as u32 + 1;
        place.column = line.trim_end().chars().count() as u32 + 1;
    }
    let unquoted = line.find("${").is_some_and(|at| line[..at].matches(['"', '\'']).count().is_multiple_of(2));
    let help = help.or_else(|| unquoted.then_some("within `{ }` or `[ ]` a text with `${NAME}` needs quotes"));
    let mut letters = message.chars();
    let message = letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default();
    Refusal { place: Place { length: 1, ..place }, message, help: help.map(str::to_owned) }
}

pub(super) fn place(location: Location) -> Place {
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Place {
        line: number(location.line()),
        column: number(location.column()),
        length: u32::try_from(location.span().len()).unwrap_or(u32::MAX),
    }
}

/// What the parser gives, with the places it gives.
pub(super) enum Raw {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<String>, Spanned<Self>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Anything;
        impl<'de> Visitor<'de> for Anything {
            type Value = Raw;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_unit<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
                Ok(Raw::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
                Ok(Raw::Number(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
                Ok(Raw::Number(value.into()))
            }
            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Raw, E> {
                serde_json::Number::from_f64(value).map(Raw::Number).ok_or_else(|| E::custom("not a finite number"))
            }
            fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
                Ok(Raw::Text(value.to_owned()))
            }
            fn visit_string<E>(self, value: String) -> Result<Raw, E> {
                Ok(Raw::Text(value))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = access.next_element()? {
                    items.push(item);
                }
                Ok(Raw::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = access.next_entry()? {
                    entries.push(entry);
                }
                Ok(Raw::Map(entries))
            }
        }
        deserializer.deserialize_any(Anything)
    }
}
