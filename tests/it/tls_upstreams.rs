//! Upstreams that speak TLS: who they must be, what they are shown, and how they end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pratfall::proxy::ListenerConfig;
use pratfall::proxy::config::{Scheme, Target, UpstreamTls};
use pratfall::units::Span;

use crate::support::h2::{Sent, whole};
use crate::support::tls::{Authority, Files, upstream, well};
use crate::support::{End, Message, Origin, Stage, everybody, get, listener, ok};

/// A listener before an upstream that must be `localhost`, vouched for by `authority`.
fn to(authority: &Authority, address: SocketAddr) -> ListenerConfig {
    let mut front = listener("front", address);
    front.upstream = Some(Target { scheme: Scheme::Https, host: address.ip().to_string(), port: address.port() });
    let server_name = Some("shop.example".to_owned());
    front.upstream_tls = Some(UpstreamTls { ca: Some(authority.file()), server_name, ..UpstreamTls::default() });
    front
}

async fn ask(front: ListenerConfig) -> Message {
    Stage::start(vec![front], 1).await.front().await.ask(get("/", "")).await
}

fn told(answer: &Message) -> (u16, Option<String>) {
    (answer.status(), answer.field("x-pratfall"))
}

#[tokio::test]
async fn an_upstream_is_whom_its_certificate_names_or_it_is_not_spoken_to() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let refused = (502, Some("proxy; error=tls".to_owned()));
    for (what, files, expected) in [
        ("sound", authority.vouch(&["shop.example"]), (200, None)),
        ("the wrong host", authority.vouch(&["other.example"]), refused.clone()),
        ("an unknown authority", stranger.vouch(&["shop.example"]), refused.clone()),
        ("expired", authority.vouch_until(&["shop.example"], 2001), refused.clone()),
    ] {
        let address = upstream(Authority::upstream(&files, &[], None), well).await;
        assert_eq!(told(&ask(to(&authority, address)).await), expected, "{what}");
    }
    let plain = Origin::scripted(|mut visit| async move {
        visit.wire.send(ok("plain")).await;
        visit.ended().await;
    })
    .await;
    assert_eq!(told(&ask(to(&authority, plain.address)).await), refused, "no TLS");
    let silent = Origin::scripted(|visit| visit.ended()).await;
    let mut front = to(&authority, silent.address);
    front.timeouts.connect = Span::millis(100);
    assert_eq!(told(&ask(front).await), (502, Some("proxy; error=connect".to_owned())), "a handshake that never ends");
    silent.until_ended(1).await;
}

#[tokio::test]
async fn the_name_in_the_certificate_is_the_upstreams_own_unless_another_is_written() {
    let authority = Authority::new();
    let address = upstream(Authority::upstream(&authority.vouch(&["127.0.0.1", "localhost"]), &[], None), well).await;
    for (host, name, status) in [
        ("127.0.0.1", None, 200),
        ("localhost", None, 200),
        ("127.0.0.1", Some("localhost"), 200),
        ("localhost", Some("shop.example"), 502),
    ] {
        let mut front = to(&authority, address);
        front.upstream.as_mut().unwrap().host = host.to_owned();
        front.upstream_tls.as_mut().unwrap().server_name = name.map(str::to_owned);
        assert_eq!(ask(front).await.status(), status, "{host} {name:?}");
    }
}

#[tokio::test]
async fn an_upstream_that_wants_our_certificate_is_shown_it() {
    let (authority, callers) = (Authority::new(), Authority::new());
    let config = Authority::upstream(&authority.vouch(&["shop.example"]), &[], Some(&callers));
    let address = upstream(config, well).await;
    let shown = |files: Files| {
        let mut front = to(&authority, address);
        let tls = front.upstream_tls.as_mut().unwrap();
        (tls.cert, tls.key) = (Some(files.cert), Some(files.key));
        front
    };
    assert_eq!(ask(shown(callers.vouch(&["proxy.example"]))).await.status(), 200);
    assert_eq!(ask(shown(authority.vouch(&["proxy.example"]))).await.status(), 502);
    assert_eq!(ask(to(&authority, address)).await.status(), 502);
}

#[tokio::test]
async fn connections_are_used_again_and_bodies_pass() {
    let authority = Authority::new();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let config = Authority::upstream(&authority.vouch(&["shop.example"]), &["http/1.1"], None);
    let address = upstream(config, move |mut visit| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            while let Some(mut request) = visit.head().await {
                visit.body(&mut request).await;
                visit.send(ok(&request.text())).await;
            }
        }
    })
    .await;
    let stage = Stage::start(vec![to(&authority, address)], 1).await;
    let mut caller = stage.front().await;
    let large = "a".repeat(1 << 20);
    for body in ["abc", &large, ""] {
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        assert_eq!(caller.ask(request).await.text(), body);
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_upstream_that_offers_h2_is_spoken_to_in_h2_and_told_the_scheme_and_the_arm() {
    let authority = Authority::new();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let config = Authority::upstream(&authority.vouch(&["shop.example"]), &["h2", "http/1.1"], None);
    let address = upstream(config, move |visit| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            let mut visit = visit;
            assert_eq!(visit.stream().get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
                let marks = request.headers().get_all("baggage").iter().count();
                let said = format!("{} {:?} {marks}", request.uri(), request.version());
                let _ = request.into_body().collect().await;
                Ok::<_, hyper::Error>(Response::<Sent>::new(whole(said)))
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(visit.into_stream()), service).await;
        }
    })
    .await;
    let stage = Stage::start(vec![to(&authority, address), listener("inventory", address)], 1).await;
    let mut experiment = everybody("error: { status: 503 }");
    experiment.inject.at = "inventory".to_owned();
    let _run = stage.enroll(experiment);
    let mut caller = stage.front().await;
    for request in [
        get("/a?b", ""),
        b"POST /a?b HTTP/1.1\r\nhost: shop.example\r\ncontent-length: 3\r\n\r\nabc".to_vec(),
        get("/a?b", ""),
    ] {
        assert_eq!(caller.ask(request).await.text(), "https://shop.example/a?b HTTP/2.0 1");
    }
    assert_eq!(stage.h2("front").await.get("/a?b").await.unwrap().1, "https://shop.example/a?b HTTP/2.0 1");
    assert_eq!(count.load(Ordering::SeqCst), 1, "all share one connection");
}

#[tokio::test]
async fn an_upstream_that_breaks_off_without_a_farewell_is_seen_to_break() {
    let authority = Authority::new();
    for (fields, farewell) in
        [("", false), ("content-length: 9\r\n", false), ("content-length: 9\r\n", true), ("", true)]
    {
        let config = Authority::upstream(&authority.vouch(&["shop.example"]), &[], None);
        let address = upstream(config, move |mut visit| async move {
            let _ = visit.head().await;
            visit.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\nhello")).await;
            if farewell {
                visit.finish().await;
            }
        })
        .await;
        let stage = Stage::start(vec![to(&authority, address)], 1).await;
        let mut caller = stage.front().await;
        caller.send(get("/", "")).await;
        let mut answer = caller.head().await.expect("a head");
        caller.body(&mut answer).await;
        // A body that ends with its connection is whole only if that ends with close_notify.
        let whole = farewell && fields.is_empty();
        assert_eq!(answer.end == End::Whole, whole, "{fields:?} farewell: {farewell}");
    }
}
