//! Reads our YAML documents so that every problem of a file is reported at once, with its place and the way out.
//!
//! A text becomes a tree of values that know their places (`parse`, `node`), variables are put in (`variables`), the
//! tree is compared with the schema of what is to be read (`walk`), and serde makes the value from what is sound of it.
//! What the schema does not know is checked by whoever reads, who adds to the same [`Problems`].
//!
//! Texts may be hostile: they are bounded in size, in depth and in what their aliases expand to. Merge keys (`<<`) are
//! refused, since what they stand for cannot be pointed at.

mod expect;
mod load;
mod node;
mod parse;
mod place;
mod problem;
mod schema;
mod variables;
mod walk;
mod words;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

pub use self::load::{load, load_ordinary, load_stdin};
use self::node::{Kind, Node};
use self::parse::Refusal;
use self::place::{Findings, Place, Source};
pub use self::problem::{Problem, Problems, Severity};
use self::walk::Walk;
pub use self::words::nearest;

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
    read_around(name, text, variables, None)
}

/// Reads a document for the sake of one of its keys: what is of no use elsewhere is reported and left out.
pub fn read_for<T: DeserializeOwned + JsonSchema>(
    key: &str,
    name: &str,
    text: &str,
    variables: &dyn Fn(&str) -> Option<String>,
) -> Reading<T> {
    read_around(name, text, variables, Some(key))
}

fn read_around<T: DeserializeOwned + JsonSchema>(
    name: &str,
    text: &str,
    variables: &dyn Fn(&str) -> Option<String>,
    needed: Option<&str>,
) -> Reading<T> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Source::new(name, if text.len() > LARGEST { "" } else { text });
    let mut tree = match parse(text) {
        Ok(tree) => tree,
        Err(Refusal { place, message, help }) => {
            let mut findings = Findings::default();
            findings.report(place, "", message, help);
            return Reading { value: None, problems: Problems::new(source, None, findings, BTreeMap::new()) };
        }
    };
    let mut findings = Findings::default();
    tree.unique("", &mut findings);
    tree.fill("", variables, &source, &mut findings);
    let schema = schemars::schema_for!(T).to_value();
    let mut walk = Walk::new(&schema, findings);
    let sound = walk.value(&tree, &schema, "", None);
    let removed = walk.removed();
    let secrets = secrets(&tree);
    let mut problems = Problems::new(source, Some(tree), walk.findings, removed);
    let value = sound.and_then(|sound| make(sound, &secrets, &mut problems, needed));
    Reading { value, problems }
}

fn parse(text: &str) -> Result<Node, Refusal> {
    if text.len() > LARGEST {
        let help = "no document of ours is that large: is it the right file?".to_owned();
        return Err(Refusal {
            place: Place::default(),
            message: "the document is larger than 1 MiB".to_owned(),
            help: Some(help),
        });
    }
    parse::parse(text)
}

/// Top-level keys of a document, to tell an experiment from a system file or a game day.
pub fn top_level_keys(text: &str) -> Vec<String> {
    match parse(text.strip_prefix('\u{feff}').unwrap_or(text)).map(|tree| tree.kind) {
        Ok(Kind::Map(entries)) => entries.into_iter().map(|entry| entry.key).collect(),
        _ => Vec::new(),
    }
}

/// Makes the value; what serde refuses although the schema did not is placed as well. Where one key is needed, others that
/// serde refuses are left out.
fn make<T: DeserializeOwned>(
    mut sound: Value,
    secrets: &[(String, String)],
    problems: &mut Problems,
    needed: Option<&str>,
) -> Option<T> {
    loop {
        let refused = match make_once(&sound, secrets, problems) {
            Ok(value) => return Some(value),
            Err(pointer) => pointer,
        };
        let key = node::unescape(refused.split('/').nth(1)?);
        if needed.is_none_or(|needed| needed == key) {
            return None;
        }
        sound.as_object_mut()?.remove(&key)?;
    }
}

/// Makes the value, or tells what stands in the way.
fn make_once<T: DeserializeOwned>(
    sound: &Value,
    secrets: &[(String, String)],
    problems: &mut Problems,
) -> Result<T, String> {
    let error = match serde_path_to_error::deserialize::<_, T>(sound) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let mut pointer = String::new();
    for segment in error.path() {
        let next = match segment {
            Segment::Seq { index } => format!("{pointer}/{index}"),
            Segment::Map { key } | Segment::Enum { variant: key } => node::child(&pointer, key),
            Segment::Unknown => break,
        };
        // A variant that is only a word has a name, but nothing below it.
        if sound.pointer(&next).is_none() {
            break;
        }
        pointer = next;
    }
    // Something that is missing because it was left out would only be the same problem again.
    if !pointer.is_empty() || !problems.has_errors() {
        problems.error(&pointer, hide(&error.inner().to_string(), secrets), None);
    }
    Err(pointer)
}

/// What variables stand for in a tree, beside what is written instead.
fn secrets(node: &Node) -> Vec<(String, String)> {
    match &node.kind {
        Kind::Filled(text) if !text.is_empty() => vec![(text.clone(), node.written.clone().unwrap_or_default())],
        Kind::List(items) => items.iter().flat_map(secrets).collect(),
        Kind::Map(entries) => entries.iter().flat_map(|entry| secrets(&entry.value)).collect(),
        _ => Vec::new(),
    }
}

/// A message of serde's, which shows values, without what may be secret.
fn hide(message: &str, secrets: &[(String, String)]) -> String {
    secrets.iter().fold(message.to_owned(), |message, (text, written)| {
        message.replace(&format!("{text:?}"), &format!("`{written}`")).replace(text, written)
    })
}

#[cfg(test)]
mod drafts;
#[cfg(test)]
mod tests;
