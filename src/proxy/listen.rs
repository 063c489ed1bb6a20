//! A listener as all workers see it: its setup, the runs that are live there, and its counters.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use http::header::{CONNECTION, HeaderValue};
use http::{Response, StatusCode, Version};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::access::Log;
use super::config::ListenerConfig;
use super::tls::{self, Tls};
use super::trial::Trial;
use crate::file::open_ordinary;
use crate::service::Body;

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
    /// Where its requests are written down.
    pub(super) log: Arc<Log>,
    /// Whether callers on HTTP/1 are told to come back on another connection.
    pub(super) leaving: AtomicBool,
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
    /// What was in these files, as far as it could be read.
    files: Vec<[u8; 32]>,
}

impl Setup {
    /// Reads the files that a configuration names.
    pub fn read(config: ListenerConfig) -> Result<Arc<Self>, tls::TlsError> {
        // Before the rest: whatever changes in between is seen at the next look.
        let files = config.files().map(fingerprint).collect();
        let tls = Tls::read(&config)?;
        Ok(Arc::new(Self { config, tls, files }))
    }

    /// Whether both were told the same, by files with the same content.
    pub fn is_same(&self, other: &Self) -> bool {
        self.config == other.config && self.files == other.files
    }
}

/// What is in a file, in so few bytes that it can be kept; nothing where it cannot be read, or is no ordinary file.
pub fn fingerprint(file: &Path) -> [u8; 32] {
    let mut content = Vec::new();
    let read = open_ordinary(file).and_then(|mut file| file.read_to_end(&mut content));
    read.map_or([0; 32], |_| Sha256::digest(&content).into())
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
    pub(super) fn answered(&self, status: StatusCode) {
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
        Self::with_log(index, setup, workers, drain, Arc::default())
    }

    pub(super) fn with_log(
        index: usize,
        setup: Arc<Setup>,
        workers: usize,
        drain: CancellationToken,
        log: Arc<Log>,
    ) -> Arc<Self> {
        Arc::new(Self {
            index,
            name: setup.config.name.clone(),
            setup: ArcSwap::new(setup),
            live: AtomicUsize::new(0),
            trials: ArcSwap::default(),
            log,
            leaving: AtomicBool::new(false),
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

    /// Knows the runs that another listener knows.
    pub(super) fn learn_runs_of(&self, other: &Self) {
        self.trials.store(other.trials.load_full());
        self.live.store(other.trials().len(), Ordering::Release);
    }

    /// Tells a caller on HTTP/1 that this connection ends with the answer, where the process is about to end.
    pub(super) fn say_goodbye(&self, version: Version, response: &mut Response<Body>) {
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if self.leaving.load(Ordering::Relaxed) && version < Version::HTTP_2 && !switches {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }

    pub(super) fn tell(&self, setup: Arc<Setup>) {
        self.setup.store(setup);
    }

    /// The runs that are live here.
    pub fn trials(&self) -> arc_swap::Guard<Arc<Vec<Arc<Trial>>>> {
        self.trials.load()
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
