//! Failures: what broken runs have shown, on a board from "failed" to "iterated", kept for ever.

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error::LedgerError;
use super::events::{self, kind};
use super::fingerprint::Fingerprint;
use super::{Ledger, id, tables};
use crate::clock;

/// Where a failure is on the board.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureState {
    /// A hypothesis was broken; nobody has looked yet.
    Failed,
    /// Somebody has an idea why.
    Hypothesis,
    /// The idea is being tried; so it is while a follow-up runs.
    Testing,
    /// It is known why.
    Analysed,
    /// A follow-up held: the weakness is gone.
    Iterated,
}

impl FailureState {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Hypothesis => "hypothesis",
            Self::Testing => "testing",
            Self::Analysed => "analysed",
            Self::Iterated => "iterated",
        }
    }
}

/// A failure, in one line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FailureRow {
    /// Its id.
    pub id: String,
    /// What makes it this failure and no other.
    pub fingerprint: Fingerprint,
    /// What people call the experiment that found it.
    pub title: String,
    /// Where it is on the board.
    pub state: FailureState,
    /// When it was first seen.
    pub opened_at: Timestamp,
    /// When it was last seen.
    pub seen_at: Timestamp,
    /// How often it was seen.
    pub occurrences: u32,
    /// How often it was seen again after it had been closed.
    pub came_back: u32,
    /// The run that found it.
    pub first_run: String,
    /// The run that saw it last.
    pub last_run: String,
    /// The worst impact score of its runs.
    pub score: Option<u32>,
    /// Until when somebody should have looked at it.
    pub review_due: Timestamp,
    /// Until when somebody should have decided what to do.
    pub decision_due: Timestamp,
    /// When a follow-up showed it gone.
    pub closed_at: Option<Timestamp>,
    /// The follow-up that did.
    pub closed_by: Option<String>,
}

const SELECT: &str = "SELECT failures.*, n, score, last_seq, first.run AS first_run, last.run AS last_run FROM ( \
     SELECT failure, count(*) AS n, max(runs.score) AS score, min(o.seq) AS first_seq, max(o.seq) AS last_seq \
     FROM occurrences AS o JOIN runs ON runs.id = o.run GROUP BY failure) AS seen \
     JOIN failures ON failures.id = seen.failure \
     JOIN occurrences AS first ON first.seq = first_seq JOIN occurrences AS last ON last.seq = last_seq";

fn row(row: &Row<'_>) -> rusqlite::Result<FailureRow> {
    Ok(FailureRow {
        id: row.get("id")?,
        fingerprint: Fingerprint {
            experiment: row.get("experiment")?,
            fault: row.get("fault")?,
            at: row.get("inject_at")?,
            indicator: row.get("indicator")?,
            class: row.get("class")?,
        },
        title: row.get("title")?,
        state: tables::word(row, "state")?,
        opened_at: tables::word(row, "opened_at")?,
        seen_at: tables::word(row, "seen_at")?,
        occurrences: row.get("n")?,
        came_back: row.get("came_back")?,
        first_run: row.get("first_run")?,
        last_run: row.get("last_run")?,
        score: row.get("score")?,
        review_due: tables::word(row, "review_due")?,
        decision_due: tables::word(row, "decision_due")?,
        closed_at: tables::maybe(row, "closed_at")?,
        closed_by: row.get("closed_by")?,
    })
}

impl Ledger {
    /// All failures: those that are open first, and of these the ones seen last.
    pub fn failures(&self) -> Result<Vec<FailureRow>, LedgerError> {
        self.read(|connection| {
            let mut query =
                connection.prepare_cached(&format!("{SELECT} ORDER BY closed_at IS NOT NULL, last_seq DESC"))?;
            Ok(query.query_map([], row)?.collect::<Result<_, _>>()?)
        })
    }

    /// The failure of an id, with or without its `F-`.
    pub fn failure(&self, id: &str) -> Result<FailureRow, LedgerError> {
        self.read(|connection| known(connection, id))
    }

    /// Failures that a run which is about to begin may see again: of the same experiment, or of the same fault at the
    /// same place. The likest first, then those that are open.
    pub fn similar(&self, experiment: &str, fault_kind: &str, at: &str) -> Result<Vec<FailureRow>, LedgerError> {
        self.read(|connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT * FROM ({SELECT}) WHERE experiment = ?1 \
                 OR (inject_at = ?3 AND instr('+' || fault || '+', '+' || ?2 || '+') > 0) \
                 ORDER BY (experiment = ?1) + (inject_at = ?3) + (instr('+' || fault || '+', '+' || ?2 || '+') > 0) DESC, \
                 closed_at IS NOT NULL, seq DESC"
            ))?;
            Ok(query.query_map([experiment, fault_kind, at], row)?.collect::<Result<_, _>>()?)
        })
    }

    /// Moves a failure on the board. Only a follow-up that held closes one, and a closed one stays closed.
    pub fn move_failure(&self, id: &str, to: FailureState, by: &str) -> Result<FailureRow, LedgerError> {
        self.write(|tx| {
            let failure = known(tx, id)?;
            if to == FailureState::Iterated {
                let why =
                    format!("failure {0} closes when its follow-up holds: `pratfall run {0}` tries that", failure.id);
                return Err(LedgerError::Refused(why));
            }
            if failure.state == FailureState::Iterated {
                let why = format!("failure {} is closed; it opens again when a run sees it again", failure.id);
                return Err(LedgerError::Refused(why));
            }
            moved(tx, &failure.id, to, by)?;
            known(tx, id)
        })
    }
}

/// Writes down a move on the board.
pub(super) fn moved(tx: &Transaction<'_>, id: &str, to: FailureState, by: &str) -> Result<(), LedgerError> {
    events::record(tx, kind::FAILURE_MOVED, id, json!({ "to": to, "by": by })).map(drop)
}

/// Writes down that a run has seen a failure; says whether it was not known before.
pub(super) fn occurred(
    tx: &Transaction<'_>,
    print: &Fingerprint,
    run: &str,
) -> Result<(FailureRow, bool), LedgerError> {
    let hash = print.hash();
    let known_as: Option<String> =
        tx.query_row("SELECT id FROM failures WHERE fingerprint = ?", [&hash], |row| row.get(0)).optional()?;
    let now = clock::now();
    let mut content = json!({ "run": run, "review_due": review_due(now), "decision_due": decision_due(now) });
    let (id, event, new) = match known_as {
        Some(id) => (id, kind::FAILURE_SEEN, false),
        None => {
            content["fingerprint"] = json!(hash);
            content["experiment"] = json!(print.experiment);
            content["fault"] = json!(print.fault);
            content["at"] = json!(print.at);
            content["indicator"] = json!(print.indicator);
            content["class"] = json!(print.class);
            (free_id(tx, print)?, kind::FAILURE_OPENED, true)
        }
    };
    events::record(tx, event, &id, content)?;
    Ok((known(tx, &id)?, new))
}

/// The shortest id that no other failure has.
fn free_id(tx: &Transaction<'_>, print: &Fingerprint) -> Result<String, LedgerError> {
    let mut length = 4;
    loop {
        let id = print.id(length);
        if !tx.query_row("SELECT EXISTS (SELECT 1 FROM failures WHERE id = ?)", params![id], |row| row.get(0))? {
            return Ok(id);
        }
        length += 1;
    }
}

/// The failure of an id, if there is one.
pub(super) fn find(connection: &Connection, id: &str) -> Result<Option<FailureRow>, LedgerError> {
    let mut query = connection.prepare_cached(&format!("{SELECT} WHERE failures.id = ?"))?;
    Ok(query.query_row([canonical(id)], row).optional()?)
}

fn known(connection: &Connection, asked: &str) -> Result<FailureRow, LedgerError> {
    match find(connection, asked)? {
        Some(failure) => Ok(failure),
        None => {
            let near = id::near(&canonical(asked), tables::ids(connection, "failures")?);
            Err(LedgerError::UnknownFailure { asked: asked.to_owned(), near })
        }
    }
}

/// An id as the ledger writes it: `f-7K2M` and `7k2m` are `F-7k2m`.
pub(super) fn canonical(id: &str) -> String {
    let small = id.trim().to_lowercase();
    format!("F-{}", small.strip_prefix("f-").unwrap_or(&small))
}

/// Somebody should have looked within two days.
fn review_due(opened: Timestamp) -> Timestamp {
    opened.saturating_add(SignedDuration::from_hours(48)).unwrap_or(Timestamp::MAX)
}

/// And decided within five working days; holidays are not known here.
fn decision_due(opened: Timestamp) -> Timestamp {
    let mut day = opened.to_zoned(TimeZone::UTC);
    let mut left = 5;
    while left > 0 {
        day = day.saturating_add(1.day());
        left -= i32::from(!matches!(day.weekday(), Weekday::Saturday | Weekday::Sunday));
    }
    day.timestamp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_due_after_five_working_days() {
        for (opened, due) in [
            ("2026-11-16T10:00:00Z", "2026-11-23T10:00:00Z"), // Monday to Monday
            ("2026-11-20T10:00:00Z", "2026-11-27T10:00:00Z"), // Friday to Friday
            ("2026-11-21T10:00:00Z", "2026-11-27T10:00:00Z"), // Saturday to Friday
            ("2026-11-22T10:00:00Z", "2026-11-27T10:00:00Z"), // Sunday to Friday
        ] {
            assert_eq!(decision_due(opened.parse().unwrap()).to_string(), due, "{opened}");
        }
    }

    #[test]
    fn an_id_may_be_written_carelessly() {
        for id in ["F-7k2m", "f-7K2M", "7k2m", " F-7k2m "] {
            assert_eq!(canonical(id), "F-7k2m");
        }
    }

    #[test]
    fn states_are_stored_as_their_words() {
        use FailureState::*;
        for state in [Failed, Hypothesis, Testing, Analysed, Iterated] {
            assert_eq!(tables::written(state), state.word());
        }
    }
}
