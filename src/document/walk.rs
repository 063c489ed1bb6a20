//! Compares a document with a schema to its end, instead of stopping at the first mistake.
//!
//! The walk gives back what is sound of a value, for serde, and collects what is not.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value};

use super::expect::{self, Complaint};
use super::nearest;
use super::node::{Entry, Kind, Node, child, quote, within};
use super::problem::{KEPT, Place};

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
        let required = self.schema.get("required")?.as_array()?;
        let (tag, inner) = properties.iter().next()?;
        (properties.len() == 1 && required.len() == 1 && required[0] == tag.as_str()).then_some((tag, inner))
    }
}

/// One problem that the walk found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) pointer: String,
    pub(super) place: Place,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// A walk through a document along its schema.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    root: &'a Value,
    pub(super) found: Vec<Found>,
    removed: Vec<(String, usize)>,
    /// Problems beyond those that are kept.
    pub(super) more: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(root: &'a Value) -> Self {
        Self { root, found: Vec::new(), removed: Vec::new(), more: 0 }
    }

    /// Entries that were left out of lists, by the list's pointer.
    pub(super) fn removed(&self) -> BTreeMap<String, Vec<usize>> {
        let mut lists: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (list, index) in &self.removed {
            lists.entry(list.clone()).or_default().push(*index);
        }
        lists
    }

    /// Walks a value; gives what is sound of it.
    pub(super) fn value(&mut self, node: &Node, schema: &'a Value, pointer: &str, key: Option<Place>) -> Option<Value> {
        let mut leaves = Vec::new();
        self.leaves(schema, None, None, 0, &mut leaves);
        match &node.kind {
            Kind::Unknown => None,
            Kind::Null => self.null(node, &leaves, pointer, key),
            _ if leaves.iter().any(|leaf| is_anything(leaf)) => Some(anything(node)),
            Kind::Map(entries) => self.map(node, entries, &leaves, pointer, key),
            Kind::List(items) => self.list(node, items, &leaves, pointer),
            _ => match expect::scalar(node, &leaves) {
                Ok(value) => Some(value),
                Err(complaint) => self.complain(node.place, pointer, complaint),
            },
        }
    }

    /// Follows references and alternatives down to what can be compared with a value.
    fn leaves(
        &self,
        schema: &'a Value,
        message: Option<&'a str>,
        expected: Option<&'a str>,
        depth: usize,
        into: &mut Vec<Leaf<'a>>,
    ) {
        static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
        // `true` takes everything; `false` is only written where nothing can be.
        let Value::Object(object) = schema else { return into.push(Leaf { schema: &EMPTY, message, expected }) };
        let message = message.or_else(|| object.get("x-message")?.as_str());
        let expected = expected.or_else(|| object.get("x-expected")?.as_str());
        if depth > 32 {
            return;
        }
        if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
            if let Some(target) = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)) {
                self.leaves(target, message, expected, depth + 1, into);
            }
            return;
        }
        let own = object.contains_key("type") || object.contains_key("properties");
        let branches = ["anyOf", "oneOf", "allOf"].iter().find_map(|word| object.get(*word)?.as_array());
        match branches {
            Some(branches) if !own => {
                for branch in branches {
                    self.leaves(branch, message, expected, depth + 1, into);
                }
            }
            // The null of an optional value: whoever has no value leaves the key out.
            _ if object.get("type").is_some_and(|name| name == "null") => {}
            _ => into.push(Leaf { schema: object, message, expected }),
        }
    }

    fn report(&mut self, place: Place, pointer: &str, message: impl Into<String>, help: Option<String>) {
        if self.found.len() >= KEPT {
            self.more += 1;
            return;
        }
        self.found.push(Found { pointer: pointer.to_owned(), place, message: message.into(), help });
    }

    fn complain(&mut self, place: Place, pointer: &str, complaint: Complaint) -> Option<Value> {
        self.report(place, pointer, complaint.message, complaint.help);
        None
    }

    fn null(&mut self, node: &Node, leaves: &[Leaf<'a>], pointer: &str, key: Option<Place>) -> Option<Value> {
        if leaves.is_empty() || leaves.iter().any(is_anything) {
            return Some(Value::Null);
        }
        let name = pointer.rsplit('/').next().unwrap_or_default().replace("~1", "/").replace("~0", "~");
        let (message, way) = match key {
            Some(_) => (format!("{} has no value", quote(&name)), "remove the key or give it a value"),
            None if pointer.is_empty() => ("the document is empty".to_owned(), "write at least its first key"),
            None => ("this entry has no value".to_owned(), "remove it or give it a value"),
        };
        let help = format!("{way}: {}", expect::nouns(leaves));
        self.report(key.unwrap_or(node.place), pointer, message, Some(help));
        None
    }

    fn list(&mut self, node: &Node, items: &[Node], leaves: &[Leaf<'a>], pointer: &str) -> Option<Value> {
        let Some(leaf) = leaves.iter().find(|leaf| leaf.takes("array")) else {
            return self.complain(node.place, pointer, expect::mismatch(node, leaves));
        };
        let bound = |name: &str| leaf.schema.get(name).and_then(Value::as_u64);
        let count = items.len() as u64;
        let entries = |n: u64| if n == 1 { "1 entry".to_owned() } else { format!("{n} entries") };
        if let Some(least) = bound("minItems").filter(|least| count < *least) {
            let message = leaf.message.map_or_else(
                || format!("at least {} must be in this list, not {count}", entries(least)),
                str::to_owned,
            );
            self.report(node.place, pointer, message, None);
        }
        if let Some(most) = bound("maxItems").filter(|most| count > *most) {
            let message = leaf
                .message
                .map_or_else(|| format!("at most {} may be in this list, not {count}", entries(most)), str::to_owned);
            self.report(node.place, pointer, message, None);
        }
        let first = leaf.schema.get("prefixItems").and_then(Value::as_array);
        let mut sound = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let schema = first.and_then(|first| first.get(index)).or_else(|| leaf.schema.get("items"));
            let value = match schema {
                Some(schema) => self.value(item, schema, &format!("{pointer}/{index}"), None),
                None => Some(anything(item)),
            };
            match value {
                Some(value) => sound.push(value),
                None => self.removed.push((pointer.to_owned(), index)),
            }
        }
        Some(Value::Array(sound))
    }

    fn map(
        &mut self,
        node: &Node,
        entries: &[Entry],
        leaves: &[Leaf<'a>],
        pointer: &str,
        key: Option<Place>,
    ) -> Option<Value> {
        let objects: Vec<Leaf<'a>> = leaves.iter().filter(|leaf| leaf.takes("object")).copied().collect();
        let (tagged, plain): (Vec<Leaf<'a>>, Vec<Leaf<'a>>) = objects.iter().partition(|leaf| leaf.tag().is_some());
        match (tagged.as_slice(), plain.as_slice()) {
            ([], []) => self.complain(node.place, pointer, expect::mismatch(node, leaves)),
            ([leaf], []) | ([], [leaf]) => self.object(node, entries, *leaf, pointer, key),
            (tagged, []) => self.choice(node, entries, tagged, leaves, pointer),
            _ => {
                // Several shapes: the one that fits, or else the one that shares most keys with what is written.
                let shared = |leaf: &Leaf<'a>| {
                    let properties = leaf.schema.get("properties").and_then(Value::as_object);
                    let known = |entry: &&Entry| properties.is_some_and(|known| known.contains_key(&entry.key));
                    entries.iter().filter(known).count()
                };
                let mut best = objects[0];
                for leaf in &objects {
                    let (found, removed, more) = (self.found.len(), self.removed.len(), self.more);
                    let value = self.object(node, entries, *leaf, pointer, key);
                    if value.is_some() && self.found.len() == found && self.more == more {
                        return value;
                    }
                    self.found.truncate(found);
                    self.removed.truncate(removed);
                    self.more = more;
                    if shared(leaf) > shared(&best) {
                        best = *leaf;
                    }
                }
                self.object(node, entries, best, pointer, key)
            }
        }
    }

    fn choice(
        &mut self,
        node: &Node,
        entries: &[Entry],
        tagged: &[Leaf<'a>],
        leaves: &[Leaf<'a>],
        pointer: &str,
    ) -> Option<Value> {
        let tags: Vec<&str> = tagged.iter().filter_map(|leaf| Some(leaf.tag()?.0)).collect();
        let mut sound = None;
        for entry in entries {
            let at = child(pointer, &entry.key);
            let chosen = tagged.iter().find_map(|leaf| leaf.tag().filter(|(tag, _)| *tag == entry.key));
            if let Some((_, inner)) = chosen {
                let value = self.value(&entry.value, inner, &at, Some(entry.place));
                sound = value.map(|value| Value::Object(Map::from_iter([(entry.key.clone(), value)])));
            } else {
                let alone = expect::words(leaves).contains(&entry.key.as_str());
                let help = if alone {
                    format!("write {} alone, without a colon", quote(&entry.key))
                } else {
                    known(&entry.key, &tags)
                };
                let message = format!("unknown key {}{}", quote(&entry.key), within(&at));
                self.report(entry.place, &at, message, Some(help));
            }
        }
        match entries {
            [_] => sound,
            [] => {
                let message = format!("nothing is chosen{}", within(&child(pointer, "")));
                self.report(node.place, pointer, message, Some(format!("write one of {}", expect::either(&tags))));
                None
            }
            [_, second, ..] => {
                let written: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
                let message = format!("only one key can be chosen here, not {}", expect::both(&written));
                self.report(second.place, pointer, message, None);
                None
            }
        }
    }

    fn object(
        &mut self,
        node: &Node,
        entries: &[Entry],
        leaf: Leaf<'a>,
        pointer: &str,
        key: Option<Place>,
    ) -> Option<Value> {
        let schema: &'a Map<String, Value> = leaf.schema;
        let properties = schema.get("properties").and_then(Value::as_object);
        let required: Vec<&str> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let others = match (schema.get("additionalProperties"), properties) {
            (Some(Value::Object(_) | Value::Bool(true)), _) => schema.get("additionalProperties"),
            (None, None) => Some(&Value::Bool(true)),
            // Where a schema lists keys, it lists all of them: a key that nobody reads is a mistake.
            _ => None,
        };
        let here: HashSet<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
        let free: Vec<&str> = properties
            .into_iter()
            .flat_map(Map::keys)
            .map(String::as_str)
            .filter(|name| !here.contains(name))
            .collect();
        let mut meant = HashSet::new();
        let mut sound = Map::new();
        let mut whole = true;
        for entry in entries {
            let at = child(pointer, &entry.key);
            let inner = properties.and_then(|properties| properties.get(&entry.key)).or(others);
            let Some(inner) = inner else {
                meant.extend(nearest(&entry.key, free.iter().copied()));
                let message = format!("unknown key {}{}", quote(&entry.key), within(&at));
                self.report(entry.place, &at, message, Some(known(&entry.key, &free)));
                continue;
            };
            if let Some(names) = schema.get("propertyNames") {
                let name = Node { place: entry.place, kind: Kind::Text(entry.key.clone()), written: None };
                if self.value(&name, names, &at, Some(entry.place)).is_none() {
                    continue;
                }
            }
            match self.value(&entry.value, inner, &at, Some(entry.place)) {
                Some(value) => drop(sound.insert(entry.key.clone(), value)),
                None => whole &= !required.contains(&entry.key.as_str()),
            }
        }
        for name in required.iter().filter(|name| !here.contains(*name)) {
            whole = false;
            if meant.contains(name) {
                continue;
            }
            let at = child(pointer, name);
            let says = properties.and_then(|properties| properties.get(*name)?.get("description")?.as_str());
            let help = says.and_then(|says| says.lines().next()).map(|says| format!("{}: {says}", quote(name)));
            let message = format!("missing key {}{}", quote(name), within(&at));
            self.report(key.unwrap_or(node.place), &at, message, help);
        }
        let least = schema.get("minProperties").and_then(Value::as_u64);
        if least.is_some_and(|least| (entries.len() as u64) < least) {
            let message =
                leaf.message.map_or_else(|| "at least one key must be written here".to_owned(), str::to_owned);
            self.report(key.unwrap_or(node.place), pointer, message, None);
        }
        // What the whole document lacks is up to its type: the rest of it can still be looked at.
        (whole || pointer.is_empty()).then_some(Value::Object(sound))
    }
}

/// The way out of an unknown key: the nearest that could be meant, or all when they are few.
fn known(word: &str, names: &[&str]) -> String {
    match nearest(word, names.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None if names.is_empty() => "remove it".to_owned(),
        None if names.len() <= 12 => format!("known here: {}", expect::either(names)),
        None => format!("known here: {}, and {} more", expect::either(&names[..10]), names.len() - 10),
    }
}

/// A schema without any demand.
fn is_anything(leaf: &Leaf<'_>) -> bool {
    const DEMANDS: [&str; 7] = ["type", "enum", "const", "properties", "items", "additionalProperties", "pattern"];
    !DEMANDS.iter().any(|demand| leaf.schema.contains_key(*demand))
}

/// A value that nobody checks.
fn anything(node: &Node) -> Value {
    match &node.kind {
        Kind::Null | Kind::Unknown => Value::Null,
        Kind::Bool(value) => Value::Bool(*value),
        Kind::Number(number) => Value::Number(number.clone()),
        Kind::Text(text) | Kind::Filled(text) => Value::String(text.clone()),
        Kind::List(items) => Value::Array(items.iter().map(anything).collect()),
        Kind::Map(entries) => {
            Value::Object(entries.iter().map(|entry| (entry.key.clone(), anything(&entry.value))).collect())
        }
    }
}
