//! Which of the treated calls meet the fault.

use std::collections::BTreeMap;
use std::sync::Arc;

use pratfall::experiment::By;
use pratfall::experiment::glob::PathGlob;
use pratfall::experiment::limits::{Limits, Protected};
use pratfall::measure::{Note, Phase};
use pratfall::units::{Percent, Seed};

use crate::support::h2::nothing;
use crate::support::stage::{limits, matching, meaning};
use crate::support::{Origin, Run, Stage, everybody, experiment, get, listener};

fn share(text: &str) -> Percent {
    text.parse().expect("a share")
}

/// A mark of the treatment, as the application would pass it on.
async fn marks(stage: &Stage, front: &Origin, count: usize) -> Vec<String> {
    let mut caller = stage.front().await;
    let mut marks = Vec::new();
    for n in 0..count {
        caller.ask(get("/", &format!("x-request-id: r{n}\r\n"))).await;
        marks.push(front.last().field("baggage").expect("everybody is treated"));
    }
    marks
}

async fn call(stage: &Stage, target: &str, mark: &str) -> u16 {
    stage.call("inventory").await.ask(get(target, &format!("baggage: {mark}\r\n"))).await.status()
}

fn at_inventory(stage: &Stage, change: impl FnOnce(&mut pratfall::experiment::Inject)) -> Run {
    let mut experiment = everybody("error: { status: 503 }");
    experiment.inject.at = "inventory".to_owned();
    change(&mut experiment.inject);
    stage.enroll(experiment)
}

#[tokio::test]
async fn only_the_first_attempts_meet_the_fault_and_other_calls_are_no_attempts() {
    let (front, inventory) = (Origin::well().await, Origin::well().await);
    let stage = Stage::between(front.address, inventory.address).await;
    let mut run = at_inventory(&stage, |inject| inject.attempts = Some(1));
    let _injection = run.inject();
    let marks = marks(&stage, &front, 2).await;
    for mark in &marks {
        let mut met = Vec::new();
        for target in ["/stock/7", "/stock/7", "/stock/8", "/stock/7?x=1", "/stock/7", "/stock/8"] {
            met.push(call(&stage, target, mark).await);
        }
        assert_eq!(met, [503, 200, 503, 503, 200, 200]);
    }
    let tally = run.tally("all are told", |tally| tally.noted(Note::SparedAttempts) == 6).await;
    assert_eq!((tally.operations.most_attempts, tally.operations.faulted), (3, 6));
}

#[tokio::test]
async fn where_slice_and_fault_share_a_listener_the_key_tells_what_is_an_attempt() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let mut experiment = everybody("error: { status: 503 }");
    experiment.slice.by = "header:x-request-id".parse::<By>().expect("a key");
    experiment.inject.attempts = Some(1);
    let mut run = stage.enroll(experiment);
    let _injection = run.inject();
    let mut caller = stage.front().await;
    let mut met = Vec::new();
    for (target, id) in [("/a", "1"), ("/a", "1"), ("/a", "2"), ("/b", "1"), ("/a", "2"), ("/a", "1")] {
        met.push(caller.ask(get(target, &format!("x-request-id: {id}\r\n"))).await.status());
    }
    assert_eq!(met, [503, 200, 503, 503, 200, 200]);
    run.tally("retries are seen", |tally| tally.operations.most_attempts == 3).await;
}

#[tokio::test]
async fn a_share_of_the_calls_meets_the_fault_and_the_same_ones_again() {
    let (front, inventory) = (Origin::well().await, Origin::well().await);
    let stage = Stage::between(front.address, inventory.address).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let run = at_inventory(&stage, |inject| inject.share = share("50%"));
        let _injection = run.inject();
        let mut met = Vec::new();
        for mark in marks(&stage, &front, 100).await {
            met.push(call(&stage, "/stock", &mark).await);
        }
        seen.push(met);
    }
    assert_eq!(seen[0], seen[1], "the same seed and the same trace ids");
    let faulted = seen[0].iter().filter(|status| **status == 503).count();
    // Five standard errors of a binomial with n = 100.
    assert!(faulted.abs_diff(50) <= 25, "{faulted}");
}

#[tokio::test]
async fn calls_that_are_not_meant_and_protected_ones_are_spared_and_counted() {
    let (front, inventory) = (Origin::well().await, Origin::well().await);
    let stage = Stage::between(front.address, inventory.address).await;
    let protect = |at: &str| Protected { at: at.to_owned(), path: PathGlob::new("/healthz/**").expect("a pattern") };
    let mut experiment = everybody("error: { status: 503 }");
    experiment.inject.at = "inventory".to_owned();
    experiment.inject.matches = matching("/**");
    let protected = Limits { protect: vec![protect("front"), protect("inventory")], ..limits() };
    let mut run = stage.enroll_with(experiment, |terms| terms.limits = Arc::new(protected));
    let injection = run.inject();
    stage.front().await.ask(get("/healthz/live", "")).await;
    assert_eq!(front.last().field("baggage"), None, "it is in no arm");
    let mark = marks(&stage, &front, 1).await.remove(0);
    assert_eq!(call(&stage, "/stock", &mark).await, 503);
    for path in ["/healthz", "/healthz/deep?x", "/%68ealthz"] {
        assert_eq!(call(&stage, path, &mark).await, 200, "{path}");
    }
    run.tally("they are counted", |tally| {
        (tally.noted(Note::Protected), tally.noted(Note::SparedProtected), tally.noted(Note::Faulted)) == (1, 3, 1)
    })
    .await;
    drop((injection, run));

    let mut run = at_inventory(&stage, |inject| inject.matches = matching("/stock/**"));
    let _injection = run.inject();
    let mark = marks(&stage, &front, 1).await.remove(0);
    assert_eq!((call(&stage, "/stock/7", &mark).await, call(&stage, "/price/7", &mark).await), (503, 200));
    run.tally("it is counted", |tally| tally.noted(Note::SparedNoMatch) == 1).await;
}

#[tokio::test]
async fn what_the_limits_do_not_allow_is_not_injected_whoever_asks() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    for (faults, status) in [(vec!["latency"], 200), (vec![], 200), (vec!["error"], 503)] {
        let allowed = Limits { faults: faults.iter().map(|kind| (*kind).to_owned()).collect(), ..limits() };
        let run = stage.enroll_with(everybody("error: { status: 503 }"), |terms| terms.limits = Arc::new(allowed));
        let _injection = run.inject();
        assert_eq!(stage.front().await.ask(get("/", "")).await.status(), status, "{faults:?}");
    }
}

#[tokio::test]
async fn no_more_are_held_than_the_limits_say_and_no_more_faulted_than_the_budget() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let few = Limits { max_held: 3, ..limits() };
    let mut run = stage.enroll_with(everybody("latency: { delay: 1h }"), |terms| terms.limits = Arc::new(few));
    let injection = run.inject();
    let mut held = Vec::new();
    for n in 1..=3 {
        let mut caller = stage.front().await;
        caller.send(get("/", "")).await;
        crate::support::until("it is held", || run.trial.held() == n).await;
        held.push(caller);
    }
    assert_eq!(stage.front().await.ask(get("/", "")).await.status(), 200);
    run.tally("one is spared", |tally| tally.noted(Note::SparedLimit) == 1).await;
    drop((injection, run));

    let mut run = stage.enroll_with(everybody("error: { status: 503 }"), |terms| terms.max_faulted = Some(2));
    drop(held);
    let _injection = run.inject();
    let mut caller = stage.front().await;
    let mut met = Vec::new();
    for _ in 0..4 {
        met.push(caller.ask(get("/", "")).await.status());
    }
    assert_eq!(met, [503, 503, 200, 200]);
    run.tally("two are spared", |tally| tally.noted(Note::SparedBudget) == 2).await;
}

#[tokio::test]
async fn the_same_seed_and_trace_choose_the_same_arm_on_every_worker() {
    let traces: Vec<String> = (1..=60u128)
        .map(|n| format!("traceparent: 00-{:032x}-00f067aa0ba902b7-01\r\n", n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c)))
        .collect();
    let mut all = Vec::new();
    for (workers, seed) in [(1, 7), (2, 7), (2, 8)] {
        let origin = Origin::well().await;
        let inventory = Origin::well().await;
        let stage =
            Stage::start(vec![listener("front", origin.address), listener("inventory", inventory.address)], workers)
                .await;
        let _run = stage.enroll_with(experiment("error: { status: 503 }"), |terms| terms.seed = Seed(seed));
        let mut arms = BTreeMap::new();
        // Two connections at a time are on different workers where there are two.
        let mut callers = [stage.front().await, stage.front().await];
        for round in 0..2 {
            for (n, trace) in traces.iter().enumerate() {
                callers[(n + round) % 2].ask(get("/", trace)).await;
                let baggage = origin.last().field("baggage").expect("half and half");
                let arm = if baggage.contains(".t.") { 't' } else { 'c' };
                assert_eq!(*arms.entry(trace.clone()).or_insert(arm), arm, "the same again");
            }
        }
        all.push(arms);
    }
    assert_eq!(all[0], all[1]);
    assert_ne!(all[0], all[2], "another seed chooses anew");
}

#[tokio::test]
async fn growing_the_treatment_moves_nobody_out_of_it() {
    let (origin, inventory) = (Origin::well().await, Origin::well().await);
    let stage = Stage::between(origin.address, inventory.address).await;
    let mut experiment = experiment("error: { status: 503 }");
    experiment.slice.treatment = vec![share("10%")];
    experiment.slice.control = share("20%");
    let run = stage.enroll(experiment);
    run.trial.begin(Phase::Inject);
    let mut caller = stage.front().await;
    let mut before = BTreeMap::new();
    for treatment in [0.1, 0.4] {
        run.trial.treat(treatment);
        for n in 0..60 {
            caller.ask(get("/", &format!("x-request-id: r{n}\r\n"))).await;
            let baggage = origin.last().field("baggage").unwrap_or_default();
            let arm = ["t", "c"].into_iter().find(|arm| baggage.contains(&format!(".{arm}.")));
            match before.insert(n, arm) {
                Some(Some("t")) => assert_eq!(arm, Some("t")),
                Some(Some("c")) => assert_eq!(arm, Some("c"), "control never changes"),
                _ => assert_ne!((treatment > 0.3).then_some(arm), Some(Some("c"))),
            }
        }
    }
}

/// Conditions, with a request that is meant and one that is not: method, target, fields.
const MEANT: [(&str, &str, &str); 14] = [
    ("{ method: [PUT, POST] }", "POST /a", "GET /a"),
    ("{ path: [/a, /b/**] }", "GET /b/c/d?x=1", "GET /bc"),
    ("{ path: /b/*/d }", "GET /b/c/d", "GET /b/c/e/d"),
    ("{ path_regex: '^/a/[0-9]+$' }", "GET /a/12?x=y", "GET /a/12x"),
    ("{ header: { x-tier: 'gold*' } }", "GET /a x-tier: golden", "GET /a x-tier: iron"),
    ("{ query: { v: '2' } }", "GET /a?w=1&v=2", "GET /a?v=22"),
    ("{ cookie: { beta: '1' } }", "GET /a cookie: a=b; beta=1", "GET /a cookie: beta=10"),
    ("{ host: '*.example' }", "GET /a", "GET /a host: shop.example.com"),
    ("{ caller: [127.0.0.0/8, 10.0.0.0/8] }", "GET /a", ""),
    ("{ caller: 10.0.0.0/8 }", "", "GET /a"),
    ("{ grpc: [shop.Ranker/Rank, shop.Cart/*] }", "POST /shop.Cart/Add", "POST /shop.Ranker/Ranks"),
    ("{ baggage: { tenant: acme } }", "GET /a baggage: who=me,tenant=acme;p=1", "GET /a baggage: tenant=acmes"),
    ("{ path: /a/**, not: { path: /a/health } }", "GET /a/b", "GET /a/health"),
    ("{ any: [{ header: { x-a: '1' } }, { path: /b }] }", "GET /c x-a: 1", "GET /c x-a: 2"),
];

/// Sends `METHOD target field: value` in one of the versions, with more fields before it.
async fn send(stage: &Stage, listener: &str, http2: bool, request: &str, fields: &[(&str, &str)]) -> u16 {
    let mut parts = request.splitn(3, ' ');
    let (method, target) = (parts.next().expect("a method"), parts.next().expect("a target"));
    let mut host = "shop.example";
    let mut all = fields.to_vec();
    match parts.next().and_then(|field| field.split_once(": ")) {
        Some(("host", value)) => host = value,
        Some(field) => all.push(field),
        None => {}
    }
    if http2 {
        let request = http::Request::builder().method(method).uri(format!("http://{host}{target}"));
        let request = all.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(nothing()).expect("a request");
        return stage.h2(listener).await.send(request).await.expect("an answer").status().as_u16();
    }
    let fields: String = all.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\n{fields}\r\n");
    stage.call(listener).await.ask(request).await.status()
}

#[tokio::test]
async fn a_match_means_the_same_at_the_slice_and_at_the_fault_in_both_versions_of_http() {
    let (front, inventory) = (Origin::well().await, Origin::well().await);
    let stage = Stage::between(front.address, inventory.address).await;
    for (conditions, meant, other) in MEANT {
        let both = [(meant, 503), (other, 200)].into_iter().filter(|(request, _)| !request.is_empty());
        let mut here = everybody("error: { status: 503 }");
        here.slice.matches = meaning(conditions);
        let run = stage.enroll(here);
        let injection = run.inject();
        for (request, status) in both.clone() {
            for http2 in [false, true] {
                let answer = send(&stage, "front", http2, request, &[]).await;
                assert_eq!(answer, status, "slice: {conditions} on {request}, {http2}");
            }
        }
        drop((injection, run));

        let mut there = everybody("error: { status: 503 }");
        there.inject.at = "inventory".to_owned();
        there.inject.matches = meaning(conditions);
        there.slice.by = By::Request;
        let run = stage.enroll(there);
        let _injection = run.inject();
        send(&stage, "front", false, "GET /", &[("x-request-id", "r1")]).await;
        for (request, status) in both {
            for http2 in [false, true] {
                let answer = send(&stage, "inventory", http2, request, &[("x-request-id", "r1")]).await;
                assert_eq!(answer, status, "fault: {conditions} on {request}, {http2}");
            }
        }
    }
}

#[tokio::test]
async fn the_same_seed_and_requests_meet_the_same_faults_with_one_worker_or_two() {
    let mut met = Vec::new();
    for (workers, seed) in [(1, 7), (2, 7), (2, 8)] {
        let (front, inventory) = (Origin::well().await, Origin::well().await);
        let listeners = vec![listener("front", front.address), listener("inventory", inventory.address)];
        let stage = Stage::start(listeners, workers).await;
        let mut experiment = experiment("error: { status: 503 }");
        experiment.inject.share = share("50%");
        experiment.inject.attempts = Some(2);
        let run = stage.enroll_with(experiment, |terms| terms.seed = Seed(seed));
        let _injection = run.inject();
        let (mut callers, mut calls) = (
            [stage.front().await, stage.front().await],
            [stage.call("inventory").await, stage.call("inventory").await],
        );
        let mut statuses = Vec::new();
        // A ramp of two steps; each request calls the same three times, on whichever worker.
        for treatment in [0.2, 0.6] {
            run.trial.treat(treatment);
            for n in 0..60 {
                let id = format!("x-request-id: r{n}-{treatment}\r\n");
                callers[n % 2].ask(get("/", &id)).await;
                for attempt in 0..3 {
                    statuses.push(calls[(n + attempt) % 2].ask(get("/stock", &id)).await.status());
                }
            }
        }
        let faulted = |range: std::ops::Range<usize>| statuses[range].iter().filter(|status| **status == 503).count();
        // The steps treat 12 and 36 of sixty; two attempts each, half of them.
        let (first, second) = (faulted(0..180), faulted(180..360));
        assert!((2..=24).contains(&first) && (22..=52).contains(&second), "{first} {second}");
        assert!(statuses.chunks(3).all(|attempts| attempts[2] == 200), "the third attempt is spared");
        met.push(statuses);
    }
    assert_eq!(met[0], met[1]);
    assert_ne!(met[0], met[2], "another seed chooses anew");
}

#[tokio::test]
async fn the_attempts_of_an_operation_are_one_unit_on_whichever_worker_they_come() {
    use pratfall::experiment::{Bounds, Measure};
    use pratfall::measure::{Arm, Budget, Tally};
    use pratfall::units::Span;
    let origin = Origin::well().await;
    let stage = Stage::start(vec![listener("front", origin.address)], 2).await;
    let mut experiment = everybody("error: { status: 503 }");
    let by: By = "header:x-request-id".parse().expect("a key");
    let deadline = Span::millis(300);
    experiment.slice.by = by.clone();
    experiment.inject.attempts = Some(1);
    experiment.steady_state[0].measure =
        Measure::FailedOperations { by, deadline, bounds: Bounds::default(), max_attempts: None };
    let mut run = stage.enroll(experiment);
    let harmed = Arc::new(Budget::new(9, tokio_util::sync::CancellationToken::new()));
    run.tally = Tally::new(2, None).joining(deadline.get(), harmed.clone());
    let _injection = run.inject();
    // Two connections at a time are on different workers.
    let mut callers = [stage.front().await, stage.front().await];
    let mut met = Vec::new();
    for (worker, id) in [(0, "1"), (1, "2"), (1, "1"), (0, "3"), (1, "3"), (0, "3")] {
        met.push(callers[worker].ask(get("/a", &format!("x-request-id: {id}\r\n"))).await.status());
    }
    assert_eq!(met, [503, 503, 200, 503, 200, 200], "the first attempt of each");
    callers[0].ask(get("/a", "")).await;
    let tally = run.tally("the deadline passes", |tally| {
        tally.units_of(Phase::Inject)[Arm::Treatment as usize].decided[0] == 3 && tally.noted(Note::Unkeyed) == 1
    });
    let counts = tally.await.units_of(Phase::Inject)[Arm::Treatment as usize];
    assert_eq!((counts.arrived, counts.bad[0], harmed.spent()), (3, 1.0, 1), "the second was not tried again");
    assert_eq!(run.tally.attempts(Phase::Inject, Arm::Treatment), Some((6, 3)));
}
