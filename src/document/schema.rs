//! What a JSON Schema says about one value, with its references followed and its alternatives side by side.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use regex::Regex;
use serde_json::{Map, Value};

/// References that refer to each other end here.
const DEEPEST: usize = 32;

/// A schema that says something itself: no reference, no list of alternatives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaf<'a> {
    pub(super) schema: &'a Map<String, Value>,
    /// What to say where the value is something else; the outermost schema knows best.
    pub(super) message: Option<&'a str>,
    /// What is expected, in human words.
    pub(super) expected: Option<&'a str>,
}

impl<'a> Leaf<'a> {
    /// Whether a value of this JSON type may be meant.
    pub(super) fn takes(&self, kind: &str) -> bool {
        match self.schema.get("type") {
            Some(Value::String(name)) => name == kind,
            Some(Value::Array(names)) => names.iter().any(|name| name == kind),
            _ if self.schema.contains_key("properties") => kind == "object",
            _ if self.schema.contains_key("items") || self.schema.contains_key("prefixItems") => kind == "array",
            _ => match self.words() {
                Some(values) => values.iter().any(|value| match value {
                    Value::String(_) => kind == "string",
                    Value::Bool(_) => kind == "boolean",
                    Value::Number(number) => kind == "number" || kind == "integer" && !number.is_f64(),
                    _ => false,
                }),
                None => true,
            },
        }
    }

    /// The values of an enum.
    pub(super) fn words(&self) -> Option<&'a [Value]> {
        match (self.schema.get("const"), self.schema.get("enum")) {
            (Some(value), _) => Some(std::slice::from_ref(value)),
            (None, Some(Value::Array(values))) => Some(values),
            _ => None,
        }
    }

    /// The tag of an externally tagged variant: an object with one key that must be there.
    pub(super) fn tag(&self) -> Option<(&'a str, &'a Value)> {
        let properties = self.schema.get("properties")?.as_object()?;
        let (tag, inner) = properties.iter().next()?;
        (properties.len() == 1 && self.required().eq([tag.as_str()])).then_some((tag, inner))
    }

    /// The keys that a mapping must have.
    pub(super) fn required(&self) -> impl Iterator<Item = &'a str> {
        self.schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }

    /// Whether a text has the form that is asked for, where one is.
    pub(super) fn matches(&self, text: &str) -> bool {
        // Patterns come from our own schemas only: there are few, and compiling them costs more than all the rest.
        static COMPILED: LazyLock<Mutex<HashMap<String, Option<Regex>>>> = LazyLock::new(Mutex::default);
        let Some(pattern) = self.schema.get("pattern").and_then(Value::as_str) else { return true };
        let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
        let regex = compiled.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).ok());
        regex.as_ref().is_none_or(|regex| regex.is_match(text))
    }

    /// Whether it demands nothing.
    pub(super) fn takes_anything(&self) -> bool {
        const SAYINGS: [&str; 6] = ["title", "description", "default", "examples", "deprecated", "$comment"];
        self.schema.keys().all(|word| SAYINGS.contains(&word.as_str()) || word.starts_with("x-"))
    }
}

/// Follows references and alternatives down to what can be compared with a value; the null of an optional value is
/// left out, since whoever has no value leaves the key out.
pub(super) fn leaves<'a>(root: &'a Value, schema: &'a Value) -> Vec<Leaf<'a>> {
    let mut leaves = Vec::new();
    gather(root, schema, None, None, 0, &mut leaves);
    leaves
}

fn gather<'a>(
    root: &'a Value,
    schema: &'a Value,
    message: Option<&'a str>,
    expected: Option<&'a str>,
    depth: usize,
    leaves: &mut Vec<Leaf<'a>>,
) {
    static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    let Value::Object(object) = schema else {
        // `true` takes everything; `false` stands only where nothing can be written.
        return leaves.push(Leaf { schema: &EMPTY, message, expected });
    };
    let message = message.or_else(|| object.get("x-message")?.as_str());
    let expected = expected.or_else(|| object.get("x-expected")?.as_str());
    if depth > DEEPEST {
        return;
    }
    if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
        let target = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        if let Some(target) = target {
            gather(root, target, message, expected, depth + 1, leaves);
        }
        return;
    }
    // What has a type of its own only restricts it by alternatives, which is left to whoever reads the value.
    let own = object.contains_key("type") || object.contains_key("properties");
    // A reference with a description beside it is an `allOf` of one in older drafts; no schema of ours has others.
    let branches = ["anyOf", "oneOf", "allOf"].iter().find_map(|word| object.get(*word)?.as_array());
    match branches {
        Some(branches) if !own => {
            for branch in branches {
                gather(root, branch, message, expected, depth + 1, leaves);
            }
        }
        _ if object.get("type").is_some_and(|name| name == "null") => {}
        _ => leaves.push(Leaf { schema: object, message, expected }),
    }
}
