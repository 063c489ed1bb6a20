//! A document as it was written: a tree of values that know their places.

use std::collections::HashMap;

use serde_yaml::{Location, Spanned};

use super::parse::{Raw, place};
use super::place::{Findings, Place, Source};
use super::variables::{Filled, Gap, fill};
use super::words::quote;

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

impl Node {
    pub(super) fn new(raw: Spanned<Raw>, text: &str) -> Self {
        let mut at = place(raw.referenced);
        let mut written = None;
        let kind = match raw.value {
            Raw::Null => Kind::Null,
            Raw::Bool(value) => Kind::Bool(value),
            Raw::Text(text) => Kind::Text(text),
            Raw::Number(number) => {
                written = Some(slice(text, raw.defined).trim().to_owned()).filter(|written| !written.is_empty());
                Kind::Number(number)
            }
            Raw::List(items) => Kind::List(items.into_iter().map(|item| Self::new(item, text)).collect()),
            Raw::Map(entries) => {
                let entry = |(key, value): (Spanned<String>, Spanned<Raw>)| Entry {
                    place: place(key.referenced),
                    key: key.value,
                    value: Self::new(value, text),
                };
                Kind::Map(entries.into_iter().map(entry).collect())
            }
        };
        match &kind {
            // A mapping in block style begins with its first key.
            Kind::Map(entries) if raw.referenced == raw.defined => {
                let offset = raw.defined.span().byte_offset().unwrap_or(0) as usize;
                let flow = text.as_bytes().get(offset) == Some(&b'{');
                at = entries.first().filter(|_| !flow).map_or(Place { length: 1, ..at }, |first| first.place);
            }
            Kind::Map(_) | Kind::List(_) => at.length = 1,
            _ => {}
        }
        Self { place: at, kind, written }
    }

    /// Takes second keys of the same name and merge keys out of the tree and reports them.
    pub(super) fn unique(&mut self, pointer: &str, findings: &mut Findings) {
        match &mut self.kind {
            Kind::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    item.unique(&format!("{pointer}/{index}"), findings);
                }
            }
            Kind::Map(entries) => {
                let mut seen: HashMap<String, Place> = HashMap::new();
                entries.retain_mut(|entry| {
                    let pointer = child(pointer, &entry.key);
                    if entry.key == "<<" {
                        let help = "write out what it stands for".to_owned();
                        findings.report(entry.place, &pointer, "merge keys (`<<`) are not taken here", Some(help));
                        return false;
                    }
                    if let Some(first) = seen.get(&entry.key) {
                        let message = format!("duplicate key {}{}", quote(&entry.key), within(&pointer));
                        let help = format!("it is first written in line {}", first.line);
                        findings.report(entry.place, &pointer, message, Some(help));
                        return false;
                    }
                    seen.insert(entry.key.clone(), entry.place);
                    entry.value.unique(&pointer, findings);
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
        findings: &mut Findings,
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
                        findings.report(place, pointer, message, Some(help));
                    }
                    self.kind = Kind::Unknown;
                }
            },
            Kind::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    item.fill(&format!("{pointer}/{index}"), variables, source, findings);
                }
            }
            Kind::Map(entries) => {
                for entry in entries {
                    entry.value.fill(&child(pointer, &entry.key), variables, source, findings);
                }
            }
            _ => {}
        }
    }
}

/// What is written at a place.
fn slice(text: &str, location: Location) -> &str {
    let span = location.span();
    let (start, length) = (span.byte_offset().unwrap_or(0) as usize, span.byte_len().unwrap_or(0) as usize);
    text.get(start..start.saturating_add(length)).unwrap_or_default()
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

/// The key of a segment of a pointer.
pub(super) fn unescape(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
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
            words.push_str(&unescape(segment));
        }
    }
    format!(" in {}", quote(&words))
}
