//! What is wrong in a document: each problem with its place, the line, a caret and the way out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::node::{Kind, Node, unescape};
use super::place::{Findings, KEPT, Place, Source, harmless};

/// How many characters of a line are shown around a caret.
const SHOWN: usize = 120;

/// Whether a document with this problem can be used.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but it may not do what was meant.
    Warning,
}

/// One thing that is wrong in a document.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// The document, as messages name it.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// Whether the document can be used nevertheless.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// The way out.
    pub help: Option<String>,
    /// What it is about, as an RFC 6901 pointer into the text; empty for the whole document.
    #[serde(skip)]
    pub pointer: String,
    #[serde(skip)]
    excerpt: Excerpt,
}

/// The part of a line that is shown, with what is underlined in it.
#[derive(Clone, Debug)]
struct Excerpt {
    text: String,
    indent: usize,
    width: usize,
}

impl Excerpt {
    fn new(line: &str, place: Place) -> Self {
        let length = line.chars().count();
        let caret = (place.column.max(1) as usize - 1).min(length);
        let start = if length <= SHOWN { 0 } else { caret.saturating_sub(SHOWN / 2).min(length - SHOWN) };
        let end = length.min(start + SHOWN);
        let mut text: String = line.chars().skip(start).take(SHOWN).map(harmless).collect();
        let mut indent = caret - start;
        if start > 0 {
            text.insert_str(0, "… ");
            indent += 2;
        }
        if end < length {
            text.push_str(" …");
        }
        let width = (place.length as usize).min(end - caret).max(1);
        Self { text: text.trim_end().to_owned(), indent, width }
    }
}

impl Problem {
    /// Whether it is about a key of the document, or something within.
    pub fn is_about(&self, key: &str) -> bool {
        self.pointer.strip_prefix('/').is_some_and(|rest| rest.split('/').next() == Some(key))
    }

    /// The place and what is wrong, on one line.
    pub fn line(&self) -> String {
        format!("{}:{}:{}: {}", self.file, self.line, self.column, self.message)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let margin = " ".repeat(self.line.to_string().len() + 1);
        let Excerpt { text, indent, width } = &self.excerpt;
        writeln!(f, "{}:{}:{}: {severity}: {}", self.file, self.line, self.column, self.message)?;
        writeln!(f, "{margin}|")?;
        writeln!(f, "{}", format!("{} | {text}", self.line).trim_end())?;
        write!(f, "{margin}| {}{}", " ".repeat(*indent), "^".repeat(*width))?;
        match &self.help {
            Some(help) => write!(f, "\n{margin}= help: {help}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong in a document, by place; more can be added by whoever understands it further.
pub struct Problems {
    source: Source,
    list: Vec<Problem>,
    /// How many more there are than are kept.
    more: usize,
    tree: Option<Node>,
    /// What is known to be wrong already: what is said about it later would only repeat it.
    faulty: BTreeSet<String>,
    /// Entries of lists that were left out of the value, in their order, by the list's pointer into the text.
    removed: BTreeMap<String, Vec<usize>>,
}

impl Problems {
    /// What reading has found, with the tree for finding places later.
    pub(super) fn new(
        source: Source,
        tree: Option<Node>,
        findings: Findings,
        removed: BTreeMap<String, Vec<usize>>,
    ) -> Self {
        let mut problems =
            Self { source, list: Vec::new(), more: findings.more, tree, faulty: BTreeSet::new(), removed };
        for found in findings.list {
            problems.push(&found.pointer, found.place, Severity::Error, &found.message, found.help);
            problems.faulty.insert(found.pointer);
        }
        problems
    }

    /// Adds an error about the value at an RFC 6901 `pointer`. Dropped where reading has found the value, something
    /// in it or something around it (but the whole document) to be wrong.
    pub fn error(&mut self, pointer: &str, message: impl Into<String>, help: Option<String>) {
        self.add(pointer, false, Severity::Error, &message.into(), help);
    }

    /// Adds an error as [`Problems::error`] does, with the caret under the key instead of its value.
    pub fn error_at_key(&mut self, pointer: &str, message: impl Into<String>, help: Option<String>) {
        self.add(pointer, true, Severity::Error, &message.into(), help);
    }

    /// Adds a warning, under the same rule as [`Problems::error`].
    pub fn warn(&mut self, pointer: &str, message: impl Into<String>, help: Option<String>) {
        self.add(pointer, false, Severity::Warning, &message.into(), help);
    }

    /// Whether the document must not be used.
    pub fn has_errors(&self) -> bool {
        self.errors().next().is_some()
    }

    /// Whether there are neither errors nor warnings.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All problems, by place.
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// What may not do what was meant.
    pub fn warnings(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter().filter(|problem| problem.severity == Severity::Warning)
    }

    /// What must be put right.
    pub fn errors(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter().filter(|problem| problem.severity == Severity::Error)
    }

    /// Whether the text could be read at all, so that each problem is about a part of it.
    pub fn have_a_tree(&self) -> bool {
        self.tree.is_some()
    }

    fn add(&mut self, pointer: &str, key: bool, severity: Severity, message: &str, help: Option<String>) {
        let pointer = self.as_written(pointer);
        if !self.is_faulty(&pointer) {
            self.push(&pointer, self.place(&pointer, key), severity, message, help);
        }
    }

    fn push(&mut self, pointer: &str, place: Place, severity: Severity, message: &str, help: Option<String>) {
        let message: String = message.chars().map(harmless).collect();
        let help = help.map(|help| help.chars().map(harmless).collect());
        let (line, column) = (place.line.max(1), place.column.max(1));
        let position = self.list.partition_point(|other| (other.line, other.column) <= (line, column));
        let same = |other: &Problem| (other.column, &other.message) == (column, &message);
        if self.list[..position].iter().rev().take_while(|other| other.line == line).any(same) {
            return;
        }
        // One error is always kept: it decides whether the document can be used.
        if self.list.len() >= KEPT && (severity == Severity::Warning || self.has_errors()) {
            self.more += 1;
            return;
        }
        let excerpt = Excerpt::new(self.source.line(line), place);
        let file = self.source.name.clone();
        let pointer = pointer.to_owned();
        self.list.insert(position, Problem { file, line, column, severity, message, help, pointer, excerpt });
    }

    /// Whether something was found at this pointer, within it or around it; the whole document lies around
    /// everything and does not count.
    fn is_faulty(&self, pointer: &str) -> bool {
        let within = format!("{pointer}/");
        let around = std::iter::once(pointer.len())
            .chain(pointer.rmatch_indices('/').map(|(end, _)| end))
            .any(|end| self.faulty.contains(&pointer[..end]));
        let inside = || self.faulty.range(within.clone()..).next().is_some_and(|faulty| faulty.starts_with(&within));
        !pointer.is_empty() && (around || inside())
    }

    /// The pointer into the text for one into the value: they differ behind an entry that was left out.
    fn as_written(&self, pointer: &str) -> String {
        let mut written = String::new();
        for segment in pointer.split('/').skip(1) {
            let left_out = self.removed.get(&written).map(Vec::as_slice).unwrap_or_default();
            written.push('/');
            match segment.parse::<usize>() {
                Ok(index) if !left_out.is_empty() => {
                    let index = left_out.iter().fold(index, |index, gone| index + usize::from(*gone <= index));
                    written.push_str(&index.to_string());
                }
                _ => written.push_str(segment),
            }
        }
        written
    }

    /// The place of a value, or of its key; of what is not there, the key of what it is missing in.
    fn place(&self, pointer: &str, key: bool) -> Place {
        let Some(tree) = &self.tree else { return Place::default() };
        let (mut node, mut name) = (tree, None);
        for segment in pointer.split('/').skip(1) {
            let next = match &node.kind {
                Kind::List(items) => segment.parse::<usize>().ok().and_then(|index| Some((items.get(index)?, None))),
                Kind::Map(entries) => {
                    let segment = unescape(segment);
                    let entry = entries.iter().find(|entry| entry.key == segment);
                    entry.map(|entry| (&entry.value, Some(entry.place)))
                }
                _ => None,
            };
            match next {
                Some(next) => (node, name) = next,
                None => return name.unwrap_or(node.place),
            }
        }
        name.filter(|_| key).unwrap_or(node.place)
    }
}

impl fmt::Debug for Problems {
    // The tree holds what variables stand for, which nobody should find in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.list).finish()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            problem.fmt(f)?;
        }
        match self.more {
            0 => Ok(()),
            1 => f.write_str("\n\nand one more problem"),
            more => write!(f, "\n\nand {more} more problems"),
        }
    }
}

impl std::error::Error for Problems {}
