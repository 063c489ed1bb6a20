//! Which requests are meant.
//!
//! Every request at a listener with a run comes through here, so that the cheap conditions stand first and nothing is
//! allocated unless a condition needs decoded text.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::{AUTHORIZATION, COOKIE, HOST, HeaderName, PROXY_AUTHORIZATION, USER_AGENT};
use http::{HeaderMap, Method, Request};
use ipnet::IpNet;
use regex::Regex;

use super::glob::{Glob, PathGlob};

/// Conditions on a request, compiled: keys are AND, lists are OR. The default means every request.
#[derive(Clone, Debug, Default)]
pub struct Match(Option<Arc<Conditions>>);

/// The conditions of one `match`; those that are empty allow everything.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions {
    pub(super) methods: Vec<Method>,
    pub(super) paths: Vec<PathGlob>,
    pub(super) path_regex: Option<Regex>,
    pub(super) hosts: Vec<Glob>,
    pub(super) headers: Vec<(HeaderName, Vec<Glob>)>,
    pub(super) query: Vec<(String, Vec<Glob>)>,
    pub(super) cookies: Vec<(String, Vec<Glob>)>,
    pub(super) callers: Vec<IpNet>,
    pub(super) baggage: Vec<(String, Vec<Glob>)>,
    /// As people write it, and as the path that it stands for.
    pub(super) grpc: Vec<(String, PathGlob)>,
    pub(super) not: Vec<Self>,
    pub(super) any: Vec<Self>,
}

impl Match {
    /// Every request.
    pub fn any() -> Self {
        Self::default()
    }

    pub(super) fn new(conditions: Conditions) -> Self {
        Self((!conditions.is_empty()).then(|| Arc::new(conditions)))
    }

    /// Whether this request is meant.
    pub fn matches<B>(&self, request: &Request<B>, caller: Option<IpAddr>) -> bool {
        match &self.0 {
            None => true,
            Some(conditions) => conditions.allow(request, caller),
        }
    }

    /// Whether this request is named: its path is written out as a whole, or something is asked of its user agent.
    pub fn names<B>(&self, request: &Request<B>) -> bool {
        self.0.as_ref().is_some_and(|conditions| conditions.name(request.uri().path()))
    }

    /// Whether nothing is asked but where the caller is: all that can be known of a new connection.
    pub fn asks_for_callers_only(&self) -> bool {
        self.0.as_ref().is_none_or(|conditions| conditions.ask_for_callers_only())
    }

    /// The conditions in words, for reports and errors: patterns, never a request's own values.
    pub fn describe(&self) -> String {
        match &self.0 {
            None => "every request".to_owned(),
            Some(conditions) => conditions.describe(),
        }
    }
}

impl Conditions {
    fn is_empty(&self) -> bool {
        self.methods.is_empty()
            && self.paths.is_empty()
            && self.path_regex.is_none()
            && self.hosts.is_empty()
            && self.headers.is_empty()
            && self.query.is_empty()
            && self.cookies.is_empty()
            && self.callers.is_empty()
            && self.baggage.is_empty()
            && self.grpc.is_empty()
            && self.not.is_empty()
            && self.any.is_empty()
    }

    fn name(&self, path: &str) -> bool {
        self.paths.iter().any(|glob| glob.as_str() == path)
            || self.grpc.iter().any(|(_, glob)| glob.matches(path))
            || self.headers.iter().any(|(name, _)| name == USER_AGENT)
            || self.any.iter().any(|conditions| conditions.name(path))
    }

    fn ask_for_callers_only(&self) -> bool {
        let rest = Self { callers: Vec::new(), not: Vec::new(), any: Vec::new(), ..self.clone() };
        rest.is_empty() && self.not.iter().chain(&self.any).all(Self::ask_for_callers_only)
    }

    fn allow<B>(&self, request: &Request<B>, caller: Option<IpAddr>) -> bool {
        let path = request.uri().path();
        let headers = request.headers();
        one_of(&self.methods, |method| method == request.method())
            && one_of(&self.paths, |glob| glob.matches(path))
            && one_of(&self.grpc, |(_, glob)| glob.matches(path))
            && one_of(&self.hosts, |glob| host(request).is_some_and(|host| glob.matches_in_any_case(host)))
            && one_of(&self.callers, |net| caller.is_some_and(|caller| net.contains(&caller.to_canonical())))
            && self.path_regex.as_ref().is_none_or(|regex| regex.is_match(path))
            && self.headers.iter().all(|(name, globs)| {
                headers.get_all(name).iter().any(|value| globs.iter().any(|glob| glob.matches(value.as_bytes())))
            })
            && self.query.iter().all(|(name, globs)| parameter(request.uri().query(), name, globs))
            && self.cookies.iter().all(|(name, globs)| cookie(headers, name, globs))
            && self.baggage.iter().all(|(name, globs)| member(headers, name, globs))
            && one_of(&self.any, |conditions| conditions.allow(request, caller))
            && !self.not.iter().any(|conditions| conditions.allow(request, caller))
    }

    fn describe(&self) -> String {
        let mut words = Vec::new();
        let mut say = |what: &str, patterns: Vec<&str>| {
            if !patterns.is_empty() {
                words.push(format!("{what}{}", patterns.join(" or ")));
            }
        };
        say("", self.methods.iter().map(Method::as_str).collect());
        say("path ", self.paths.iter().map(PathGlob::as_str).collect());
        say("gRPC ", self.grpc.iter().map(|(text, _)| text.as_str()).collect());
        say("path like ", self.path_regex.iter().map(Regex::as_str).collect());
        say("host ", globs(&self.hosts));
        for (name, values) in &self.headers {
            if secret(name) {
                say("header ", vec![name.as_str()]);
            } else {
                say(&format!("header {name} "), globs(values));
            }
        }
        for (name, values) in &self.query {
            say(&format!("query {name} "), globs(values));
        }
        for (name, _) in &self.cookies {
            say("cookie ", vec![name]);
        }
        let callers: Vec<_> = self.callers.iter().map(ToString::to_string).collect();
        say("caller in ", callers.iter().map(String::as_str).collect());
        for (name, values) in &self.baggage {
            say(&format!("baggage {name} "), globs(values));
        }
        let any: Vec<_> = self.any.iter().map(|each| format!("({})", each.describe())).collect();
        say("", any.iter().map(String::as_str).collect());
        for each in &self.not {
            say("not ", vec![&format!("({})", each.describe())]);
        }
        words.join(", ")
    }
}

fn one_of<T>(allowed: &[T], fits: impl Fn(&T) -> bool) -> bool {
    allowed.is_empty() || allowed.iter().any(fits)
}

fn globs(globs: &[Glob]) -> Vec<&str> {
    globs.iter().map(Glob::as_str).collect()
}

/// What a document expects in these fields may itself be a credential.
fn secret(name: &HeaderName) -> bool {
    [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE].contains(name)
}

/// The host that was asked for, without its port: the authority on HTTP/2, the field on HTTP/1.
fn host<B>(request: &Request<B>) -> Option<&[u8]> {
    let host = match request.uri().host() {
        Some(host) => host.as_bytes(),
        None => request.headers().get(HOST)?.as_bytes(),
    };
    let end = match host.iter().rposition(|byte| *byte == b':') {
        // The colons inside of `[::1]` belong to the address.
        Some(colon) if !host[colon..].contains(&b']') => colon,
        _ => host.len(),
    };
    Some(&host[..end])
}

fn parameter(query: Option<&str>, name: &str, globs: &[Glob]) -> bool {
    query.unwrap_or_default().split('&').any(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        decoded(key, true) == name.as_bytes() && {
            let value = decoded(value, true);
            globs.iter().any(|glob| glob.matches(&value))
        }
    })
}

fn cookie(headers: &HeaderMap, name: &str, globs: &[Glob]) -> bool {
    headers.get_all(COOKIE).iter().flat_map(|field| field.as_bytes().split(|byte| *byte == b';')).any(|pair| {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        let key = halves.next().unwrap_or_default().trim_ascii();
        let value = halves.next().unwrap_or_default().trim_ascii();
        key == name.as_bytes() && globs.iter().any(|glob| glob.matches(value))
    })
}

fn member(headers: &HeaderMap, name: &str, globs: &[Glob]) -> bool {
    let lines = headers.get_all("baggage").iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    // Each for itself: one with other bytes than text must not hide those beside it.
    lines.filter_map(|member| str::from_utf8(member).ok()).any(|member| {
        // Properties follow the value: `tenant=acme;since=2020`.
        let pair = member.split(';').next().unwrap_or_default();
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        key.trim_ascii() == name && {
            let value = decoded(value.trim_ascii(), false);
            globs.iter().any(|glob| glob.matches(&value))
        }
    })
}

/// Percent-decoded; in a form, as queries are, a plus is a space.
pub(super) fn decoded(text: &str, form: bool) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|byte| *byte == b'%' || (form && *byte == b'+')) {
        return Cow::Borrowed(bytes);
    }
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = match bytes[at..] {
            [b'%', high, low, ..] => hex(high).zip(hex(low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        match escaped {
            Some(byte) => {
                plain.push(byte);
                at += 3;
            }
            None => {
                plain.push(if form && bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    Cow::Owned(plain)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::super::Experiment;
    use super::*;

    /// The conditions of an experiment that says `match:` with this.
    fn compiled(conditions: &str) -> Match {
        let text = format!(
            "version: 1\nexperiment: test\nhypothesis: All is well.\n\
             slice: {{ at: front, match: {conditions} }}\n\
             inject: {{ at: back, faults: [{{ error: {{ status: 503 }} }}] }}\n\
             steady_state: [{{ error_rate: {{ max: 1% }} }}]\n"
        );
        let (experiment, _) =
            Experiment::parse("test", &text, &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
        experiment.slice.matches
    }

    fn request(line: &str, headers: &[(&str, &str)]) -> Request<()> {
        let (method, target) = line.split_once(' ').expect("a method and a target");
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request")
    }

    #[test]
    fn keys_are_and_and_lists_are_or() {
        let ip = |text: &str| Some(text.parse::<IpAddr>().expect("an address"));
        for (conditions, line, headers, caller, expected) in [
            ("{}", "GET /", &[][..], None, true),
            ("{ method: [GET, HEAD], path: [/a, /b/**] }", "HEAD /b/c?x=1", &[], None, true),
            ("{ method: [GET, HEAD], path: [/a, /b/**] }", "POST /b/c", &[], None, false),
            ("{ method: [GET, HEAD], path: [/a, /b/**] }", "GET /c", &[], None, false),
            ("{ path_regex: '^/a/[0-9]+$' }", "GET /a/12", &[], None, true),
            ("{ path_regex: '^/a/[0-9]+$' }", "GET /a/x", &[], None, false),
            ("{ host: '*.example.com' }", "GET /", &[("host", "Shop.Example.com:8080")], None, true),
            ("{ host: shop.example.com }", "GET http://shop.example.com/", &[("host", "other")], None, true),
            ("{ host: shop.example.com }", "GET /", &[("host", "example.com")], None, false),
            ("{ host: '[::1]' }", "GET /", &[("host", "[::1]:80")], None, true),
            ("{ header: { X-Tier: 'gold*' } }", "GET /", &[("x-tier", "iron"), ("x-tier", "golden")], None, true),
            ("{ header: { x-tier: [gold, iron] } }", "GET /", &[("x-tier", "Gold")], None, false),
            ("{ header: { x-tier: '*' } }", "GET /", &[], None, false),
            ("{ query: { v: '2' } }", "GET /?a=1&v=2", &[], None, true),
            ("{ query: { 'a b': 'c/*' } }", "GET /?a+b=c%2fd", &[], None, true),
            ("{ query: { v: '2' } }", "GET /?v=20", &[], None, false),
            ("{ query: { v: '' } }", "GET /?v", &[], None, true),
            ("{ cookie: { beta: '1' } }", "GET /", &[("cookie", "a=b; beta=1")], None, true),
            ("{ cookie: { beta: '1' } }", "GET /", &[("cookie", "xbeta=1")], None, false),
            ("{ caller: [10.0.0.0/8] }", "GET /", &[], ip("10.1.2.3"), true),
            ("{ caller: 10.0.0.0/8 }", "GET /", &[], ip("::ffff:10.1.2.3"), true),
            ("{ caller: 10.0.0.0/8 }", "GET /", &[], ip("11.1.2.3"), false),
            ("{ caller: 10.0.0.0/8 }", "GET /", &[], None, false),
            ("{ baggage: { tenant: acme } }", "GET /", &[("baggage", "a=b, tenant = acme;x=y")], None, true),
            ("{ baggage: { tenant: 'a c' } }", "GET /", &[("baggage", "tenant=a%20c")], None, true),
            ("{ baggage: { tenant: acme } }", "GET /", &[("baggage", "tenant=acmes")], None, false),
            ("{ baggage: { tenant: acme } }", "GET /", &[("baggage", "name=Zo\u{eb},tenant=acme")], None, true),
            ("{ grpc: shop.Ranker/Rank }", "POST /shop.Ranker/Rank", &[], None, true),
            ("{ grpc: shop.Ranker/* }", "POST /shop.Ranker/Other", &[], None, true),
            ("{ grpc: shop.Ranker/Rank }", "POST /shop.Ranker/Ranks", &[], None, false),
            ("{ path: /a/**, not: { path: /a/health } }", "GET /a/health", &[], None, false),
            ("{ path: /a/**, not: { path: /a/health } }", "GET /a/b", &[], None, true),
            ("{ any: [{ header: { x-a: '1' } }, { path: /b }] }", "GET /b", &[], None, true),
            ("{ any: [{ header: { x-a: '1' } }, { path: /b }] }", "GET /c", &[], None, false),
        ] {
            let matched = compiled(conditions).matches(&request(line, headers), caller);
            assert_eq!(matched, expected, "{conditions} on {line} {headers:?} {caller:?}");
        }
    }

    #[test]
    fn conditions_are_told_in_words_without_credentials() {
        for (conditions, words) in [
            ("{}", "every request"),
            ("{ method: [GET, HEAD], path: /a/** }", "GET or HEAD, path /a/**"),
            ("{ grpc: shop.Ranker/Rank }", "gRPC shop.Ranker/Rank"),
            (
                "{ header: { authorization: 'Bearer abc', x-tier: gold }, cookie: { session: abc } }",
                "header authorization, header x-tier gold, cookie session",
            ),
            ("{ caller: 10.0.0.0/8, not: { path: /a } }", "caller in 10.0.0.0/8, not (path /a)"),
            ("{ any: [{ path: /a }, { host: b }] }", "(path /a) or (host b)"),
        ] {
            assert_eq!(compiled(conditions).describe(), words, "{conditions}");
        }
    }
}
