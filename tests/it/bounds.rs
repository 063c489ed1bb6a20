//! What is too much, too large, or too late, and how it is answered.

use http::Request;
use pratfall::proxy::ListenerConfig;
use pratfall::units::{ByteSize, Span};

use crate::support::h2::nothing;
use crate::support::{End, Message, Origin, Stage, get, listener, until};

fn small(origin: &Origin) -> ListenerConfig {
    let mut front = listener("front", origin.address);
    front.bounds.headers = 10;
    front.bounds.header_bytes = ByteSize::new(1000);
    front.bounds.target_bytes = ByteSize::new(500);
    front
}

fn marked(answer: &Message) -> (u16, Option<String>, Option<String>) {
    (answer.status(), answer.field("x-pratfall"), answer.field("connection"))
}

#[tokio::test]
async fn too_long_targets_and_too_large_heads_are_refused_with_our_mark() {
    let origin = Origin::well().await;
    let stage = Stage::start(vec![small(&origin)], 1).await;
    let h2 = stage.h2("front").await;
    let fields = |count: usize| (0..count).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    for (target, fields, expected) in [
        (format!("/{}", "a".repeat(498)), String::new(), None),
        (format!("/{}", "a".repeat(500)), String::new(), Some((414, "target_too_long"))),
        (format!("/?{}", "a".repeat(20_000)), String::new(), Some((414, "target_too_long"))),
        ("/".to_owned(), fields(9), None),
        ("/".to_owned(), fields(10), Some((431, "head_too_large"))),
        ("/".to_owned(), fields(90), Some((431, "head_too_large"))),
        ("/".to_owned(), format!("x-a: {}\r\n", "a".repeat(900)), None),
        ("/".to_owned(), format!("x-a: {}\r\n", "a".repeat(1000)), Some((431, "head_too_large"))),
        ("/".to_owned(), format!("x-a: {}\r\n", "a".repeat(1500)), Some((431, "head_too_large"))),
    ] {
        let answer = stage.front().await.ask(get(&target, &fields)).await;
        let (status, mark) = expected.map_or((200, None), |(status, kind)| (status, Some(kind)));
        let mark = mark.map(|kind| format!("proxy; error={kind}"));
        let close = mark.as_ref().map(|_| "close".to_owned());
        assert_eq!(marked(&answer), (status, mark.clone(), close), "{} {}", target.len(), fields.len());
        if target.len() > 1000 {
            continue; // more than an HTTP/2 peer of ours takes at all
        }
        let mut request = Request::get(format!("http://a{target}"));
        for (name, value) in fields.lines().filter_map(|line| line.split_once(": ")) {
            request = request.header(name, value);
        }
        let answer = h2.send(request.body(nothing()).unwrap()).await.expect("an answer");
        let told = answer.headers().get("x-pratfall").map(|mark| mark.to_str().unwrap().to_owned());
        // On HTTP/2 there is no `host` field, so one more fits.
        if fields.lines().count() != 10 {
            assert_eq!((answer.status().as_u16(), told), (status, mark), "h2 {} {}", target.len(), fields.len());
        }
    }
}

#[tokio::test]
async fn heads_beyond_what_hyper_takes_are_refused_too() {
    let origin = Origin::well().await;
    let mut front = listener("front", origin.address);
    front.bounds.headers = 400;
    front.bounds.header_bytes = ByteSize::new(1 << 20);
    let stage = Stage::start(vec![front, listener("usual", origin.address)], 1).await;
    let many: String = (0..300).map(|n| format!("x-{n}: 1\r\n")).collect();
    assert_eq!(stage.front().await.ask(get("/", &many)).await.status(), 200, "a listener may take more");
    assert_eq!(stage.call("usual").await.ask(get("/", &many)).await.status(), 431);
    let large: String = (0..60).map(|n| format!("x-{n}: {}\r\n", "a".repeat(10_000))).collect();
    assert_eq!(stage.front().await.ask(get("/", &large)).await.status(), 200);
    let mut caller = stage.call("usual").await;
    let _ = caller.try_send(&get("/", &large)).await;
    assert_eq!(caller.answer(false).await.status(), 431);
    let answer = stage.front().await.ask(get(&format!("/{}", "a".repeat(70_000)), "")).await;
    assert_eq!(answer.status(), 414);
}

#[tokio::test]
async fn more_connections_than_are_taken_are_shed_and_counted() {
    let origin = Origin::well().await;
    let mut front = listener("front", origin.address);
    front.bounds.connections = 2;
    let stage = Stage::start(vec![front], 2).await;
    let (mut first, mut second) = (stage.front().await, stage.front().await);
    for caller in [&mut first, &mut second] {
        assert_eq!(caller.ask(get("/", "")).await.text(), "hello");
    }
    for _ in 0..3 {
        let mut third = stage.front().await;
        let _ = third.try_send(&get("/", "")).await;
        assert_eq!(third.rest().await.0, b"");
    }
    assert_eq!(stage.proxy.at(0).shed.load(std::sync::atomic::Ordering::Relaxed), 3);
    assert_eq!(first.ask(get("/", "")).await.text(), "hello");
    drop(second);
    until("one is gone", || stage.proxy.connections() == 1).await;
    assert_eq!(stage.front().await.ask(get("/", "")).await.text(), "hello");
}

#[tokio::test]
async fn half_a_head_is_answered_with_408_and_silence_with_nothing() {
    let origin = Origin::well().await;
    let mut front = listener("front", origin.address);
    (front.timeouts.request_header, front.timeouts.idle) = (Span::millis(100), Span::secs(3600));
    let (mut silent, mut brief) = (front.clone(), front.clone());
    (silent.name, silent.mark) = ("silent".to_owned(), false);
    (brief.name, brief.timeouts.request_header, brief.timeouts.idle) =
        ("brief".to_owned(), Span::secs(3600), Span::millis(300));
    let stage = Stage::start(vec![front, silent, brief], 1).await;
    for begun in ["P", "POS", "G", "GET / HTTP/1.1\r\nhost: a\r\n"] {
        for after in [0, 1] {
            let mut slow = stage.front().await;
            for _ in 0..after {
                assert_eq!(slow.ask(get("/", "")).await.text(), "hello");
            }
            slow.send(begun).await;
            let answer = slow.answer(false).await;
            let mark = Some("proxy; error=slow_head".to_owned());
            assert_eq!(marked(&answer), (408, mark, Some("close".to_owned())), "{begun:?} after {after}");
            assert_eq!(slow.rest().await, (vec![], End::Fin), "{begun:?}");
        }
        let mut slow = stage.call("silent").await;
        slow.send(begun).await;
        assert_eq!(marked(&slow.answer(false).await), (408, None, Some("close".to_owned())));
    }
    assert_eq!(stage.call("brief").await.rest().await, (vec![], End::Fin), "who never said a word hears none");
    let mut kept = stage.call("brief").await;
    assert_eq!(kept.ask(get("/", "")).await.text(), "hello");
    assert_eq!(kept.rest().await, (vec![], End::Fin), "nor who has said all");
    assert!(stage.proxy.at(0).totals().proxy_errors >= 8);
}
