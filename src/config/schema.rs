//! The JSON Schemas of the three documents, for editors: made from the types that read them.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Deserialize;
use serde_json::Value;

use super::draft::SystemDraft;
use crate::document::{self, Problems};
use crate::experiment::draft::Draft;
use crate::experiment::game_day::GameDayDraft;

/// The kinds of documents.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// `experiment:`
    Experiment,
    /// `system:`
    System,
    /// `game_day:`
    GameDay,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Experiment, Self::System, Self::GameDay];

    /// The key that a document of this kind has, and no other.
    pub fn key(self) -> &'static str {
        match self {
            Self::Experiment => "experiment",
            Self::System => "system",
            Self::GameDay => "game_day",
        }
    }

    /// The kind of a document, by its top-level keys; what is wrong where it is none of ours.
    pub fn of(name: &str, text: &str) -> Result<Self, Problems> {
        let keys = document::top_level_keys(text);
        if let Some(kind) = Self::ALL.into_iter().find(|kind| keys.iter().any(|key| key == kind.key())) {
            return Ok(kind);
        }
        let variables = |_: &str| Some(String::new());
        let mut problems = document::read::<Anything>(name, text, &variables).problems;
        if !problems.has_errors() {
            let words = Self::ALL.map(Self::key);
            let near = keys.iter().find_map(|key| Some((key, document::nearest(key, words)?)));
            let way = match near {
                Some((key, near)) => format!("did you mean `{near}:` where it says `{key}:`?"),
                None => "add `experiment:`, `system:` or `game_day:` with a name".to_owned(),
            };
            problems.error("", "this document does not say what it is", Some(way));
        }
        Err(problems)
    }
}

/// A document of which only the outermost shape is known.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
struct Anything(#[allow(dead_code)] serde_json::Map<String, Value>);

/// The schema of a kind of document, in the draft that editors know (JSON Schema draft 7).
pub fn schema(kind: Kind) -> Value {
    let generator = SchemaSettings::draft07().into_generator();
    let schema = match kind {
        Kind::Experiment => generator.into_root_schema_for::<Draft>(),
        Kind::System => generator.into_root_schema_for::<SystemDraft>(),
        Kind::GameDay => generator.into_root_schema_for::<GameDayDraft>(),
    };
    let mut schema = schema.to_value();
    polish(&mut schema);
    schema
}

/// Takes out what only our own reader understands, and the null of optional values, which it refuses.
fn polish(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.retain(|key, _| !key.starts_with("x-"));
            if map.get("default").is_some_and(Value::is_null) {
                map.remove("default");
            }
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    map.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(branches)) = map.get_mut("anyOf") {
                branches.retain(|branch| branch.get("type").is_none_or(|name| name != "null"));
            }
            map.values_mut().for_each(polish);
        }
        Value::Array(items) => items.iter_mut().for_each(polish),
        _ => {}
    }
}
