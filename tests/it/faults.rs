//! Faults as they look on the wire.

use pratfall::measure::Note;
use pratfall::proxy::config::Scheme;
use pratfall::units::Span;

use crate::support::h2::reset_code;
use crate::support::stage::{matching, target};
use crate::support::{End, H2Origin, Origin, Stage, everybody, get, listener, ok, until};

#[tokio::test]
async fn latency_holds_the_request_and_then_forwards_it() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let mut run = stage.enroll(everybody("latency: { delay: 60ms }"));
    let _injection = run.inject();
    let start = tokio::time::Instant::now();
    let answer = stage.front().await.ask(get("/", "")).await;
    assert!(start.elapsed() >= Span::millis(60).get());
    assert_eq!((answer.status(), answer.text().as_str(), answer.field("x-pratfall")), (200, "hello", None));
    assert_eq!(origin.seen().len(), 1);
    let tally = run.tally("the call is told", |tally| tally.operations.waited == 1).await;
    assert!(tally.operations.asked_ms[0] == 60.0 && tally.operations.applied_ms[0] >= 60.0);
}

#[tokio::test]
async fn latency_of_the_answer_calls_the_upstream_first() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let run = stage.enroll(everybody("latency: { delay: 1h, direction: response }"));
    let injection = run.inject();
    let mut caller = stage.front().await;
    caller.send(get("/", "")).await;
    origin.until_asked(1).await;
    drop(injection);
    assert_eq!(caller.answer(false).await.text(), "hello");
}

#[tokio::test]
async fn an_error_is_answered_in_the_upstreams_place_byte_for_byte() {
    let origin = Origin::well().await;
    let mut silent = listener("front", origin.address);
    silent.mark = false;
    let fault = "error: { status: 503, headers: { retry-after: '1', x-why: caf\u{e9} }, body: asleep }";
    for (front, mark) in [(listener("front", origin.address), Some("R-test; fault=error")), (silent, None)] {
        let stage = Stage::start(vec![front], 1).await;
        let run = stage.enroll(everybody(fault));
        let _injection = run.inject();
        let mut caller = stage.front().await;
        let upload = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
        for request in [get("/", ""), upload.into(), get("/", "")] {
            let answer = caller.ask(request).await;
            assert_eq!(answer.start(), "HTTP/1.1 503 Service Unavailable");
            let mut fields = answer.fields();
            fields.retain(|(name, _)| name != "date");
            fields.sort();
            let mut expected = vec![
                ("content-length".to_owned(), b"6".to_vec()),
                ("content-type".to_owned(), b"text/plain; charset=utf-8".to_vec()),
                ("retry-after".to_owned(), b"1".to_vec()),
                ("x-why".to_owned(), "caf\u{e9}".as_bytes().to_vec()),
            ];
            expected.extend(mark.map(|mark| ("x-pratfall".to_owned(), mark.as_bytes().to_vec())));
            expected.sort();
            assert_eq!((fields, answer.text().as_str()), (expected, "asleep"));
        }
        caller.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(caller.answer(true).await.status(), 503);
        assert_eq!(caller.ask(get("/", "")).await.text(), "asleep", "after HEAD");
    }
    assert!(origin.seen().is_empty(), "the upstream is not called");
}

#[tokio::test]
async fn a_reset_is_an_rst_and_earlier_answers_are_whole() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let mut experiment = everybody("drop: { how: reset }");
    experiment.inject.matches = matching("/reset");
    let run = stage.enroll(experiment);
    let _injection = run.inject();
    for request in [get("/reset", ""), b"POST /reset HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc".to_vec()] {
        let mut caller = stage.front().await;
        assert_eq!(caller.ask(get("/", "")).await.text(), "hello");
        caller.send(request).await;
        assert_eq!(caller.rest().await, (vec![], End::Reset));
    }
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn a_close_is_a_fin_without_a_byte() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let mut experiment = everybody("drop: { how: close }");
    experiment.inject.matches = matching("/close");
    let run = stage.enroll(experiment);
    let _injection = run.inject();
    let mut upload = b"POST /close HTTP/1.1\r\nhost: a\r\ncontent-length: 200000\r\n\r\n".to_vec();
    let short = upload.clone();
    upload.resize(upload.len() + 200_000, b'a');
    for request in [get("/close", ""), short, upload] {
        let mut caller = stage.front().await;
        assert_eq!(caller.ask(get("/", "")).await.text(), "hello");
        caller.send(request).await;
        assert_eq!(caller.rest().await, (vec![], End::Fin));
    }
    // The answer of a pipelined request before it is not lost with it.
    let mut caller = stage.front().await;
    caller.send([get("/", ""), get("/close", "")].concat()).await;
    assert_eq!(caller.answer(false).await.text(), "hello");
    assert_eq!(caller.rest().await, (vec![], End::Fin));
}

#[tokio::test]
async fn a_hang_says_nothing_until_it_is_let_go() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let run = stage.enroll(everybody("drop: { how: hang }"));
    let injection = run.inject();
    let mut caller = stage.front().await;
    caller.send(get("/", "")).await;
    until("the request is held", || run.trial.held() == 1).await;
    assert!(caller.is_silent() && origin.seen().is_empty());
    drop(injection);
    assert_eq!(caller.answer(false).await.text(), "hello");
}

#[tokio::test]
async fn a_hang_for_a_while_ends_with_a_fin() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let run = stage.enroll(everybody("drop: { how: hang, for: 50ms }"));
    let _injection = run.inject();
    let mut caller = stage.front().await;
    let start = tokio::time::Instant::now();
    caller.send(get("/", "")).await;
    assert_eq!(caller.rest().await, (vec![], End::Fin));
    assert!(start.elapsed() >= Span::millis(50).get() && origin.seen().is_empty());
}

#[tokio::test]
async fn on_h2_a_drop_resets_its_stream_and_the_others_live_on() {
    let origin = Origin::replying(|request| ok(&request.start())).await;
    let stage = Stage::before(origin.address).await;
    for (fault, code) in [
        ("drop: { how: reset }", h2::Reason::CANCEL),
        ("drop: { how: close }", h2::Reason::INTERNAL_ERROR),
        ("drop: { how: hang, for: 5ms }", h2::Reason::INTERNAL_ERROR),
    ] {
        let mut experiment = everybody(fault);
        experiment.inject.matches = matching("/drop");
        let run = stage.enroll(experiment);
        let _injection = run.inject();
        let caller = stage.h2("front").await;
        for _ in 0..3 {
            let (dropped, other) = tokio::join!(caller.get("/drop"), caller.get("/other"));
            assert_eq!(reset_code(&dropped.expect_err("it is dropped")), Some(code), "{fault}");
            assert_eq!(other.expect("an answer").1, "GET /other HTTP/1.1");
        }
    }
    assert!(origin.seen().iter().all(|asked| asked.start() == "GET /other HTTP/1.1"));
}

#[tokio::test]
async fn a_stream_that_was_reset_leaves_its_connection_a_good_end() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let mut experiment = everybody("drop: { how: reset }");
    experiment.inject.matches = matching("/drop");
    let run = stage.enroll(experiment);
    let _injection = run.inject();
    let mut caller = stage.front().await;
    // The preface, empty SETTINGS, and HEADERS of stream 1 with END_STREAM: GET http /drop by its static names.
    caller.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00").await;
    let block = b"\x82\x86\x04\x05/drop\x01\x01a";
    caller.send([&[0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1][..], block].concat()).await;
    let mut said = Vec::new();
    while !said.ends_with(b"\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08") {
        said.extend(caller.exactly(1).await);
    }
    // GOAWAY of ours: the connection has nothing to do any more, and ends in good order.
    caller.send(b"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00").await;
    caller.finish().await;
    assert_eq!(caller.rest().await.1, End::Fin);
}

#[tokio::test]
async fn a_delayed_call_reaches_an_upstream_of_h2_whole() {
    let origin =
        H2Origin::replying(|asked| async move { http::Response::new(crate::support::h2::whole(asked.body)) }).await;
    let mut front = listener("front", origin.address);
    front.upstream = Some(target(Scheme::H2c, origin.address));
    let stage = Stage::start(vec![front], 1).await;
    let mut run = stage.enroll(everybody("latency: { delay: 5ms }"));
    let _injection = run.inject();
    let mut caller = stage.front().await;
    for _ in 0..3 {
        let answer = caller.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc").await;
        assert_eq!(answer.text(), "abc");
    }
    run.tally("all are faulted", |tally| tally.noted(Note::Faulted) == 3).await;
}

#[tokio::test]
async fn faults_meet_a_call_in_the_order_in_which_they_are_written() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let run = stage.enroll(everybody("latency: { delay: 40ms } }, { error: { status: 418 }"));
    let _injection = run.inject();
    let start = tokio::time::Instant::now();
    assert_eq!(stage.front().await.ask(get("/", "")).await.status(), 418);
    assert!(start.elapsed() >= Span::millis(40).get());
}
