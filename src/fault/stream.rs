//! Puts a body of ours around the body of a request or of its answer: what body, throttle and late drops have in common.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body::Body as _;
use pin_project_lite::pin_project;
use tokio_util::sync::CancellationToken;
use tower::{Layer, Service};

use super::corrupt::Corrupt;
use super::pace::{Pace, Paced};
use super::replace::Replace;
use super::tear::{Tear, Torn};
use super::{Direction, Draw, Outlet, Tunnel, Upward, Witness};
use crate::service::{Body, Error};

/// What is done to a body on its way, and to whose.
#[derive(Clone, Debug)]
pub(super) struct Treatment {
    direction: Direction,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Tear(Tear),
    Pace(Pace),
    Corrupt(f64),
    Replace { text: Bytes, honest: bool },
}

impl Treatment {
    pub(super) fn tear(direction: Direction, tear: Tear) -> Self {
        Self { direction, what: What::Tear(tear) }
    }

    pub(super) fn pace(direction: Direction, pace: Pace) -> Self {
        Self { direction, what: What::Pace(pace) }
    }

    pub(super) fn corrupt(direction: Direction, share: f64) -> Self {
        Self { direction, what: What::Corrupt(share) }
    }

    pub(super) fn replace(direction: Direction, text: Bytes, honest: bool) -> Self {
        Self { direction, what: What::Replace { text, honest } }
    }

    /// The layer that does it; `salt` tells its draws from those of other faults around the same call.
    pub(super) fn layer(self, salt: u64) -> StreamLayer {
        StreamLayer { treatment: self, salt, stop: CancellationToken::new() }
    }

    /// Puts a body of ours around one, if there is one.
    fn wrap(self, headers: &mut HeaderMap, body: &mut Body, setting: Setting) {
        if body.is_end_stream() || setting.stop.is_cancelled() {
            return;
        }
        if let Some(witness) = &setting.witness {
            witness.tell(|testimony| testimony.awaited = true);
        }
        let inner = std::mem::replace(body, Body::empty());
        *body = match self.what {
            What::Tear(tear) => Body::faulted(Torn::new(inner, tear, headers, setting)),
            What::Pace(pace) => Body::faulted(Paced::new(inner, pace, setting)),
            What::Corrupt(share) => Body::faulted(Corrupt::new(inner, share, setting)),
            What::Replace { text, honest } => {
                Body::faulted(Replace::new(inner, text, honest, self.direction, headers, setting))
            }
        };
    }

    /// The same for what goes one way through a tunnel. There is no body there to be replaced.
    pub(super) fn wrap_tunnel(self, way: Direction, headers: &HeaderMap, body: &mut Body, setting: Setting) {
        if self.direction == way && !matches!(self.what, What::Replace { .. }) {
            self.wrap(&mut headers.clone(), body, setting);
        }
    }
}

/// What a treated body knows of the call that it belongs to.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    /// From its end on, the body passes as it is.
    pub(super) stop: CancellationToken,
    pub(super) witness: Option<Witness>,
    /// Where it goes.
    pub(super) outlet: Option<Outlet>,
    /// Others share the connection that the body goes to: it has frames and flow control of its own.
    pub(super) shared: bool,
    pub(super) draw: Draw,
}

impl Setting {
    /// Tells what happened.
    pub(super) fn tell(&self, news: impl FnOnce(&mut super::Testimony)) {
        if let Some(witness) = &self.witness {
            witness.tell(news);
        }
    }
}

/// Treats the body of every request that passes, or of its answer.
#[derive(Clone, Debug)]
pub(super) struct StreamLayer {
    treatment: Treatment,
    salt: u64,
    stop: CancellationToken,
}

impl StreamLayer {
    /// Lets bodies pass as they are as soon as `stop` is cancelled.
    pub(super) fn until(self, stop: CancellationToken) -> Self {
        Self { stop, ..self }
    }

    fn setting<B>(&self, request: &Request<B>) -> Setting {
        let extensions = request.extensions();
        let answer = self.treatment.direction == Direction::Response;
        let draw = extensions.get::<Draw>().copied().unwrap_or(Draw(0));
        Setting {
            stop: self.stop.clone(),
            witness: extensions.get::<Witness>().cloned(),
            outlet: extensions.get::<Outlet>().filter(|_| answer).cloned(),
            shared: answer && request.version() >= Version::HTTP_2,
            draw: Draw(draw.bits(self.salt)),
        }
    }
}

impl<S> Layer<S> for StreamLayer {
    type Service = StreamService<S>;

    fn layer(&self, inner: S) -> StreamService<S> {
        StreamService { inner, layer: self.clone() }
    }
}

/// The service behind [`StreamLayer`].
#[derive(Clone, Debug)]
pub(super) struct StreamService<S> {
    inner: S,
    layer: StreamLayer,
}

impl<S> Service<Request<Body>> for StreamService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Error>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = Treated<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let mut setting = self.layer.setting(&request);
        let treatment = self.layer.treatment.clone();
        if let Some(tunnel) = request.extensions().get::<Tunnel>() {
            tunnel.want(treatment.clone(), setting.clone());
        }
        match treatment.direction {
            Direction::Request => {
                setting.outlet = Some(request.extensions_mut().get_or_insert_default::<Upward>().outlet());
                let (mut head, mut body) = request.into_parts();
                treatment.wrap(&mut head.headers, &mut body, setting);
                Treated { future: self.inner.call(Request::from_parts(head, body)), after: None }
            }
            Direction::Response => Treated { future: self.inner.call(request), after: Some((treatment, setting)) },
        }
    }
}

pin_project! {
    /// The answer to a call whose body is treated.
    #[allow(missing_debug_implementations)] // its parts are other people's futures
    pub(super) struct Treated<F> {
        #[pin]
        future: F,
        after: Option<(Treatment, Setting)>,
    }
}

impl<F> Future for Treated<F>
where
    F: Future<Output = Result<Response<Body>, Error>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.future.poll(cx))?;
        let Some((treatment, setting)) = this.after.take() else { return Poll::Ready(Ok(response)) };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Poll::Ready(Ok(response)); // what follows is a tunnel's
        }
        let (mut head, mut body) = response.into_parts();
        treatment.wrap(&mut head.headers, &mut body, setting);
        Poll::Ready(Ok(Response::from_parts(head, body)))
    }
}

/// Stages for the tests of what treats bodies.
#[cfg(test)]
pub(super) mod stage {
    use std::time::Duration;

    use http_body::{Body as HttpBody, Frame, SizeHint};
    use http_body_util::BodyExt;
    use tokio::time::Instant;
    use tower::{ServiceExt, service_fn};

    use super::*;

    /// A body of pieces that are there at once, then trailers; its length is known where `exact`.
    pub(crate) struct Pieces {
        pub(crate) pieces: std::collections::VecDeque<Bytes>,
        pub(crate) trailers: Option<HeaderMap>,
        pub(crate) exact: bool,
    }

    impl Pieces {
        pub(crate) fn of(pieces: &[&str]) -> Self {
            let pieces = pieces.iter().map(|piece| Bytes::from((*piece).to_owned())).collect();
            Self { pieces, trailers: None, exact: false }
        }
    }

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            if let Some(piece) = self.pieces.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
        }

        fn is_end_stream(&self) -> bool {
            self.exact && self.pieces.is_empty()
        }

        fn size_hint(&self) -> SizeHint {
            let length = self.pieces.iter().map(|piece| piece.len() as u64).sum();
            if self.exact { SizeHint::with_exact(length) } else { SizeHint::default() }
        }
    }

    /// What came of a body: its pieces with the moments they came, its trailers, and its end.
    #[derive(Debug)]
    pub(crate) struct Came {
        pub(crate) pieces: Vec<(Duration, Bytes)>,
        pub(crate) trailers: Option<HeaderMap>,
        pub(crate) end: Result<Duration, (Duration, Error)>,
        pub(crate) testimony: super::super::Testimony,
    }

    impl Came {
        pub(crate) fn bytes(&self) -> Vec<u8> {
            self.pieces.iter().flat_map(|(_, piece)| piece.to_vec()).collect()
        }

        pub(crate) fn text(&self) -> String {
            String::from_utf8_lossy(&self.bytes()).into_owned()
        }
    }

    /// Reads the answer of an upstream through a fault, as a document writes it.
    pub(crate) async fn through(fault: &str, body: Pieces, version: Version, stop: CancellationToken) -> Came {
        through_typed(fault, body, version, stop, "text/plain").await
    }

    pub(crate) async fn through_typed(
        fault: &str,
        body: Pieces,
        version: Version,
        stop: CancellationToken,
        kind: &'static str,
    ) -> Came {
        let fault: super::super::Fault = serde_json::from_str(fault).expect(fault);
        let layer = fault.treatment().expect("it treats bodies").layer(0).until(stop);
        let body = std::sync::Mutex::new(Some(body));
        let upstream = service_fn(move |_: Request<Body>| {
            let body = body.lock().unwrap().take().map(Body::faulted).unwrap();
            async move {
                let mut response = Response::new(body);
                response.headers_mut().insert("content-type", http::HeaderValue::from_static(kind));
                Ok::<_, Error>(response)
            }
        });
        let witness = Witness::default();
        let mut request = Request::new(Body::empty());
        *request.version_mut() = version;
        request.extensions_mut().insert(witness.clone());
        request.extensions_mut().insert(Draw(7));
        let start = Instant::now();
        let mut body = layer.layer(upstream).oneshot(request).await.unwrap().into_body();
        let (mut pieces, mut trailers) = (Vec::new(), None);
        let end = loop {
            match body.frame().await {
                None => break Ok(start.elapsed()),
                Some(Err(error)) => break Err((start.elapsed(), error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => pieces.push((start.elapsed(), data)),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                },
            }
            if body.is_end_stream() {
                break Ok(start.elapsed());
            }
        };
        Came { pieces, trailers, end, testimony: witness.hear() }
    }
}
