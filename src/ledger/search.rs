//! Finding runs by words, whatever people type.

use super::Ledger;
use super::error::LedgerError;
use super::runs::{self, RunRow};

impl Ledger {
    /// Runs whose experiment, title, outcome or findings hold all these words, or words that begin like them, the
    /// best match first. Nothing in the text is syntax; a text without any letter or digit finds nothing.
    pub fn search(&self, words: &str) -> Result<Vec<RunRow>, LedgerError> {
        let Some(phrases) = phrases(words) else { return Ok(Vec::new()) };
        self.read(|connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT {} FROM words JOIN runs ON runs.seq = words.rowid WHERE words MATCH ? \
                 ORDER BY rank, runs.seq DESC LIMIT 100",
                runs::COLUMNS
            ))?;
            Ok(query.query_map([phrases], runs::row)?.collect::<Result<_, _>>()?)
        })
    }
}

/// Each word as a quoted prefix; FTS5 joins them with AND.
fn phrases(words: &str) -> Option<String> {
    let words = words.split(|c: char| c.is_whitespace() || c.is_control());
    let phrases: Vec<_> = words
        .filter(|word| word.chars().any(char::is_alphanumeric))
        .take(32)
        .map(|word| format!("\"{}\"*", word.replace('"', "\"\"")))
        .collect();
    (!phrases.is_empty()).then(|| phrases.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_so_that_nothing_in_them_is_syntax() {
        for (words, expected) in [
            ("slow inventory", Some(r#""slow"* "inventory"*"#)),
            (r#"title:x OR "y"#, Some(r#""title:x"* "OR"* """y"*"#)),
            (" - \" * () ", None),
            ("", None),
            ("a\0b", Some(r#""a"* "b"*"#)),
        ] {
            assert_eq!(phrases(words).as_deref(), expected, "{words}");
        }
    }
}
