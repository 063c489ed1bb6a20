//! Why a run is stopped before its plan, by somebody outside of it.

use std::fmt;

/// Why somebody stopped a run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Stop {
    /// A signal, by its number.
    Signal(i32),
    /// A person, or whoever speaks for one.
    Halt(String),
    /// The lease ran out: nobody said that the run should go on.
    Lease,
    /// A reload of the system file changed what the run stands on; says what.
    Reload(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(2) => f.write_str("interrupted (SIGINT)"),
            Self::Signal(15) => f.write_str("terminated (SIGTERM)"),
            Self::Signal(number) => write!(f, "signal {number}"),
            Self::Halt(by) => write!(f, "halted by {by}"),
            Self::Lease => f.write_str("the lease ran out: no heartbeat came"),
            Self::Reload(what) => write!(f, "a reload of the system file {what}"),
        }
    }
}
