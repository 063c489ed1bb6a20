//! Follow-ups: the run that wants to show a failure gone. Nothing else closes one.

use rusqlite::Transaction;
use serde::Serialize;
use serde_json::json;

use super::error::LedgerError;
use super::events::{self, kind};
use super::failures::{self, FailureRow, FailureState};
use super::fingerprint::{Fingerprint, joined};
use super::runs::RunRow;
use crate::report::{Ending, Report};

/// What a follow-up has shown about the failure it follows.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct FollowUpOutcome {
    /// The failure.
    pub failure: String,
    /// Whether it is closed now: by this run, or by one before.
    pub closed: bool,
    /// Why, or why not, in one sentence.
    pub why: String,
}

/// Below this many faulted units no run holds (decisions 2.15); a ledger does not take anybody's word for it.
const ENOUGH_EXPOSED: u64 = 30;

/// A follow-up begins: somebody is testing. A failure that this ledger does not know is no reason not to run.
pub(super) fn begun(tx: &Transaction<'_>, run: &str, follow_up_of: Option<&str>) -> Result<(), LedgerError> {
    let Some(id) = follow_up_of else { return Ok(()) };
    match failures::find(tx, id)? {
        Some(failure) if failure.state < FailureState::Testing => failures::moved(tx, id, FailureState::Testing, run),
        _ => Ok(()),
    }
}

/// A follow-up often has a name of its own: what it breaks in the same way is the failure that it follows.
pub(super) fn fingerprint_of(
    tx: &Transaction<'_>,
    run: &RunRow,
    print: Fingerprint,
) -> Result<Fingerprint, LedgerError> {
    let Some(id) = &run.follow_up_of else { return Ok(print) };
    let Some(failure) = failures::find(tx, id)? else { return Ok(print) };
    let followed = Fingerprint { experiment: failure.fingerprint.experiment.clone(), ..print.clone() };
    Ok(if followed == failure.fingerprint { followed } else { print })
}

/// A follow-up has ended: closes the failure if this run shows it gone.
pub(super) fn ended(
    tx: &Transaction<'_>,
    run: &RunRow,
    report: &Report,
) -> Result<Option<FollowUpOutcome>, LedgerError> {
    let Some(id) = &run.follow_up_of else { return Ok(None) };
    let failure = failures::find(tx, id)?;
    let before = failure.as_ref().is_some_and(|failure| failure.state == FailureState::Iterated);
    let why_not = match &failure {
        Some(failure) => why_not(failure, run, report),
        None => Some("it is not in this ledger".to_owned()),
    };
    if why_not.is_none() && !before {
        events::record(tx, kind::FAILURE_VERIFIED, id, json!({ "run": run.id }))?;
    }
    let closed = before || why_not.is_none();
    let why = match (before, why_not) {
        (false, None) => "its follow-up held".to_owned(),
        (false, Some(why_not)) => why_not,
        (true, None) => "it was closed before, and its follow-up held again".to_owned(),
        (true, Some(why_not)) => format!("it was closed before; this time {why_not}"),
    };
    Ok(Some(FollowUpOutcome { failure: id.clone(), closed, why }))
}

/// Why a run does not show a failure gone.
fn why_not(failure: &FailureRow, run: &RunRow, report: &Report) -> Option<String> {
    let print = &failure.fingerprint;
    let kinds = joined(&run.fault_kinds);
    let bounds = &report.verdict.bounds;
    if report.verdict.ending != Ending::Held {
        Some(format!("the follow-up was {}", report.verdict.ending.word()))
    } else if run.at != print.at || !print.fault.split('+').all(|kind| kinds.split('+').any(|k| k == kind)) {
        let what = if print.fault.is_empty() { "a fault" } else { &print.fault };
        Some(format!("the follow-up held against {kinds} at {}, and it was {what} at {}", run.at, print.at))
    } else if !matches!(print.indicator.as_str(), "" | "recovery")
        && bounds.iter().all(|b| b.indicator != print.indicator)
    {
        Some(format!("the follow-up did not look at `{}`", print.indicator))
    } else if bounds.is_empty() || bounds.iter().any(|b| b.ending != Ending::Held || b.log_e_held < b.needs_held) {
        Some("the follow-up held without enough evidence".to_owned())
    } else if report.fidelity.exposed_units < ENOUGH_EXPOSED {
        let met = report.fidelity.exposed_units;
        Some(format!("only {met} units of the follow-up met the fault, and {ENOUGH_EXPOSED} are needed"))
    } else {
        None
    }
}
