//! What is remembered, for ever: runs, failures and every event that made them, in one SQLite file.
//!
//! [`Ledger::open_run`] writes a row before the first fault and holds a lock while the run lives; [`Ledger::close_run`]
//! writes the report, and a broken hypothesis becomes a failure. Events are the truth, tables are made from them.
//! Beside `pratfall.db` are the locks of open runs in `pratfall.db.locks/`, and, while faults are halted,
//! `pratfall.db.halt`.
//!
//! Everything here waits for the disk: call it where that may be done.

mod audit;
mod error;
mod events;
mod failures;
mod fingerprint;
mod follow_up;
pub mod halt;
mod id;
mod life;
mod lock;
mod place;
mod runs;
mod search;
mod set_up;
mod tables;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_bad_luck;
#[cfg(test)]
mod tests_sample;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, Transaction, TransactionBehavior};

pub use self::audit::{Audit, BrokenLink};
pub use self::error::LedgerError;
pub use self::events::Event;
pub use self::failures::{FailureRow, FailureState};
pub use self::fingerprint::{Fingerprint, fingerprint};
pub use self::follow_up::FollowUpOutcome;
pub use self::id::new_run_id;
pub use self::life::{Closed, NewRun, OpenRun};
pub use self::runs::{RunRow, RunState};

/// A ledger that is open. Many threads may share it, many processes may have the same file open.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    locks: PathBuf,
    connection: Mutex<Connection>,
    /// Why the last attempt to write failed, if it did.
    trouble: Mutex<Option<String>>,
}

impl Ledger {
    /// Opens the ledger of a path, makes it if there is none, brings it up to date, and closes every open run whose
    /// owner is gone as interrupted.
    ///
    /// A missing folder is made if the folder around it is there. What is not a ledger, or one of a newer version, is
    /// refused and left as it is.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let path = place::prepare(path)?;
        let connection = set_up::connect(&path)?;
        let locks = place::beside(&path, "locks");
        let ledger = Self { path, locks, connection: Mutex::new(connection), trouble: Mutex::default() };
        match ledger.close_abandoned() {
            // The past can be read all the same; the rows stay open until somebody finds room and time.
            Err(error @ (LedgerError::Full { .. } | LedgerError::Busy { .. })) => {
                tracing::warn!(%error, "runs whose process is gone still count as open");
            }
            closed => drop(closed?),
        }
        Ok(ledger)
    }

    /// The file, with all links followed.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes something that changes nothing, to see whether anything can be written.
    pub fn try_out(&self) -> Result<(), LedgerError> {
        self.write(|tx| {
            let version: i64 = tx.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            Ok(tx.pragma_update(None, "user_version", version)?)
        })
    }

    /// Why the last attempt to write failed, if it did, or why the next one will.
    pub fn trouble(&self) -> Option<String> {
        let gone = self.is_there().err().map(|error| error.to_string());
        gone.or_else(|| self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Whoever has the file open can write to it after it was deleted, and nobody would ever read that.
    fn is_there(&self) -> Result<(), LedgerError> {
        if self.path.exists() { Ok(()) } else { Err(LedgerError::Gone { path: self.path.clone() }) }
    }

    /// Does some work that writes, all of it or nothing.
    fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        let written = self.is_there().and_then(|()| self.within(TransactionBehavior::Immediate, work));
        let trouble = written.as_ref().err().filter(|error| error.is_about_the_file()).map(ToString::to_string);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        written
    }

    /// Does some work that only reads, all of it at one moment of the ledger.
    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        self.within(TransactionBehavior::Deferred, |tx| work(tx))
    }

    fn within<T>(
        &self,
        behavior: TransactionBehavior,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let attempt = || {
            let mut connection = self.connection();
            let tx = connection.transaction_with_behavior(behavior)?;
            let done = work(&tx)?;
            tx.commit()?;
            Ok(done)
        };
        attempt().map_err(|error: LedgerError| error.at(&self.path))
    }

    /// Folds the write-ahead log back into the file, so that what was taken out is nowhere any more.
    fn fold(&self) -> Result<(), LedgerError> {
        let pragma = "PRAGMA wal_checkpoint(TRUNCATE)";
        let busy: bool = self
            .connection()
            .query_row(pragma, [], |row| row.get(0))
            .map_err(|cause| LedgerError::from(cause).at(&self.path))?;
        if busy {
            tracing::warn!(ledger = %self.path.display(), "another process reads: old words leave the log a little later");
        }
        Ok(())
    }

    /// A thread that panicked has rolled its work back, so that the connection it leaves behind is sound.
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
