//! How a proxy takes its leave: nobody who is under way is left behind.

use std::time::Duration;

use tokio::sync::watch;

use crate::support::{Origin, Stage, Wire, closed, get, listener, ok, within};

#[tokio::test]
async fn a_proxy_that_takes_its_leave_serves_on_and_sends_callers_elsewhere() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let mut known = stage.front().await;
    assert_eq!(known.ask(get("/", "")).await.field("connection"), None);
    stage.proxy.take_leave();
    let last = known.ask(get("/", "")).await;
    assert_eq!((last.status(), last.field("connection").as_deref()), (200, Some("close")));
    within("the connection's end", known.rest()).await;
    let mut fresh = stage.front().await;
    assert_eq!(fresh.ask(get("/", "")).await.status(), 200, "whoever still comes is served");
    assert_eq!(stage.h2("front").await.get("/").await.expect("an answer").1, "hello", "on HTTP/2 as before");
}

#[tokio::test]
async fn an_application_between_two_listeners_reaches_the_second_while_the_first_drains() {
    let inventory = Origin::answering(ok("in stock")).await;
    let (go, gone) = watch::channel(None);
    let application = Origin::scripted(move |mut visit| {
        let mut gone = gone.clone();
        async move {
            while visit.request().await.is_some() {
                let there = gone.wait_for(Option::is_some).await.expect("the test waits").expect("it is some");
                // A connection that nobody had before.
                let answer = Wire::connect(there).await.ask(get("/stock", "")).await;
                visit.wire.send(ok(&answer.text())).await;
            }
        }
    })
    .await;
    let stage = Stage::between(application.address, inventory.address).await;
    let (outer, inner) = (stage.address("front"), stage.address("inventory"));
    let mut caller = stage.front().await;
    caller.send(get("/", "")).await;
    application.until_asked(1).await;
    let draining = stage.proxy.drain(Duration::from_secs(60));
    let others = async {
        closed(outer).await;
        go.send(Some(inner)).expect("the application waits");
        assert_eq!(caller.answer(false).await.text(), "in stock");
        caller.rest().await;
    };
    within("draining", async { tokio::join!(draining, others) }).await;
    assert_eq!(stage.proxy.connections(), 0);
    closed(inner).await;
}

#[tokio::test]
async fn one_grace_is_for_all_listeners_together() {
    let silent = Origin::scripted(|mut visit| async move { while visit.request().await.is_some() {} }).await;
    let system = ["a", "b", "c"].map(|name| listener(name, silent.address));
    let stage = Stage::start(system.into(), 1).await;
    let mut callers = Vec::new();
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        let mut caller = stage.call(name).await;
        caller.send(get("/", "")).await;
        silent.until_asked(number + 1).await;
        callers.push(caller);
    }
    within("draining", stage.proxy.drain(Duration::from_millis(50))).await;
    for name in ["a", "b", "c"] {
        closed(stage.address(name)).await;
    }
}
