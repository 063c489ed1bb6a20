//! Whatever the way out of a run: who is held is let go at once, and no fault stays on.

use std::time::Duration;

use pratfall::measure::{Note, Phase};
use tokio::time::Instant;

use crate::support::{Origin, Stage, everybody, get, until, within};

/// Far below the hour that is asked for, far above what letting go takes on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn dropping_the_injection_lets_a_hundred_held_requests_go_to_the_upstream() {
    for workers in [1, 2] {
        let origin = Origin::well().await;
        let stage = Stage::start(vec![crate::support::listener("front", origin.address)], workers).await;
        let mut run = stage.enroll(everybody("latency: { delay: 1h }"));
        let injection = run.inject();
        let mut callers = Vec::new();
        for _ in 0..100 {
            let mut caller = stage.front().await;
            caller.send(get("/", "")).await;
            callers.push(caller);
        }
        until("a hundred are held", || run.trial.held() == 100).await;
        assert!(origin.seen().is_empty());
        let start = Instant::now();
        drop(injection);
        for caller in &mut callers {
            assert_eq!(caller.answer(false).await.text(), "hello");
        }
        assert!(start.elapsed() < AT_ONCE);
        assert_eq!((run.trial.held(), origin.seen().len()), (0, 100));
        run.tally("all were released", |tally| tally.operations.released == 100).await;
    }
}

#[tokio::test]
async fn closing_stops_new_faults_and_leaves_the_held() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let mut run = stage.enroll(everybody("latency: { delay: 1h }"));
    let injection = run.inject();
    let mut held = stage.front().await;
    held.send(get("/held", "")).await;
    until("one is held", || run.trial.held() == 1).await;
    injection.close();
    let mut late = stage.front().await;
    assert_eq!(late.ask(get("/late", "")).await.text(), "hello");
    assert!(held.is_silent() && run.trial.held() == 1);
    run.tally("the late one is spared", |tally| tally.noted(Note::SparedEnded) == 1).await;
    drop(injection);
    assert_eq!(held.answer(false).await.text(), "hello");
}

#[tokio::test]
async fn a_run_that_is_no_longer_enrolled_touches_nobody() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let run = stage.enroll(everybody("error: { status: 503 }"));
    let injection = run.inject();
    let mut caller = stage.front().await;
    assert_eq!(caller.ask(get("/", "")).await.status(), 503);
    drop(run.enrolled);
    assert_eq!(caller.ask(get("/", "baggage: pratfall=1.t.1\r\n")).await.status(), 200);
    assert_eq!(origin.last().field("baggage").as_deref(), Some("pratfall=1.t.1"), "no run is live");
    drop(injection);
}

#[tokio::test]
async fn an_operation_that_arrived_in_baseline_is_not_faulted_later() {
    let (front, inventory) = (Origin::well().await, Origin::well().await);
    let stage = Stage::between(front.address, inventory.address).await;
    let mut experiment = everybody("error: { status: 503 }");
    experiment.inject.at = "inventory".to_owned();
    let mut run = stage.enroll(experiment);
    let mark = async |caller: &mut crate::support::Wire| {
        caller.ask(get("/", "")).await;
        front.last().field("baggage").expect("it is treated")
    };
    let mut caller = stage.front().await;
    let early = mark(&mut caller).await;
    let injection = run.inject();
    let later = mark(&mut caller).await;
    let mut call = stage.call("inventory").await;
    assert_eq!(call.ask(get("/", &format!("baggage: {early}\r\n"))).await.status(), 200);
    assert_eq!(call.ask(get("/", &format!("baggage: {later}\r\n"))).await.status(), 503);
    run.trial.begin(Phase::Recovery);
    assert_eq!(call.ask(get("/", &format!("baggage: {later}\r\n"))).await.status(), 503, "the fault is still on");
    drop(injection);
    assert_eq!(call.ask(get("/", &format!("baggage: {later}\r\n"))).await.status(), 200);
    run.tally("both were spared", |tally| tally.noted(Note::SparedEnded) == 2).await;
}

#[tokio::test]
async fn a_caller_that_leaves_ends_the_hold_and_the_upstream_is_not_called() {
    let uploads = [
        "content-length: 3\r\n\r\nabc",
        "content-length: 9\r\n\r\nabc",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ];
    let requests = uploads.map(|upload| format!("POST / HTTP/1.1\r\nhost: a\r\n{upload}").into_bytes());
    for request in [get("/", "")].into_iter().chain(requests) {
        let origin = Origin::well().await;
        let stage = Stage::before(origin.address).await;
        let mut run = stage.enroll(everybody("latency: { delay: 1h }"));
        let _injection = run.inject();
        let mut caller = stage.front().await;
        caller.send(&request).await;
        until("it is held", || run.trial.held() == 1).await;
        drop(caller);
        until("it is held no more", || run.trial.held() == 0).await;
        run.tally("it left", |tally| tally.operations.left_after_ms.len() == 1).await;
        assert!(origin.seen().is_empty(), "{}", String::from_utf8_lossy(&request));
    }
}

#[tokio::test]
async fn an_upload_that_was_held_arrives_whole() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let run = stage.enroll(everybody("latency: { delay: 1h }"));
    let injection = run.inject();
    let body: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut caller = stage.front().await;
    caller.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len())).await;
    let sending = tokio::spawn(async move {
        caller.send(body).await;
        caller
    });
    until("it is held", || run.trial.held() == 1).await;
    drop(injection);
    let mut caller = within("the upload", sending).await.unwrap();
    assert_eq!(caller.answer(false).await.text(), "hello");
    let asked = origin.last();
    assert_eq!(asked.field("content-length").as_deref(), Some("1000000"));
    assert!(asked.body.iter().enumerate().all(|(n, byte)| *byte == (n % 251) as u8) && asked.body.len() == 1_000_000);
}

#[tokio::test]
async fn draining_lets_requests_finish_and_ends_idle_connections() {
    let (go, gone) = tokio::sync::watch::channel(false);
    let origin = Origin::scripted(move |mut visit| {
        let mut gone = gone.clone();
        async move {
            while visit.request().await.is_some() {
                gone.wait_for(|go| *go).await.expect("the test waits");
                visit.wire.send(crate::support::ok("hello")).await;
            }
        }
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let mut idle = stage.front().await;
    let mut fresh = stage.front().await;
    idle.send("OPTIONS").await;
    let mut busy = stage.front().await;
    busy.send(get("/", "")).await;
    origin.until_asked(1).await;
    until("all three are there", || stage.proxy.connections() == 3).await;
    let draining = stage.proxy.drain(Duration::from_secs(60));
    let others = async {
        fresh.rest().await;
        go.send(true).expect("the origin waits");
        let answer = busy.answer(false).await;
        assert_eq!(answer.text(), "hello");
        busy.rest().await;
        drop(idle);
    };
    within("draining", async { tokio::join!(draining, others) }).await;
    assert_eq!(stage.proxy.connections(), 0);
}
