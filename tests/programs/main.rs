//! The real `pratfall` among real programs: a stock service from npm, nginx as an upstream, curl and wrk as callers.
//!
//! `cargo test --features programs --test programs`. With `PRATFALL_LONG=1` the truth table is repeated.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may end where something is not there")]

mod chain;
mod cli;
mod curl_and_nginx;
mod life;
mod support;
mod truth;
