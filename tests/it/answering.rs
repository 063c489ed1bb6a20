//! Faults that answer, delay and shape a request, as they look on the wire.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Version};
use pratfall::experiment::Experiment;
use pratfall::experiment::limits::Limits;
use pratfall::fault::{Fault, Sheet};
use pratfall::measure::operation::Operations;
use pratfall::measure::{Note, Tally};
use pratfall::proxy::config::Scheme;
use tokio::sync::{Barrier, Notify};

use crate::support::h2::{nothing, whole};
use crate::support::stage::{limits, matching, target};
use crate::support::{H2Origin, Origin, Stage, everybody, get, listener, ok, until};

/// The same with the files that it names, each with its content.
fn with_files(fault: &str, files: &[(&str, &str)]) -> Experiment {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).expect("it can be written");
    }
    let mut experiment = everybody(fault);
    assert_eq!(experiment.read_files(folder.path()), []);
    experiment
}

/// The largest distance between the share of values up to each and what it should be (Kolmogorov and Smirnov).
fn distance(mut values: Vec<f64>, below: impl Fn(f64) -> f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let far = |(i, x): (usize, &f64)| f64::max((i as f64 + 1.0) / n - below(*x), below(*x) - i as f64 / n);
    values.iter().enumerate().map(far).fold(0.0, f64::max)
}

#[tokio::test]
async fn drawn_delays_are_those_of_the_seed_and_nobody_waits_for_less() {
    const CALLS: usize = 200;
    let origin = Origin::well().await;
    let mut asked: Vec<Vec<f64>> = Vec::new();
    for workers in [1, 1] {
        let stage = Stage::start(vec![listener("front", origin.address)], workers).await;
        let mut run = stage.enroll(everybody("latency: { distribution: uniform, min: 1ms, max: 6ms }"));
        let _injection = run.inject();
        let mut caller = stage.front().await;
        let begun = tokio::time::Instant::now();
        for _ in 0..CALLS {
            assert_eq!(caller.ask(get("/", "")).await.text(), "hello");
        }
        let took = begun.elapsed().as_secs_f64() * 1e3;
        let all = |operations: &Operations| operations.waited == CALLS as u64;
        let tally = run.tally("all have waited", |tally| all(&tally.operations)).await;
        let operations = &tally.operations;
        let pairs = operations.asked_ms.iter().zip(&operations.applied_ms);
        assert!(pairs.clone().all(|(asked, applied)| applied >= asked), "somebody waited for less");
        assert!(took >= operations.asked_ms.iter().sum(), "and so did the caller");
        // 1.628 / sqrt(n): larger in 1 % of all samples that are as they should be (Smirnov 1948).
        let d = distance(operations.asked_ms.clone(), |ms| (ms - 1.0) / 5.0);
        assert!(d < 1.628 / (CALLS as f64).sqrt(), "{d}");
        asked.push(operations.asked_ms.clone());
    }
    assert_eq!(asked[0], asked[1], "the same seed, the same delays");
}

#[tokio::test]
async fn a_measured_delay_is_one_of_those_in_the_file() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let mut run = stage.enroll(with_files("latency: { histogram: delays.csv }", &[("delays.csv", "3ms,2\n7ms,1\n")]));
    let _injection = run.inject();
    let mut caller = stage.front().await;
    for _ in 0..30 {
        caller.ask(get("/", "")).await;
    }
    let tally = run.tally("all have waited", |tally| tally.operations.waited == 30).await;
    let short = tally.operations.asked_ms.iter().filter(|asked| **asked == 3.0).count();
    let long = tally.operations.asked_ms.iter().filter(|asked| **asked == 7.0).count();
    assert!(short + long == 30 && short > long && long > 0, "{short} and {long}");
}

#[tokio::test]
async fn a_grpc_error_is_one_headers_frame_that_ends_the_stream() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let mut run = stage.enroll(everybody("error: { grpc: UNAVAILABLE, message: '100 % asleep' }"));
    let _injection = run.inject();
    // By hand, because libraries do not tell an empty DATA frame from none.
    let mut caller = stage.front().await;
    caller.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00").await;
    // POST http /shop.Ranker/Rank, authority a, content-type application/grpc; END_STREAM and END_HEADERS.
    let block = b"\x83\x86\x04\x11/shop.Ranker/Rank\x01\x01a\x0f\x10\x10application/grpc";
    caller.send([&[0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1][..], block].concat()).await;
    // PING comes back behind everything that was said of the stream.
    let mut frames = Vec::new();
    let mut asked = false;
    loop {
        let head = caller.exactly(9).await;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let payload = caller.exactly(length).await;
        match (head[3], head[8]) {
            (6, _) => break,
            (kind, 1) => frames.push((kind, head[4], payload)),
            _ => {}
        }
        if !asked && !frames.is_empty() {
            asked = true;
            caller.send(b"\x00\x00\x08\x06\x00\x00\x00\x00\x00pratfall").await;
        }
    }
    let [(kind, flags, _)] = frames.as_slice() else { panic!("{frames:?}") };
    assert_eq!((*kind, flags & 5), (1, 5), "HEADERS with END_STREAM and END_HEADERS");
    // The same as a library reads it.
    let request = Request::post("http://a/shop.Ranker/Rank").header("content-type", "application/grpc+proto");
    let answer = stage.h2("front").await.send(request.body(whole("\0\0\0\0\0")).expect("a request")).await;
    let answer = answer.expect("an answer");
    let field = |name: &str| answer.headers().get(name).map(|value| value.to_str().expect("text"));
    assert_eq!((answer.status().as_u16(), field("grpc-status")), (200, Some("14")));
    assert_eq!(
        (field("grpc-message"), field("content-type")),
        (Some("100 %25 asleep"), Some("application/grpc+proto"))
    );
    assert_eq!((field("content-length"), field("x-pratfall")), (None, Some("R-test; fault=error")));
    run.tally("both are told", |tally| tally.noted(Note::Faulted) == 2).await;
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn an_error_from_a_file_is_its_bytes_and_says_what_they_are() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let busy = "{ \"error\": \"busy\" }\n";
    let fault = "error: { status: 429, headers: { retry-after: '2' }, body_file: busy.json }";
    let run = stage.enroll(with_files(fault, &[("busy.json", busy)]));
    let _injection = run.inject();
    let answer = stage.front().await.ask(get("/", "accept: text/plain\r\n")).await;
    assert_eq!((answer.status(), answer.text().as_str()), (429, busy));
    assert_eq!(answer.field("content-type").as_deref(), Some("application/json"));
    assert_eq!(answer.field("retry-after").as_deref(), Some("2"));
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn an_error_without_a_body_is_said_as_the_caller_asks() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let run = stage.enroll(everybody("error: { status: 503 }"));
    let _injection = run.inject();
    let mut caller = stage.front().await;
    let (json, text) = ("application/json", "text/plain; charset=utf-8");
    for (accept, kind, body) in [
        ("accept: application/json\r\n", Some(json), r#"{"error":"Service Unavailable","status":503}"#),
        ("accept: text/html, */*\r\n", Some(text), "Service Unavailable\n"),
        ("accept: */*\r\n", None, ""),
        ("", None, ""),
    ] {
        let answer = caller.ask(get("/", accept)).await;
        assert_eq!((answer.status(), answer.text().as_str()), (503, body));
        assert_eq!(answer.field("content-type").as_deref(), kind, "{accept}");
        // On HEAD the same head, on either version, and nothing behind it.
        caller.send(get("/", accept).strip_prefix(b"GET").map(|rest| [b"HEAD", rest].concat()).expect("a GET")).await;
        let head = caller.answer(true).await;
        let length = Some(body.len().to_string()).filter(|_| !body.is_empty());
        assert_eq!(head.field("content-length"), length, "{accept}");
        assert_eq!(head.field("content-type").as_deref(), kind, "{accept}");
    }
    let head = Request::head("http://a/").header("accept", json).body(nothing()).expect("a request");
    let answer = stage.h2("front").await.send(head).await.expect("an answer");
    assert_eq!(answer.headers()["content-length"], "44");
    assert!(http_body::Body::is_end_stream(answer.body()));
}

#[tokio::test]
async fn fields_are_changed_on_their_way_up_or_down_and_the_others_stay() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\netag: 1\r\nvia: a\r\ncache-control: max-age=9\r\nvia: b\r\n\r\nok",
    )
    .await;
    let stage = Stage::before(origin.address).await;
    let asked = "etag: 1\r\nx-tier: a\r\nvia: a\r\nx-tier: b\r\nvia: b\r\n";
    {
        let mut run =
            stage.enroll(everybody("headers: { set: { x-tier: gold, host: other.example }, remove: [etag] }"));
        let _injection = run.inject();
        let answer = stage.front().await.ask(get("/", asked)).await;
        assert_eq!((answer.text().as_str(), answer.field("x-pratfall")), ("ok", None), "the upstream said so");
        let seen = origin.last();
        assert_eq!((seen.all("x-tier"), seen.all("via"), seen.field("etag")), (vec!["gold".into()], both(), None));
        assert_eq!(seen.field("host").as_deref(), Some("other.example"));
        stage.h2("front").await.get("/h2").await.expect("an answer");
        assert_eq!(origin.last().field("host").as_deref(), Some("other.example"), "over h2");
        let tally = run.tally("both are told", |tally| tally.operations.faulted == 2).await;
        assert!(tally.operations.exposed().all(|operation| operation.errors == 0), "nothing failed");
    }
    let run =
        stage.enroll(everybody("headers: { set: { cache-control: no-store }, remove: [etag], direction: response }"));
    let _injection = run.inject();
    let answer = stage.front().await.ask(get("/", asked)).await;
    assert_eq!(answer.all("cache-control"), ["no-store"]);
    assert_eq!((answer.all("via"), answer.field("etag"), answer.text().as_str()), (both(), None, "ok"));
    assert_eq!(origin.last().all("x-tier"), ["a", "b"], "the request is as it came");
    let (answer, body) = stage.h2("front").await.get("/").await.expect("an answer");
    assert_eq!((answer.headers()["cache-control"].as_bytes(), body), (&b"no-store"[..], Bytes::from("ok")));
}

fn both() -> Vec<String> {
    vec!["a".to_owned(), "b".to_owned()]
}

#[tokio::test]
async fn an_overload_takes_as_many_at_one_moment_as_it_says_over_all_workers() {
    // The answers come in two pieces: a place is taken to the last byte.
    let more = Arc::new(Notify::new());
    let waits = more.clone();
    let origin = Origin::scripted(move |mut visit| {
        let waits = waits.clone();
        async move {
            while visit.request().await.is_some() {
                visit.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na").await;
                waits.notified().await;
                visit.wire.send("b").await;
            }
        }
    })
    .await;
    let stage = Stage::start(vec![listener("front", origin.address)], 2).await;
    let mut run = stage.enroll(everybody("overload: { in_flight: 2 }"));
    let _injection = run.inject();
    let mut taken = [stage.front().await, stage.front().await];
    for caller in &mut taken {
        caller.send(get("/", "")).await;
        caller.head().await.expect("a head");
    }
    for _ in 0..3 {
        let away = stage.front().await.ask(get("/", "")).await;
        assert_eq!((away.status(), away.field("retry-after")), (503, None));
        assert_eq!(away.field("x-pratfall").as_deref(), Some("R-test; fault=overload"));
    }
    more.notify_one();
    let mut caller = stage.front().await;
    let mut third = None;
    for _ in 0..5000 {
        caller.send(get("/", "")).await;
        let head = caller.head().await.expect("a head");
        if head.status() == 200 {
            third = Some(head);
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert_eq!(third.expect("there is room").field("x-pratfall"), None);
    more.notify_one();
    more.notify_one();
    let tally = run.tally("all are told", |tally| tally.noted(Note::SparedBelowLimit) == 3).await;
    assert!(tally.noted(Note::Faulted) >= 3, "those that were turned away, and no others");
    assert_eq!(tally.noted(Note::Faulted) + 3, tally.noted(Note::Eligible));
}

#[tokio::test]
async fn an_overload_turns_away_what_is_above_its_rate_as_each_protocol_says_it() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let run = stage.enroll(everybody("overload: { rate: 2/h, status: 429 }"));
    let _injection = run.inject();
    let mut caller = stage.front().await;
    let answer = caller.ask(get("/", "")).await;
    assert_eq!((answer.status(), answer.field("x-pratfall")), (200, None));
    let away = caller.ask(get("/", "accept: application/json\r\n")).await;
    assert_eq!((away.status(), away.text().as_str()), (429, r#"{"error":"Too Many Requests","status":429}"#));
    let wait: u64 = away.field("retry-after").expect("it is known").parse().expect("seconds");
    assert!((1..=1800).contains(&wait), "{wait}");
    let call = Request::post("http://a/shop.Ranker/Rank").header("content-type", "application/grpc");
    let h2 = stage.h2("front").await;
    let away = h2.send(call.body(whole("\0\0\0\0\0")).expect("a request")).await.expect("an answer");
    assert_eq!((away.status().as_u16(), away.headers()["grpc-status"].as_bytes()), (200, &b"14"[..]));
    assert_eq!(away.headers()["x-pratfall"], "R-test; fault=overload");
    assert_eq!(origin.asked(), 1);
}

#[tokio::test]
async fn every_example_of_the_documents_meets_a_call_and_lets_go_of_it() {
    // Longer than any example lets through at once.
    let origin = Origin::replying(|_| ok(&"a".repeat(64 << 10))).await;
    let stage = Stage::before(origin.address).await;
    let files = [("delays.csv", "250ms,12\n1s\n"), ("busy.json", "{}")];
    let mut injected = 0;
    for example in Sheet::ALL.iter().flat_map(|sheet| sheet.examples) {
        let value = serde_yaml::from_str::<serde_json::Value>(example).expect("YAML");
        let fault: Fault = serde_json::from_value(value).expect("a fault");
        if fault.not_yet().is_some() || fault.meets_connections() {
            continue;
        }
        injected += 1;
        let bites = fault.kind() != "overload"; // its example takes one call
        let mut run = stage.enroll(with_files(example, &files));
        let injection = run.inject();
        let mut caller = stage.front().await;
        caller.send(get("/", "")).await;
        let noted = if bites { Note::Faulted } else { Note::SparedBelowLimit };
        if fault.meets_bodies() {
            // What becomes of a body is told at its end, and some only end when they are let go.
            let mut answer = caller.head().await.unwrap_or_else(|| panic!("{example}: no head"));
            drop(injection);
            caller.body(&mut answer).await;
            let told = |tally: &Tally| tally.noted(noted) + tally.noted(Note::SparedEnded) == 1;
            run.tally(example, told).await;
            continue;
        }
        run.tally(example, |tally| tally.noted(noted) == 1).await;
        drop(injection);
        caller.rest_of_one().await;
    }
    assert!(injected >= 12, "only {injected} were injected");
}

/// Limits under which more methods may be sent twice.
pub(crate) fn twice(methods: &[Method]) -> Arc<Limits> {
    Arc::new(Limits { duplicate_methods: methods.to_vec(), ..limits() })
}

#[tokio::test]
async fn a_request_goes_up_twice_the_same_and_its_caller_sees_one_answer() {
    let count = Arc::new(Mutex::new(0));
    let counted = count.clone();
    let origin = Origin::replying(move |_| {
        let mut count = counted.lock().expect("no test panics with it");
        *count += 1;
        ok(&count.to_string())
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let mut run = stage.enroll(everybody("duplicate: {}"));
    let _injection = run.inject();
    let mut caller = stage.front().await;
    for request in [get("/a?b", "x-a: 1\r\nx-b: 2\r\nx-a: 3\r\n"), b"DELETE /a HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()] {
        let answer = caller.ask(request).await;
        assert!(["1", "2", "3"].contains(&answer.text().as_str()), "{}", answer.text());
    }
    origin.until_asked(3).await;
    let seen = origin.seen();
    let gets: Vec<_> = seen.iter().filter(|asked| asked.start() == "GET /a?b HTTP/1.1").collect();
    assert_eq!(gets.len(), 2);
    assert_eq!(gets[0].head, gets[1].head, "byte for byte");
    assert_eq!(seen.iter().filter(|asked| asked.start() == "DELETE /a HTTP/1.1").count(), 1, "not a safe method");
    // A caller that waits for nothing more is not answered twice.
    let answer = caller.ask(get("/last", "")).await;
    assert_eq!((answer.status(), caller.is_silent()), (200, true));
    origin.until_asked(5).await;
    let told = |note| run.tally.noted(note);
    assert_eq!(told(Note::Faulted), 0);
    let tally = run.tally("all are told", |tally| tally.noted(Note::Faulted) == 2).await;
    assert_eq!(tally.noted(Note::SparedNotRepeatable), 1);
}

#[tokio::test]
async fn nobody_waits_for_the_second_answer_and_halt_ends_it() {
    let origin = Origin::scripted(|mut visit| async move {
        let first = visit.number == 0;
        while visit.request().await.is_some() {
            if !first {
                return visit.ended().await;
            }
            visit.wire.send(ok("first")).await;
        }
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let run = stage.enroll(everybody("duplicate: {}"));
    let injection = run.inject();
    let mut caller = stage.front().await;
    assert_eq!(caller.ask(get("/", "")).await.text(), "first");
    origin.until_asked(2).await;
    drop(injection);
    origin.until_ended(1).await;
}

#[tokio::test]
async fn early_hints_are_said_once() {
    let both = Arc::new(Barrier::new(2));
    let origin = Origin::scripted(move |mut visit| {
        let both = both.clone();
        async move {
            visit.request().await.expect("it is asked");
            visit.wire.send("HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n").await;
            both.wait().await;
            visit.wire.send(ok("hello")).await;
        }
    })
    .await;
    let mut front = listener("front", origin.address);
    front.early_hints = true;
    let stage = Stage::start(vec![front], 1).await;
    let run = stage.enroll(everybody("duplicate: {}"));
    let _injection = run.inject();
    let mut caller = stage.front().await;
    caller.send(get("/", "")).await;
    let statuses = [caller.head().await, caller.head().await].map(|head| head.expect("a head").status());
    assert_eq!(statuses, [103, 200]);
}

#[tokio::test]
async fn an_upload_goes_up_twice_where_the_limits_allow_it_and_it_is_small() {
    let origin = Origin::replying(|request| ok(&request.body.len().to_string())).await;
    let h2_origin = H2Origin::replying(|asked| async move { http::Response::new(whole(asked.body)) }).await;
    let mut front = listener("front", origin.address);
    front.early_hints = true;
    let mut h2c = listener("h2c", h2_origin.address);
    h2c.upstream = Some(target(Scheme::H2c, h2_origin.address));
    let stage = Stage::start(vec![front, h2c], 1).await;
    {
        let mut run = stage.enroll_with(everybody("duplicate: {}"), |terms| terms.limits = twice(&[Method::POST]));
        let _injection = run.inject();
        let mut caller = stage.front().await;
        let sized = |length: usize| {
            let head = format!("POST /sized HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
            [head.into_bytes(), vec![b'a'; length]].concat()
        };
        let chunked =
            b"POST /chunked HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let expects = b"POST /expects HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nab";
        assert_eq!(caller.ask(sized(65_536)).await.text(), "65536");
        assert_eq!(caller.ask(sized(65_537)).await.text(), "65537");
        assert_eq!(caller.ask(chunked).await.text(), "5");
        caller.send(expects).await;
        assert_eq!(caller.head().await.expect("an interim answer").status(), 100);
        assert_eq!(caller.answer(false).await.text(), "2");
        origin.until_asked(7).await;
        let seen = origin.seen();
        let bodies = |path: &str, body: &[u8]| {
            let same = seen.iter().filter(|asked| asked.start().contains(path) && asked.body == body);
            same.count()
        };
        assert_eq!((bodies("/sized", &[b'a'; 65_536]), bodies("/sized", &[b'a'; 65_537])), (2, 1));
        assert_eq!((bodies("/chunked", b"abcde"), bodies("/expects", b"ab")), (2, 2));
        let tally = run.tally("all are told", |tally| tally.noted(Note::Faulted) == 3).await;
        assert_eq!(tally.noted(Note::SparedTooLarge), 1);
    }
    // A call by gRPC has no length; over HTTP/2 on both sides.
    let mut experiment = everybody("duplicate: {}");
    experiment.slice.at = "h2c".to_owned();
    experiment.inject.at = "h2c".to_owned();
    let run = stage.enroll_with(experiment, |terms| terms.limits = twice(&[Method::POST]));
    let _injection = run.inject();
    let call = Request::post("http://a/shop.Ranker/Rank").header("content-type", "application/grpc");
    let answer = stage.h2("h2c").await.send(call.body(whole("\0\0\0\0\0")).expect("a request")).await;
    assert_eq!(answer.expect("an answer").version(), Version::HTTP_2);
    let asked = || h2_origin.asked.lock().expect("no test panics with it").clone();
    until("it went up twice", || asked().len() == 2).await;
    assert!(asked().iter().all(|one| one.body == "\0\0\0\0\0" && one.headers["content-type"] == "application/grpc"));
}

#[tokio::test]
async fn an_upgrade_and_what_is_answered_before_it_is_whole_go_up_once() {
    let origin = Origin::scripted(|mut visit| async move {
        while let Some(head) = visit.head().await {
            visit.remember(&head);
            visit.wire.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await;
            if head.start().starts_with("POST") {
                return visit.ended().await;
            }
        }
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let mut run = stage.enroll_with(everybody("duplicate: {}"), |terms| terms.limits = twice(&[Method::POST]));
    let _injection = run.inject();
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\n";
    assert_eq!(stage.front().await.ask(get("/", upgrade)).await.status(), 403);
    let mut caller = stage.front().await;
    caller.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc").await;
    assert_eq!(caller.answer(false).await.status(), 403);
    let spared = |tally: &Tally| {
        (tally.noted(Note::SparedNotRepeatable), tally.noted(Note::SparedTooLarge), tally.noted(Note::Faulted))
    };
    run.tally("both are spared", |tally| spared(tally) == (1, 1, 0)).await;
    assert_eq!(origin.asked(), 2);
}

#[tokio::test]
async fn a_duplicate_of_a_held_call_is_held_as_well() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let mut experiment = everybody("duplicate: {} }, { error: { status: 418 }");
    experiment.inject.matches = matching("/tea");
    let run = stage.enroll(experiment);
    let _injection = run.inject();
    let mut caller = stage.front().await;
    assert_eq!(caller.ask(get("/tea", "")).await.status(), 418);
    assert_eq!(caller.ask(get("/", "")).await.text(), "hello");
    assert_eq!(origin.asked(), 1, "both met the error");
}
