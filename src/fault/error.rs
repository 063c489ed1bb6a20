//! Answers in the upstream's place, with a status of its own. The upstream is not called.
//!
//! ```yaml
//! - error: { status: 503, headers: { retry-after: "1" }, body: "asleep" }
//! ```

use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower::{Layer, Service};

use super::Injected;

/// What is answered: `status`, or `grpc`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ErrorAnswer {
    /// The status, 200 to 599.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 200, max = 599))]
    pub status: Option<u16>,
    /// Fields of the answer.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The body of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// A file with the body of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_file: Option<String>,
    /// A gRPC status, by its name: `UNAVAILABLE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<String>,
    /// The message beside a gRPC status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl ErrorAnswer {
    /// A bare status.
    pub fn status(status: u16) -> Self {
        Self { status: Some(status), ..Self::default() }
    }

    /// Why this answer cannot be given by this version, where it cannot.
    pub(super) fn not_yet(&self) -> Option<String> {
        let key = if self.grpc.is_some() {
            "`grpc`"
        } else if self.body_file.is_some() {
            "`body_file`"
        } else {
            return None;
        };
        Some(format!(
            "an error with {key} is read but not injected by this version; write `status`, with `body` if you like"
        ))
    }

    /// The layer that injects it. What is no status or header field was refused with the document, and is left out here.
    pub fn layer(&self) -> ErrorLayer {
        let status = self.status.and_then(|status| StatusCode::from_u16(status).ok());
        let fields = self.headers.iter().filter_map(|(name, value)| {
            Some((HeaderName::try_from(name.as_str()).ok()?, HeaderValue::try_from(value.as_str()).ok()?))
        });
        ErrorLayer {
            status: status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
            fields: fields.collect(),
            body: Bytes::from(self.body.clone().unwrap_or_default()),
        }
    }
}

/// Answers every request that comes, and calls nobody.
#[derive(Clone, Debug)]
pub struct ErrorLayer {
    status: StatusCode,
    fields: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl ErrorLayer {
    fn answer<R: From<Bytes>>(&self) -> Response<R> {
        let mut response = Response::new(R::from(self.body.clone()));
        *response.status_mut() = self.status;
        response.headers_mut().extend(self.fields.iter().cloned());
        if !self.body.is_empty() {
            let text = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().entry(CONTENT_TYPE).or_insert(text);
        }
        response.extensions_mut().insert(Injected("error"));
        response
    }
}

impl<S> Layer<S> for ErrorLayer {
    type Service = ErrorService<S>;

    fn layer(&self, inner: S) -> ErrorService<S> {
        ErrorService { inner, layer: self.clone() }
    }
}

/// The service behind [`ErrorLayer`].
#[derive(Clone, Debug)]
pub struct ErrorService<S> {
    inner: S,
    layer: ErrorLayer,
}

impl<S, B, R> Service<Request<B>> for ErrorService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: From<Bytes>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Ready<Result<Response<R>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        ready(Ok(self.layer.answer()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower::{ServiceExt, service_fn};

    #[tokio::test]
    async fn the_answer_is_what_was_written_and_the_upstream_is_not_called() {
        let written = ErrorAnswer {
            body: Some("asleep".to_owned()),
            headers: BTreeMap::from([("retry-after".to_owned(), "1".to_owned())]),
            ..ErrorAnswer::status(503)
        };
        let upstream = service_fn(|_: Request<()>| async { Err::<Response<Bytes>, _>("the upstream was called") });
        let response = written.layer().layer(upstream).oneshot(Request::new(())).await.unwrap();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(response.body(), "asleep");
        assert_eq!(response.extensions().get(), Some(&Injected("error")));
    }
}
