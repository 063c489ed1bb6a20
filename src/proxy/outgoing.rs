//! The body of a request on its way to an upstream of HTTP/1: nothing at all for most of them.
//!
//! hyper moves a request a dozen times on its way to the connection. With [`Body`] in it, it is larger than the 256 bytes that
//! are copied in one go, which cost every request 700 instructions.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::service::{Body, Error};

/// A body in a box, if there is one.
#[derive(Debug)]
pub(super) struct Outgoing(Option<Box<Body>>);

impl From<Body> for Outgoing {
    fn from(body: Body) -> Self {
        // Whoever watches a body that is over already was told.
        Self((!body.is_end_stream()).then(|| Box::new(body)))
    }
}

impl From<Outgoing> for Body {
    fn from(outgoing: Outgoing) -> Self {
        outgoing.0.map_or_else(Self::empty, |body| *body)
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.0 {
            Some(body) => Pin::new(&mut **body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |body| body.size_hint())
    }
}
