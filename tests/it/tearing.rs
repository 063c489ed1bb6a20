//! Bodies and streams that meet a fault on their way: how much of them arrives, how they end, and that they go on.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Frame;
use pratfall::measure::Note;
use pratfall::proxy::config::Scheme;
use pratfall::units::Span;

use crate::support::h2::{H2Client, nothing, pieces, reset_code, whole};
use crate::support::stage::target;
use crate::support::{End, H2Origin, Message, Origin, Stage, everybody, get, listener, ok, until, within};

/// More than all the buffers on the way hold.
const LARGE: usize = 12_000_000;

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

fn lengthy(body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

fn chunky(chunks: &[&str]) -> Vec<u8> {
    let mut answer =
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for chunk in chunks {
        answer.extend(format!("{:x}\r\n{chunk}\r\n", chunk.len()).into_bytes());
    }
    answer.extend(b"0\r\n\r\n");
    answer
}

/// The whole of what comes for one request, and how it ends.
async fn torn(stage: &Stage, fault: &str, request: impl AsRef<[u8]>) -> Message {
    let run = stage.enroll(everybody(fault));
    let _injection = run.inject();
    let mut caller = stage.front().await;
    caller.send(request).await;
    let mut message = caller.head().await.expect("the head goes out");
    caller.body(&mut message).await;
    message
}

/// What comes of a body over HTTP/2, and the code of its reset.
async fn torn_h2(stage: &Stage, fault: &str) -> (Vec<u8>, Option<HeaderMap>, Option<h2::Reason>) {
    let run = stage.enroll(everybody(fault));
    let _injection = run.inject();
    let caller = stage.h2("front").await;
    let request = Request::get("http://shop.example/").body(nothing()).expect("a request");
    let answer = caller.send(request).await.expect("the head goes out");
    drain(answer.into_body()).await
}

async fn drain(mut body: hyper::body::Incoming) -> (Vec<u8>, Option<HeaderMap>, Option<h2::Reason>) {
    let (mut came, mut trailers) = (Vec::new(), None);
    within("a body", async {
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => match frame.into_data() {
                    Ok(data) => came.extend_from_slice(&data),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                },
                Err(error) => return (came, trailers, Some(reset_code(&error).expect("an RST_STREAM"))),
            }
        }
        (came, trailers, None)
    })
    .await
}

#[tokio::test]
async fn a_body_is_cut_after_exactly_so_many_bytes_and_never_looks_whole() {
    let body = text(LARGE);
    let origin = Origin::answering(lengthy(&body)).await;
    let stage = Stage::before(origin.address).await;
    for count in [0, 1, 1000, 70_001, 9_000_000] {
        let fault = format!("body: {{ cut_after: {count}B }}");
        let message = torn(&stage, &fault, get("/", "")).await;
        assert_eq!((message.body.len(), message.end), (count, End::Fin), "HTTP/1");
        assert_eq!(message.field("content-length").as_deref(), Some("12000000"));
        assert!(message.body == body[..count]);
        let (came, _, code) = torn_h2(&stage, &fault).await;
        assert_eq!((came.len(), code), (count, Some(h2::Reason::INTERNAL_ERROR)), "HTTP/2");
        assert!(came == body[..count]);
    }
}

#[tokio::test]
async fn on_h2_what_passes_arrives_before_the_reset_however_little_the_caller_takes_at_a_time() {
    let body = text(300_000);
    let origin = Origin::answering(lengthy(&body)).await;
    let stage = Stage::before(origin.address).await;
    for count in [900, 5000, 70_001, 200_000] {
        let run = stage.enroll(everybody(&format!("body: {{ cut_after: {count}B }}")));
        let _injection = run.inject();
        let caller = H2Client::narrow(stage.address("front"), 1000).await;
        let request = Request::get("http://shop.example/").body(nothing()).expect("a request");
        let answer = caller.send(request).await.expect("the head goes out");
        let (came, _, code) = drain(answer.into_body()).await;
        assert_eq!((came.len(), code), (count, Some(h2::Reason::INTERNAL_ERROR)));
    }
}

#[tokio::test]
async fn a_cut_in_chunks_has_no_last_chunk_and_one_for_http_1_0_is_an_rst() {
    let origin = Origin::answering(chunky(&["hello", " world"])).await;
    let stage = Stage::before(origin.address).await;
    let message = torn(&stage, "body: { cut_after: 7B }", get("/", "")).await;
    assert_eq!((message.text().as_str(), message.end), ("hello w", End::Fin));
    assert!(!message.rest.ends_with(b"0\r\n\r\n"));
    let run = stage.enroll(everybody("body: { cut_after: 7B }"));
    let _injection = run.inject();
    let mut caller = stage.front().await;
    caller.send("GET / HTTP/1.0\r\nhost: a\r\n\r\n").await;
    assert!(caller.head().await.is_some());
    assert_eq!(caller.rest().await, (b"hello w".to_vec(), End::Reset));
}

#[tokio::test]
async fn a_late_reset_is_an_rst_behind_the_last_byte_that_passes() {
    let body = text(LARGE);
    let origin = Origin::answering(lengthy(&body)).await;
    let stage = Stage::before(origin.address).await;
    for (at, count) in
        [("headers", 0), ("{ bytes: 1B }", 1), ("{ bytes: 65537B }", 65_537), ("{ bytes: 9MB }", 9_000_000)]
    {
        let fault = format!("drop: {{ how: reset, at: {at} }}");
        let message = torn(&stage, &fault, get("/", "")).await;
        assert_eq!((message.body.len(), message.end), (count, End::Reset), "{at}");
        assert!(message.body == body[..count]);
        let (came, _, code) = torn_h2(&stage, &fault).await;
        assert_eq!((came.len(), code), (count, Some(h2::Reason::CANCEL)), "{at}");
    }
}

#[tokio::test]
async fn an_rst_waits_for_a_caller_that_reads_slowly() {
    let body = text(LARGE);
    let origin = Origin::answering(lengthy(&body)).await;
    let stage = Stage::before(origin.address).await;
    let run = stage.enroll(everybody("drop: { how: reset, at: { bytes: 10MB } }"));
    let _injection = run.inject();
    let mut caller = stage.front().await;
    caller.send(get("/", "")).await;
    assert!(caller.head().await.is_some());
    let mut came = Vec::new();
    for _ in 0..40 {
        came.extend(caller.exactly(50_000).await);
        tokio::task::yield_now().await;
    }
    let (rest, end) = caller.rest().await;
    came.extend(rest);
    assert_eq!((came.len(), end), (10_000_000, End::Reset));
    assert!(came == body[..10_000_000]);
}

#[tokio::test]
async fn a_stream_ends_behind_its_events_or_chunks() {
    let events = ["data: 1\r\n\r", "\n: still here\r\n\r\n", "data: 2\r\ndata: 2\r\n\r\ndata: 3\r\n\r\n"];
    let origin = Origin::answering(chunky(&events)).await;
    let stage = Stage::before(origin.address).await;
    let two = "data: 1\r\n\r\n: still here\r\n\r\ndata: 2\r\ndata: 2\r\n\r\n";
    for (how, end) in [("reset", End::Reset), ("close", End::Fin), ("hang, for: 5ms", End::Fin)] {
        let message = torn(&stage, &format!("drop: {{ how: {how}, at: {{ events: 2 }} }}"), get("/", "")).await;
        assert_eq!((message.text().as_str(), message.end), (two, end), "{how}");
    }
    let (came, _, code) = torn_h2(&stage, "drop: { how: reset, at: { events: 2 } }").await;
    assert_eq!((String::from_utf8(came).unwrap().as_str(), code), (two, Some(h2::Reason::CANCEL)));
    let message = torn(&stage, "drop: { how: close, at: { events: 9 } }", get("/", "")).await;
    assert_eq!((message.text(), message.end), (events.concat(), End::Whole), "there are three");
}

#[tokio::test]
async fn a_stream_that_rests_is_cut_as_soon_as_its_last_event_is_there() {
    let origin = Origin::scripted(|mut visit| async move {
        visit.request().await;
        visit.wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n").await;
        visit.ended().await;
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let message = torn(&stage, "drop: { how: reset, at: { events: 1 } }", get("/", "")).await;
    assert_eq!((message.text().as_str(), message.end), ("data: 1\n\n", End::Reset));
    origin.until_ended(1).await;
}

fn grpc(messages: &[&str]) -> Response<crate::support::h2::Sent> {
    let (sender, body) = pieces();
    for message in messages {
        let prefix = [&[0u8][..], &(message.len() as u32).to_be_bytes()].concat();
        let framed = [prefix, message.as_bytes().to_vec()].concat();
        sender.send(Ok(Frame::data(Bytes::from(framed)))).expect("it is open");
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    sender.send(Ok(Frame::trailers(trailers))).expect("it is open");
    Response::builder().header("content-type", "application/grpc").body(body).expect("an answer")
}

async fn grpc_stage() -> (H2Origin, Stage) {
    let origin = H2Origin::replying(|_| async { grpc(&["one", "two", "three"]) }).await;
    let mut front = listener("front", origin.address);
    front.upstream = Some(target(Scheme::H2c, origin.address));
    let stage = Stage::start(vec![front], 1).await;
    (origin, stage)
}

#[tokio::test]
async fn a_call_of_grpc_is_reset_behind_so_many_messages() {
    let (_origin, stage) = grpc_stage().await;
    for (how, code) in [("reset", h2::Reason::CANCEL), ("close", h2::Reason::INTERNAL_ERROR)] {
        let fault = format!("drop: {{ how: {how}, at: {{ messages: 2 }} }}");
        let (came, trailers, reset) = torn_h2(&stage, &fault).await;
        assert_eq!(came, b"\0\0\0\0\x03one\0\0\0\0\x03two");
        assert_eq!((trailers, reset), (None, Some(code)));
    }
}

#[tokio::test]
async fn trailers_stay_behind_what_is_slowed_corrupted_or_replaced() {
    let (_origin, stage) = grpc_stage().await;
    for (fault, length) in [
        ("throttle: { rate: 1KiB/s }", 26),
        ("body: { drip: 1ms }", 26),
        ("body: { corrupt: 50% }", 26),
        ("body: { replace: abc }", 3),
        ("body: { stall_after: 9B, for: 5ms }", 26),
        ("latency: { delay: 1ms, per: chunk }", 26),
    ] {
        let (came, trailers, reset) = torn_h2(&stage, fault).await;
        assert_eq!((came.len(), reset), (length, None), "{fault}");
        assert!(trailers.is_some_and(|trailers| trailers["grpc-status"] == "0"), "{fault}");
    }
}

#[tokio::test]
async fn a_corrupted_body_keeps_its_length_and_is_the_same_again() {
    let body = text(50_000);
    let origin = Origin::answering(lengthy(&body)).await;
    let stage = Stage::before(origin.address).await;
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut run = stage.enroll(everybody("body: { corrupt: 1% }"));
        let _injection = run.inject();
        let trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
        let answer = stage.front().await.ask(get("/", trace)).await;
        assert_eq!((answer.end, answer.body.len()), (End::Whole, body.len()));
        let changed = answer.body.iter().zip(&body).enumerate().filter(|(_, (now, then))| now != then);
        others.push(changed.map(|(at, (now, _))| (at, *now)).collect::<Vec<_>>());
        run.tally("it met it", |tally| tally.noted(Note::Faulted) == 1 && tally.operations.faulted == 1).await;
    }
    assert!(others[0] == others[1], "the same seed, the same request");
    // 500 are expected; five standard deviations are 111.
    assert!(others[0].len().abs_diff(500) < 111, "{}", others[0].len());
}
#[tokio::test]
async fn a_replacement_is_announced_with_its_own_length_or_with_a_lie() {
    let coded = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-encoding: br\r\n\r\nhello";
    let origin = Origin::answering(coded).await;
    let stage = Stage::before(origin.address).await;
    for (fault, length, text, end, coding) in [
        ("replace: '{}'", "2", "{}", End::Whole, None),
        ("replace: a longer one, honest_length: true", "12", "a longer one", End::Whole, None),
        ("replace: '{}', honest_length: false", "5", "{}", End::Fin, Some("br")),
        ("replace: '', honest_length: false", "5", "", End::Fin, Some("br")),
        ("replace: a longer one, honest_length: false", "5", "a lon", End::Whole, Some("br")),
    ] {
        let message = torn(&stage, &format!("body: {{ {fault} }}"), get("/", "")).await;
        assert_eq!((message.text().as_str(), message.end), (text, end), "{fault}");
        assert_eq!(message.field("content-length").as_deref(), Some(length), "{fault}");
        assert_eq!(message.field("content-encoding").as_deref(), coding, "{fault}");
    }
    let (came, _, code) = torn_h2(&stage, "body: { replace: '{}' }").await;
    assert_eq!((came, code), (b"{}".to_vec(), None));
}

#[tokio::test]
async fn on_h2_a_replacement_under_the_old_length_is_malformed() {
    let origin = Origin::answering(ok("hello")).await;
    let stage = Stage::before(origin.address).await;
    for text in ["abc", "a longer one"] {
        let run = stage.enroll(everybody(&format!("body: {{ replace: {text}, honest_length: false }}")));
        let _injection = run.inject();
        let error = stage.h2("front").await.get("/").await.expect_err("RFC 9113, 8.1.1");
        assert_eq!(reset_code(&error), Some(h2::Reason::PROTOCOL_ERROR), "{text}");
    }
}

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

#[tokio::test]
async fn who_has_no_body_or_a_shorter_one_met_nothing() {
    let origin = Origin::replying(|asked| match asked.start().as_str() {
        "GET /none HTTP/1.1" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        _ => ok("hello"),
    })
    .await;
    let stage = Stage::before(origin.address).await;
    for fault in ["body: { cut_after: 5B }", "drop: { how: reset, at: { events: 1 } }", "body: { stall_after: 6B }"] {
        let mut run = stage.enroll_with(everybody(fault), |terms| terms.max_faulted = Some(1));
        let _injection = run.inject();
        let mut caller = stage.front().await;
        for path in ["/none", "/"] {
            assert!(matches!(caller.ask(get(path, "")).await.status(), 200 | 204), "{fault}");
        }
        let tally = run.tally("both are spared", |tally| tally.noted(Note::SparedNoBody) == 2).await;
        assert_eq!((tally.noted(Note::Faulted), tally.operations.faulted), (0, 0), "{fault}");
    }
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
