//! Opening the file: is it ours, is it of our time, are its tables there?

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::error::LedgerError;
use super::{lock, place};

mod embedded {
    refinery::embed_migrations!("src/ledger/migrations");
}

/// `Prat`: how the file says whose it is.
const APPLICATION: i32 = 0x5072_6174;

/// How long a writer waits for another process.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connects to the ledger of a true path, makes it or brings it up to date where needed.
pub(super) fn connect(path: &Path) -> Result<Connection, LedgerError> {
    let not_writable = |cause| LedgerError::NotWritable { path: path.to_owned(), cause };
    let locks = place::beside(path, "locks");
    let new = match fs::create_dir(&locks) {
        Ok(()) => true,
        Err(_) if locks.is_dir() => false,
        Err(cause) => return Err(not_writable(cause.into())),
    };
    // One at a time: a ledger that is half made looks like the database of somebody else.
    let alone = lock::set_up(&locks).map_err(|cause| not_writable(cause.into()))?;
    let connected = connect_alone(path).map_err(|error| error.at(path));
    if new && matches!(connected, Err(LedgerError::Foreign { .. } | LedgerError::Corrupt { .. })) {
        lock::leave(&locks);
    }
    drop(alone);
    connected
}

fn connect_alone(path: &Path) -> Result<Connection, LedgerError> {
    // No URI: a `?` or `%` in a path is a letter like any other. The file is never opened by ourselves: to close it
    // again would free the locks that SQLite holds on it elsewhere in this process.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    if is_foreign(&connection)? {
        return Err(LedgerError::Foreign { path: path.to_owned() });
    }
    let (found, known) = (version(&connection)?, known());
    if let Some(found) = found.filter(|found| *found > known) {
        return Err(LedgerError::Newer { path: path.to_owned(), found, known });
    }
    // SQLite falls back to reading without a word.
    if connection.is_readonly("main")? {
        let cause = "the file can only be read".into();
        return Err(LedgerError::NotWritable { path: path.to_owned(), cause });
    }
    prepare(&connection)?;
    if found != Some(known) {
        let migrated = embedded::migrations::runner().run(&mut connection);
        migrated.map_err(|cause| LedgerError::Migrate { path: path.to_owned(), cause: Box::new(cause) })?;
    }
    Ok(connection)
}

/// What holds for a connection, and the mark of whose file it is.
fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    // Where the file system has no shared memory this stays `delete`, which is slower and as safe.
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // What is redacted is overwritten, not just forgotten.
    connection.query_row("PRAGMA secure_delete = ON", [], |_| Ok(()))?;
    if application(connection)? != APPLICATION {
        connection.pragma_update(None, "application_id", APPLICATION)?;
    }
    Ok(())
}

fn application(connection: &Connection) -> rusqlite::Result<i32> {
    connection.query_row("PRAGMA application_id", [], |row| row.get(0))
}

/// Whether the file holds tables of somebody else; an empty one is nobody's.
fn is_foreign(connection: &Connection) -> rusqlite::Result<bool> {
    if application(connection)? == APPLICATION {
        return Ok(false);
    }
    connection.query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))
}

/// The version of the file's tables.
fn version(connection: &Connection) -> rusqlite::Result<Option<u32>> {
    if !connection.table_exists(None, "refinery_schema_history")? {
        return Ok(None);
    }
    connection.query_row("SELECT max(version) FROM refinery_schema_history", [], |row| row.get(0))
}

/// The latest version that this program knows.
fn known() -> u32 {
    let runner = embedded::migrations::runner();
    let versions = runner.get_migrations().iter().map(|migration| migration.version().unsigned_abs());
    versions.max().unwrap_or_default()
}
