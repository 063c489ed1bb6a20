//! What must never be sent on is refused, and the connection ends with it.

use crate::support::{End, Origin, Stage, get, listener};

#[tokio::test]
async fn what_is_ambiguous_is_refused_and_never_sent_on() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    for (what, request) in [
        ("no host", "GET / HTTP/1.1\r\n\r\n"),
        ("two hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
        ("twice the same host", "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n"),
        ("two hosts of HTTP/1.0", "GET / HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n"),
        ("gzip, chunked", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("chunked twice", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
        (
            "two lines of chunked",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("chunked but not last", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, gzip\r\n\r\n"),
        ("two lengths", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"),
        ("a length with a sign", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\na"),
        ("a folded line", "GET / HTTP/1.1\r\nhost: a\r\nx-a: 1\r\n 2\r\n\r\n"),
        ("a space before the colon", "GET / HTTP/1.1\r\nhost: a\r\nx-a : 1\r\n\r\n"),
        ("a NUL", "GET / HTTP/1.1\r\nhost: a\r\nx-a: 1\0\r\n\r\n"),
        ("chunked of HTTP/1.0", "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("CONNECT", "CONNECT shop.example:443 HTTP/1.1\r\nhost: shop.example:443\r\n\r\n"),
        ("TRACE", "TRACE / HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("a path of no URI", "GET /<> HTTP/1.1\r\nhost: a\r\n\r\n"),
    ] {
        let mut caller = stage.front().await;
        caller.send(request).await;
        // A second request behind it must not be taken for one: nobody knows where the first ended.
        let _ = caller.try_send(&get("/second", "")).await;
        let (all, end) = caller.rest().await;
        let all = String::from_utf8_lossy(&all);
        assert!(all.starts_with("HTTP/1.1 400 ") || all.starts_with("HTTP/1.0 400 "), "{what}: {all}");
        assert_eq!(all.matches("HTTP/1.").count(), 1, "{what}: the connection ends with it: {all}");
        assert_ne!(end, End::Whole);
    }
    assert!(origin.seen().is_empty(), "{:?}", origin.seen());
}

#[tokio::test]
async fn what_the_proxy_refuses_itself_is_marked_unless_the_listener_says_no() {
    let origin = Origin::well().await;
    let mut silent = listener("silent", origin.address);
    silent.mark = false;
    let stage = Stage::start(vec![listener("front", origin.address), silent], 1).await;
    let request = "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n";
    let answer = stage.front().await.ask(request).await;
    assert_eq!(answer.field("x-pratfall").as_deref(), Some("proxy; error=refused"));
    assert_eq!(answer.field("connection").as_deref(), Some("close"));
    let answer = stage.call("silent").await.ask(request).await;
    assert_eq!((answer.status(), answer.field("x-pratfall")), (400, None));
}

#[tokio::test]
async fn a_length_beside_chunks_never_reaches_the_upstream() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    for fields in
        ["content-length: 4\r\ntransfer-encoding: chunked\r\n", "transfer-encoding: chunked\r\ncontent-length: 4\r\n"]
    {
        let mut caller = stage.front().await;
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n3\r\nabc\r\n0\r\n\r\n");
        caller.send(request).await;
        // RFC 9112, 6.3: the connection ends after the answer.
        let _ = caller.try_send(&get("/second", "")).await;
        let (all, _) = caller.rest().await;
        let all = String::from_utf8_lossy(&all);
        assert_eq!(all.matches("HTTP/1.1 200 ").count(), 1, "{fields:?}: {all}");
        if let Some(asked) = origin.seen().pop() {
            assert_eq!((asked.all("content-length"), asked.text().as_str()), (vec![], "abc"));
        }
    }
    assert!(origin.seen().iter().all(|asked| asked.start().starts_with("POST")));
}

#[tokio::test]
async fn a_bad_chunk_breaks_the_upstream_message_off_and_never_ends_it() {
    let origin = Origin::scripted(|mut visit| async move {
        let Some(mut head) = visit.head().await else { return };
        visit.wire.body(&mut head).await;
        visit.remember(&head);
    })
    .await;
    let stage = Stage::before(origin.address).await;
    for (asked, bad) in
        ["zz\r\nabc\r\n", "5\r\nabc", "fffffffffffffffff\r\n", "3\r\nabcX\r\n0\r\n\r\n"].iter().enumerate()
    {
        let mut caller = stage.front().await;
        caller.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
        caller.send(bad).await;
        caller.finish().await;
        let (answer, _) = caller.rest().await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{bad:?}: {answer}");
        origin.until_asked(asked + 1).await;
        assert_ne!(origin.last().end, End::Whole, "{bad:?} ended the message");
    }
}
