//! Runs as they can be asked for: one line each, and the report.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row};
use serde::{Deserialize, Serialize};

use super::error::LedgerError;
use super::{Ledger, events, id, tables};
use crate::report::{Class, Ending, Report};
use crate::units::Seed;

/// Where a run is in its life.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Under way.
    Open,
    /// Ended, with a report.
    Closed,
    /// Its process was gone before it could report.
    Interrupted,
}

impl RunState {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// A run, in one line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunRow {
    /// Its id.
    pub id: String,
    /// The experiment's name.
    pub experiment: String,
    /// What people call it.
    pub title: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// What was under test.
    pub system: Option<String>,
    /// Where chance came from.
    pub seed: Seed,
    /// The kinds of fault.
    pub fault_kinds: Vec<String>,
    /// Where they waited.
    pub at: String,
    /// The failure it wanted to show gone.
    pub follow_up_of: Option<String>,
    /// Whether it was a fault by hand, without a hypothesis.
    pub by_hand: bool,
    /// Where it is in its life.
    pub state: RunState,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended, or was found without an owner.
    pub ended_at: Option<Timestamp>,
    /// How it ended.
    pub ending: Option<Ending>,
    /// What ended it before its plan.
    pub ended_by: Option<String>,
    /// The kind of weakness.
    pub class: Option<Class>,
    /// The impact score.
    pub score: Option<u32>,
    /// What was seen, in one sentence.
    pub seen: Option<String>,
    /// The failure it opened or added to.
    pub failure: Option<String>,
    #[serde(skip)]
    report_seq: Option<i64>,
}

/// What [`row`] reads, from `runs`.
pub(super) const COLUMNS: &str = "runs.*, (SELECT failure FROM occurrences WHERE run = runs.id) AS failure, \
    (SELECT json_extract(content, '$.by_hand') IS 1 FROM events WHERE seq = runs.seq) AS by_hand";

/// Reads a run from a row of [`COLUMNS`].
pub(super) fn row(row: &Row<'_>) -> rusqlite::Result<RunRow> {
    Ok(RunRow {
        id: row.get("id")?,
        experiment: row.get("experiment")?,
        title: row.get("title")?,
        owner: row.get("owner")?,
        system: row.get("system")?,
        seed: tables::json(row, "seed")?,
        fault_kinds: tables::json(row, "fault_kinds")?,
        at: row.get("inject_at")?,
        follow_up_of: row.get("follow_up_of")?,
        by_hand: row.get("by_hand")?,
        state: tables::word(row, "state")?,
        started_at: tables::word(row, "started_at")?,
        ended_at: tables::maybe(row, "ended_at")?,
        ending: tables::maybe(row, "ending")?,
        ended_by: row.get("ended_by")?,
        class: tables::maybe(row, "class")?,
        score: row.get("score")?,
        seen: row.get("seen")?,
        failure: row.get("failure")?,
        report_seq: row.get("report_seq")?,
    })
}

impl Ledger {
    /// The latest runs, the newest first.
    pub fn runs(&self, limit: usize) -> Result<Vec<RunRow>, LedgerError> {
        self.read(|connection| {
            let mut query =
                connection.prepare_cached(&format!("SELECT {COLUMNS} FROM runs ORDER BY seq DESC LIMIT ?"))?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            Ok(query.query_map([limit], row)?.collect::<Result<_, _>>()?)
        })
    }

    /// A run by its id, by how its id begins, by its last four letters, or `latest`.
    pub fn run(&self, asked: &str) -> Result<RunRow, LedgerError> {
        let asked = asked.trim();
        self.read(|connection| {
            if let Some(run) = find(connection, asked)? {
                return Ok(run);
            }
            let mut query = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM runs WHERE (?1 = 'latest' AND seq = (SELECT seq FROM runs WHERE \
                 coalesce((SELECT json_extract(content, '$.by_hand') FROM events WHERE seq = runs.seq), 0) = 0 \
                 ORDER BY seq DESC LIMIT 1)) \
                 OR (?1 <> '' AND substr(id, 1, length(?1)) = ?1) OR substr(id, -length(?1) - 1) = '-' || ?1 \
                 ORDER BY seq DESC LIMIT 6"
            ))?;
            let mut found: Vec<RunRow> = query.query_map([asked], row)?.collect::<Result<_, _>>()?;
            match found.len() {
                0 => Err(unknown(connection, asked)?),
                1 => Ok(found.remove(0)),
                _ => Err(LedgerError::Ambiguous {
                    asked: asked.to_owned(),
                    those: found.into_iter().map(|run| run.id).collect(),
                }),
            }
        })
    }

    /// The report of a run, named as for [`Ledger::run`], with the failure that it led to.
    pub fn report(&self, asked: &str) -> Result<Report, LedgerError> {
        let run = self.run(asked)?;
        let none = |why: String| LedgerError::NoReport { run: run.id.clone(), why };
        let Some(seq) = run.report_seq else {
            return Err(none(match run.state {
                RunState::Closed if run.by_hand => "it was a fault by hand, without a verdict".to_owned(),
                RunState::Interrupted => "its process was gone before it could write one".to_owned(),
                RunState::Open | RunState::Closed => "it is still under way".to_owned(),
            }));
        };
        let mut event = self.read(|connection| events::at(connection, seq))?;
        if let Some(why) = event.content["redacted"].as_str() {
            return Err(none(format!("it was redacted ({why})")));
        }
        let mut report: Report = serde_json::from_value(event.content["report"].take())?;
        report.failure = report.failure.or(run.failure);
        Ok(report)
    }
}

/// The run of an id.
pub(super) fn find(connection: &Connection, id: &str) -> Result<Option<RunRow>, LedgerError> {
    let mut query = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM runs WHERE id = ?"))?;
    Ok(query.query_row([id], row).optional()?)
}

/// The run of an id, which should be there.
pub(super) fn known(connection: &Connection, id: &str) -> Result<RunRow, LedgerError> {
    match find(connection, id)? {
        Some(run) => Ok(run),
        None => Err(unknown(connection, id)?),
    }
}

fn unknown(connection: &Connection, asked: &str) -> Result<LedgerError, LedgerError> {
    let near = id::near(asked, tables::ids(connection, "runs")?);
    Ok(LedgerError::UnknownRun { asked: asked.to_owned(), near })
}
