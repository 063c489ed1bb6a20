//! Answers of an upstream over HTTP/1.1: the same whether they come at once or in pieces, and nothing in them that did not come.
#![no_main]

use http::{HeaderMap, Method, StatusCode, Version};
use libfuzzer_sys::fuzz_target;
use pratfall::proxy::head::{self, FIELDS, Framing};
use pratfall::proxy::rest::Left;

/// What was made of an answer.
#[derive(Debug, Default, PartialEq)]
struct Made {
    heads: Vec<(StatusCode, Version, HeaderMap, bool)>,
    framing: Option<Framing>,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    left: Option<Left>,
    refused: bool,
}

fn made<'a>(method: &Method, pieces: impl Iterator<Item = &'a [u8]>) -> Made {
    let (mut made, mut seen, mut left) = (Made::default(), bytes::BytesMut::new(), None);
    for piece in pieces {
        seen.extend_from_slice(piece);
        while left.is_none() && !seen.is_empty() && !made.refused {
            match head::take(&mut seen, method, FIELDS) {
                Ok(Some(head)) => {
                    let response = head.response;
                    if !response.status().is_informational() {
                        left = Some(Left::from(head.framing));
                        made.framing = Some(head.framing);
                    }
                    made.heads.push((response.status(), response.version(), response.headers().clone(), head.keeps));
                }
                Ok(None) => break,
                Err(_) => made.refused = true,
            }
        }
        while let Some(left) = &mut left
            && !made.refused
        {
            match left.next(&mut seen) {
                Ok(Some(frame)) => match frame.into_data() {
                    Ok(data) => made.body.extend_from_slice(&data),
                    Err(frame) => made.trailers = frame.into_trailers().ok(),
                },
                Ok(None) => break,
                Err(_) => made.refused = true,
            }
        }
    }
    made.left = left.filter(|_| !made.refused);
    made
}

fuzz_target!(|text: &[u8]| {
    let [how, answer @ ..] = text else { return };
    let method = if how & 1 == 0 { Method::GET } else { Method::HEAD };
    let whole = made(&method, std::iter::once(answer));
    let piece = usize::from(how >> 1).max(1);
    assert_eq!(made(&method, answer.chunks(piece)), whole, "in pieces of {piece}");

    assert!(whole.body.len() <= answer.len());
    let Some((_, _, headers, keeps)) = whole.heads.last().filter(|_| whole.framing.is_some()) else { return };
    match whole.framing {
        Some(Framing::Close) => assert!(!keeps, "what ends with the connection cannot keep it"),
        Some(Framing::Length(length)) => assert!(whole.body.len() as u64 <= length),
        _ => assert!(headers.contains_key("transfer-encoding")),
    }
    // RFC 9112, 6.3: two ways to tell the end are one too many to be trusted with a next answer.
    let both = headers.contains_key("transfer-encoding") && headers.contains_key("content-length");
    assert!(!(both && *keeps && whole.framing == Some(Framing::Chunks)));
});
