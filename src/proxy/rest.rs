//! The body of an upstream's answer over HTTP/1.1, read when it is asked for (RFC 9112, 6 and 7).

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::exchange::Line;
use super::head::{FIELDS, Framing};
use super::upstream::Pool;
use crate::service::Error;

/// A line with the size of a chunk, and all trailers together, at most.
const LONGEST_LINE: usize = 16 << 10;

/// What of an answer did not come with its head. The connection goes back once all of it is there; dropped before that, it
/// is closed.
#[derive(Debug)]
pub(super) struct Rest {
    line: Option<Line>,
    pool: Rc<Pool>,
    left: Left,
    keeps: bool,
}

/// What is still to come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Left {
    /// So many bytes.
    Length(u64),
    /// Whatever comes before the connection ends.
    Close,
    /// The size of a chunk.
    Size,
    /// So much of a chunk.
    Chunk(u64),
    /// The end of the line behind a chunk.
    Gap,
    /// The fields behind the last chunk.
    Trailers,
    /// Nothing.
    Nothing,
}

/// What came is no body.
#[derive(Debug, Eq, PartialEq)]
pub struct Malformed;

impl From<Framing> for Left {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::Length(0) => Self::Nothing,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunks => Self::Size,
            Framing::Close => Self::Close,
        }
    }
}

impl Rest {
    pub(super) fn new(line: Line, framing: Framing, keeps: bool, pool: Rc<Pool>) -> Self {
        Self { line: Some(line), pool, left: framing.into(), keeps }
    }

    fn over(&mut self) {
        self.left = Left::Nothing;
        if let Some(line) = self.line.take().filter(|_| self.keeps) {
            self.pool.put(line);
        }
    }
}

impl HttpBody for Rest {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let whole = loop {
            let Some(line) = &mut this.line else { return Poll::Ready(None) };
            let frame = this.left.next(&mut line.seen);
            match frame {
                Ok(Some(frame)) => {
                    // Nobody may ask again after the last piece.
                    if this.left == Left::Nothing {
                        this.over();
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Ok(None) if this.left == Left::Nothing => break true,
                Ok(None) => {}
                Err(Malformed) => break false,
            }
            match ready!(line.poll_fill(cx)) {
                Ok(0) => break this.left == Left::Close,
                Ok(_) => {}
                Err(_) => break false,
            }
        };
        if whole {
            this.over();
            return Poll::Ready(None);
        }
        this.line = None;
        Poll::Ready(Some(Err(Error::Torn)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == Left::Nothing
    }

    fn size_hint(&self) -> SizeHint {
        match self.left {
            Left::Length(left) => SizeHint::with_exact(left),
            Left::Nothing => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }
}

impl Left {
    /// The next piece of what has come; nothing where more has to come first, or nothing is left.
    pub fn next(&mut self, seen: &mut BytesMut) -> Result<Option<Frame<Bytes>>, Malformed> {
        loop {
            match self {
                Self::Nothing => return Ok(None),
                _ if seen.is_empty() => return Ok(None),
                Self::Close => return Ok(Some(Frame::data(seen.split().freeze()))),
                Self::Length(left) => {
                    let piece = take(seen, left);
                    if *left == 0 {
                        *self = Self::Nothing;
                    }
                    return Ok(Some(Frame::data(piece)));
                }
                Self::Size => match size(seen)? {
                    None => return Ok(None),
                    Some(0) => *self = Self::Trailers,
                    Some(size) => *self = Self::Chunk(size),
                },
                Self::Chunk(left) => {
                    let piece = take(seen, left);
                    if *left == 0 {
                        *self = Self::Gap;
                    }
                    return Ok(Some(Frame::data(piece)));
                }
                Self::Gap => match seen[..] {
                    [b'\r', b'\n', ..] => {
                        seen.advance(2);
                        *self = Self::Size;
                    }
                    [b'\r'] => return Ok(None),
                    _ => return Err(Malformed),
                },
                Self::Trailers => {
                    let Some(trailers) = trailers(seen)? else { return Ok(None) };
                    *self = Self::Nothing;
                    return Ok((!trailers.is_empty()).then(|| Frame::trailers(trailers)));
                }
            }
        }
    }
}

/// So much of it as there is.
fn take(seen: &mut BytesMut, left: &mut u64) -> Bytes {
    let length = usize::try_from(*left).map_or(seen.len(), |left| left.min(seen.len()));
    *left -= length as u64;
    seen.split_to(length).freeze()
}

/// The size of a chunk, if its line is whole.
fn size(seen: &mut BytesMut) -> Result<Option<u64>, Malformed> {
    // The parser takes no digit for a zero, and that would be an end.
    if !seen[0].is_ascii_hexdigit() {
        return Err(Malformed);
    }
    match httparse::parse_chunk_size(seen) {
        Ok(httparse::Status::Complete((length, size))) if length <= LONGEST_LINE => {
            // It takes a bare LF for a part of the extension, where others see the end of the line.
            if seen[..length - 2].contains(&b'\n') {
                return Err(Malformed);
            }
            seen.advance(length);
            Ok(Some(size))
        }
        Ok(httparse::Status::Partial) if seen.len() <= LONGEST_LINE => Ok(None),
        _ => Err(Malformed),
    }
}

/// The fields behind the last chunk, if they are whole.
fn trailers(seen: &mut BytesMut) -> Result<Option<HeaderMap>, Malformed> {
    let mut lines = [httparse::EMPTY_HEADER; FIELDS];
    let (length, found) = match httparse::parse_headers(seen, &mut lines) {
        Ok(httparse::Status::Complete(whole)) => whole,
        Ok(httparse::Status::Partial) if seen.len() <= LONGEST_LINE => return Ok(None),
        _ => return Err(Malformed),
    };
    // Behind a chunk there is no line that ends with LF alone.
    if seen[..length].split(|byte| *byte == b'\n').rev().skip(1).any(|line| !line.ends_with(b"\r")) {
        return Err(Malformed);
    }
    let mut trailers = HeaderMap::new();
    for line in found {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| Malformed)?;
        trailers.append(name, HeaderValue::from_bytes(line.value).map_err(|_| Malformed)?);
    }
    seen.advance(length);
    Ok(Some(trailers))
}
