//! Pratfall: a fall taken on purpose, rehearsed so that nobody is hurt and everybody learns how to land.
//!
//! > An **experiment** adds **faults** to a slice of a **proxy**'s traffic, **measures** treatment and control, and the
//! > **lab** writes what was learned as a **report** into the **ledger**.
//!
//! That sentence is the table of contents: each bold word is a room below.
//!
//! | floor | rooms | what is in them |
//! |---|---|---|
//! | 10 | [`cli`] | one verb is one file |
//! | 9 | [`app`] | the only place that knows all rooms |
//! | 8 | [`config`] | the system file |
//! | 7 | [`admin`], [`notify`] | the operator's door; who is told |
//! | 6 | [`lab`] | conducts: preflight, run, guards, judge |
//! | 5 | [`ledger`] | what is remembered |
//! | 4 | [`proxy`], [`report`] | the data plane; what was learned |
//! | 3 | [`experiment`] | what we believe |
//! | 2 | [`load`] | traffic of our own |
//! | 1 | [`fault`], [`probe`], [`measure`], [`demo`], [`document`] | what we break, ask, count; a shop to break; YAML with places |
//! | 0 | [`service`], [`clock`], [`file`](mod@file), [`stats`], [`chance`], [`units`] | what every floor stands on |
//!
//! A room uses only rooms on lower floors, and neighbours never see each other; all stand on [`units`]. `tests/house.rs`
//! keeps it so. Begin to read here, then `experiment/mod.rs`, `fault/latency.rs`, `proxy/trial.rs`, `lab/run.rs`,
//! `report/mod.rs`.
//!
//! # Doors into the house
//!
//! Most people use the command line. Three rooms are of use on their own.
//!
//! A fault is a tower layer, and works in anybody's stack:
//!
//! ```
//! use std::convert::Infallible;
//! use std::time::Duration;
//!
//! use http::{Request, Response};
//! use pratfall::fault::Latency;
//! use pratfall::units::Span;
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Infallible> {
//! let upstream = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new("hello")) });
//! let slow = Latency::constant(Span::millis(250)).layer(0).layer(upstream);
//!
//! let began = tokio::time::Instant::now();
//! let answer = slow.oneshot(Request::new(())).await?;
//! assert_eq!(*answer.body(), "hello");
//! assert_eq!(began.elapsed(), Duration::from_millis(250));
//! # Ok(())
//! # }
//! ```
//!
//! A document is read whole, and everything that is wrong with it is said at once, with its place and the way out:
//!
//! ```
//! use pratfall::Experiment;
//!
//! let text = "
//! version: 1
//! experiment: inventory-fails
//! hypothesis: If inventory answers 503, then checkout still answers, because it has a fallback.
//! slice: { at: front, match: { path: /checkout/** } }
//! inject: { at: inventory, faults: [{ error: { status: 503 } }] }
//! steady_state:
//!   - error_rate: { max_increase: 1pp }
//! ";
//! let (experiment, warnings) = Experiment::parse("inventory-fails.yaml", text, &|_| None).expect("it is sound");
//! assert!(warnings.is_empty());
//! assert_eq!(experiment.slice.final_treatment().to_string(), "5%");
//!
//! let problems = Experiment::parse("typo.yaml", &text.replace("1pp", "1%"), &|_| None).expect_err("points are `pp`");
//! assert_eq!(problems.list()[0].line, 8);
//! ```
//!
//! And the numbers behind a verdict need neither traffic nor clock:
//!
//! ```
//! use pratfall::stats::{Block, Side, TwoArm};
//!
//! // At most one point more than control, where the baseline had two bad units in a thousand.
//! let mut held = TwoArm::new(Side::Held, 0.01, 0.002);
//! let mut broken = TwoArm::new(Side::Broken, 0.01, 0.002);
//! for _ in 0..30 {
//!     let block = Block { bad_t: 3.0, n_t: 50.0, bad_c: 0.0, n_c: 50.0 };
//!     held.push(block);
//!     broken.push(block);
//! }
//! let enough = (1.0_f64 / 0.05).ln(); // Ville: reached with probability 5 % at most, however often one looks
//! assert!(broken.log_e() > enough && held.log_e() < 0.0);
//! ```

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
pub mod file;
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

pub use self::experiment::Experiment;
pub use self::fault::Fault;
pub use self::lab::Lab;
pub use self::ledger::Ledger;
pub use self::proxy::Proxy;
pub use self::report::Report;
