//! Upgrades: what begins as a request and goes on as bytes.

use pratfall::proxy::ListenerConfig;
use pratfall::proxy::config::{ListenerTls, Scheme, Target, UpstreamTls};
use pratfall::units::Span;
use tokio::sync::watch;

use crate::support::tls::{Authority, BOTH, call, upstream};
use crate::support::{End, Origin, Stage, get, listener, ok, until};

const ASKING: &str = "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
                      sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                         sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Switches, and then says back what it hears until nothing more comes; then `bye`.
async fn echo() -> Origin {
    Origin::scripted(|mut visit| async move {
        let Some(request) = visit.request().await else { return };
        visit.remember(&request);
        visit.wire.send(format!("{SWITCHING}first")).await;
        while let Some(word) = visit.wire.some().await {
            visit.wire.send(word).await;
        }
        visit.wire.send("bye").await;
    })
    .await
}

#[tokio::test]
async fn a_websocket_goes_both_ways_and_each_end_is_passed_on() {
    let origin = echo().await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    caller.send(ASKING).await;
    let answer = caller.head().await.expect("an answer");
    assert_eq!(answer.start(), "HTTP/1.1 101 Switching Protocols");
    assert_eq!(answer.field("upgrade").as_deref(), Some("websocket"));
    assert_eq!(answer.field("connection").map(|listed| listed.to_lowercase()).as_deref(), Some("upgrade"));
    assert!(answer.field("sec-websocket-accept").is_some());
    let asked = origin.last();
    assert_eq!(
        (asked.field("upgrade").as_deref(), asked.field("connection").as_deref()),
        (Some("websocket"), Some("upgrade"))
    );
    assert!(asked.field("sec-websocket-key").is_some());
    assert_eq!(caller.exactly(5).await, b"first", "what came with the head");
    for word in ["one", "two"] {
        caller.send(word).await;
        assert_eq!(caller.exactly(3).await, word.as_bytes());
    }
    let large = vec![7; 100_000];
    caller.send(&large).await;
    assert_eq!(caller.exactly(large.len()).await, large);
    assert_eq!(stage.proxy.connections(), 1, "a tunnel is a connection");
    caller.finish().await;
    assert_eq!(caller.rest().await, (b"bye".to_vec(), End::Fin), "the other direction stays open until it ends");
    until("the tunnel is over", || stage.proxy.connections() == 0).await;
}

#[tokio::test]
async fn an_upstream_that_ends_first_still_hears() {
    let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::scripted(move |mut visit| {
        let said = said.clone();
        async move {
            let _ = visit.request().await;
            visit.wire.send(SWITCHING).await;
            visit.wire.finish().await;
            let _ = said.send(visit.wire.rest().await);
        }
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    caller.send(ASKING).await;
    assert_eq!(caller.head().await.expect("an answer").status(), 101);
    assert_eq!(caller.rest().await, (vec![], End::Fin));
    caller.send("still here").await;
    caller.finish().await;
    assert_eq!(heard.recv().await, Some((b"still here".to_vec(), End::Fin)));
}

#[tokio::test]
async fn an_abort_on_one_side_is_an_abort_on_the_other() {
    let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::scripted(move |mut visit| {
        let said = said.clone();
        async move {
            let Some(request) = visit.request().await else { return };
            visit.wire.send(format!("{SWITCHING}first")).await;
            if request.start().contains("/chat") {
                let _ = said.send(visit.wire.rest().await.1);
            } else {
                visit.wire.exactly(2).await;
                visit.wire.reset();
            }
        }
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    caller.send(ASKING).await;
    assert_eq!(caller.head().await.expect("an answer").status(), 101);
    assert_eq!(caller.exactly(5).await, b"first");
    caller.reset();
    assert_eq!(heard.recv().await, Some(End::Reset));
    let mut caller = stage.front().await;
    caller.send(ASKING.replace("/chat", "/gone")).await;
    assert_eq!(caller.head().await.expect("an answer").status(), 101);
    assert_eq!(caller.exactly(5).await, b"first");
    caller.send("go").await;
    assert_eq!(caller.rest().await, (vec![], End::Reset));
    until("all is over", || stage.proxy.connections() == 0).await;
}

#[tokio::test]
async fn an_upstream_that_does_not_switch_just_answers() {
    let origin = Origin::answering(
        "HTTP/1.1 426 Upgrade Required\r\nupgrade: other\r\nconnection: upgrade\r\ncontent-length: 2\r\n\r\nno",
    )
    .await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    for _ in 0..2 {
        let answer = caller.ask(ASKING).await;
        assert_eq!((answer.status(), answer.text().as_str(), answer.end), (426, "no", End::Whole));
        assert_eq!((answer.field("upgrade"), answer.field("connection")), (None, None));
    }
    assert_eq!(origin.connections(), 1, "it is an exchange like any other");
}

#[tokio::test]
async fn what_is_no_upgrade_is_no_tunnel() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    for fields in [
        "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
        "connection: upgrade\r\nupgrade: H2C, websocket\r\n",
        "connection: upgrade\r\nupgrade: h2c\r\nupgrade: websocket\r\n",
        "connection: upgrade\r\n",
        "upgrade: websocket\r\n",
    ] {
        assert_eq!(caller.ask(get("/", fields)).await.text(), "hello", "{fields}");
        let asked = origin.last();
        for gone in ["upgrade", "connection", "http2-settings"] {
            assert!(asked.all(gone).is_empty(), "{fields}: {gone} went up");
        }
    }
    let old = ASKING.replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(stage.front().await.ask(old).await.status(), 200);
    assert!(origin.last().all("upgrade").is_empty());
}

#[tokio::test]
async fn a_switch_that_nobody_asked_for_is_a_broken_upstream() {
    let origin = Origin::scripted(|mut visit| async move {
        let _ = visit.request().await;
        visit.wire.send(SWITCHING).await;
        visit.ended().await;
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    for _ in 0..2 {
        let answer = caller.ask(get("/", "")).await;
        assert_eq!((answer.status(), answer.field("x-pratfall").as_deref()), (502, Some("proxy; error=broken")));
    }
    origin.until_ended(2).await;
}

#[tokio::test]
async fn no_timeout_ends_a_quiet_tunnel_and_it_counts_as_open() {
    let (go, gone) = watch::channel(false);
    let origin = Origin::scripted(move |mut visit| {
        let mut gone = gone.clone();
        async move {
            let Some(request) = visit.request().await else { return };
            if !request.start().contains("/chat") {
                return visit.wire.send(ok("")).await;
            }
            visit.wire.send(SWITCHING).await;
            gone.wait_for(|go| *go).await.expect("the test waits");
            visit.wire.send("late").await;
        }
    })
    .await;
    let mut front = listener("front", origin.address);
    let short = Span::millis(250);
    front.timeouts.idle = short;
    front.timeouts.request_header = short;
    front.timeouts.response = Span::millis(500);
    front.timeouts.body_stall = short;
    let stage = Stage::start(vec![front], 1).await;
    let mut caller = stage.front().await;
    caller.send(ASKING).await;
    assert_eq!(caller.head().await.expect("an answer").status(), 101);
    caller.send("half a wo").await;
    for _ in 0..3 {
        assert_eq!(stage.front().await.rest().await.1, End::Fin, "others are sent away meanwhile");
    }
    assert_eq!(stage.proxy.connections(), 1);
    go.send(true).expect("the origin waits");
    assert_eq!(caller.exactly(4).await, b"late");
}

#[tokio::test]
async fn a_tunnel_goes_through_tls_on_both_sides() {
    let authority = Authority::new();
    let files = authority.vouch(&["shop.example"]);
    let config = Authority::upstream(&files, &["h2", "http/1.1"], None);
    let address = upstream(config, |mut visit| async move {
        assert_ne!(visit.stream().get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "nothing can be upgraded there");
        let Some(request) = visit.head().await else { return };
        visit.send(format!("{SWITCHING}first")).await;
        if request.start().contains("/abort") {
            visit.exactly(2).await;
            return; // without close_notify
        }
        while let Some(word) = visit.some().await {
            visit.send(word).await;
        }
        visit.send("bye").await;
        visit.finish().await;
    })
    .await;
    let mut front = listener("front", address);
    front.upstream = Some(Target { scheme: Scheme::Https, host: "127.0.0.1".to_owned(), port: address.port() });
    let server_name = Some("shop.example".to_owned());
    front.upstream_tls = Some(UpstreamTls { ca: Some(authority.file()), server_name, ..UpstreamTls::default() });
    let tls = Some(ListenerTls { cert: files.cert, key: files.key, client_ca: None });
    let secret = ListenerConfig { name: "secret".to_owned(), tls, ..front };
    let stage = Stage::start(vec![secret], 1).await;
    let callers = authority.caller(BOTH, &[], None);
    let mut caller = call(stage.address("secret"), &callers).await.unwrap();
    caller.send(ASKING).await;
    assert_eq!(caller.head().await.expect("an answer").status(), 101);
    assert_eq!(caller.exactly(5).await, b"first");
    caller.send("one").await;
    assert_eq!(caller.exactly(3).await, b"one");
    caller.finish().await;
    assert_eq!(caller.rest().await, (b"bye".to_vec(), End::Fin), "both ends are told with close_notify");
    let mut caller = call(stage.address("secret"), &callers).await.unwrap();
    caller.send(ASKING.replace("/chat", "/abort")).await;
    assert_eq!(caller.head().await.expect("an answer").status(), 101);
    assert_eq!(caller.exactly(5).await, b"first");
    caller.send("go").await;
    assert_eq!(caller.rest().await, (vec![], End::Reset));
}
