//! What happened, in the order in which it was written down: a chain that can only grow.
//!
//! Each event's hash covers the one before it, its own facts and the hash of its content, so that nothing can be
//! changed, left out or put between without breaking the chain. What the chain cannot show is that its end was cut
//! off: who wants to know that keeps the head's hash somewhere else. `seq` is the order; clocks may jump.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::error::LedgerError;
use super::{Ledger, tables};
use crate::clock;

/// The kinds of events that tables are made of; every other kind is a note.
pub(super) mod kind {
    pub(in super::super) const RUN_OPENED: &str = "run_opened";
    pub(in super::super) const RUN_CLOSED: &str = "run_closed";
    pub(in super::super) const EXPLORATION_CLOSED: &str = "exploration_closed";
    pub(in super::super) const RUN_INTERRUPTED: &str = "run_interrupted";
    pub(in super::super) const FAILURE_OPENED: &str = "failure_opened";
    pub(in super::super) const FAILURE_SEEN: &str = "failure_seen";
    pub(in super::super) const FAILURE_MOVED: &str = "failure_moved";
    pub(in super::super) const FAILURE_VERIFIED: &str = "failure_verified";
    pub(in super::super) const REDACTED: &str = "redacted";

    /// Whether a kind is one of ours.
    pub(in super::super) fn is_ours(kind: &str) -> bool {
        [RUN_OPENED, RUN_CLOSED, RUN_INTERRUPTED, FAILURE_OPENED].contains(&kind)
            || [FAILURE_SEEN, FAILURE_MOVED, FAILURE_VERIFIED, REDACTED, EXPLORATION_CLOSED].contains(&kind)
    }

    /// What stays of an event's content when it is redacted: the facts that the tables need, none of the words.
    pub(in super::super) fn kept(kind: &str) -> &'static [&'static str] {
        match kind {
            RUN_OPENED => &["experiment", "seed", "started_at", "fault_kinds", "at", "follow_up_of", "by_hand"],
            RUN_CLOSED => &["ending", "ended_at", "class", "score"],
            EXPLORATION_CLOSED => &["ended_at"],
            FAILURE_OPENED => {
                &["fingerprint", "experiment", "fault", "at", "indicator", "class", "run", "review_due", "decision_due"]
            }
            FAILURE_SEEN => &["run", "review_due", "decision_due"],
            FAILURE_MOVED => &["to"],
            FAILURE_VERIFIED => &["run"],
            _ => &[],
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// Its place in the chain, from 1 on.
    pub seq: i64,
    /// What the clock said; clocks may jump, `seq` does not.
    pub at: Timestamp,
    /// What kind of thing.
    pub kind: String,
    /// Whom it is about: a run, a failure, an event.
    pub subject: String,
    /// The rest.
    pub content: Value,
    /// Its hash, which covers all that came before.
    pub hash: String,
}

/// Adds an event to the end of the chain and to the tables that are made from events.
pub(super) fn record(tx: &Transaction<'_>, kind: &str, subject: &str, content: Value) -> Result<Event, LedgerError> {
    let last = tx
        .query_row("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (before, prev): (i64, String) = last.unwrap_or_default();
    let (seq, at) = (before + 1, clock::now());
    let text = content.to_string();
    let content_hash = sha256(text.as_bytes());
    let hash = link(&prev, seq, &at.to_string(), kind, subject, &content_hash);
    tx.execute(
        "INSERT INTO events (seq, at, kind, subject, content, content_hash, prev, hash) VALUES (?,?,?,?,?,?,?,?)",
        params![seq, at.to_string(), kind, subject, text, content_hash, prev, hash],
    )?;
    let event = Event { seq, at, kind: kind.to_owned(), subject: subject.to_owned(), content, hash };
    tables::apply(tx, &event)?;
    Ok(event)
}

/// The hash of one link. Each part goes in with its length, so that no two different links read the same.
pub(super) fn link(prev: &str, seq: i64, at: &str, kind: &str, subject: &str, content_hash: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(b"pratfall event 1\n");
    for part in [prev.as_bytes(), &seq.to_be_bytes(), at.as_bytes(), kind.as_bytes(), subject.as_bytes()] {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.update(content_hash.as_bytes());
    hex(&hasher.finalize())
}

/// SHA-256 in hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads an event from a row of `seq, at, kind, subject, content, hash`.
pub(super) fn event(row: &Row<'_>) -> rusqlite::Result<Event> {
    Ok(Event {
        seq: row.get("seq")?,
        at: tables::word(row, "at")?,
        kind: row.get("kind")?,
        subject: row.get("subject")?,
        content: tables::json(row, "content")?,
        hash: row.get("hash")?,
    })
}

/// The event of a number.
pub(super) fn at(connection: &Connection, seq: i64) -> Result<Event, LedgerError> {
    connection
        .query_row("SELECT * FROM events WHERE seq = ?", [seq], event)
        .optional()?
        .ok_or(LedgerError::UnknownEvent { seq })
}

impl Ledger {
    /// Everything that was written about a run, a failure or an event, oldest first.
    pub fn events(&self, subject: &str) -> Result<Vec<Event>, LedgerError> {
        self.read(|connection| {
            let mut query = connection.prepare_cached("SELECT * FROM events WHERE subject = ? ORDER BY seq")?;
            Ok(query.query_map([subject], event)?.collect::<Result<_, _>>()?)
        })
    }

    /// How many events there are.
    pub fn count_events(&self) -> Result<u64, LedgerError> {
        self.read(|connection| {
            Ok(connection.query_row("SELECT count(*) FROM events", [], |row| row.get::<_, i64>(0))?.cast_unsigned())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_covers_every_part_and_where_each_one_ends() {
        let link_of = |prev, seq, at, kind, subject, content| link(prev, seq, at, kind, subject, content);
        let one = link_of("p", 1, "t", "k", "s", "c");
        for other in [
            link_of("P", 1, "t", "k", "s", "c"),
            link_of("p", 2, "t", "k", "s", "c"),
            link_of("p", 1, "T", "k", "s", "c"),
            link_of("p", 1, "t", "K", "s", "c"),
            link_of("p", 1, "t", "k", "S", "c"),
            link_of("p", 1, "t", "k", "s", "C"),
            link_of("p", 1, "t", "ks", "", "c"),
            link_of("p", 1, "tk", "", "s", "c"),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn hashes_are_sha_256() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
