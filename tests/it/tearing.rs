//! Bodies and streams that meet a fault on their way: how much of them arrives, and how they end.

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Frame;
use pratfall::measure::Note;
use pratfall::proxy::config::{ListenerTls, Scheme};

use crate::support::h2::{H2Client, nothing, pieces, reset_code};
use crate::support::stage::target;
use crate::support::tls::{Authority, BOTH, call};
use crate::support::{End, H2Origin, Message, Origin, Stage, everybody, get, listener, ok, within};

/// More than all the buffers on the way hold.
pub const LARGE: usize = 12_000_000;

pub fn text(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

pub fn lengthy(body: &[u8]) -> Vec<u8> {
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
async fn under_tls_what_passes_arrives_too_and_nothing_says_that_it_was_all() {
    let (authority, body) = (Authority::new(), text(LARGE));
    let origin = Origin::answering(lengthy(&body)).await;
    let files = authority.vouch(&["shop.example"]);
    let mut front = listener("front", origin.address);
    front.tls = Some(ListenerTls { cert: files.cert, key: files.key, client_ca: None });
    let stage = Stage::start(vec![front], 1).await;
    for fault in ["drop: { how: reset, at: { bytes: 9MB } }", "body: { cut_after: 9MB }"] {
        let run = stage.enroll(everybody(fault));
        let _injection = run.inject();
        let mut caller = call(stage.address("front"), &authority.caller(BOTH, &[], None)).await.expect("TLS");
        caller.send(get("/", "")).await;
        let mut message = caller.head().await.expect("the head goes out");
        caller.body(&mut message).await;
        // No close_notify: to a reader of TLS either end is an error.
        assert_eq!((message.body.len(), message.end), (9_000_000, End::Reset), "{fault}");
        assert!(message.body == body[..9_000_000]);
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
