//! The switchboard of a process: which runs are live, who may start one, and the one switch that stops them all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::Progress;
use super::preflight::Refusal;
use super::run::{Lab, Order, Stop};
use crate::ledger::halt::{HaltMark, HaltReason};
use crate::report::{Report, words};

/// How often the mark beside the ledger is looked at: a halt from another process is obeyed within 100 ms.
const LOOK: Duration = Duration::from_millis(40);

/// A run over the API goes on for so long without a heartbeat.
pub const LEASE: Duration = Duration::from_secs(10);

/// Runs that are over and can still be asked for.
const REMEMBERED: usize = 50;

/// The switchboard.
#[derive(Debug)]
pub struct Control {
    lab: Lab,
    mark: Option<HaltMark>,
    max_running: usize,
    runs: Mutex<BTreeMap<String, Run>>,
}

/// A run that was started here.
#[derive(Debug)]
struct Run {
    places: Vec<String>,
    stop: watch::Sender<Option<Stop>>,
    progress: watch::Receiver<Progress>,
    heartbeat: Option<Instant>,
    result: Option<Result<Report, Refusal>>,
}

/// A run that has been started.
#[derive(Debug)]
pub struct Started {
    /// Its id.
    pub run: String,
    /// What is shown of it.
    pub progress: watch::Receiver<Progress>,
    /// How it ended.
    pub result: oneshot::Receiver<Result<Report, Refusal>>,
}

/// What is known of a run.
#[derive(Clone, Debug)]
pub struct Status {
    /// What is shown of it.
    pub progress: Progress,
    /// How it ended, if it has.
    pub result: Option<Result<Report, Refusal>>,
}

impl Control {
    /// The switchboard of a lab; with a mark, halts last across restarts and reach every process on the ledger.
    pub fn new(lab: Lab, mark: Option<HaltMark>) -> Arc<Self> {
        let max_running = lab.limits.max_running as usize;
        let control = Arc::new(Self { lab, mark, max_running, runs: Mutex::default() });
        tokio::spawn(look(Arc::downgrade(&control)));
        control
    }

    /// The lab behind it.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Starts a run. With a lease, it goes on only while somebody says so.
    pub fn start(self: &Arc<Self>, order: Order, leased: bool) -> Result<Started, Refusal> {
        if let Some(reason) = self.halted() {
            return Err(Refusal::NotNow(format!(
                "halted by {} at {}: nothing starts until `pratfall resume`",
                reason.by,
                words::moment(reason.at)
            )));
        }
        let places = vec![order.experiment.slice.at.clone(), order.experiment.inject.at.clone()];
        let (stop, stopped) = watch::channel(None);
        let first = Progress {
            run: order.run.clone(),
            experiment: order.experiment.name.clone(),
            title: order.experiment.title.clone(),
            phase: "preflight",
            ..Progress::default()
        };
        let (shown, progress) = watch::channel(first);
        let (tell, result) = oneshot::channel();
        let run = order.run.clone();
        {
            let mut runs = self.runs();
            let live: Vec<_> = runs.iter().filter(|(_, run)| run.result.is_none()).collect();
            if let Some((taken, _)) = live.iter().find(|(_, run)| run.places.iter().any(|place| places.contains(place)))
            {
                return Err(Refusal::NotNow(format!("run {taken} is live at the same listeners; one at a time")));
            }
            if live.len() >= self.max_running {
                return Err(Refusal::NotNow(format!(
                    "`limits.max_running` is {}, and so many are live",
                    self.max_running
                )));
            }
            let heartbeat = leased.then(Instant::now);
            runs.insert(run.clone(), Run { places, stop, progress: progress.clone(), heartbeat, result: None });
        }
        let control = self.clone();
        tokio::spawn(async move {
            let id = order.run.clone();
            let conducting = std::panic::AssertUnwindSafe(control.lab.conduct(order, stopped, &shown)).catch_unwind();
            // The fault went with the run's own values while the panic unwound.
            let result = conducting.await.unwrap_or_else(|_| {
                Err(Refusal::Internal(
                    "the run ended by a panic of ours; its faults are off, and its row stays open".into(),
                ))
            });
            control.over(&id, result.clone());
            let _ = tell.send(result); // whoever started it may have left
        });
        Ok(Started { run, progress, result })
    }

    fn over(&self, id: &str, result: Result<Report, Refusal>) {
        let mut runs = self.runs();
        if let Some(run) = runs.get_mut(id) {
            run.result = Some(result);
        }
        while runs.len() > REMEMBERED {
            let Some(oldest) = runs.iter().find(|(_, run)| run.result.is_some()).map(|(id, _)| id.clone()) else {
                return;
            };
            runs.remove(&oldest);
        }
    }

    /// All runs that were started here and are remembered, the latest last.
    pub fn runs_here(&self) -> Vec<Status> {
        self.runs().values().map(Run::status).collect()
    }

    /// One of them.
    pub fn status(&self, run: &str) -> Option<Status> {
        self.runs().get(run).map(Run::status)
    }

    /// Somebody wants the run to go on. `false` where there is no such run.
    pub fn heartbeat(&self, run: &str) -> bool {
        let mut runs = self.runs();
        let Some(run) = runs.get_mut(run) else { return false };
        if run.heartbeat.is_some() {
            run.heartbeat = Some(Instant::now());
        }
        true
    }

    /// Stops one run.
    pub fn stop(&self, run: &str, why: Stop) -> bool {
        self.runs().get(run).is_some_and(|run| run.stop.send(Some(why)).is_ok())
    }

    /// Stops all runs, without forbidding new ones. How many were live.
    pub fn stop_all(&self, why: &Stop) -> usize {
        let runs = self.runs();
        let live = runs.values().filter(|run| run.result.is_none());
        live.filter(|run| run.stop.send(Some(why.clone())).is_ok()).count()
    }

    /// The kill switch: every fault goes, and nothing starts until [`Control::resume`]. How many runs were live.
    pub fn halt(&self, by: &str) -> std::io::Result<usize> {
        let stopped = self.stop_all(&Stop::Halt(by.to_owned()));
        if let Some(mark) = &self.mark {
            mark.set(by)?;
        }
        Ok(stopped)
    }

    /// Allows runs again.
    pub fn resume(&self) -> std::io::Result<()> {
        self.mark.as_ref().map_or(Ok(()), HaltMark::clear)
    }

    /// Who halted, if somebody did. A mark that cannot be read counts as one: stopping beats everything.
    pub fn halted(&self) -> Option<HaltReason> {
        let mark = self.mark.as_ref()?;
        mark.read().unwrap_or_else(|error| {
            Some(HaltReason { by: format!("a mark that cannot be read ({error})"), at: crate::clock::now() })
        })
    }

    /// How many runs are live.
    pub fn live(&self) -> usize {
        self.runs().values().filter(|run| run.result.is_none()).count()
    }

    /// Waits until no run is live.
    pub async fn over_all(&self) {
        while self.live() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn runs(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Run>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_leases(&self) {
        for run in self.runs().values() {
            let late = run.heartbeat.is_some_and(|heartbeat| heartbeat.elapsed() > LEASE);
            if late && run.result.is_none() && run.stop.borrow().is_none() {
                let _ = run.stop.send(Some(Stop::Lease)); // a run that is over needs no stop
            }
        }
    }
}

impl Run {
    fn status(&self) -> Status {
        Status { progress: self.progress.borrow().clone(), result: self.result.clone() }
    }
}

/// Looks at the mark and the leases, for as long as there is a switchboard.
async fn look(control: std::sync::Weak<Control>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(control) = control.upgrade() else { return };
        if control.live() == 0 {
            continue;
        }
        if let Some(reason) = control.halted() {
            control.stop_all(&Stop::Halt(reason.by));
        }
        control.end_leases();
    }
}
