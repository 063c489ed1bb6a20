//! Answers without a length to callers of HTTP/1.0, which take the end of the connection for the end of the body: only an RST
//! tells them that one is torn (RFC 9112, 8).

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::CONTENT_LENGTH;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::wire::Socket;
use crate::service::{Body, Broken, Error};

/// Has the connection end with an RST unless the body comes to its end: even if it is this process that ends.
pub(super) fn mind(response: &mut Response<Body>, socket: &Socket, patience: Duration) {
    let body = response.body();
    if body.is_end_stream() || body.is_at_hand() || response.headers().contains_key(CONTENT_LENGTH) {
        return;
    }
    socket.threaten(true);
    let body = std::mem::replace(response.body_mut(), Body::empty());
    *response.body_mut() = Body::faulted(Minded { body, socket: socket.clone(), patience, broken: None });
}

struct Minded {
    body: Body,
    socket: Socket,
    /// So long a caller may take for what came before the break, which an RST would throw away.
    patience: Duration,
    broken: Option<Broken>,
}

impl HttpBody for Minded {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        loop {
            if let Some(broken) = &mut this.broken {
                let waits = |since| since <= this.patience && !this.socket.has_let_all_go();
                return broken.poll(waits, cx).map(|error| error.map(Err));
            }
            let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
            if let Some(Err(error)) = frame {
                this.broken = Some(Broken::new(error));
                continue;
            }
            if frame.is_none() || this.body.is_end_stream() {
                this.socket.threaten(false);
            }
            return Poll::Ready(frame);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.broken.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
