//! What the targets share: requests made of bytes, and what must be true of every document.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use pratfall::document::Problems;

/// A head as it may come from the wire: one `name: value` a line. Lines that no parser lets through are left out.
pub fn headers(text: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let mut halves = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
        // RFC 9110, 5.5: white space around a value is no part of it.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value.trim_ascii())) {
            headers.append(name, value);
        }
    }
    headers
}

/// The lines of one field.
pub fn lines<'h>(headers: &'h HeaderMap, name: &str) -> Vec<&'h [u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
}

/// All fields but these, each name with its lines in their order.
pub fn but(headers: &HeaderMap, names: &[&str]) -> Vec<(HeaderName, Vec<HeaderValue>)> {
    let mut rest: Vec<_> = headers
        .keys()
        .filter(|name| !names.contains(&name.as_str()))
        .map(|name| (name.clone(), headers.get_all(name).iter().cloned().collect()))
        .collect();
    rest.sort_by(|(one, _), (other, _): &(HeaderName, Vec<HeaderValue>)| one.as_str().cmp(other.as_str()));
    rest
}

/// What is read of a document: in short what it says, or everything that is wrong with it.
pub type Read = Result<(String, Problems), Problems>;

/// Variables that a document may name: one is set, with a value that has to be quoted, one is empty.
pub fn variables(name: &str) -> Option<String> {
    match name {
        "A" => Some("a: {\"b\"}\n\u{7}".to_owned()),
        "EMPTY" => Some(String::new()),
        "SHARE" => Some("5%".to_owned()),
        _ => None,
    }
}

/// Whatever the text is, reading it ends, says the same again, and points into the text.
pub fn document(text: &str, read: impl Fn(&str) -> Read) {
    let first = read(text);
    let problems = match &first {
        Ok((_, warnings)) => {
            assert!(!warnings.has_errors(), "accepted with errors");
            warnings
        }
        Err(problems) => {
            assert!(problems.has_errors(), "refused, and nobody says why");
            problems
        }
    };
    points_into(text, problems);
    if text.len() % 8 == 0 {
        // Now and then: reading is what takes the time.
        assert_eq!(told(&first), told(&read(text)), "not the same when read again");
    }

    // A comment above it moves everything down by a line, and nothing else.
    let is_directive = text.lines().any(|line| line.starts_with('%') || line.starts_with("\u{feff}%"));
    if text.starts_with('\u{feff}') || is_directive || text.trim().is_empty() || text.len() > 1 << 16 {
        return;
    }
    let below = read(&format!("# a comment\n{text}"));
    assert_eq!(said(&first), said(&below), "a comment above changes what is said");
    let (first, below) = (either(&first), either(&below));
    for (one, other) in first.list().iter().zip(below.list()) {
        // What concerns the whole document is shown at its beginning.
        let same = (one.line + 1, one.column) == (other.line, other.column) || (other.line, other.column) == (1, 1);
        assert!(same, "{one}\nand below a comment\n{other}");
    }
}

fn points_into(text: &str, problems: &Problems) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n").replace('\r', "\n");
    let lines: Vec<&str> = text.split('\n').collect();
    let mut before = (0, 0);
    for problem in problems.list() {
        let (line, column) = (problem.line as usize, problem.column as usize);
        assert!((1..=lines.len()).contains(&line), "line {line} of {}: {problem}", lines.len());
        let length = lines[line - 1].chars().count();
        assert!((1..=length + 1).contains(&column), "column {column} of {length}: {problem}");
        assert!(before <= (line, column), "problems are told by place");
        assert!(!problem.message.is_empty());
        before = (line, column);
    }
    // What is printed cannot move the cursor or pretend to be another line.
    let odd = problems.to_string().chars().find(|c| *c != '\n' && c.is_control());
    assert_eq!(odd, None, "a control character is printed");
}

fn either(read: &Read) -> &Problems {
    match read {
        Ok((_, problems)) | Err(problems) => problems,
    }
}

/// What was read and everything that was said about it.
fn told(read: &Read) -> (Option<&str>, String) {
    (read.as_ref().ok().map(|(value, _)| value.as_str()), either(read).to_string())
}

/// What was read and said, without places: some help names a line, too.
fn said(read: &Read) -> (Option<&str>, Vec<(&str, Option<String>)>) {
    let plain = |help: &String| help.replace(|c: char| c.is_ascii_digit(), "");
    let problems =
        either(read).list().iter().map(|problem| (problem.message.as_str(), problem.help.as_ref().map(plain)));
    let mut problems: Vec<_> = problems.collect();
    problems.sort_unstable();
    (read.as_ref().ok().map(|(value, _)| value.as_str()), problems)
}
