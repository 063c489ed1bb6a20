//! Keeps the house in order: floors, flat rooms, files of a readable length that say what they are for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::{Captures, Regex};

/// From the roof down: a room uses only lower ones, neighbours never see each other. `clock`, `file` and `units` are the ground.
const FLOORS: &str = "cli/app/config/admin notify/lab digest game_day/ledger/proxy report/experiment/load/\
    fault probe measure demo document/chance service stats/clock file units";

/// No file has more lines; flat lists may, and stand here.
const LONGEST: usize = 500;
const FLAT_LISTS: [&str; 0] = [];

fn floor(room: &str) -> Option<usize> {
    FLOORS.rsplit('/').position(|rooms| rooms.split(' ').any(|name| name == room))
}

/// All Rust files below a folder, with their texts; paths begin at the project.
fn files(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        let path = Path::new(folder).join(&name);
        if path.is_dir() && name != "node_modules" {
            found.extend(files(&path.to_string_lossy()));
        } else if name.ends_with(".rs") {
            found.push((path.clone(), fs::read_to_string(&path).expect("it can be read")));
        }
    }
    found
}

fn regex(text: &str) -> Regex {
    Regex::new(text).expect("a regular expression")
}

/// Finds the rooms that `crate::` paths lead to, in groups too; not in comments, nor in the tests that end a file.
fn users() -> impl Fn(&str) -> BTreeSet<String> {
    let [comment, inner, group, path] =
        [r"(^|\s)//.*", r"([a-z_]+)::\{[^{}]*\}", r"crate::\{([^{}]*)\}", r"crate::([a-z_A-Z]+)"].map(regex);
    move |text| {
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let mut code = comment.replace_all(text, "").into_owned();
        for _ in 0..3 {
            let flat = |group: &Captures<'_>| group[if &group[1] == "crate" { 0 } else { 1 }].to_owned();
            code = inner.replace_all(&code, flat).into_owned();
        }
        let each =
            |c: &Captures<'_>| c[1].split(',').map(|item| format!("crate::{};", item.trim())).collect::<String>();
        path.captures_iter(&group.replace_all(&code, each)).map(|found| found[1].to_owned()).collect()
    }
}

#[test]
fn paths_are_found_wherever_they_stand() {
    let code = "// crate::a\nuse crate::{b::{c, x::{y, z}}, e, f as g};\nfn h() { crate::i::j() } // crate::k\n\
        /// crate::l\n#[cfg(test)]\nmod tests { use crate::m; }";
    assert_eq!(users()(code).into_iter().collect::<String>(), "befi");
}

#[test]
fn a_room_uses_only_lower_rooms_and_has_none_within() {
    let (all, uses) = (files("src"), users());
    let module = regex(r#"#\[cfg\(test\)\]\n(?:#\[path = "([a-z_]+)\.rs"\]\n)?(?:pub\(crate\) )?mod ([a-z_]+);"#);
    let beside = |(path, text): &(PathBuf, String)| -> Vec<PathBuf> {
        let names = module.captures_iter(text).filter_map(|found| found.get(1).or_else(|| found.get(2)));
        names.map(|name| path.with_file_name(format!("{}.rs", name.as_str()))).collect()
    };
    let tests: Vec<_> = all.iter().flat_map(beside).collect();
    let mut wrong = Vec::new();
    for (path, text) in all.iter().filter(|(path, _)| !tests.contains(path)) {
        let parts: Vec<_> = path.iter().skip(1).map(|part| part.to_string_lossy()).collect();
        let room = parts[0].trim_end_matches(".rs");
        let top = ["lib", "main"].contains(&room);
        if parts.len() > 2 || (floor(room).is_none() && !top) {
            wrong.push(format!("{}: a room without a floor, or within a room", path.display()));
        }
        let below = |used: &str| floor(used).is_some_and(|there| top || floor(room).is_some_and(|here| there < here));
        for used in uses(text).into_iter().filter(|used| used != room && !below(used)) {
            wrong.push(format!("{} uses `{used}`, which is not below", path.display()));
        }
    }
    assert!(all.len() > 50 && wrong.is_empty(), "{} files\n{}", all.len(), wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for_and_is_short_enough_to_be_read() {
    let mut wrong = Vec::new();
    for (path, text) in ["src", "tests", "benches"].into_iter().flat_map(files) {
        let (lines, name) = (text.lines().count(), path.to_string_lossy());
        if !text.starts_with("//!") || (lines > LONGEST && !FLAT_LISTS.contains(&&*name)) {
            wrong.push(format!("{name}: {lines} lines, the first is {:?}", text.lines().next()));
        }
    }
    assert!(wrong.is_empty(), "each begins with `//!`, none has more than {LONGEST} lines\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_stands_where_its_proof_was_read_and_nowhere_else() {
    const PROVED: [&str; 1] = ["src/app/pages.rs"];
    let [code, proof] =
        [r"\bunsafe_code\b|\bunsafe\s*(\{|fn|impl|extern)", r"// SAFETY: [^{]*\n\s*unsafe \{"].map(regex);
    for (path, text) in ["src", "benches"].into_iter().flat_map(files) {
        let name = path.to_string_lossy();
        let here = code.find_iter(&text).filter(|found| found.as_str().starts_with("unsafe_code")).count();
        let all = code.find_iter(&text).count() - here;
        assert!(all + here == 0 || PROVED.contains(&&*name), "{name} has unsafe code");
        assert_eq!(all, proof.find_iter(&text).count(), "{name}: each with its proof");
    }
}
