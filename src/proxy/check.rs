//! From a listener as it was written to what was meant.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::config::{HostPolicy, ListenerConfig, ListenerDraft, Mode, RouteConfig, Scheme, Target, UpstreamTls};
use crate::document::{self, Problems};
use crate::experiment::check::help;
use crate::experiment::check_slice::{Wrong, network, path_glob};
use crate::units::Span;

/// Reads a listener; what cannot be read is reported and something harmless put in its place.
pub fn listener(name: &str, draft: ListenerDraft, pointer: &str, problems: &mut Problems) -> ListenerConfig {
    let at = |key: &str| format!("{pointer}/{key}");
    let bind = address(&draft.bind, &at("bind"), problems);
    let upstream = draft.upstream.as_deref().and_then(|text| target(text, &at("upstream"), problems));
    let routes = routes(&draft, pointer, problems);
    match draft.mode {
        Mode::Reverse if draft.upstream.is_none() && draft.routes.is_empty() => problems.error_at_key(
            pointer,
            format!("where `{name}` forwards to is not written"),
            help("add `upstream: http://127.0.0.1:3000`, or `routes`"),
        ),
        Mode::Forward if draft.upstream.is_some() || !draft.routes.is_empty() => problems.error(
            &at("mode"),
            "with `mode: forward` the caller names the upstream",
            help("remove `upstream` and `routes`, or `mode`"),
        ),
        _ => {}
    }
    let https = upstream.iter().chain(routes.iter().map(|route| &route.upstream)).any(|it| it.scheme == Scheme::Https);
    if let Some(tls) = &draft.upstream_tls {
        check_upstream_tls(tls, https, &at("upstream_tls"), problems);
    }
    for (key, span) in [
        ("connect", draft.timeouts.connect),
        ("response", draft.timeouts.response),
        ("body_stall", draft.timeouts.body_stall),
        ("request_header", draft.timeouts.request_header),
        ("idle", draft.timeouts.idle),
    ] {
        if span == Span::default() {
            problems.error(
                &format!("{pointer}/timeouts/{key}"),
                "nothing happens within `0s`",
                help("write how long to wait, or leave it out"),
            );
        }
    }
    for (key, size) in [("header_bytes", draft.bounds.header_bytes), ("target_bytes", draft.bounds.target_bytes)] {
        if size.get() == 0 {
            problems.error(&format!("{pointer}/bounds/{key}"), "no request fits into nothing", help("leave it out"));
        }
    }
    let mut trusted_proxies: Vec<IpNet> = Vec::new();
    for (index, text) in draft.trusted_proxies.iter().enumerate() {
        match network(text) {
            Ok(net) => trusted_proxies.push(net),
            Err((message, way)) => problems.error(&format!("{pointer}/trusted_proxies/{index}"), message, way),
        }
    }
    ListenerConfig {
        name: name.to_owned(),
        bind,
        upstream,
        routes,
        host: host(draft.host.as_deref(), &at("host"), problems),
        mode: draft.mode,
        timeouts: draft.timeouts,
        bounds: draft.bounds,
        mark: draft.mark.unwrap_or(true),
        trust_baggage: draft.trust_baggage,
        keep_case: draft.keep_case,
        early_hints: draft.early_hints,
        trusted_proxies,
        proxy_protocol: draft.proxy_protocol,
        external: draft.external.unwrap_or(https),
        tls: draft.tls,
        upstream_tls: draft.upstream_tls,
    }
}

/// Reads an address with its port.
pub fn address(text: &str, pointer: &str, problems: &mut Problems) -> SocketAddr {
    text.parse().unwrap_or_else(|_| {
        let port = text.rsplit(':').next().filter(|port| port.parse::<u16>().is_ok());
        let way = match port {
            Some(port) if text.starts_with("localhost:") => format!("write `127.0.0.1:{port}`"),
            Some(port) => format!("write `127.0.0.1:{port}` for this machine alone, or `0.0.0.0:{port}` for everybody"),
            None => "write an address and a port, as in `127.0.0.1:8080`".to_owned(),
        };
        problems.error(pointer, format!("`{text}` is not an address to listen at"), Some(way));
        SocketAddr::from(([127, 0, 0, 1], 0))
    })
}

fn routes(draft: &ListenerDraft, pointer: &str, problems: &mut Problems) -> Vec<RouteConfig> {
    let mut routes: Vec<RouteConfig> = Vec::new();
    for (index, route) in draft.routes.iter().enumerate() {
        let pointer = format!("{pointer}/routes/{index}");
        if route.host.is_none() && route.path.is_none() {
            problems.error(
                &pointer,
                "this route takes everything, so that it is none",
                help("add `host` or `path`, or write it as the listener's `upstream`"),
            );
        }
        let path = route.path.as_deref().and_then(|text| {
            path_glob(text).map_err(|(message, way)| problems.error(&format!("{pointer}/path"), message, way)).ok()
        });
        let host = route.host.as_ref().map(|host| host.to_ascii_lowercase());
        if let Some(host) = host.as_deref().filter(|host| host.contains(['/', ':', '*'])) {
            problems.error(
                &format!("{pointer}/host"),
                format!("`{host}` is more than the name of a host"),
                help("write it without scheme, port or stars, as in `shop.example.com`"),
            );
        }
        let Some(upstream) = target(&route.upstream, &format!("{pointer}/upstream"), problems) else { continue };
        if routes.iter().any(|other| other.host == host && other.path == path) {
            problems.error(
                &pointer,
                "this route is never taken: one before it has the same host and path",
                help("remove one of them"),
            );
        }
        routes.push(RouteConfig { host, path, upstream });
    }
    routes
}

/// Reads an upstream.
pub fn target(text: &str, pointer: &str, problems: &mut Problems) -> Option<Target> {
    parse_target(text).map_err(|(message, way)| problems.error(pointer, message, way)).ok()
}

fn parse_target(text: &str) -> Result<Target, Wrong> {
    let wrong = |message: String, way: &str| Err((message, help(way)));
    let Some((scheme, rest)) = text.split_once("://") else {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.starts_with('/') {
                true => Ok(Target { scheme: Scheme::Http, host: path.to_owned(), port: 0 }),
                false => wrong(format!("`{text}` is no path from the root"), "write it as in `unix:/run/shop.sock`"),
            };
        }
        return wrong(format!("`{text}` does not say how to speak to the upstream"), &format!("write `http://{text}`"));
    };
    let (scheme, usual) = match scheme {
        "http" => (Scheme::Http, 80),
        "https" => (Scheme::Https, 443),
        "h2c" => (Scheme::H2c, 80),
        "grpc" | "h2" => {
            return wrong(
                format!("`{scheme}://` is not known"),
                "write `h2c://` for HTTP/2 in the clear, `https://` for TLS",
            );
        }
        "ws" | "wss" => {
            return wrong(format!("`{scheme}://` is not known"), "WebSockets pass through `http://` and `https://`");
        }
        _ => return wrong(format!("`{scheme}://` is not known"), "write `http://`, `https://` or `h2c://`"),
    };
    let authority = rest.trim_end_matches('/');
    if authority.contains(['/', '?', '#']) {
        return wrong(
            format!("`{text}` has a path, and paths are forwarded as they come"),
            "write the host and the port alone; several services behind one listener are `routes`",
        );
    }
    if authority.contains('@') {
        return wrong("an upstream has no user or password".to_owned(), "the caller's `authorization` passes as it is");
    }
    let Ok(parsed) = authority.parse::<http::uri::Authority>() else {
        return wrong(format!("`{text}` has no host"), "write it as in `http://127.0.0.1:3000`");
    };
    let host = parsed.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    // `Authority` takes `host:` and `host:99999` as well, with no port.
    let port = match authority.strip_prefix(parsed.host()).unwrap_or_default().strip_prefix(':') {
        None => Some(usual),
        Some(port) => port.parse::<u16>().ok().filter(|port| *port > 0),
    };
    match port {
        Some(port) if !host.is_empty() => Ok(Target { scheme, host, port }),
        Some(_) => wrong(format!("`{text}` has no host"), "write it as in `http://127.0.0.1:3000`"),
        None => wrong(format!("`{text}` has no port that exists"), "ports are numbers from 1 to 65535"),
    }
}

fn host(written: Option<&str>, pointer: &str, problems: &mut Problems) -> HostPolicy {
    match written {
        None | Some("preserve") => HostPolicy::Preserve,
        Some("upstream") => HostPolicy::Upstream,
        Some(name) => {
            let known = ["preserve", "upstream"];
            let sound = !name.contains(['@', '/', '*']) && name.parse::<http::uri::Authority>().is_ok();
            // A single word that looks like one of ours is more likely misspelt than a name.
            let way = match document::nearest(name, known) {
                Some(near) => Some(format!("did you mean `{near}`?")),
                None if !sound => Some("write `preserve`, `upstream` or a name, as in `shop.example.com`".to_owned()),
                None => None,
            };
            if way.is_some() {
                problems.error(pointer, format!("`{name}` is not what the upstream can be told"), way);
            }
            HostPolicy::Name(name.to_owned())
        }
    }
}

fn check_upstream_tls(tls: &UpstreamTls, https: bool, pointer: &str, problems: &mut Problems) {
    if !https {
        problems.error_at_key(
            pointer,
            "no upstream of this listener is `https://`",
            help("write `https://` in `upstream`, or remove `upstream_tls`"),
        );
    }
    for (one, other, missing) in [
        ("cert", "key", tls.cert.is_some() && tls.key.is_none()),
        ("key", "cert", tls.key.is_some() && tls.cert.is_none()),
    ] {
        if missing {
            problems.error(
                &format!("{pointer}/{one}"),
                format!("`{one}` is of no use without `{other}`"),
                help(format!("add `{other}`, or remove `{one}`")),
            );
        }
    }
}

/// Whether only this machine can reach an address.
pub fn is_local(address: SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.to_canonical().is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_are_a_scheme_a_host_and_a_port() {
        for (text, expected) in [
            ("http://127.0.0.1:3000", Some("http://127.0.0.1:3000")),
            ("http://shop", Some("http://shop:80")),
            ("https://payments.example.com/", Some("https://payments.example.com:443")),
            ("h2c://[::1]:4001", Some("h2c://[::1]:4001")),
            ("127.0.0.1:3000", None),
            ("http://", None),
            ("http://:80", None),
            ("http://a:0", None),
            ("http://a:99999", None),
            ("http://a:b", None),
            ("http://a/b", None),
            ("http://me@a", None),
            ("http://a b", None),
            ("grpc://a", None),
            ("unix:/run/a.sock", Some("unix:/run/a.sock")),
            ("unix:a.sock", None),
        ] {
            assert_eq!(parse_target(text).ok().map(|target| target.to_string()).as_deref(), expected, "{text}");
        }
    }
}
