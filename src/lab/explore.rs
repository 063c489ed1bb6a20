//! A fault by hand: injected for a while under the same limits as a run, and remembered without a verdict.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Progress;
use super::preflight::{self, Refusal};
use super::run::{Lab, Order};
use super::stop::Stop;
use super::watch::{Cut, Watch};
use crate::clock::Began;
use crate::experiment::ByHand;
use crate::fault::Fault;
use crate::ledger::OpenRun;
use crate::measure::{Note, Phase};
use crate::report::words;
use crate::units::{Percent, Seed};

/// A fault that is to be injected by hand.
#[derive(Clone, Debug)]
pub struct Exploration {
    /// As the data plane does it.
    pub(super) order: Order,
    by_hand: ByHand,
    /// The experiment that would make it one.
    offer: String,
}

impl Exploration {
    /// What is asked for, on a system with these listeners.
    pub fn new(by_hand: ByHand, listeners: &[&str], run: String) -> Result<Self, Refusal> {
        let others: Vec<&str> = listeners.iter().copied().filter(|name| *name != by_hand.at).collect();
        let experiment = by_hand.experiment(&others).map_err(|problems| Refusal::Document(problems.to_string()))?;
        let seed = experiment.seed.unwrap_or_else(|| Seed(rand::random()));
        let offer = by_hand.offer(&others);
        let order = Order { experiment: experiment.into(), run, seed, follow_up_of: None, underpowered: true };
        Ok(Self { order, by_hand, offer })
    }

    /// What people call it.
    pub fn title(&self) -> &str {
        &self.order.experiment.title
    }
}

/// What came of a fault by hand.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Explored {
    /// The run's id.
    pub run: String,
    /// What people call it.
    pub title: String,
    /// The system's name.
    pub system: Option<String>,
    /// The listener whose calls met the fault.
    pub at: String,
    /// Which of them, in words.
    pub matching: String,
    /// What they met, in words.
    pub faults: Vec<String>,
    /// The share that was to meet it.
    pub share: Percent,
    /// Where chance came from.
    pub seed: Seed,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// How long it was to stay, in milliseconds.
    pub planned_ms: u64,
    /// How long it stayed, in milliseconds.
    pub lasted_ms: u64,
    /// What ended it before its plan.
    pub ended_by: Option<String>,
    /// Calls that met the fault.
    pub faulted: u64,
    /// Calls that could have met it and did not, by why.
    pub spared: BTreeMap<String, u64>,
    /// Calls that were held and let go at its end.
    pub released: u64,
    /// The experiment that would make it one.
    pub experiment: String,
}

impl Explored {
    /// What was seen, in one sentence.
    pub fn seen(&self) -> String {
        let spared: u64 = self.spared.values().sum();
        let how = self.ended_by.as_deref().unwrap_or("it ran to its end");
        let faulted = words::many(self.faulted, "call", "calls");
        format!("{faulted} met the fault, {} did not; {how}", words::count(spared))
    }
}

impl Lab {
    /// Injects a fault by hand. Whatever the way out, it is off then and whoever was held is let go.
    pub async fn explore(
        &self,
        exploration: Exploration,
        stop: watch::Receiver<Option<Stop>>,
        progress: &watch::Sender<Progress>,
    ) -> Result<Explored, Refusal> {
        let Exploration { order, by_hand, offer } = exploration;
        let places = self.may_explore(&order).await?;
        let row = self.open(&order, true).await?;
        let began = Began::now();

        let (mut watch, _) = self.watch(&order, places, stop, progress)?;
        let enrolled = self.proxy.enroll(&watch.trial);
        let (length, budget) = (by_hand.length.get(), by_hand.budget);
        let mark = watch.begin(Phase::Inject);
        let injection = enrolled.inject();
        watch.say("run", format!("{} began, for {:#}", order.experiment.title, by_hand.length));
        let look = |watch: &mut Watch<'_>| cut(watch, budget);
        let cut = watch.until(mark, length, look, |_| mark.since.elapsed() >= length).await;
        let lasted = mark.since.elapsed();
        drop(injection);
        drop(enrolled);
        watch.hear_of(Instant::now()).await;

        let ended_by = cut.map(|cut| match cut {
            Cut::Stop(stop) => stop.to_string(),
            Cut::Guard(why) | Cut::Budget(why) | Cut::NoTraffic(why) | Cut::Limit(why) | Cut::Failed(why) => why,
            Cut::Broken => "it was shown broken".to_owned(),
        });
        watch.say("run", format!("the fault is off: {}", ended_by.as_deref().unwrap_or("as planned")));
        let experiment = &order.experiment;
        let spared = watch.spared().into_iter().filter(|(_, count)| *count > 0);
        let explored = Explored {
            run: order.run.clone(),
            title: experiment.title.clone(),
            system: self.system.clone(),
            at: by_hand.at.clone(),
            matching: experiment.slice.matches.describe(),
            faults: experiment.inject.faults.iter().map(Fault::describe).collect(),
            share: by_hand.share,
            seed: order.seed,
            started_at: began.at,
            ended_at: began.until_now(),
            planned_ms: length.as_millis() as u64,
            lasted_ms: lasted.as_millis() as u64,
            ended_by,
            faulted: watch.tally.noted(Note::Faulted),
            spared: spared.map(|(why, count)| (why.to_owned(), count)).collect(),
            released: watch.tally.operations.released,
            experiment: offer,
        };
        self.close_exploration(row, &explored).await;
        progress.send_modify(Progress::over);
        Ok(explored)
    }

    async fn may_explore(&self, order: &Order) -> Result<(usize, usize), Refusal> {
        let experiment = &order.experiment;
        let not_yet: Vec<String> = experiment.inject.faults.iter().filter_map(Fault::not_yet).collect();
        if !not_yet.is_empty() {
            return Err(Refusal::Document(not_yet.join("\n")));
        }
        preflight::files(experiment)?;
        let places = preflight::places(experiment, &self.proxy)?;
        preflight::limits(experiment, &self.limits)?;
        preflight::upstreams(&self.proxy, places).await?;
        Ok(places)
    }

    async fn close_exploration(&self, row: Option<OpenRun>, explored: &Explored) {
        let (Some(ledger), Some(row)) = (self.ledger.clone(), row) else { return };
        let (seen, ended_by) = (explored.seen(), explored.ended_by.clone());
        let content = serde_json::json!({
            "ended_at": explored.ended_at,
            "ended_by": ended_by,
            "seen": seen,
            "exploration": explored,
        });
        let closed = tokio::task::spawn_blocking(move || ledger.close_exploration(row, content)).await;
        if let Err(error) = closed.map_err(|error| error.to_string()).and_then(|it| it.map_err(|it| it.to_string())) {
            tracing::error!(run = explored.run, error, "the ledger did not take the end of it");
        }
    }
}

/// Why it must end before its time, if it must.
fn cut(watch: &Watch<'_>, budget: u64) -> Option<Cut> {
    if watch.trial.failed() {
        return Some(Cut::Guard("a panic of ours: its fault is off already".to_owned()));
    }
    (watch.tally.noted(Note::Faulted) >= budget)
        .then(|| Cut::Budget(format!("the budget is spent: {} met the fault", words::many(budget, "call", "calls"))))
}
