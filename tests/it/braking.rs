//! What keeps a fault small, and takes it off: budgets, probes, limits, a halt of a thousand, and panics of our own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pratfall::experiment::limits::Limits;
use pratfall::experiment::{Experiment, Guard};
use pratfall::fault::{Direction, Fault, Latency};
use pratfall::measure::{Arm, Note, Phase};
use pratfall::proxy::config::Scheme;
use pratfall::units::{Percent, Span};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRng, TestRunner};

use crate::support::stage::{limits, matching, target};
use crate::support::{H2Origin, Origin, Stage, everybody, get, listener, ok, until};

/// 503 for everybody, as far as the budget goes.
fn within_budget(rate: Option<&str>, per_caller: Option<u64>) -> Experiment {
    let mut experiment = everybody("error: { status: 503 }");
    let rate = rate.map(|rate| rate.parse().expect("a rate"));
    experiment.guards = vec![Guard::Faulted { max: None, rate, per_caller }];
    experiment
}

#[tokio::test]
async fn no_more_calls_are_faulted_than_the_rate_allows() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let mut run = stage.enroll(within_budget(Some("1/h"), None));
    let _injection = run.inject();
    let mut met = Vec::new();
    for _ in 0..2 {
        let mut caller = stage.front().await;
        met.push(caller.ask(get("/", "")).await.status());
        met.push(caller.ask(get("/", "")).await.status());
    }
    assert_eq!(met, [503, 200, 200, 200]);
    run.tally("the others are spared", |tally| tally.noted(Note::SparedBudget) == 3).await;
}

#[tokio::test]
async fn no_caller_meets_more_than_its_part_on_whatever_connection() {
    let origin = Origin::well().await;
    let mut front = listener("front", origin.address);
    front.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let stage = Stage::start(vec![front], 2).await;
    let mut run = stage.enroll(within_budget(None, Some(2)));
    let _injection = run.inject();
    for caller in ["192.0.2.1", "192.0.2.2"] {
        let mut met = Vec::new();
        for _ in 0..4 {
            let request = get("/", &format!("x-forwarded-for: {caller}\r\n"));
            met.push(stage.front().await.ask(request).await.status());
        }
        assert_eq!(met, [503, 503, 200, 200], "{caller}");
    }
    run.tally("two of each are spared", |tally| tally.noted(Note::SparedBudget) == 4).await;
}

#[tokio::test]
async fn health_probes_are_in_no_arm_unless_they_are_named() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let agent = "user-agent: kube-probe/1.31\r\n";
    let probes = [("/healthz", ""), ("/readyz?verbose", ""), ("/grpc.health.v1.Health/Check", ""), ("/home", agent)];
    let mut run = stage.enroll(everybody("error: { status: 503 }"));
    let injection = run.inject();
    let mut caller = stage.front().await;
    for (path, fields) in probes {
        assert_eq!(caller.ask(get(path, fields)).await.status(), 200, "{path}");
        assert_eq!(origin.last().field("baggage"), None, "{path}: it is in no arm");
    }
    assert_eq!(caller.ask(get("/home", "user-agent: curl/8.5\r\n")).await.status(), 503);
    let tally = run.tally("all are counted", |tally| tally.noted(Note::SparedProbe) == 4).await;
    let arrived = |phase| tally.sum(phase)[Arm::Treatment as usize].arrived;
    assert_eq!((arrived(Phase::Inject), tally.noted(Note::Faulted)), (1, 1));
    drop((injection, run));

    for at_the_slice in [true, false] {
        let mut experiment = everybody("error: { status: 503 }");
        let named = if at_the_slice { &mut experiment.slice.matches } else { &mut experiment.inject.matches };
        *named = matching("[/readyz, /healthz]");
        let run = stage.enroll(experiment);
        let _injection = run.inject();
        assert_eq!(caller.ask(get("/healthz", agent)).await.status(), 503, "it is named");
        assert_eq!(caller.ask(get("/livez", "")).await.status(), 200);
    }
}

#[tokio::test]
async fn a_treated_call_that_is_a_health_probe_is_spared_where_the_fault_waits() {
    let (front, inventory) = (Origin::well().await, Origin::well().await);
    let stage = Stage::between(front.address, inventory.address).await;
    let mut experiment = everybody("error: { status: 503 }");
    experiment.inject.at = "inventory".to_owned();
    let mut run = stage.enroll(experiment);
    let _injection = run.inject();
    stage.front().await.ask(get("/", "")).await;
    let mark = format!("baggage: {}\r\n", front.last().field("baggage").expect("it is treated"));
    let mut call = stage.call("inventory").await;
    assert_eq!(call.ask(get("/health", &mark)).await.status(), 200);
    assert_eq!(call.ask(get("/stock", &mark)).await.status(), 503);
    run.tally("one is spared", |tally| (tally.noted(Note::SparedProbe), tally.noted(Note::Faulted)) == (1, 1)).await;
}

#[tokio::test]
async fn a_thousand_held_requests_are_let_go_and_each_is_answered_once() {
    rlimit::increase_nofile_limit(8192).expect("a limit");
    let origin = H2Origin::replying(|_| async { http::Response::new(crate::support::h2::whole("hello")) }).await;
    let asked = || origin.asked.lock().expect("no test panics with it").len();
    let mut front = listener("front", origin.address);
    front.upstream = Some(target(Scheme::H2c, origin.address));
    let stage = Stage::start(vec![front], 2).await;
    let mut run = stage.enroll(everybody("latency: { delay: 1h }"));
    let injection = run.inject();
    let mut callers = Vec::new();
    for _ in 0..1000 {
        let mut caller = stage.front().await;
        caller.send(get("/", "")).await;
        callers.push(caller);
    }
    until("a thousand are held", || run.trial.held() == 1000).await;
    assert_eq!(asked(), 0);
    let mut late = stage.front().await;
    drop(injection);
    assert_eq!(late.ask(get("/late", "")).await.text(), "hello", "the fault is off at once");
    for caller in &mut callers {
        assert_eq!(caller.answer(false).await.text(), "hello");
    }
    assert_eq!((run.trial.held(), asked()), (0, 1001));
    run.tally("all were released", |tally| tally.operations.released == 1000).await;
}

/// A delay that no clock can count to, and that no document can have: the code of the fault panics on it.
fn panicking(direction: Direction) -> Experiment {
    let mut experiment = everybody("latency: { delay: 1s }");
    let latency = Latency { direction: Some(direction), ..Latency::constant(Span::from(Duration::MAX)) };
    experiment.inject.faults = vec![Fault::Latency(latency)];
    experiment
}

#[tokio::test]
async fn a_fault_that_panics_costs_the_run_and_not_the_request() {
    let origin = Origin::replying(|request| ok(&format!("{} {}", request.start(), request.text()))).await;
    let stage = Stage::before(origin.address).await;
    let mut held = stage.enroll(panicking(Direction::Request));
    let _injection = held.inject();
    let mut caller = stage.front().await;
    let mut other = stage.front().await;
    let upload = "POST /up HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    assert_eq!(caller.ask(upload).await.text(), "POST /up HTTP/1.1 abc", "it is forwarded whole");
    assert!(held.trial.failed() && !held.trial.is_injecting());
    for caller in [&mut caller, &mut other] {
        assert_eq!(caller.ask(get("/", "")).await.text(), "GET / HTTP/1.1 ", "its connection lives");
    }
    held.tally("the one call is told", |tally| tally.operations.over() == 1).await;
    drop(held);

    // On HTTP/2, where the others of the connection would go with it.
    let run = stage.enroll(panicking(Direction::Request));
    let _injection = run.inject();
    let h2 = stage.h2("front").await;
    let (one, two) = tokio::join!(h2.get("/1"), h2.get("/2"));
    assert_eq!((&one.unwrap().1[..], &two.unwrap().1[..]), (&b"GET /1 HTTP/1.1 "[..], &b"GET /2 HTTP/1.1 "[..]));
    drop(run);

    let run = stage.enroll(everybody("error: { status: 503 }"));
    let _injection = run.inject();
    assert_eq!(other.ask(get("/", "")).await.status(), 503, "the next run is none the worse");
}

#[tokio::test]
async fn a_fault_that_panics_behind_the_upstream_costs_one_exchange() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let run = stage.enroll(panicking(Direction::Response));
    let _injection = run.inject();
    let h2 = stage.h2("front").await;
    let (answer, _) = h2.get("/").await.expect("an answer");
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.headers()["x-pratfall"], "proxy; error=fault_failed");
    assert_eq!(origin.asked(), 1, "it is not sent twice");
    assert!(run.trial.failed());
    assert_eq!(h2.get("/").await.expect("the connection lives").1, "hello");
}

#[tokio::test]
async fn the_treatment_is_never_larger_than_the_limits_say_whoever_grows_it() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let none = Limits { max_slice: Some(Percent::from_ratio(0.0).unwrap()), ..limits() };
    let run = stage.enroll_with(everybody("error: { status: 503 }"), |terms| terms.limits = Arc::new(none));
    let _injection = run.inject();
    run.trial.treat(1.0);
    let mut caller = stage.front().await;
    for _ in 0..20 {
        assert_eq!(caller.ask(get("/", "")).await.status(), 200);
    }
}

/// A request and the answer to it.
#[derive(Clone)]
struct Exchange {
    request: Vec<u8>,
    answer: Vec<u8>,
    to_head: bool,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n{}", self.request.escape_ascii(), self.answer.escape_ascii())
    }
}

fn fields() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "baggage: a=1, b=2;p",
        "Baggage: ,,",
        "baggage: pratfalls=1",
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "connection: keep-alive, x-hop",
        "x-hop: 1",
        "cookie: a=1; b=2",
        "te: trailers",
        "user-agent: kube-probe/1.31",
        "x-forwarded-for: 10.0.0.1",
        "x-empty:",
    ]);
    let drawn = "[A-Za-z][A-Za-z0-9-]{0,12}x: [!-~]([ -~]{0,30}[!-~])?";
    prop::collection::vec(prop_oneof![known.prop_map(str::to_owned), drawn], 0..8)
        .prop_map(|lines| lines.iter().map(|line| format!("{line}\r\n")).collect())
}

/// A body, framed by its length or in chunks, with its head's last fields.
fn framed() -> impl Strategy<Value = Vec<u8>> {
    (prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..5), any::<bool>()).prop_map(
        |(pieces, chunked)| {
            if !chunked {
                let body = pieces.concat();
                return [format!("content-length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
            }
            let chunks =
                pieces.iter().map(|piece| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
            [b"transfer-encoding: chunked\r\n\r\n".to_vec(), chunks.collect::<Vec<_>>().concat(), b"0\r\n\r\n".to_vec()]
                .concat()
        },
    )
}

fn exchanges() -> impl Strategy<Value = Exchange> {
    let method = prop::sample::select(vec!["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"]);
    let target = "/([a-zA-Z0-9._~!$&'()*+,;=:@/-]|%[0-9A-F]{2}){0,30}(\\?[a-z0-9=&/?-]{0,20})?";
    let status = prop::sample::select(vec!["200 OK", "201 Created", "404 Not Found", "503 Not Now", "299 Odd"]);
    (method, target, fields(), framed(), status, fields(), framed()).prop_map(
        |(method, target, fields, body, status, answered, answer)| {
            let to_head = method == "HEAD";
            // A request without a body has no framing at all.
            let body = if matches!(method, "GET" | "HEAD" | "DELETE") { b"\r\n".to_vec() } else { body };
            let request = [format!("{method} {target} HTTP/1.1\r\nhost: a\r\n{fields}").as_bytes(), &body].concat();
            let date = "date: Sun, 29 Nov 2026 00:00:00 GMT\r\n";
            let mut answer = [format!("HTTP/1.1 {status}\r\n{date}{answered}").as_bytes(), &answer].concat();
            if to_head {
                let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head ends") + 4;
                answer.truncate(end);
            }
            Exchange { request, answer, to_head }
        },
    )
}

#[test]
fn whatever_is_in_no_arm_goes_up_and_comes_down_as_through_a_plain_proxy() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Config { cases: 200, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(Default::default()));
    let answer = Arc::new(Mutex::new(Vec::new()));
    let (origin, plain, tried, _run) = runtime.block_on(async {
        let script = answer.clone();
        let origin = Origin::replying(move |_| script.lock().unwrap().clone()).await;
        let (plain, tried) = (Stage::before(origin.address).await, Stage::before(origin.address).await);
        let mut experiment = everybody("latency: { delay: 1h }");
        experiment.slice.matches = matching("/nobody/asks/for/this/**");
        let run = tried.enroll(experiment);
        let injection = run.inject();
        (origin, plain, tried, (injection, run))
    });
    let through = |stage: &Stage, exchange: &Exchange| {
        runtime.block_on(async {
            let mut caller = stage.front().await;
            caller.send(&exchange.request).await;
            let answer = caller.answer(exchange.to_head).await;
            let asked = origin.last();
            [asked.head, asked.rest, asked.body, answer.head, answer.rest, answer.body]
        })
    };
    let text = |bytes: Vec<u8>| bytes.escape_ascii().to_string();
    let checked = runner.run(&exchanges(), |exchange| {
        answer.lock().unwrap().clone_from(&exchange.answer);
        let expected = through(&plain, &exchange);
        prop_assert_eq!(origin.asked() % 2, 1, "it came");
        let seen = through(&tried, &exchange);
        prop_assert_eq!(origin.asked() % 2, 0, "it came again");
        prop_assert!(seen == expected, "{:?}\nv\n{:?}", seen.map(text), expected.map(text));
        Ok(())
    });
    checked.unwrap_or_else(|error| panic!("{error}"));
}
