//! What can go wrong with the ledger, and the way out of it.

use std::error::Error;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::id::one_of;

/// Why the ledger could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// No ledger can be kept there.
    #[error("cannot keep a ledger at {}: {why}", path.display())]
    Place {
        /// Where.
        path: PathBuf,
        /// Why not, with the way out.
        why: String,
    },
    /// The file or its folder cannot be written.
    #[error("cannot write the ledger at {}: make the file and its folder writable, or name another ledger", path.display())]
    NotWritable {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
    /// The file is not a database that can be read.
    #[error(
        "the ledger at {} cannot be read ({cause}); it was left as it is: restore a copy, save what is left with \
         `sqlite3 FILE .recover`, or move it aside to begin a new one",
        path.display()
    )]
    Corrupt {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        cause: rusqlite::Error,
    },
    /// A database of something else.
    #[error("the database at {} is not a ledger of pratfall; it was left as it is: name another file", path.display())]
    Foreign {
        /// Where.
        path: PathBuf,
    },
    /// Written by a later version of the program.
    #[error(
        "the ledger at {} was written by a newer pratfall (its version is {found}, this program knows {known}): \
         use that version, or name another ledger",
        path.display()
    )]
    Newer {
        /// Where.
        path: PathBuf,
        /// The version of the file.
        found: u32,
        /// The latest version that this program can read.
        known: u32,
    },
    /// The tables could not be made or brought up to date.
    #[error("cannot bring the ledger at {} up to date; nothing that was in it is lost", path.display())]
    Migrate {
        /// Where.
        path: PathBuf,
        /// What went wrong.
        #[source]
        cause: Box<refinery::Error>,
    },
    /// Another process wrote for longer than we wait.
    #[error("the ledger at {} is busy: another process has been writing for too long; try again", path.display())]
    Busy {
        /// Where.
        path: PathBuf,
    },
    /// No room is left.
    #[error("no room left for the ledger at {}: nothing was written; free some space and try again", path.display())]
    Full {
        /// Where.
        path: PathBuf,
    },
    /// The file was deleted or moved while it was open.
    #[error(
        "the ledger at {} is gone: it was deleted or moved while it was in use, and nothing can be kept in it any more; put \
         it back, or start again with a new one",
        path.display()
    )]
    Gone {
        /// Where it was.
        path: PathBuf,
    },
    /// The disk did not do what it was asked to.
    #[error(
        "the ledger at {} cannot be read or written ({cause}): is the disk full, or the file no ordinary one?",
        path.display()
    )]
    Disk {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: rusqlite::Error,
    },
    /// The run's lock could not be taken.
    #[error("cannot take the owner's lock at {}", path.display())]
    Lock {
        /// The lock's file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// A run belongs to somebody who is still there.
    #[error("run {run} belongs to a process that is still running it")]
    Owned {
        /// Which.
        run: String,
    },
    /// A run that is not there.
    #[error("run {asked} is not in the ledger{}", nearest(near))]
    UnknownRun {
        /// What was asked for.
        asked: String,
        /// What is there and looks like it.
        near: Vec<String>,
    },
    /// Several runs begin or end like this.
    #[error("{asked} may be any of {}: write more of it", one_of(those))]
    Ambiguous {
        /// What was asked for.
        asked: String,
        /// The runs it may be.
        those: Vec<String>,
    },
    /// A failure that is not there.
    #[error("failure {asked} is not in the ledger{}", nearest(near))]
    UnknownFailure {
        /// What was asked for.
        asked: String,
        /// What is there and looks like it.
        near: Vec<String>,
    },
    /// An event that is not there.
    #[error("event {seq} is not in the ledger")]
    UnknownEvent {
        /// Its number.
        seq: i64,
    },
    /// A run has no report.
    #[error("run {run} has no report: {why}")]
    NoReport {
        /// Which run.
        run: String,
        /// Why not.
        why: String,
    },
    /// The rules of the ledger forbid it.
    #[error("{0}")]
    Refused(String),
    /// Something in the ledger is not what was written there.
    #[error("the ledger holds something that this version cannot read; `audit` tells whether it was changed")]
    Unreadable(#[from] serde_json::Error),
    /// Anything else the database says.
    #[error("the ledger could not do that")]
    Database(#[from] rusqlite::Error),
}

impl LedgerError {
    /// Whether the file is in trouble, as against what was asked of it.
    pub(super) fn is_about_the_file(&self) -> bool {
        matches!(
            self,
            Self::NotWritable { .. }
                | Self::Corrupt { .. }
                | Self::Busy { .. }
                | Self::Full { .. }
                | Self::Gone { .. }
                | Self::Disk { .. }
        )
    }

    /// Names what the database said, where it has a name, and the file it said it of.
    pub(super) fn at(self, path: &Path) -> Self {
        let Self::Database(cause) = self else { return self };
        let path = path.to_owned();
        match cause.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Corrupt { path, cause },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy { path },
            Some(ErrorCode::DiskFull) => Self::Full { path },
            Some(ErrorCode::SystemIoFailure) => Self::Disk { path, cause },
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                Self::NotWritable { path, cause: cause.into() }
            }
            _ => Self::Database(cause),
        }
    }
}

/// The end of a sentence about something that is not there.
fn nearest(near: &[String]) -> String {
    if near.is_empty() { "; it has none yet".to_owned() } else { format!("; did you mean {}?", one_of(near)) }
}
