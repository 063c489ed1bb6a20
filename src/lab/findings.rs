//! What the proxy can prove beyond the hypothesis, because it sits between caller and callee.

use crate::experiment::{Experiment, Measure, Threshold};
use crate::fault::Fault;
use crate::measure::operation::Operations;
use crate::report::{Class, Ending, Finding, words};
use crate::units::Span;

/// A call that waited longer than this waited long, where no indicator says what slow is.
const LONG: f64 = 1000.0;

/// What was found.
pub(super) fn find(experiment: &Experiment, operations: &Operations, spillover: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let at = &experiment.inject.at;
    waits(experiment, operations, at, &mut findings);
    answers(operations, at, &mut findings);
    attempts(operations, at, &mut findings);
    for text in spillover {
        findings.push(Finding {
            kind: "spillover".into(),
            text: format!("not contained: {text}"),
            evidence: "an arm that met no fault against its own baseline, at twice the margin".into(),
            advice: Some("isolate what the treatment and the others share: pools, workers, queues".into()),
        });
    }
    findings
}

/// Whoever was held: did they wait for ever, or leave, and when?
fn waits(experiment: &Experiment, operations: &Operations, at: &str, findings: &mut Vec<Finding>) {
    let (waited, released) = (operations.waited, operations.released);
    let left = operations.left_after_ms.len() as u64;
    let held = waited + left + released;
    if held == 0 {
        return;
    }
    let slow = threshold_ms(experiment).unwrap_or(LONG);
    let delay = median(&operations.asked_ms).unwrap_or_default();
    if left == 0 && waited > 0 && delay >= slow {
        let waited = words::count(waited);
        findings.push(Finding {
            kind: "no_timeout".into(),
            text: format!("no timeout: {waited} of {waited} callers waited out the whole delay"),
            evidence: format!("calls held at {at} whose caller was still connected when the hold ended"),
            advice: Some(format!("give the {at} call a timeout below {:#}", advised(slow))),
        });
    } else if left == 0 && waited == 0 {
        // They were let go before the hold was over, some perhaps a moment after they came: nothing is known of a timeout.
        let text = format!(
            "nobody had left when the fault was taken off: {} callers were let go, and whether they have a timeout is open",
            words::count(released)
        );
        let evidence = format!("calls held at {at} that were let go early");
        findings.push(Finding { kind: "still_waiting".into(), text, evidence, advice: None });
    } else if left > 0 {
        let after = median(&operations.left_after_ms).unwrap_or_default();
        let long = after > slow;
        findings.push(Finding {
            kind: if long { "long_timeout" } else { "timeout_worked" }.into(),
            text: format!(
                "callers gave up after {} (median): {} of {} that were held",
                words::length(after.round() as u64),
                words::count(left),
                words::count(held)
            ),
            evidence: format!("calls held at {at} whose caller closed its connection"),
            advice: long.then(|| format!("shorten the timeout of the {at} call to below {:#}", advised(slow))),
        });
    }
}

/// Operations of which a call failed: did their callers notice?
fn answers(operations: &Operations, at: &str, findings: &mut Vec<Finding>) {
    let (mut met, mut whole, mut retried) = (0u64, 0u64, 0u64);
    let left = !operations.left_after_ms.is_empty();
    for operation in operations.exposed() {
        // A caller that gives up at its timeout meets an error of its own making.
        let Some((failed, ..)) = operation.end.filter(|_| operation.errors > 0 || left) else { continue };
        met += 1;
        whole += u64::from(!failed);
        retried += u64::from(!failed && operation.calls > operation.faulted);
    }
    if met == 0 {
        return;
    }
    let evidence = format!("operations that met the fault at {at}, joined with their own answers");
    if whole * 100 >= met * 99 {
        // With a call beside the faulted ones that was let through, it may be a retry that saved the day.
        let (kind, what) =
            if retried * 2 > whole { ("retry_worked", "retries") } else { ("fallback_worked", "the fallback") };
        findings.push(Finding {
            kind: kind.into(),
            text: format!("{what} answered {} of {}", words::count(whole), words::count(met)),
            evidence,
            advice: None,
        });
    } else if whole * 100 <= met * 50 {
        let failed = met - whole;
        findings.push(Finding {
            kind: "no_fallback".into(),
            text: format!(
                "errors passed through: {} of {} operations that met the fault failed",
                words::count(failed),
                words::count(met)
            ),
            evidence,
            advice: Some(format!("answer without {at} when it fails: a default, a cached value, or a smaller answer")),
        });
    }
}

/// Calls that were made again.
fn attempts(operations: &Operations, at: &str, findings: &mut Vec<Finding>) {
    let mean = operations.attempts_per_call();
    if mean > 1.05 {
        // One more attempt that saves its caller is what retries are for.
        let worked = findings.iter().any(|finding| finding.kind == "retry_worked");
        let storm = mean > if worked { 3.0 } else { 1.5 };
        findings.push(Finding {
            kind: if storm { "retry_storm" } else { "retries" }.into(),
            text: format!(
                "calls were repeated: {mean:.1} attempts on average, {} at the most",
                operations.most_attempts
            ),
            evidence: format!("the same method, path and query of one operation, seen again at {at}"),
            advice: storm.then(|| {
                "retry with back-off, jitter and a budget, so that a slow service is not asked more often".into()
            }),
        });
    }
    if operations.unsafe_repeats > 0 {
        findings.push(Finding {
            kind: "unsafe_retries".into(),
            text: format!("{} repeated calls were of methods that are not safe to repeat", operations.unsafe_repeats),
            evidence: format!("methods other than GET, HEAD, OPTIONS and TRACE, seen again at {at} (RFC 9110, 9.2.1)"),
            advice: Some("give these calls an idempotency key, or do not retry them".into()),
        });
    }
}

/// The kind of weakness that a broken run shows.
pub(super) fn class(experiment: &Experiment, ending: Ending, findings: &[Finding], recovered: bool) -> Option<Class> {
    if ending != Ending::Broken {
        return None;
    }
    let found = |kind: &str| findings.iter().any(|finding| finding.kind == kind);
    let delays = experiment.inject.faults.iter().any(|fault| matches!(fault, Fault::Latency(_) | Fault::Drop(_)));
    Some(if found("no_timeout") || (found("long_timeout") && delays) {
        Class::TimeoutMissing
    } else if found("retry_storm") {
        Class::RetryStorm
    } else if found("no_fallback") {
        Class::FallbackAbsent
    } else if found("spillover") {
        Class::Spillover
    } else if !recovered {
        Class::SlowRecovery
    } else {
        Class::Untriaged
    })
}

fn threshold_ms(experiment: &Experiment) -> Option<f64> {
    let thresholds = experiment.steady_state.iter().filter_map(|indicator| match indicator.measure {
        Measure::SlowRate { over: Threshold::Over(span), .. } => Some(span.get().as_secs_f64() * 1e3),
        _ => None,
    });
    thresholds.reduce(f64::min)
}

/// A timeout that leaves room for the rest of the answer: about five eighths of what is slow, in round figures.
fn advised(slow_ms: f64) -> Span {
    let room = slow_ms * 0.625;
    let step = if room >= 1000.0 {
        500.0
    } else if room >= 100.0 {
        100.0
    } else {
        10.0
    };
    Span::millis(((room / step).floor() * step).max(1.0) as u64)
}

fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The value at a quantile, by the nearest rank.
pub(super) fn quantile(values: &[f64], at: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = ((sorted.len() as f64 * at).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(rank).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::End;
    use crate::measure::operation::{Event, Met};
    use std::time::Duration;

    const DOCUMENT: &str = "
version: 1
experiment: slow
hypothesis: If inventory is slow, then orders are quick, because it has a timeout.
slice: { at: front }
inject: { at: inventory, faults: [{ latency: { delay: 2s } }] }
steady_state: [{ slow_rate: { over: 800ms, max_increase: 5pp } }]
";

    fn kinds(events: &[Event]) -> Vec<String> {
        let (experiment, _) = Experiment::parse("slow.yaml", DOCUMENT, &|_| None).unwrap();
        let mut operations = Operations::default();
        events.iter().for_each(|event| operations.hear(*event));
        find(&experiment, &operations, &[]).into_iter().map(|finding| finding.kind).collect()
    }

    fn call(op: u128, met: Met) -> Event {
        Event::Call { op, call: 1, unsafe_method: false, met }
    }

    fn over(op: u128, failed: bool) -> Event {
        Event::Operation { op, failed, end: End::Complete, total: Duration::from_secs(1) }
    }

    #[test]
    fn what_callers_did_names_the_weakness_or_the_strength() {
        let two = Duration::from_secs(2);
        let waited = Met::Waited { asked: two, applied: two };
        let left = |ms| Met::Left { asked: two, after: Duration::from_millis(ms) };
        assert_eq!(kinds(&[call(1, waited), over(1, false)]), ["no_timeout"]);
        assert_eq!(kinds(&[call(1, left(300)), over(1, false)]), ["timeout_worked", "fallback_worked"]);
        assert_eq!(kinds(&[call(1, left(1500)), over(1, false)]), ["long_timeout", "fallback_worked"]);
        assert_eq!(kinds(&[call(1, Met::Released), over(1, false)]), ["still_waiting"], "it may have just come");
        assert_eq!(kinds(&[call(1, waited), call(2, Met::Released), over(1, false)]), ["no_timeout"]);
        assert_eq!(kinds(&[call(1, Met::Error(503)), over(1, false)]), ["fallback_worked"]);
        assert_eq!(kinds(&[call(1, Met::Cut), over(1, true)]), ["no_fallback"]);
        let thrice = [call(1, Met::Cut), call(1, Met::Cut), call(1, Met::Cut), over(1, true)];
        assert_eq!(kinds(&thrice), ["no_fallback", "retry_storm"]);
        let saved = |attempts: usize| {
            let failed = std::iter::repeat_n(call(1, Met::Error(503)), attempts - 1);
            kinds(&failed.chain([call(1, Met::Nothing), over(1, false)]).collect::<Vec<_>>())
        };
        assert_eq!(saved(2), ["retry_worked", "retries"]);
        assert_eq!(saved(4), ["retry_worked", "retry_storm"]);
        assert_eq!(kinds(&[call(1, Met::Nothing), over(1, false)]), [""; 0]);
    }

    #[test]
    fn advice_and_figures_are_round() {
        assert_eq!(advised(800.0), Span::millis(500));
        assert_eq!(advised(5000.0), Span::secs(3));
        assert_eq!(advised(50.0), Span::millis(30));
    }
}
