//! What upstreams answer, and what of it reaches the callers: one framing, nothing that makes no sense, and every break.

use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame};
use pratfall::proxy::ListenerConfig;
use pratfall::proxy::config::Scheme;
use pratfall::units::{ByteSize, Span};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::sync::watch;

use crate::support::h2::{nothing, pieces, whole};
use crate::support::stage::target;
use crate::support::{End, Origin, Stage, Wire, get, listener, ok, until, within};

#[tokio::test]
async fn an_answer_has_one_framing_whatever_the_upstream_says() {
    let chunked = "5\r\nhello\r\n0\r\n\r\n";
    for (fields, body) in [
        ("content-length: 5\r\ntransfer-encoding: chunked\r\n", chunked),
        ("content-length: 3\r\ntransfer-encoding: Chunked\r\n", chunked),
        ("content-length: 5, 5\r\n", "hello"),
        ("content-length: 5\r\ncontent-length: 5\r\n", "hello"),
    ] {
        let origin = Origin::answering(format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}")).await;
        let stage = Stage::before(origin.address).await;
        let mut caller = stage.front().await;
        for _ in 0..2 {
            let answer = caller.ask(get("/", "")).await;
            let framings = answer.all("content-length").len() + answer.all("transfer-encoding").len();
            assert_eq!((answer.text().as_str(), framings), ("hello", 1), "{fields}");
            assert!(answer.field("content-length").is_none_or(|length| length == "5"), "{fields}");
        }
        let (head, body) = stage.h2("front").await.get("/").await.expect("an answer");
        assert_eq!((&body[..], head.headers().contains_key("transfer-encoding")), (&b"hello"[..], false), "{fields}");
        let lengths: Vec<_> = head.headers().get_all("content-length").iter().collect();
        assert!(lengths.is_empty() || lengths == ["5"], "{fields}: {lengths:?}");
    }
}

#[tokio::test]
async fn a_head_that_makes_no_sense_is_no_answer() {
    for (method, fields) in [
        ("GET", "transfer-encoding: gzip, chunked\r\n"),
        ("GET", "transfer-encoding: chunked, chunked\r\n"),
        ("GET", "transfer-encoding: identity\r\n"),
        ("GET", "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
        ("GET", "content-length: 5\r\ncontent-length: 6\r\n"),
        ("HEAD", "content-length: 5\r\ncontent-length: 6\r\n"),
        ("HEAD", "content-length: five\r\ncontent-length: five\r\n"),
        ("HEAD", "content-length: five\r\n"),
        ("HEAD", "content-length: +5\r\n"),
    ] {
        let origin = Origin::answering(format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).await;
        let stage = Stage::before(origin.address).await;
        let mut caller = stage.front().await;
        caller.send(format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        let answer = caller.answer(method == "HEAD").await;
        let mark = answer.field("x-pratfall");
        assert_eq!((answer.status(), mark.as_deref()), (502, Some("proxy; error=broken")), "{method} {fields}");
        let request = Request::builder().method(method).uri("http://shop.example/").body(nothing()).unwrap();
        assert_eq!(stage.h2("front").await.send(request).await.expect("an answer").status(), 502, "{method} {fields}");
    }
}

#[tokio::test]
async fn what_has_no_content_tells_no_length() {
    let origin = Origin::answering("HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\n").await;
    let stage = Stage::before(origin.address).await;
    let answer = stage.front().await.ask(get("/", "")).await;
    assert_eq!((answer.status(), answer.field("content-length")), (204, None));
    let (head, _) = stage.h2("front").await.get("/").await.expect("an answer");
    assert!(!head.headers().contains_key("content-length"), "RFC 9110, 8.6");
}

#[tokio::test]
async fn more_fields_than_usual_come_from_upstreams_where_callers_may_send_them() {
    let many: String = (0..300).map(|n| format!("x-{n}: 1\r\n")).collect();
    let origin = Origin::answering(format!("HTTP/1.1 200 OK\r\n{many}content-length: 5\r\n\r\nhello")).await;
    let mut wide = listener("wide", origin.address);
    wide.bounds.headers = 500;
    let stage = Stage::start(vec![listener("usual", origin.address), wide], 1).await;
    assert_eq!(stage.call("wide").await.ask(get("/", "")).await.text(), "hello");
    assert_eq!(stage.call("usual").await.ask(get("/", "")).await.status(), 502);
}

#[tokio::test]
async fn trailers_of_one_hop_stay_there_and_the_others_arrive() {
    let last = "keep-alive: 1\r\nconnection: x\r\ncontent-length: 9\r\nupgrade: h2c\r\nx-sum: 7\r\n";
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: keep-alive, x-sum\r\n\r\n";
    let origin = Origin::answering(format!("{head}5\r\nhello\r\n0\r\n{last}\r\n")).await;
    let stage = Stage::before(origin.address).await;
    let answer = stage.front().await.ask(get("/", "te: trailers\r\nconnection: te\r\n")).await;
    assert_eq!((answer.text().as_str(), answer.trailers), ("hello", vec![("x-sum".to_owned(), b"7".to_vec())]));
    let request = Request::get("http://shop.example/").header("te", "trailers").body(nothing()).unwrap();
    let answer = stage.h2("front").await.send(request).await.expect("an answer");
    let body = within("the body", answer.into_body().collect()).await.expect("it does not break off");
    let trailers: Vec<_> = body.trailers().expect("there are some").keys().collect();
    assert_eq!(trailers, ["x-sum"]);
}

/// An upstream of HTTP/2 by hand: it answers with a frame behind the head of a 200, and another when it is told to go on.
async fn frames(first: Vec<u8>, last: Vec<u8>, go: watch::Receiver<u32>) -> Origin {
    Origin::scripted(move |mut visit| {
        let (first, last, mut go) = (first.clone(), last.clone(), go.clone());
        async move {
            let mut seen = Vec::new();
            // The preface, and then frames until HEADERS are among them (RFC 9113, 4.1).
            let asked = |seen: &[u8]| {
                let mut rest = seen.get(24..).unwrap_or_default();
                while let [a, b, c, kind, ..] = *rest {
                    if kind == 1 {
                        return true;
                    }
                    rest = rest.get(9 + u32::from_be_bytes([0, a, b, c]) as usize..).unwrap_or_default();
                }
                false
            };
            while !asked(&seen) {
                let Some(more) = visit.wire.some().await else { return };
                seen.extend(more);
            }
            visit.wire.send([frame(4, 0, 0, b""), frame(1, 4, 1, b"\x88"), first].concat()).await;
            go.wait_for(|go| *go > 0).await.expect("the test waits");
            visit.wire.send(last).await;
            visit.ended().await;
        }
    })
    .await
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream], payload].concat()
}

#[tokio::test]
async fn a_stream_that_is_reset_without_an_error_and_without_an_end_broke_off() {
    let reset = frame(3, 0, 1, &[0; 4]);
    for (whole, first, last) in [
        (false, frame(0, 0, 1, b"half"), reset.clone()),
        (true, frame(0, 0, 1, b"half"), [frame(0, 1, 1, b""), reset].concat()),
        (true, frame(0, 0, 1, b"half"), frame(0, 1, 1, b"")),
    ] {
        let (go, gone) = watch::channel(0);
        let origin = frames(first, last, gone).await;
        let mut front = listener("front", origin.address);
        front.upstream = Some(target(Scheme::H2c, origin.address));
        let stage = Stage::start(vec![front], 1).await;
        let mut caller = stage.front().await;
        caller.send(get("/", "")).await;
        caller.head().await.expect("a head");
        assert_eq!(caller.exactly(9).await, b"4\r\nhalf\r\n");
        go.send_replace(1);
        let (came, _) = if whole { (caller.exactly(5).await, End::Whole) } else { caller.rest().await };
        assert_eq!(came, if whole { &b"0\r\n\r\n"[..] } else { b"" });
    }
    for (whole, last) in [(false, frame(3, 0, 1, &[0; 4])), (true, frame(0, 1, 1, b""))] {
        let (go, gone) = watch::channel(0);
        let origin = frames(frame(0, 0, 1, b"half"), last, gone).await;
        let mut front = listener("front", origin.address);
        front.upstream = Some(target(Scheme::H2c, origin.address));
        let stage = Stage::start(vec![front], 1).await;
        let request = Request::get("http://shop.example/").body(nothing()).unwrap();
        let answer = stage.h2("front").await.send(request).await.expect("a head");
        go.send_replace(1);
        assert_eq!(within("the body", answer.into_body().collect()).await.is_ok(), whole);
    }
}

#[tokio::test]
async fn what_came_before_a_break_is_seen_though_both_come_at_once() {
    let head = "HTTP/1.1 200 OK\r\n";
    for rest in [
        "content-length: 9\r\n\r\nhalf",
        "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
    ] {
        let origin = Origin::scripted(move |mut visit| async move {
            visit.request().await;
            visit.wire.send(format!("{head}{rest}")).await;
        })
        .await;
        seen_before_a_break(listener("front", origin.address)).await;
    }
    let (_go, gone) = watch::channel(0);
    let both = [frame(0, 0, 1, b"half"), frame(3, 0, 1, &[0, 0, 0, 8])].concat();
    let origin = frames(both, Vec::new(), gone).await;
    let mut front = listener("front", origin.address);
    front.upstream = Some(target(Scheme::H2c, origin.address));
    seen_before_a_break(front).await;
}

async fn seen_before_a_break(front: ListenerConfig) {
    let stage = Stage::start(vec![front.clone()], 1).await;
    let mut caller = stage.front().await;
    caller.send(get("/", "")).await;
    let mut answer = caller.head().await.expect("the head comes");
    caller.body(&mut answer).await;
    assert!(answer.status() == 200 && answer.end != End::Whole, "{answer:?}");
    assert_eq!(answer.text(), "half");
    let stage = Stage::start(vec![front], 1).await;
    let request = Request::get("http://shop.example/").body(nothing()).expect("a request");
    let mut body = stage.h2("front").await.send(request).await.expect("the head comes").into_body();
    let first = within("a piece", body.frame()).await.expect("a piece").expect("before the break").into_data();
    assert_eq!(first.expect("data"), "half");
    assert!(within("the break", body.frame()).await.expect("an end").is_err());
}

#[tokio::test]
async fn a_slow_caller_gets_all_that_came_before_the_break() {
    const LONG: usize = 4 << 20;
    let origin = Origin::scripted(move |mut visit| async move {
        visit.request().await;
        visit.wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n400000\r\n").await;
        visit.wire.send(vec![b'a'; LONG]).await;
    })
    .await;
    for version in ["1.0", "1.1"] {
        let stage = Stage::before(origin.address).await;
        let mut caller = stage.front().await;
        caller.send(format!("GET / HTTP/{version}\r\nhost: a\r\n\r\n")).await;
        let mut answer = caller.head().await.expect("the head comes");
        if version == "1.0" {
            assert_eq!(caller.exactly(LONG).await.len(), LONG);
            assert!(matches!(caller.rest().await, (rest, End::Reset) if rest.is_empty()));
        } else {
            caller.body(&mut answer).await;
            assert_eq!((answer.body.len(), answer.end), (LONG, End::Fin));
        }
    }
}

#[tokio::test]
async fn who_answers_before_the_head_is_written_is_heard() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let origin = socket.listen(8).expect("it listens");
    let mut front = listener("front", origin.local_addr().expect("an address"));
    front.bounds.header_bytes = ByteSize::new(8 << 20);
    let stage = Stage::start(vec![front], 1).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut caller = stage.front().await;
        caller.send(get("/", &format!("x-long: {}\r\n", "a".repeat(7 << 20)))).await;
        let (mut asked, _) = within("a connection of its own", origin.accept()).await.expect("it comes");
        asked.write_all(b"HTTP/1.1 431 Too Large\r\ncontent-length: 2\r\n\r\nno").await.expect("there is room");
        let mut answer = caller.head().await.expect("an answer");
        caller.body(&mut answer).await;
        assert_eq!((answer.status(), answer.text().as_str()), (431, "no"));
        open.push(asked);
    }
}

#[tokio::test]
async fn an_answer_of_our_own_to_head_has_no_content_on_http2_either() {
    let nowhere = { std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address") };
    let stage = Stage::before(nowhere).await;
    let request = Request::head("http://shop.example/").body(nothing()).expect("a request");
    let answer = stage.h2("front").await.send(request).await.expect("an answer");
    assert!(answer.status() == 502 && answer.headers().contains_key("content-length"), "{answer:?}");
    assert!(answer.body().is_end_stream(), "nothing comes behind the head");
}

#[tokio::test]
async fn a_get_of_http2_keeps_its_body_on_the_way_to_http1() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let caller = stage.h2("front").await;
    // Without a body none is announced, however late it turns out that there is none.
    for (first, last) in [("", ""), ("hi", ""), ("", "hi"), ("h", "i")] {
        let (sender, pieces) = pieces();
        for piece in [first, last] {
            sender.send(Ok(Frame::data(piece.into()))).unwrap();
        }
        drop(sender);
        caller.send(Request::get("http://a/").body(pieces).unwrap()).await.expect("an answer");
        let announced = origin.last().field("transfer-encoding").is_some();
        assert_eq!((origin.last().text(), announced), (format!("{first}{last}"), first != last));
    }
    caller.send(Request::get("http://a/").body(nothing()).unwrap()).await.expect("an answer");
    assert_eq!(origin.last().field("transfer-encoding"), None);
    let twice = Request::post("http://a/").header("content-length", "2").header("content-length", "2");
    caller.send(twice.body(whole("hi")).unwrap()).await.expect("an answer");
    assert_eq!(origin.last().all("content-length"), ["2"]);
}

#[tokio::test]
async fn a_reused_connection_that_dies_within_an_answer_is_no_reason_to_ask_again() {
    for begun in ["HTTP/1.1 20", "HTTP/1.1 100 Continue\r\n\r\n"] {
        let origin = Origin::scripted(move |mut visit| async move {
            visit.request().await;
            visit.wire.send(ok("first")).await;
            if visit.request().await.is_some() {
                visit.wire.send(begun).await;
            }
        })
        .await;
        let stage = Stage::before(origin.address).await;
        let mut caller = stage.front().await;
        assert_eq!(caller.ask(get("/1", "")).await.text(), "first");
        assert_eq!(caller.ask(get("/2", "")).await.status(), 502, "{begun}");
        assert_eq!(origin.asked(), 2, "{begun}");
    }
}

#[tokio::test]
async fn who_answers_before_a_long_upload_is_over_says_that_the_connection_ends() {
    let early = Origin::scripted(|mut visit| async move {
        visit.head().await;
        visit.wire.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig").await;
        visit.ended().await;
    })
    .await;
    let mut silent = listener("silent", Origin::scripted(|visit| visit.ended()).await.address);
    (silent.timeouts.response, silent.timeouts.body_stall) = (Span::millis(30), Span::millis(30));
    let nobody = listener("nobody", Origin::nobody().await);
    let stage = Stage::start(vec![listener("early", early.address), silent, nobody], 1).await;
    for (name, status) in [("early", 413), ("silent", 408), ("nobody", 502)] {
        let mut caller = stage.call(name).await;
        caller.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10000000\r\n\r\nabc").await;
        let answer = caller.answer(false).await;
        assert_eq!((answer.status(), answer.field("connection").as_deref()), (status, Some("close")), "{name}");
    }
}

#[tokio::test]
async fn who_takes_nothing_of_an_answer_is_let_go_after_a_while() {
    let origin = Origin::scripted(|mut visit| async move {
        visit.request().await;
        let answer = [&b"HTTP/1.1 200 OK\r\ncontent-length: 50000000\r\n\r\n"[..], &[b'a'; 50_000_000]].concat();
        let _ = visit.wire.try_send(&answer).await;
        visit.ended().await;
    })
    .await;
    let mut front = listener("front", origin.address);
    front.timeouts.body_stall = Span::millis(200);
    let stage = Stage::start(vec![front], 1).await;
    let mut caller: Wire = stage.front().await;
    caller.send(get("/", "")).await;
    origin.until_asked(1).await;
    until("it is gone", || stage.proxy.connections() == 0).await;
    assert_eq!(caller.rest().await.1, End::Reset);
    origin.until_ended(1).await;
}

#[tokio::test]
async fn who_takes_little_at_a_time_is_not_let_go() {
    let origin =
        Origin::answering([&b"HTTP/1.1 200 OK\r\ncontent-length: 50000000\r\n\r\n"[..], &[b'a'; 50_000_000]].concat())
            .await;
    let mut front = listener("front", origin.address);
    front.timeouts.body_stall = Span::secs(2);
    let stage = Stage::start(vec![front], 1).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let mut caller = Wire::new(socket.connect(stage.address("front")).await.unwrap());
    caller.send(get("/", "")).await;
    // Far longer than it may stand still, and far from making room for a third of what the proxy's socket holds.
    for _ in 0..200 {
        caller.exactly(4096).await;
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(stage.proxy.connections(), 1);
}

#[tokio::test]
async fn who_was_told_to_leave_and_does_not_is_not_waited_for() {
    let origin = Origin::well().await;
    let mut front = listener("front", origin.address);
    front.timeouts.request_header = Span::millis(300);
    let stage = Stage::start(vec![front], 1).await;
    let mut begun = stage.front().await;
    begun.send("G").await;
    // A preface, settings and nothing more: no PING will be answered.
    let mut mute = stage.front().await;
    mute.send([&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, b"")].concat()).await;
    mute.exactly(9).await;
    until("both are there", || stage.proxy.connections() == 2).await;
    let day = Duration::from_secs(86_400);
    within("the drain", stage.proxy.drain(day)).await;
}
