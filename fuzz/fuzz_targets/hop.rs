//! What concerns one hop only goes, everything else stays, and what goes on has the form that the upstream wants.
#![no_main]

use http::header::HeaderName;
use http::{Method, Request, Uri, Version};
use libfuzzer_sys::fuzz_target;
use pratfall::proxy::config::{BoundsConfig, HostPolicy, Scheme, Target};
use pratfall::proxy::hop::{examine, for_http1, for_http2, host_of, name, relist, strip};
use pratfall_fuzz::{but, headers, lines};

/// `METHOD TARGET VERSION UPSTREAM POLICY`, then the head, one field a line.
struct Input {
    request: Request<()>,
    target: Target,
    policy: HostPolicy,
}

fn input(text: &[u8]) -> Option<Input> {
    let end = text.iter().position(|byte| *byte == b'\n')?;
    let line = str::from_utf8(&text[..end]).ok()?;
    let [method, uri, version, upstream, policy] = line.split(' ').collect::<Vec<_>>()[..] else { return None };
    let mut request = Request::new(());
    *request.method_mut() = method.parse::<Method>().ok()?;
    *request.uri_mut() = uri.parse::<Uri>().ok()?;
    *request.version_mut() = match version {
        "1.0" => Version::HTTP_10,
        "2" => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    *request.headers_mut() = headers(&text[end..]);
    let (scheme, port) = match upstream {
        "h2c" => (Scheme::H2c, 8080),
        "h2c:80" => (Scheme::H2c, 80),
        "h1:80" => (Scheme::Http, 80),
        _ => (Scheme::Http, 8080),
    };
    let policy = match policy {
        "name" => HostPolicy::Name("other.example".to_owned()),
        "upstream" => HostPolicy::Upstream,
        _ => HostPolicy::Preserve,
    };
    Some(Input { request, target: Target { scheme, host: "up.example".to_owned(), port }, policy })
}

const OF_THE_HOP: [&str; 4] = ["connection", "keep-alive", "proxy-connection", "upgrade"];
/// What `Connection` may not list.
const FRAMES: [&str; 4] = ["transfer-encoding", "content-length", "host", "te"];

fuzz_target!(|text: &[u8]| {
    let Some(Input { mut request, target, policy }) = input(text) else { return };
    let Ok(seen) = examine(&request, &BoundsConfig::default()) else { return };
    // RFC 9112, 3.2 and 6.1.
    if request.version() < Version::HTTP_2 {
        let hosts = lines(request.headers(), "host").len();
        assert!(hosts == 1 || (hosts == 0 && request.version() == Version::HTTP_10));
        let encodings = lines(request.headers(), "transfer-encoding");
        assert!(encodings.is_empty() || (encodings.len() == 1 && encodings[0].eq_ignore_ascii_case(b"chunked")));
    }
    assert!(![Method::CONNECT, Method::TRACE].contains(request.method()));

    let before = request.headers().clone();
    let of_the_hop = OF_THE_HOP.iter().chain(&["te"]).any(|name| before.contains_key(*name));
    assert!(seen.hop || !of_the_hop, "what is not seen is not removed");
    assert_eq!(seen.host, before.contains_key("host"));
    strip(request.headers_mut());
    let after = request.headers().clone();
    let words = |name: &str| -> Vec<String> {
        let words = lines(&before, name).into_iter().flat_map(|line| line.split(|byte| *byte == b','));
        words.map(|word| String::from_utf8_lossy(word.trim_ascii()).to_lowercase()).collect()
    };
    let mut gone: Vec<String> =
        words("connection").into_iter().filter(|name| !FRAMES.contains(&name.as_str())).collect();
    gone.extend(OF_THE_HOP.map(str::to_owned));
    gone.push("te".to_owned());
    let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
    assert_eq!(but(&after, &["te"]), but(&before, &gone), "what is listed goes, and nothing else");
    let trailers = words("te").iter().any(|word| word == "trailers");
    assert_eq!(lines(&after, "te"), if trailers { vec![&b"trailers"[..]] } else { vec![] });
    let mut again = after.clone();
    strip(&mut again);
    assert_eq!(again, after, "once is enough");

    let (uri, came) = (request.uri().clone(), request.version());
    relist(request.headers_mut());
    let named = name(&mut request, &policy, &host_of(&target), seen);
    let formed = named.and_then(|()| {
        if target.scheme == Scheme::H2c {
            return for_http2(&mut request, target.scheme);
        }
        for_http1(&mut request);
        Ok(())
    });
    if formed.is_err() {
        // A name of our own always fits; only what the caller wrote can be no host.
        assert_eq!(policy, HostPolicy::Preserve);
        return;
    }
    let sent = request.headers();
    assert_eq!(request.uri().path(), if uri.path().is_empty() { "/" } else { uri.path() }, "the path is theirs");
    assert_eq!(request.uri().query(), uri.query(), "the query too");
    if target.scheme == Scheme::H2c {
        assert_eq!(request.version(), Version::HTTP_2);
        assert!(request.uri().authority().is_some() && request.uri().scheme_str() == Some("http"));
        // RFC 9113, 8.2.2 and 8.3.1.
        for name in ["host", "transfer-encoding", "connection"] {
            assert!(!sent.contains_key(name), "`{name}` on HTTP/2");
        }
    } else {
        assert_eq!(request.version(), Version::HTTP_11);
        assert!(request.uri().authority().is_none() && request.uri().scheme().is_none(), "origin form");
        assert_eq!(lines(sent, "host").len(), 1, "exactly one host");
        assert!(!sent.contains_key("expect"));
        // RFC 9110, 10.1.4: who sends `TE` lists it.
        assert_eq!(lines(sent, "connection"), if trailers { vec![&b"te"[..]] } else { vec![] });
        if came == Version::HTTP_2 {
            assert!(lines(sent, "cookie").len() <= 1, "crumbs are joined");
        }
    }
    let changed = ["host", "te", "connection", "expect", "transfer-encoding", "cookie"];
    assert_eq!(but(sent, &changed), but(&after, &changed), "all other fields are as they were");
    assert!(sent.keys().all(|name| HeaderName::from_bytes(name.as_str().as_bytes()).is_ok()));
});
