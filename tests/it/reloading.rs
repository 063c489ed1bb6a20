//! Other listeners while the traffic flows.

use std::net::SocketAddr;

use pratfall::proxy::ListenerConfig;

use crate::support::{Origin, Stage, closed, everybody, get, listener, ok, until, within};

/// An address that can be bound more than once. Outgoing connections of other tests do not take ports of this network.
fn free() -> SocketAddr {
    let socket = std::net::TcpListener::bind("127.0.0.77:0").expect("there are ports");
    socket.local_addr().expect("it is bound")
}

/// Listens where another did, or does.
fn at(config: ListenerConfig, bind: SocketAddr) -> ListenerConfig {
    ListenerConfig { bind, ..config }
}

#[tokio::test]
async fn another_upstream_is_used_from_the_next_request_on_and_no_connection_is_lost() {
    let (old, new) = (Origin::answering(ok("old")).await, Origin::answering(ok("new")).await);
    let stage = Stage::start(vec![listener("front", old.address)], 2).await;
    let (place, address) = stage.proxy.find("front").expect("it is there");
    let mut callers = Vec::new();
    for _ in 0..4 {
        let mut caller = stage.front().await;
        assert_eq!(caller.ask(get("/", "")).await.text(), "old");
        callers.push(caller);
    }
    stage.proxy.reload(vec![listener("front", new.address)]).await.expect("it can be had");
    assert_eq!(stage.proxy.find("front"), Some((place, address)), "the same place, the same port");
    for caller in &mut callers {
        within("the next request", async {
            // Each worker is told in its turn.
            while caller.ask(get("/", "")).await.text() != "new" {}
        })
        .await;
    }
    assert_eq!(stage.proxy.connections(), 4);
}

#[tokio::test]
async fn a_listener_comes_and_goes_and_whoever_is_under_way_is_answered() {
    let (go, gone) = tokio::sync::watch::channel(false);
    let slow = Origin::scripted(move |mut visit| {
        let mut gone = gone.clone();
        async move {
            while visit.request().await.is_some() {
                gone.wait_for(|go| *go).await.expect("the test waits");
                visit.wire.send(ok("late")).await;
            }
        }
    })
    .await;
    let quick = Origin::answering(ok("quick")).await;
    let stage = Stage::before(slow.address).await;
    let (place, address) = stage.proxy.find("front").expect("it is there");
    let mut busy = stage.front().await;
    busy.send(get("/", "")).await;
    slow.until_asked(1).await;

    stage.proxy.reload(vec![listener("back", quick.address)]).await.expect("it can be had");
    assert_eq!(stage.call("back").await.ask(get("/", "")).await.text(), "quick");
    closed(address).await;
    assert_eq!(stage.proxy.find("front"), None);
    assert_eq!(stage.proxy.at(place).name, "front", "whoever knew its place finds it there");
    assert_ne!(stage.proxy.find("back").expect("it is there").0, place, "no place is given twice");
    go.send(true).expect("the origin waits");
    assert_eq!(busy.answer(false).await.text(), "late");
    busy.rest().await;
}

#[tokio::test]
async fn an_address_that_cannot_be_had_changes_nothing() {
    let (old, new) = (Origin::answering(ok("old")).await, Origin::answering(ok("new")).await);
    let stage = Stage::between(old.address, old.address).await;
    let before: Vec<_> = ["front", "inventory"].map(|name| stage.proxy.find(name)).into();
    let taken = at(listener("inventory", new.address), new.address);
    let error = stage.proxy.reload(vec![listener("front", new.address), taken]).await.expect_err("it is taken");
    assert!(error.to_string().contains("inventory") && error.to_string().contains("in use"), "{error}");
    let after: Vec<_> = ["front", "inventory"].map(|name| stage.proxy.find(name)).into();
    assert_eq!(before, after);
    assert_eq!(stage.front().await.ask(get("/", "")).await.text(), "old");
}

#[tokio::test]
async fn another_address_is_bound_before_the_old_one_is_left() {
    let origin = Origin::well().await;
    let (one, two) = (free(), free());
    let stage = Stage::start(vec![at(listener("front", origin.address), one)], 1).await;
    let mut idle = stage.front().await;
    assert_eq!(idle.ask(get("/", "")).await.status(), 200);
    stage.proxy.reload(vec![at(listener("front", origin.address), two)]).await.expect("it can be had");
    assert_eq!(stage.address("front"), two);
    assert_eq!(stage.front().await.ask(get("/", "")).await.status(), 200);
    within("the old connection's end", idle.rest()).await;
    closed(one).await;
}

#[tokio::test]
async fn two_listeners_can_change_places() {
    let (one, two) = (Origin::answering(ok("one")).await, Origin::answering(ok("two")).await);
    let (here, there) = (free(), free());
    let system =
        |first, second| vec![at(listener("front", one.address), first), at(listener("inventory", two.address), second)];
    let stage = Stage::start(system(here, there), 1).await;
    stage.proxy.reload(system(there, here)).await.expect("each gives its address to the other");
    assert_eq!((stage.address("front"), stage.address("inventory")), (there, here));
    assert_eq!(stage.front().await.ask(get("/", "")).await.text(), "one");
    assert_eq!(stage.call("inventory").await.ask(get("/", "")).await.text(), "two");
}

#[tokio::test]
async fn a_listener_that_comes_during_a_run_knows_it_and_forgets_it_with_the_others() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let run = stage.enroll(everybody("error: { status: 503 }"));
    let both = vec![listener("front", origin.address), listener("back", origin.address)];
    stage.proxy.reload(both).await.expect("it can be had");
    let runs = || stage.proxy.listeners().iter().map(|listener| listener.trials().len()).collect::<Vec<_>>();
    assert_eq!(runs(), [1, 1]);
    let _injection = run.inject();
    assert_eq!(stage.front().await.ask(get("/", "")).await.status(), 503);
    assert_eq!(stage.call("back").await.ask(get("/", "")).await.status(), 200);
    drop(run);
    until("nobody knows it", || runs() == [0, 0]).await;
    assert_eq!(stage.front().await.ask(get("/", "")).await.status(), 200);
}
