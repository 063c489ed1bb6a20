//! Ends the exchange without an answer.
//!
//! ```yaml
//! - drop: { how: reset }
//! ```

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Request;
use pin_project_lite::pin_project;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::{Layer, Service};

use super::hold::{Held, Hold};
use super::moment::Moment;
use super::stream::Treatment;
use super::tear::Tear;
use super::{Arrived, Direction, Sheet, Witness};
use crate::service::Cut;
use crate::units::{ByteSize, Span};

/// How the exchange ends, and when.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Drop {
    /// The manner of it.
    pub how: How,
    /// How long a `hang` lasts before the connection is closed; until the caller leaves or the fault ends where nothing is written.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub hold: Option<Span>,
    /// The moment: at the request where nothing is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<At>,
}

/// The manner in which an exchange ends.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// A TCP RST; RST_STREAM on HTTP/2.
    Reset,
    /// The connection is closed in good order, without an answer.
    Close,
    /// HTTP/2 GOAWAY.
    Goaway,
    /// No answer, and no end.
    Hang,
    /// New connections are refused.
    Refuse,
}

/// The moment of a drop: a word, or a place in the answer.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum At {
    /// As soon as the request is there.
    Request,
    /// After the head of the answer, and before the first byte of its body.
    Headers,
    /// After so many bytes of the answer's body.
    Bytes(ByteSize),
    /// After so many pieces of the answer's body, as they come: chunks on HTTP/1, DATA frames on HTTP/2.
    Chunks(u64),
    /// After so many server-sent events; what ends with an empty line, comments left out.
    Events(u64),
    /// After so many gRPC messages of the answer, or WebSocket messages of the upstream.
    Messages(u64),
}

/// For docs/faults.md.
pub(super) const SHEET: Sheet = Sheet {
    examples: &[
        "drop: { how: reset }",
        "drop: { how: close }",
        "drop: { how: hang, for: 20s }",
        "drop: { how: reset, at: { bytes: 4KiB } }",
        "drop: { how: goaway }",
        "drop: { how: refuse }",
    ],
    http1: "`reset`: TCP RST; `close`: FIN; `goaway`: `connection: close` behind the answer; `refuse`: new connections get an RST",
    http2: "RST_STREAM, with CANCEL for `reset` and INTERNAL_ERROR for `close`, and other streams live on; `goaway`: GOAWAY with \
            NO_ERROR; `refuse`: as on HTTP/1",
    grpc: "as on HTTP/2",
};

impl Drop {
    /// What it does to the answer's body, where its moment is later than the request.
    pub(super) fn tear(&self) -> Option<Treatment> {
        let at = match self.at? {
            At::Request => return None,
            At::Headers => Moment::bytes(0),
            At::Bytes(size) => Moment::bytes(size.get()),
            At::Chunks(count) => Moment::chunks(count),
            At::Events(count) => Moment::events(count),
            At::Messages(count) => Moment::messages(count),
        };
        let hang = (self.how == How::Hang).then(|| self.hold.map(Span::get));
        Some(Treatment::tear(Direction::Response, Tear { at, hang, cut: Some(self.cut()) }))
    }

    fn cut(&self) -> Cut {
        if self.how == How::Reset { Cut::Reset } else { Cut::Close }
    }

    /// The layer that injects it at the request.
    pub fn layer(&self) -> DropLayer {
        let hang = (self.how == How::Hang).then(|| self.hold.map(Span::get));
        DropLayer { cut: self.cut(), hang, stop: CancellationToken::new() }
    }
}

/// Ends every exchange that comes, at once or after a hang.
#[derive(Clone, Debug)]
pub struct DropLayer {
    cut: Cut,
    /// Hang first: for a while, or until the injection ends.
    hang: Option<Option<Duration>>,
    stop: CancellationToken,
}

impl DropLayer {
    /// Lets go whoever hangs as soon as `stop` is cancelled: the call then goes on to the upstream.
    pub fn until(self, stop: CancellationToken) -> Self {
        Self { stop, ..self }
    }
}

impl<S> Layer<S> for DropLayer {
    type Service = DropService<S>;

    fn layer(&self, inner: S) -> DropService<S> {
        DropService { inner, layer: self.clone() }
    }
}

/// The service behind [`DropLayer`].
#[derive(Clone, Debug)]
pub struct DropService<S> {
    inner: S,
    layer: DropLayer,
}

impl<S, B> Service<Request<B>> for DropService<S>
where
    S: Service<Request<B>> + Clone,
    S::Error: From<Cut>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Dropped<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let cut = self.layer.cut;
        let Some(span) = self.layer.hang else { return Dropped { state: State::Cut { cut } } };
        let fresh = self.inner.clone(); // not polled yet: it stays
        let ready = std::mem::replace(&mut self.inner, fresh); // polled ready: it is called
        let since = request.extensions().get::<Arrived>().map_or_else(Instant::now, |arrived| arrived.0);
        let witness = request.extensions().get::<Witness>().cloned();
        let hold = Hold::new(since, span, self.layer.stop.clone(), witness);
        Dropped { state: State::Hang { hold, call: Some((ready, request)), cut } }
    }
}

pin_project! {
    /// The end of a dropped exchange.
    #[allow(missing_debug_implementations)] // its parts are other people's futures
    pub struct Dropped<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, B>
    where
        S: Service<Request<B>>,
    {
        Cut { cut: Cut },
        Hang { #[pin] hold: Hold, call: Option<(S, Request<B>)>, cut: Cut },
        Calling { #[pin] future: S::Future },
    }
}

impl<S, B> Future for Dropped<S, B>
where
    S: Service<Request<B>>,
    S::Error: From<Cut>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProjection::Cut { cut } => return Poll::Ready(Err((*cut).into())),
                StateProjection::Hang { hold, call, cut } => match ready!(hold.poll(cx)) {
                    Held::ToTheEnd => return Poll::Ready(Err((*cut).into())),
                    Held::Released => {
                        let (mut service, request) = call.take().expect("a hold ends once");
                        State::Calling { future: service.call(request) }
                    }
                },
                StateProjection::Calling { future } => return future.poll(cx),
            };
            state.set(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Error;
    use http::Response;
    use tower::{ServiceExt, service_fn};

    async fn dropped(how: How, hold: Option<Span>, stop: CancellationToken) -> (Result<(), String>, Duration) {
        let upstream = service_fn(|_: Request<()>| async { Ok::<_, Error>(Response::new(())) });
        let layer = Drop { how, hold, at: None }.layer().until(stop);
        let start = Instant::now();
        let result = layer.layer(upstream).oneshot(Request::new(())).await;
        (result.map(drop).map_err(|error| error.to_string()), start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn an_exchange_ends_in_the_manner_and_at_the_time_that_were_written() {
        let never = CancellationToken::new;
        let ended = |how: &str| Err(format!("ended by a fault: {how}"));
        assert_eq!(dropped(How::Reset, None, never()).await, (ended("reset"), Duration::ZERO));
        assert_eq!(dropped(How::Close, None, never()).await, (ended("close"), Duration::ZERO));
        let hang = Duration::from_secs(20);
        assert_eq!(dropped(How::Hang, Some(Span::secs(20)), never()).await, (ended("close"), hang));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_call_goes_on_to_the_upstream_when_the_injection_ends() {
        let stop = CancellationToken::new();
        let held = tokio::spawn(dropped(How::Hang, None, stop.clone()));
        tokio::time::sleep(Duration::from_secs(3)).await;
        stop.cancel();
        assert_eq!(held.await.unwrap(), (Ok(()), Duration::from_secs(3)));
    }
}
