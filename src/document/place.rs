//! Places in a text, and what was found there.

/// How many problems of one document are kept: enough for any person, a bound for any program.
pub(super) const KEPT: usize = 200;

/// The text of a document by its lines, as places count them.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: String,
    lines: Vec<String>,
}

impl Source {
    pub(super) fn new(name: &str, text: &str) -> Self {
        Self { name: name.chars().map(harmless).collect(), lines: lines(text).into_iter().map(str::to_owned).collect() }
    }

    /// One line, empty where there is none.
    pub(super) fn line(&self, number: u32) -> &str {
        (number as usize).checked_sub(1).and_then(|index| self.lines.get(index)).map_or("", String::as_str)
    }
}

/// The lines of a text. YAML ends one at `\n`, `\r\n` and `\r`; `str::lines` knows only the first two.
pub(super) fn lines(text: &str) -> Vec<&str> {
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(end) = rest.find(['\n', '\r']) {
        lines.push(&rest[..end]);
        rest = &rest[end + if rest[end..].starts_with("\r\n") { 2 } else { 1 }..];
    }
    lines.push(rest);
    lines
}

/// Where something is written; lines, columns and lengths count characters, from 1.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) length: u32,
}

/// One thing that is wrong, found while reading.
#[derive(Debug)]
pub(super) struct Found {
    /// What is wrong, as an RFC 6901 pointer into the text.
    pub(super) pointer: String,
    pub(super) place: Place,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// What was found while reading: the first of it, and how much more there was.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) list: Vec<Found>,
    pub(super) more: usize,
}

impl Findings {
    pub(super) fn report(&mut self, place: Place, pointer: &str, message: impl Into<String>, help: Option<String>) {
        if self.list.len() < KEPT {
            self.list.push(Found { pointer: pointer.to_owned(), place, message: message.into(), help });
        } else {
            self.more += 1;
        }
    }
}

/// A character that cannot move the cursor, change a terminal's state or hide what stands beside it.
pub(super) fn harmless(c: char) -> char {
    match c {
        '\t' | '\n' | '\r' => ' ',
        // Marks of direction and of no width, which can make a text look like another.
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}
