//! The life of an experiment: preflight, ledger, baseline, inject under guards, recovery, judge, report. Top to bottom.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::bound::Bound;
use super::evidence::{Ended, Evidence, Seen};
use super::judge::{self, SoFar, judge};
use super::pairing::Pairing;
use super::preflight::Refusal;
use super::stop::Stop;
use super::watch::{Cut, Watch};
use super::write::{self, Facts};
use super::{Progress, follow_up, gather, guard, plan, preflight};
use crate::clock::{self, Began};
use crate::experiment::limits::Limits;
use crate::experiment::{Count, Experiment, Length, Measure, Threshold};
use crate::ledger::{Ledger, NewRun, OpenRun};
use crate::load::{Load, LoadTally};
use crate::measure::block::Undecided;
use crate::measure::{Budget, Phase, PhaseMark, Rule, TICK, Tally};
use crate::proxy::{Enrolled, Injection, Proxy, Terms, Trial};
use crate::report::{Counted, Report};
use crate::units::{Seed, Span};

/// Where experiments are conducted.
#[derive(Clone, Debug)]
pub struct Lab {
    /// The data plane.
    pub proxy: Arc<Proxy>,
    /// What may be injected.
    pub limits: Arc<Limits>,
    /// Where runs are remembered; nowhere in simulations.
    pub ledger: Option<Arc<Ledger>>,
    /// The system's name.
    pub system: Option<String>,
}

/// One run that is to be conducted.
#[derive(Clone, Debug)]
pub struct Order {
    /// What is to be tested.
    pub experiment: Arc<Experiment>,
    /// The run's id.
    pub run: String,
    /// Where chance comes from.
    pub seed: Seed,
    /// The failure whose follow-up this is.
    pub follow_up_of: Option<String>,
    /// Conduct it although its declared rate cannot answer.
    pub underpowered: bool,
}

impl Lab {
    /// Conducts one run. Whatever the way out, the fault is off and whoever was held is let go.
    pub async fn conduct(
        &self,
        order: Order,
        stop: watch::Receiver<Option<Stop>>,
        progress: &watch::Sender<Progress>,
    ) -> Result<Report, Refusal> {
        let experiment = order.experiment.clone();
        let places = self.preflight(&order).await?;
        let row = self.open(&order, false).await?;
        let began = Began::now();

        let (mut watch, slow) = self.watch(&order, places, stop, progress)?;
        let enrolled = self.proxy.enroll(&watch.trial);
        let load = self.load(&order, &watch.trial, places.0)?;
        watch.say("run", "baseline began: both arms, no fault");

        let longest = self.limits.max_duration.get();
        let (baseline, ended) = baseline(&mut watch, longest).await;
        let seen = gather::baseline(&watch, baseline);
        let go = ended.and_then(|()| ready(&watch, baseline, &seen, longest));

        let mut evidence = Evidence { indicators: seen, ..Evidence::default() };
        let mut inject_at = None;
        match go {
            Err(ended) => evidence.ended = ended,
            Ok(length) => {
                freeze_thresholds(&watch, &slow);
                let (mark, injection, ended) = inject(&mut watch, &enrolled, &evidence.indicators, length).await;
                inject_at = Some(mark);
                evidence.inject_secs = mark.since.elapsed().as_secs_f64();
                evidence.ended = ended;
                let response = self.proxy.at(places.0).setup().config.timeouts.response.get();
                let response = experiment.operations().map_or(response, |(_, deadline)| deadline.get());
                let patience = Patience { indicators: &slow, response };
                recovery(&mut watch, mark, injection, patience, &mut evidence).await;
            }
        }
        if inject_at.is_some() && watch.stop.borrow().is_some() {
            // What the last moment of a run that was cut short did, no later phase will tell.
            watch.hear_of(Instant::now()).await;
        }
        drop(enrolled);
        let load = load.map(|load| load.stop());
        watch.drain();
        watch.count();

        let facts = Facts {
            order: &order,
            started_at: began.at,
            ended_at: began.until_now(),
            inject_at,
            load: load.map(|tally| (experiment.traffic.as_ref().and_then(|traffic| traffic.rate), tally.snapshot())),
            similar: self.similar(&experiment).await,
        };
        write::reach(&watch, inject_at, &mut evidence);
        let judgement = judge(&experiment, &evidence);
        let mut report = write::report(&watch, &facts, &evidence, judgement);
        self.close(row, &mut report).await;
        if let (Some(failure), Some(follow_up)) = (&report.failure, &mut report.follow_up) {
            follow_up.document = follow_up::marked(&follow_up.document, failure);
        }
        progress.send_modify(|progress| {
            progress.over();
            progress.ending = Some(report.verdict.ending);
        });
        Ok(report)
    }

    async fn preflight(&self, order: &Order) -> Result<(usize, usize), Refusal> {
        let experiment = &order.experiment;
        let not_yet = preflight::not_yet(experiment);
        if !not_yet.is_empty() {
            return Err(Refusal::Document(not_yet.join("\n")));
        }
        preflight::files(experiment)?;
        let places = preflight::places(experiment, &self.proxy)?;
        preflight::limits(experiment, &self.limits)?;
        if let Some(why) = plan::too_low(experiment).filter(|_| !order.underpowered) {
            return Err(Refusal::Document(why));
        }
        preflight::upstreams(&self.proxy, places).await?;
        Ok(places)
    }

    /// Writes the run down, before the first fault.
    pub(super) async fn open(&self, order: &Order, by_hand: bool) -> Result<Option<OpenRun>, Refusal> {
        let Some(ledger) = self.ledger.clone() else { return Ok(None) };
        let experiment = &order.experiment;
        let new = NewRun {
            id: order.run.clone(),
            experiment: experiment.name.clone(),
            title: experiment.title.clone(),
            owner: experiment.owner.clone(),
            document: experiment.document.clone(),
            seed: order.seed,
            system: self.system.clone(),
            started_at: clock::now(),
            fault_kinds: experiment.inject.faults.iter().map(|fault| fault.kind().to_owned()).collect(),
            at: experiment.inject.at.clone(),
            follow_up_of: order.follow_up_of.clone(),
        };
        let open = move || if by_hand { ledger.open_exploration(&new) } else { ledger.open_run(&new) };
        let opened = tokio::task::spawn_blocking(open).await;
        let failed = |why: String| Refusal::Internal(format!("the ledger takes no run, so none begins: {why}"));
        opened.map_err(|error| failed(error.to_string()))?.map(Some).map_err(|error| failed(error.to_string()))
    }

    /// Closes the run's row. A ledger that fails now loses nothing: the report is still written to its files.
    async fn close(&self, row: Option<OpenRun>, report: &mut Report) {
        let (Some(ledger), Some(row)) = (self.ledger.clone(), row) else { return };
        let copy = report.clone();
        match tokio::task::spawn_blocking(move || ledger.close_run(row, &copy)).await {
            Ok(Ok(closed)) => {
                report.failure = closed.failure.map(|failure| failure.id);
                report.findings.extend(closed.follow_up.map(|outcome| write::followed(&outcome)));
            }
            Ok(Err(error)) => tracing::error!(run = report.run, %error, "the ledger did not take the report"),
            Err(error) => tracing::error!(run = report.run, %error, "the ledger did not take the report"),
        }
    }

    async fn similar(&self, experiment: &Experiment) -> Vec<String> {
        let Some(ledger) = self.ledger.clone() else { return Vec::new() };
        let (name, at) = (experiment.name.clone(), experiment.inject.at.clone());
        let kind = experiment.inject.faults.first().map_or("", |fault| fault.kind());
        let found = tokio::task::spawn_blocking(move || ledger.similar(&name, kind, &at)).await;
        let rows = found.ok().and_then(Result::ok).unwrap_or_default();
        rows.into_iter().map(|row| format!("{}: {} ({})", row.id, row.title, row.state.word())).collect()
    }

    pub(super) fn watch<'p>(
        &self,
        order: &Order,
        places: (usize, usize),
        stop: watch::Receiver<Option<Stop>>,
        progress: &'p watch::Sender<Progress>,
    ) -> Result<(Watch<'p>, Vec<Rule>), Refusal> {
        let experiment = order.experiment.clone();
        let indicators: Vec<Rule> = experiment.steady_state.iter().map(|indicator| rule(&indicator.measure)).collect();
        let rules = guard::rules(&experiment, indicators.clone());
        preflight::questions(rules.all.len())?;
        let spent = CancellationToken::new();
        let (harmed, max_faulted) = guard::budgets(&experiment);
        let terms = Terms {
            run: order.run.clone(),
            seed: order.seed,
            rules: rules.all.clone(),
            limits: self.limits.clone(),
            harmed: Budget::new(harmed, spent.clone()),
            max_faulted,
            patience: self.proxy.at(places.0).setup().config.timeouts.response.get(),
            places,
        };
        let (trial, batches) = Trial::new(experiment.clone(), terms);
        let joined = experiment.operations().map(|(_, deadline)| deadline.get());
        let slice = &experiment.slice;
        let window = (slice.by.is_sticky() && !experiment.compares_phases())
            .then(|| (slice.unit_window.get().as_millis() / TICK.as_millis()).max(1) as u32);
        let bounds = Bound::all(&experiment);
        let watch = Watch {
            broken_after: vec![None; bounds.len()],
            pairing: None,
            tally: match joined {
                Some(deadline) => Tally::new(self.proxy.workers(), None).joining(deadline, trial.budget()),
                None => Tally::new(self.proxy.workers(), window),
            },
            timeline: Vec::new(),
            marks: Vec::new(),
            inject_length: Duration::ZERO,
            started: Instant::now(),
            experiment,
            trial,
            bounds,
            rules,
            batches,
            spent,
            stop,
            progress,
            limits: self.limits.clone(),
        };
        Ok((watch, indicators))
    }

    pub(super) fn load(&self, order: &Order, trial: &Arc<Trial>, slice_at: usize) -> Result<Option<Running>, Refusal> {
        let Some(traffic) = &order.experiment.traffic else { return Ok(None) };
        let (_, address) = self.proxy.find(&self.proxy.at(slice_at).name).expect("it was found before");
        let load = Load::new(traffic, address, address.to_string(), order.seed);
        let load = load.map_err(|error| Refusal::Document(format!("traffic: {error}")))?;
        let load = match order.experiment.phases.baseline {
            Length::Fixed(span) => load.ramp_over(span),
            Length::Auto { .. } => load,
        };
        let (stop, tally) = (CancellationToken::new(), Arc::new(LoadTally::default()));
        let marker = trial.clone();
        let mark = move |index, intended| marker.own_mark(index, intended);
        tokio::spawn(load.run(stop.clone(), mark, tally.clone()));
        Ok(Some(Running { stop: stop.drop_guard(), tally }))
    }
}

/// Load of our own. Dropping it stops it.
pub(super) struct Running {
    stop: DropGuard,
    tally: Arc<LoadTally>,
}

impl Running {
    fn stop(self) -> Arc<LoadTally> {
        drop(self.stop);
        self.tally
    }
}

/// What an indicator asks of each unit.
fn rule(measure: &Measure) -> Rule {
    match measure {
        Measure::ErrorRate { count, .. } => Rule::Error(count.into()),
        Measure::SlowRate { over: Threshold::Over(span), until, .. } => Rule::slow(span.get(), *until),
        Measure::SlowRate { over: Threshold::BaselineP95, until, .. } => Rule::slow(Duration::ZERO, *until),
        Measure::FailedOperations { .. } | Measure::Probe(_) => Rule::Error(Count::DEFAULT.into()),
    }
}

/// Both arms, no fault: how things are, and whether the arms are alike.
async fn baseline(watch: &mut Watch<'_>, longest: Duration) -> (PhaseMark, Result<(), Ended>) {
    let mark = watch.begin(Phase::Baseline);
    let length = watch.experiment.phases.baseline;
    let (least, at_most) = match length {
        Length::Fixed(span) => (span.get(), span.get()),
        Length::Auto { at_most } => (plan::QUIET_PHASE, at_most.map_or(plan::AT_MOST, Span::get).min(longest)),
    };
    let units =
        |watch: &Watch<'_>| watch.tally.units_of(Phase::Baseline).iter().map(|counts| counts.arrived).sum::<u64>();
    let look = |watch: &mut Watch<'_>| watch.guarded().or_else(|| watch.deserted(mark));
    let done = |watch: &mut Watch<'_>| {
        let elapsed = mark.since.elapsed();
        let enough = matches!(length, Length::Fixed(_)) || units(watch) >= plan::BASELINE_UNITS;
        (elapsed >= least && enough) || elapsed >= at_most
    };
    let cut = watch.until(mark, least, look, done).await;
    (mark, cut.map_or(Ok(()), |cut| Err(ended(cut, watch))))
}

/// Whether the fault may come now, and for how long; why not otherwise.
fn ready(watch: &Watch<'_>, baseline: PhaseMark, seen: &[Seen], longest: Duration) -> Result<Duration, Ended> {
    if let Some(why) = judge::baseline_unquiet(&watch.bounds, seen) {
        return Err(Ended::Never(format!("the baseline was not quiet, so nothing was injected: {why}")));
    }
    let units: u64 = watch.tally.units_of(Phase::Baseline).iter().map(|counts| counts.arrived).sum();
    let rate = units as f64 / baseline.since.elapsed().as_secs_f64().max(0.001);
    let p0 = |indicator: usize| {
        let Counted { bad, of } = seen[indicator].baseline;
        (of > 0).then(|| (bad + 0.5) / (of as f64 + 1.0))
    };
    let plan = plan::plan(&watch.experiment, p0, Some(rate));
    let left = plan::left(&watch.experiment, baseline.since.elapsed(), longest);
    plan::inject(&watch.experiment, plan.as_ref(), left).map_err(Ended::Never)
}

/// The 95th percentile of the baseline becomes the threshold of whoever asked for it, frozen before the fault.
fn freeze_thresholds(watch: &Watch<'_>, rules: &[Rule]) {
    for (indicator, rule) in watch.experiment.steady_state.iter().zip(rules) {
        if let (Measure::SlowRate { over: Threshold::BaselineP95, .. }, Rule::Slow { over, .. }) =
            (&indicator.measure, rule)
            && let Some(micros) = watch.tally.quantile_of_all(Phase::Baseline, 0.95)
        {
            over.store(micros.max(1), Ordering::Relaxed);
        }
    }
}

/// The treatment meets the fault, under guards, until the planned end or something ends it.
async fn inject(
    watch: &mut Watch<'_>,
    enrolled: &Enrolled,
    seen: &[Seen],
    length: Duration,
) -> (PhaseMark, Option<Injection>, Ended) {
    let mark = watch.begin(Phase::Inject);
    let baseline = watch.marks.first().map_or(length, |baseline| mark.since - baseline.since);
    let phases = watch.experiment.compares_phases();
    watch.pairing = phases.then(|| Pairing::new(&watch.tally, baseline, length));
    let injection = enrolled.inject();
    watch.inject_length = length;
    let faults: Vec<String> = watch.experiment.inject.faults.iter().map(crate::fault::Fault::describe).collect();
    let text = format!(
        "inject began at {}: {}, for {:#}",
        watch.experiment.inject.at,
        faults.join(" and "),
        Span::from(length)
    );
    watch.say("run", text);
    let observe = watch.experiment.observe.get();
    let bounds = watch.bounds.iter();
    let experiment = watch.experiment.clone();
    let mut so_far: Vec<SoFar> = bounds.map(|bound| SoFar::new(&experiment, bound, &seen[bound.indicator])).collect();
    let look = |watch: &mut Watch<'_>| {
        ramp(watch, mark, length);
        watch.judge_so_far(mark, &mut so_far);
        let broken = watch.broken_after.iter().flatten().min().copied();
        if broken.is_some_and(|after| mark.since.elapsed() >= after + observe) {
            return Some(Cut::Broken);
        }
        watch.guarded().or_else(|| watch.deserted(mark))
    };
    let cut = watch.until(mark, length, look, |_| mark.since.elapsed() >= length).await;
    match cut {
        None => {
            injection.close();
            (mark, Some(injection), Ended::Planned)
        }
        Some(cut) => {
            drop(injection);
            (mark, None, ended(cut, watch))
        }
    }
}

/// The next equal part of inject treats the next share of a ramp.
fn ramp(watch: &Watch<'_>, mark: PhaseMark, length: Duration) {
    watch.trial.treat(gather::step(watch, mark.since.elapsed(), length).1);
}

/// The fault is off: the last of inject are waited for, and the system is watched getting well again.
async fn recovery(
    watch: &mut Watch<'_>,
    inject: PhaseMark,
    injection: Option<Injection>,
    patience: Patience<'_>,
    evidence: &mut Evidence,
) {
    let mark = watch.begin(Phase::Recovery);
    watch.say("run", "the fault is off: recovery began");
    if let Some(held) = injection {
        last_of_inject(watch, mark, inject, held, patience.longest(), evidence).await;
    } else {
        watch.drain();
        gather::inject(watch, inject, Undecided::LeaveOut, evidence);
    }
    if watch.stop.borrow().is_some() || matches!(evidence.ended, Ended::Invalid(_)) {
        return;
    }
    let length = match watch.experiment.phases.recovery {
        Length::Fixed(span) => span.get(),
        Length::Auto { at_most } => at_most.map_or(plan::QUIET_PHASE, Span::get),
    };
    // Those who were held to the last may have kept others waiting: getting well is judged from here on.
    let since = Instant::now();
    let look = |watch: &mut Watch<'_>| watch.deserted(mark);
    let planned = since - mark.since + length;
    let cut = watch.until(mark, planned, look, |_| since.elapsed() >= length.max(TICK)).await;
    let (first, last) = (mark.tick(since), mark.tick(since + length));
    let judged = first + (last - first) / 2..last;
    let cut = match cut {
        None => {
            let deadline = Instant::now() + patience.longest();
            let decided = |watch: &mut Watch<'_>| watch.is_decided(mark, judged.clone()) || Instant::now() >= deadline;
            watch.until(mark, planned, |_| None, decided).await
        }
        cut => cut,
    };
    let Some(cut) = cut else { return gather::recovery(watch, judged, evidence) };
    watch.say("run", "recovery was cut short");
    let why = ended(cut, watch);
    if evidence.ended == Ended::Planned {
        evidence.ended = why;
    }
}

/// At the planned end no new fault starts, and delays already begun run out, for as long as it takes to decide the last
/// unit of inject. Then whoever is still held is let go, and undecided units are bad; if somebody stops the run before,
/// nobody knows what would have become of them.
async fn last_of_inject(
    watch: &mut Watch<'_>,
    recovery: PhaseMark,
    inject: PhaseMark,
    held: Injection,
    longest: Duration,
    evidence: &mut Evidence,
) {
    let decided = |watch: &mut Watch<'_>| {
        let all_are_in = watch.tally.complete_until() > Some(recovery.since);
        all_are_in && watch.is_decided(inject, 0..u32::MAX) || recovery.since.elapsed() >= longest
    };
    let cut = watch.until(recovery, Duration::ZERO, |_| None, decided).await;
    if let Some(cut) = cut {
        drop(held);
        watch.drain();
        gather::inject(watch, inject, Undecided::LeaveOut, evidence);
        evidence.ended = ended(cut, watch);
    } else {
        gather::inject(watch, inject, Undecided::Bad, evidence);
        drop(held);
    }
}

/// How long it can take until a unit is decided.
#[derive(Clone, Copy)]
struct Patience<'r> {
    indicators: &'r [Rule],
    /// The response timeout of the listener where units are.
    response: Duration,
}

impl Patience<'_> {
    /// For the slowest indicator: its threshold, or the response timeout where it asks for errors, and a moment to be told.
    fn longest(self) -> Duration {
        let bounds = self.indicators.iter().map(|rule| rule.threshold().unwrap_or(self.response));
        bounds.max().unwrap_or_default() + Duration::from_millis(500)
    }
}

/// What a cut means for the verdict.
fn ended(cut: Cut, watch: &mut Watch<'_>) -> Ended {
    match cut {
        Cut::Broken => {
            watch.say("run", "the fault was taken off: the hypothesis is broken");
            Ended::Broken
        }
        Cut::Stop(stop) => {
            watch.say("operator", stop.to_string());
            Ended::Early(stop.to_string())
        }
        Cut::Guard(why) | Cut::Budget(why) => {
            watch.say("guard", why.clone());
            Ended::Early(why)
        }
        Cut::Limit(why) => {
            watch.say("limits", why.clone());
            Ended::Early(why)
        }
        Cut::NoTraffic(why) | Cut::Failed(why) => {
            watch.say("guard", why.clone());
            Ended::Invalid(why)
        }
    }
}
