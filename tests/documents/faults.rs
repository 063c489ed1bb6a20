//! docs/faults.md is what the code says: keys and defaults from the schema, the rest from what stands beside each fault.
//! `UPDATE_DOCS=1` writes it anew.

use std::fmt::Write;

use pratfall::config::schema::{Kind, schema};
use pratfall::experiment::Experiment;
use pratfall::fault::{Fault, Sheet};
use serde_json::Value;

use super::project;

const HEAD: &str = "# Faults

What can be injected, and how it is written. Made from the code by `UPDATE_DOCS=1 cargo test --test documents`: every example
is read, and every one that this version injects is injected through real sockets in `tests/it/answering.rs`.

Where a request meets several faults, the first that is written is the outermost. What is the same for every fault (shares, attempts,
limits) is in [reference.md](reference.md), what happens to the bytes in [wire.md](wire.md).

";

/// The document as the code has it.
fn made() -> String {
    let schema = schema(Kind::Experiment);
    let mut text = String::from(HEAD);
    text +=
        "| fault | keys, and what is meant where they are not written | on HTTP/1 | on HTTP/2 | by gRPC | example |\n";
    text += "|---|---|---|---|---|---|\n";
    let kinds = || Fault::KINDS.into_iter().zip(Sheet::ALL);
    for (kind, sheet) in kinds() {
        let keys = keys(&schema, kind).into_iter().map(|key| match key.default {
            Some(default) => format!("`{}` ({default})", key.name),
            None => format!("`{}`", key.name),
        });
        let keys = keys.collect::<Vec<_>>().join(", ");
        let Sheet { http1, http2, grpc, examples } = sheet;
        let keys = if keys.is_empty() { "none" } else { &keys };
        writeln!(text, "| [`{kind}`](#{kind}) | {keys} | {http1} | {http2} | {grpc} | `{}` |", examples[0])
            .expect("a string");
    }
    for (kind, sheet) in kinds() {
        let variant = variant(&schema, kind);
        let (what, how) = (said(variant), said(resolved(&schema, &variant["properties"][kind])));
        write!(text, "\n## {kind}\n\n{what} {how}\n").expect("a string");
        let keys = keys(&schema, kind);
        if !keys.is_empty() {
            text += "\n| key | | default | |\n|---|---|---|---|\n";
        }
        for Key { name, kind, default, what, required } in keys {
            let default = default.unwrap_or_else(|| if required { "required".to_owned() } else { String::new() });
            writeln!(text, "| `{name}` | {kind} | {default} | {what} |").expect("a string");
        }
        text += "\n| example | now |\n|---|---|\n";
        for example in sheet.examples {
            let now = match read(example).not_yet() {
                None => "yes".to_owned(),
                Some(_) => "read, and refused by this version".to_owned(),
            };
            writeln!(text, "| `{example}` | {now} |").expect("a string");
        }
    }
    text
}

struct Key {
    name: String,
    kind: String,
    default: Option<String>,
    what: String,
    required: bool,
}

fn keys(schema: &Value, kind: &str) -> Vec<Key> {
    let fault = resolved(schema, &variant(schema, kind)["properties"][kind]);
    let required: Vec<&Value> = fault["required"].as_array().into_iter().flatten().collect();
    let keys = fault["properties"].as_object().into_iter().flatten();
    keys.map(|(name, key)| {
        let (what, default) = parted(&said(key));
        let required = required.iter().any(|required| *required == name);
        Key { name: name.clone(), kind: typed(schema, key), default, what, required }
    })
    .collect()
}

/// A sentence without the half that says what is meant where nothing is written.
fn parted(text: &str) -> (String, Option<String>) {
    let Some(before) = text.strip_suffix(" where nothing is written.") else { return (text.to_owned(), None) };
    let (what, default) = before.rsplit_once("; ").or_else(|| before.rsplit_once(": ")).expect("a default of its own");
    (format!("{what}."), Some(default.to_owned()))
}

fn said(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_else(|| panic!("nothing is said of {schema}")).to_owned()
}

fn variant<'a>(schema: &'a Value, kind: &str) -> &'a Value {
    let variants = schema["definitions"]["Fault"]["oneOf"].as_array().expect("faults are alternatives");
    variants.iter().find(|variant| !variant["properties"][kind].is_null()).expect("each kind is one")
}

fn resolved<'a>(schema: &'a Value, value: &'a Value) -> &'a Value {
    let alternative = ["anyOf", "allOf"].iter().find_map(|word| value[*word].get(0));
    match alternative.unwrap_or(value)["$ref"].as_str() {
        Some(path) => schema.pointer(path.strip_prefix('#').expect("within the schema")).expect("it is there"),
        None => alternative.unwrap_or(value),
    }
}

/// What may be written, in a few words.
fn typed(schema: &Value, value: &Value) -> String {
    let value = resolved(schema, value);
    if let Some(alternatives) = value["oneOf"].as_array() {
        let words = alternatives.iter().map(|one| match one["const"].as_str() {
            Some(word) => format!("`{word}`"),
            None => {
                let (key, inner) = one["properties"].as_object().and_then(|map| map.iter().next()).expect("a tag");
                format!("`{{ {key}: … }}` with a {}", typed(schema, inner))
            }
        });
        return words.collect::<Vec<_>>().join(" ");
    }
    match (value["format"].as_str(), value["type"].as_str()) {
        (Some("span"), _) => "time",
        (Some("percent"), _) => "share",
        (Some(format @ ("size" | "throughput" | "rate")), _) => format,
        (_, Some("string")) => "text",
        (_, Some("integer")) => "number",
        (_, Some("boolean")) => "yes or no",
        (_, Some("object")) => "map",
        (_, Some("array")) => "list",
        _ => panic!("{value} has no word"),
    }
    .to_owned()
}

/// The fault of an example, read as a document reads it.
fn read(example: &str) -> Fault {
    let text = format!(
        "version: 1
experiment: example
hypothesis: If this fault is met, then nobody notices, because it is an example.
slice: {{ at: front, by: client-ip }}
inject: {{ at: front, faults: [{{ {example} }}] }}
steady_state: [{{ failed_operations: {{ by: trace, deadline: 5s, max_increase: 1pp }} }}]
"
    );
    let (experiment, _) = Experiment::parse("example.yaml", &text, &|_| None)
        .unwrap_or_else(|problems| panic!("{example} is no example:\n{problems}"));
    experiment.inject.faults[0].clone()
}

#[test]
fn every_example_is_of_its_kind_and_says_so_when_it_cannot_be_injected() {
    for (kind, sheet) in Fault::KINDS.into_iter().zip(Sheet::ALL) {
        for example in sheet.examples {
            let fault = read(example);
            assert_eq!(fault.kind(), kind, "{example}");
            assert!(!fault.describe().is_empty(), "{example}");
            if let Some(why) = fault.not_yet() {
                assert!(why.contains("by this version"), "{example}: {why}");
            }
        }
    }
}

#[test]
fn the_table_of_faults_is_what_the_code_says() {
    let (file, made) = (project("docs/faults.md"), made());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, &made).expect("it can be written");
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(committed == made, "{} is not what the code says: run with UPDATE_DOCS=1", file.display());
}
