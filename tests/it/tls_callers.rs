//! Callers that speak TLS.

use pratfall::proxy::ListenerConfig;
use pratfall::proxy::config::ListenerTls;
use pratfall::units::Span;
use tokio_rustls::rustls::HandshakeKind;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use crate::support::h2::H2Client;
use crate::support::stage::callers;
use crate::support::tls::{Authority, BOTH, call, shake};
use crate::support::{End, Origin, Stage, everybody, get, listener, ok, until, within};

/// A listener with a certificate for `shop.example`.
fn secret(authority: &Authority, origin: &Origin) -> ListenerConfig {
    let files = authority.vouch(&["shop.example"]);
    let tls = Some(ListenerTls { cert: files.cert, key: files.key, client_ca: None });
    ListenerConfig { tls, ..listener("front", origin.address) }
}

#[tokio::test]
async fn both_versions_and_both_protocols_are_spoken() {
    let (authority, origin) = (Authority::new(), Origin::replying(|request| ok(&request.text())).await);
    let stage = Stage::start(vec![secret(&authority, &origin)], 1).await;
    for version in [&TLS12, &TLS13] {
        for alpn in [&[][..], &["http/1.1"], &["http/1.1", "http/1.0"]] {
            let mut caller = call(stage.address("front"), &authority.caller(&[version], alpn, None)).await.unwrap();
            assert_eq!(caller.stream().get_ref().1.protocol_version(), Some(version.version));
            for _ in 0..2 {
                let answer = caller.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc").await;
                assert_eq!((answer.status(), answer.text().as_str()), (200, "abc"));
            }
        }
        let config = authority.caller(&[version], &["h2", "http/1.1"], None);
        let mut caller = call(stage.address("front"), &config).await.unwrap();
        assert_eq!(caller.stream().get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let h2 = H2Client::over(caller.into_stream()).await;
        assert_eq!(h2.get("/").await.unwrap().0.status(), 200);
        assert_eq!(h2.get("/").await.unwrap().0.status(), 200);
    }
    let foreign = call(stage.address("front"), &authority.caller(BOTH, &["spdy/3"], None)).await;
    assert!(foreign.is_err(), "RFC 7301, 3.2: no protocol in common");
}

#[tokio::test]
async fn who_must_show_a_certificate_does_or_is_refused() {
    let (authority, origin) = (Authority::new(), Origin::well().await);
    let mut front = secret(&authority, &origin);
    front.tls.as_mut().unwrap().client_ca = Some(authority.file());
    let stage = Stage::start(vec![front], 1).await;
    let known = authority.vouch(&["caller.example"]);
    let strangers = Authority::new();
    let stranger = strangers.vouch(&["caller.example"]);
    for version in [&TLS12, &TLS13] {
        for (own, taken) in [(Some(&known), true), (None, false), (Some(&stranger), false)] {
            // In TLS 1.3 a caller is through before it hears that it is refused.
            let answered = match call(stage.address("front"), &authority.caller(&[version], &[], own)).await {
                Err(_) => false,
                Ok(mut caller) => caller.try_send(&get("/", "")).await.is_ok() && caller.is_answered_well().await,
            };
            assert_eq!(answered, taken, "{version:?} {own:?}");
        }
    }
    assert_eq!(origin.asked(), 2);
}

#[tokio::test]
async fn a_second_handshake_is_resumed() {
    let (authority, origin) = (Authority::new(), Origin::well().await);
    let stage = Stage::start(vec![secret(&authority, &origin)], 2).await;
    for version in [&TLS12, &TLS13] {
        let config = authority.caller(&[version], &[], None);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let mut caller = call(stage.address("front"), &config).await.unwrap();
            assert_eq!(caller.ask(get("/", "")).await.text(), "hello");
            assert_eq!(caller.stream().get_ref().1.handshake_kind(), Some(expected), "{version:?}");
        }
    }
}

#[tokio::test]
async fn who_speaks_no_tls_is_sent_away_and_others_are_served() {
    let (authority, origin) = (Authority::new(), Origin::well().await);
    let mut front = secret(&authority, &origin);
    front.timeouts.request_header = Span::secs(1);
    let stage = Stage::start(vec![front], 1).await;
    for words in
        [get("/", ""), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), vec![0; 100], b"\x16\x03\x01".to_vec(), vec![]]
    {
        let mut plain = stage.front().await;
        let _ = plain.try_send(&words).await;
        let (heard, _) = plain.rest().await;
        assert!(!String::from_utf8_lossy(&heard).contains("HTTP"), "{words:?}");
        let mut caller = call(stage.address("front"), &authority.caller(BOTH, &[], None)).await.unwrap();
        assert_eq!(caller.ask(get("/", "")).await.text(), "hello");
    }
    assert_eq!(origin.asked(), 5);
    until("all are gone", || stage.proxy.connections() == 0).await;
}

#[tokio::test]
async fn an_idle_connection_may_be_idle_for_longer_than_a_head_takes() {
    let (authority, origin) = (Authority::new(), Origin::well().await);
    let mut front = secret(&authority, &origin);
    front.timeouts.request_header = Span::secs(2);
    let stage = Stage::start(vec![front], 1).await;
    let mut idle = call(stage.address("front"), &authority.caller(BOTH, &[], None)).await.unwrap();
    let mut slow = call(stage.address("front"), &authority.caller(BOTH, &[], None)).await.unwrap();
    slow.send("GET / HT").await;
    let answer = slow.answer(false).await;
    assert_eq!((answer.status(), slow.rest().await), (408, (vec![], End::Fin)), "with close_notify");
    assert_eq!(idle.ask(get("/", "")).await.text(), "hello");
}

#[tokio::test]
async fn a_torn_answer_is_no_whole_one_and_a_whole_one_ends_well() {
    let origin = Origin::scripted(|mut visit| async move {
        let Some(request) = visit.request().await else { return };
        if request.start().contains("/torn") {
            visit.wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
        } else {
            visit.wire.send("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello").await;
        }
    })
    .await;
    let authority = Authority::new();
    let stage = Stage::start(vec![secret(&authority, &origin)], 1).await;
    let config = authority.caller(BOTH, &[], None);
    let mut caller = call(stage.address("front"), &config).await.unwrap();
    assert_ne!(caller.ask(get("/torn", "")).await.end, End::Whole);
    for (path, end) in [("/torn", End::Reset), ("/whole", End::Fin)] {
        // HTTP/1.0 knows no other end of a body than that of the connection: close_notify makes it a good one.
        let mut old = call(stage.address("front"), &config).await.unwrap();
        old.send(format!("GET {path} HTTP/1.0\r\nhost: a\r\n\r\n")).await;
        let (all, ended) = old.rest().await;
        assert_eq!(ended, end, "{path}: {}", String::from_utf8_lossy(&all));
    }
}

#[tokio::test]
async fn a_reset_under_tls_is_no_good_end() {
    let (authority, origin) = (Authority::new(), Origin::well().await);
    let stage = Stage::start(vec![secret(&authority, &origin)], 1).await;
    let run = stage.enroll(everybody("drop: { how: reset }"));
    let _injection = run.inject();
    let mut caller = call(stage.address("front"), &authority.caller(BOTH, &[], None)).await.unwrap();
    caller.send(get("/", "")).await;
    assert_eq!(caller.rest().await, (vec![], End::Reset));
}

#[tokio::test]
async fn an_announcement_comes_before_the_handshake() {
    let (authority, origin) = (Authority::new(), Origin::well().await);
    let front = ListenerConfig { proxy_protocol: true, ..secret(&authority, &origin) };
    let stage = Stage::start(vec![front], 1).await;
    let mut experiment = everybody("error: { status: 503 }");
    experiment.slice.matches = callers("192.0.2.0/24");
    let run = stage.enroll(experiment);
    let _injection = run.inject();
    for (source, status) in [("192.0.2.1", 503), ("203.0.113.1", 200)] {
        let mut stream = tokio::net::TcpStream::connect(stage.address("front")).await.unwrap();
        let header = format!("PROXY TCP4 {source} 198.51.100.1 1 443\r\n");
        within("sending", tokio::io::AsyncWriteExt::write_all(&mut stream, header.as_bytes())).await.unwrap();
        let mut caller = shake(stream, authority.caller(BOTH, &[], None)).await.unwrap();
        assert_eq!(caller.ask(get("/", "")).await.status(), status);
    }
    assert!(call(stage.address("front"), &authority.caller(BOTH, &[], None)).await.is_err(), "no announcement");
}
