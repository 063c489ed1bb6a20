//! A document as it was written: a tree of values that know their places.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_yaml::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};
use serde_yaml::{Location, MessageFormatter as _, Spanned, UserMessageFormatter};

use super::problem::{Place, Problems, Source, Written};
use super::variables::{Filled, Gap, fill};

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) kind: Kind,
    /// The text as it was written, where that is not the value's own: numbers, and texts with variables in them.
    pub(super) written: Option<String>,
}

/// What YAML makes of a value.
#[derive(Debug)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    /// A text that variables were put into, which may stand for a number or a boolean as well.
    Filled(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// A problem is reported already.
    Unknown,
}

/// A key with its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) value: Node,
}

/// Reads YAML: one document, within bounds that keep a hostile one cheap.
pub(super) fn parse(text: &str, source: &Source) -> Result<Node, (Place, String, Option<String>)> {
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
            max_depth: 64,
            max_documents: 1,
            max_events: 100_000,
            max_recorded_anchor_events: 20_000,
            flow_nesting_limit: 64,
        },
        alias_limits: serde_yaml::alias_limits! {
            max_total_replayed_events: 20_000,
            max_replay_stack_depth: 16,
        },
    };
    let raw = serde_yaml::from_str_with_options::<Spanned<Raw>>(text, options).map_err(|error| {
        let place = error.location().map(place).unwrap_or_default();
        let message = UserMessageFormatter.format_message(error.without_snippet()).into_owned();
        // The bounds are ours, and so are their words.
        let message = match error.without_snippet() {
            serde_yaml::Error::Budget { .. } | serde_yaml::Error::AliasError { .. } if !message.contains("unknown") => {
                format!("the document is too large or too deeply nested ({message})")
            }
            _ => message,
        };
        let help =
            source.line(place.line).contains("${").then(|| "within `{ }` or `[ ]` a `${NAME}` needs quotes".into());
        (Place { length: 1, ..place }, message, help)
    })?;
    Ok(Node::new(raw, source))
}

fn place(location: Location) -> Place {
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Place {
        line: number(location.line()),
        column: number(location.column()),
        length: u32::try_from(location.span().len()).unwrap_or(u32::MAX),
    }
}

impl Node {
    fn new(raw: Spanned<Raw>, source: &Source) -> Self {
        let mut place_here = place(raw.referenced);
        let mut written = None;
        let kind = match raw.value {
            Raw::Null => Kind::Null,
            Raw::Bool(value) => Kind::Bool(value),
            Raw::Text(text) => Kind::Text(text),
            Raw::Number(number) => {
                written = Some(source.at(place(raw.defined)).trim().to_owned()).filter(|text| !text.is_empty());
                Kind::Number(number)
            }
            Raw::List(items) => Kind::List(items.into_iter().map(|item| Self::new(item, source)).collect()),
            Raw::Map(entries) => Kind::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| Entry {
                        place: place(key.referenced),
                        key: key.value,
                        value: Self::new(value, source),
                    })
                    .collect(),
            ),
        };
        match &kind {
            Kind::Map(entries) if place_here.length <= 1 => {
                let flow = source.at(Place { length: 1, ..place_here }) == "{";
                place_here = match entries.first() {
                    // A mapping in block style begins with its first key.
                    Some(first) if !flow => first.place,
                    _ => Place { length: 1, ..place_here },
                };
            }
            Kind::Map(_) | Kind::List(_) => place_here.length = 1,
            _ => {}
        }
        Self { place: place_here, kind, written }
    }

    /// Takes second keys of the same name and merge keys out of the tree and reports them.
    pub(super) fn unique(&mut self, pointer: &str, problems: &mut Problems) {
        match &mut self.kind {
            Kind::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    item.unique(&format!("{pointer}/{index}"), problems);
                }
            }
            Kind::Map(entries) => {
                let mut seen: HashMap<String, Place> = HashMap::new();
                entries.retain_mut(|entry| {
                    let pointer = child(pointer, &entry.key);
                    if entry.key == "<<" {
                        let help = "write out what it stands for".to_owned();
                        problems.found(Some(pointer), entry.place, "merge keys (`<<`) are not taken here", Some(help));
                        return false;
                    }
                    if let Some(first) = seen.get(&entry.key) {
                        let message = format!("duplicate key {}{}", quote(&entry.key), within(&pointer));
                        let help = format!("it is first written in line {}", first.line);
                        problems.found(Some(pointer), entry.place, &message, Some(help));
                        return false;
                    }
                    seen.insert(entry.key.clone(), entry.place);
                    entry.value.unique(&pointer, problems);
                    true
                });
            }
            _ => {}
        }
    }

    /// Puts variables into the texts of the tree.
    pub(super) fn fill(
        &mut self,
        pointer: &str,
        variables: &dyn Fn(&str) -> Option<String>,
        source: &Source,
        problems: &mut Problems,
    ) {
        match &mut self.kind {
            Kind::Text(text) => match fill(text, variables) {
                Filled::Plain(plain) => *text = plain,
                Filled::From(filled) => {
                    self.written = Some(std::mem::take(text));
                    self.kind = Kind::Filled(filled);
                }
                Filled::Gaps(gaps) => {
                    for gap in gaps {
                        let (seek, message, help) = match gap {
                            Gap::Unset(name) => (
                                format!("${{{name}}}"),
                                format!("the variable `{name}` is not set"),
                                format!("set it, or give it a default: `${{{name}:-…}}`"),
                            ),
                            Gap::Unreadable(text) => (
                                text.clone(),
                                format!("{} is not a variable", quote(&text)),
                                "write `${NAME}` or `${NAME:-default}`, or `$${` for a plain `${`".to_owned(),
                            ),
                        };
                        let place = narrow(self.place, &seek, source);
                        problems.found(Some(pointer.to_owned()), place, &message, Some(help));
                    }
                    self.kind = Kind::Unknown;
                }
            },
            Kind::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    item.fill(&format!("{pointer}/{index}"), variables, source, problems);
                }
            }
            Kind::Map(entries) => {
                for entry in entries {
                    entry.value.fill(&child(pointer, &entry.key), variables, source, problems);
                }
            }
            _ => {}
        }
    }

    /// The places of everything in the tree, by pointer.
    pub(super) fn places(&self, pointer: &str, key: Option<Place>, places: &mut HashMap<String, Written>) {
        places.insert(pointer.to_owned(), Written { key, value: self.place });
        match &self.kind {
            Kind::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    item.places(&format!("{pointer}/{index}"), None, places);
                }
            }
            Kind::Map(entries) => {
                for entry in entries {
                    entry.value.places(&child(pointer, &entry.key), Some(entry.place), places);
                }
            }
            _ => {}
        }
    }
}

/// The part of a place where `seek` stands, where it can be found in the same line.
fn narrow(place: Place, seek: &str, source: &Source) -> Place {
    let line = source.line(place.line);
    let before: usize = line.chars().take(place.column.max(1) as usize - 1).map(char::len_utf8).sum();
    match line[before..].find(seek) {
        Some(at) => Place {
            line: place.line,
            column: place.column + line[before..before + at].chars().count() as u32,
            length: seek.chars().count() as u32,
        },
        None => place,
    }
}

/// The pointer of what stands under a key.
pub(super) fn child(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// Where a key stands, in words: ` in the document`, `` in `steady_state[0].error_rate` ``.
pub(super) fn within(pointer: &str) -> String {
    let parent = pointer.rfind('/').map_or("", |end| &pointer[..end]);
    if parent.is_empty() {
        return " in the document".to_owned();
    }
    let mut words = String::new();
    for segment in parent.split('/').skip(1) {
        if segment.bytes().all(|b| b.is_ascii_digit()) && !words.is_empty() {
            words.push_str(&format!("[{segment}]"));
        } else {
            if !words.is_empty() {
                words.push('.');
            }
            words.push_str(&segment.replace("~1", "/").replace("~0", "~"));
        }
    }
    format!(" in {}", quote(&words))
}

/// A text of the document in a message: short, and told from our own words.
pub(super) fn quote(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

/// What the parser gives, with the places it gives.
enum Raw {
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
                    if entries.len() > 20_000 {
                        return Err(A::Error::custom("too many keys"));
                    }
                }
                Ok(Raw::Map(entries))
            }
        }
        deserializer.deserialize_any(Anything)
    }
}
