//! Callers that take their time: for a head, between requests, or for ever.

use pratfall::units::Span;

use crate::support::{End, Origin, Stage, get, listener, ok, until};

/// A proxy whose callers have so long for a head, and so long between requests.
async fn patient(origin: &Origin, head: Span, idle: Span) -> Stage {
    let mut front = listener("front", origin.address);
    (front.timeouts.request_header, front.timeouts.idle) = (head, idle);
    Stage::start(vec![front], 1).await
}

#[tokio::test]
async fn who_says_nothing_is_sent_away_after_a_while() {
    let origin = Origin::well().await;
    let stage = patient(&origin, Span::secs(3600), Span::millis(30)).await;
    let mut silent = stage.front().await;
    assert_eq!(silent.rest().await, (vec![], End::Fin));
    let mut caller = stage.front().await;
    assert_eq!(caller.ask(get("/", "")).await.text(), "hello");
    assert_eq!(caller.rest().await, (vec![], End::Fin));
    let _h2 = stage.h2("front").await;
    assert_eq!(_h2.get("/").await.expect("an answer").1, "hello");
    until("all are gone", || stage.proxy.connections() == 0).await;
}

#[tokio::test]
async fn half_a_head_is_not_waited_for_and_an_idle_connection_is() {
    let origin = Origin::well().await;
    let stage = patient(&origin, Span::millis(200), Span::secs(3600)).await;
    let mut idle = stage.front().await;
    assert_eq!(idle.ask(get("/", "")).await.text(), "hello");
    let h2 = stage.h2("front").await;
    assert_eq!(h2.get("/").await.expect("an answer").1, "hello");
    for begun in ["G", "GET / HTTP/1.1\r\nhost: a\r\n", "PRI * HTTP/2.0\r\n"] {
        let mut slow = stage.front().await;
        slow.send(begun).await;
        assert_eq!(slow.rest().await.1, End::Fin, "{begun:?}");
        let mut slow = stage.front().await;
        assert_eq!(slow.ask(get("/", "")).await.text(), "hello");
        slow.send(begun).await;
        assert_ne!(slow.rest().await.1, End::Whole, "{begun:?}, as the second");
    }
    assert_eq!(idle.ask(get("/", "")).await.text(), "hello", "it has waited longer than a head may take");
    assert_eq!(h2.get("/").await.expect("an answer").1, "hello");
}

#[tokio::test]
async fn a_quiet_answer_keeps_its_connection() {
    let (go, gone) = tokio::sync::watch::channel(false);
    let origin = Origin::scripted(move |mut visit| {
        let mut gone = gone.clone();
        async move {
            visit.request().await;
            visit.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello").await;
            gone.wait_for(|go| *go).await.expect("the test waits");
            visit.wire.send("last").await;
            visit.request().await;
            visit.wire.send(ok("")).await;
        }
    })
    .await;
    let stage = patient(&origin, Span::millis(30), Span::millis(30)).await;
    let mut caller = stage.front().await;
    caller.send(get("/", "")).await;
    let mut answer = caller.head().await.expect("the head comes");
    assert_eq!(caller.exactly(5).await, b"hello");
    for _ in 0..3 {
        assert_eq!(stage.front().await.rest().await.1, End::Fin, "others are sent away meanwhile");
    }
    go.send(true).expect("the origin waits");
    assert_eq!(caller.exactly(4).await, b"last");
    answer.end = End::Whole;
    assert_eq!(caller.ask(get("/", "")).await.status(), 200);
}
