//! Finding and reading the documents that a command is given: all of them, before anything starts.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

use super::exit::Usage;
use crate::document;

/// A document as it was found.
#[derive(Clone, Debug)]
pub(super) struct Document {
    /// What messages call it.
    pub(super) name: String,
    /// Its text.
    pub(super) text: String,
}

/// Where the files that a document names are looked for.
pub(super) const BESIDE: &str = "a file is looked for beside the document that names it";

/// Values for `${NAME}` in documents.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Variables {
    /// A value for `${NAME}` in the documents; the environment is used for the others.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Variables {
    /// The value of a name.
    pub(super) fn get(&self) -> impl Fn(&str) -> Option<String> + use<> {
        let set: BTreeMap<String, String> = self.set.iter().cloned().collect();
        move |name| set.get(name).cloned().or_else(|| std::env::var(name).ok())
    }
}

/// Reads files, folders (their `*.yaml` and `*.yml`, in order of name) and `-` for standard input. All or none.
pub(super) fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Document>> {
    each(paths)?.into_iter().map(|document| document.map_err(|unread| Usage(unread.to_string()).into())).collect()
}

/// The same, one by one: what cannot be read does not keep the others from being looked at.
pub(super) fn each(paths: &[PathBuf]) -> anyhow::Result<Vec<Result<Document, Unread>>> {
    let mut documents = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            documents.push(named("<stdin>".to_owned(), document::load_stdin()));
        } else if path.is_dir() {
            let files = in_folder(path)?;
            if files.is_empty() {
                return Err(Usage(format!("{}: no *.yaml file is in this folder", path.display())).into());
            }
            documents.extend(files.iter().map(|file| one(file)));
        } else {
            documents.push(one(path));
        }
    }
    Ok(documents)
}

/// A document that cannot be read.
#[derive(Debug)]
pub(super) struct Unread {
    /// What messages call it.
    pub(super) name: String,
    /// Why not.
    pub(super) why: io::Error,
}

impl Unread {
    /// In the shape of what is wrong in a document that can be read.
    pub(super) fn problem(&self) -> Value {
        let (file, message) = (&self.name, self.why.to_string());
        json!({ "file": file, "line": 1, "column": 1, "severity": "error", "message": message, "help": null })
    }
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.why)
    }
}

fn one(path: &Path) -> Result<Document, Unread> {
    named(path.display().to_string(), document::load(path))
}

fn named(name: String, text: io::Result<String>) -> Result<Document, Unread> {
    match text {
        Ok(text) => Ok(Document { name, text }),
        Err(why) => Err(Unread { name, why }),
    }
}

fn in_folder(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if is_yaml && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
