//! Pratfall: a fall taken on purpose, rehearsed so that nobody is hurt and everybody learns how to land.

pub mod clock;
pub mod demo;
pub mod experiment;
pub mod fault;
pub mod load;
pub mod report;
pub mod units;
