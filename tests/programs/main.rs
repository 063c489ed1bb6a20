//! The real `pratfall` among real programs: a stock service from npm and one from PyPI, nginx as an upstream, curl, wrk, h2load,
//! openssl, gRPC and WebSocket clients as callers.
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
mod clients;
mod crowded;
mod curl_and_nginx;
mod disarmed;
mod ending;
mod flapping;
mod inject;
mod life;
mod rehearse;
mod reloading;
mod soak;
mod support;
mod truth;
