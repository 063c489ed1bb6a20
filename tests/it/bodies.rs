//! Bodies stream: nothing waits for the last byte, nothing is lost, and what broke off stays visibly broken.

use crate::support::{End, Origin, Stage, get, listener, ok, until};

/// Bytes that no compression or repetition makes equal to their neighbours.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(next).collect()
}

#[tokio::test]
async fn the_first_byte_of_an_upload_leaves_before_the_last_arrives() {
    let origin = Origin::scripted(|mut visit| async move {
        let mut request = visit.head().await.expect("a request");
        visit.remember(&request);
        assert_eq!(visit.wire.exactly(10).await, b"5\r\nfirst\r\n");
        visit.remember(&request);
        visit.wire.body(&mut request).await;
        visit.wire.send(ok(&request.text())).await;
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    caller.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
    origin.until_asked(2).await;
    caller.send("4\r\nlast\r\n0\r\n\r\n").await;
    assert_eq!(caller.answer(false).await.text(), "last");
}

#[tokio::test]
async fn the_first_byte_of_an_answer_arrives_before_the_last_leaves() {
    for (framing, first, last) in [
        ("transfer-encoding: chunked", "5\r\nfirst\r\n", "4\r\nlast\r\n0\r\n\r\n"),
        ("content-length: 9", "first", "last"),
        ("connection: close", "first", "last"),
    ] {
        let (go, gone) = tokio::sync::watch::channel(false);
        let origin = Origin::scripted(move |mut visit| {
            let mut gone = gone.clone();
            async move {
                visit.request().await;
                visit.wire.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{first}")).await;
                gone.wait_for(|go| *go).await.expect("the test waits");
                visit.wire.send(last).await;
            }
        })
        .await;
        let stage = Stage::before(origin.address).await;
        let mut caller = stage.front().await;
        caller.send(get("/", "")).await;
        caller.head().await.expect("the head comes first");
        let begins: &[u8] = if framing == "content-length: 9" { b"first" } else { b"5\r\nfirst\r\n" };
        assert_eq!(caller.exactly(begins.len()).await, begins, "{framing}");
        go.send(true).expect("the origin waits");
        let ends: &[u8] = if framing == "content-length: 9" { b"last" } else { b"4\r\nlast\r\n0\r\n\r\n" };
        assert_eq!(caller.exactly(ends.len()).await, ends, "{framing}");
    }
}

#[tokio::test]
async fn ten_mebibytes_arrive_as_they_left_in_both_directions() {
    let large = noise(10 << 20);
    let echo = |request: &crate::support::Message| {
        let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", request.body.len()).into_bytes();
        answer.extend_from_slice(&request.body);
        answer
    };
    let origin = Origin::replying(echo).await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    let mut request = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", large.len()).into_bytes();
    request.extend_from_slice(&large);
    let answer = caller.ask(request).await;
    assert!(answer.body == large && origin.last().body == large);

    let mut request = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for chunk in large.chunks(60_001) {
        request.extend_from_slice(format!("{:x};extension=1\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    let answer = caller.ask(request).await;
    assert!(answer.body == large && origin.last().body == large);
}

#[tokio::test]
async fn trailers_pass_between_hops_that_announce_them() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum, x-more\r\n\r\n\
         5\r\nhello\r\n0\r\nx-sum: 7\r\nx-more: 8\r\n\r\n",
    )
    .await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    let answer = caller
        .ask(
            "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\ntransfer-encoding: chunked\r\n\
             trailer: x-mine\r\n\r\n3\r\nabc\r\n0\r\nx-mine: 1\r\n\r\n",
        )
        .await;
    let sent = |trailers: &[(&str, &str)]| {
        trailers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect::<Vec<_>>()
    };
    assert_eq!(answer.trailers, sent(&[("x-sum", "7"), ("x-more", "8")]));
    assert_eq!(origin.last().trailers, sent(&[("x-mine", "1")]));
    let answer = caller.ask(get("/", "")).await;
    assert_eq!((answer.text().as_str(), answer.trailers), ("hello", vec![]), "it did not ask for any");
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_ends_well() {
    for (what, head, reset) in [
        ("chunked", "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", false),
        ("chunked, inside of a chunk", "transfer-encoding: chunked\r\n\r\n9\r\nhello", false),
        ("chunked, before the last line", "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", false),
        ("length", "content-length: 9\r\n\r\nhello", false),
        ("chunked, by a reset", "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", true),
        ("length, by a reset", "content-length: 9\r\n\r\nhello", true),
        ("a bad chunk", "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n", false),
    ] {
        // The origin breaks off only when the caller has what came before: a reset may overtake it.
        let (go, gone) = tokio::sync::watch::channel(false);
        let origin = Origin::scripted(move |mut visit| {
            let mut gone = gone.clone();
            async move {
                visit.request().await;
                visit.wire.send(format!("HTTP/1.1 200 OK\r\n{head}")).await;
                gone.wait_for(|go| *go).await.expect("the test waits");
                if reset {
                    visit.wire.reset();
                }
            }
        })
        .await;
        let stage = Stage::before(origin.address).await;
        let mut caller = stage.front().await;
        caller.send(get("/", "")).await;
        let mut answer = caller.head().await.expect("the head comes");
        go.send(true).expect("the origin waits");
        caller.body(&mut answer).await;
        assert_ne!(answer.end, End::Whole, "{what}: {answer:?}");

        // A caller of HTTP/1.0 knows the end of chunks by the end of the connection: only an RST tells it the truth.
        let mut caller = stage.front().await;
        caller.send("GET / HTTP/1.0\r\n\r\n").await;
        let (all, end) = caller.rest().await;
        if what.contains("chunk") {
            assert_eq!(end, End::Reset, "{what}: {}", String::from_utf8_lossy(&all));
        }
    }
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_upload_comes_through() {
    let origin = Origin::scripted(|mut visit| async move {
        let head = visit.head().await.expect("a request");
        visit.remember(&head);
        visit.wire.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig").await;
        visit.ended().await;
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    caller.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\nabc", 10 << 20)).await;
    let answer = caller.answer(false).await;
    assert_eq!((answer.status(), answer.text().as_str()), (413, "big"));
    drop(caller);
    origin.until_ended(1).await;
}

#[tokio::test]
async fn a_caller_that_leaves_is_felt_by_the_upstream() {
    for (what, request, answer) in [
        ("before the head", get("/", ""), ""),
        ("with an upload behind it", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc".to_vec(), ""),
        ("in the answer", get("/", ""), "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello"),
        ("in the chunks", get("/", ""), "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        ("in the upload", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc".to_vec(), ""),
    ] {
        let origin = Origin::scripted(move |mut visit| async move {
            let head = visit.head().await.expect("a request");
            visit.remember(&head);
            visit.wire.send(answer).await;
            visit.ended().await;
        })
        .await;
        let stage = Stage::before(origin.address).await;
        let mut caller = stage.front().await;
        caller.send(&request).await;
        origin.until_asked(1).await;
        if !answer.is_empty() {
            caller.head().await.expect("the answer begins");
        }
        drop(caller);
        origin.until_ended(1).await;
        until("the connection is over", || stage.proxy.connections() == 0).await;
        let _ = what;
    }
}

#[tokio::test]
async fn a_body_that_stands_still_is_broken_off() {
    for framing in ["content-length: 9\r\n\r\nhello", "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let origin = Origin::scripted(move |mut visit| async move {
            visit.request().await;
            visit.wire.send(format!("HTTP/1.1 200 OK\r\n{framing}")).await;
            visit.ended().await;
        })
        .await;
        let mut front = listener("front", origin.address);
        front.timeouts.body_stall = pratfall::units::Span::millis(20);
        let stage = Stage::start(vec![front], 1).await;
        let answer = stage.front().await.ask(get("/", "")).await;
        assert_eq!((answer.text().as_str(), answer.end == End::Whole), ("hello", false));
        origin.until_ended(1).await;
    }
}

#[tokio::test]
async fn an_upload_that_stands_still_is_given_up() {
    let origin = Origin::scripted(|mut visit| async move {
        visit.head().await.expect("a request");
        visit.ended().await;
    })
    .await;
    let mut front = listener("front", origin.address);
    front.timeouts.body_stall = pratfall::units::Span::millis(20);
    let stage = Stage::start(vec![front], 1).await;
    let mut caller = stage.front().await;
    caller.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc").await;
    let answer = caller.answer(false).await;
    assert_eq!((answer.status(), answer.field("x-pratfall").as_deref()), (408, Some("proxy; error=upload")));
    origin.until_ended(1).await;
}

#[tokio::test]
async fn an_upload_that_the_upstream_does_not_take_is_given_up() {
    let origin = Origin::scripted(|mut visit| async move {
        visit.head().await.expect("a request");
        // It reads no further, and it does not go either.
        std::future::pending::<()>().await;
    })
    .await;
    let mut front = listener("front", origin.address);
    front.timeouts.response = pratfall::units::Span::millis(50);
    front.timeouts.body_stall = pratfall::units::Span::millis(50);
    let stage = Stage::start(vec![front], 1).await;
    let mut caller = stage.front().await;
    let upload = vec![b'a'; 64 << 20];
    caller.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", upload.len())).await;
    let _ = caller.try_send(&upload).await;
    until("the connection is over", || stage.proxy.connections() == 0).await;
}
