//! The life of a run: opened before the first fault, closed with a report, or found without an owner.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::error::LedgerError;
use super::events::{self, kind};
use super::failures::{self, FailureRow};
use super::fingerprint::fingerprint;
use super::follow_up::{self, FollowUpOutcome};
use super::lock::OwnerLock;
use super::runs::{RunRow, RunState, find, known};
use super::{Ledger, id};
use crate::report::{Ending, Report};
use crate::units::Seed;

/// What is known of a run before it begins.
#[derive(Clone, Debug, Serialize)]
pub struct NewRun {
    /// Its id, see [`super::new_run_id`].
    #[serde(skip)]
    pub id: String,
    /// The experiment's name.
    pub experiment: String,
    /// What people call it.
    pub title: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// The experiment's document, as it was read.
    pub document: String,
    /// Where chance comes from.
    pub seed: Seed,
    /// What is under test, by its name.
    pub system: Option<String>,
    /// When it begins.
    pub started_at: Timestamp,
    /// The kinds of fault that the treatment will meet: `latency`, `error`, …
    pub fault_kinds: Vec<String>,
    /// The listener whose calls will meet them.
    pub at: String,
    /// The failure that this run wants to show gone.
    pub follow_up_of: Option<String>,
}

/// A run that is in the ledger and under way. Dropped without being closed, it is found as interrupted later.
#[derive(Debug)]
#[must_use = "the run is under way for as long as this is kept"]
pub struct OpenRun {
    id: String,
    lock: OwnerLock,
}

impl OpenRun {
    /// The run's id.
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// What closing a run has led to.
#[derive(Clone, Debug, Serialize)]
pub struct Closed {
    /// The failure that a broken run opened or added to.
    pub failure: Option<FailureRow>,
    /// Whether it was not known before.
    pub new: bool,
    /// What a follow-up has shown about the failure it follows.
    pub follow_up: Option<FollowUpOutcome>,
}

impl Ledger {
    /// Writes down that a run begins. It is on the disk when this returns; only then may a fault be injected.
    pub fn open_run(&self, run: &NewRun) -> Result<OpenRun, LedgerError> {
        self.open_row(run, false)
    }

    /// Writes down that a fault by hand begins, as [`Ledger::open_run`] does: there will be no verdict.
    pub fn open_exploration(&self, run: &NewRun) -> Result<OpenRun, LedgerError> {
        self.open_row(run, true)
    }

    fn open_row(&self, run: &NewRun, by_hand: bool) -> Result<OpenRun, LedgerError> {
        if !id::is_plain(&run.id) {
            let why = format!("`{}` is no id for a run: letters, digits and `-` are, up to 64 of them", run.id);
            return Err(LedgerError::Refused(why));
        }
        let mut content = serde_json::to_value(run)?;
        let follow_up_of = run.follow_up_of.as_deref().map(failures::canonical);
        content["follow_up_of"] = json!(follow_up_of);
        if by_hand {
            content["by_hand"] = json!(true);
        }
        // First the lock, then the row: nobody may ever see the row of a living run unlocked.
        let lock = OwnerLock::create(&self.locks, &run.id)?;
        let written = self.write(|tx| {
            if find(tx, &run.id)?.is_some() {
                return Err(LedgerError::Refused(format!(
                    "run {} is in the ledger already; an id is used once",
                    run.id
                )));
            }
            events::record(tx, kind::RUN_OPENED, &run.id, content)?;
            follow_up::begun(tx, &run.id, follow_up_of.as_deref())
        });
        match written {
            Ok(()) => Ok(OpenRun { id: run.id.clone(), lock }),
            Err(error) => {
                lock.remove();
                Err(error)
            }
        }
    }

    /// Takes up a run again that has no report and whose owner is gone, for one: after [`Ledger::close_run`] failed
    /// because the disk was full.
    pub fn reopen(&self, run: &str) -> Result<OpenRun, LedgerError> {
        let row = self.run(run)?;
        refuse_closed(&row)?;
        match OwnerLock::take_over(&self.locks, &row.id)? {
            Some(lock) => Ok(OpenRun { id: row.id, lock }),
            None => Err(LedgerError::Owned { run: row.id }),
        }
    }

    /// Writes down how a run ended; a broken one opens a failure or adds to the one with the same fingerprint.
    pub fn close_run(&self, open: OpenRun, report: &Report) -> Result<Closed, LedgerError> {
        if report.run != open.id {
            let why = format!("the report is of run {}, and run {} is to be closed", report.run, open.id);
            return Err(LedgerError::Refused(why));
        }
        let content = json!({
            "ending": report.verdict.ending,
            "ended_at": report.ended_at,
            "class": report.class,
            "score": report.impact.score,
            "report": report,
        });
        let closed = self.write(|tx| {
            let run = known(tx, &open.id)?;
            refuse_closed(&run)?;
            events::record(tx, kind::RUN_CLOSED, &open.id, content)?;
            let (mut failure, mut new) = (None, false);
            if report.verdict.ending == Ending::Broken {
                let print = follow_up::fingerprint_of(tx, &run, fingerprint(report, &run.fault_kinds))?;
                let (row, opened) = failures::occurred(tx, &print, &open.id)?;
                (failure, new) = (Some(row), opened);
            }
            let follow_up = follow_up::ended(tx, &run, report)?;
            Ok(Closed { failure, new, follow_up })
        })?;
        open.lock.remove();
        Ok(closed)
    }

    /// Writes down what came of a fault by hand: `ended_at`, `ended_by` and `seen`, and whatever else there is to keep.
    pub fn close_exploration(&self, open: OpenRun, content: Value) -> Result<(), LedgerError> {
        self.write(|tx| {
            refuse_closed(&known(tx, &open.id)?)?;
            events::record(tx, kind::EXPLORATION_CLOSED, &open.id, content).map(drop)
        })?;
        open.lock.remove();
        Ok(())
    }

    /// Closes every open run whose owner is gone as interrupted, and says which they were.
    ///
    /// A run whose lock cannot be looked at stays open: its owner may be there.
    pub fn close_abandoned(&self) -> Result<Vec<String>, LedgerError> {
        let open: Vec<String> = self.read(|connection| {
            let mut query = connection.prepare("SELECT id FROM runs WHERE state = 'open' ORDER BY seq")?;
            Ok(query.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
        })?;
        let mut closed = Vec::new();
        for run in open {
            let lock = match OwnerLock::take_over(&self.locks, &run) {
                Ok(Some(lock)) => lock,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(%run, %error, "cannot tell whether the run still has an owner; it stays open");
                    continue;
                }
            };
            let gone = self.write(|tx| {
                // Its owner may have closed it between our two looks.
                let open = known(tx, &run)?.state == RunState::Open;
                if open {
                    events::record(tx, kind::RUN_INTERRUPTED, &run, json!({ "why": "its process is gone" }))?;
                }
                Ok(open)
            })?;
            lock.remove();
            if gone {
                tracing::warn!(%run, "the run's process is gone without a report: interrupted");
                closed.push(run);
            }
        }
        Ok(closed)
    }

    /// Adds a note about a run: a kind of one's own, and whatever belongs to it. No bodies, credentials or raw paths.
    pub fn note_run_event(&self, run: &str, kind: &str, content: Value) -> Result<(), LedgerError> {
        if kind.is_empty() || kind::is_ours(kind) {
            return Err(LedgerError::Refused(format!(
                "`{kind}` is a kind that the ledger writes itself; name another"
            )));
        }
        self.write(|tx| {
            known(tx, run)?;
            events::record(tx, kind, run, content).map(drop)
        })
    }
}

fn refuse_closed(run: &RunRow) -> Result<(), LedgerError> {
    match run.state {
        RunState::Closed => Err(LedgerError::Refused(format!("run {} has its report already; it stays", run.id))),
        // Taken for dead and alive after all: its report counts.
        RunState::Open | RunState::Interrupted => Ok(()),
    }
}
