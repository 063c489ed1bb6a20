//! Events turned into tables that can be asked: the same function for an event of this moment and for one of years ago.

use rusqlite::types::Type;
use rusqlite::{Connection, Row, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Ledger;
use super::error::LedgerError;
use super::events::{self, Event, kind};

impl Ledger {
    /// Makes all tables again from the events.
    pub fn rebuild(&self) -> Result<(), LedgerError> {
        self.write(rebuild)
    }
}

/// Makes all tables again from the events.
pub(super) fn rebuild(tx: &Transaction<'_>) -> Result<(), LedgerError> {
    for table in ["occurrences", "failures", "runs", "words"] {
        tx.execute(&format!("DELETE FROM {table}"), [])?;
    }
    let mut query = tx.prepare("SELECT * FROM events ORDER BY seq")?;
    for event in query.query_map([], events::event)? {
        apply(tx, &event?)?;
    }
    // A deleted word stays in the index until its parts are merged.
    tx.execute("INSERT INTO words (words) VALUES ('optimize')", [])?;
    Ok(())
}

/// What one event changes in the tables. Redacted content has the facts and none of the words.
pub(super) fn apply(tx: &Transaction<'_>, event: &Event) -> Result<(), LedgerError> {
    let (seq, at, subject, content) = (event.seq, event.at.to_string(), &event.subject, &event.content);
    let text = |place: &str| content.pointer(place).and_then(Value::as_str);
    match event.kind.as_str() {
        kind::RUN_OPENED => {
            let (experiment, title) = (text("/experiment"), text("/title").or_else(|| text("/experiment")));
            tx.execute(
                "INSERT INTO runs (seq, id, experiment, title, owner, system, seed, fault_kinds, inject_at, \
                 follow_up_of, state, started_at) VALUES (?,?,?,?,?,?,?,?,?,?,'open',?)",
                params![
                    seq,
                    subject,
                    experiment,
                    title,
                    text("/owner"),
                    text("/system"),
                    content["seed"].to_string(),
                    content["fault_kinds"].to_string(),
                    text("/at"),
                    text("/follow_up_of"),
                    text("/started_at"),
                ],
            )?;
            let columns = "INSERT INTO words (rowid, experiment, title, seen, findings) VALUES (?,?,?,'','')";
            tx.execute(columns, params![seq, experiment, title])?;
        }
        kind::RUN_CLOSED => {
            tx.execute(
                "UPDATE runs SET state = 'closed', ended_at = ?, ending = ?, class = ?, score = ?, ended_by = ?, \
                 seen = ?, report_seq = ? WHERE id = ?",
                params![
                    text("/ended_at"),
                    text("/ending"),
                    text("/class"),
                    content["score"].as_i64(),
                    text("/report/verdict/ended_by"),
                    text("/report/seen"),
                    seq,
                    subject,
                ],
            )?;
            tx.execute(
                "UPDATE words SET seen = ?, findings = ? WHERE rowid = (SELECT seq FROM runs WHERE id = ?)",
                params![text("/report/seen").unwrap_or_default(), findings(content), subject],
            )?;
        }
        kind::EXPLORATION_CLOSED => {
            let change = "UPDATE runs SET state = 'closed', ended_at = ?, ended_by = ?, seen = ? WHERE id = ?";
            tx.execute(change, params![text("/ended_at"), text("/ended_by"), text("/seen"), subject])?;
            let words = "UPDATE words SET seen = ? WHERE rowid = (SELECT seq FROM runs WHERE id = ?)";
            tx.execute(words, params![text("/seen").unwrap_or_default(), subject])?;
        }
        // A report may still follow: who was taken for dead knows better.
        kind::RUN_INTERRUPTED => {
            let change = "UPDATE runs SET state = 'interrupted', ended_at = ? WHERE id = ?";
            tx.execute(change, params![at, subject])?;
        }
        kind::FAILURE_OPENED => {
            tx.execute(
                "INSERT INTO failures (seq, id, fingerprint, experiment, fault, inject_at, indicator, class, title, \
                 state, opened_at, seen_at, review_due, decision_due) VALUES (?,?,?,?,?,?,?,?, \
                 (SELECT title FROM runs WHERE id = ?),'failed',?,?,?,?)",
                params![
                    seq,
                    subject,
                    text("/fingerprint"),
                    text("/experiment"),
                    text("/fault"),
                    text("/at"),
                    text("/indicator"),
                    text("/class"),
                    text("/run"),
                    at,
                    at,
                    text("/review_due"),
                    text("/decision_due"),
                ],
            )?;
            occurred(tx, event)?;
        }
        kind::FAILURE_SEEN => {
            occurred(tx, event)?;
            tx.execute("UPDATE failures SET seen_at = ? WHERE id = ?", params![at, subject])?;
            // It was thought to be gone: the board begins anew.
            tx.execute(
                "UPDATE failures SET state = 'failed', came_back = came_back + 1, closed_at = NULL, closed_by = NULL, \
                 review_due = ?, decision_due = ? WHERE id = ? AND closed_at IS NOT NULL",
                params![text("/review_due"), text("/decision_due"), subject],
            )?;
        }
        kind::FAILURE_MOVED => {
            tx.execute("UPDATE failures SET state = ? WHERE id = ?", params![text("/to"), subject])?;
        }
        kind::FAILURE_VERIFIED => {
            tx.execute(
                "UPDATE failures SET state = 'iterated', closed_at = ?, closed_by = ? WHERE id = ?",
                params![at, text("/run"), subject],
            )?;
        }
        _ => {}
    }
    Ok(())
}

fn occurred(tx: &Transaction<'_>, event: &Event) -> Result<(), LedgerError> {
    let row = "INSERT INTO occurrences (seq, failure, run) VALUES (?,?,?)";
    tx.execute(row, params![event.seq, event.subject, event.content["run"].as_str()])?;
    Ok(())
}

/// The words of the findings, and of the reason, to be found by.
fn findings(content: &Value) -> String {
    let findings = content.pointer("/report/findings").and_then(Value::as_array).into_iter().flatten();
    let reason = content.pointer("/report/verdict/reason").and_then(Value::as_str);
    findings
        .flat_map(|f| [f["kind"].as_str(), f["text"].as_str()])
        .chain([reason])
        .flatten()
        .collect::<Vec<_>>()
        .join("\n")
}

/// A column that holds one word of a type: a state, a time, an ending.
pub(super) fn word<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    maybe(row, column)?.ok_or_else(|| rusqlite::Error::InvalidColumnType(0, column.to_owned(), Type::Null))
}

/// The same, where the column may be empty.
pub(super) fn maybe<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>> {
    let Some(text) = row.get::<_, Option<String>>(column)? else { return Ok(None) };
    serde_json::from_value(Value::String(text)).map(Some).map_err(unreadable)
}

/// A column that holds JSON.
pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(unreadable)
}

fn unreadable(cause: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, cause.into())
}

/// The word that a value is written as.
pub(super) fn written<T: Serialize>(value: T) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        other => unreachable!("states and classes are written as words, not as {other:?}"),
    }
}

/// All ids of a table, newest first, to suggest one that was meant.
pub(super) fn ids(connection: &Connection, table: &str) -> Result<Vec<String>, LedgerError> {
    let mut query = connection.prepare(&format!("SELECT id FROM {table} ORDER BY seq DESC LIMIT 500"))?;
    Ok(query.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
}
