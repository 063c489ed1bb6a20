//! The halt mark: a file beside the ledger that says "no faults", to every process on it, across restarts.
//!
//! It is looked at every few milliseconds, so that looking is one `stat` while there is none. Stopping beats
//! everything: a mark that is there and cannot be understood is a mark.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::place;
use crate::clock;

/// Where the mark of a ledger is, or would be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HaltMark {
    path: PathBuf,
}

/// Who halted, and when.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct HaltReason {
    /// Who, as far as is known.
    pub by: String,
    /// Since when.
    pub at: Timestamp,
}

impl HaltMark {
    /// The mark beside a ledger, which need not exist.
    pub fn beside(ledger: &Path) -> Self {
        Self { path: place::beside(&place::settled(ledger), "halt") }
    }

    /// The mark's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Halts. The first to do so stays on the mark.
    ///
    /// The empty file comes first, so that a full disk does not keep anybody from halting.
    pub fn set(&self, by: &str) -> io::Result<()> {
        let mut file = match File::options().write(true).create_new(true).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
            Err(error) => return Err(error),
        };
        let reason = HaltReason { by: by.to_owned(), at: clock::now() };
        let text = serde_json::to_vec(&reason).expect("a name and a time are always JSON");
        if let Err(error) = file.write_all(&text).and_then(|()| file.sync_all()) {
            tracing::warn!(%error, mark = %self.path.display(), "halted, but the mark does not say by whom");
        }
        self.sync_folder();
        Ok(())
    }

    /// Lets faults be again; nothing to do is fine.
    pub fn clear(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => {
                self.sync_folder();
                Ok(())
            }
        }
    }

    /// Whether and by whom faults are halted. An error means that nobody can tell: treat it as halted.
    pub fn read(&self) -> io::Result<Option<HaltReason>> {
        let written = match fs::symlink_metadata(&self.path) {
            Ok(there) => there.modified().ok(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let understood = match fs::read(&self.path) {
            Ok(text) => serde_json::from_slice(&text).ok(),
            // Cleared between the two looks.
            Err(error) if error.kind() == ErrorKind::NotFound && !self.is_there() => return Ok(None),
            Err(_) => None,
        };
        Ok(Some(understood.unwrap_or_else(|| HaltReason {
            by: "somebody who left no name".to_owned(),
            at: written.and_then(|time| Timestamp::try_from(time).ok()).unwrap_or_else(clock::now),
        })))
    }

    fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok()
    }

    /// A mark must outlive a power cut; where the system cannot promise that, it holds all the same.
    fn sync_folder(&self) {
        if let Some(folder) = self.path.parent() {
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> (tempfile::TempDir, HaltMark) {
        let folder = tempfile::tempdir().unwrap();
        let mark = HaltMark::beside(&folder.path().join("pratfall.db"));
        (folder, mark)
    }

    #[test]
    fn a_mark_is_seen_by_all_until_it_is_cleared() {
        let (folder, mark) = mark();
        let other = HaltMark::beside(&folder.path().join("pratfall.db"));
        assert_eq!(other.read().unwrap(), None);
        mark.set("ann").unwrap();
        assert_eq!(other.read().unwrap().unwrap().by, "ann");
        other.clear().unwrap();
        other.clear().unwrap();
        assert_eq!(mark.read().unwrap(), None);
    }

    #[test]
    fn the_first_to_halt_stays_on_the_mark() {
        let (_folder, mark) = mark();
        mark.set("ann").unwrap();
        mark.set("bob").unwrap();
        assert_eq!(mark.read().unwrap().unwrap().by, "ann");
    }

    #[test]
    fn a_mark_that_cannot_be_understood_is_a_mark() {
        let (_folder, mark) = mark();
        for text in ["", "{", "\"ann\"", "\u{0}"] {
            fs::write(mark.path(), text).unwrap();
            assert!(mark.read().unwrap().is_some(), "{text:?}");
        }
        mark.clear().unwrap();
        fs::create_dir(mark.path()).unwrap();
        assert!(mark.read().unwrap().is_some(), "a folder in its place");
    }

    #[test]
    fn a_link_to_nothing_is_a_mark() {
        let (folder, mark) = mark();
        #[cfg(unix)]
        std::os::unix::fs::symlink(folder.path().join("nothing"), mark.path()).unwrap();
        #[cfg(unix)]
        assert!(mark.read().unwrap().is_some());
        drop(folder);
    }

    #[test]
    fn a_mark_in_a_folder_that_is_not_there_is_no_mark_and_cannot_be_set() {
        let mark = HaltMark::beside(Path::new("/not/there/pratfall.db"));
        assert_eq!(mark.read().unwrap(), None);
        assert!(mark.set("ann").is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_the_ledger_has_the_mark_of_the_ledger() {
        let (folder, mark) = mark();
        let ledger = folder.path().join("pratfall.db");
        fs::write(&ledger, "").unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let link = elsewhere.path().join("link.db");
        std::os::unix::fs::symlink(&ledger, &link).unwrap();
        mark.set("ann").unwrap();
        assert!(HaltMark::beside(&link).read().unwrap().is_some());
    }
}
