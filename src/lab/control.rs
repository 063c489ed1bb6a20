//! The switchboard of a process: which runs are live, who may start one, and the one switch that stops them all.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::Progress;
use super::counters::Counters;
use super::explore::{Exploration, Explored};
use super::preflight::{self, Refusal};
use super::rehearse::{Rehearsed, SHORTEST};
use super::run::{Lab, Order};
use super::stop::Stop;
use crate::experiment::limits::Limits;
use crate::experiment::{Experiment, Length};
use crate::fault::Fault;
use crate::ledger::halt::{HaltMark, HaltReason};
use crate::report::{Report, words};
use crate::units::Span;

/// How often the mark beside the ledger is looked at: a halt from another process is obeyed within 100 ms, of which
/// letting go those who are held may take 60.
const LOOK: Duration = Duration::from_millis(25);

/// A run over the API goes on for so long without a heartbeat.
pub const LEASE: Duration = Duration::from_secs(10);

/// Runs that are over and can still be asked for.
const REMEMBERED: usize = 50;

/// The switchboard.
#[derive(Debug)]
pub struct Control {
    /// Changed only while `runs` is locked, so that a run that begins is seen by a reload, or sees it.
    lab: ArcSwap<Lab>,
    mark: Option<HaltMark>,
    ending: AtomicBool,
    runs: Mutex<BTreeMap<String, Run>>,
    /// What runs have counted that are remembered no more; changed only while `runs` is locked.
    forgotten: Mutex<Counters>,
}

/// A run that was started here.
#[derive(Debug)]
struct Run {
    experiment: Arc<Experiment>,
    stop: watch::Sender<Option<Stop>>,
    progress: watch::Receiver<Progress>,
    heartbeat: Option<Instant>,
    result: Option<Result<Over, Refusal>>,
}

/// What came of something that was started here.
#[derive(Clone, Debug)]
pub enum Over {
    /// Of an experiment.
    Run(Box<Report>),
    /// Of a fault by hand.
    Exploration(Box<Explored>),
    /// Of everything but the fault.
    Rehearsal(Box<Rehearsed>),
}

/// A run that has been started.
#[derive(Debug)]
pub struct Started<T = Report> {
    /// Its id.
    pub run: String,
    /// What is shown of it.
    pub progress: watch::Receiver<Progress>,
    /// How it ended.
    pub result: oneshot::Receiver<Result<T, Refusal>>,
}

/// What is known of a run.
#[derive(Clone, Debug)]
pub struct Status {
    /// What is shown of it.
    pub progress: Progress,
    /// How it ended, if it has.
    pub result: Option<Result<Over, Refusal>>,
}

impl Control {
    /// The switchboard of a lab; with a mark, halts last across restarts and reach every process on the ledger.
    pub fn new(lab: Lab, mark: Option<HaltMark>) -> Arc<Self> {
        let lab = ArcSwap::from_pointee(lab);
        let (runs, forgotten) = (Mutex::default(), Mutex::new(Counters::new()));
        let control = Arc::new(Self { lab, mark, ending: AtomicBool::new(false), runs, forgotten });
        tokio::spawn(look(Arc::downgrade(&control)));
        control
    }

    /// The lab behind it.
    pub fn lab(&self) -> Arc<Lab> {
        self.lab.load_full()
    }

    /// Starts a run. With a lease, it goes on only while somebody says so.
    pub fn start(self: &Arc<Self>, order: Order, leased: bool) -> Result<Started, Refusal> {
        let over = |report: &Report| Over::Run(Box::new(report.clone()));
        let asked = order.clone();
        let conduct = move |lab: Arc<Lab>, stop, shown| async move { lab.conduct(order, stop, &shown).await };
        self.launch(&asked, leased, conduct, over)
    }

    /// Starts a fault by hand, under the same rules.
    pub fn explore(self: &Arc<Self>, exploration: Exploration, leased: bool) -> Result<Started<Explored>, Refusal> {
        let over = |explored: &Explored| Over::Exploration(Box::new(explored.clone()));
        let asked = exploration.order.clone();
        let explore = move |lab: Arc<Lab>, stop, shown| async move { lab.explore(exploration, stop, &shown).await };
        self.launch(&asked, leased, explore, over)
    }

    /// Starts a rehearsal of so long, under the same rules.
    pub fn rehearse(self: &Arc<Self>, order: Order, length: Span, leased: bool) -> Result<Started<Rehearsed>, Refusal> {
        if length < SHORTEST {
            return Err(Refusal::Document(format!("a rehearsal is at least `{SHORTEST}` long, not `{length}`")));
        }
        let over = |rehearsed: &Rehearsed| Over::Rehearsal(Box::new(rehearsed.clone()));
        let asked = order.clone();
        let rehearse = move |lab: Arc<Lab>, stop, shown| async move { lab.rehearse(order, length, stop, &shown).await };
        self.launch(&asked, leased, rehearse, over)
    }

    /// Starts something that stands on an experiment's listeners, if it may begin.
    fn launch<T, F>(
        self: &Arc<Self>,
        order: &Order,
        leased: bool,
        work: impl FnOnce(Arc<Lab>, watch::Receiver<Option<Stop>>, watch::Sender<Progress>) -> F,
        over: fn(&T) -> Over,
    ) -> Result<Started<T>, Refusal>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        if let Some(reason) = self.halted() {
            return Err(Refusal::NotNow(format!(
                "halted by {} at {}: nothing starts until `pratfall resume`",
                reason.by,
                words::moment(reason.at)
            )));
        }
        let experiment = order.experiment.clone();
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
        let lab = {
            let mut runs = self.runs();
            if self.ending.load(Ordering::Relaxed) {
                return Err(Refusal::NotNow("this process is about to end".into()));
            }
            let lab = self.lab();
            let live: Vec<_> = runs.iter().filter(|(_, run)| run.result.is_none()).collect();
            if let Some((taken, _)) =
                live.iter().find(|(_, run)| places(&experiment).iter().any(|place| run.stands_on(place)))
            {
                return Err(Refusal::NotNow(format!("run {taken} is live at the same listeners; one at a time")));
            }
            let most = lab.limits.max_running;
            if live.len() >= most as usize {
                return Err(Refusal::NotNow(format!("`limits.max_running` is {most}, and so many are live")));
            }
            let heartbeat = leased.then(Instant::now);
            runs.insert(run.clone(), Run { experiment, stop, progress: progress.clone(), heartbeat, result: None });
            lab
        };
        let control = self.clone();
        let id = order.run.clone();
        let working = work(lab, stopped, shown);
        tokio::spawn(async move {
            let conducting = std::panic::AssertUnwindSafe(working).catch_unwind();
            // The fault went with the run's own values while the panic unwound.
            let result = conducting.await.unwrap_or_else(|_| {
                Err(Refusal::Internal(
                    "the run ended by a panic of ours; its faults are off, and its row stays open".into(),
                ))
            });
            control.over(&id, result.as_ref().map(over).map_err(Clone::clone));
            let _ = tell.send(result); // whoever started it may have left
        });
        Ok(Started { run, progress, result })
    }

    fn over(&self, id: &str, result: Result<Over, Refusal>) {
        let mut runs = self.runs();
        if let Some(run) = runs.get_mut(id) {
            run.result = Some(result);
        }
        while runs.len() > REMEMBERED {
            let Some(oldest) = runs.iter().find(|(_, run)| run.result.is_some()).map(|(id, _)| id.clone()) else {
                return;
            };
            if let Some(run) = runs.remove(&oldest) {
                self.forgotten().add(&run.progress.borrow());
            }
        }
    }

    /// What all runs that were ever started here have counted.
    pub fn counted(&self) -> Counters {
        let runs = self.runs();
        let mut sum = self.forgotten().clone();
        runs.values().for_each(|run| sum.add(&run.progress.borrow()));
        sum
    }

    fn forgotten(&self) -> MutexGuard<'_, Counters> {
        self.forgotten.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// The process is about to end: all runs are stopped, and none begins.
    pub fn end(&self, why: &Stop) {
        let runs = self.runs();
        self.ending.store(true, Ordering::Relaxed);
        drop(runs);
        self.stop_all(why);
    }

    /// Takes over what a reload says: limits, the system's name, and listeners that change or go, by name. Runs that the
    /// reload pulls the ground from under are stopped, the others go on as they began. How many were stopped.
    pub fn reload(&self, limits: Limits, system: Option<String>, touched: &[String]) -> usize {
        let runs = self.runs();
        let before = self.lab();
        let mut stopped = 0;
        let mut left = limits.max_running as usize;
        for run in runs.values().filter(|run| run.result.is_none()) {
            let why = run.lost(&before.limits, &limits, touched).or_else(|| {
                let surplus = left == 0;
                left = left.saturating_sub(1);
                surplus.then(|| format!("allows {} runs at one time", limits.max_running))
            });
            if let Some(why) = why.filter(|_| run.stop.borrow().is_none()) {
                stopped += usize::from(run.stop.send(Some(Stop::Reload(why))).is_ok());
            }
        }
        self.lab.store(Arc::new(Lab { limits: Arc::new(limits), system, ..Lab::clone(&before) }));
        stopped
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

    fn runs(&self) -> MutexGuard<'_, BTreeMap<String, Run>> {
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

/// The listeners that an experiment stands on.
fn places(experiment: &Experiment) -> Vec<&str> {
    let measured = experiment.steady_state.iter().map(|indicator| &*indicator.at).filter(|at| !at.is_empty());
    [&*experiment.slice.at, &*experiment.inject.at].into_iter().chain(measured).collect()
}

impl Run {
    fn stands_on(&self, place: &str) -> bool {
        places(&self.experiment).contains(&place)
    }

    /// What a reload takes from under this run, if anything.
    fn lost(&self, before: &Limits, now: &Limits, touched: &[String]) -> Option<String> {
        if let Some(name) = touched.iter().find(|name| self.stands_on(name)) {
            return Some(format!("changed listener `{name}`"));
        }
        if before == now {
            return None;
        }
        // A run itself sees the hours end in which it began; here only other hours can end it.
        let hours = if before.hours == now.hours { Vec::new() } else { now.hours.clone() };
        let asked = Arc::new(Limits { hours, ..now.clone() });
        if let Err(refusal) = preflight::limits(&self.experiment, &asked) {
            return Some(format!("tightened the limits: {refusal}"));
        }
        // The data plane keeps these for a run as they were when it began.
        let phases = &self.experiment.phases;
        let auto = [phases.baseline, phases.inject, phases.recovery].iter().any(|it| matches!(it, Length::Auto { .. }));
        let twice = self.experiment.inject.faults.iter().any(|fault| matches!(fault, Fault::Duplicate(_)));
        let key = if now.protect.iter().any(|route| !before.protect.contains(route)) {
            "protect"
        } else if now.max_held < before.max_held {
            "max_held"
        } else if twice && before.duplicate_methods.iter().any(|method| !now.duplicate_methods.contains(method)) {
            "duplicate_methods"
        } else if auto && now.max_duration < before.max_duration {
            "max_duration"
        } else {
            return None;
        };
        Some(format!("tightened `limits.{key}`"))
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_sends_twice_ends_when_fewer_methods_may_be() {
        let limits = |methods: &[http::Method]| Limits {
            duplicate_methods: methods.to_vec(),
            ..Limits::default().with_every_fault()
        };
        let (before, now) = (limits(&[http::Method::PUT]), limits(&[http::Method::POST]));
        for (fault, why) in
            [("duplicate: {}", Some("tightened `limits.duplicate_methods`")), ("drop: { how: reset }", None)]
        {
            let text = format!(
                "version: 1\nexperiment: twice\nhypothesis: If it comes twice, then it counts once, because it has a key.\n\
                 slice: {{ at: front }}\ninject: {{ at: inventory, faults: [{{ {fault} }}] }}\n\
                 steady_state: [{{ error_rate: {{ max_increase: 1pp }} }}]\n\
                 phases: {{ baseline: 1s, inject: 1s, recovery: 1s }}\n"
            );
            let (experiment, _) = Experiment::parse("twice.yaml", &text, &|_| None).unwrap();
            let run = Run {
                experiment: Arc::new(experiment),
                stop: watch::channel(None).0,
                progress: watch::channel(Progress::default()).1,
                heartbeat: None,
                result: None,
            };
            assert_eq!(run.lost(&before, &now, &[]).as_deref(), why);
            assert_eq!(run.lost(&now, &limits(&[http::Method::POST, http::Method::PUT]), &[]), None, "more is allowed");
        }
    }
}
