//! Who owns an open run: the holder of the system's lock on a file beside the ledger, gone when its process is gone.
//!
//! The system frees the lock of a killed process, so a row whose lock is free has no owner. The locks are those of
//! `flock`: they also keep two handles of one process apart. A ledger belongs on a local disk, for this and for WAL.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::error::LedgerError;

/// The file whose lock is held by who makes the tables.
const SET_UP: &str = "set-up";

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(super) struct OwnerLock {
    path: PathBuf,
    file: File,
}

impl OwnerLock {
    /// Takes the lock of a run that is about to begin. Its file must not be there yet: an id is used once.
    pub(super) fn create(folder: &Path, run: &str) -> Result<Self, LedgerError> {
        let path = file_of(folder, run);
        let error = |cause| LedgerError::Lock { path: path.clone(), cause };
        let file = in_folder(folder, || OpenOptions::new().write(true).create_new(true).open(&path)).map_err(error)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path, file }),
            Err(cause) => {
                let _ = fs::remove_file(&path);
                Err(error(cause.into()))
            }
        }
    }

    /// Takes the lock of a run that has begun, if nobody holds it; a missing file is a free lock.
    pub(super) fn take_over(folder: &Path, run: &str) -> Result<Option<Self>, LedgerError> {
        let path = file_of(folder, run);
        let error = |cause| LedgerError::Lock { path: path.clone(), cause };
        let open = || OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = in_folder(folder, open).map_err(error)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { path, file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(cause)) => Err(error(cause)),
        }
    }

    /// Frees the lock of a run that has ended and takes its file away. The file goes while the lock is still held;
    /// who opened it a moment before finds the row closed.
    pub(super) fn remove(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Freed by name, not by closing: a child that was forked a moment ago has the file open too until it becomes another
/// program.
impl Drop for OwnerLock {
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// Holds off other processes while the tables are made; waits for as long as that takes.
pub(super) fn set_up(folder: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(folder.join(SET_UP))?;
    file.lock()?;
    Ok(file)
}

/// Takes the folder away again where no ledger came to be; other things in it keep it there.
pub(super) fn leave(folder: &Path) {
    let _ = fs::remove_file(folder.join(SET_UP)).and_then(|()| fs::remove_dir(folder));
}

/// Opens a file; somebody who tidied up may have taken the folder away.
fn in_folder(folder: &Path, open: impl Fn() -> io::Result<File>) -> io::Result<File> {
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(folder).and_then(|()| open()),
        opened => opened,
    }
}

fn file_of(folder: &Path, run: &str) -> PathBuf {
    folder.join(format!("{run}.lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_cannot_be_taken_over_and_a_dropped_one_can() {
        let folder = tempfile::tempdir().unwrap();
        let held = OwnerLock::create(folder.path(), "r-1").unwrap();
        assert!(OwnerLock::take_over(folder.path(), "r-1").unwrap().is_none());
        drop(held);
        let taken = OwnerLock::take_over(folder.path(), "r-1").unwrap().unwrap();
        taken.remove();
        assert!(!file_of(folder.path(), "r-1").exists());
    }

    #[test]
    fn an_id_is_locked_once() {
        let folder = tempfile::tempdir().unwrap();
        let _held = OwnerLock::create(folder.path(), "r-1").unwrap();
        assert!(matches!(OwnerLock::create(folder.path(), "r-1"), Err(LedgerError::Lock { .. })));
    }
}
