//! Finding and reading the documents that a command is given: all of them, before anything starts.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;

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

/// Reads files, folders (their `*.yaml` and `*.yml`, in order of name) and `-` for standard input.
pub(super) fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Document>> {
    let mut documents = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin().take(2 << 20).read_to_string(&mut text).context("standard input")?;
            documents.push(Document { name: "<stdin>".to_owned(), text });
        } else if path.is_dir() {
            let files = in_folder(path)?;
            if files.is_empty() {
                return Err(Usage(format!("{}: no *.yaml file is in this folder", path.display())).into());
            }
            for file in files {
                documents.push(one(&file)?);
            }
        } else {
            documents.push(one(path)?);
        }
    }
    Ok(documents)
}

fn one(path: &Path) -> anyhow::Result<Document> {
    let name = path.display().to_string();
    let text = document::load(path).map_err(|error| Usage(format!("{name}: {error}")))?;
    Ok(Document { name, text })
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
