//! The real `pratfall` among real programs: a stock service from npm and one from PyPI, nginx as an upstream, curl and wrk
//! as callers.
//!
//! `cargo test --features programs --test programs`. With `PRATFALL_LONG=1` the truth table is repeated.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test says what it saw, and ends where nothing is there"
)]

mod answers;
mod chain;
mod cli;
mod crowded;
mod curl_and_nginx;
mod disarmed;
mod ending;
mod flapping;
mod life;
mod reloading;
mod soak;
mod support;
mod truth;
