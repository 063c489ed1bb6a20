//! The data plane.

pub mod check;
pub mod config;
