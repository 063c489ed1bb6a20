//! A listener as all workers see it: its setup, the runs that are live there, and its counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use super::config::ListenerConfig;
use super::tls::{self, Tls};
use super::trial::Trial;

/// A listener. Its setup can be replaced while it serves; everything else stays.
#[derive(Debug)]
pub struct Listener {
    /// Its place among all listeners that there ever were.
    pub index: usize,
    /// Its name: part of experiments, metrics and reports.
    pub name: String,
    setup: ArcSwap<Setup>,
    /// How many runs are live: one load and one branch for everybody else.
    pub(super) live: AtomicUsize,
    /// The runs that are live.
    pub(super) trials: ArcSwap<Vec<Arc<Trial>>>,
    /// Cancelled when its connections are to end.
    pub(super) drain: CancellationToken,
    /// Connections that are open.
    pub(super) open: AtomicUsize,
    /// Connections that were accepted.
    pub accepted: AtomicU64,
    /// Connections that were closed at once because there were too many.
    pub shed: AtomicU64,
    pub(super) stats: Box<[Stats]>,
}

/// What a listener was told: its configuration, and what was read from the files that this names.
#[derive(Debug)]
pub struct Setup {
    /// The configuration.
    pub config: ListenerConfig,
    pub(super) tls: Tls,
}

impl Setup {
    /// Reads the files that a configuration names.
    pub fn read(config: ListenerConfig) -> Result<Arc<Self>, tls::TlsError> {
        let tls = Tls::read(&config)?;
        Ok(Arc::new(Self { config, tls }))
    }
}

/// What one worker counted at a listener; each figure only grows, and only that worker writes.
#[derive(Debug, Default)]
#[repr(align(64))] // a cache line of its own
pub struct Stats {
    answers: [AtomicU64; 6],
    proxy_errors: AtomicU64,
}

/// What was counted at a listener.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Answers by class of status: 1xx to 5xx; the last is none at all.
    pub answers: [u64; 6],
    /// Errors that the proxy met itself.
    pub proxy_errors: u64,
}

/// Of those that never got an answer.
const NONE: usize = 5;

impl Stats {
    pub(super) fn answered(&self, status: http::StatusCode) {
        bump(&self.answers[usize::from(status.as_u16() / 100).clamp(1, 5) - 1]);
    }

    pub(super) fn unanswered(&self) {
        bump(&self.answers[NONE]);
    }

    pub(super) fn proxy_error(&self) {
        bump(&self.proxy_errors);
    }
}

/// One writer needs no locked addition.
fn bump(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

impl Listener {
    /// A listener that nobody has bound yet, for so many workers.
    pub fn new(index: usize, setup: Arc<Setup>, workers: usize, drain: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            index,
            name: setup.config.name.clone(),
            setup: ArcSwap::new(setup),
            live: AtomicUsize::new(0),
            trials: ArcSwap::default(),
            drain,
            open: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            shed: AtomicU64::new(0),
            stats: (0..workers.max(1)).map(|_| Stats::default()).collect(),
        })
    }

    /// What it was told last.
    pub fn setup(&self) -> Arc<Setup> {
        self.setup.load_full()
    }

    pub(super) fn tell(&self, setup: Arc<Setup>) {
        self.setup.store(setup);
    }

    /// The runs that are live here.
    pub fn trials(&self) -> Arc<Vec<Arc<Trial>>> {
        self.trials.load_full()
    }

    /// What all workers counted.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for stats in &self.stats {
            for (total, count) in totals.answers.iter_mut().zip(&stats.answers) {
                *total += count.load(Ordering::Relaxed);
            }
            totals.proxy_errors += stats.proxy_errors.load(Ordering::Relaxed);
        }
        totals
    }
}
