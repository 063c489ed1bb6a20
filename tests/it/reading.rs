//! Answers over HTTP/1.1 are read by a reader of ours: it takes nothing that hyper's client does not take, finds the same in
//! it, and it makes no difference in which pieces an answer comes.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use pratfall::proxy::head::{self, FIELDS, Framing};
use pratfall::proxy::rest::{Left, Malformed};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRng, TestRunner};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What somebody made of an answer.
#[derive(Debug, Default, PartialEq)]
struct Made {
    /// Status, fields and what is special in its first line.
    head: Option<(u16, HeaderMap, Option<Vec<u8>>)>,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    whole: bool,
}

fn said<B>(response: &Response<B>) -> (u16, HeaderMap, Option<Vec<u8>>) {
    let reason = response.extensions().get::<hyper::ext::ReasonPhrase>().map(|reason| reason.as_bytes().to_vec());
    // hyper loses one that is not ASCII.
    let reason = reason.map(|reason| if reason.is_ascii() { reason } else { Vec::new() });
    let mut headers = response.headers().clone();
    // Of equal ones we keep one.
    headers.remove("content-length");
    (response.status().as_u16(), headers, reason)
}

/// Reads an answer that comes in pieces of such lengths, and then ends.
fn ours(method: &Method, mut answer: &[u8], pieces: &[usize]) -> Made {
    let (mut made, mut seen, mut left) = (Made::default(), BytesMut::new(), None);
    let mut lengths = pieces.iter().copied().chain(std::iter::repeat(usize::MAX));
    loop {
        let end = answer.is_empty();
        let (piece, rest) = answer.split_at(lengths.next().unwrap_or(1).clamp(1, usize::MAX).min(answer.len()));
        seen.extend_from_slice(piece);
        answer = rest;
        while left.is_none() && !seen.is_empty() {
            match head::take(&mut seen, method, FIELDS) {
                Ok(Some(head)) if head.response.status().is_informational() && head.response.status() != 101 => {}
                Ok(Some(head)) => {
                    made.head = Some(said(&head.response));
                    left = Some((Left::from(head.framing), head.framing));
                }
                Ok(None) => break,
                Err(_) => return made,
            }
        }
        if let Some((left, framing)) = &mut left {
            loop {
                match left.next(&mut seen) {
                    Ok(Some(frame)) => match frame.into_data() {
                        Ok(data) => made.body.extend_from_slice(&data),
                        Err(frame) => made.trailers = frame.into_trailers().ok(),
                    },
                    Ok(None) => break,
                    Err(Malformed) => return made,
                }
            }
            made.whole = *left == Left::Nothing || end && *framing == Framing::Close;
            if made.whole && *left == Left::Nothing {
                return made;
            }
        }
        if end {
            return made;
        }
    }
}

/// The same by hyper's client.
async fn hypers(method: &Method, answer: &[u8]) -> Made {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(near)).await.expect("it begins");
    tokio::spawn(connection);
    let mut request = Request::new(Empty::new());
    *request.method_mut() = method.clone();
    let upstream = async {
        far.read_u8().await.expect("the request comes");
        far.write_all(answer).await.expect("there is room");
        far.shutdown().await.expect("it ends");
        // What is left of the request, or hyper would see a break.
        let _ = far.read_to_end(&mut Vec::new()).await;
    };
    let caller = async {
        let mut made = Made::default();
        if let Ok(mut response) = sender.send_request(request).await {
            drop(sender);
            made.head = Some(said(&response));
            made.whole = true;
            while let Some(frame) = response.frame().await {
                match frame.map(|frame| frame.into_data()) {
                    Ok(Ok(data)) => made.body.extend_from_slice(&data),
                    Ok(Err(frame)) => made.trailers = frame.into_trailers().ok(),
                    Err(_) => made.whole = false,
                }
            }
        }
        made
    };
    tokio::join!(caller, upstream).0
}

/// One of them, now and then with a byte changed, left out or said twice.
fn one_of(all: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    let change = prop::option::weighted(0.15, (any::<prop::sample::Index>(), any::<u8>(), 0..3u8));
    (prop::sample::select(all), change).prop_map(|(text, change)| {
        let mut text = text.to_vec();
        if let Some((at, byte, how)) = change.filter(|_| !text.is_empty()) {
            let at = at.index(text.len());
            match how {
                0 => text[at] = byte,
                1 => drop(text.remove(at)),
                _ => text.insert(at, text[at]),
            }
        }
        text
    })
}

const FIRST: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 200 OK\r\n",
    b"HTTP/1.1 204 No Content\r\n",
    b"HTTP/1.1 304 Not Modified\r\n",
    b"HTTP/1.1 404 Not There\r\n",
    b"HTTP/1.1 200\r\n",
    b"HTTP/1.1 200 \r\n",
    b"HTTP/1.1 999 \xe9t\xe9\r\n",
    b"\r\n\r\nHTTP/1.1 200 OK\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 500 No\r\n",
    b"HTTP/2.0 200 OK\r\n",
];
const FIELD: &[&[u8]] = &[
    b"content-length: 5\r\n",
    b"Content-Length: 5\r\n",
    b"content-length: 5, 5\r\n",
    b"content-length: 6\r\n",
    b"content-length: 0\r\n",
    b"content-length: +5\r\n",
    b"content-length:\r\n",
    b"content-length: 18446744073709551616\r\n",
    b"transfer-encoding: chunked\r\n",
    b"Transfer-Encoding: Chunked\r\n",
    b"connection: close\r\n",
    b"connection: keep-alive, x-a\r\n",
    b"x-a: 1\r\n",
    b"x-a:\r\n",
    b"x-b: \xff\t \r\n",
    b"x-c : 1\r\n",
    b" folded\r\n",
    b"x-d: 1\n",
];
const BODY: &[&[u8]] = &[
    b"",
    b"hello",
    b"hello, and more",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n6;a=\"b\"\r\n world\r\n0\r\nx-t: 1\r\n\r\n",
    b"000005 \r\nhello\r\n00;z\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    b"5\r\nhello\r\n\r\n",
    b"5\r\nhello\r\n;\r\n\r\n",
    b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    b"5\nhello\n0\n\n",
    b"ffffffffffffffff\r\nhello",
    b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\nx-t: 1\r\n folded\r\n\r\n",
];

#[test]
fn an_answer_is_what_hyper_makes_of_it_in_whatever_pieces_it_comes() {
    let config = Config { cases: 20_000, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(Default::default()));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let fields = prop::collection::vec(one_of(FIELD), 0..3);
    let pieces = prop::collection::vec(1..12usize, 0..40);
    let all = (one_of(FIRST), fields, one_of(BODY), prop::bool::weighted(0.1), pieces);
    let tried = runner.run(&all, |(first, fields, body, head, pieces)| {
        let usual = FIRST.contains(&&first[..]) && BODY.contains(&&body[..]);
        let usual = usual && fields.iter().all(|field| FIELD.contains(&&field[..]));
        let method = if head { Method::HEAD } else { Method::GET };
        let answer = [first, fields.concat(), b"\r\n".to_vec(), body].concat();
        let made = ours(&method, &answer, &[]);
        prop_assert_eq!(&ours(&method, &answer, &pieces), &made, "in pieces: {}", answer.escape_ascii());
        let theirs = runtime.block_on(hypers(&method, &answer));
        let codings = theirs.head.iter().flat_map(|(_, headers, _)| headers.get_all("transfer-encoding"));
        if !codings.map(|coding| coding.as_bytes().to_ascii_lowercase()).all(|coding| coding == b"chunked") {
            // Refused before the body is read, whoever reads it: `replies`.
            return Ok(());
        }
        if made.whole {
            prop_assert_eq!(&made, &theirs, "{}", answer.escape_ascii());
        } else if usual && !head && theirs.head.as_ref().is_none_or(|(status, ..)| *status != 304) {
            // Of what is broken on purpose we may take less, and of lengths where nothing comes: hyper does not read them.
            prop_assert!(!theirs.whole, "only hyper takes {}: {:?} {:?}", answer.escape_ascii(), theirs, made);
        }
        Ok(())
    });
    tried.unwrap_or_else(|why| panic!("{why}"));
}
