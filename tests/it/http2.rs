//! HTTP/2 on either side, without TLS, by prior knowledge.

use std::sync::atomic::Ordering;

use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Frame;
use pratfall::proxy::config::Scheme;

use crate::support::h2::{nothing, pieces, reset_code, whole};
use crate::support::stage::target;
use crate::support::{End, H2Origin, Origin, Stage, get, listener, ok, within};

async fn before_h2(origin: &H2Origin) -> Stage {
    let mut front = listener("front", origin.address);
    front.upstream = Some(target(Scheme::H2c, origin.address));
    Stage::start(vec![front], 1).await
}

fn trailers(name: &'static str, value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static(name), HeaderValue::from_static(value))])
}

#[tokio::test]
async fn a_request_over_h2_is_a_plain_one_for_an_upstream_of_http_1() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nconnection: x-up\r\nx-up: 1\r\nkeep-alive: 5\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\
         transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    )
    .await;
    let stage = Stage::before(origin.address).await;
    let caller = stage.h2("front").await;
    let request = Request::post("http://Shop.Example:81/a%2Fb//c?q=1")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("x-n", "2")
        .header("x-n", "1")
        .header("te", "trailers")
        .body(whole("abc"))
        .unwrap();
    let answer = caller.send(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let fields: Vec<_> = answer.headers().iter().filter(|(name, _)| *name != "date").collect();
    assert_eq!(fields.len(), 2, "{fields:?}");
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hello");
    let asked = origin.last();
    assert_eq!(asked.start(), "POST /a%2Fb//c?q=1 HTTP/1.1");
    assert_eq!(asked.field("host").as_deref(), Some("Shop.Example:81"));
    assert_eq!(asked.field("cookie").as_deref(), Some("a=1; b=2"), "RFC 9113, 8.2.3");
    assert_eq!(asked.all("x-n"), ["2", "1"]);
    assert_eq!((asked.text().as_str(), asked.field("te").as_deref()), ("abc", Some("trailers")));
}

#[tokio::test]
async fn a_hundred_streams_of_one_connection_are_answered_each_with_its_own() {
    let origin = Origin::replying(|request| ok(&request.start())).await;
    let to_h1 = Stage::before(origin.address).await;
    let origin2 = H2Origin::replying(|asked| async move { Response::new(whole(asked.uri)) }).await;
    let to_h2 = before_h2(&origin2).await;
    for (stage, expected) in [(&to_h1, "GET /{} HTTP/1.1"), (&to_h2, "http://shop.example/{}")] {
        let caller = stage.h2("front").await;
        let all = (0..100).map(|n| {
            let caller = caller.clone();
            async move { caller.get(&format!("/{n}")).await.expect("an answer") }
        });
        let all = within("a hundred answers", futures_util::future::join_all(all)).await;
        for (n, (head, body)) in all.iter().enumerate() {
            assert_eq!(head.status(), 200);
            assert_eq!(*body, expected.replace("{}", &n.to_string()));
        }
    }
    assert!(origin2.connections.load(Ordering::SeqCst) <= 100);
}

#[tokio::test]
async fn plain_requests_reach_an_upstream_of_h2_whole() {
    let origin = H2Origin::replying(|asked| async move {
        let (sender, body) = pieces();
        sender.send(Ok(Frame::data(asked.body))).unwrap();
        sender.send(Ok(Frame::trailers(trailers("x-sum", "7")))).unwrap();
        Response::builder().header("trailer", "x-sum").body(body).unwrap()
    })
    .await;
    let stage = before_h2(&origin).await;
    let mut caller = stage.front().await;
    for _ in 0..3 {
        let answer = caller
            .ask(
                "POST /a%2Fb?q HTTP/1.1\r\nhost: Shop.Example\r\nconnection: te, keep-alive\r\nkeep-alive: 5\r\n\
                 te: trailers\r\nx-n: 2\r\nx-n: 1\r\ntransfer-encoding: chunked\r\ntrailer: x-mine\r\n\r\n\
                 3\r\nabc\r\n0\r\nx-mine: 1\r\n\r\n",
            )
            .await;
        assert_eq!((answer.start().as_str(), answer.text().as_str()), ("HTTP/1.1 200 OK", "abc"));
        assert_eq!(answer.trailers, [("x-sum".to_owned(), b"7".to_vec())]);
        let asked = origin.last();
        assert_eq!((asked.uri.as_str(), &asked.body[..]), ("http://Shop.Example/a%2Fb?q", &b"abc"[..]));
        assert_eq!(asked.trailers, Some(trailers("x-mine", "1")));
        assert_eq!(asked.headers["te"], "trailers");
        assert_eq!(asked.headers.get_all("x-n").iter().collect::<Vec<_>>(), ["2", "1"]);
        for gone in ["connection", "keep-alive", "transfer-encoding", "host"] {
            assert!(!asked.headers.contains_key(gone), "{gone}");
        }
    }
    assert_eq!(origin.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn trailers_pass_between_two_ends_of_h2() {
    let origin = H2Origin::replying(|_| async move {
        let (sender, body) = pieces();
        sender.send(Ok(Frame::trailers(trailers("grpc-status", "0")))).unwrap();
        Response::new(body)
    })
    .await;
    let stage = before_h2(&origin).await;
    let caller = stage.h2("front").await;
    let (sender, body) = pieces();
    sender.send(Ok(Frame::data("abc".into()))).unwrap();
    sender.send(Ok(Frame::trailers(trailers("x-mine", "1")))).unwrap();
    drop(sender);
    let request = Request::post("http://shop.example/").header("te", "trailers").body(body).unwrap();
    let answer = caller.send(request).await.unwrap();
    let collected = within("the answer", answer.into_body().collect()).await.unwrap();
    assert_eq!(collected.trailers(), Some(&trailers("grpc-status", "0")));
    assert_eq!(origin.last().trailers, Some(trailers("x-mine", "1")));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_reset_stream_and_the_others_live_on() {
    for framing in ["transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", "content-length: 9\r\n\r\nhello"] {
        let origin = Origin::scripted(move |mut visit| async move {
            while let Some(request) = visit.request().await {
                if request.start().contains("/well") {
                    visit.wire.send(ok("well")).await;
                } else {
                    return visit.wire.send(format!("HTTP/1.1 200 OK\r\n{framing}")).await;
                }
            }
        })
        .await;
        let stage = Stage::before(origin.address).await;
        let caller = stage.h2("front").await;
        let error = caller.get("/broken").await.expect_err("it is broken");
        assert!(reset_code(&error).is_some(), "{error:?}");
        assert_eq!(caller.get("/well").await.expect("an answer").1, "well");
    }
}

#[tokio::test]
async fn a_stream_that_an_upstream_of_h2_resets_is_never_a_whole_answer() {
    let (answers, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let origin = H2Origin::replying(move |_| {
        let (sender, body) = pieces();
        sender.send(Ok(Frame::data("hello".into()))).unwrap();
        answers.send(sender).unwrap();
        async { Response::new(body) }
    })
    .await;
    let stage = before_h2(&origin).await;
    let mut caller = stage.front().await;
    caller.send(get("/", "")).await;
    let mut answer = caller.head().await.expect("the head comes first");
    begun.recv().await.unwrap().send(Err(std::io::Error::other("broken"))).unwrap();
    caller.body(&mut answer).await;
    assert_ne!(answer.end, End::Whole);
    let request = Request::get("http://shop.example/").body(nothing()).unwrap();
    let answer = stage.h2("front").await.send(request).await.expect("the head comes first");
    begun.recv().await.unwrap().send(Err(std::io::Error::other("broken"))).unwrap();
    let error = within("the end", answer.into_body().collect()).await.expect_err("it is broken");
    assert!(reset_code(&error).is_some(), "{error:?}");
}

#[tokio::test]
async fn a_caller_that_resets_its_stream_is_felt_by_the_upstream() {
    let origin = Origin::scripted(|mut visit| async move {
        visit.request().await;
        visit.ended().await;
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let caller = stage.h2("front").await;
    let leaving = tokio::spawn({
        let caller = caller.clone();
        async move { caller.get("/").await }
    });
    origin.until_asked(1).await;
    leaving.abort();
    origin.until_ended(1).await;
    let (sender, body) = pieces();
    let uploading = Request::post("http://shop.example/").body(body).unwrap();
    let leaving = tokio::spawn({
        let caller = caller.clone();
        async move { caller.send(uploading).await }
    });
    sender.send(Ok(Frame::data("abc".into()))).unwrap();
    until_connected(&origin, 2).await;
    sender.send(Err(std::io::Error::other("gone"))).unwrap();
    let _ = leaving.await;
    origin.until_ended(2).await;
}

async fn until_connected(origin: &Origin, count: usize) {
    crate::support::until("the origin is called", || origin.connections() >= count).await;
}

#[tokio::test]
async fn an_upstream_of_h2_that_goes_away_is_called_again() {
    let origin = H2Origin::replying(|_| async { Response::new(whole("hello")) }).await;
    let stage = before_h2(&origin).await;
    let mut caller = stage.front().await;
    assert_eq!(caller.ask(get("/", "")).await.text(), "hello");
    origin.end_connections();
    for _ in 0..5 {
        assert_eq!(caller.ask(get("/", "")).await.text(), "hello");
        let answer = caller.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc").await;
        assert_eq!(answer.text(), "hello");
    }
}

#[tokio::test]
async fn what_may_not_be_sent_on_is_refused_on_h2_and_the_connection_lives() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let caller = stage.h2("front").await;
    let trace = Request::builder().method("TRACE").uri("http://shop.example/").body(nothing()).unwrap();
    let answer = caller.send(trace).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-pratfall"]),
        (400, &"proxy; error=refused".parse().unwrap())
    );
    assert_eq!(caller.get("/").await.unwrap().1, "hello");
}
