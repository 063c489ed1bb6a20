//! Reading a document's file: never more of it than a document may have.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::file::open_ordinary;

/// One byte more than this, and whoever reads the document says that it is too long.
const MOST: u64 = (1 << 20) + 1;

/// The text of a file, or as much of it as shows that it is too long. A pipe of the shell will do.
pub fn load(path: &Path) -> io::Result<String> {
    text(File::open(path)?)
}

/// The same of an ordinary file, for whoever reads it again and again.
pub fn load_ordinary(path: &Path) -> io::Result<String> {
    text(open_ordinary(path)?)
}

/// The same of standard input.
pub fn load_stdin() -> io::Result<String> {
    text(io::stdin())
}

fn text(source: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    source.take(MOST).read_to_end(&mut bytes)?;
    let cut = bytes.len() as u64 == MOST;
    String::from_utf8(bytes).or_else(|wrong| {
        let (at, utf8) = (wrong.utf8_error().valid_up_to(), wrong.utf8_error());
        let mut bytes = wrong.into_bytes();
        // A letter may be cut where we stopped.
        if cut && utf8.error_len().is_none() {
            bytes.truncate(at);
            bytes.resize(MOST as usize, b' ');
            return String::from_utf8(bytes).map_err(io::Error::other);
        }
        let before = &bytes[..at];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        let why = format!("line {line}, column {column}: not UTF-8 text");
        Err(io::Error::new(io::ErrorKind::InvalidData, why))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_than_a_document_may_have_and_what_is_no_text_has_its_place() {
        assert_eq!(load(Path::new("/dev/zero")).unwrap().len() as u64, MOST);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        std::fs::write(&path, b"version: 1\na: \xff\n").unwrap();
        assert_eq!(load(&path).unwrap_err().to_string(), "line 2, column 4: not UTF-8 text");
        std::fs::write(&path, "\u{fc}".repeat(MOST as usize)).unwrap();
        assert_eq!(load(&path).unwrap().len() as u64, MOST, "a letter is cut there");
        for other in [folder.path(), Path::new("/dev/zero")] {
            assert!(load_ordinary(other).is_err());
        }
        assert!(load_ordinary(&path).is_ok());
    }
}
