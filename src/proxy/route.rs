//! Where a request goes.

use http::Request;
use http::header::{HOST, HeaderValue};

use super::config::{ListenerConfig, Target};

/// The first route that takes the request, else the listener's own upstream.
pub(super) fn route<'c, B>(config: &'c ListenerConfig, request: &Request<B>) -> Option<&'c Target> {
    if config.routes.is_empty() {
        return config.upstream.as_ref();
    }
    let host = host(request);
    let taken = config.routes.iter().find(|route| {
        route.host.as_deref().is_none_or(|wanted| host.is_some_and(|host| host.eq_ignore_ascii_case(wanted)))
            && route.path.as_ref().is_none_or(|path| path.matches(request.uri().path()))
    });
    taken.map(|route| &route.upstream).or(config.upstream.as_ref())
}

/// The host without its port.
fn host<B>(request: &Request<B>) -> Option<&str> {
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let host = authority.or_else(|| request.headers().get(HOST).and_then(|host: &HeaderValue| host.to_str().ok()))?;
    let end = host.rfind(':').filter(|colon| !host[*colon..].contains(']')).unwrap_or(host.len());
    Some(&host[..end])
}
