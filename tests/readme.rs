//! What strangers read first is true: every command parses, every document is sound, every link leads somewhere.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use pratfall::cli::Cli;
use pratfall::config::System;
use pratfall::config::schema::Kind;
use pratfall::document::Problems;
use pratfall::experiment::Experiment;
use regex::Regex;

const TEXTS: [&str; 13] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/verdict.md",
    "docs/reference.md",
    "docs/faults.md",
    "docs/api.md",
    "docs/metrics.md",
    "docs/pains.md",
    "docs/wire.md",
    "deploy/README.md",
    "experiments/README.md",
];

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(project(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The fenced blocks of a language, without the spaces that put them into a list.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = Regex::new(&format!(r"(?ms)^( *)```{language}\n(.*?)^ *```$")).expect("a regular expression");
    let block = |found: regex::Captures<'_>| {
        let lines: Vec<&str> = found[2].lines().map(|line| line.strip_prefix(&found[1]).unwrap_or(line)).collect();
        lines.join("\n")
    };
    fence.captures_iter(text).map(block).collect()
}

/// The words of each line that calls us, as a shell would part them.
fn commands(block: &str) -> Vec<Vec<String>> {
    let word = Regex::new(r#"'([^']*)'|"([^"]*)"|(\S+)"#).expect("a regular expression");
    let block = block.replace("\\\n", " ");
    let lines = block.lines().map(|line| line.split(" #").next().unwrap_or_default());
    let words = lines.map(|line| {
        let words = word.captures_iter(line).map(|found| found.iter().skip(1).flatten().next());
        let words = words.flatten().map(|word| word.as_str().to_owned());
        words.take_while(|word| !["|", ">", ">>", "&", "&&", ";"].contains(&word.as_str())).collect()
    });
    let ours = words.filter_map(|mut words: Vec<String>| match words.first().map(String::as_str) {
        Some("pratfall") => Some(words),
        Some("cargo") if words.get(1).is_some_and(|verb| verb == "run") => {
            let own = words.iter().position(|word| word == "--").unwrap_or(words.len());
            words.drain(..own);
            words.insert(0, "pratfall".to_owned());
            words.retain(|word| word != "--");
            Some(words)
        }
        _ => None,
    });
    ours.collect()
}

#[test]
fn every_command_is_one_that_the_command_line_takes() {
    let mut found = 0;
    for path in TEXTS {
        for command in blocks(&text(path), "sh").iter().flat_map(|block| commands(block)) {
            found += 1;
            if let Err(error) = Cli::try_parse_from(&command) {
                panic!("{path}: {}\n{error}", command.join(" "));
            }
        }
    }
    assert!(found >= 15, "only {found} commands were found");
    assert!(Cli::try_parse_from(["pratfall", "run", "--nothing-like-it"]).is_err(), "the test can fail");
}

#[test]
fn what_the_readme_begins_with_are_two_commands_that_exist() {
    let first = blocks(&text("README.md"), "sh").remove(0);
    let [demo, tests] = first.lines().collect::<Vec<_>>().try_into().expect("two commands");
    assert_eq!(commands(demo), [["pratfall", "demo"]]);
    assert!(tests.starts_with("tests/run ") && project("tests/run").is_file(), "{tests}");
}

/// Whether a document of ours is sound, without as much as a warning; none where it is a part of one.
fn read(text: &str) -> Option<Result<Problems, Problems>> {
    let variables = |_: &str| None;
    Some(match Kind::of("block.yaml", text).ok()? {
        Kind::System => System::parse("block.yaml", text, &variables).map(|(_, warnings)| warnings),
        Kind::Experiment => Experiment::parse("block.yaml", text, &variables).map(|(_, warnings)| warnings),
        Kind::GameDay => return None,
    })
}

#[test]
fn every_document_is_sound_and_names_listeners_that_the_system_has() {
    let mut found = 0;
    for path in ["README.md", "experiments/README.md"] {
        let text = text(path);
        let blocks = blocks(&text, "yaml");
        let systems: Vec<System> = blocks
            .iter()
            .filter_map(|block| System::parse(path, block, &|_| None).ok())
            .map(|(system, _)| system)
            .collect();
        for block in &blocks {
            let problems = match read(block).unwrap_or_else(|| panic!("{path}: no document of ours:\n{block}")) {
                Ok(warnings) => warnings,
                Err(problems) => problems,
            };
            assert!(problems.is_empty(), "{path}:\n{problems}");
            if let Ok((experiment, mut problems)) = Experiment::parse(path, block, &|_| None) {
                let names = systems.iter().flat_map(System::listener_names).collect::<Vec<_>>();
                experiment.check_names(&mut problems, &names, &[]);
                assert!(problems.is_empty(), "{path}:\n{problems}");
            }
            found += 1;
        }
    }
    assert!(found >= 4, "only {found} documents were found");
}

#[test]
fn the_shortest_experiment_of_the_readme_is_that_of_the_grammar() {
    let shortest = text("tests/documents/valid/shortest.yaml");
    let shortest: Vec<_> = shortest.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(text("README.md").contains(&shortest.join("\n")));
}

#[test]
fn every_link_and_every_file_name_leads_somewhere() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").expect("a regular expression");
    let source = Regex::new(r"\b((?:fault|proxy|measure|lab|ledger|report|cli|experiment|admin)/[a-z_]+\.rs)\b");
    let source = source.expect("a regular expression");
    let (mut links, mut sources) = (0, 0);
    for path in TEXTS {
        let text = text(path);
        for found in link.captures_iter(&text).map(|found| found[1].to_owned()) {
            let target = found.split('#').next().unwrap_or_default();
            if target.contains("://") || target.is_empty() {
                continue;
            }
            links += 1;
            let folder = project(path).parent().expect("a file is in a folder").to_owned();
            assert!(folder.join(target).exists(), "{path}: there is no {target}");
        }
        for file in source.captures_iter(&text).map(|found| found[1].to_owned()) {
            // The fault that CONTRIBUTING.md adds is not there yet.
            if !file.ends_with("/redirect.rs") {
                sources += 1;
                assert!(project("src").join(&file).is_file(), "{path}: there is no src/{file}");
            }
        }
    }
    assert!(links >= 25 && sources >= 30, "only {links} links and {sources} files were found");
}

#[test]
fn the_sentence_is_the_same_wherever_it_stands() {
    let words = |text: &str| text.replace(['*', '>', '/', '!'], " ").split_whitespace().collect::<Vec<_>>().join(" ");
    let sentence = "An experiment adds faults to a slice of a proxy 's traffic, measures treatment and control, and the \
        lab writes what was learned as a report into the ledger .";
    for path in ["README.md", "ARCHITECTURE.md", "src/lib.rs"] {
        assert!(words(&text(path)).contains(sentence), "{path}");
    }
}

#[test]
fn every_verb_that_a_message_of_ours_names_is_one() {
    let verb = Regex::new(r"`pratfall ([a-z][a-z-]*)").expect("a regular expression");
    let mut named = 0;
    for file in rust_files(&project("src")) {
        let text = fs::read_to_string(&file).expect("it can be read");
        for found in verb.captures_iter(&text) {
            named += 1;
            let known = Cli::try_parse_from(["pratfall", &found[1], "--help"])
                .is_err_and(|error| error.kind() == clap::error::ErrorKind::DisplayHelp);
            assert!(known, "{} names `pratfall {}`, which is no verb", file.display(), &found[1]);
        }
    }
    assert!(named >= 20, "only {named} were found");
}

#[test]
fn every_test_that_answers_a_pain_is_there() {
    let folders = ["src", "tests/it", "tests/programs"].map(project);
    let files = folders.iter().flat_map(|folder| rust_files(folder));
    let files = files.chain([project("tests/documents.rs")]);
    let all: String = files.map(|file| fs::read_to_string(file).expect("it can be read")).collect();
    let name = Regex::new("`([a-z0-9_]{20,})`").expect("a regular expression");
    let mut named = 0;
    for found in name.captures_iter(&text("docs/pains.md")) {
        named += 1;
        assert!(all.contains(&format!("fn {}(", &found[1])), "docs/pains.md: no test is called `{}`", &found[1]);
    }
    assert!(named >= 25, "only {named} were named");
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let files = entries.flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|kind| kind == "rs")).collect()
}
