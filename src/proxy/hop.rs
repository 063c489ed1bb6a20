//! What concerns one hop only, and the shape in which a request goes on.

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery};
use http::{Method, Request, Uri, Version};

use super::config::{BoundsConfig, HostPolicy, Scheme, Target};
use super::interim;
use crate::service::Error;

pub(super) const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
pub(super) const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What one look at a head tells.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Seen {
    /// Fields that concern one hop only are there.
    pub hop: bool,
    /// The caller asks for another protocol on this connection.
    pub upgrade: bool,
    /// `Host` is there.
    pub host: bool,
    /// Its length is told several times.
    pub lengths: bool,
    /// The caller waits for a 100 before it sends the body.
    pub expects: bool,
}

/// Looks at a head once, and refuses what must never be sent on (decisions.md 1.1 and 1.11) or is too large; hyper has
/// refused the worst already.
pub fn examine<B>(request: &Request<B>, bounds: &BoundsConfig) -> Result<Seen, Error> {
    if *request.method() == Method::CONNECT {
        return Err(Error::Refused("CONNECT is not served here"));
    }
    if *request.method() == Method::TRACE {
        return Err(Error::Refused("TRACE is not served here"));
    }
    // RFC 9112, 3.2: `*` is for OPTIONS, and an authority alone for CONNECT.
    match request.uri().path().as_bytes() {
        [b'/', ..] => {}
        b"*" if *request.method() == Method::OPTIONS => {}
        _ => return Err(Error::Refused("the target is neither a path nor a whole URI")),
    }
    if target_bytes(request) > bounds.target_bytes.get() {
        return Err(Error::LongTarget);
    }
    // In absolute form what stands before `@` is cut, on HTTP/2 it must not be there (RFC 9113, 8.3.1).
    if let Some(authority) = request.uri().authority() {
        let whole = if request.version() < Version::HTTP_2 { without_userinfo(authority) } else { authority.as_str() };
        if !is_host(whole.as_bytes()) {
            return Err(Error::Refused("the authority is no host"));
        }
    }
    let (mut seen, mut hosts, mut codings, mut lengths) = (Seen::default(), 0, 0, 0);
    let (mut upgrade, mut h2c) = (false, false);
    let (mut bytes, mut fields) = (0, 0);
    for (name, value) in request.headers() {
        fields += 1;
        bytes += name.as_str().len() + value.len() + ": \r\n".len();
        if name == HOST {
            hosts += 1;
            if !is_host(value.as_bytes()) {
                return Err(Error::Refused("the value of `Host` is no host"));
            }
        } else if name == CONTENT_LENGTH {
            lengths += 1;
        } else if name == TRANSFER_ENCODING {
            codings += 1;
            if codings > 1 || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err(Error::Refused("the only transfer coding that is taken is `chunked`"));
            }
        } else if name == UPGRADE {
            seen.hop = true;
            upgrade = true;
            // RFC 9113, 3.1 did away with `h2c`: nobody has to take it, and requests would pass unseen.
            h2c |= listed(value).any(|protocol| protocol.eq_ignore_ascii_case(b"h2c"));
        } else if name == CONNECTION {
            seen.hop = true;
            seen.upgrade |= listed(value).any(|word| word.eq_ignore_ascii_case(b"upgrade"));
        } else if name == EXPECT {
            seen.hop = true;
            seen.expects = value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        } else if name == TE || *name == KEEP_ALIVE || *name == PROXY_CONNECTION {
            seen.hop = true;
        }
    }
    if bytes as u64 > bounds.header_bytes.get() || fields > bounds.headers as usize {
        return Err(Error::LargeHead);
    }
    seen.host = hosts > 0;
    seen.lengths = lengths > 1;
    // RFC 9110, 7.8 and 10.1.1: both are unknown to HTTP/1.0; on HTTP/2 hyper says no 100.
    seen.expects &= request.version() == Version::HTTP_11;
    seen.upgrade &= upgrade && !h2c && request.version() == Version::HTTP_11;
    // RFC 9112, 3.2: exactly one, but an HTTP/1.0 request may do without. On HTTP/2 the authority is the host, and where it
    // is left out, `Host` counts (RFC 9113, 8.3.1): two of them would both go on.
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Err(Error::Refused("a request must name exactly one host"));
    }
    Ok(seen)
}

/// The authority is part of the target in absolute form, and a field of its own on HTTP/2.
fn target_bytes<B>(request: &Request<B>) -> u64 {
    let uri = request.uri();
    let authority = uri.authority().filter(|_| request.version() < Version::HTTP_2);
    let authority = authority.map_or(0, |authority| authority.as_str().len());
    (authority + uri.path_and_query().map_or(0, |target| target.as_str().len())) as u64
}

/// What a registered name is made of, percent-encoded bytes included (RFC 3986, 3.2.2).
const NAME: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0u8);
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let (others, mut place) = (b"-._~%!$&'()*+,;=", 0);
    while place < others.len() {
        table[others[place] as usize] = true;
        place += 1;
    }
    table
};

/// Whether a field may be the value of `Host`: `uri-host [ ":" port ]` (RFC 9110, 7.2; RFC 3986, 3.2.2).
fn is_host(value: &[u8]) -> bool {
    let name = value.iter().position(|byte| !NAME[usize::from(*byte)]).unwrap_or(value.len());
    match &value[name..] {
        [] => true,
        [b':', port @ ..] => is_port(port),
        [b'[', literal @ ..] if name == 0 => {
            let end = literal.iter().position(|byte| !NAME[usize::from(*byte)] && *byte != b':');
            match end.map(|end| &literal[end..]) {
                Some([b']']) => true,
                Some([b']', b':', port @ ..]) => is_port(port),
                _ => false,
            }
        }
        _ => false,
    }
}

/// Digits, or none.
fn is_port(port: &[u8]) -> bool {
    let number = port.iter().try_fold(0u32, |number, digit| {
        let next = number * 10 + u32::from(digit.wrapping_sub(b'0'));
        (digit.is_ascii_digit() && next <= u32::from(u16::MAX)).then_some(next)
    });
    number.is_some()
}

/// Of lengths that are told several times one is kept, if they are the same (RFC 9112, 6.3).
pub(super) fn one_length(headers: &mut HeaderMap) -> Result<(), ()> {
    let told: Vec<&[u8]> = headers.get_all(CONTENT_LENGTH).iter().flat_map(listed).collect();
    let first = *told.first().ok_or(())?;
    let is_length = !first.is_empty() && first.iter().all(u8::is_ascii_digit);
    if !is_length || told.iter().any(|other| *other != first) {
        return Err(());
    }
    let one = HeaderValue::from_bytes(first).map_err(drop)?;
    headers.insert(CONTENT_LENGTH, one);
    Ok(())
}

/// A length as it is told (RFC 9110, 8.6): digits, and not so many that nobody can count to the end.
pub(super) fn length(told: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let add = |length: u64, byte: &u8| length.checked_mul(10)?.checked_add(digit(byte)?);
    let length = (!told.is_empty()).then(|| told.iter().try_fold(0, add))?;
    length.filter(|length| *length <= i64::MAX as u64)
}

/// Whether nothing says that a body comes with a request that seldom has one: hyper's client takes it to have none.
pub(super) fn is_unannounced<B>(request: &Request<B>) -> bool {
    let framed = || [CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(|name| request.headers().contains_key(name));
    matches!(*request.method(), Method::GET | Method::HEAD) && !framed()
}

/// Says that a body comes.
pub(super) fn announce<B>(request: &mut Request<B>) {
    request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
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

/// What goes up and concerns the next hop only.
pub fn relist(headers: &mut HeaderMap) {
    // RFC 9110, 10.1.4: who sends `TE` lists it.
    if headers.contains_key(TE) {
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    // Whoever waits for the upstream's 100 writes it anew.
    if headers.contains_key(EXPECT) {
        headers.remove(EXPECT);
    }
}

/// The words of a field that is a list of them.
pub(super) fn listed(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Tells the upstream which host is meant, in `Host`.
pub fn name<B>(request: &mut Request<B>, policy: &HostPolicy, upstream: &HeaderValue, seen: Seen) -> Result<(), Error> {
    let host = match policy {
        HostPolicy::Upstream => upstream.clone(),
        HostPolicy::Name(name) => field(name)?,
        // RFC 9112, 3.2.2: the authority of an absolute form replaces Host; on HTTP/2 it is the host.
        HostPolicy::Preserve => match request.uri().authority() {
            Some(authority) => field(without_userinfo(authority))?,
            None if seen.host => return Ok(()),
            None => upstream.clone(), // HTTP/1.0 without Host
        },
    };
    request.headers_mut().insert(HOST, host);
    Ok(())
}

/// Gives the request the form of HTTP/1.1: the target in origin form.
pub fn for_http1<B>(request: &mut Request<B>) {
    if request.uri().authority().is_some() || request.uri().scheme().is_some() {
        *request.uri_mut() = Uri::from(path(request.uri()));
    }
    if request.version() == Version::HTTP_11 {
        return;
    }
    if request.version() >= Version::HTTP_2 {
        join_cookies(request.headers_mut());
    }
    *request.version_mut() = Version::HTTP_11;
}

/// What is asked for, as it is written. Of `http://a#b` nothing is left to be written, though it reads as `/`.
fn path(uri: &Uri) -> PathAndQuery {
    let path = uri.path_and_query().filter(|path| path.as_str() != "/");
    path.cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}

/// Gives the request the form of HTTP/2: a whole URI, and no field of the connection (RFC 9113, 8.2.2).
pub fn for_http2<B>(request: &mut Request<B>, scheme: Scheme) -> Result<(), Error> {
    interim::forgo(request);
    let headers = request.headers_mut();
    headers.remove(TRANSFER_ENCODING);
    headers.remove(CONNECTION);
    headers.remove(UPGRADE);
    if let Some(host) = headers.remove(HOST) {
        let authority =
            Authority::try_from(host.as_bytes()).map_err(|_| Error::Refused("the host is not an authority"))?;
        let path = path(request.uri());
        let uri = Uri::builder()
            .scheme(if scheme == Scheme::Https { "https" } else { "http" })
            .authority(authority)
            .path_and_query(path)
            .build();
        *request.uri_mut() = uri.map_err(|_| Error::Refused("the target is not a URI"))?;
    }
    *request.version_mut() = Version::HTTP_2;
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
pub fn host_of(target: &Target) -> HeaderValue {
    let usual = if target.scheme == Scheme::Https { 443 } else { 80 };
    let name = match target.socket() {
        Some(_) => "localhost".to_owned(),
        None => {
            let host = if target.host.contains(':') { format!("[{}]", target.host) } else { target.host.clone() };
            if target.port == usual { host } else { format!("{host}:{}", target.port) }
        }
    };
    HeaderValue::try_from(name).unwrap_or_else(|_| HeaderValue::from_static("localhost"))
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
        for (policy, host) in [
            (HostPolicy::Preserve, "shop.example:81"),
            (HostPolicy::Upstream, "up"),
            (HostPolicy::Name("other".to_owned()), "other"),
        ] {
            let request = Request::get("http://me:pw@shop.example:81/a%2Fb?q=1").header(HOST, "ignored");
            let mut request = request.body(()).unwrap();
            let seen = Seen { host: true, ..Seen::default() };
            name(&mut request, &policy, &HeaderValue::from_static("up"), seen).unwrap();
            for_http1(&mut request);
            assert_eq!(request.uri(), "/a%2Fb?q=1");
            assert_eq!(request.headers()[HOST], host, "{policy:?}");
        }
    }

    #[test]
    fn an_upstream_is_called_by_its_port_only_where_it_is_not_the_usual_one() {
        for (scheme, host, port, expected) in [
            (Scheme::Http, "shop", 80, "shop"),
            (Scheme::Https, "shop", 443, "shop"),
            (Scheme::Https, "shop", 80, "shop:80"),
            (Scheme::H2c, "::1", 80, "[::1]"),
            (Scheme::Http, "::1", 81, "[::1]:81"),
            (Scheme::Http, "/run/shop.sock", 0, "localhost"),
        ] {
            assert_eq!(host_of(&Target { scheme, host: host.to_owned(), port }), expected);
        }
    }

    #[test]
    fn requests_that_nobody_may_send_on_are_refused() {
        let bounds = BoundsConfig { headers: 3, ..BoundsConfig::default() };
        let refused = |request: http::request::Builder| examine(&request.body(()).unwrap(), &bounds).is_err();
        assert!(!refused(Request::get("/").header(HOST, "a")));
        assert!(!refused(Request::get("/").version(Version::HTTP_10)));
        assert!(refused(Request::get("/")));
        assert!(refused(Request::get("/").header(HOST, "a").header(HOST, "b")));
        assert!(refused(Request::get("/").version(Version::HTTP_2).header(HOST, "a").header(HOST, "b")));
        assert!(!refused(Request::get("http://a/").version(Version::HTTP_2)));
        assert!(!refused(Request::get("http://me:pw@a/").header(HOST, "a")));
        assert!(refused(Request::get("http://me:pw@a/").version(Version::HTTP_2)));
        assert!(
            refused(Request::get("http://a:b/").header(HOST, "a"))
                && refused(Request::get("http://a:65536/").version(Version::HTTP_2))
        );
        for host in ["", "a", "a:", "shop.example:81", "caf%C3%A9", "a,b", "[::1]", "[::1]:80", "[fe80::1%25eth0]:"] {
            assert!(!refused(Request::get("/").header(HOST, host)), "{host}");
        }
        for host in [
            "a b",
            "a/b@c",
            "me@a",
            "a, b",
            "a:99999999",
            "a:65536",
            "a:+1",
            "a:b",
            "::1",
            "[::1",
            "[::1]a",
            "a[",
            "a?b",
        ] {
            assert!(refused(Request::get("/").header(HOST, host)), "{host}");
        }
        assert!(refused(Request::get("/").header(HOST, "a").header(TRANSFER_ENCODING, "gzip, chunked")));
        assert!(refused(Request::builder().method("CONNECT").uri("a:1").header(HOST, "a")));
        assert!(refused(Request::builder().method("TRACE").uri("/").header(HOST, "a")));
        assert!(refused(Request::get("/").header(HOST, "a").header("a", "1").header("b", "1").header("c", "1")));
        assert!(refused(Request::get("/").header(HOST, "a".repeat(33 << 10))));
        assert!(refused(Request::get(format!("/{}", "a".repeat(16 << 10))).header(HOST, "a")));
    }

    #[test]
    fn a_look_at_a_head_finds_what_concerns_one_hop() {
        let look = |name: &'static str, value: &'static str| {
            let request = Request::get("/").header(HOST, "a").header(name, value).header(UPGRADE, "websocket");
            examine(&request.body(()).unwrap(), &BoundsConfig::default()).unwrap().upgrade
        };
        assert!(look("connection", "keep-alive, Upgrade"));
        assert!(!look("connection", "keep-alive"), "nothing is upgraded that is not listed");
        let plain = Request::get("/").header(HOST, "a").header("accept", "*/*").body(()).unwrap();
        let seen = Seen { host: true, ..Seen::default() };
        assert_eq!(examine(&plain, &BoundsConfig::default()).unwrap(), seen);
    }
}
