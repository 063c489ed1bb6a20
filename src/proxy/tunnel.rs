//! Upgrades: what begins as a request and goes on as bytes in both directions, as WebSocket does (RFC 9110, 7.8).

use std::rc::Rc;

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Parts, on};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio_util::sync::DropGuard;

use super::again::Carrier;
use super::answer::Connection;
use super::config::ListenerConfig;
use super::context::Member;
use super::hop;
use super::reply;
use super::treated;
use super::upstream::Pool;
use crate::fault::Tunnel;
use crate::service::{Body, Error};

/// Asks the upstream to upgrade. Where it does, the bytes go both ways until both sides have ended; else the answer is
/// one like any other.
pub(super) async fn upgrade(
    connection: &Rc<Connection>,
    pool: &Rc<Pool>,
    config: &ListenerConfig,
    mut request: Box<Request<Body>>,
    member: Option<&Member>,
) -> Result<Box<Response<Body>>, Error> {
    let caller = on(&mut *request);
    let tunnel = request.extensions_mut().remove::<Tunnel>().filter(Tunnel::is_treated);
    let guard = tunnel.as_ref().map(Tunnel::guard);
    let offered = protocols(request.headers());
    hop::strip(request.headers_mut());
    hop::relist(request.headers_mut());
    mark(request.headers_mut(), &offered);
    let mut response = pool.send(&config.timeouts, request, true, member).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        reply::examine(&mut response)?;
        *response.version_mut() = http::Version::HTTP_11;
        return Ok(response);
    }
    let upstream = on(&mut *response);
    let chosen = protocols(response.headers());
    // RFC 9110, 7.8: a protocol that was not asked for must not be switched to, and one must be named.
    let is_offered = |one: &Vec<u8>| offered.iter().any(|other| other.eq_ignore_ascii_case(one));
    if chosen.is_empty() || !chosen.iter().all(is_offered) {
        return Err(Error::Unasked);
    }
    hop::strip(response.headers_mut());
    mark(response.headers_mut(), &chosen);
    let treated = tunnel.map(|tunnel| (tunnel, response.headers().clone(), guard));
    tokio::task::spawn_local(join(connection.clone(), caller, upstream, treated));
    Ok(response)
}

/// The protocols that a head names, in their order.
fn protocols(headers: &HeaderMap) -> Vec<Vec<u8>> {
    let all = headers.get_all(UPGRADE).iter().flat_map(hop::listed);
    all.filter(|one| !one.is_empty()).map(<[u8]>::to_vec).collect()
}

fn mark(headers: &mut HeaderMap, protocols: &[Vec<u8>]) {
    if let Ok(protocols) = HeaderValue::from_bytes(&protocols.join(&b", "[..])) {
        headers.insert(UPGRADE, protocols);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// What a fault does to a tunnel, the head that opened it, and what says that it is over.
type Treated = (Tunnel, HeaderMap, Option<DropGuard>);

/// Copies both ways. The end of one direction is passed on and leaves the other open; there is no timeout.
async fn join(connection: Rc<Connection>, caller: OnUpgrade, upstream: OnUpgrade, treated: Option<Treated>) {
    let (Ok(caller), Ok(upstream)) = tokio::join!(caller, upstream) else { return };
    let Ok(Parts { io: upstream, read_buf: first, .. }) = upstream.downcast::<TokioIo<Carrier>>() else { return };
    connection.socket.patience(None);
    let (mut caller, mut upstream) = (TokioIo::new(caller), upstream.into_inner());
    if let Some((tunnel, head, _guard)) = treated {
        if let Err(error) = treated::join(caller, upstream, first, &tunnel, &head, &connection.socket).await {
            tracing::debug!(peer = %connection.caller, error = error.chain(), "tunnel ended");
        }
        return;
    }
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
