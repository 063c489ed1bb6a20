//! Every document in `tests/documents`: the valid ones are accepted as they stand, the invalid ones are refused with
//! exactly the message that stands beside them. `UPDATE_DOCUMENTS=1` writes the messages anew, `UPDATE_SCHEMAS=1` the
//! schemas for editors.

#[path = "documents/faults.rs"]
mod faults;

use std::path::{Path, PathBuf};

use pratfall::config::System;
use pratfall::config::schema::{Kind, schema};
use pratfall::document::Problems;
use pratfall::experiment::Experiment;
use pratfall::experiment::game_day::GameDay;

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The documents of a folder with their names and texts.
fn documents(folder: &str) -> Vec<(PathBuf, String, String)> {
    let entries = std::fs::read_dir(project("tests/documents").join(folder)).expect("the folder is there");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let read = |file: PathBuf| {
        let name = file.file_name().expect("a file").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).expect("it can be read");
        (file, name, text)
    };
    files.into_iter().map(read).collect()
}

/// Reads a document of whatever kind; gives its warnings, or everything that is wrong.
fn read(name: &str, text: &str) -> Result<Problems, Problems> {
    // The only variable that is set, so that the tests do not depend on where they run.
    let variables = |name: &str| (name == "PORT").then(|| "8080".to_owned());
    match Kind::of(name, text)? {
        Kind::System => System::parse(name, text, &variables).map(|(_, warnings)| warnings),
        Kind::GameDay => GameDay::parse(name, text, &variables).map(|(_, warnings)| warnings),
        Kind::Experiment => Experiment::parse(name, text, &variables).map(|(_, warnings)| warnings),
    }
}

#[test]
fn every_example_is_accepted_as_it_stands() {
    let files = documents("valid");
    assert!(files.len() >= 14, "only {} documents were found", files.len());
    let mut warned = Vec::new();
    for (_, name, text) in files {
        let warnings = read(&name, &text).unwrap_or_else(|problems| panic!("{name} is refused:\n{problems}"));
        warned.extend(warnings.list().iter().map(|warning| format!("{name}: {}", warning.message)));
    }
    let faults = "faults at once: when the hypothesis breaks, the report cannot say which of them did it";
    assert_eq!(
        warned,
        [
            format!("connection-faults.yaml: 3 {faults}"),
            format!("every-key.yaml: 13 {faults}"),
            format!("torn-responses.yaml: two {faults}"),
        ]
    );
}

#[test]
fn every_wrong_document_is_refused_in_words_that_help() {
    let update = std::env::var_os("UPDATE_DOCUMENTS").is_some();
    let files = documents("invalid");
    assert!(files.len() >= 40, "only {} documents were found", files.len());
    let mut different = Vec::new();
    for (file, name, text) in files {
        let said = match read(&name, &text) {
            Ok(warnings) if warnings.is_empty() => panic!("{name} is accepted without a word"),
            // A few are accepted with a warning; the words of those count as well.
            Ok(warnings) => warnings.to_string(),
            Err(problems) => problems.to_string(),
        };
        let expected = file.with_extension("txt");
        if update {
            std::fs::write(&expected, format!("{said}\n")).expect("it can be written");
        } else if std::fs::read_to_string(&expected).unwrap_or_default().trim_end() != said.trim_end() {
            different.push(format!("{name} says:\n{said}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n\n"));
}

#[test]
fn schemas_are_committed_as_the_types_make_them() {
    for kind in Kind::ALL {
        let file = project("schemas").join(format!("{}.v1.json", kind.key()));
        let made = serde_json::to_string_pretty(&schema(kind)).expect("a schema is JSON") + "\n";
        if std::env::var_os("UPDATE_SCHEMAS").is_some() {
            std::fs::create_dir_all(project("schemas")).expect("the folder can be made");
            std::fs::write(&file, &made).expect("it can be written");
        }
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(committed == made, "{} is not what the types make: run with UPDATE_SCHEMAS=1", file.display());
    }
}

#[test]
fn editors_accept_what_we_accept() {
    for (_, name, text) in documents("valid") {
        let kind = Kind::of(&name, &text).expect("a kind");
        let document = serde_yaml::from_str::<serde_json::Value>(&text).expect("YAML");
        let validator = jsonschema::draft7::new(&schema(kind)).expect("a schema");
        let errors: Vec<_> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
        let mut misspelt = document;
        misspelt["steady_sate"] = serde_json::Value::Null;
        assert!(!validator.is_valid(&misspelt), "{name} is accepted with a misspelt key");
    }
}
