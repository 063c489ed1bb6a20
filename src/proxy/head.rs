//! The head of an answer over HTTP/1.1, read from what came of it (RFC 9112, 4 to 6).

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Response, StatusCode, Version};
use httparse::{Header, ParserConfig};
use hyper::ext::ReasonPhrase;

use super::hop;
use crate::service::Body;

/// Fields and bytes of a head, where the listener's bounds do not allow more: what hyper takes, which up to so many fields
/// needs no memory for them.
pub const FIELDS: usize = 100;
pub(super) const BYTES: usize = 8192 + 4096 * 100;

/// The head of an answer, and what it says of the body behind it.
#[derive(Debug)]
pub struct Head {
    /// The answer, still without its body.
    pub response: Box<Response<Body>>,
    /// How its body ends.
    pub framing: Framing,
    /// The upstream keeps the connection.
    pub keeps: bool,
}

/// How a body ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// With a chunk of no size.
    Chunks,
    /// With the connection.
    Close,
}

/// Takes a head from what has come, if it is whole. Says what is wrong where it will never be one.
pub fn take(seen: &mut BytesMut, method: &Method, fields: usize) -> Result<Option<Head>, &'static str> {
    let (mut few, mut many) = ([Place::default(); FIELDS], Vec::new());
    let places = if fields <= FIELDS {
        &mut few[..fields]
    } else {
        many.resize(fields, Place::default());
        &mut many[..]
    };
    let Some(first) = find(seen, places)? else { return Ok(None) };
    let bytes = seen.split_to(first.length).freeze();
    let mut response = Box::new(Response::new(Body::empty()));
    *response.status_mut() = first.status;
    *response.version_mut() = first.version;
    if !first.usual
        && let Some(reason) = reason(&bytes)
    {
        response.extensions_mut().insert(reason);
    }
    let mut said = Said { keeps: first.version == Version::HTTP_11, ..Said::default() };
    let mut headers = HeaderMap::with_capacity(first.fields);
    for Place { name, value } in &places[..first.fields] {
        let name = HeaderName::from_bytes(&bytes[name.0 as usize..name.1 as usize]);
        let value = HeaderValue::from_maybe_shared(bytes.slice(value.0 as usize..value.1 as usize));
        let (Ok(name), Ok(value)) = (name, value) else { return Err("the upstream's answer has a field that is none") };
        said.hear(&name, &value);
        headers.append(name, value);
    }
    let framing = said.framing(method, &first, &mut headers)?;
    *response.headers_mut() = headers;
    Ok(Some(Head { response, framing, keeps: said.keeps }))
}

/// Where name and value of a field stand in a head.
#[derive(Clone, Copy, Default)]
struct Place {
    name: (u32, u32),
    value: (u32, u32),
}

/// What the first line of a head says, and how long the head is.
struct First {
    status: StatusCode,
    version: Version,
    /// It says the same as ever.
    usual: bool,
    length: usize,
    fields: usize,
}

/// Finds the parts of a head, if it is whole.
fn find(seen: &[u8], places: &mut [Place]) -> Result<Option<First>, &'static str> {
    let (mut few, mut many) = ([const { MaybeUninit::uninit() }; FIELDS], Vec::new());
    let lines: &mut [MaybeUninit<Header<'_>>] = if places.len() <= FIELDS {
        &mut few[..places.len()]
    } else {
        many.resize_with(places.len(), MaybeUninit::uninit);
        &mut many
    };
    let mut answer = httparse::Response::new(&mut []);
    let length = match ParserConfig::default().parse_response_with_uninit_headers(&mut answer, seen, lines) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err("the head of the upstream's answer has too many fields"),
        Err(_) => return Err("the upstream's answer is not HTTP"),
    };
    let place = |part: &[u8]| {
        let begin = (part.as_ptr().addr() - seen.as_ptr().addr()) as u32; // at most BYTES, and a read
        (begin, begin + part.len() as u32)
    };
    for (found, line) in places.iter_mut().zip(&*answer.headers) {
        // An empty value may point anywhere.
        let value = if line.value.is_empty() { (0, 0) } else { place(line.value) };
        *found = Place { name: place(line.name.as_bytes()), value };
    }
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or("the upstream's status is none")?;
    let version = if answer.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let usual = answer.reason == status.canonical_reason();
    Ok(Some(First { status, version, usual, length, fields: answer.headers.len() }))
}

/// What stands behind the status, byte for byte.
fn reason(head: &Bytes) -> Option<ReasonPhrase> {
    let line = head.trim_ascii_start().split(|byte| *byte == b'\n').next()?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    ReasonPhrase::try_from(line.get("HTTP/1.1 200 ".len()..).unwrap_or_default()).ok()
}

/// What the fields of a head say of the connection and of the body.
#[derive(Default)]
struct Said {
    keeps: bool,
    coded: bool,
    length: Option<u64>,
    /// Its length is told several times, or in a way that is to be looked at.
    odd: bool,
}

impl Said {
    fn hear(&mut self, name: &HeaderName, value: &HeaderValue) {
        if *name == CONTENT_LENGTH {
            let length = hop::length(value.as_bytes());
            self.odd |= length.is_none() || self.length.is_some();
            self.length = length;
        } else if *name == TRANSFER_ENCODING {
            self.coded = true;
        } else if *name == CONNECTION {
            for word in hop::listed(value) {
                if word.eq_ignore_ascii_case(b"close") {
                    self.keeps = false;
                    // Whatever else is said.
                    break;
                }
                self.keeps |= word.eq_ignore_ascii_case(b"keep-alive");
            }
        }
    }

    /// RFC 9112, 6.3.
    fn framing(&mut self, method: &Method, first: &First, headers: &mut HeaderMap) -> Result<Framing, &'static str> {
        let status = first.status;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            self.keeps = false;
        }
        if status.is_informational() || status == StatusCode::NO_CONTENT {
            return Ok(Framing::Length(0));
        }
        if self.odd && !self.coded {
            let why = "the upstream told no length of its answer that makes sense";
            hop::one_length(headers).map_err(|()| why)?;
            self.length = headers.get(CONTENT_LENGTH).and_then(|one| hop::length(one.as_bytes()));
            self.length.ok_or(why)?;
        }
        if *method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
            return Ok(Framing::Length(0));
        }
        if self.coded {
            if first.version == Version::HTTP_10 {
                return Err("the upstream answered HTTP/1.0 in a transfer coding");
            }
            // Whether that is `chunked` and nothing else is looked at by whoever passes the head on. RFC 9112, 6.1: who
            // sends a length beside it is not to be trusted with what comes next.
            self.keeps &= self.length.is_none() && !self.odd;
            return Ok(Framing::Chunks);
        }
        match self.length {
            Some(length) => Ok(Framing::Length(length)),
            None => {
                self.keeps = false;
                Ok(Framing::Close)
            }
        }
    }
}
