//! A head goes through as it came, but for what concerns one hop only.

use http::Method;
use pratfall::experiment::glob::PathGlob;
use pratfall::proxy::config::{HostPolicy, RouteConfig, Scheme};

use crate::support::stage::target;
use crate::support::{End, Origin, Stage, get, listener, ok};

#[tokio::test]
async fn two_requests_of_one_connection_use_one_upstream_connection() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    for _ in 0..20 {
        let answer = caller.ask(get("/", "")).await;
        assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"));
    }
    let upload = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    for _ in 0..20 {
        assert_eq!(caller.ask(upload).await.status(), 200);
    }
    let chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for _ in 0..20 {
        assert_eq!(caller.ask(chunked).await.status(), 200);
    }
    assert_eq!((origin.seen().len(), origin.connections()), (60, 1));
}

#[tokio::test]
async fn connections_to_an_upstream_that_answers_in_chunks_are_used_again() {
    let origin =
        Origin::answering("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    for _ in 0..20 {
        let answer = caller.ask(get("/", "")).await;
        assert_eq!((answer.text().as_str(), answer.end), ("hello", End::Whole));
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn fields_of_the_hop_stay_on_their_hop_in_both_directions() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nconnection: x-up\r\nConnection: x-more, keep-alive\r\nx-up: 1\r\nx-more: 1\r\n\
         keep-alive: timeout=9\r\nproxy-connection: keep-alive\r\nupgrade: h2c\r\nx-end: 1\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let stage = Stage::before(origin.address).await;
    let fields = "connection: keep-alive, X-Hop\r\nconnection: x-other\r\nx-hop: 1\r\nx-other: 1\r\nkeep-alive: 5\r\n\
                  proxy-connection: keep-alive\r\nupgrade: websocket\r\nx-end: 1\r\n";
    let answer = stage.front().await.ask(get("/", fields)).await;
    let asked = origin.last();
    for gone in ["connection", "x-hop", "x-other", "keep-alive", "proxy-connection", "upgrade"] {
        assert_eq!(asked.all(gone), Vec::<String>::new(), "{gone} reached the upstream");
    }
    for gone in ["connection", "x-up", "x-more", "keep-alive", "proxy-connection", "upgrade"] {
        assert_eq!(answer.all(gone), Vec::<String>::new(), "{gone} reached the caller");
    }
    assert_eq!((asked.field("x-end").as_deref(), answer.field("x-end").as_deref()), (Some("1"), Some("1")));
}

#[tokio::test]
async fn only_trailers_are_left_of_te_although_it_is_listed() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    for (fields, left) in [
        ("te: trailers\r\n", Some("trailers")),
        ("te: trailers\r\nconnection: TE\r\n", Some("trailers")),
        ("te: gzip;q=0.5, Trailers\r\nconnection: te\r\n", Some("trailers")),
        ("te: gzip\r\nte: trailers\r\n", Some("trailers")),
        ("te: gzip\r\n", None),
        ("connection: te\r\n", None),
    ] {
        caller.ask(get("/", fields)).await;
        let asked = origin.last();
        assert_eq!(asked.field("te").as_deref(), left, "{fields:?}");
        // RFC 9110, 10.1.4: who sends TE must list it.
        assert_eq!(asked.field("connection").map(|listed| listed.to_lowercase()).as_deref(), left.map(|_| "te"));
    }
}

#[tokio::test]
async fn the_host_is_the_callers_the_upstreams_or_a_name() {
    let origin = Origin::well().await;
    let up = origin.address.to_string();
    for (policy, expected) in [
        (HostPolicy::Preserve, "Shop.Example:81"),
        (HostPolicy::Upstream, up.as_str()),
        (HostPolicy::Name("other.example".to_owned()), "other.example"),
    ] {
        let mut front = listener("front", origin.address);
        front.host = policy;
        let stage = Stage::start(vec![front], 1).await;
        stage.front().await.ask("GET /a HTTP/1.1\r\nhost: Shop.Example:81\r\n\r\n").await;
        assert_eq!(origin.last().field("host").as_deref(), Some(expected));
        // RFC 9112, 3.2.2: in absolute form the target names the host.
        stage.front().await.ask("GET http://Shop.Example:81/b?q#cut HTTP/1.1\r\nhost: ignored\r\n\r\n").await;
        assert_eq!(origin.last().field("host").as_deref(), Some(expected));
        assert_eq!(origin.last().start(), "GET /b?q HTTP/1.1");
    }
}

#[tokio::test]
async fn a_target_reaches_the_upstream_byte_for_byte() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    for path in [
        "/",
        "//",
        "//a//b/",
        "/a%2Fb%2f..%2e",
        "/a/../b/./c",
        "/;a=1;b/c;",
        "/%",
        "/%zz",
        "/?",
        "/a?",
        "/a??b=%00&c=/../d?e",
        "/!$&'()*+,;=:@-._~",
        "/a|b^c\"d{e}[f]\\g",
        "/?[a]={b}|\\^",
        "/caf\u{e9}",
        "/a:80//b@c",
    ] {
        let answer = caller.ask(get(path, "")).await;
        assert_eq!(answer.status(), 200, "{path}");
        let line = format!("GET {path} HTTP/1.1");
        assert_eq!(origin.last().start(), line);
    }
    assert_eq!(caller.ask("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n").await.status(), 200);
    assert_eq!(origin.last().start(), "OPTIONS * HTTP/1.1");
    assert_eq!(caller.ask("GET http://shop.example?q=1 HTTP/1.1\r\nhost: a\r\n\r\n").await.status(), 200);
    assert_eq!(origin.last().start(), "GET /?q=1 HTTP/1.1");
    for nothing in ["http://shop.example", "http://shop.example#cut", "http://shop.example#?cut"] {
        assert_eq!(caller.ask(format!("GET {nothing} HTTP/1.1\r\nhost: a\r\n\r\n")).await.status(), 200);
        assert_eq!(origin.last().start(), "GET / HTTP/1.1", "{nothing}");
    }
    for other in ["*", "shop.example:80", "shop.example"] {
        let answer = stage.front().await.ask(format!("GET {other} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        assert_eq!(answer.status(), 400, "{other}");
    }
}

#[tokio::test]
async fn values_of_one_name_keep_their_order_their_number_and_their_bytes() {
    let mut bytes = b"HTTP/1.1 200 OK\r\nset-cookie: b=2\r\nx-n: 1\r\nset-cookie: a=1\r\nx-n: \r\nx-n: 1\r\n".to_vec();
    bytes.extend_from_slice(b"x-obs: caf\xe9 \xff\r\ncontent-length: 0\r\n\r\n");
    let origin = Origin::answering(bytes).await;
    let stage = Stage::before(origin.address).await;
    let mut request = b"GET / HTTP/1.1\r\nHost: a\r\nX-N: z\r\ncookie: b=2\r\nx-n: a\r\nX-n:\r\n".to_vec();
    request.extend_from_slice(b"cookie: a=1\r\nx-n: z\r\nx-obs: caf\xe9\xfe\r\nx-tab: a\tb\r\n\r\n");
    let answer = stage.front().await.ask(request).await;
    let asked = origin.last();
    assert_eq!(asked.all("x-n"), ["z", "a", "", "z"]);
    assert_eq!(asked.all("cookie"), ["b=2", "a=1"], "crumbs are a matter of HTTP/2 only");
    assert_eq!(asked.field("x-tab").as_deref(), Some("a\tb"));
    assert!(asked.fields().contains(&("x-obs".to_owned(), b"caf\xe9\xfe".to_vec())));
    assert_eq!(answer.all("set-cookie"), ["b=2", "a=1"]);
    assert_eq!(answer.all("x-n"), ["1", "", "1"]);
    assert!(answer.fields().contains(&("x-obs".to_owned(), b"caf\xe9 \xff".to_vec())));
}

#[tokio::test]
async fn order_among_names_stays_where_nothing_is_removed() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    stage.front().await.ask("GET / HTTP/1.1\r\nx-z: 1\r\nhost: a\r\nx-a: 1\r\naccept: */*\r\nx-m: 1\r\n\r\n").await;
    let names: Vec<String> = origin.last().fields().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["x-z", "host", "x-a", "accept", "x-m"]);
}

#[tokio::test]
async fn answers_without_a_body_keep_the_length_that_they_tell() {
    for (status, fields) in
        [("200 OK", "content-length: 5\r\n"), ("200 OK", ""), ("404 Not Found", "content-length: 0\r\n")]
    {
        let origin = Origin::answering(format!("HTTP/1.1 {status}\r\n{fields}x-end: 1\r\n\r\n")).await;
        let stage = Stage::before(origin.address).await;
        let mut caller = stage.front().await;
        for _ in 0..2 {
            caller.send("HEAD /a HTTP/1.1\r\nhost: a\r\n\r\n").await;
            let answer = caller.answer(true).await;
            assert!(answer.start().ends_with(status));
            let written = fields.lines().next().and_then(|line| line.strip_prefix("content-length: "));
            assert_eq!(answer.field("content-length").as_deref(), written);
            assert_eq!(answer.field("transfer-encoding"), None);
        }
        assert_eq!(origin.connections(), 1, "HEAD {fields:?}");
    }
    for (status, fields, length) in [
        ("204 No Content", "", None),
        ("304 Not Modified", "etag: \"a\"\r\n", None),
        // hyper tells no length in a 304; RFC 9110, 15.4.5 does not ask for it.
        ("304 Not Modified", "content-length: 5\r\n", None),
        ("200 OK", "content-length: 0\r\n", Some("0")),
    ] {
        let origin = Origin::answering(format!("HTTP/1.1 {status}\r\n{fields}\r\n")).await;
        let stage = Stage::before(origin.address).await;
        let mut caller = stage.front().await;
        for _ in 0..2 {
            let answer = caller.ask(get("/", "")).await;
            assert!(answer.start().ends_with(status));
            assert_eq!(answer.field("content-length").as_deref(), length, "{status} {fields:?}");
            assert_eq!(answer.field("transfer-encoding"), None);
        }
        assert_eq!(origin.connections(), 1);
    }
}

#[tokio::test]
async fn the_length_of_no_body_is_told_only_where_the_caller_told_it() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    for (method, fields, length) in [
        (Method::GET, "", None),
        (Method::GET, "content-length: 0\r\n", Some("0")),
        (Method::DELETE, "", None),
        (Method::POST, "content-length: 0\r\n", Some("0")),
    ] {
        caller.ask(format!("{method} / HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).await;
        assert_eq!(origin.last().field("content-length").as_deref(), length, "{method} {fields:?}");
        assert_eq!(origin.last().field("transfer-encoding"), None);
    }
}

#[tokio::test]
async fn a_caller_of_http_1_0_gets_what_it_can_read() {
    let origin =
        Origin::answering("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    caller.send("GET /old HTTP/1.0\r\n\r\n").await;
    let (all, end) = caller.rest().await;
    let all = String::from_utf8(all).unwrap();
    assert!(all.starts_with("HTTP/1.0 200 OK\r\n") || all.starts_with("HTTP/1.1 200 OK\r\n"), "{all}");
    assert!(all.ends_with("\r\n\r\nhello") && !all.contains("chunked"), "{all}");
    assert_eq!(end, End::Fin);
    assert_eq!(origin.last().start(), "GET /old HTTP/1.1");
    assert_eq!(origin.last().field("host"), Some(origin.address.to_string()), "it told none");

    let known = Origin::answering(ok("hello")).await;
    let stage = Stage::before(known.address).await;
    let mut caller = stage.front().await;
    for _ in 0..2 {
        let answer = caller.ask("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n").await;
        assert_eq!((answer.text().as_str(), answer.end), ("hello", End::Whole));
    }
}

#[tokio::test]
async fn an_upstream_of_http_1_0_does_not_make_the_proxy_one() {
    let origin = Origin::scripted(|mut visit| async move {
        visit.request().await;
        visit.wire.send("HTTP/1.0 200 OK\r\n\r\nuntil the end").await;
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    for _ in 0..2 {
        let answer = caller.ask(get("/", "")).await;
        assert_eq!(answer.start(), "HTTP/1.1 200 OK");
        assert_eq!((answer.text().as_str(), answer.end), ("until the end", End::Whole));
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let origin = Origin::replying(|request| ok(&request.start())).await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    let all: Vec<u8> = (0..5).flat_map(|n| get(&format!("/{n}"), "")).collect();
    caller.send(all).await;
    for n in 0..5 {
        assert_eq!(caller.answer(false).await.text(), format!("GET /{n} HTTP/1.1"));
    }
}

#[tokio::test]
async fn an_answer_does_not_wait_for_a_pipelined_request_behind_it() {
    let origin = Origin::scripted(|mut visit| async move {
        while let Some(request) = visit.request().await {
            if request.start().contains("/never") {
                return visit.ended().await;
            }
            visit.wire.send(ok("at once")).await;
        }
    })
    .await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    caller.send([get("/", ""), get("/never", "")].concat()).await;
    assert_eq!(caller.answer(false).await.text(), "at once");
}

#[tokio::test]
async fn requests_go_where_host_and_path_say() {
    let (shop, stock, rest) = (
        Origin::answering(ok("shop")).await,
        Origin::answering(ok("stock")).await,
        Origin::answering(ok("rest")).await,
    );
    let route = |host: Option<&str>, path: Option<&str>, to: &Origin| RouteConfig {
        host: host.map(str::to_owned),
        path: path.map(|path| PathGlob::new(path).expect("a pattern")),
        upstream: target(Scheme::Http, to.address),
    };
    let mut front = listener("front", rest.address);
    front.routes = vec![
        route(Some("shop.example"), Some("/stock/**"), &stock),
        route(Some("shop.example"), None, &shop),
        route(None, Some("/stock/*/level"), &stock),
    ];
    let mut strict = front.clone();
    strict.name = "strict".to_owned();
    strict.upstream = None;
    let stage = Stage::start(vec![front, strict], 1).await;
    let mut caller = stage.front().await;
    for (host, path, place) in [
        ("shop.example", "/stock/7", "stock"),
        ("SHOP.example:8080", "/stock", "stock"),
        ("shop.example", "/stocks", "shop"),
        ("other.example", "/stock/7/level?x=1", "stock"),
        ("other.example", "/stock/7", "rest"),
        ("[::1]:80", "/", "rest"),
    ] {
        let answer = caller.ask(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        assert_eq!(answer.text(), place, "{host}{path}");
    }
    let mut caller = stage.call("strict").await;
    let answer = caller.ask("GET / HTTP/1.1\r\nhost: other.example\r\n\r\n").await;
    assert_eq!((answer.status(), answer.field("x-pratfall").as_deref()), (404, Some("proxy; error=no_route")));
    let answer = caller.ask("GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n").await;
    assert_eq!(answer.text(), "shop", "the connection is still good");
}
