//! Upstreams that are gone, slow, or close the connection that we were about to use.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pratfall::units::Span;
use tokio::sync::watch;

use crate::support::{Origin, Stage, get, listener, ok, until};

/// Answers the first request of each connection and closes it, without saying so before, as soon as `asked` again.
async fn forgetful() -> Origin {
    Origin::scripted(|mut visit| async move {
        visit.request().await;
        visit.wire.send(ok("first")).await;
        if let Some(head) = visit.head().await {
            visit.remember(&head);
        }
    })
    .await
}

#[tokio::test]
async fn a_get_on_a_connection_that_had_died_is_sent_again_and_nobody_sees_it() {
    let origin = forgetful().await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    for n in 1..=4 {
        let answer = caller.ask(get("/again?x=%2F", "x-a: 1\r\nx-a: 2\r\n")).await;
        assert_eq!((answer.status(), answer.text().as_str()), (200, "first"), "request {n}");
    }
    let seen = origin.seen();
    assert_eq!((seen.len(), origin.connections()), (7, 4), "all but the first were asked twice, not more");
    assert!(seen.iter().all(|asked| asked.head == seen[0].head), "the same bytes again");
}

#[tokio::test]
async fn what_is_not_a_get_is_never_sent_twice() {
    for (method, body) in
        [("POST", "content-length: 3\r\n\r\nabc"), ("DELETE", "\r\n"), ("PUT", "content-length: 0\r\n\r\n")]
    {
        let origin = forgetful().await;
        let stage = Stage::before(origin.address).await;
        let mut caller = stage.front().await;
        assert_eq!(caller.ask(get("/", "")).await.status(), 200);
        let answer = caller.ask(format!("{method} /once HTTP/1.1\r\nhost: a\r\n{body}")).await;
        assert_eq!(answer.status(), 502, "{method}");
        assert_eq!(answer.field("x-pratfall").as_deref(), Some("proxy; error=broken"));
        let sent = origin.seen().into_iter().filter(|asked| asked.start().starts_with(method)).count();
        assert_eq!(sent, 1, "{method}");
    }
}

/// What an attacker would have others take for their answer.
const EVIL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";

#[tokio::test]
async fn what_came_before_it_was_asked_for_is_nobodys_answer() {
    let well = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nwell\r\n0\r\n\r\n";
    for (at_once, first) in
        [(true, format!("{well}{EVIL}")), (true, format!("{chunked}{EVIL}")), (false, well.to_owned())]
    {
        for next in ["GET", "DELETE", "POST"] {
            let (go, gone) = watch::channel(false);
            let (said, heard) = (Arc::new(AtomicUsize::new(0)), first.clone());
            let count = said.clone();
            let origin = Origin::scripted(move |mut visit| {
                let (mut gone, count, first) = (gone.clone(), count.clone(), heard.clone());
                async move {
                    visit.request().await;
                    visit.wire.send(first).await;
                    if !at_once {
                        gone.wait_for(|go| *go).await.expect("the test waits");
                        visit.wire.send(EVIL).await;
                    }
                    count.fetch_add(1, Ordering::SeqCst);
                    visit.ended().await;
                }
            })
            .await;
            let stage = Stage::before(origin.address).await;
            let mut caller = stage.front().await;
            assert_eq!(caller.ask(get("/", "")).await.text(), "well");
            go.send_replace(true);
            until("the origin says more", || said.load(Ordering::SeqCst) == 1).await;
            // A request to somebody else lets the worker see it.
            assert_eq!(stage.front().await.ask("TRACE / HTTP/1.1\r\nhost: a\r\n\r\n").await.status(), 400);
            let length = if next == "POST" { "content-length: 1\r\n\r\na" } else { "\r\n" };
            let answer = caller.ask(format!("{next} / HTTP/1.1\r\nhost: a\r\n{length}")).await;
            assert_eq!((answer.text().as_str(), origin.connections()), ("well", 2), "{next} {first:?}");
        }
    }
}

#[tokio::test]
async fn who_tells_the_end_in_two_ways_is_not_asked_again_on_this_connection() {
    let origin =
        Origin::answering("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n").await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    for n in 1..=3 {
        assert_eq!(caller.ask(get("/", "")).await.status(), 200);
        assert_eq!(origin.connections(), n);
    }
}

#[tokio::test]
async fn an_upstream_that_closes_idle_connections_is_not_noticed() {
    let closed = Arc::new(AtomicUsize::new(0));
    let count = closed.clone();
    let origin = Origin::scripted(move |mut visit| {
        let count = count.clone();
        async move {
            visit.request().await;
            visit.wire.send(ok("once")).await;
            drop(visit);
            count.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    for n in 1..=10 {
        let body = if n % 2 == 0 { "content-length: 3\r\n\r\nabc" } else { "\r\n" };
        let answer = caller.ask(format!("POST / HTTP/1.1\r\nhost: a\r\n{body}")).await;
        assert_eq!(answer.status(), 200, "request {n}");
        until("the origin closes", || closed.load(Ordering::SeqCst) == n).await;
        // A request to somebody else lets the worker see the FIN before it needs the connection.
        assert_eq!(stage.front().await.ask("TRACE / HTTP/1.1\r\nhost: a\r\n\r\n").await.status(), 400);
    }
    assert_eq!(origin.seen().len(), 10);
}

#[tokio::test]
async fn garbage_is_no_reason_to_ask_again() {
    let origin = Origin::scripted(|mut visit| async move {
        visit.request().await;
        visit.wire.send(ok("first")).await;
        visit.request().await;
        visit.wire.send("garbage\r\n\r\n").await;
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    assert_eq!(caller.ask(get("/", "")).await.status(), 200);
    let answer = caller.ask(get("/", "")).await;
    assert_eq!((answer.status(), answer.field("x-pratfall").as_deref()), (502, Some("proxy; error=broken")));
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn words_that_nobody_asked_for_do_not_answer_the_next_request() {
    let origin = Origin::scripted(|mut visit| async move {
        visit.request().await;
        visit.wire.send([ok("first"), ok("poison")].concat()).await;
        visit.request().await;
        visit.wire.send(ok("second")).await;
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    for _ in 0..5 {
        assert_eq!(caller.ask(get("/", "")).await.text(), "first");
    }
}

#[tokio::test]
async fn nobody_there_is_502_and_too_slow_is_504_and_the_connection_stays_good() {
    let mut nobody = listener("nobody", Origin::nobody().await);
    nobody.timeouts.response = Span::millis(30);
    let silent = Origin::scripted(|mut visit| async move {
        visit.request().await;
        visit.ended().await;
    })
    .await;
    let mut slow = listener("slow", silent.address);
    slow.timeouts.response = Span::millis(30);
    let closing = Origin::scripted(|mut visit| async move { drop(visit.request().await) }).await;
    let stage = Stage::start(vec![nobody, slow, listener("closing", closing.address)], 1).await;
    for (name, status, mark) in [
        ("nobody", 502, "proxy; error=connect"),
        ("slow", 504, "proxy; error=timeout"),
        ("closing", 502, "proxy; error=broken"),
    ] {
        let mut caller = stage.call(name).await;
        for request in [get("/", ""), b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\na".to_vec()] {
            let answer = caller.ask(request).await;
            assert_eq!((answer.status(), answer.field("x-pratfall").as_deref()), (status, Some(mark)), "{name}");
            assert!(answer.text().starts_with("pratfall: "));
        }
        caller.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(caller.answer(true).await.status(), status, "{name}: HEAD");
        assert_eq!(caller.ask(get("/", "")).await.status(), status, "{name}: after HEAD");
    }
    silent.until_ended(4).await;
    assert_eq!(closing.seen().len(), 4, "a fresh connection that breaks is no reason to ask again");
}

#[tokio::test]
async fn interim_answers_are_not_the_answer() {
    let origin = Origin::answering(
        [&b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"[..], &ok("real")].concat(),
    )
    .await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    for _ in 0..2 {
        let answer = caller.ask(get("/", "")).await;
        assert_eq!((answer.status(), answer.text().as_str(), answer.field("link")), (200, "real", None));
    }
}
