//! Upgrades: what begins as a request and goes on as bytes in both directions, as WebSocket does (RFC 9110, 7.8).

use std::rc::Rc;

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Parts, on};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy_bidirectional};

use super::again::Carrier;
use super::answer::Connection;
use super::config::ListenerConfig;
use super::hop;
use super::upstream::Pool;
use crate::service::{Body, Error};

/// Asks the upstream to upgrade. Where it does, the bytes go both ways until both sides have ended; else the answer is
/// one like any other.
pub(super) async fn upgrade(
    connection: &Rc<Connection>,
    pool: &Rc<Pool>,
    config: &ListenerConfig,
    mut request: Box<Request<Body>>,
) -> Result<Box<Response<Body>>, Error> {
    let caller = on(&mut *request);
    let protocol = request.headers().get(UPGRADE).cloned();
    hop::strip(request.headers_mut());
    hop::relist(request.headers_mut());
    mark(request.headers_mut(), protocol);
    let mut response = pool.send(&config.timeouts, request, true).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        hop::strip(response.headers_mut());
        *response.version_mut() = http::Version::HTTP_11;
        return Ok(response);
    }
    let upstream = on(&mut *response);
    let protocol = response.headers().get(UPGRADE).cloned();
    hop::strip(response.headers_mut());
    mark(response.headers_mut(), protocol);
    tokio::task::spawn_local(join(connection.clone(), caller, upstream));
    Ok(response)
}

fn mark(headers: &mut http::HeaderMap, protocol: Option<HeaderValue>) {
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Copies both ways. The end of one direction is passed on and leaves the other open; there is no timeout.
async fn join(connection: Rc<Connection>, caller: OnUpgrade, upstream: OnUpgrade) {
    let (Ok(caller), Ok(upstream)) = tokio::join!(caller, upstream) else { return };
    let Ok(Parts { io: upstream, read_buf: first, .. }) = upstream.downcast::<TokioIo<Carrier>>() else { return };
    let (mut caller, mut upstream) = (TokioIo::new(caller), upstream.into_inner());
    let copied = async {
        caller.write_all(&first).await?;
        copy_bidirectional(&mut caller, &mut upstream).await
    };
    if let Err(error) = copied.await {
        // Half of it has been passed on already; that the rest will not come must be seen on both sides.
        connection.socket.reset();
        upstream.reset();
        tracing::debug!(peer = %connection.caller, %error, "tunnel broke");
    }
}
