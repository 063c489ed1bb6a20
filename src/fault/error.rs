//! Answers in the upstream's place, with a status of its own. The upstream is not called.
//!
//! ```yaml
//! - error: { status: 503, headers: { retry-after: "1" }, body: "asleep" }
//! - error: { grpc: UNAVAILABLE, message: "asleep" }
//! ```

use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower::{Layer, Service};

use super::accept::{self, Written};
use super::{Injected, Sheet, grpc};

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
    /// The body of the answer; the status in words for callers that ask for JSON or text where nothing is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// A file with the body of the answer, at most 1 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_file: Option<String>,
    /// What is in that file, once it was read.
    #[serde(skip)]
    pub content: Option<Written>,
    /// A gRPC status, by its name: `UNAVAILABLE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<String>,
    /// The message beside a gRPC status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// For docs/faults.md.
pub(super) const SHEET: Sheet = Sheet {
    examples: &[
        "error: { status: 503, headers: { retry-after: \"1\" }, body: asleep }",
        "error: { status: 429, headers: { retry-after: \"2\" }, body_file: busy.json }",
        "error: { grpc: UNAVAILABLE, message: ranker is asleep }",
    ],
    http1: "the status, fields and body that are written",
    http2: Sheet::SAME,
    grpc: "`grpc`: trailers-only, one HEADERS frame with the code and END_STREAM; `status`: that HTTP status",
};

impl ErrorAnswer {
    /// A bare status.
    pub fn status(status: u16) -> Self {
        Self { status: Some(status), ..Self::default() }
    }

    /// Looks once at what the body is, for all calls.
    pub(super) fn prepare(&mut self) {
        self.content = self.body();
    }

    fn body(&self) -> Option<Written> {
        self.content.clone().or_else(|| Some(Bytes::from(self.body.clone()?).into()))
    }

    /// The layer that injects it. What is no status or header field was refused with the document, and is left out here.
    pub fn layer(&self) -> ErrorLayer {
        let status = self.status.and_then(|status| StatusCode::from_u16(status).ok());
        let fields = self.headers.iter().filter_map(|(name, value)| {
            Some((HeaderName::try_from(name.as_str()).ok()?, HeaderValue::try_from(value.as_str()).ok()?))
        });
        ErrorLayer {
            status: status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
            grpc: self.grpc.as_deref().and_then(grpc::code).map(|code| (code, self.message.clone())),
            fields: fields.collect(),
            body: self.body(),
        }
    }
}

/// Answers every request that comes, and calls nobody.
#[derive(Clone, Debug)]
pub struct ErrorLayer {
    status: StatusCode,
    /// The code and the message of a gRPC error.
    grpc: Option<(u8, Option<String>)>,
    fields: HeaderMap,
    /// What somebody wrote.
    body: Option<Written>,
}

impl ErrorLayer {
    /// A bare answer, as a gRPC status to whoever calls by gRPC.
    pub(super) fn shedding(status: StatusCode, asked: &HeaderMap) -> Self {
        let grpc = grpc::is_call(asked).then(|| grpc::code("UNAVAILABLE")).flatten().map(|code| (code, None));
        Self { status, grpc, fields: HeaderMap::new(), body: None }
    }

    /// The answer to a request with this method and these fields.
    pub(super) fn answer<R: From<Bytes>>(&self, method: &Method, asked: &HeaderMap) -> Response<R> {
        let mut headers = self.fields.clone();
        let mut body = Bytes::new();
        let status = match &self.grpc {
            Some((code, message)) => {
                grpc::trailers_only(&mut headers, asked, *code, message.as_deref());
                StatusCode::OK
            }
            None => {
                let written = self.body.clone().or_else(|| accept::say(self.status, asked));
                if let Some(Written { bytes, kind }) = written.filter(|written| !written.bytes.is_empty()) {
                    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
                    body = bytes;
                }
                self.status
            }
        };
        if *method == Method::HEAD && !body.is_empty() {
            // RFC 9110, 9.3.2: the head of a GET, and no content. On HTTP/2 nobody else would take it away.
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            body = Bytes::new();
        }
        let mut response = Response::new(R::from(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
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

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(self.layer.answer(request.method(), request.headers())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower::{ServiceExt, service_fn};

    async fn answer(written: &ErrorAnswer, request: http::request::Builder) -> Response<Bytes> {
        let upstream = service_fn(|_: Request<()>| async { Err::<Response<Bytes>, _>("the upstream was called") });
        written.layer().layer(upstream).oneshot(request.body(()).unwrap()).await.unwrap()
    }

    fn fields(response: &Response<Bytes>) -> Vec<(&str, &str)> {
        let mut fields: Vec<_> =
            response.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        fields.sort_unstable();
        fields
    }

    const TEXT: &str = "text/plain; charset=utf-8";

    #[tokio::test]
    async fn the_answer_is_what_was_written_and_the_upstream_is_not_called() {
        let written = ErrorAnswer {
            body: Some("asleep".to_owned()),
            headers: BTreeMap::from([("retry-after".to_owned(), "1".to_owned())]),
            ..ErrorAnswer::status(503)
        };
        let response = answer(&written, Request::get("/")).await;
        assert_eq!(response.status(), 503);
        assert_eq!(fields(&response), [("content-type", TEXT), ("retry-after", "1")]);
        assert_eq!(response.body(), "asleep");
        assert_eq!(response.extensions().get(), Some(&Injected("error")));
        // The head of the same, and nothing behind it.
        let head = answer(&written, Request::head("/")).await;
        assert_eq!(fields(&head), [("content-length", "6"), ("content-type", TEXT), ("retry-after", "1")]);
        assert!(head.body().is_empty());
    }

    #[tokio::test]
    async fn a_status_alone_is_said_in_the_form_that_the_caller_asks_for() {
        let status = ErrorAnswer::status(503);
        let json = answer(&status, Request::get("/").header("accept", "application/json")).await;
        assert_eq!(json.body(), r#"{"error":"Service Unavailable","status":503}"#);
        assert_eq!(fields(&json), [("content-type", "application/json")]);
        let text = answer(&status, Request::get("/").header("accept", "text/html, */*;q=0.1")).await;
        assert_eq!((fields(&text), text.body()), (vec![("content-type", TEXT)], &Bytes::from("Service Unavailable\n")));
        let bare = answer(&status, Request::get("/").header("accept", "*/*")).await;
        assert!(fields(&bare).is_empty() && bare.body().is_empty());
        let none = answer(&ErrorAnswer::status(204), Request::get("/").header("accept", "application/json")).await;
        assert!(fields(&none).is_empty() && none.body().is_empty(), "204 has no content");
    }

    #[tokio::test]
    async fn a_written_body_says_what_it_is_unless_the_fields_do() {
        let mut written =
            ErrorAnswer { content: Some(Bytes::from(r#"{"error":"busy"}"#).into()), ..ErrorAnswer::status(429) };
        let asked = || Request::get("/").header("accept", "text/plain");
        assert_eq!(fields(&answer(&written, asked()).await), [("content-type", "application/json")]);
        written.headers.insert("content-type".to_owned(), "application/problem+json".to_owned());
        let response = answer(&written, asked()).await;
        assert_eq!(fields(&response), [("content-type", "application/problem+json")]);
        assert_eq!(response.body(), r#"{"error":"busy"}"#);
    }

    #[tokio::test]
    async fn a_grpc_error_stands_in_the_head_alone() {
        let written = ErrorAnswer {
            grpc: Some("UNAVAILABLE".to_owned()),
            message: Some("100 % asleep".to_owned()),
            headers: BTreeMap::from([
                ("grpc-status".to_owned(), "0".to_owned()),
                ("x-why".to_owned(), "us".to_owned()),
            ]),
            ..ErrorAnswer::default()
        };
        for (asked, kind) in [
            ("application/grpc+proto", "application/grpc+proto"),
            ("application/grpc", "application/grpc"),
            ("text/plain", "application/grpc"),
        ] {
            let response = answer(&written, Request::post("/shop.Ranker/Rank").header("content-type", asked)).await;
            assert_eq!((response.status().as_u16(), response.body().len()), (200, 0));
            let expected =
                [("content-type", kind), ("grpc-message", "100 %25 asleep"), ("grpc-status", "14"), ("x-why", "us")];
            assert_eq!(fields(&response), expected);
        }
    }
}
