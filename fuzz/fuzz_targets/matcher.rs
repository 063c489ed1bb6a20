//! Conditions over requests of strangers: keys are AND, lists are OR, and `not` is not.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arbitrary::{Arbitrary, Unstructured};
use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use libfuzzer_sys::fuzz_target;
use pratfall::document::read;
use pratfall::experiment::Match;
use pratfall::experiment::check_slice::matcher;
use pratfall::experiment::draft::MatchDraft;
use serde_json::{Map, Value, json};

#[derive(Arbitrary, Debug)]
struct Input {
    one: Conditions,
    other: Conditions,
    path: Text,
    query: Option<Text>,
    host: Option<Text>,
    method: u8,
    caller: Option<[u8; 4]>,
    mapped: bool,
    head: Vec<(Name, Text)>,
}

/// A text of few pieces, so that conditions meet requests that fit, or nearly do; or whatever comes.
#[derive(Debug)]
struct Text(String);

impl<'a> Arbitrary<'a> for Text {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        const PIECES: [&str; 24] = [
            "a", "b", "A", "*", "**", "/", "/**", "/a", "/b", "%61", "%2F", "+", "=", ";", ",", " ", ".", ":80",
            "[::1]", "é", "&", "?", "a=b", "\"",
        ];
        if bytes.ratio(1, 16)? {
            return Ok(Self(bytes.arbitrary::<&str>()?.to_owned()));
        }
        let pieces = bytes.int_in_range(0..=5)?;
        (0..pieces).map(|_| bytes.choose(&PIECES).copied()).collect::<arbitrary::Result<String>>().map(Self)
    }
}

#[derive(Arbitrary, Debug)]
enum Conditions {
    Method(Few<u8>),
    Path(Few<Text>),
    PathRegex(Text),
    Host(Few<Text>),
    Header(Name, Few<Text>),
    Query(Text, Few<Text>),
    Cookie(Text, Few<Text>),
    Baggage(Text, Few<Text>),
    Caller([u8; 4], u8),
    Grpc(Text),
    Both(Box<Self>, Box<Self>),
    Any(Box<Self>, Box<Self>),
    Not(Box<Self>),
}

/// One or two, so that lists are tried and documents stay short.
#[derive(Arbitrary, Debug)]
struct Few<T>(T, Option<T>);

impl<T> Few<T> {
    fn json(&self, value: impl Fn(&T) -> Value) -> Value {
        match &self.1 {
            Some(second) => json!([value(&self.0), value(second)]),
            None => value(&self.0),
        }
    }
}

/// Names that a head of a few lines may have.
#[derive(Clone, Copy, Debug)]
struct Name(&'static str);

impl<'a> Arbitrary<'a> for Name {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        bytes.choose(&["x-tier", "host", "cookie", "baggage", "X-A", "authorization"]).copied().map(Name)
    }
}

const METHODS: [Method; 4] = [Method::GET, Method::POST, Method::HEAD, Method::PUT];

fn method(number: u8) -> Method {
    METHODS[usize::from(number) % METHODS.len()].clone()
}

/// A text in which nothing is a variable.
fn text(text: &Text) -> Value {
    Value::String(text.0.replace("${", "$${"))
}

impl Conditions {
    /// As a document writes it: the keys of one `match`, or what is within them.
    fn json(&self) -> Value {
        let named = |key: &str, name: &str, values: &Few<Text>| json!({ key: { name: values.json(text) } });
        match self {
            Self::Method(few) => json!({ "method": few.json(|number| json!(method(*number).as_str())) }),
            Self::Path(few) => json!({ "path": few.json(text) }),
            Self::PathRegex(regex) => json!({ "path_regex": text(regex) }),
            Self::Host(few) => json!({ "host": few.json(text) }),
            Self::Header(name, few) => named("header", name.0, few),
            Self::Query(name, few) => named("query", &name.0, few),
            Self::Cookie(name, few) => named("cookie", &name.0, few),
            Self::Baggage(name, few) => named("baggage", &name.0, few),
            Self::Caller(address, length) => {
                json!({ "caller": format!("{}/{}", Ipv4Addr::from(*address), length % 33) })
            }
            Self::Grpc(name) => json!({ "grpc": text(name) }),
            Self::Both(one, other) => {
                let mut keys = Map::new();
                for each in [one.json(), other.json()] {
                    // A key that is there already would be replaced: beside it, then.
                    let Value::Object(each) = each else { continue };
                    if each.keys().any(|key| keys.contains_key(key)) {
                        return json!({ "not": [{ "not": keys }, { "not": each }] });
                    }
                    keys.extend(each);
                }
                Value::Object(keys)
            }
            Self::Any(one, other) => json!({ "any": [one.json(), other.json()] }),
            Self::Not(one) => json!({ "not": one.json() }),
        }
    }
}

/// Documents bound how deep values lie within each other, and the questions below wrap them in a few more.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(keys) => 1 + keys.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

/// What a document would make of these conditions; nothing where they are none.
fn compiled(conditions: &Value) -> Option<Match> {
    let reading = read::<MatchDraft>("fuzzed", &conditions.to_string(), &|_| None);
    let (draft, mut problems) = (reading.value?, reading.problems);
    let compiled = matcher(&draft, "", &mut problems);
    (!problems.has_errors()).then_some(compiled)
}

fuzz_target!(|input: Input| {
    let query = input.query.as_ref().map_or_else(String::new, |query| format!("?{}", query.0));
    let host = input.host.as_ref().map_or_else(String::new, |host| format!("http://{}", host.0));
    let Ok(uri) = format!("{host}/{}{query}", input.path.0).parse::<Uri>() else { return };
    let mut request = Request::new(());
    *request.uri_mut() = uri;
    *request.method_mut() = method(input.method);
    for (name, value) in &input.head {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.0.as_bytes()), HeaderValue::from_str(&value.0)) {
            request.headers_mut().append(name, value);
        }
    }
    let caller = input.caller.map(|address| {
        let address = Ipv4Addr::from(address);
        if input.mapped { IpAddr::V6(Ipv6Addr::from(address.to_ipv6_mapped())) } else { IpAddr::V4(address) }
    });
    let (one, other) = (input.one.json(), input.other.json());
    if depth(&one).max(depth(&other)) > 14 {
        return;
    }
    let (Some(a), Some(b)) = (compiled(&one), compiled(&other)) else { return };
    let meant = |conditions: &Match| conditions.matches(&request, caller);
    let (is_a, is_b) = (meant(&a), meant(&b));
    assert!(!a.describe().is_empty() && !b.describe().is_empty());
    for (conditions, expected) in [
        (json!({ "any": [one, other] }), is_a || is_b),
        (json!({ "not": [one, other] }), !is_a && !is_b),
        (json!({ "any": [one], "not": { "not": other } }), is_a && is_b),
        (json!({ "any": [one], "not": one }), false),
    ] {
        let compiled = compiled(&conditions).unwrap_or_else(|| panic!("each is good, but not all: {conditions}"));
        assert_eq!(meant(&compiled), expected, "{conditions}");
    }
    // A list is any of its entries.
    if let Conditions::Path(Few(first, Some(second))) = &input.one {
        let [x, y] = [first, second].map(|path| compiled(&json!({ "path": text(path) })).expect("as above"));
        assert_eq!(is_a, meant(&x) || meant(&y), "{first:?} or {second:?}");
    }
});
