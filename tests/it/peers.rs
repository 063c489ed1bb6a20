//! Who the caller is, where proxies stand between.

use pratfall::experiment::By;
use pratfall::experiment::Experiment;
use pratfall::proxy::ListenerConfig;
use pratfall::units::{Percent, Span};
use tokio::net::TcpStream;

use crate::support::h2::H2Client;
use crate::support::stage::callers;
use crate::support::{End, Origin, Stage, everybody, get, listener};

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn announcing(origin: &Origin) -> ListenerConfig {
    ListenerConfig { proxy_protocol: true, ..listener("front", origin.address) }
}

/// Callers of a network get 503.
fn refusing(network: &str) -> Experiment {
    let mut experiment = everybody("error: { status: 503 }");
    experiment.slice.matches = callers(network);
    experiment
}

#[tokio::test]
async fn the_proxy_protocol_says_who_calls_and_the_request_goes_on() {
    let origin = Origin::well().await;
    let stage = Stage::start(vec![announcing(&origin)], 1).await;
    let run = stage.enroll(refusing("192.0.2.0/24"));
    let _injection = run.inject();
    let v4 = [V2, &[0x21, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 1, 1, 1, 2, 2]].concat();
    let other = [V2, &[0x21, 0x11, 0, 12, 203, 0, 113, 7, 198, 51, 100, 1, 1, 1, 2, 2]].concat();
    let local = [V2, &[0x20, 0, 0, 2, 9, 9]].concat();
    let with_more = [V2, &[0x21, 0x11, 12, 0, 192, 0, 2, 7, 198, 51, 100, 1, 1, 1, 2, 2], &[0; 12 * 256 - 12]].concat();
    let long = format!("x-long: {}\r\n", "a".repeat(3000));
    for (header, status) in [
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 80\r\n".to_vec(), 503),
        (b"PROXY TCP4 203.0.113.1 192.0.2.1 56324 80\r\n".to_vec(), 200),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n".to_vec(), 503),
        (b"PROXY UNKNOWN\r\n".to_vec(), 200),
        (v4, 503),
        (with_more, 503),
        (other, 200),
        (local, 200),
    ] {
        let what = String::from_utf8_lossy(&header).into_owned();
        let mut at_once = stage.front().await;
        assert_eq!(at_once.ask([&header[..], &get("/", &long)].concat()).await.status(), status, "{what}");
        assert_eq!(at_once.ask(get("/", "")).await.status(), status, "{what}, again on its connection");
        let mut byte_by_byte = stage.front().await;
        for byte in header.iter().take(300) {
            byte_by_byte.send([*byte]).await;
        }
        byte_by_byte.send(&header[header.len().min(300)..]).await;
        assert_eq!(byte_by_byte.ask(get("/", "")).await.status(), status, "{what}, byte by byte");
    }
}

#[tokio::test]
async fn http2_behind_an_announcement_is_http2() {
    let origin = Origin::well().await;
    let stage = Stage::start(vec![announcing(&origin)], 1).await;
    let mut stream = TcpStream::connect(stage.address("front")).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2\r\n").await.unwrap();
    assert_eq!(H2Client::over(stream).await.get("/").await.unwrap().1, "hello");
}

#[tokio::test]
async fn who_does_not_announce_the_caller_is_sent_away_unheard() {
    let origin = Origin::well().await;
    let mut front = announcing(&origin);
    front.timeouts.request_header = Span::millis(200);
    let stage = Stage::start(vec![front], 1).await;
    for bad in [
        get("/", ""),
        [&b"PROXY TCP4 192.0.2.1 198.51.100.1 1 65536\r\n"[..], &get("/", "")].concat(),
        [&b"PROXY UNKNOWN "[..], &[b'a'; 200], b"\r\n", &get("/", "")].concat(),
        [V2, &[0x21, 0x11, 0xff, 0xff], &get("/", "")].concat(),
        [V2, &[0x11, 0x11, 0, 12], &[1; 12], &get("/", "")].concat(),
        b"PROXY TCP4 192.0.2.1".to_vec(), // and no more
        [V2, &[0x21, 0x11, 0, 12], &[1; 11]].concat(),
        vec![],
    ] {
        let mut caller = stage.front().await;
        caller.send(&bad).await;
        assert_eq!(caller.rest().await.0, b"", "{}", String::from_utf8_lossy(&bad));
    }
    assert_eq!(origin.asked(), 0);
}

#[tokio::test]
async fn a_caller_that_was_announced_has_as_long_as_others_for_a_request() {
    let origin = Origin::well().await;
    let mut front = announcing(&origin);
    (front.timeouts.request_header, front.timeouts.idle) = (Span::secs(3600), Span::millis(50));
    let stage = Stage::start(vec![front], 1).await;
    let mut caller = stage.front().await;
    caller.send("PROXY UNKNOWN\r\n").await;
    assert_eq!(caller.rest().await, (vec![], End::Fin), "the header is not the begin of a head");
}

#[tokio::test]
async fn trusted_proxies_are_believed_and_nobody_else() {
    let origin = Origin::well().await;
    let mut believing = listener("front", origin.address);
    believing.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
    for (front, believes) in [(believing, true), (listener("front", origin.address), false)] {
        let stage = Stage::start(vec![front], 1).await;
        let run = stage.enroll(refusing("192.0.2.0/24"));
        let _injection = run.inject();
        let mut caller = stage.front().await;
        for (fields, found) in [
            ("x-forwarded-for: 192.0.2.1\r\n", true),
            ("x-forwarded-for: 203.0.113.9, 192.0.2.1:80 , 10.1.1.1\r\n", true),
            ("x-forwarded-for: 192.0.2.1\r\nx-forwarded-for: 10.1.1.1\r\n", true),
            ("x-forwarded-for: 192.0.2.1, 203.0.113.9\r\n", false),
            ("x-forwarded-for: 192.0.2.1, unknown\r\n", false),
            ("x-forwarded-for: 192.0.2.1,\r\n", false),
            ("", false),
        ] {
            let expected = if found && believes { 503 } else { 200 };
            assert_eq!(caller.ask(get("/", fields)).await.status(), expected, "{fields}");
        }
    }
}

#[tokio::test]
async fn a_slice_by_client_ip_is_drawn_by_the_caller_that_was_told() {
    let origin = Origin::well().await;
    let mut front = listener("front", origin.address);
    front.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    let stage = Stage::start(vec![front], 1).await;
    let mut experiment = everybody("error: { status: 503 }");
    experiment.slice.by = By::ClientIp;
    let half = Percent::from_ratio(0.5).unwrap();
    (experiment.slice.treatment, experiment.slice.control) = (vec![half], half);
    let run = stage.enroll(experiment);
    let _injection = run.inject();
    let mut caller = stage.front().await;
    let mut all = Vec::new();
    for _ in 0..2 {
        let mut round = Vec::new();
        for n in 1..=40 {
            round.push(caller.ask(get("/", &format!("x-forwarded-for: 192.0.2.{n}\r\n"))).await.status());
        }
        all.push(round);
    }
    assert_eq!(all[0], all[1], "somebody stays in their arm");
    let faulted = all[0].iter().filter(|status| **status == 503).count();
    assert!((8..=32).contains(&faulted), "{faulted} of 40 callers: all come from one socket");
}

#[tokio::test]
async fn what_proxies_before_us_wrote_goes_on_and_nothing_is_added() {
    let origin = Origin::well().await;
    let mut front = listener("front", origin.address);
    front.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    let stage = Stage::start(vec![front], 1).await;
    let fields = "x-forwarded-for: 192.0.2.1,10.0.0.1\r\nx-forwarded-for: 10.0.0.2\r\nx-forwarded-proto: https\r\n\
                  x-forwarded-host: shop.example\r\nforwarded: for=192.0.2.1;proto=https\r\nvia: 1.1 edge\r\n";
    stage.front().await.ask(get("/", fields)).await;
    let names = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "via"];
    let asked = origin.last();
    let told: String = names
        .iter()
        .flat_map(|name| asked.all(name).into_iter().map(move |value| format!("{name}: {value}\r\n")))
        .collect();
    assert_eq!(told, fields);
    stage.front().await.ask(get("/", "")).await;
    assert!(names.iter().all(|name| origin.last().all(name).is_empty()));
}
