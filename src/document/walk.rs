//! Compares a document with a schema to its end, instead of stopping at the first mistake.
//!
//! The walk gives back what is sound of a value, for serde, and collects what is not.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value};

use super::expect::{self, Complaint};
use super::node::{Entry, Kind, Node, child, unescape, within};
use super::place::{Findings, Place};
use super::schema::{Leaf, leaves};
use super::words::{both, either, nearest, quote};

/// A walk through a document along its schema.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    root: &'a Value,
    pub(super) findings: Findings,
    /// Entries that were left out of lists: the list's pointer and the index.
    removed: Vec<(String, usize)>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(root: &'a Value, findings: Findings) -> Self {
        Self { root, findings, removed: Vec::new() }
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
        let leaves = leaves(self.root, schema);
        match &node.kind {
            Kind::Unknown => None,
            Kind::Null => self.null(node, &leaves, pointer, key),
            _ if leaves.iter().any(Leaf::takes_anything) => Some(anything(node)),
            Kind::Map(entries) => self.map(node, entries, &leaves, pointer, key),
            Kind::List(items) => self.list(node, items, &leaves, pointer),
            _ => match expect::scalar(node, &leaves) {
                Ok(value) => Some(value),
                Err(complaint) => self.complain(node.place, pointer, complaint),
            },
        }
    }

    fn report(&mut self, place: Place, pointer: &str, message: impl Into<String>, help: Option<String>) {
        self.findings.report(place, pointer, message, help);
    }

    fn complain(&mut self, place: Place, pointer: &str, complaint: Complaint) -> Option<Value> {
        self.report(place, pointer, complaint.message, complaint.help);
        None
    }

    fn null(&mut self, node: &Node, leaves: &[Leaf<'a>], pointer: &str, key: Option<Place>) -> Option<Value> {
        if leaves.is_empty() || leaves.iter().any(Leaf::takes_anything) {
            return Some(Value::Null);
        }
        let name = unescape(pointer.rsplit('/').next().unwrap_or_default());
        let (message, way) = match key {
            Some(_) => (format!("{} has no value", quote(&name)), "remove the key or give it a value"),
            None if pointer.is_empty() => {
                let help = "write at least its first key".to_owned();
                self.report(Place::default(), pointer, "the document is empty", Some(help));
                return None;
            }
            None => ("this entry has no value".to_owned(), "remove it or give it a value"),
        };
        let bare = |leaf: &Leaf<'_>| leaf.takes("object") && leaf.schema.get("required").is_none();
        let help = match leaves.iter().any(bare) {
            true => format!("{way}: `{{}}` has the defaults"),
            false => format!("{way}: {}", expect::nouns(leaves)),
        };
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
                // Several shapes: the one that shares most keys with what is written, then the one that misses least.
                let fits = |leaf: &&Leaf<'a>| {
                    let written = |name: &str| entries.iter().any(|entry| entry.key == name);
                    let known = leaf.schema.get("properties").and_then(Value::as_object);
                    let shared = known.map_or(0, |known| known.keys().filter(|name| written(name)).count());
                    let missing = leaf.required().filter(|name| !written(name)).count();
                    (std::cmp::Reverse(shared), missing)
                };
                let best = objects.iter().min_by_key(fits).expect("there are several");
                self.object(node, entries, *best, pointer, key)
            }
        }
    }

    fn choice(
        &mut self,
        node: &Node,
        entries: &[Entry],
        tagged: &[Leaf<'a>],
        all: &[Leaf<'a>],
        pointer: &str,
    ) -> Option<Value> {
        let tags: BTreeMap<&str, &'a Value> = tagged.iter().filter_map(Leaf::tag).collect();
        let names: Vec<&str> = tagged.iter().filter_map(|leaf| Some(leaf.tag()?.0)).collect();
        let chosen: Vec<&Entry> = entries.iter().filter(|entry| tags.contains_key(entry.key.as_str())).collect();
        let mut sound = None;
        for entry in entries {
            let at = child(pointer, &entry.key);
            if let Some(inner) = tags.get(entry.key.as_str()) {
                let value = self.value(&entry.value, inner, &at, Some(entry.place));
                sound = value.map(|value| Value::Object(Map::from_iter([(entry.key.clone(), value)])));
                continue;
            }
            let belongs = |tag: &&&Entry| {
                let inner = leaves(self.root, tags[tag.key.as_str()]);
                inner
                    .iter()
                    .any(|leaf| leaf.schema.get("properties").is_some_and(|keys| keys.get(&entry.key).is_some()))
            };
            let help = if expect::words(all).contains(&entry.key.as_str()) {
                format!("write {} alone, without a colon", quote(&entry.key))
            } else if let Some(tag) = chosen.iter().find(belongs) {
                format!("it belongs into {}: is it indented far enough?", quote(&tag.key))
            } else {
                known(&entry.key, &names)
            };
            let message = format!("unknown key {}{}", quote(&entry.key), within(&at));
            self.report(entry.place, &at, message, Some(help));
        }
        if entries.is_empty() {
            let message = format!("nothing is chosen{}", within(&child(pointer, "")));
            self.report(node.place, pointer, message, Some(format!("write one of {}", either(&names))));
        }
        if let [_, second, ..] = chosen.as_slice() {
            let written: Vec<&str> = chosen.iter().map(|entry| entry.key.as_str()).collect();
            let message = format!("only one key can be chosen here, not {}", both(&written));
            self.report(second.place, pointer, message, None);
        }
        sound.filter(|_| entries.len() == 1)
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
        let required: Vec<&str> = leaf.required().collect();
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
                let twin = || {
                    let near = nearest(&entry.key, properties?.keys().map(String::as_str))?;
                    let line = entries.iter().find(|other| other.key == near)?.place.line;
                    Some(format!("remove it: {} is written in line {line}", quote(near)))
                };
                let help = nearest(&entry.key, free.iter().copied()).is_none().then(twin).flatten();
                self.report(entry.place, &at, message, Some(help.unwrap_or_else(|| known(&entry.key, &free))));
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
        None if names.len() <= 12 => format!("known here: {}", either(names)),
        None => format!("known here: {}, and {} more", either(&names[..10]), names.len() - 10),
    }
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
