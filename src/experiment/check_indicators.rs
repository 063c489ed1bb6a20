//! The hypothesis in numbers: indicators that can be judged, and guards that can halt.

use super::check::{help, meant, percent, words};
use super::check_slice::by;
use super::draft::{
    ErrorGuardDraft, ErrorRateDraft, GuardDraft, IndicatorDraft, OperationsDraft, ProbeDraft, SlowGuardDraft,
    SlowRateDraft,
};
use super::indicator::{Bounds, Count, Guard, Indicator, Measure, Of, ProbeBounds, Threshold};
use super::written::{Scalar, TextOr};
use super::{By, Inject, Slice};
use crate::document::Problems;
use crate::fault::grpc;
use crate::units::{Increase, Percent, Span};

const MEASURES: [&str; 4] = ["error_rate", "slow_rate", "failed_operations", "probe"];

pub(super) fn indicators(
    drafts: Vec<IndicatorDraft>,
    parts: Option<(&Slice, &Inject)>,
    problems: &mut Problems,
) -> Vec<Indicator> {
    if drafts.is_empty() {
        problems.error(
            "/steady_state",
            "nothing is measured, so that nothing can be shown",
            help("add an indicator, as in `- error_rate: { max_increase: 1pp }`"),
        );
    }
    if drafts.len() > 3 {
        problems.error(
            "/steady_state/3",
            format!(
                "{} indicators: each one needs more traffic for the same certainty, three are the most",
                drafts.len()
            ),
            help("keep those that the hypothesis is about; a second experiment takes the others"),
        );
    }
    let mut indicators: Vec<Indicator> = Vec::new();
    for (index, draft) in drafts.into_iter().enumerate() {
        let pointer = format!("/steady_state/{index}");
        let written_at = draft.at.is_some();
        let (name, at) = (
            draft.name.clone(),
            draft.at.clone().unwrap_or_else(|| parts.map_or_else(String::new, |(slice, _)| slice.at.clone())),
        );
        let Some((measure, usual)) = measure(draft, &pointer, problems) else { continue };
        if written_at && matches!(measure, Measure::Probe(_)) {
            problems.error(
                &format!("{pointer}/at"),
                "a probe is not measured at a listener",
                help("remove `at`; where the probe looks is written in the system file"),
            );
        } else if let Some((slice, inject)) = parts {
            place(&at, &measure, slice, inject, &pointer, problems);
        }
        let name = name.unwrap_or(usual);
        if indicators.iter().any(|other| other.name == name) {
            problems.error(
                &pointer,
                format!("two indicators are called `{name}`"),
                help("give each a `name` that a report can tell apart"),
            );
        }
        indicators.push(Indicator { name, at, measure });
    }
    if !indicators.is_empty() && indicators.iter().all(|indicator| matches!(indicator.measure, Measure::Probe(_))) {
        problems.error_at_key(
            "/steady_state",
            "probes alone can break a hypothesis, but never show that it holds",
            help(
                "add an indicator of requests, as in `- error_rate: { max_increase: 1pp }`, or make the probe a guard",
            ),
        );
    }
    indicators
}

/// An indicator is measured where the arm of a request is known and the injected answer is not what is seen.
fn place(at: &str, measure: &Measure, slice: &Slice, inject: &Inject, pointer: &str, problems: &mut Problems) {
    let key = match measure {
        Measure::ErrorRate { .. } => "error_rate",
        Measure::SlowRate { .. } => "slow_rate",
        // An operation is more than the answer that was injected; at the fault its retries are seen.
        Measure::FailedOperations { .. } if at == inject.at => return,
        Measure::FailedOperations { .. } => "failed_operations",
        Measure::Probe(_) => return,
    };
    if at == inject.at {
        let way = if *slice.at == *inject.at {
            "judge the caller by whole operations, as in `failed_operations: { by: header:x-request-id, deadline: 3s, max: 1% }`, \
             or measure at another listener: with `at:` and `carry: none` phases are compared there"
                .to_owned()
        } else {
            format!("leave `at` out to measure at `{}`, where the traffic enters", slice.at)
        };
        problems.error_at_key(
            &format!("{pointer}/{key}"),
            format!("`{key}` at `{at}` would measure the answers that this experiment injects there itself"),
            Some(way),
        );
    } else if at != slice.at && slice.carry != super::Carry::None {
        let way = if *slice.at == *inject.at {
            format!("choose the slice at `{at}`, or compare phases there with `carry: none`")
        } else {
            format!("leave `at` out to measure at `{}`, or compare phases with `carry: none`", slice.at)
        };
        problems.error(
            &format!("{pointer}/at"),
            format!("nobody knows the arms of the requests at `{at}`: they are chosen at `{}`", slice.at),
            Some(way),
        );
    }
}

/// The measure, and what it is called where people gave it no name.
fn measure(draft: IndicatorDraft, pointer: &str, problems: &mut Problems) -> Option<(Measure, String)> {
    let written = [
        draft.error_rate.is_some(),
        draft.slow_rate.is_some(),
        draft.failed_operations.is_some(),
        draft.probe.is_some(),
    ];
    let mut keys = MEASURES.iter().zip(written).filter(|(_, written)| *written).map(|(key, _)| *key);
    match (keys.next(), keys.next()) {
        (None, _) => {
            problems.error(
                pointer,
                "this indicator measures nothing",
                help(format!("add {}", words(MEASURES.iter().copied()))),
            );
            return None;
        }
        (Some(first), Some(second)) => {
            problems.error_at_key(
                &format!("{pointer}/{second}"),
                format!("an indicator is one measure, and this has `{first}` and `{second}`"),
                help("make two entries of it"),
            );
            return None;
        }
        (Some(_), None) => {}
    }
    if let Some(rate) = draft.error_rate {
        return Some(error_rate(rate, &format!("{pointer}/error_rate"), problems));
    }
    if let Some(rate) = draft.slow_rate {
        return Some(slow_rate(&rate, &format!("{pointer}/slow_rate"), problems));
    }
    if let Some(operations) = draft.failed_operations {
        return Some(operations_rate(&operations, &format!("{pointer}/failed_operations"), problems));
    }
    let probe = probe(draft.probe?, &format!("{pointer}/probe"), problems);
    let name = probe.name.clone();
    Some((Measure::Probe(probe), name))
}

fn error_rate(draft: ErrorRateDraft, pointer: &str, problems: &mut Problems) -> (Measure, String) {
    let bounds = bounds(draft.max, draft.max_increase, pointer, problems);
    let count = match draft.count {
        None => Count::DEFAULT.to_vec(),
        Some(list) => {
            if list.is_empty() {
                problems.error(
                    &format!("{pointer}/count"),
                    "nothing counts as an error",
                    help("remove `count` for what usually does: 5xx, transport, timeout, gave_up and gRPC's failures"),
                );
            }
            let mut counts = Vec::new();
            for (index, Scalar(text)) in list.iter().enumerate() {
                match text.parse::<Count>() {
                    Ok(count) => counts.push(count),
                    Err(error) => {
                        let way = match text.strip_prefix("grpc:") {
                            Some(name) => grpc_names(name),
                            None => meant(text, &["4xx", "5xx", "429", "transport", "timeout", "gave_up", "grpc:CODE"]),
                        };
                        problems.error(&format!("{pointer}/count/{index}"), error.0, way);
                    }
                }
            }
            counts
        }
    };
    (Measure::ErrorRate { count, bounds }, "error rate".to_owned())
}

/// The way out of a gRPC status that does not exist.
pub(super) fn grpc_names(name: &str) -> Option<String> {
    let capitals = name.to_ascii_uppercase();
    if grpc::code(&capitals).is_some() {
        return help(format!("gRPC's names are written in capitals: `{capitals}`"));
    }
    meant(name, &grpc::NAMES)
}

fn slow_rate(draft: &SlowRateDraft, pointer: &str, problems: &mut Problems) -> (Measure, String) {
    let bounds = bounds(draft.max, draft.max_increase, pointer, problems);
    let over = match draft.over.as_str() {
        "baseline_p95" => Threshold::BaselineP95,
        // The schema has seen to it that everything else is a length of time.
        text => Threshold::Over(text.parse().unwrap_or_default()),
    };
    if over == Threshold::Over(Span::default()) {
        problems.error(
            &format!("{pointer}/over"),
            "everything takes longer than `0s`",
            help("write what is slow, as in `800ms`"),
        );
    }
    let name = match over {
        Threshold::Over(span) => format!("slow over {span}"),
        Threshold::BaselineP95 => "slow over the baseline's p95".to_owned(),
    };
    (Measure::SlowRate { over, until: draft.until, bounds }, name)
}

fn operations_rate(draft: &OperationsDraft, pointer: &str, problems: &mut Problems) -> (Measure, String) {
    let by_pointer = format!("{pointer}/by");
    let by = by(&draft.by, &by_pointer, problems);
    if by == By::Request {
        problems.error(
            &by_pointer,
            "`request` joins nothing: each attempt would be an operation of its own",
            help("write what all attempts of an operation share, as in `trace` or `header:x-request-id`"),
        );
    }
    if draft.deadline == Span::default() {
        problems.error(
            &format!("{pointer}/deadline"),
            "no operation is done in `0s`",
            help("write how long a caller may take with all its attempts, as in `3s`"),
        );
    }
    if let Some(most) = draft.max_attempts.filter(|most| *most < 1.0) {
        problems.error(
            &format!("{pointer}/max_attempts"),
            format!("an operation has at least one attempt, not {most}"),
            help("write how many there may be on average, as in `2.5`"),
        );
    }
    let bounds = bounds(draft.max, draft.max_increase, pointer, problems);
    let measure = Measure::FailedOperations { by, deadline: draft.deadline, bounds, max_attempts: draft.max_attempts };
    (measure, "failed operations".to_owned())
}

fn bounds(max: Option<Percent>, max_increase: Option<Increase>, pointer: &str, problems: &mut Problems) -> Bounds {
    if max.is_none() && max_increase.is_none() {
        problems.error_at_key(
            pointer,
            "this indicator has no bound, so that nothing could break it",
            help("add `max_increase: 1pp` to compare with control, or `max: 2%` for an absolute bound"),
        );
    }
    let pointer = format!("{pointer}/max");
    match max.map(Percent::ratio) {
        Some(0.0) => problems.error(
            &pointer,
            "no amount of traffic shows that something never happens",
            help("write the largest share that nobody would mind, as in `0.1%`"),
        ),
        Some(1.0) => problems.error(
            &pointer,
            "`100%` allows everything",
            help("write the share from which on the hypothesis is wrong, as in `2%`"),
        ),
        _ => {}
    }
    Bounds { max, max_increase }
}

fn probe(draft: ProbeDraft, pointer: &str, problems: &mut Problems) -> ProbeBounds {
    let range = draft.max.is_some() || draft.min.is_some();
    if draft.equals.is_none() && !range {
        problems.error_at_key(
            pointer,
            format!("nothing is said about what `{}` may read", draft.name),
            help("add `max`, `min` or `equals`"),
        );
    } else if draft.equals.is_some() && range {
        problems.error(
            &format!("{pointer}/equals"),
            "`equals` leaves no room for `max` or `min`",
            help("keep one of them"),
        );
    }
    if let (Some(min), Some(max)) = (draft.min, draft.max)
        && min > max
    {
        problems.error(
            &format!("{pointer}/min"),
            format!("no reading is at least {min} and at most {max}"),
            help("exchange `min` and `max`"),
        );
    }
    ProbeBounds { name: draft.name, max: draft.max, min: draft.min, equals: draft.equals.map(|text| text.0) }
}

/// What halts a run: what was written, and the defaults of decisions.md 2.8 where nothing of their kind was.
pub(super) fn guards(written: Option<TextOr<Vec<GuardDraft>>>, problems: &mut Problems) -> Vec<Guard> {
    let drafts = match written {
        None => Vec::new(),
        Some(TextOr::Text(word)) if word == "none" => return Vec::new(),
        Some(TextOr::Text(text)) => {
            problems.error(
                "/halt_when",
                format!("`{text}` is no list of guards"),
                help("write a list, as in `[{ harmed: { max: 100 } }]`, or `none` to go without"),
            );
            Vec::new()
        }
        Some(TextOr::More(drafts)) => {
            if drafts.is_empty() {
                problems.error(
                    "/halt_when",
                    "an empty list leaves open what is meant",
                    help("remove it for the default guards, or write `none` to go without"),
                );
            }
            drafts
        }
    };
    let mut guards = Vec::new();
    for (index, draft) in drafts.into_iter().enumerate() {
        guards.push(guard(draft, &format!("/halt_when/{index}"), problems));
    }
    if !guards.iter().any(|guard| matches!(guard, Guard::ErrorRate { .. })) {
        guards.push(Guard::ErrorRate { max: percent(0.5), window: WINDOW, of: Of::All });
    }
    if !guards.iter().any(|guard| matches!(guard, Guard::Harmed { .. })) {
        guards.push(Guard::Harmed { max: 1000 });
    }
    guards
}

/// The window of a guard that names none.
const WINDOW: Span = Span::secs(5);

fn guard(draft: GuardDraft, pointer: &str, problems: &mut Problems) -> Guard {
    match draft {
        GuardDraft::ErrorRate(ErrorGuardDraft { max, window, of }) => {
            let pointer = format!("{pointer}/error_rate");
            Guard::ErrorRate {
                max: guarded(max, &pointer, problems),
                window: self::window(window, &pointer, problems),
                of,
            }
        }
        GuardDraft::SlowRate(SlowGuardDraft { over, max, window, of }) => {
            let pointer = format!("{pointer}/slow_rate");
            if over == Span::default() {
                problems.error(
                    &format!("{pointer}/over"),
                    "everything takes longer than `0s`",
                    help("write what is slow, as in `2s`"),
                );
            }
            let max = guarded(max, &pointer, problems);
            Guard::SlowRate { over, max, window: self::window(window, &pointer, problems), of }
        }
        GuardDraft::Harmed(harmed) => Guard::Harmed { max: harmed.max },
        GuardDraft::Faulted(faulted) => {
            if faulted.max.is_none() && faulted.rate.is_none() && faulted.per_caller.is_none() {
                problems.error_at_key(
                    &format!("{pointer}/faulted"),
                    "this budget has no bound",
                    help("add `max: 10000`, `rate: 50/s` or `per_caller: 5`"),
                );
            }
            Guard::Faulted { max: faulted.max, rate: faulted.rate, per_caller: faulted.per_caller }
        }
        GuardDraft::Probe(draft) => Guard::Probe(probe(draft, &format!("{pointer}/probe"), problems)),
    }
}

fn guarded(max: Percent, pointer: &str, problems: &mut Problems) -> Percent {
    if max.ratio() >= 1.0 {
        problems.error(
            &format!("{pointer}/max"),
            "no share is above `100%`, so that this guard never halts anything",
            help("write the share that nobody can accept, as in `20%`"),
        );
    }
    max
}

fn window(written: Option<Span>, pointer: &str, problems: &mut Problems) -> Span {
    if written == Some(Span::default()) {
        problems.error(
            &format!("{pointer}/for"),
            "nothing happens within a window of `0s`",
            help("write how long it must go on, as in `5s`"),
        );
    }
    written.unwrap_or(WINDOW)
}
