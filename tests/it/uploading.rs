//! Uploads that meet a fault: whoever sends them learns what became of them, and may go on.

use http::Method;
use pratfall::units::Span;

use crate::answering::twice;
use crate::support::stage::matching;
use crate::support::{Origin, Stage, everybody, get, listener};

#[tokio::test]
async fn a_caller_that_stands_still_is_told_so_whatever_its_upload_meets() {
    for fault in [
        "duplicate: {}",
        "latency: { delay: 1ms }",
        "throttle: { rate: 1MiB/s, direction: request }",
        "body: { corrupt: 1%, direction: request }",
    ] {
        let origin = Origin::scripted(|mut visit| async move {
            visit.head().await.expect("a request");
            visit.ended().await;
        })
        .await;
        let mut front = listener("front", origin.address);
        front.timeouts.body_stall = Span::millis(20);
        let stage = Stage::start(vec![front], 1).await;
        let run = stage.enroll_with(everybody(fault), |terms| terms.limits = twice(&[Method::POST]));
        let _injection = run.inject();
        let mut caller = stage.front().await;
        caller.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc").await;
        let answer = caller.answer(false).await;
        let seen = (answer.status(), answer.field("x-pratfall"));
        assert_eq!(seen, (408, Some("proxy; error=upload".to_owned())), "{fault}");
        origin.until_ended(1).await;
    }
}

#[tokio::test]
async fn who_is_answered_before_the_upload_is_over_may_ask_again_or_is_told_that_the_connection_ends() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let mut experiment = everybody("error: { status: 503 }");
    experiment.inject.matches = matching("/e");
    let run = stage.enroll(experiment);
    let _injection = run.inject();
    let plain = String::from_utf8(get("/plain", "")).expect("text");
    for (head, body, lives) in [
        ("transfer-encoding: chunked", "5\r\nhello\r\n0\r\n\r\n", true),
        ("content-length: 5", "hello", true),
        ("expect: 100-continue\r\ncontent-length: 5", "", false),
        ("content-length: 9999999", "hello", false),
    ] {
        for at_once in [true, false] {
            let mut caller = stage.front().await;
            let head = format!("POST /e HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\n");
            if at_once {
                caller.send(format!("{head}{body}")).await;
            } else {
                caller.send(head).await;
            }
            let answer = caller.answer(false).await;
            assert_eq!(answer.status(), 503);
            assert_eq!(answer.field("connection").as_deref(), (!lives).then_some("close"), "{body}");
            if lives {
                caller.send(if at_once { plain.clone() } else { format!("{body}{plain}") }).await;
                assert_eq!(caller.answer(false).await.text(), "hello");
            }
        }
    }
}
