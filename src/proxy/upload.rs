//! The body of a request that is answered without it, on HTTP/1: the next request comes behind it on the same connection.

use std::time::Duration;

use http::HeaderMap;
use http::header::{CONNECTION, HeaderValue};
use http_body::Body as _;
use http_body_util::{BodyExt, Limited};

use crate::service::Body;

/// What is read on and thrown away, so that the connection lives. To read more would cost more than a new connection.
const MOST: u64 = 256 << 10;

/// How long that is done.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads a body that nobody wants, so that whatever comes behind it is answered; or says that the connection ends (RFC 9112,
/// 9.6), where too much is announced, the caller waits to be asked for it, or a part of it is gone already.
pub(super) fn unwanted(body: Option<Body>, waits: bool, headers: &mut HeaderMap) {
    match body.filter(|body| !waits && body.size_hint().lower() <= MOST) {
        Some(body) => drop(tokio::task::spawn_local(async move {
            let mut body = Limited::new(body, MOST as usize);
            let read_on = async { while let Some(Ok(_)) = body.frame().await {} };
            let _ = tokio::time::timeout(PATIENCE, read_on).await; // the connection ends if it was not enough
        })),
        None => drop(headers.insert(CONNECTION, HeaderValue::from_static("close"))),
    }
}
