//! Where a request goes.

use http::Request;
use http::header::{HOST, HeaderValue};

use super::config::RouteConfig;

/// The place of the first route that takes the request.
pub(super) fn taken<B>(routes: &[RouteConfig], request: &Request<B>) -> Option<usize> {
    let host = host(request);
    routes.iter().position(|route| {
        route.host.as_deref().is_none_or(|wanted| host.is_some_and(|host| host.eq_ignore_ascii_case(wanted)))
            && route.path.as_ref().is_none_or(|path| path.matches(request.uri().path()))
    })
}

/// The host without its port.
fn host<B>(request: &Request<B>) -> Option<&str> {
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let host = authority.or_else(|| request.headers().get(HOST).and_then(|host: &HeaderValue| host.to_str().ok()))?;
    let end = host.rfind(':').filter(|colon| !host[*colon..].contains(']')).unwrap_or(host.len());
    Some(&host[..end])
}
