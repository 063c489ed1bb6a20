//! Exit codes: a contract (design.md, section 6).

use std::process::ExitCode;

use crate::app::AppError;
use crate::experiment::Ending;
use crate::lab::Refusal;
use crate::ledger::LedgerError;
use crate::report::Report;

/// How a command went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// Done; for `run`: held.
    Done,
    /// Something of ours failed.
    Failed,
    /// Wrong usage or a bad file.
    Usage,
    /// A hypothesis is broken.
    Broken,
    /// A run could not tell.
    Inconclusive,
    /// A run was invalid, or refused before it began.
    Invalid,
    /// A run was halted before a verdict.
    Halted,
    /// Ended by a signal, after cleaning up.
    Signal(i32),
}

/// A usage error: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) String);

impl Exit {
    /// What an ending exits with.
    pub fn ended(ending: Ending) -> Self {
        match ending {
            Ending::Held => Self::Done,
            Ending::Broken => Self::Broken,
            Ending::Inconclusive => Self::Inconclusive,
            Ending::Invalid => Self::Invalid,
            Ending::Halted => Self::Halted,
        }
    }

    /// What a report exits with; an ending that does not fail the command is a warning.
    pub(super) fn of_report(report: &Report, fail_on: Option<&[Ending]>) -> Self {
        let ending = report.verdict.ending;
        let exit = Self::ended(ending);
        match fail_on {
            Some(fail_on) if !fail_on.contains(&ending) => {
                if exit != Self::Done {
                    let (name, word) = (&report.experiment, ending.word());
                    anstream::eprintln!("warning: {name} is {word}, which does not fail this command");
                }
                Self::Done
            }
            _ => exit,
        }
    }

    /// What a refusal exits with.
    pub fn refused(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Document(_) => Self::Usage,
            Refusal::NotNow(_) => Self::Invalid,
            Refusal::Internal(_) => Self::Failed,
        }
    }

    /// What an error exits with.
    pub fn of(error: &anyhow::Error) -> Self {
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            return Self::refused(refusal);
        }
        let bad_file =
            matches!(error.downcast_ref(), Some(AppError::NotYet(_) | AppError::File { .. } | AppError::Wrong(_)));
        if bad_file || error.is::<Usage>() || error.is::<crate::document::Problems>() {
            return Self::Usage;
        }
        let _: Option<&LedgerError> = error.downcast_ref();
        Self::Failed
    }

    /// The one that speaks for several: a signal, then 1, 3, 6, 5, 4, 0, the first that occurred in this order.
    pub fn worst(all: impl IntoIterator<Item = Self>) -> Self {
        all.into_iter().max_by_key(|exit| exit.weight()).unwrap_or(Self::Done)
    }

    fn weight(self) -> u8 {
        match self {
            Self::Signal(_) => 7,
            Self::Failed => 6,
            Self::Usage => 5,
            Self::Broken => 4,
            Self::Halted => 3,
            Self::Invalid => 2,
            Self::Inconclusive => 1,
            Self::Done => 0,
        }
    }

    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Broken => 3,
            Self::Inconclusive => 4,
            Self::Invalid => 5,
            Self::Halted => 6,
            Self::Signal(signal) => 128 + u8::try_from(signal).unwrap_or(15),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_endings_exit_with_the_first_in_the_order_of_the_contract() {
        use Exit::{Broken, Done, Failed, Halted, Inconclusive, Invalid, Signal};
        for (all, worst) in [
            (vec![], Done),
            (vec![Done, Inconclusive], Inconclusive),
            (vec![Inconclusive, Invalid, Done], Invalid),
            (vec![Invalid, Halted], Halted),
            (vec![Halted, Broken, Invalid], Broken),
            (vec![Broken, Failed], Failed),
            (vec![Failed, Signal(2)], Signal(2)),
        ] {
            assert_eq!(Exit::worst(all.clone()), worst, "{all:?}");
        }
        assert_eq!([Signal(2).code(), Signal(15).code(), Broken.code(), Halted.code()], [130, 143, 3, 6]);
    }
}
