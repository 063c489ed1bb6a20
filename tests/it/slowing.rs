//! Bodies, uploads and tunnels that are slowed or held on their way: they go on when the fault goes, and end for both ends.

use std::time::Duration;

use http::Request;
use pratfall::measure::Note;
use pratfall::units::Span;

use crate::support::h2::{nothing, reset_code, whole};
use crate::support::{End, Message, Origin, Stage, everybody, get, listener, until};
use crate::tearing::{LARGE, lengthy, text};

#[tokio::test]
async fn a_stalled_body_goes_on_when_the_fault_goes() {
    let body = text(LARGE);
    let origin = Origin::answering(lengthy(&body)).await;
    let stage = Stage::before(origin.address).await;
    for fault in ["body: { stall_after: 1KiB }", "drop: { how: hang, at: { bytes: 1KiB } }"] {
        let mut run = stage.enroll(everybody(fault));
        let injection = run.inject();
        let mut caller = stage.front().await;
        caller.send(get("/", "")).await;
        let mut answer = caller.head().await.expect("the head goes out");
        assert!(caller.exactly(1024).await == body[..1024]);
        assert!(caller.is_silent() && run.trial.held() == 1);
        drop(injection);
        answer.body = caller.exactly(body.len() - 1024).await;
        assert!(answer.body == body[1024..]);
        run.tally("it was let go", |tally| tally.operations.released == 1 && tally.noted(Note::Faulted) == 1).await;
        assert_eq!(run.trial.held(), 0);
    }
}

#[tokio::test]
async fn a_body_that_had_not_come_to_its_cut_when_the_fault_goes_is_spared() {
    let (go, gone) = tokio::sync::watch::channel(false);
    let origin = Origin::scripted(move |mut visit| {
        let mut gone = gone.clone();
        async move {
            visit.request().await;
            visit.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await;
            gone.wait_for(|go| *go).await.expect("the test waits");
            visit.wire.send("world").await;
        }
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let mut run = stage.enroll(everybody("drop: { how: reset, at: { bytes: 7B } }"));
    let injection = run.inject();
    let mut caller = stage.front().await;
    caller.send(get("/", "")).await;
    caller.head().await.expect("the head goes out");
    assert_eq!(caller.exactly(5).await, b"hello");
    drop(injection);
    go.send(true).expect("the origin waits");
    assert_eq!(caller.exactly(5).await, b"world");
    let tally = run.tally("it is spared", |tally| tally.noted(Note::SparedEnded) == 1).await;
    assert_eq!((tally.noted(Note::Faulted), tally.operations.faulted), (0, 0));
}

#[tokio::test]
async fn an_error_that_is_slowed_is_still_an_error() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let mut run = stage.enroll(everybody("throttle: { rate: 1KiB/s } }, { error: { status: 503, body: asleep }"));
    let _injection = run.inject();
    let answer = stage.front().await.ask(get("/", "")).await;
    assert_eq!((answer.status(), answer.text().as_str()), (503, "asleep"));
    assert!(answer.field("x-pratfall").is_some());
    run.tally("it met an error", |tally| tally.operations.exposed().any(|operation| operation.errors == 1)).await;
}

#[tokio::test]
async fn a_slow_body_comes_at_once_when_the_fault_goes() {
    let body = text(200_000);
    let origin = Origin::answering(lengthy(&body)).await;
    let stage = Stage::before(origin.address).await;
    for fault in ["throttle: { rate: 100B/s }", "body: { drip: 5ms }", "latency: { delay: 1h, per: chunk }"] {
        let run = stage.enroll(everybody(fault));
        let injection = run.inject();
        let mut caller = stage.front().await;
        caller.send(get("/", "")).await;
        caller.head().await.expect("the head goes out");
        let first = if fault.contains("latency") { vec![] } else { caller.exactly(3).await };
        drop(injection);
        let rest = caller.exactly(body.len() - first.len()).await;
        assert!([first, rest].concat() == body, "{fault}");
    }
}

#[tokio::test]
async fn a_caller_that_leaves_a_stalled_body_frees_the_upstream() {
    let origin = Origin::scripted(|mut visit| async move {
        visit.request().await;
        visit.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhello").await;
        visit.ended().await;
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let mut run = stage.enroll(everybody("body: { stall_after: 2B }"));
    let _injection = run.inject();
    let mut caller = stage.front().await;
    caller.send(get("/", "")).await;
    caller.head().await.expect("the head goes out");
    caller.exactly(2).await;
    drop(caller);
    origin.until_ended(1).await;
    run.tally("it left", |tally| tally.operations.left_after_ms.len() == 1).await;
    until("nobody is held", || run.trial.held() == 0).await;
}

#[tokio::test]
async fn on_h2_a_caller_that_resets_a_stalled_stream_frees_the_upstream() {
    let origin = Origin::scripted(|mut visit| async move {
        visit.request().await;
        visit.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhello").await;
        visit.ended().await;
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let mut run = stage.enroll(everybody("drop: { how: hang, at: headers }"));
    let _injection = run.inject();
    let caller = stage.h2("front").await;
    let request = Request::get("http://shop.example/").body(nothing()).expect("a request");
    let answer = caller.send(request).await.expect("the head goes out");
    assert_eq!((answer.status(), run.trial.held()), (200.try_into().expect("a status"), 1));
    drop(answer);
    origin.until_ended(1).await;
    run.tally("it left", |tally| tally.operations.left_after_ms.len() == 1).await;
    assert_eq!(run.trial.held(), 0);
}

#[tokio::test]
async fn what_is_held_on_purpose_does_not_run_into_the_timeouts_of_the_listener() {
    let origin = Origin::well().await;
    let mut front = listener("front", origin.address);
    (front.timeouts.response, front.timeouts.body_stall) = (Span::millis(200), Span::millis(10));
    let stage = Stage::start(vec![front], 1).await;
    let upload = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
    for fault in [
        "body: { stall_after: 2B, for: 700ms, direction: request }",
        "body: { stall_after: 2B, for: 100ms }",
        "latency: { delay: 100ms, per: chunk }",
    ] {
        let run = stage.enroll(everybody(fault));
        let _injection = run.inject();
        assert_eq!(stage.front().await.ask(upload).await.text(), "hello", "{fault}");
        assert_eq!(origin.last().text(), "hello");
    }
}

#[tokio::test]
async fn the_sender_feels_a_throttle_and_nothing_is_kept_of_its_body() {
    let origin = Origin::scripted(|mut visit| async move {
        visit.request().await;
        let _ = visit.wire.try_send(&lengthy(&text(LARGE))).await;
        visit.remember(&Message { head: vec![], rest: vec![], body: vec![], trailers: vec![], end: End::Whole });
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let run = stage.enroll(everybody("throttle: { rate: 20KiB/s }"));
    let injection = run.inject();
    let mut caller = stage.front().await;
    caller.send(get("/", "")).await;
    caller.head().await.expect("the head goes out");
    let start = tokio::time::Instant::now();
    caller.exactly(10_240).await;
    assert!(start.elapsed() >= Duration::from_millis(400), "half a second's worth");
    assert_eq!(origin.asked(), 1, "it is still sending");
    drop(injection);
    caller.exactly(LARGE - 10_240).await;
    origin.until_asked(2).await;
}

#[tokio::test]
async fn an_upload_is_slowed_and_changed_on_its_way_up() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let body = text(3000);
    let upload = [b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3000\r\n\r\n", &body[..]].concat();
    for fault in [
        "throttle: { rate: 60KB/s, direction: request }",
        "latency: { delay: 1ms, per: chunk, direction: request }",
        "body: { stall_after: 10B, for: 20ms, direction: request }",
        "body: { corrupt: 10%, direction: request }",
        "body: { replace: another, direction: request }",
    ] {
        let mut run = stage.enroll(everybody(fault));
        let _injection = run.inject();
        let mut caller = stage.front().await;
        let start = tokio::time::Instant::now();
        assert_eq!(caller.ask(&upload).await.text(), "hello", "{fault}");
        let asked = origin.last();
        match fault {
            _ if fault.contains("replace") => {
                assert_eq!((asked.text().as_str(), asked.field("content-length").as_deref()), ("another", Some("7")));
            }
            _ if fault.contains("corrupt") => assert!(asked.body.len() == 3000 && asked.body != body),
            _ => assert!(asked.body == body, "{fault}"),
        }
        assert!(!fault.contains("throttle") || start.elapsed() >= Duration::from_millis(50));
        run.tally("it met the fault", |tally| tally.noted(Note::Faulted) == 1).await;
    }
}

#[tokio::test]
async fn an_upload_that_is_replaced_is_read_to_its_end_and_its_connection_is_kept() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let body = text(LARGE);
    for (fault, came) in [("replace: another", "another"), ("replace: '', honest_length: false", "")] {
        let run = stage.enroll(everybody(&format!("body: {{ {fault}, direction: request }}")));
        let injection = run.inject();
        let mut caller = stage.front().await;
        caller.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LARGE}\r\n\r\n")).await;
        caller.send(&body).await;
        if came.is_empty() {
            assert_eq!(caller.rest().await, (vec![], End::Fin), "a lie tears it for both ends");
            continue;
        }
        assert_eq!(caller.answer(false).await.text(), "hello");
        assert_eq!(origin.last().text(), came);
        drop(injection);
        assert_eq!(caller.ask(get("/", "")).await.text(), "hello", "the next on the same connection");
    }
}

#[tokio::test]
async fn an_upload_that_is_cut_is_torn_for_both_ends() {
    let origin = Origin::scripted(|mut visit| async move { while visit.request().await.is_some() {} }).await;
    let stage = Stage::before(origin.address).await;
    let mut run = stage.enroll(everybody("body: { cut_after: 1000B, direction: request }"));
    let _injection = run.inject();
    for (upload, count) in [("content-length: 3000\r\n\r\n", 1), ("content-length: 3000\r\n\r\n", 2)] {
        let mut caller = stage.front().await;
        caller.send(format!("POST / HTTP/1.1\r\nhost: a\r\n{upload}{}", "a".repeat(3000))).await;
        assert_eq!(caller.rest().await, (vec![], End::Fin));
        origin.until_asked(count).await;
        let asked = origin.last();
        assert_eq!((asked.body.len(), asked.end == End::Whole), (1000, false));
    }
    run.tally("both were cut", |tally| tally.noted(Note::Faulted) == 2).await;
    let caller = stage.h2("front").await;
    let request = Request::post("http://shop.example/").body(whole("a".repeat(3000))).expect("a request");
    let error = caller.send(request).await.expect_err("it is torn");
    assert_eq!(reset_code(&error), Some(h2::Reason::INTERNAL_ERROR));
}

#[tokio::test]
async fn a_large_upload_is_cut_after_exactly_so_many_bytes_for_a_slow_upstream() {
    let origin = Origin::scripted(|mut visit| async move {
        let mut message = visit.head().await.expect("a request");
        for _ in 0..40 {
            message.body.extend(visit.wire.exactly(50_000).await);
            tokio::task::yield_now().await;
        }
        let (rest, end) = visit.wire.rest().await;
        message.body.extend(rest);
        visit.remember(&Message { end, ..message });
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let run = stage.enroll(everybody("body: { cut_after: 10MB, direction: request }"));
    let _injection = run.inject();
    let body = text(LARGE);
    let mut caller = stage.front().await;
    caller.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LARGE}\r\n\r\n")).await;
    let _ = caller.try_send(&body).await;
    origin.until_asked(1).await;
    let asked = origin.last();
    assert_eq!((asked.body.len(), asked.end), (10_000_000, End::Fin));
    assert!(asked.body == body[..10_000_000]);
}

const ASKING: &str = "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";

/// Switches, says three messages and a ping, and then back what it hears.
async fn websocket() -> Origin {
    Origin::scripted(|mut visit| async move {
        visit.request().await;
        visit.wire.send("HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n").await;
        visit.wire.send(b"\x81\x03one\x89\x01p\x01\x01t\x80\x02wo").await;
        while let Some(word) = visit.wire.some().await {
            visit.wire.send(word).await;
        }
        visit.wire.finish().await;
        visit.ended().await;
    })
    .await
}

#[tokio::test]
async fn a_websocket_ends_behind_its_messages_for_both_ends() {
    let origin = websocket().await;
    let stage = Stage::before(origin.address).await;
    for (n, (how, end)) in
        [("reset", End::Reset), ("close", End::Fin), ("hang, for: 5ms", End::Fin)].into_iter().enumerate()
    {
        for (count, passes) in [(1, &b"\x81\x03one"[..]), (2, b"\x81\x03one\x89\x01p\x01\x01t\x80\x02wo")] {
            let mut run = stage.enroll(everybody(&format!("drop: {{ how: {how}, at: {{ messages: {count} }} }}")));
            let _injection = run.inject();
            let mut caller = stage.front().await;
            caller.send(ASKING).await;
            assert_eq!(caller.head().await.expect("an answer").status(), 101);
            assert_eq!(caller.rest().await, (passes.to_vec(), end), "{how}");
            run.tally("it met it", |tally| tally.noted(Note::Faulted) == 1).await;
        }
        until("no tunnel is left", || stage.proxy.connections() == 0).await;
        assert_eq!(origin.connections(), 2 * (n + 1));
    }
}

#[tokio::test]
async fn a_tunnel_that_is_slowed_still_passes_everything_both_ways_and_each_end() {
    let origin = websocket().await;
    let stage = Stage::before(origin.address).await;
    let first = b"\x81\x03one\x89\x01p\x01\x01t\x80\x02wo";
    for (fault, told) in [
        ("throttle: { rate: 10KB/s }", Note::Faulted),
        ("throttle: { rate: 10KB/s, direction: request }", Note::Faulted),
        ("body: { stall_after: 3B, for: 5ms }", Note::Faulted),
        ("latency: { delay: 1ms, per: chunk }", Note::Faulted),
        ("body: { replace: another }", Note::SparedNoBody),
        ("drop: { how: reset, at: { events: 1 } }", Note::SparedNoBody),
    ] {
        let mut run = stage.enroll(everybody(fault));
        let _injection = run.inject();
        let mut caller = stage.front().await;
        caller.send(ASKING).await;
        assert_eq!(caller.head().await.expect("an answer").status(), 101);
        assert_eq!(caller.exactly(first.len()).await, first, "{fault}");
        caller.send("hello").await;
        assert_eq!(caller.exactly(5).await, b"hello", "{fault}");
        caller.finish().await;
        assert_eq!(caller.rest().await, (vec![], End::Fin), "{fault}");
        run.tally("it is told at the end", |tally| tally.noted(told) == 1).await;
        assert_eq!(run.trial.held(), 0);
    }
}

#[tokio::test]
async fn a_stalled_tunnel_goes_on_when_the_fault_goes() {
    let origin = websocket().await;
    let stage = Stage::before(origin.address).await;
    let run = stage.enroll(everybody("body: { stall_after: 2B }"));
    let injection = run.inject();
    let mut caller = stage.front().await;
    caller.send(ASKING).await;
    assert_eq!(caller.head().await.expect("an answer").status(), 101);
    caller.exactly(2).await;
    assert!(caller.is_silent() && run.trial.held() == 1);
    drop(injection);
    assert_eq!(caller.exactly(3).await, b"one");
}
