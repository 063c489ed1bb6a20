//! Heads that two parsers could read differently: what goes up has one reading only, or nothing goes up.

use http::Request;
use pratfall::units::Span;

use crate::support::h2::nothing;
use crate::support::{Message, Origin, Stage, get, listener};

/// What an RFC 9112 reader must be able to say of each request that went up: one host, one framing, no bare line ends.
fn is_canonical(asked: &Message) -> bool {
    let framings = asked.all("content-length").len() + asked.all("transfer-encoding").len();
    let coded = asked.all("transfer-encoding").iter().all(|coding| coding == "chunked");
    let lines_end_well = asked.head.iter().enumerate().all(|(at, byte)| match byte {
        b'\n' => at > 0 && asked.head[at - 1] == b'\r',
        b'\r' => asked.head.get(at + 1) == Some(&b'\n'),
        0 => false,
        _ => true,
    });
    framings <= 1 && coded && lines_end_well && asked.all("host").len() == 1
}

#[tokio::test]
async fn nothing_that_two_parsers_read_differently_goes_up() {
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let hidden = format!("0\r\n\r\n{smuggled}");
    let length = hidden.len();
    for (what, request) in [
        (
            "CL.TE",
            format!(
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n{hidden}"
            ),
        ),
        (
            "TE.CL",
            format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n{hidden}"),
        ),
        (
            "a tab before chunked",
            format!(
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\tchunked\r\ncontent-length: {length}\r\n\r\n{hidden}"
            ),
        ),
        (
            "a vertical tab",
            format!(
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \x0bchunked\r\ncontent-length: {length}\r\n\r\n{hidden}"
            ),
        ),
        (
            "xchunked",
            format!(
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\ncontent-length: {length}\r\n\r\n{hidden}"
            ),
        ),
        (
            "identity",
            format!(
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\ncontent-length: {length}\r\n\r\n{hidden}"
            ),
        ),
        (
            "a quoted coding",
            format!(
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \"chunked\"\r\ncontent-length: {length}\r\n\r\n{hidden}"
            ),
        ),
        (
            "an empty coding",
            format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\r\ncontent-length: {length}\r\n\r\n{hidden}"),
        ),
        (
            "a name with an underscore",
            format!(
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer_encoding: chunked\r\ncontent-length: {length}\r\n\r\n{hidden}"
            ),
        ),
        (
            "a space before the name",
            format!(
                "POST / HTTP/1.1\r\nhost: a\r\n transfer-encoding: chunked\r\ncontent-length: {length}\r\n\r\n{hidden}"
            ),
        ),
        ("a length in hex", format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x{length:x}\r\n\r\n{hidden}")),
        (
            "a list of lengths",
            format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}, {length}\r\n\r\n{hidden}"),
        ),
        (
            "the same length twice",
            format!(
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\ncontent-length: {length}\r\n\r\n{hidden}"
            ),
        ),
        (
            "a length that is listed",
            format!(
                "POST / HTTP/1.1\r\nhost: a\r\nconnection: content-length\r\ncontent-length: {length}\r\n\r\n{hidden}"
            ),
        ),
        ("bare LF", format!("POST / HTTP/1.1\nhost: a\ncontent-length: {length}\n\n{hidden}")),
        ("bare LF within", format!("POST / HTTP/1.1\r\nhost: a\nx-a: b\r\ncontent-length: {length}\r\n\r\n{hidden}")),
        (
            "a bare CR in a value",
            format!(
                "POST / HTTP/1.1\r\nhost: a\r\nx-a: b\rtransfer-encoding: chunked\r\ncontent-length: {length}\r\n\r\n{hidden}"
            ),
        ),
        (
            "a chunk of LF",
            format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "a chunk extension with LF",
            format!(
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1;a\nb\r\na\r\n0\r\n\r\n{smuggled}"
            ),
        ),
        (
            "a chunk size with a sign",
            format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "a chunk size with 0x",
            format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "trailers that frame",
            format!(
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: content-length\r\n\r\n0\r\ncontent-length: 9\r\nhost: b\r\n\r\n{smuggled}"
            ),
        ),
        ("a GET with a body", format!("GET / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{hidden}")),
    ] {
        let origin = Origin::well().await;
        let mut front = listener("front", origin.address);
        let short = Span::millis(300);
        (front.timeouts.idle, front.timeouts.request_header, front.timeouts.body_stall) = (short, short, short);
        let stage = Stage::start(vec![front], 1).await;
        let mut caller = stage.front().await;
        let _ = caller.try_send(request.as_bytes()).await;
        let (answers, _) = caller.rest().await;
        let answers = String::from_utf8_lossy(&answers).matches("HTTP/1.1 ").count();
        let seen = origin.seen();
        assert!(
            seen.iter().all(is_canonical),
            "{what}: {:?}",
            seen.iter().map(|m| String::from_utf8_lossy(&m.head).into_owned()).collect::<Vec<_>>()
        );
        // Where the length covers it, it is a body; behind the last chunk it is a request of its own, and answered as one.
        let smuggled = seen.iter().filter(|asked| asked.start().contains("/smuggled")).count();
        assert!(smuggled < answers.max(1), "{what}: {smuggled} went up, {answers} answers");
        if ["CL.TE", "TE.CL"].contains(&what) {
            assert_eq!(smuggled, 0, "{what}: RFC 9112, 6.3: the connection ends with the request");
        }
    }
}

#[tokio::test]
async fn a_bare_lf_goes_up_as_crlf_or_not_at_all() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let mut caller = stage.front().await;
    caller.send("GET /lf HTTP/1.1\nhost: a\nx-a: 1\n\n").await;
    let answer = caller.answer(false).await;
    assert!([200, 400].contains(&answer.status()));
    for asked in origin.seen() {
        assert_eq!(asked.head, b"GET /lf HTTP/1.1\r\nhost: a\r\nx-a: 1\r\n\r\n");
    }
}

#[tokio::test]
async fn what_cannot_stand_in_a_field_of_http1_is_refused_on_h2() {
    let origin = Origin::well().await;
    let stage = Stage::before(origin.address).await;
    let h2 = stage.h2("front").await;
    for (name, value) in
        [("transfer-encoding", "chunked"), ("connection", "x-a"), ("upgrade", "websocket"), ("te", "gzip")]
    {
        let request = Request::get("http://a/").header(name, value).header("x-a", "1").body(nothing()).unwrap();
        // hyper's client takes them away itself, or the proxy refuses: nothing of them may reach the upstream.
        let _ = h2.send(request).await;
    }
    assert!(origin.seen().iter().all(is_canonical));
    for asked in origin.seen() {
        assert!(asked.all("transfer-encoding").is_empty() && asked.all("upgrade").is_empty());
        assert!(
            asked.all("connection").is_empty() && asked.all("te").is_empty(),
            "{}",
            String::from_utf8_lossy(&asked.head)
        );
    }
    assert_eq!(stage.front().await.ask(get("/", "")).await.status(), 200);
}
