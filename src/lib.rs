//! Pratfall: a fall taken on purpose, rehearsed so that nobody is hurt and everybody learns how to land.

pub mod admin;
pub mod app;
pub mod chance;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod document;
pub mod experiment;
pub mod fault;
pub mod lab;
pub mod ledger;
pub mod load;
pub mod measure;
pub mod notify;
pub mod probe;
pub mod proxy;
pub mod report;
pub mod service;
pub mod stats;
pub mod units;
