//! Sets and removes header fields.
//!
//! ```yaml
//! - headers: { set: { cache-control: no-store }, remove: [etag], direction: response }
//! ```

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, Uri};
use http::{Request, Response};
use pin_project_lite::pin_project;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower::{Layer, Service};

use super::{Direction, Sheet};

/// Which fields are set and removed.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Headers {
    /// Fields that replace all values of the same name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Names of fields that are taken out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// On the request, or on the response; on the request where nothing is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
}

/// For docs/faults.md.
pub(super) const SHEET: Sheet = Sheet {
    examples: &[
        "headers: { set: { cache-control: no-store }, remove: [etag], direction: response }",
        "headers: { remove: [authorization] }",
    ],
    http1: "fields of the head; those of the framing are the proxy's own, and a `date` that is removed is written anew",
    http2: "the same; `host` is `:authority`",
    grpc: "metadata in the head; trailers stay as they are",
};

impl Headers {
    /// Whose fields they are.
    pub fn direction(&self) -> Direction {
        self.direction.unwrap_or(Direction::Request)
    }

    /// The layer that injects it. What is no header field was refused with the document, and is left out here.
    pub fn layer(&self) -> HeadersLayer {
        let name = |name: &String| HeaderName::try_from(name.as_str()).ok();
        let set = self.set.iter().filter_map(|(key, value)| Some((name(key)?, HeaderValue::try_from(value).ok()?)));
        let change = Change { set: set.collect(), remove: self.remove.iter().filter_map(name).collect() };
        HeadersLayer { change: Arc::new(change), direction: self.direction() }
    }
}

#[derive(Debug)]
struct Change {
    set: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

impl Change {
    fn make(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
    }

    /// Another host is told where the version tells it: in the authority, where there is one.
    fn name(&self, uri: &mut Uri) {
        let host = self.set.iter().find(|(name, _)| *name == HOST).filter(|_| uri.authority().is_some());
        if let Some(host) = host.and_then(|(_, value)| Authority::try_from(value.as_bytes()).ok()) {
            let mut parts = std::mem::take(uri).into_parts();
            parts.authority = Some(host);
            *uri = Uri::from_parts(parts).expect("one authority in place of another");
        }
    }
}

/// Changes the head of every request that passes, or of its answer.
#[derive(Clone, Debug)]
pub struct HeadersLayer {
    change: Arc<Change>,
    direction: Direction,
}

impl<S> Layer<S> for HeadersLayer {
    type Service = HeadersService<S>;

    fn layer(&self, inner: S) -> HeadersService<S> {
        HeadersService { inner, layer: self.clone() }
    }
}

/// The service behind [`HeadersLayer`].
#[derive(Clone, Debug)]
pub struct HeadersService<S> {
    inner: S,
    layer: HeadersLayer,
}

impl<S, B, R> Service<Request<B>> for HeadersService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Changed<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let change = match self.layer.direction {
            Direction::Request => {
                self.layer.change.make(request.headers_mut());
                self.layer.change.name(request.uri_mut());
                None
            }
            Direction::Response => Some(self.layer.change.clone()),
        };
        Changed { future: self.inner.call(request), change }
    }
}

pin_project! {
    /// The answer to a call whose head was changed, or will be.
    #[derive(Debug)]
    pub struct Changed<F> {
        #[pin]
        future: F,
        change: Option<Arc<Change>>,
    }
}

impl<F, R, E> Future for Changed<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut response = ready!(this.future.poll(cx))?;
        if let Some(change) = this.change {
            change.make(response.headers_mut());
        }
        Poll::Ready(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower::{ServiceExt, service_fn};

    fn written(direction: Option<Direction>) -> Headers {
        let set = BTreeMap::from([("Cache-Control".to_owned(), "no-store".to_owned())]);
        Headers { set, remove: vec!["ETag".to_owned()], direction }
    }

    fn given() -> HeaderMap {
        let fields = [("etag", "1"), ("via", "a"), ("cache-control", "a"), ("via", "b"), ("cache-control", "b")];
        fields
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .into_iter()
            .collect()
    }

    /// The fields that the upstream saw, and those of its answer.
    async fn seen(headers: Headers) -> (HeaderMap, HeaderMap) {
        let upstream = service_fn(|request: Request<()>| async {
            let mut response = Response::new(request.into_parts().0.headers);
            *response.headers_mut() = given();
            Ok::<_, std::convert::Infallible>(response)
        });
        let mut request = Request::new(());
        *request.headers_mut() = given();
        let response = headers.layer().layer(upstream).oneshot(request).await.unwrap();
        let answer = response.headers().clone();
        (response.into_body(), answer)
    }

    #[tokio::test]
    async fn fields_are_set_and_removed_in_one_direction_and_the_others_keep_their_values_in_order() {
        for direction in [None, Some(Direction::Request), Some(Direction::Response)] {
            let (mut changed, mut other) = seen(written(direction)).await;
            if direction == Some(Direction::Response) {
                std::mem::swap(&mut changed, &mut other);
            }
            assert_eq!(other, given(), "{direction:?}");
            assert_eq!(changed.get_all("cache-control").iter().collect::<Vec<_>>(), ["no-store"]);
            assert_eq!(changed.get_all("via").iter().collect::<Vec<_>>(), ["a", "b"]);
            assert_eq!(changed.len(), 3, "{changed:?}");
        }
    }

    #[tokio::test]
    async fn another_host_is_told_where_the_version_tells_it() {
        let set = BTreeMap::from([("host".to_owned(), "other.example:81".to_owned())]);
        let headers = Headers { set, ..Headers::default() };
        for (uri, told) in [("http://shop.example/a?b", "http://other.example:81/a?b"), ("/a?b", "/a?b")] {
            let upstream = service_fn(|request: Request<()>| async move {
                Ok::<_, std::convert::Infallible>(Response::new(request.uri().to_string()))
            });
            let response = headers.layer().layer(upstream).oneshot(Request::get(uri).body(()).unwrap()).await.unwrap();
            assert_eq!(response.body(), told);
        }
    }
}
