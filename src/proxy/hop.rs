//! What concerns one hop only, and the shape in which a request goes on.

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery};
use http::{Method, Request, Uri, Version};

use super::config::{HostPolicy, Scheme, Target};
use crate::service::Error;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Refuses what must never be sent on (decisions.md 1.1 and 1.11): hyper has refused the worst already.
pub fn refuse<B>(request: &Request<B>) -> Result<(), Error> {
    if *request.method() == Method::CONNECT {
        return Err(Error::Refused("CONNECT is not served here"));
    }
    if *request.method() == Method::TRACE {
        return Err(Error::Refused("TRACE is not served here"));
    }
    let headers = request.headers();
    let hosts = headers.get_all(HOST).iter().count();
    // RFC 9112, 3.2: exactly one, but an HTTP/1.0 request may do without. On HTTP/2 the authority is the host, and where
    // it is left out, `Host` counts (RFC 9113, 8.3.1): two of them would both go on.
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Err(Error::Refused("a request must name exactly one host"));
    }
    if request.version() < Version::HTTP_2 {
        let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
        if let Some(encoding) = encodings.next()
            && (encodings.next().is_some() || !encoding.as_bytes().eq_ignore_ascii_case(b"chunked"))
        {
            return Err(Error::Refused("the only transfer coding that is taken is `chunked`"));
        }
    }
    Ok(())
}

/// Removes the fields that concern one hop only (RFC 9110, 7.6.1).
pub fn strip(headers: &mut HeaderMap) {
    // Before the listed fields go: `TE` must be listed, and the upstream sends trailers only to those who take them
    // (decisions.md 1.8).
    if headers.contains_key(TE) {
        let takes_trailers = headers.get_all(TE).iter().flat_map(listed).any(|te| te.eq_ignore_ascii_case(b"trailers"));
        if takes_trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        } else {
            headers.remove(TE);
        }
    }
    if headers.contains_key(CONNECTION) {
        let usual = |line: &HeaderValue| {
            [&b"keep-alive"[..], b"close"].iter().any(|usual| line.as_bytes().eq_ignore_ascii_case(usual))
        };
        // What nearly everybody sends lists no field.
        if !headers.get_all(CONNECTION).iter().all(usual) {
            let lines: Vec<HeaderValue> = headers.get_all(CONNECTION).iter().cloned().collect();
            for name in lines.iter().flat_map(listed).filter_map(|name| HeaderName::from_bytes(name).ok()) {
                // hyper frames by these; RFC 9110 forbids to list them, and who does must not unframe the message.
                if ![TRANSFER_ENCODING, CONTENT_LENGTH, HOST, TE].contains(&name) {
                    headers.remove(name);
                }
            }
        }
        headers.remove(CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, UPGRADE] {
        if headers.contains_key(&name) {
            headers.remove(name);
        }
    }
}

/// The words of a field that is a list of them.
fn listed(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Gives the request the form that the upstream's protocol wants: origin form with `Host` on HTTP/1, a full URI on HTTP/2.
pub fn address<B>(request: &mut Request<B>, target: &Target, policy: &HostPolicy) -> Result<(), Error> {
    let came_over_h2 = request.version() >= Version::HTTP_2;
    let host = match policy {
        HostPolicy::Upstream => Some(field(&authority(target))?),
        HostPolicy::Name(name) => Some(field(name)?),
        // RFC 9112, 3.2.2: the authority of an absolute form replaces Host; on HTTP/2 it is the host.
        HostPolicy::Preserve => match request.uri().authority() {
            Some(authority) => Some(field(without_userinfo(authority))?),
            None if request.headers().contains_key(HOST) => None,
            None => Some(field(&authority(target))?), // HTTP/1.0 without Host
        },
    };
    if let Some(host) = host {
        request.headers_mut().insert(HOST, host);
    }
    if target.scheme == Scheme::H2c {
        let host = request.headers_mut().remove(HOST).ok_or(Error::Refused("a request must name its host"))?;
        let authority =
            Authority::try_from(host.as_bytes()).map_err(|_| Error::Refused("the host is not an authority"))?;
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let uri = Uri::builder().scheme("http").authority(authority).path_and_query(path).build();
        *request.uri_mut() = uri.map_err(|_| Error::Refused("the target is not a URI"))?;
        *request.version_mut() = Version::HTTP_2;
        // RFC 9113, 8.2.2: fields of the connection do not exist there.
        request.headers_mut().remove(TRANSFER_ENCODING);
        return Ok(());
    }
    if request.uri().authority().is_some() || request.uri().scheme().is_some() {
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from(path);
    }
    if came_over_h2 {
        join_cookies(request.headers_mut());
    }
    *request.version_mut() = Version::HTTP_11;
    // RFC 9110, 10.1.4: who sends `TE` lists it.
    if request.headers().contains_key(TE) {
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("te"));
    }
    // hyper's client waits for no 100; the body waits for its own first poll, so the field says nothing true any more.
    if request.headers().contains_key(EXPECT) {
        request.headers_mut().remove(EXPECT);
    }
    Ok(())
}

/// RFC 9113, 8.2.3: crumbs of a cookie are one field again on HTTP/1.
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(http::header::COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers.get_all(http::header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let whole = all.join(&b"; "[..]);
    if let Ok(whole) = HeaderValue::from_bytes(&whole) {
        headers.insert(http::header::COOKIE, whole);
    }
}

/// What an upstream is called: its port only where it is not the scheme's own.
fn authority(target: &Target) -> String {
    let usual = if target.scheme == Scheme::Https { 443 } else { 80 };
    if target.port == usual { target.host.clone() } else { format!("{}:{}", target.host, target.port) }
}

fn without_userinfo(authority: &Authority) -> &str {
    let text = authority.as_str();
    text.rsplit_once('@').map_or(text, |(_, host)| host)
}

fn field(text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).map_err(|_| Error::Refused("the host has bytes that a field cannot carry"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_hop_go_and_all_others_stay() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-hop, transfer-encoding"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("upgrade", "h2c"),
            ("te", "gzip, trailers"),
            ("trailer", "x-sum"),
            ("x-end", "1"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip(&mut headers);
        let mut left: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        left.sort_unstable();
        let expected = [("te", "trailers"), ("trailer", "x-sum"), ("transfer-encoding", "chunked"), ("x-end", "1")];
        assert_eq!(left, expected);
    }

    #[test]
    fn an_absolute_target_becomes_origin_form_and_its_authority_the_host() {
        let target = Target { scheme: Scheme::Http, host: "up".to_owned(), port: 80 };
        for (policy, host) in [
            (HostPolicy::Preserve, "shop.example:81"),
            (HostPolicy::Upstream, "up"),
            (HostPolicy::Name("other".to_owned()), "other"),
        ] {
            let request = Request::get("http://me:pw@shop.example:81/a%2Fb?q=1").header(HOST, "ignored");
            let mut request = request.body(()).unwrap();
            address(&mut request, &target, &policy).unwrap();
            assert_eq!(request.uri(), "/a%2Fb?q=1");
            assert_eq!(request.headers()[HOST], host, "{policy:?}");
        }
    }

    #[test]
    fn requests_that_nobody_may_send_on_are_refused() {
        let refused = |request: http::request::Builder| refuse(&request.body(()).unwrap()).is_err();
        assert!(!refused(Request::get("/").header(HOST, "a")));
        assert!(!refused(Request::get("/").version(Version::HTTP_10)));
        assert!(refused(Request::get("/")));
        assert!(refused(Request::get("/").header(HOST, "a").header(HOST, "b")));
        assert!(refused(Request::get("/").version(Version::HTTP_2).header(HOST, "a").header(HOST, "b")));
        assert!(!refused(Request::get("http://a/").version(Version::HTTP_2)));
        assert!(refused(Request::get("/").header(HOST, "a").header(TRANSFER_ENCODING, "gzip, chunked")));
        assert!(refused(Request::builder().method("CONNECT").uri("a:1").header(HOST, "a")));
        assert!(refused(Request::builder().method("TRACE").uri("/").header(HOST, "a")));
    }
}
