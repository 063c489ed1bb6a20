//! The lab conducts experiments: it checks that one may start, enrolls it, injects under guards, judges and reports.
//!
//! Read [`run`] first: the life of an experiment is one function, top to bottom.

pub mod bound;
mod cause;
pub mod control;
mod counters;
pub mod evidence;
pub mod explore;
#[cfg(test)]
mod explore_tests;
mod findings;
pub mod follow_up;
mod gather;
mod guard;
pub mod judge;
#[cfg(test)]
mod limits_tests;
pub mod map;
mod missing;
mod not_reached;
#[cfg(test)]
mod operations_tests;
mod pairing;
#[cfg(test)]
mod phases_tests;
pub mod plan;
pub mod preflight;
pub mod progress;
pub mod rehearse;
#[cfg(test)]
mod rehearse_tests;
pub mod run;
#[cfg(test)]
mod run_tests;
#[cfg(test)]
mod simulations;
#[cfg(test)]
mod stage;
mod stop;
#[cfg(test)]
mod stop_tests;
mod watch;
mod whose;
mod write;

pub use self::control::{Control, Over, Started, Status};
pub use self::counters::Counters;
pub use self::explore::{Exploration, Explored};
pub use self::judge::judge;
pub use self::preflight::Refusal;
pub use self::progress::Progress;
pub use self::rehearse::Rehearsed;
pub use self::run::{Lab, Order};
pub use self::stop::Stop;
