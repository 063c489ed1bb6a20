//! Interim answers: who expects 100 hears the upstream's own word, and early hints go on where the listener says so.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use pratfall::proxy::ListenerConfig;
use pratfall::proxy::config::Scheme;
use tokio::time::Instant;

use crate::support::h2::{nothing, whole};
use crate::support::stage::target;
use crate::support::{End, H2Origin, Origin, Stage, get, listener, ok, until};

const EXPECTING: &str = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-Continue\r\ncontent-length: 3\r\n\r\n";
const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nlink: </b>\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\n";

fn hinting(origin: &Origin) -> ListenerConfig {
    ListenerConfig { early_hints: true, ..listener("front", origin.address) }
}

#[tokio::test]
async fn the_upstream_is_asked_and_the_body_waits_for_its_word() {
    let (go, gone) = tokio::sync::watch::channel(false);
    let origin = Origin::scripted(move |mut visit| {
        let mut gone = gone.clone();
        async move {
            while let Some(mut request) = visit.head().await {
                visit.remember(&request);
                gone.wait_for(|go| *go).await.expect("the test waits");
                assert!(visit.wire.is_silent(), "the body came before it was asked for");
                visit.wire.send("HTTP/1.1 100 Continue\r\n\r\n").await;
                visit.wire.body(&mut request).await;
                visit.wire.send(ok(&request.text())).await;
            }
        }
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    caller.send(EXPECTING).await;
    origin.until_asked(1).await;
    assert_eq!(origin.last().field("expect").as_deref(), Some("100-continue"));
    assert_eq!(origin.last().field("content-length").as_deref(), Some("3"));
    assert!(caller.is_silent(), "100 was said before the upstream did");
    go.send(true).unwrap();
    for _ in 0..2 {
        assert_eq!(caller.head().await.expect("an interim answer").start(), "HTTP/1.1 100 Continue");
        caller.send("abc").await;
        assert_eq!(caller.answer(false).await.text(), "abc");
        caller.send(EXPECTING).await;
    }
    assert_eq!(origin.connections(), 1, "the connection is used again");
}

#[tokio::test]
async fn an_upstream_that_refuses_unread_is_heard_and_the_body_never_asked_for() {
    for refusal in [
        "HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\n\r\nno",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno",
    ] {
        let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let origin = Origin::scripted(move |mut visit| {
            let said = said.clone();
            async move {
                let Some(head) = visit.head().await else { return };
                if head.start().starts_with("GET") {
                    let last = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                    return visit.wire.send(last).await;
                }
                visit.wire.send(refusal).await;
                let _ = said.send(visit.wire.rest().await.0);
            }
        })
        .await;
        let stage = Stage::before(origin.address).await;
        for body in ["", "abc"] {
            // Some do not wait for the word that they asked for.
            let mut caller = stage.front().await;
            caller.send(format!("{EXPECTING}{body}")).await;
            let answer = caller.answer(false).await;
            assert!(refusal.starts_with(&answer.start()), "the first answer is {}", answer.start());
            assert_eq!((answer.text().as_str(), answer.field("connection").as_deref()), ("no", Some("close")));
            assert_eq!(caller.rest().await, (vec![], End::Fin));
            // The next request has a connection of its own, and the other is over, without a body.
            stage.front().await.ask(get("/", "")).await;
            assert_eq!(heard.recv().await, Some(vec![]), "{body:?} went up");
        }
        assert_eq!(origin.connections(), 4);
    }
}

#[tokio::test]
async fn an_upstream_that_never_says_100_gets_the_body_after_a_second() {
    let origin = Origin::replying(|request| ok(&request.text())).await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    caller.send(EXPECTING).await;
    let begun = Instant::now();
    assert_eq!(caller.head().await.expect("an interim answer").status(), 100);
    assert!(begun.elapsed() >= Duration::from_millis(900));
    caller.send("abc").await;
    assert_eq!(caller.answer(false).await.text(), "abc");
}

#[tokio::test]
async fn a_body_that_comes_unasked_is_sent_on() {
    let origin = Origin::scripted(|mut visit| async move {
        let mut request = visit.head().await.expect("a request");
        visit.wire.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        visit.wire.body(&mut request).await;
        visit.wire.send(ok(&request.text())).await;
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    caller.send(format!("{EXPECTING}abc")).await;
    let first = caller.head().await.expect("an answer");
    let answer = if first.status() == 100 { caller.answer(false).await } else { panic!("100 was swallowed") };
    assert_eq!(answer.text(), "abc");
}

#[tokio::test]
async fn an_expectation_without_a_body_or_of_http_1_0_or_for_h2_means_nothing() {
    let origin = Origin::replying(|request| ok(&request.text())).await;
    let stage = Stage::before(origin.address).await;
    let answer = stage.front().await.ask(get("/", "expect: 100-continue\r\n")).await;
    assert_eq!((answer.status(), origin.last().field("expect")), (200, None));
    let mut old = stage.front().await;
    let old = old.ask("POST / HTTP/1.0\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabc").await;
    assert_eq!((old.text().as_str(), origin.last().field("expect")), ("abc", None));
    let h2 = H2Origin::replying(|asked| async move { Response::new(whole(asked.body)) }).await;
    let mut to_h2 = listener("front", h2.address);
    to_h2.upstream = Some(target(Scheme::H2c, h2.address));
    let stage = Stage::start(vec![to_h2], 1).await;
    let mut caller = stage.front().await;
    caller.send(EXPECTING).await;
    assert_eq!(caller.head().await.expect("an interim answer").status(), 100);
    caller.send("abc").await;
    assert_eq!(caller.answer(false).await.text(), "abc");
    assert!(!h2.last().headers.contains_key("expect"));
}

#[tokio::test]
async fn a_caller_that_leaves_while_it_waits_for_100_is_felt_by_the_upstream() {
    let origin = Origin::scripted(|mut visit| async move {
        let head = visit.head().await.expect("a request");
        visit.remember(&head);
        visit.ended().await;
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    caller.send(EXPECTING).await;
    origin.until_asked(1).await;
    drop(caller);
    origin.until_ended(1).await;
}

#[tokio::test]
async fn early_hints_go_on_before_the_answer_is_there() {
    let (go, gone) = tokio::sync::watch::channel(false);
    let origin = Origin::scripted(move |mut visit| {
        let mut gone = gone.clone();
        async move {
            while let Some(request) = visit.request().await {
                visit.wire.send([b"HTTP/1.1 100 Continue\r\n\r\n", HINTS].concat()).await;
                gone.wait_for(|go| *go).await.expect("the test waits");
                visit.wire.send(ok(&request.text())).await;
            }
        }
    })
    .await;
    let stage = Stage::start(vec![hinting(&origin)], 1).await;
    let mut caller = stage.front().await;
    for request in [get("/", ""), b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc".to_vec()] {
        go.send(false).unwrap();
        caller.send(&request).await;
        let hints = caller.head().await.expect("hints");
        assert_eq!(hints.start(), "HTTP/1.1 103 Early Hints");
        assert_eq!(
            (hints.all("link"), hints.all("x-hop"), hints.all("connection")),
            (vec!["</a>".to_owned(), "</b>".to_owned()], vec![], vec![])
        );
        go.send(true).unwrap();
        assert_eq!(caller.answer(false).await.status(), 200);
    }
}

#[tokio::test]
async fn early_hints_are_for_nobody_who_cannot_read_them() {
    let origin = Origin::answering([HINTS, &ok("real")].concat()).await;
    let stage = Stage::start(vec![hinting(&origin), listener("usual", origin.address)], 1).await;
    let mut old = stage.front().await;
    old.send("GET / HTTP/1.0\r\nhost: a\r\n\r\n").await;
    let (all, _) = old.rest().await;
    assert!(!String::from_utf8_lossy(&all).contains("103"), "{}", String::from_utf8_lossy(&all));
    let answer = stage.h2("front").await.send(Request::get("http://a/").body(nothing()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer = stage.call("usual").await.ask(get("/", "")).await;
    assert_eq!((answer.status(), answer.text().as_str()), (200, "real"), "the listener does not say `early_hints`");
}

#[tokio::test]
async fn more_early_hints_than_the_caller_takes_are_dropped_and_the_answer_comes() {
    let hint = format!("HTTP/1.1 103 Early Hints\r\nlink: <{}>\r\n\r\n", "a".repeat(2000)).repeat(4000);
    let origin =
        Origin::replying(move |_| format!("{hint}HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nreal").into()).await;
    let stage = Stage::start(vec![hinting(&origin)], 1).await;
    let mut caller = stage.front().await;
    caller.send(get("/", "")).await;
    // Nobody reads until all of them have come and gone.
    until("the answer is on its way", || stage.proxy.at(0).totals().answers.iter().sum::<u64>() == 1).await;
    loop {
        let mut answer = caller.head().await.expect("the answer comes");
        if answer.status() == 200 {
            caller.body(&mut answer).await;
            return assert_eq!(answer.text(), "real");
        }
    }
}

#[tokio::test]
async fn early_hints_of_a_second_request_come_after_the_first_answer() {
    const LARGE: usize = 4 << 20;
    let body = Bytes::from(vec![b'a'; LARGE]);
    let origin = Origin::replying(move |request| {
        if request.start().contains("/large") {
            ok(std::str::from_utf8(&body).unwrap())
        } else {
            [HINTS, &ok("real")].concat()
        }
    })
    .await;
    let stage = Stage::start(vec![hinting(&origin)], 1).await;
    let mut caller = stage.front().await;
    caller.send([get("/large", ""), get("/hints", "")].concat()).await;
    origin.until_asked(1).await;
    let large = caller.answer(false).await;
    assert!(large.body.len() == LARGE && large.body.iter().all(|byte| *byte == b'a'));
    let mut next = caller.head().await.expect("an answer");
    if next.status() == 103 {
        next = caller.head().await.expect("an answer");
    }
    assert_eq!(next.status(), 200);
}
