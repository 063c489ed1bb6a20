//! Puts a run into words and figures: the report.

use jiff::Timestamp;
use serde_json::json;

use super::evidence::{Ended, Evidence, Reach};
use super::judge::{self, Judgement};
use super::run::Order;
use super::watch::Watch;
use super::{findings, follow_up};
use crate::experiment::{Ending, Experiment, Measure};
use crate::fault::Fault;
use crate::ledger::FollowUpOutcome;
use crate::load::LoadCounts;
use crate::measure::{Arm, Counts, Note, Phase, PhaseMark, TICK};
use crate::report::*;
use crate::units::Rate;

/// What is known of a run beside what it measured.
pub(super) struct Facts<'a> {
    pub(super) order: &'a Order,
    pub(super) started_at: Timestamp,
    pub(super) ended_at: Timestamp,
    pub(super) inject_at: Option<PhaseMark>,
    pub(super) load: Option<(Option<Rate>, LoadCounts)>,
    pub(super) similar: Vec<String>,
}

/// How far the fault reached.
pub(super) fn reach(watch: &Watch<'_>, inject: Option<PhaseMark>, evidence: &mut Evidence) {
    let tally = &watch.tally;
    evidence.reach = Reach {
        treated: inject.map_or(0, |_| tally.shown_sum(Phase::Inject)[Arm::Treatment as usize].arrived),
        carried: tally.noted(Note::CarriedTreatment) + tally.noted(Note::CarriedControl),
        uncarried: tally.noted(Note::Uncarried),
        no_match: tally.noted(Note::SparedNoMatch),
        protected_calls: tally.noted(Note::SparedProtected),
        probes: tally.noted(Note::SparedProbe),
        eligible: tally.noted(Note::Eligible),
        faulted: tally.noted(Note::Faulted),
        exposed: tally.operations.exposed().count() as u64,
        unkeyed: tally.noted(Note::Unkeyed),
        protected: tally.noted(Note::Protected),
        ambiguous: tally.noted(Note::Ambiguous),
        no_id: tally.noted(Note::NoId),
    };
}

/// The report of a run that is over.
pub(super) fn report(watch: &Watch<'_>, facts: &Facts<'_>, evidence: &Evidence, judgement: Judgement) -> Report {
    let experiment = &watch.experiment;
    let Judgement { ending, reason, missing, mut bounds, spillover } = judgement;
    for (bound, after) in bounds.iter_mut().zip(&watch.broken_after) {
        bound.broken_after_ms = after.map(|after| after.as_millis() as u64);
    }
    let recovery = recovery(watch, evidence, &bounds);
    let mut findings = findings::find(experiment, &watch.tally.operations, &spillover);
    if experiment.compares_phases() {
        findings.extend(weaker(ending));
    } else {
        findings.extend(exposure(ending, &evidence.reach, &bounds));
    }
    findings.extend(attempts(experiment, evidence));
    let recovered = recovery.as_ref().is_none_or(|recovery| recovery.recovered);
    findings.extend(baseline_short(watch, facts, evidence));
    let class = findings::class(experiment, ending, &findings, recovered);
    let broken = ending == Ending::Broken;
    let ended_by = match &evidence.ended {
        Ended::Early(by) => Some(by.clone()),
        _ => None,
    };
    Report {
        schema: SCHEMA,
        run: facts.order.run.clone(),
        experiment: experiment.name.clone(),
        title: experiment.title.clone(),
        owner: experiment.owner.clone(),
        tags: experiment.tags.clone(),
        started_at: facts.started_at,
        ended_at: facts.ended_at,
        hypothesis: experiment.hypothesis.clone(),
        expected: experiment.hypothesis.sentence(),
        seen: seen(experiment, ending, &reason, &bounds),
        impact: impact(watch, evidence, ending),
        fidelity: fidelity(watch, facts, evidence),
        timeline: watch.timeline.clone(),
        phases: phases(watch, facts.inject_at, evidence),
        series: series(watch),
        recovery,
        class,
        surprise: surprise(experiment, ending),
        questions: questions(ending, &missing),
        whys: if broken { whys(&bounds, &findings) } else { Vec::new() },
        actions: Vec::new(),
        follow_up: broken.then(|| follow_up::follow_up(experiment, &findings)),
        findings,
        failure: None,
        similar: facts.similar.clone(),
        replay: replay(facts, experiment, evidence),
        verdict: Verdict { ending, ended_by, reason, missing, bounds, confidence: experiment.confidence },
    }
}

/// A held bound speaks of treated units; where not all of them met the fault, less is known of those that did
/// (decisions.md 2.15).
fn exposure(ending: Ending, reach: &Reach, bounds: &[BoundVerdict]) -> Option<Finding> {
    let share = reach.exposed as f64 / reach.treated.max(1) as f64;
    let widest = bounds.iter().map(|bound| bound.margin).reduce(f64::max)?;
    (ending == Ending::Held && share < 0.95 && share > 0.0).then(|| Finding {
        kind: "partial_exposure".to_owned(),
        text: format!(
            "{} of the treated met the fault: harm to those is shown to be below {}, not {}",
            words::share(share),
            words::distance((widest / share).min(1.0)),
            words::distance(widest)
        ),
        evidence: "treated operations joined with the calls that met the fault".to_owned(),
        advice: None,
    })
}

/// How many attempts operations took, which is observed beside the bounds.
fn attempts(experiment: &Experiment, evidence: &Evidence) -> Option<Finding> {
    let [treated, control] = evidence.indicators.first()?.attempts?;
    let Measure::FailedOperations { max_attempts: Some(max), .. } = experiment.steady_state.first()?.measure else {
        return None;
    };
    let mean = |(attempts, operations): (u64, u64)| words::number(attempts as f64 / operations.max(1) as f64, 2);
    Some(Finding {
        kind: "attempts_observed".to_owned(),
        text: format!(
            "operations took {} attempts on average among the treated and {} in control; at most {max} were allowed",
            mean(treated),
            mean(control)
        ),
        evidence: "requests with the same key where the slice is, counted by operation; observed, not part of ln E"
            .to_owned(),
        advice: None,
    })
}

/// What a comparison of phases cannot tell, said wherever it says anything.
fn weaker(ending: Ending) -> Option<Finding> {
    matches!(ending, Ending::Held | Ending::Broken | Ending::Inconclusive).then(|| Finding {
        kind: "phases_compared".to_owned(),
        text: "weaker than a comparison of arms: other changes in that minute would look the same".to_owned(),
        evidence: "`carry: none`: everybody in inject was compared with everybody in baseline".to_owned(),
        advice: None,
    })
}

/// A warning where nobody knows whether a bound was kept before the fault (decisions.md 2.5).
fn baseline_short(watch: &Watch<'_>, facts: &Facts<'_>, evidence: &Evidence) -> Vec<Finding> {
    let Some(inject) = facts.inject_at else { return Vec::new() };
    let secs = (inject.since - watch.started).as_secs_f64();
    let short = judge::baseline_short(&watch.bounds, &evidence.indicators, secs);
    let finding = |text| Finding {
        kind: "baseline_short".to_owned(),
        text,
        evidence: "all matching traffic of baseline, at alpha 0.01".to_owned(),
        advice: None,
    };
    short.into_iter().map(finding).collect()
}

/// What a follow-up has shown about the failure that it follows.
pub(super) fn followed(outcome: &FollowUpOutcome) -> Finding {
    let FollowUpOutcome { failure, closed, why } = outcome;
    let (kind, word) = if *closed { ("failure_closed", "closed") } else { ("failure_open", "still open") };
    Finding {
        kind: kind.to_owned(),
        text: format!("{failure} is {word}: {why}"),
        evidence: "the ledger: this run is the failure's follow-up".to_owned(),
        advice: None,
    }
}

fn seen(experiment: &Experiment, ending: Ending, reason: &str, bounds: &[BoundVerdict]) -> String {
    let figures = |bound: &BoundVerdict| {
        let (treated, control) = (words::share(bound.treated.share()), words::share(bound.control.share()));
        let name = &bound.indicator;
        let allowed = &bound.bound;
        if experiment.compares_phases() {
            return format!("{name}: {treated} bad while the fault was on, {control} before; allowed was {allowed}");
        }
        format!("{name}: {treated} bad among the treated, {control} in control; allowed was {allowed}")
    };
    match ending {
        Ending::Held | Ending::Broken => {
            let told: Vec<String> = bounds.iter().filter(|bound| bound.ending == ending).map(figures).collect();
            if told.is_empty() { format!("{reason}.") } else { format!("{}.", told.join("; ")) }
        }
        _ => format!("{reason}."),
    }
}

fn impact(watch: &Watch<'_>, evidence: &Evidence, ending: Ending) -> ImpactReport {
    let experiment = &watch.experiment;
    let sums = watch.tally.shown_sum(Phase::Inject);
    let matching: u64 = sums.iter().map(|counts| counts.arrived).sum();
    let treated = evidence.reach.treated;
    let harmed = watch.trial.harmed().spent().min(treated);
    let share = |of: u64| if of == 0 { 0.0 } else { harmed as f64 / of as f64 };
    let applied = if experiment.compares_phases() { applied(watch).max(0.001) } else { 1.0 };
    let harmed_share = (share(treated) / applied).min(1.0);
    let per_second = matching as f64 / evidence.inject_secs.max(0.001) * harmed_share;
    let impact = experiment.impact;
    let score = (ending == Ending::Broken)
        .then(|| (10.0 * f64::from(impact.weight) * (2.0 * share(treated)).min(1.0)).round().min(100.0) as u32);
    let lost = |value: f64| value * per_second * impact.outage.get().as_secs_f64();
    ImpactReport {
        harmed,
        treated,
        share_of_treated: share(treated),
        share_of_traffic: share(matching),
        projected_per_minute: per_second * 60.0,
        projected_loss: impact.value_per_request.map(lost),
        outage: impact.outage,
        score,
        score_parts: format!(
            "10 × weight {} × min(1, 2 × {} of the treated harmed); no alarm was connected, so whether one would have fired is not in it",
            impact.weight,
            words::share(share(treated))
        ),
    }
}

fn fidelity(watch: &Watch<'_>, facts: &Facts<'_>, evidence: &Evidence) -> Fidelity {
    let (tally, experiment) = (&watch.tally, &watch.experiment);
    let mut enrolled = [0; 3];
    for phase in Phase::ALL {
        for (sum, counts) in enrolled.iter_mut().zip(tally.sum(phase)) {
            *sum += counts.arrived;
        }
    }
    let inject = tally.shown_sum(Phase::Inject);
    let matching: u64 = inject.iter().map(|counts| counts.arrived).sum();
    let shares = &experiment.slice.treatment;
    let carriers = Note::ALL.iter().filter_map(|note| Some((note.carrier()?.to_owned(), tally.noted(*note))));
    let spared = Note::ALL.iter().filter_map(|note| Some((note.spared()?.to_owned(), tally.noted(*note))));
    let operations = &tally.operations;
    let at = |values: &[f64], quantile| findings::quantile(values, quantile).unwrap_or_default();
    let delay = (!operations.asked_ms.is_empty()).then(|| DelayFidelity {
        n: operations.asked_ms.len() as u64,
        asked_p50: at(&operations.asked_ms, 0.5),
        asked_p99: at(&operations.asked_ms, 0.99),
        applied_p50: at(&operations.applied_ms, 0.5),
        applied_p99: at(&operations.applied_ms, 0.99),
    });
    Fidelity {
        treatment_asked: shares.iter().map(|share| share.ratio()).sum::<f64>() / shares.len() as f64,
        treatment_applied: match matching {
            _ if experiment.compares_phases() => applied(watch),
            0 => 0.0,
            matching => inject[0].arrived as f64 / matching as f64,
        },
        phases_compared: experiment.compares_phases(),
        enrolled,
        unkeyed: tally.noted(Note::Unkeyed),
        no_room: tally.noted(Note::NoRoom),
        carried: [tally.noted(Note::CarriedTreatment), tally.noted(Note::CarriedControl)],
        uncarried: tally.noted(Note::Uncarried),
        carried_by: carriers.filter(|(_, count)| *count > 0).collect(),
        ambiguous: evidence.reach.ambiguous,
        no_id: evidence.reach.no_id,
        eligible: evidence.reach.eligible,
        faulted: evidence.reach.faulted,
        exposed_units: evidence.reach.exposed,
        spared: spared.filter(|(_, count)| *count > 0).collect(),
        undecided: undecided(watch, evidence),
        delay,
        faults: experiment.inject.faults.iter().map(Fault::describe).collect(),
        at: experiment.inject.at.clone(),
        load: facts.load.map(|(rate, counts)| LoadFidelity {
            asked_rate: rate.map_or(0.0, Rate::per_second),
            sent: counts.sent,
            shed: counts.shed,
            failed: counts.failed,
        }),
    }
}

/// The share of the calls that was drawn, where phases are compared.
fn applied(watch: &Watch<'_>) -> f64 {
    let [drawn, others] = [Note::CarriedTreatment, Note::CarriedControl].map(|note| watch.tally.noted(note));
    drawn as f64 / (drawn + others).max(1) as f64
}

/// Treated units of an inject phase that was cut short, and that no block has.
fn undecided(watch: &Watch<'_>, evidence: &Evidence) -> u64 {
    if evidence.ended == Ended::Planned {
        return 0;
    }
    let arrived = watch.tally.units_of(Phase::Inject)[Arm::Treatment as usize].arrived;
    let judged = evidence.indicators.iter().map(|seen| seen.inject.iter().map(|block| block.n_t).sum::<u64>());
    arrived.saturating_sub(judged.min().unwrap_or(arrived))
}

fn phases(watch: &Watch<'_>, inject: Option<PhaseMark>, evidence: &Evidence) -> Vec<PhaseReport> {
    let indicators = watch.experiment.steady_state.len();
    let ends = watch.marks.iter().skip(1).map(|mark| mark.since).chain([tokio::time::Instant::now()]);
    let phases = watch.marks.iter().zip(ends).map(|(mark, end)| {
        let sums = watch.tally.shown_sum(mark.phase);
        let arms = Arm::ALL.iter().map(|arm| {
            let counts = &sums[*arm as usize];
            ArmReport {
                arm: *arm,
                units: counts.arrived,
                bad: (0..indicators).map(|rule| counted(counts, rule)).collect(),
                quantiles: watch.tally.quantiles(mark.phase, *arm, [0.5, 0.9, 0.95, 0.99]),
            }
        });
        let exact = inject.filter(|inject| inject.phase == mark.phase).map(|_| (evidence.inject_secs * 1e3) as u64);
        PhaseReport {
            name: mark.phase.word().to_owned(),
            from_ms: (mark.since - watch.started).as_millis() as u64,
            millis: exact.unwrap_or_else(|| (end - mark.since).as_millis() as u64),
            arms: arms.collect(),
        }
    });
    phases.collect()
}

fn counted(counts: &Counts, rule: usize) -> Counted {
    Counted { bad: counts.bad[rule], of: counts.decided[rule] }
}

/// One point a second over all phases.
fn series(watch: &Watch<'_>) -> Vec<Point> {
    let indicators = watch.experiment.steady_state.len();
    let mut points = std::collections::BTreeMap::<u64, [PointArm; 3]>::new();
    for mark in &watch.marks {
        for (tick, arms) in &watch.tally.shown(mark.phase) {
            let second = (mark.since - watch.started + TICK * *tick).as_secs();
            let point = points.entry(second).or_default();
            for (arm, counts) in point.iter_mut().zip(arms) {
                arm.units += counts.arrived;
                arm.bad.resize(indicators, 0.0);
                for (bad, more) in arm.bad.iter_mut().zip(counts.bad) {
                    *bad += more;
                }
            }
        }
    }
    for point in points.values_mut() {
        point.iter_mut().for_each(|arm| arm.bad.resize(indicators, 0.0));
    }
    points.into_iter().map(|(second, arms)| Point { second, arms }).collect()
}

/// Well again from the first tick from which on the treatment as a whole stays inside its bounds to the end: a tick alone
/// has so few units that one bad one, as there are some on any day, would put it outside.
fn recovery(watch: &Watch<'_>, evidence: &Evidence, bounds: &[BoundVerdict]) -> Option<Recovery> {
    let measured = bounds.iter().any(|bound| bound.log_e_not_recovered.is_some());
    if !evidence.recovery_seen || !measured {
        return None;
    }
    let recovered = bounds.iter().all(|bound| bound.log_e_not_recovered.is_none_or(|log_e| log_e < bound.needs_broken));
    let ticks = watch.tally.shown(Phase::Recovery);
    let ticks: Vec<_> = ticks.iter().map(|(tick, arms)| (*tick, arms)).collect();
    let mut sums = [Counts::default(); 3];
    let mut well = None;
    for (tick, arms) in ticks.iter().rev() {
        sums.iter_mut().zip(*arms).for_each(|(sum, counts)| sum.add(counts));
        let inside = watch.bounds.iter().all(|bound| {
            let [treated, control, _] = sums.each_ref().map(|counts| counted(counts, bound.indicator));
            let control = if watch.experiment.compares_phases() {
                evidence.indicators[bound.indicator].baseline
            } else {
                control
            };
            let against = if bound.increase.is_some() { control.share() } else { 0.0 };
            treated.share() <= against + bound.margin()
        });
        if inside {
            well = Some(*tick);
        }
    }
    // Nobody came before the first of these ticks: whoever comes then is as well as those who came at once.
    let first = ticks.first().map(|(tick, _)| *tick);
    let after = well.map(|tick| if Some(tick) == first { 0 } else { (TICK * tick).as_millis() as u64 });
    Some(Recovery { recovered, after_ms: after.filter(|_| recovered) })
}

fn surprise(experiment: &Experiment, ending: Ending) -> Option<Surprise> {
    let prediction = experiment.hypothesis.prediction()?;
    if !matches!(ending, Ending::Held | Ending::Broken) {
        return None;
    }
    let right = prediction.outcome == ending;
    let given = if right { prediction.sure.ratio() } else { 1.0 - prediction.sure.ratio() };
    let (predicted, sure) = (prediction.outcome, prediction.sure);
    let text = if right {
        format!("as predicted: {} ({sure:#} sure)", predicted.word())
    } else {
        format!("a surprise: {} was predicted ({sure:#} sure), and it was {}", predicted.word(), ending.word())
    };
    Some(Surprise { predicted, sure, brier: (given - 1.0) * (given - 1.0), text })
}

fn questions(ending: Ending, missing: &Option<String>) -> Vec<String> {
    match ending {
        Ending::Inconclusive => missing.iter().map(|missing| format!("What would {missing} have shown?")).collect(),
        Ending::Broken => {
            vec!["Which alarm should have told you, and did it? None was connected to this run.".to_owned()]
        }
        _ => Vec::new(),
    }
}

/// The first level from evidence, the rest for people.
fn whys(bounds: &[BoundVerdict], findings: &[Finding]) -> Vec<Why> {
    let causes = || findings.iter().filter(|finding| finding.is_cause());
    let cause = causes().find(|finding| finding.advice.is_some()).or_else(|| causes().next());
    let not_well = |bound: &BoundVerdict| bound.log_e_not_recovered.is_some_and(|log_e| log_e >= bound.needs_broken);
    let asked = bounds.iter().filter(|bound| bound.ending == Ending::Broken || not_well(bound)).map(|bound| {
        let deeper = Why { question: "Why?".to_owned(), answer: None, evidence: None, whys: Vec::new() };
        let crossed = bound.ending == Ending::Broken;
        let what = if crossed { "cross its bound" } else { "not get well again when the fault was gone" };
        Why {
            question: format!("Why did “{}” {what}?", bound.indicator),
            answer: cause.map(|finding| finding.text.clone()),
            evidence: cause.map(|finding| finding.evidence.clone()),
            whys: vec![deeper],
        }
    });
    asked.collect()
}

fn replay(facts: &Facts<'_>, experiment: &Experiment, evidence: &Evidence) -> Replay {
    let blocks = |pairs: &[crate::measure::block::Pair]| {
        pairs.iter().map(|pair| (pair.bad_t, pair.n_t, pair.bad_c, pair.n_c)).collect()
    };
    let indicators = experiment.steady_state.iter().zip(&evidence.indicators);
    Replay {
        engine: env!("CARGO_PKG_VERSION").to_owned(),
        seed: facts.order.seed,
        document: experiment.document.clone(),
        blocks: indicators
            .map(|(indicator, seen)| IndicatorBlocks {
                indicator: indicator.name.clone(),
                baseline: seen.baseline,
                inject: blocks(&seen.inject),
                recovery: blocks(&seen.recovery),
            })
            .collect(),
        evidence: json!(evidence),
        command: None,
    }
}
