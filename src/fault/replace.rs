//! Sends another body in a body's place, under a length that is right or the old one.
//!
//! An honest replacement is announced with its own length, and without the old `content-encoding`. Under the old length
//! a shorter one is torn: it breaks off on HTTP/1, and ends early on HTTP/2. A longer one ends where the old one would have on
//! HTTP/1, because nobody could tell more from the next message; on HTTP/2 it goes over. Where no length was announced there is
//! nothing to lie about.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio_util::sync::CancellationToken;

use super::Direction;
use super::moment::Moment;
use super::stream::Setting;
use super::tear::{Tear, Torn};
use crate::service::{Body, Cut, Error};

/// Another body in a body's place.
#[derive(Default)]
pub(super) struct Replace {
    /// An upload is read away first: its caller is to see nothing of this.
    before: Option<Body>,
    text: Bytes,
    trailers: Option<HeaderMap>,
    /// An answer is read away for the trailers behind it; nothing where the length says where the end is.
    behind: Option<Body>,
    /// The length that is announced.
    length: Option<u64>,
    /// A short body that must not look whole.
    torn: Option<Box<Torn>>,
}

impl Replace {
    pub(super) fn new(
        old: Body,
        mut text: Bytes,
        honest: bool,
        way: Direction,
        headers: &mut HeaderMap,
        setting: Setting,
    ) -> Self {
        setting.tell(|testimony| testimony.changed = true);
        let announced = old.size_hint().exact().filter(|_| headers.contains_key(CONTENT_LENGTH));
        let length = text.len() as u64;
        if honest {
            headers.remove(CONTENT_ENCODING);
        }
        let (before, old) = if way == Direction::Request { (Some(old), None) } else { (None, Some(old)) };
        let plain = Self { before, ..Self::default() };
        let Some(announced) = announced else {
            return Self { text, behind: old, ..plain };
        };
        if honest {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            return Self { text, length: Some(length), ..plain };
        }
        if setting.shared {
            return Self { text, ..plain };
        }
        if length >= announced {
            text.truncate(announced as usize);
            return Self { text, length: Some(announced), ..plain };
        }
        let tear = Tear { at: Moment::bytes(length), hang: None, cut: Some(Cut::Close) };
        let short = Self { text, behind: Some(Body::faulted(Endless)), ..Self::default() };
        // Behind the replacement nothing comes that could be let go.
        let setting = Setting { stop: CancellationToken::new(), ..setting };
        let torn = Torn::new(Body::faulted(short), tear, headers, setting);
        Self { length: Some(announced), torn: Some(Box::new(torn)), ..plain }
    }
}

impl HttpBody for Replace {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        while let Some(before) = &mut this.before {
            match ready!(Pin::new(before).poll_frame(cx)) {
                Some(frame) => this.trailers = frame?.into_trailers().ok(),
                None => this.before = None,
            }
        }
        if let Some(torn) = &mut this.torn {
            return Pin::new(&mut **torn).poll_frame(cx);
        }
        if !this.text.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.text)))));
        }
        if let Some(trailers) = this.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let Some(behind) = &mut this.behind else { return Poll::Ready(None) };
        loop {
            match ready!(Pin::new(&mut *behind).poll_frame(cx)) {
                Some(Ok(frame)) if frame.is_data() => {}
                trailers => return Poll::Ready(trailers),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.before.is_none()
            && self.text.is_empty()
            && self.trailers.is_none()
            && self.torn.is_none()
            && self.behind.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// What never comes.
struct Endless;

impl HttpBody for Endless {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Poll::Pending
    }
}
