//! Behaves like a dependency that sheds load: more than it can take is turned away.
//!
//! ```yaml
//! - overload: { rate: 50/s, in_flight: 20, status: 503 }
//! ```
//!
//! What it took is counted for all calls of one injection together, over all workers.

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{HeaderValue, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use pin_project_lite::pin_project;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tower::{Layer, Service};

use super::error::ErrorLayer;
use super::{Injected, Sheet, Spared, Witness};
use crate::service::{Body, Error, Watch};
use crate::units::Rate;

/// How much it can take: `rate`, `in_flight` or both.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Overload {
    /// So many requests per time; what a second lets through may come at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// So many requests at one moment, each to the end of its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub in_flight: Option<u32>,
    /// The status of what is turned away; 503 where nothing is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 400, max = 599))]
    pub status: Option<u16>,
    /// What it has taken so far: clones share it.
    #[serde(skip)]
    pub taken: Taken,
}

/// For docs/faults.md.
pub(super) const SHEET: Sheet = Sheet {
    examples: &["overload: { rate: 50/s, in_flight: 20, status: 503 }"],
    http1: "the status; beside 429 and 503 a `retry-after`, where the rate says how long",
    http2: Sheet::SAME,
    grpc: "UNAVAILABLE, trailers-only, whatever `status` says",
};

impl Overload {
    /// The status of what is turned away.
    pub fn status(&self) -> u16 {
        self.status.unwrap_or(503)
    }

    /// The layer that injects it.
    pub fn layer(&self) -> OverloadLayer {
        OverloadLayer {
            rate: self.rate.map(Rate::per_second),
            in_flight: self.in_flight,
            status: StatusCode::from_u16(self.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
            taken: self.taken.clone(),
        }
    }
}

/// What an overloaded dependency has taken: two faults are equal without it.
#[derive(Clone, Default)]
pub struct Taken(Arc<Counters>);

impl std::fmt::Debug for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Taken").finish_non_exhaustive()
    }
}

impl PartialEq for Taken {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

struct Counters {
    since: Instant,
    /// When all that was taken will have been worked off, in nanoseconds since then.
    worked_off: AtomicU64,
    in_flight: AtomicU32,
}

impl Default for Counters {
    fn default() -> Self {
        Self { since: Instant::now(), worked_off: AtomicU64::new(0), in_flight: AtomicU32::new(0) }
    }
}

impl Taken {
    /// Takes one more of `rate` per second, or says how long to wait for it: a bucket of tokens that holds those of one
    /// second, at least one, in the form of the generic cell rate algorithm (ITU-T I.371, annex A).
    fn of_a_rate(&self, rate: f64) -> Result<(), Duration> {
        let each = ((1e9 / rate) as u64).max(1);
        let burst = 1_000_000_000u64.saturating_sub(each);
        let now = self.0.since.elapsed().as_nanos() as u64;
        let take = |worked_off: u64| (worked_off <= now + burst).then(|| worked_off.max(now) + each);
        let taken = self.0.worked_off.fetch_update(Relaxed, Relaxed, take);
        taken.map(drop).map_err(|worked_off| Duration::from_nanos(worked_off - burst - now))
    }

    /// Takes one more of so many at one moment, for as long as it is there.
    fn at_one_moment(&self, most: u32) -> Option<Place> {
        let more = |there: u32| (there < most).then_some(there + 1);
        self.0.in_flight.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Place(self.clone()))
    }
}

/// A request that was taken and is not over.
#[derive(Debug)]
struct Place(Taken);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Watch for Place {
    // Whoever is told the end is dropped behind it.
    fn end(&mut self, _: Result<(), &Error>) {}
}

/// Lets through what it can take, and answers the rest.
#[derive(Clone, Debug)]
pub struct OverloadLayer {
    rate: Option<f64>,
    in_flight: Option<u32>,
    status: StatusCode,
    taken: Taken,
}

impl OverloadLayer {
    /// A place for one request, or how long to wait for one, where that is known.
    fn take(&self) -> Result<Option<Place>, Option<Duration>> {
        let place = match self.in_flight {
            Some(most) => Some(self.taken.at_one_moment(most).ok_or(None)?),
            None => None,
        };
        if let Some(rate) = self.rate {
            self.taken.of_a_rate(rate).map_err(Some)?;
        }
        Ok(place)
    }

    fn turn_away<B>(&self, request: &Request<B>, wait: Option<Duration>) -> Response<Body> {
        let answer = ErrorLayer::shedding(self.status, request.headers());
        let mut response: Response<Body> = answer.answer(request.method(), request.headers());
        // RFC 9110, 10.2.3, and RFC 6585, 4, give it a meaning beside these.
        let meant = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&response.status());
        if let Some(wait) = wait.filter(|_| meant) {
            let seconds = wait.as_nanos().div_ceil(1_000_000_000).max(1) as u64;
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(Injected("overload"));
        response
    }
}

impl<S> Layer<S> for OverloadLayer {
    type Service = OverloadService<S>;

    fn layer(&self, inner: S) -> OverloadService<S> {
        OverloadService { inner, layer: self.clone() }
    }
}

/// The service behind [`OverloadLayer`].
#[derive(Clone, Debug)]
pub struct OverloadService<S> {
    inner: S,
    layer: OverloadLayer,
}

impl<S, B> Service<Request<B>> for OverloadService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Shed<S::Future, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let witness = request.extensions().get::<Witness>();
        match self.layer.take() {
            Err(wait) => {
                witness.inspect(|witness| witness.met());
                Shed { state: State::Away { answer: ready(Ok(self.layer.turn_away(&request, wait))) } }
            }
            Ok(place) => {
                witness.inspect(|witness| witness.spared(Spared::BelowLimit));
                Shed { state: State::Through { future: self.inner.call(request), place } }
            }
        }
    }
}

pin_project! {
    /// The answer of an overloaded dependency.
    #[derive(Debug)]
    pub struct Shed<F, E> {
        #[pin]
        state: State<F, E>,
    }
}

pin_project! {
    #[project = StateProjection]
    #[derive(Debug)]
    enum State<F, E> {
        Away { answer: Ready<Result<Response<Body>, E>> },
        Through { #[pin] future: F, place: Option<Place> },
    }
}

impl<F, E> Future for Shed<F, E>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project().state.project() {
            StateProjection::Away { answer } => Pin::new(answer).poll(cx),
            StateProjection::Through { future, place } => {
                let mut response = ready!(future.poll(cx))?;
                if let Some(place) = place.take().filter(|_| !response.body().is_end_stream()) {
                    response.body_mut().watch(place);
                }
                Poll::Ready(Ok(response))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::BodyExt;
    use tower::{ServiceExt, service_fn};

    async fn ask(layer: &OverloadLayer, request: Request<()>) -> Response<Body> {
        let upstream = service_fn(|_| async { Ok::<_, Error>(Response::new(Body::from(Bytes::from("well")))) });
        layer.layer(upstream).oneshot(request).await.unwrap()
    }

    fn layer(yaml: &str) -> OverloadLayer {
        serde_json::from_str::<Overload>(yaml).expect(yaml).layer()
    }

    async fn statuses(layer: &OverloadLayer, count: usize) -> Vec<u16> {
        let mut statuses = Vec::new();
        for _ in 0..count {
            statuses.push(ask(layer, Request::new(())).await.status().as_u16());
        }
        statuses
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_lets_its_rate_through_and_time_makes_room_for_more() {
        let layer = layer(r#"{"rate":"4/s"}"#);
        assert_eq!(statuses(&layer, 6).await, [200, 200, 200, 200, 503, 503]);
        tokio::time::advance(Duration::from_millis(499)).await;
        assert_eq!(statuses(&layer, 2).await, [200, 503], "a quarter of a second each");
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(statuses(&layer, 6).await, [200, 200, 200, 200, 503, 503], "an hour of rest is not saved up");
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_below_one_a_second_lets_one_through_at_a_time() {
        let layer = layer(r#"{"rate":"2/m","status":429}"#);
        let away = || async { ask(&layer, Request::new(())).await };
        assert_eq!(away().await.status(), 200);
        let away = away().await;
        assert_eq!((away.status().as_u16(), away.headers()[RETRY_AFTER].to_str().unwrap()), (429, "30"));
        assert_eq!(away.extensions().get(), Some(&Injected("overload")));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(statuses(&layer, 2).await, [200, 429]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_taken_until_the_body_of_the_answer_has_ended() {
        let layer = layer(r#"{"in_flight":2}"#);
        let (one, two) = (ask(&layer, Request::new(())).await, ask(&layer, Request::new(())).await);
        assert!(one.extensions().get::<Injected>().is_none());
        let away = ask(&layer, Request::new(())).await;
        assert_eq!((away.status().as_u16(), away.headers().get(RETRY_AFTER)), (503, None), "nobody knows how long");
        assert_eq!(one.into_body().collect().await.unwrap().to_bytes(), "well");
        let three = ask(&layer, Request::new(())).await;
        assert_eq!(three.status(), 200);
        assert_eq!(ask(&layer, Request::new(())).await.status(), 503);
        drop((two, three)); // their callers left
        assert_eq!(statuses(&layer, 2).await, [200, 200]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_by_grpc_is_turned_away_as_grpc_servers_do() {
        let layer = layer(r#"{"in_flight":1}"#);
        let _taken = ask(&layer, Request::new(())).await;
        let call = Request::post("/shop.Ranker/Rank").header("content-type", "application/grpc").body(()).unwrap();
        let away = ask(&layer, call).await;
        assert_eq!((away.status().as_u16(), away.headers()["grpc-status"].to_str().unwrap()), (200, "14"));
        assert!(away.body().is_end_stream());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_let_through_is_told_of_as_spared() {
        let (layer, witness) = (layer(r#"{"rate":"1/s"}"#), Witness::default());
        let mut request = Request::new(());
        request.extensions_mut().insert(witness.clone());
        ask(&layer, request).await;
        assert_eq!(witness.hear().spared, Some(Spared::BelowLimit));
    }
}
