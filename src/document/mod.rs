//! Reads our YAML documents so that every problem of a file is reported at once, with its place and the way out.
//!
//! A text becomes a tree of values that know their places ([`node`]), variables are put in ([`variables`]), the tree is
//! compared with the schema of what is to be read ([`walk`]), and serde makes the value from what is sound of it.
//! Aliases are expanded within narrow bounds; merge keys (`<<`) are refused, since what they stand for cannot be
//! pointed at.

mod expect;
mod node;
mod problem;
mod variables;
mod walk;

use std::collections::HashMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::node::{Kind, Node};
use self::problem::{Place, Source};
pub use self::problem::{Problem, Problems, Severity};
use self::walk::Walk;

/// No document of ours is larger; what is, is not one.
const LARGEST: usize = 1 << 20;

/// What was read: the value where one could be made, and everything that is wrong.
#[derive(Debug)]
pub struct Reading<T> {
    /// What the document says, without what is wrong in it; a value may be here although there are errors.
    pub value: Option<T>,
    /// Everything that is wrong.
    pub problems: Problems,
}

/// Reads a document. `name` is shown in messages, `variables` resolves `${NAME}`.
pub fn read<T: DeserializeOwned + JsonSchema>(
    name: &str,
    text: &str,
    variables: &dyn Fn(&str) -> Option<String>,
) -> Reading<T> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > LARGEST {
        let head: String = text.chars().take(200).collect();
        let mut problems = Problems::new(Arc::new(Source::new(name, &head)));
        let help = "no document of ours is that large: is it the right file?".to_owned();
        problems.found(Some(String::new()), Place::default(), "the document is larger than 1 MiB", Some(help));
        return Reading { value: None, problems };
    }
    let source = Arc::new(Source::new(name, text));
    let mut problems = Problems::new(Arc::clone(&source));
    let mut tree = match node::parse(text, &source) {
        Ok(tree) => tree,
        Err((place, message, help)) => {
            problems.found(Some(String::new()), place, &message, help);
            return Reading { value: None, problems };
        }
    };
    tree.unique("", &mut problems);
    tree.fill("", variables, &source, &mut problems);
    let mut places = HashMap::new();
    tree.places("", None, &mut places);
    problems.set_places(places);

    let schema = schemars::schema_for!(T).to_value();
    let mut walk = Walk::new(&schema);
    let sound = walk.value(&tree, &schema, "", None);
    problems.set_removed(walk.removed());
    for found in std::mem::take(&mut walk.found) {
        problems.found(Some(found.pointer), found.place, &found.message, found.help);
    }
    if walk.more > 0 {
        let message = format!("{} more problems are not shown", walk.more);
        let end = Place { line: u32::MAX, column: 1, length: 1 };
        problems.found(None, end, &message, None);
    }
    let value = sound.and_then(|sound| make(&sound, &tree, &mut problems));
    Reading { value, problems }
}

/// Top-level keys of a document, to tell an experiment from a system file or a game day.
pub fn top_level_keys(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > LARGEST {
        return Vec::new();
    }
    match node::parse(text, &Source::new("", "")).map(|tree| tree.kind) {
        Ok(Kind::Map(entries)) => entries.into_iter().map(|entry| entry.key).collect(),
        _ => Vec::new(),
    }
}

/// Nearest of `words` to `word`, where one is near enough to be meant.
pub fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 64;
    let plain = |text: &str| text.to_lowercase().replace(['-', ' '], "_");
    let length = word.chars().count();
    if length == 0 || length > LONGEST {
        return None;
    }
    let word = plain(word);
    words
        .into_iter()
        .filter(|candidate| candidate.len() <= LONGEST)
        .filter_map(|candidate| {
            let other = plain(candidate);
            let begins = length >= 3 && other.starts_with(&word);
            let distance = if begins { 1 } else { strsim::osa_distance(&word, &other) };
            (distance <= length.max(other.chars().count()).div_ceil(3) && distance < length.max(2))
                .then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Makes the value. What serde refuses although the schema did not is placed by the line of a text in which each
/// value has a line of its own.
fn make<T: DeserializeOwned>(sound: &Value, tree: &Node, problems: &mut Problems) -> Option<T> {
    let text = serde_json::to_string_pretty(sound).expect("a value without foreign keys can be written");
    let error = match serde_json::from_str(&text) {
        Ok(value) => return Some(value),
        Err(error) => error,
    };
    let mut lines = Vec::new();
    pointers(sound, "", &mut lines);
    let pointer = error.line().checked_sub(1).and_then(|line| lines.get(line)).map_or("", String::as_str);
    let message = error.to_string();
    let message = message.rfind(" at line ").map_or(message.as_str(), |end| &message[..end]);
    if !pointer.is_empty() || !problems.has_errors() {
        problems.error(pointer, hide(message, tree), None);
    }
    None
}

/// The pointer of the value in each line of pretty JSON.
fn pointers(value: &Value, pointer: &str, lines: &mut Vec<String>) {
    lines.push(pointer.to_owned());
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                pointers(value, &node::child(pointer, key), lines);
            }
            lines.push(pointer.to_owned());
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, value) in items.iter().enumerate() {
                pointers(value, &format!("{pointer}/{index}"), lines);
            }
            lines.push(pointer.to_owned());
        }
        _ => {}
    }
}

/// A message of serde's without what variables stand for, which may be secrets.
fn hide(message: &str, node: &Node) -> String {
    match &node.kind {
        Kind::Filled(text) if !text.is_empty() => {
            let written = node.written.as_deref().unwrap_or("…");
            message.replace(&format!("{text:?}"), &format!("`{written}`")).replace(text, written)
        }
        Kind::List(items) => items.iter().fold(message.to_owned(), |message, item| hide(&message, item)),
        Kind::Map(entries) => entries.iter().fold(message.to_owned(), |message, entry| hide(&message, &entry.value)),
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests;
