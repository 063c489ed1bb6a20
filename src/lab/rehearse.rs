//! A rehearsal: everything but the fault. Whom the context reaches, whether the arms are alike, what a run would need.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::bound::{Allowed, Bound};
use super::evidence::{Evidence, Seen};
use super::map::{self, Context, Map, Stand};
use super::preflight::{self, Refusal};
use super::run::{Lab, Order};
use super::stop::Stop;
use super::watch::{Cut, Watch};
use super::{Progress, gather, judge, plan};
use crate::experiment::{Carry, Ending, Experiment, Length, Phases};
use crate::measure::block::Undecided;
use crate::measure::{Phase, PhaseMark};
use crate::report::{Counted, words};
use crate::stats::ratio::{SAMPLE_RATIO_ALARM, SampleRatio};
use crate::units::{Percent, Span};

/// Requests that must be enrolled before the map says anything.
const ENOUGH: u64 = 20;

/// How long a rehearsal is where nothing is said.
pub const LENGTH: &str = "10s";

/// The shortest: a call needs its time to come by.
pub const SHORTEST: Span = Span::secs(1);

/// What a rehearsal showed.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Rehearsed {
    /// The rehearsal's id; it is in no ledger.
    pub run: String,
    /// The experiment's name.
    pub experiment: String,
    /// What people call it.
    pub title: String,
    /// How long it lasted, in milliseconds.
    pub lasted_ms: u64,
    /// `held` where a run may begin; else as a run of this set-up would end.
    pub ending: Ending,
    /// Why, in one sentence.
    pub reason: String,
    /// The listener where the fault would wait.
    pub fault_at: String,
    /// Where requests were seen again.
    pub map: Map,
    /// Treatment and control without any fault.
    pub arms: Vec<Compared>,
    /// How they differ, where they do.
    pub differ: Vec<String>,
    /// Why the world is not quiet, where it is not.
    pub unquiet: Option<String>,
    /// What a run needs.
    pub needs: Option<Needs>,
    /// Why a run would be refused now, where it would.
    pub refused: Option<String>,
}

/// One bound, without any fault.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Compared {
    /// The indicator's name.
    pub indicator: String,
    /// The bound in words.
    pub bound: String,
    /// Treated units, of whom none met a fault.
    pub treated: Counted,
    /// Control units.
    pub control: Counted,
}

/// What a run needs to say held with a chance of 90 %.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Needs {
    /// Treated units.
    pub treated: u64,
    /// The bound that needs the most.
    pub bound: String,
    /// Matching units a second, as they came.
    pub rate: f64,
    /// How long inject takes for them, in milliseconds.
    pub inject_ms: u64,
    /// How long the whole run takes, in milliseconds.
    pub run_ms: u64,
    /// The length of inject that is written, in milliseconds, where it is too short.
    pub too_short_ms: Option<u64>,
}

impl Lab {
    /// Rehearses an experiment for so long. Nothing is injected, and nothing is written into the ledger.
    pub async fn rehearse(
        &self,
        order: Order,
        length: Span,
        stop: watch::Receiver<Option<Stop>>,
        progress: &watch::Sender<Progress>,
    ) -> Result<Rehearsed, Refusal> {
        let written = order.experiment.clone();
        let not_yet = preflight::not_yet(&written);
        if !not_yet.is_empty() {
            return Err(Refusal::Document(not_yet.join("\n")));
        }
        if written.compares_phases() {
            let why = "there is nothing to rehearse with `carry: none`: no arm travels, and no context is asked for";
            return Err(Refusal::Document(why.to_owned()));
        }
        if length > self.limits.max_duration {
            let most = self.limits.max_duration;
            return Err(Refusal::NotNow(format!(
                "a rehearsal of {length:#} is longer than `limits.max_duration` ({most:#})"
            )));
        }
        let places = preflight::places(&written, &self.proxy)?;
        preflight::upstreams(&self.proxy, places).await?;
        let order = Order { experiment: everybody(&written, length).into(), ..order };

        let (mut watch, _) = self.watch(&order, places, stop, progress)?;
        watch.trial.look_everywhere();
        let enrolled = self.proxy.enroll(&watch.trial);
        let load = self.load(&order, &watch.trial, places.0)?;
        let mark = watch.begin(Phase::Baseline);
        let over = length.get();
        let cut = watch.until(mark, over, |watch| watch.guarded(), |_| mark.since.elapsed() >= over).await;
        let lasted = mark.since.elapsed();
        let ticks = mark.tick(Instant::now());
        drop(enrolled);
        drop(load);
        watch.hear_of(Instant::now()).await;

        let map = map::draw(&watch.tally.sightings, &self.stands(places), places.0, &written.slice.carry);
        let mut seen = gather::baseline(&watch, mark);
        let (arms, differ) = compare(&watch, &mut seen);
        let unquiet = judge::baseline_unquiet(&watch.bounds, &seen);
        let needs = needs(&written, &watch, &seen, mark, ticks);
        let refused = preflight::limits(&written, &self.limits).err().map(|refusal| refusal.to_string());
        let (ending, reason) = ending(&written, cut, &map, &differ, unquiet.as_deref());
        progress.send_modify(Progress::over);
        Ok(Rehearsed {
            run: order.run,
            experiment: written.name.clone(),
            title: written.title.clone(),
            lasted_ms: lasted.as_millis() as u64,
            ending,
            reason,
            fault_at: written.inject.at.clone(),
            map,
            arms,
            differ,
            unquiet,
            needs,
            refused,
        })
    }

    /// The listeners that are open.
    fn stands(&self, places: (usize, usize)) -> Vec<Stand> {
        let stand = |listener: &std::sync::Arc<crate::proxy::Listener>| {
            let setup = listener.setup();
            let config = &setup.config;
            let upstream = config.upstream.as_ref().or_else(|| config.routes.first().map(|route| &route.upstream));
            Stand {
                index: listener.index,
                name: listener.name.clone(),
                upstream: upstream.map(ToString::to_string).unwrap_or_default(),
                trusts: config.trust_baggage || listener.index == places.0 || listener.index == places.1,
                external: config.external,
            }
        };
        self.proxy.listeners().iter().map(stand).collect()
    }
}

/// The same experiment with everybody in an arm: a map of all is drawn in seconds, and nobody meets a fault.
fn everybody(experiment: &Experiment, length: Span) -> Experiment {
    let mut experiment = experiment.clone();
    let half = Percent::from_ratio(0.5).expect("it is a share");
    (experiment.slice.treatment, experiment.slice.control) = (vec![half], half);
    let none = Length::Fixed(Span::default());
    experiment.phases = Phases { baseline: Length::Fixed(length), inject: none, recovery: none };
    experiment
}

/// Compares the arms both ways: without a fault neither may be worse.
fn compare(watch: &Watch<'_>, seen: &mut [Seen]) -> (Vec<Compared>, Vec<String>) {
    let mut differ = Vec::new();
    let mut judged = |seen: &mut [Seen], swapped: bool| {
        for (rule, seen) in seen.iter_mut().enumerate() {
            seen.inject = watch.blocks(Phase::Baseline, rule, Undecided::LeaveOut);
            for pair in seen.inject.iter_mut().filter(|_| swapped) {
                std::mem::swap(&mut pair.bad_t, &mut pair.bad_c);
                std::mem::swap(&mut pair.n_t, &mut pair.n_c);
            }
        }
        let evidence = Evidence { indicators: seen.to_vec(), ..Evidence::default() };
        let verdicts = judge(&watch.experiment, &evidence).bounds;
        for (bound, verdict) in watch.bounds.iter().zip(&verdicts) {
            if matches!(bound.allowed, Allowed::More(_)) && verdict.log_e_broken >= verdict.needs_broken {
                let (treated, control) = match swapped {
                    false => (verdict.treated, verdict.control),
                    true => (verdict.control, verdict.treated),
                };
                differ.push(format!("{}: {}", bound.name, shares(treated, control)));
            }
        }
        verdicts
    };
    judged(seen, true);
    let verdicts = judged(seen, false);
    let mut ratio = SampleRatio::default();
    for arms in watch.tally.units(Phase::Baseline, 0, u32::MAX).values() {
        ratio.push(arms[0].arrived, arms[1].arrived, 0.5);
    }
    if ratio.log_e() >= SAMPLE_RATIO_ALARM {
        differ.push("they are not equally large: something sorts requests by arm".to_owned());
    }
    let compared = |(bound, verdict): (&Bound, crate::report::BoundVerdict)| Compared {
        indicator: bound.name.clone(),
        bound: bound.words.clone(),
        treated: verdict.treated,
        control: verdict.control,
    };
    (watch.bounds.iter().zip(verdicts).map(compared).collect(), differ)
}

fn shares(treated: Counted, control: Counted) -> String {
    format!("{} treated v {} control", words::share(treated.share()), words::share(control.share()))
}

/// What a run would need, after what was seen.
fn needs(written: &Experiment, watch: &Watch<'_>, seen: &[Seen], mark: PhaseMark, ticks: u32) -> Option<Needs> {
    let units: u64 = watch.tally.units_of(Phase::Baseline).iter().map(|counts| counts.arrived).sum();
    let secs =
        (crate::measure::TICK * ticks.max(1)).max(mark.since.elapsed().min(Duration::from_secs(1))).as_secs_f64();
    let declared = written.traffic.as_ref().filter(|traffic| traffic.only_own).and_then(|traffic| traffic.rate);
    let rate = declared.map_or(units as f64 / secs, |rate| rate.per_second());
    let p0 = |indicator: usize| {
        let Counted { bad, of } = seen[indicator].baseline;
        (of > 0).then(|| (bad + 0.5) / (of as f64 + 1.0))
    };
    let plan = plan::plan(written, p0, Some(rate))?;
    let planned = plan.time?;
    let fixed = |length, otherwise: Duration| match length {
        Length::Fixed(span) => span.get(),
        Length::Auto { .. } => otherwise,
    };
    let quiet = plan::QUIET_PHASE.max(Duration::from_secs_f64((plan::BASELINE_UNITS as f64 / rate.max(1e-3)).min(1e6)));
    let inject = fixed(written.phases.inject, planned.max(Duration::from_secs(10)));
    let run = fixed(written.phases.baseline, quiet) + inject + fixed(written.phases.recovery, plan::QUIET_PHASE);
    Some(Needs {
        treated: plan.treated,
        bound: plan.bound,
        rate,
        inject_ms: planned.as_millis() as u64,
        run_ms: run.as_millis() as u64,
        too_short_ms: (inject < planned).then_some(inject.as_millis() as u64),
    })
}

/// As a run of this set-up would end; held where it may begin.
fn ending(
    experiment: &Experiment,
    cut: Option<Cut>,
    map: &Map,
    differ: &[String],
    unquiet: Option<&str>,
) -> (Ending, String) {
    match cut {
        Some(Cut::Stop(stop)) => return (Ending::Halted, stop.to_string()),
        Some(Cut::Guard(why) | Cut::Budget(why) | Cut::NoTraffic(why) | Cut::Limit(why) | Cut::Failed(why)) => {
            return (Ending::Halted, why);
        }
        Some(Cut::Broken) | None => {}
    }
    if map.enrolled == 0 {
        return (Ending::Invalid, "no traffic: no request matched the slice".to_owned());
    }
    let at = &experiment.inject.at;
    let carried = *at != experiment.slice.at && experiment.slice.carry != Carry::None;
    let there = map.listeners.iter().find(|seen| seen.listener == *at);
    let context = there.map_or(Context::NoCalls, |seen| seen.context);
    match context {
        Context::Lost if carried => return (Ending::Invalid, format!("the context does not reach {at}")),
        _ if map.enrolled < ENOUGH => {
            let enrolled = words::many(map.enrolled, "request was", "requests were");
            return (Ending::Inconclusive, format!("too little traffic: {enrolled} enrolled, {ENOUGH} are needed"));
        }
        Context::NoCalls | Context::Others if carried => {
            let why = format!("no call of an enrolled request that is to be faulted reached {at}");
            return (Ending::Invalid, why);
        }
        _ => {}
    }
    if let Some(how) = differ.first() {
        return (Ending::Invalid, format!("treatment and control differ without any fault: {how}"));
    }
    if let Some(why) = unquiet {
        return (Ending::Inconclusive, format!("the system is not well without any fault: {why}"));
    }
    let reached = if carried { format!("the context reaches {at}") } else { "nothing has to be carried".to_owned() };
    (Ending::Held, format!("{reached}, and the arms are alike without any fault"))
}
