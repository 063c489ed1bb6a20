//! Sends the request to the upstream twice, as a retry on the way would; the caller sees the first answer.
//!
//! ```yaml
//! - duplicate: {}
//! ```
//!
//! The second is on its way beside the first and nobody waits for it: its answer is read and thrown away, for half a
//! minute at the most. Only safe methods go up twice (RFC 9110, 9.2.1), and those that `limits.duplicate_methods` adds.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use http::header::UPGRADE;
use http::{HeaderMap, Method, Request, Response, Version, request};
use http_body::Body as _;
use http_body_util::BodyExt;
use pin_project_lite::pin_project;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::{Layer, Service, ServiceExt};

use super::{Arrived, Draw, Sheet, Spared, Witness};
use crate::service::{Body, Error, Watch};

/// Nothing to choose: each request goes up twice.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Duplicate {
    /// Methods that may be sent twice beside the safe ones: the limits say which.
    #[serde(skip)]
    pub more: Vec<Method>,
    /// The second requests that are under way: clones share it.
    #[serde(skip)]
    pub room: Room,
}

/// For docs/faults.md.
pub(super) const SHEET: Sheet = Sheet {
    examples: &["duplicate: {}"],
    http1: "nothing; the upstream is asked twice, if the method is safe or in `limits.duplicate_methods`, and the body \
        at most 64 KiB",
    http2: Sheet::SAME,
    grpc: "the same, with `limits: { duplicate_methods: POST }`",
};

/// The largest body that is kept to be sent again.
const LARGEST: usize = 64 * 1024;

/// How long a second answer is read.
const PATIENCE: Duration = Duration::from_secs(30);

/// Second requests under way at one moment, at most.
const MOST: usize = 1000;

impl Duplicate {
    /// Why a request with this head is sent once, where it is.
    pub fn spares<B>(&self, request: &Request<B>) -> Option<Spared> {
        let method = request.method();
        let twice = method.is_safe() || self.more.contains(method);
        (!twice || request.headers().contains_key(UPGRADE)).then_some(Spared::NotRepeatable)
    }

    /// The layer that injects it, in a `LocalSet`: that is where the second request is on its way.
    pub fn layer(&self) -> DuplicateLayer {
        DuplicateLayer { config: self.clone(), stop: CancellationToken::new() }
    }
}

/// Room for second requests: two faults are equal without it.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST)))
    }
}

impl PartialEq for Room {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Sends every request that may be sent twice a second time.
#[derive(Clone, Debug)]
pub struct DuplicateLayer {
    config: Duplicate,
    stop: CancellationToken,
}

impl DuplicateLayer {
    /// Sends nothing twice any more, and reads no second answer further, as soon as `stop` is cancelled.
    pub fn until(self, stop: CancellationToken) -> Self {
        Self { stop, ..self }
    }
}

impl<S> Layer<S> for DuplicateLayer {
    type Service = DuplicateService<S>;

    fn layer(&self, inner: S) -> DuplicateService<S> {
        DuplicateService { inner, layer: self.clone() }
    }
}

/// The service behind [`DuplicateLayer`].
#[derive(Clone, Debug)]
pub struct DuplicateService<S> {
    inner: S,
    layer: DuplicateLayer,
}

impl<S> Service<Request<Body>> for DuplicateService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Error> + Clone + 'static,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = Twice<S>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let fresh = self.inner.clone(); // not polled yet: it is for the second
        let witness = request.extensions().get::<Witness>().cloned().unwrap_or_default();
        let second = match self.layer.again(fresh, &request, &witness) {
            Ok(again) => Second::new(again),
            Err(why) => {
                witness.spared(why);
                return Twice { future: self.inner.call(request), second: None };
            }
        };
        if request.body().is_end_stream() {
            second.send();
        } else {
            request.body_mut().watch(second.clone());
        }
        Twice { future: self.inner.call(request), second: Some(second) }
    }
}

pin_project! {
    /// The first answer.
    #[allow(missing_debug_implementations)] // its parts are other people's futures
    pub struct Twice<S>
    where
        S: Service<Request<Body>>,
    {
        #[pin]
        future: S::Future,
        second: Option<Second<S>>,
    }
}

impl<S> Future for Twice<S>
where
    S: Service<Request<Body>>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.future.poll(cx));
        if let Some(second) = this.second.take() {
            // Whoever answers before it has the whole body has not done anything that could be done twice.
            second.forget();
        }
        Poll::Ready(result)
    }
}

impl DuplicateLayer {
    /// The same request once more, so far without its body.
    fn again<S>(&self, service: S, request: &Request<Body>, witness: &Witness) -> Result<Again<S>, Spared> {
        if let Some(why) = self.config.spares(request) {
            return Err(why);
        }
        if request.body().size_hint().lower() > LARGEST as u64 {
            return Err(Spared::TooLarge);
        }
        let room = self.config.room.0.clone().try_acquire_owned().map_err(|_| Spared::TooMany)?;
        let mut head = Request::new(()).into_parts().0;
        head.method = request.method().clone();
        head.uri = request.uri().clone();
        head.headers = request.headers().clone();
        // What is drawn for a call is drawn for both; what is told of it is told of the first.
        if let Some(draw) = request.extensions().get::<Draw>() {
            head.extensions.insert(*draw);
        }
        if let Some(arrived) = request.extensions().get::<Arrived>() {
            head.extensions.insert(*arrived);
        }
        // Early hints are said to callers of HTTP/1.1: once is enough.
        head.version = match request.version() {
            Version::HTTP_11 => Version::HTTP_10,
            other => other,
        };
        let (stop, witness) = (self.stop.clone(), witness.clone());
        Ok(Again { service, head, body: BytesMut::new(), stop, witness, room })
    }
}

/// A request that will be sent again, once its body is known.
struct Again<S> {
    service: S,
    head: request::Parts,
    body: BytesMut,
    stop: CancellationToken,
    witness: Witness,
    room: OwnedSemaphorePermit,
}

/// What is to be sent again, for as long as it is kept.
pub(super) struct Second<S>(Rc<RefCell<Option<Again<S>>>>);

impl<S> Clone for Second<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S> Second<S> {
    fn new(again: Again<S>) -> Self {
        Self(Rc::new(RefCell::new(Some(again))))
    }

    /// It is not sent any more, if it was not yet.
    fn forget(&self) {
        if let Some(again) = self.0.borrow_mut().take() {
            again.witness.spared(Spared::TooLarge);
        }
    }
}

impl<S> Second<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Error> + 'static,
{
    /// The whole request is known: it is sent again.
    fn send(&self) {
        let again = self.0.borrow_mut().take();
        let Some(again) = again.filter(|again| !again.stop.is_cancelled()) else { return };
        let Again { service, head, body, stop, witness, room } = again;
        witness.met();
        let request = Request::from_parts(head, Body::from(body.freeze()));
        tokio::task::spawn_local(async move {
            let answer = async {
                let Ok(response) = service.oneshot(request).await else { return };
                let mut body = response.into_body();
                while let Some(Ok(_)) = body.frame().await {}
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                _ = tokio::time::timeout(PATIENCE, answer) => {}
            }
            drop(room);
        });
    }
}

impl<S> Watch for Second<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Error> + 'static,
{
    fn piece(&mut self, piece: &[u8]) {
        let fits = match &mut *self.0.borrow_mut() {
            Some(again) if again.body.len() + piece.len() <= LARGEST => {
                again.body.extend_from_slice(piece);
                true
            }
            _ => false,
        };
        if !fits {
            self.forget();
        }
    }

    fn trailers(&mut self, _: &HeaderMap) {
        // They would have to be kept too, for the few requests that have any.
        self.forget();
    }

    fn end(&mut self, result: Result<(), &Error>) {
        if result.is_ok() {
            self.send();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::cell::Cell;
    use tokio::task::LocalSet;
    use tower::service_fn;

    /// An upstream that counts what comes, and keeps the bodies and answers each as `answer` says.
    #[derive(Clone, Default)]
    struct Seen {
        bodies: Rc<RefCell<Vec<Bytes>>>,
        under_way: Rc<Cell<usize>>,
    }

    struct UnderWay(Rc<Cell<usize>>);

    impl Drop for UnderWay {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }

    impl Seen {
        fn service(
            &self,
            slow_second: bool,
        ) -> impl Service<Request<Body>, Response = Response<Body>, Error = Error> + Clone + 'static {
            let seen = self.clone();
            service_fn(move |request: Request<Body>| {
                let seen = seen.clone();
                async move {
                    seen.under_way.set(seen.under_way.get() + 1);
                    let _under_way = UnderWay(seen.under_way.clone());
                    let body = request.into_body().collect().await?.to_bytes();
                    seen.bodies.borrow_mut().push(body);
                    let number = seen.bodies.borrow().len();
                    if slow_second && number == 2 {
                        std::future::pending::<()>().await;
                    }
                    Ok(Response::new(Body::from(Bytes::from(format!("answer {number}")))))
                }
            })
        }
    }

    struct Asked {
        seen: Seen,
        answer: Bytes,
        witness: Witness,
    }

    async fn ask(
        duplicate: Duplicate,
        method: Method,
        body: Body,
        slow_second: bool,
        stop: CancellationToken,
    ) -> Asked {
        let (seen, witness) = (Seen::default(), Witness::default());
        let mut request = Request::new(body);
        *request.method_mut() = method;
        request.extensions_mut().insert(witness.clone());
        let service = duplicate.layer().until(stop).layer(seen.service(slow_second));
        let response = service.oneshot(request).await.unwrap();
        let answer = response.into_body().collect().await.unwrap().to_bytes();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        Asked { seen, answer, witness }
    }

    async fn posted(body: Body, more: Vec<Method>) -> Asked {
        let duplicate = Duplicate { more, ..Duplicate::default() };
        ask(duplicate, Method::POST, body, false, CancellationToken::new()).await
    }

    fn chunks(count: usize) -> Body {
        let frames = (0..count).map(|_| Ok(http_body::Frame::data(Bytes::from(vec![b'a'; 1024]))));
        Body::faulted(http_body_util::StreamBody::new(futures_util::stream::iter(frames)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_safe_request_goes_up_twice_and_its_caller_sees_the_first_answer() {
        LocalSet::new()
            .run_until(async {
                for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
                    let never = CancellationToken::new();
                    let asked = ask(Duplicate::default(), method, Body::empty(), false, never).await;
                    assert_eq!((asked.seen.bodies.borrow().len(), asked.answer), (2, Bytes::from("answer 1")));
                    assert!(asked.witness.hear().met);
                }
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn other_methods_are_spared_unless_they_are_allowed() {
        LocalSet::new()
            .run_until(async {
                let asked = posted(chunks(2), vec![Method::PUT]).await;
                assert_eq!(asked.seen.bodies.borrow().len(), 1);
                assert_eq!(asked.witness.hear().spared, Some(Spared::NotRepeatable));
                let asked = posted(chunks(2), vec![Method::PUT, Method::POST]).await;
                assert_eq!(*asked.seen.bodies.borrow(), [vec![b'a'; 2048], vec![b'a'; 2048]], "with the same body");
                assert!(asked.witness.hear().met);
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_above_64_kib_is_not_kept_and_goes_up_once() {
        LocalSet::new()
            .run_until(async {
                for (count, times) in [(64, 2), (65, 1)] {
                    let asked = posted(chunks(count), vec![Method::POST]).await;
                    assert_eq!(asked.seen.bodies.borrow().len(), times);
                    assert!(asked.seen.bodies.borrow().iter().all(|body| body.len() == count * 1024));
                    assert_eq!(asked.witness.hear().spared.is_some(), times == 1);
                }
                let asked = posted(Body::from(Bytes::from(vec![b'a'; LARGEST + 1])), vec![Method::POST]).await;
                assert_eq!(asked.witness.hear().spared, Some(Spared::TooLarge), "its length is told");
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_the_second_and_it_ends_in_time_or_with_the_injection() {
        LocalSet::new()
            .run_until(async {
                for halted in [false, true] {
                    let stop = CancellationToken::new();
                    let asked = ask(Duplicate::default(), Method::GET, Body::empty(), true, stop.clone()).await;
                    assert_eq!((asked.answer, asked.seen.under_way.get()), (Bytes::from("answer 1"), 1));
                    if halted {
                        stop.cancel();
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    } else {
                        tokio::time::sleep(PATIENCE + Duration::from_millis(1)).await;
                    }
                    assert_eq!(asked.seen.under_way.get(), 0, "halted: {halted}");
                }
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_a_thousand_are_under_way() {
        LocalSet::new()
            .run_until(async {
                let duplicate = Duplicate::default();
                let _full = duplicate.room.0.clone().try_acquire_many_owned(MOST as u32).unwrap();
                let asked = ask(duplicate, Method::GET, Body::empty(), false, CancellationToken::new()).await;
                assert_eq!(asked.witness.hear().spared, Some(Spared::TooMany));
                assert_eq!(asked.seen.bodies.borrow().len(), 1);
            })
            .await;
    }
}
