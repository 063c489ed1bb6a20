//! Holds a request, or its answer, for a while.
//!
//! ```yaml
//! - latency: { delay: 1s, jitter: 50ms }
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use pin_project_lite::pin_project;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::{Layer, Service};

use super::hold::Hold;
use super::pace::Pace;
use super::shape::{Histogram, Shape};
use super::stream::Treatment;
use super::{Arrived, Direction, Draw, Sheet, Witness};
use crate::units::Span;

/// How long to hold: exactly one of `delay`, `p50` with `p99`, `distribution` or `histogram` is written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Latency {
    /// A fixed delay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Span>,
    /// Uniform, plus or minus, around `delay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Span>,
    /// The median of a log-normal delay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50: Option<Span>,
    /// The 99th percentile of a log-normal delay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99: Option<Span>,
    /// The shape of a drawn delay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distribution: Option<Distribution>,
    /// The middle of a normal distribution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Span>,
    /// The standard deviation of a normal distribution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stddev: Option<Span>,
    /// The least of a uniform distribution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<Span>,
    /// The most of a uniform distribution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Span>,
    /// A file of measured delays, one a line, as in `250ms` or `250ms,12`; at most 1 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub histogram: Option<String>,
    /// What the file of measured delays says, once it was read.
    #[serde(skip)]
    pub measured: Option<Arc<Histogram>>,
    /// Before the request goes up, or before the answer goes down; before the request where nothing is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Once, or for each chunk of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per: Option<Per>,
}

/// The shape of a drawn delay.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// Between `min` and `max`.
    Uniform,
    /// With `mean` and `stddev`, cut at zero.
    Normal,
}

/// What is held.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// Each chunk of the body, the answer's where no direction is written.
    Chunk,
}

/// For docs/faults.md.
pub(super) const SHEET: Sheet = Sheet {
    examples: &[
        "latency: { delay: 1s, jitter: 50ms }",
        "latency: { p50: 300ms, p99: 2s }",
        "latency: { distribution: normal, mean: 200ms, stddev: 50ms, direction: response }",
        "latency: { distribution: uniform, min: 100ms, max: 300ms }",
        "latency: { histogram: delays.csv }",
        "latency: { delay: 10ms, per: chunk }",
    ],
    http1: "the answer comes later",
    http2: Sheet::SAME,
    grpc: "the same; a deadline may pass first",
};

impl Latency {
    /// A fixed delay with nothing else.
    pub fn constant(delay: Span) -> Self {
        Self { delay: Some(delay), ..Self::default() }
    }

    /// Why this latency cannot be injected by this version, where it cannot.
    pub(super) fn not_yet(&self) -> Option<String> {
        (self.per.is_some() && self.delay.is_none()).then_some(())?;
        let written = "`per: chunk` without `delay`";
        Some(format!(
            "a latency with {written} is read but not injected by this version; leave it out to hold the whole request"
        ))
    }

    /// What it does to a body, where each chunk is held: the answer's unless the request's is meant.
    pub(super) fn per_chunk(&self) -> Option<Treatment> {
        self.per?;
        let pace = Pace::Chunk { delay: self.delay?.get(), jitter: self.jitter.unwrap_or_default().get() };
        Some(Treatment::pace(self.direction.unwrap_or(Direction::Response), pace))
    }

    /// The layer that injects it; `salt` tells its draws from those of other faults around the same call.
    pub fn layer(&self, salt: u64) -> LatencyLayer {
        LatencyLayer {
            shape: Shape::of(self),
            direction: self.direction.unwrap_or_default(),
            salt,
            stop: CancellationToken::new(),
        }
    }
}

/// Holds every request that passes, or its answer.
#[derive(Clone, Debug)]
pub struct LatencyLayer {
    shape: Shape,
    direction: Direction,
    salt: u64,
    stop: CancellationToken,
}

impl LatencyLayer {
    /// Lets go whoever is held as soon as `stop` is cancelled.
    pub fn until(self, stop: CancellationToken) -> Self {
        Self { stop, ..self }
    }

    /// The delay of one call.
    fn delay<B>(&self, request: &Request<B>) -> Duration {
        if self.shape.is_fixed() {
            return self.shape.at(0.0);
        }
        // Without a draw, in somebody else's stack, the median is as good as any.
        let u = request.extensions().get::<Draw>().map_or(0.5, |draw| draw.uniform(self.salt));
        self.shape.at(u)
    }
}

impl<S> Layer<S> for LatencyLayer {
    type Service = LatencyService<S>;

    fn layer(&self, inner: S) -> LatencyService<S> {
        LatencyService { inner, config: self.clone() }
    }
}

/// The service behind [`LatencyLayer`].
#[derive(Clone, Debug)]
pub struct LatencyService<S> {
    inner: S,
    config: LatencyLayer,
}

impl<S, B, R> Service<Request<B>> for LatencyService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Delayed<S, B, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let fresh = self.inner.clone(); // not polled yet: it stays
        let mut ready = std::mem::replace(&mut self.inner, fresh); // polled ready: it is called
        let config = &self.config;
        let span = config.delay(&request);
        let witness = request.extensions().get::<Witness>().cloned();
        match config.direction {
            Direction::Request => {
                let since = request.extensions().get::<Arrived>().map_or_else(Instant::now, |arrived| arrived.0);
                let hold = Hold::new(since, Some(span), config.stop.clone(), witness);
                Delayed { state: State::Before { hold, call: Some((ready, request)) } }
            }
            Direction::Response => {
                let after = Some((span, config.stop.clone(), witness));
                Delayed { state: State::Calling { future: ready.call(request), after } }
            }
        }
    }
}

type After = (Duration, CancellationToken, Option<Witness>);

pin_project! {
    /// The answer of a held call.
    #[allow(missing_debug_implementations)] // its parts are other people's futures
    pub struct Delayed<S, B, R>
    where
        S: Service<Request<B>, Response = Response<R>>,
    {
        #[pin]
        state: State<S, B, R>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, B, R>
    where
        S: Service<Request<B>, Response = Response<R>>,
    {
        Before { #[pin] hold: Hold, call: Option<(S, Request<B>)> },
        Calling { #[pin] future: S::Future, after: Option<After> },
        Behind { #[pin] hold: Hold, response: Option<Response<R>> },
    }
}

impl<S, B, R> Future for Delayed<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Output = Result<Response<R>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProjection::Before { hold, call } => {
                    ready!(hold.poll(cx));
                    let (mut service, request) = call.take().expect("a hold ends once");
                    State::Calling { future: service.call(request), after: None }
                }
                StateProjection::Calling { future, after } => {
                    let response = ready!(future.poll(cx))?;
                    let Some((span, stop, witness)) = after.take() else { return Poll::Ready(Ok(response)) };
                    let hold = Hold::new(Instant::now(), Some(span), stop, witness);
                    State::Behind { hold, response: Some(response) }
                }
                StateProjection::Behind { hold, response } => {
                    ready!(hold.poll(cx));
                    return Poll::Ready(Ok(response.take().expect("a hold ends once")));
                }
            };
            state.set(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower::{ServiceExt, service_fn};

    async fn timed(layer: LatencyLayer, draw: u64) -> Duration {
        let upstream = service_fn(|_: Request<()>| async { Ok::<_, std::convert::Infallible>(Response::new(())) });
        let mut request = Request::new(());
        request.extensions_mut().insert(Draw(draw));
        let start = Instant::now();
        layer.layer(upstream).oneshot(request).await.unwrap();
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_fixed_delay_is_exact_in_both_directions() {
        for direction in [Direction::Request, Direction::Response] {
            let latency = Latency { direction: Some(direction), ..Latency::constant(Span::millis(250)) };
            assert_eq!(timed(latency.layer(0), 1).await, Duration::from_millis(250), "{direction:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn jitter_stays_inside_its_bounds_and_reaches_for_both() {
        let latency = Latency { jitter: Some(Span::millis(50)), ..Latency::constant(Span::millis(200)) };
        let mut delays = Vec::new();
        for draw in 0..400 {
            delays.push(timed(latency.layer(0), draw).await.as_millis());
        }
        // Tokio's clock counts whole milliseconds and rounds up.
        assert!(delays.iter().all(|delay| (150..=251).contains(delay)), "{delays:?}");
        assert!(delays.iter().any(|delay| *delay < 160) && delays.iter().any(|delay| *delay > 240));
        assert_eq!(timed(latency.layer(0), 7).await, timed(latency.layer(0), 7).await, "the same draw, the same delay");
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_request_is_let_go_when_the_injection_ends() {
        let stop = CancellationToken::new();
        let layer = Latency::constant(Span::secs(3600)).layer(0).until(stop.clone());
        let held = tokio::spawn(timed(layer, 1));
        tokio::time::sleep(Duration::from_secs(5)).await;
        stop.cancel();
        assert_eq!(held.await.unwrap(), Duration::from_secs(5));
    }
}
