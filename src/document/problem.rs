//! What is wrong in a document: each problem with its place, the line, a caret and the way out.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// How many characters of a line are shown around a caret.
const SHOWN: usize = 120;

/// How many problems of one document are kept: enough for any person, a bound for any program.
pub(super) const KEPT: usize = 200;

/// The text of a document by its lines, as places count them.
#[derive(Debug)]
pub(super) struct Source {
    name: String,
    lines: Vec<String>,
}

impl Source {
    pub(super) fn new(name: &str, text: &str) -> Self {
        let mut lines = Vec::new();
        let mut rest = text;
        // YAML ends a line at `\n`, `\r\n` and `\r`; `str::lines` knows only the first two.
        while let Some(end) = rest.find(['\n', '\r']) {
            lines.push(rest[..end].to_owned());
            rest = &rest[end + if rest[end..].starts_with("\r\n") { 2 } else { 1 }..];
        }
        lines.push(rest.to_owned());
        Self { name: name.chars().map(harmless).collect(), lines }
    }

    /// One line, empty where there is none.
    pub(super) fn line(&self, number: u32) -> &str {
        (number as usize).checked_sub(1).and_then(|index| self.lines.get(index)).map_or("", String::as_str)
    }

    /// What stands at a place, up to the end of its line.
    pub(super) fn at(&self, place: Place) -> String {
        self.line(place.line).chars().skip(place.column.max(1) as usize - 1).take(place.length as usize).collect()
    }
}

/// Where something is written; lines, columns and lengths count characters, from 1.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) length: u32,
}

/// Where a key and its value are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) key: Option<Place>,
    pub(super) value: Place,
}

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
        let line: Vec<char> = line.chars().map(harmless).collect();
        let caret = (place.column.max(1) as usize - 1).min(line.len());
        let start = if line.len() <= SHOWN { 0 } else { caret.saturating_sub(SHOWN / 2).min(line.len() - SHOWN) };
        let end = line.len().min(start + SHOWN);
        let mut text: String = line[start..end].iter().collect();
        let mut indent = caret - start;
        if start > 0 {
            text.insert_str(0, "… ");
            indent += 2;
        }
        if end < line.len() {
            text.push_str(" …");
        }
        let width = (place.length as usize).min(end - caret).max(1);
        Self { text: text.trim_end().to_owned(), indent, width }
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
        writeln!(f, "{} | {text}", self.line)?;
        write!(f, "{margin}| {}{}", " ".repeat(*indent), "^".repeat(*width))?;
        match &self.help {
            Some(help) => write!(f, "\n{margin}= help: {help}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong in a document, by place; more can be added by whoever understands it further.
#[derive(Debug)]
pub struct Problems {
    source: Arc<Source>,
    list: Vec<Problem>,
    places: HashMap<String, Written>,
    /// What is known to be wrong already: what is said about it later would only repeat it.
    faulty: Vec<String>,
    /// Entries of lists that were left out of the value, so that pointers into the value can be told from
    /// pointers into the text.
    removed: BTreeMap<String, Vec<usize>>,
}

impl Problems {
    pub(super) fn new(source: Arc<Source>) -> Self {
        Self { source, list: Vec::new(), places: HashMap::new(), faulty: Vec::new(), removed: BTreeMap::new() }
    }

    pub(super) fn set_places(&mut self, places: HashMap<String, Written>) {
        self.places = places;
    }

    pub(super) fn set_removed(&mut self, removed: BTreeMap<String, Vec<usize>>) {
        self.removed = removed;
    }

    /// Takes a problem found while reading; what is said about `pointer` afterwards is dropped.
    pub(super) fn found(&mut self, pointer: Option<String>, place: Place, message: &str, help: Option<String>) {
        self.push(place, Severity::Error, message, help);
        self.faulty.extend(pointer);
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

    fn add(&mut self, pointer: &str, key: bool, severity: Severity, message: &str, help: Option<String>) {
        let pointer = self.as_written(pointer);
        if self.faulty.iter().any(|faulty| related(&pointer, faulty)) {
            return;
        }
        let place = self.place(&pointer, key);
        self.push(place, severity, message, help);
    }

    fn push(&mut self, place: Place, severity: Severity, message: &str, help: Option<String>) {
        let message: String = message.chars().map(harmless).collect();
        let help = help.map(|help| help.chars().map(harmless).collect());
        let (line, column) = (place.line.max(1), place.column.max(1));
        let position = self.list.partition_point(|other| (other.line, other.column) <= (line, column));
        let same = |other: &Problem| (other.line, other.column, &other.message) == (line, column, &message);
        if self.list[..position].iter().rev().take_while(|other| other.line == line).any(same) {
            return;
        }
        let excerpt = Excerpt::new(self.source.line(line), place);
        let file = self.source.name.clone();
        self.list.insert(position, Problem { file, line, column, severity, message, help, excerpt });
    }

    /// The pointer into the text for one into the value: they differ behind an entry that was left out.
    fn as_written(&self, pointer: &str) -> String {
        let mut written = String::new();
        for segment in pointer.split('/').skip(1) {
            let removed = self.removed.get(&written).map(Vec::as_slice).unwrap_or_default();
            let segment = match segment.parse::<usize>() {
                Ok(index) if !removed.is_empty() => {
                    let left = (0..).filter(|index| !removed.contains(index)).nth(index).unwrap_or(index);
                    left.to_string()
                }
                _ => segment.to_owned(),
            };
            written.push('/');
            written.push_str(&segment);
        }
        written
    }

    fn place(&self, pointer: &str, key: bool) -> Place {
        let mut pointer = pointer;
        let mut key = key;
        loop {
            if let Some(written) = self.places.get(pointer) {
                return if key { written.key.unwrap_or(written.value) } else { written.value };
            }
            // What is not there is shown at the key of what it is missing in.
            key = true;
            match pointer.rfind('/') {
                Some(end) => pointer = &pointer[..end],
                None => return Place { line: 1, column: 1, length: 1 },
            }
        }
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
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Whether one of two pointers lies within the other; the whole document lies around everything and does not count.
fn related(pointer: &str, faulty: &str) -> bool {
    let within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    !pointer.is_empty() && (within(pointer, faulty) || within(faulty, pointer))
}

/// A character that cannot move the cursor, change a terminal's state or hide what stands beside it.
fn harmless(c: char) -> char {
    match c {
        '\t' | '\n' | '\r' => ' ',
        // Marks of direction and of no width, which can make a text look like another.
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}
