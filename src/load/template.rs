//! What is sent: templates whose placeholders are drawn for each request.

use bytes::Bytes;
use http::header::{HOST, TE, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use http_body_util::Full;

use super::chance::{Chance, Dice, Purpose};
use super::pattern::Pattern;
use super::{LoadError, Template};
use crate::units::Seed;

/// Half of what a head may have; whoever writes more does not mean it.
const LONGEST_PATH: usize = 8 * 1024;

/// More are refused by ordinary servers.
const MOST_HEADERS: usize = 64;

/// Fields that belong to the connection or to the framing of the body.
const OURS: [&str; 7] =
    ["connection", "content-length", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];

const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// All templates, checked; the n-th request is the same whenever it is asked for.
#[derive(Debug)]
pub(super) struct Requests {
    chance: Chance,
    choices: Vec<Choice>,
    total: u64,
    version: Version,
}

impl Requests {
    /// Checks all templates and reports every problem; `authority` is where no template names a host.
    pub(super) fn new(
        templates: &[Template],
        authority: &Authority,
        version: Version,
        seed: Seed,
    ) -> Result<Self, Vec<LoadError>> {
        let mut problems = Vec::new();
        let mut choices = Vec::new();
        for (index, template) in templates.iter().enumerate() {
            match Choice::new(template, authority) {
                Ok(choice) => choices.push(choice),
                Err(found) => {
                    problems.extend(found.into_iter().map(|(key, problem)| LoadError::Template {
                        index,
                        key,
                        problem,
                    }));
                }
            }
        }
        let total = templates.iter().map(|template| u64::from(template.weight)).sum();
        if templates.is_empty() {
            problems.push(LoadError::Requests);
        } else if total == 0 {
            problems.push(LoadError::Weights);
        }
        if problems.is_empty() {
            Ok(Self { chance: Chance::new(seed), choices, total, version })
        } else {
            Err(problems)
        }
    }

    /// The n-th request with our mark in front of whatever baggage its template has; none where the mark is empty.
    pub(super) fn nth(&self, index: u64, mark: &str) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut dice = self.chance.dice(Purpose::Request, index);
        let drawn = dice.below(u128::from(self.total));
        self.choice(drawn).request(&mut dice, mark, self.version)
    }

    fn choice(&self, drawn: u64) -> &Choice {
        let mut end = 0;
        let found = self.choices.iter().find(|choice| {
            end += choice.weight;
            drawn < end
        });
        found.expect("what is drawn lies below the sum of the weights")
    }
}

/// One template, checked.
#[derive(Debug)]
struct Choice {
    weight: u64,
    method: Method,
    authority: Authority,
    path: Pattern,
    headers: Vec<(HeaderName, Pattern)>,
    body: Pattern,
}

/// What is wrong, and under which key.
type Problem = (&'static str, String);

impl Choice {
    fn new(template: &Template, authority: &Authority) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut authority = authority.clone();
        let method = keep(&mut problems, "method", method(&template.method));
        let path = keep(&mut problems, "path", path(&template.path));
        let mut headers = Vec::new();
        for (name, value) in &template.headers {
            match header(name, value) {
                Ok((HOST, _)) => match value.parse() {
                    Ok(host) => authority = host,
                    Err(_) => problems.push(("headers", format!("`{value}` is no host, as in `shop.example:8080`"))),
                },
                Ok(field) => headers.push(field),
                Err(problem) => problems.push(("headers", problem)),
            }
        }
        if headers.len() > MOST_HEADERS {
            problems.push(("headers", format!("more than {MOST_HEADERS} header fields: ordinary servers refuse them")));
        }
        let body = keep(&mut problems, "body", Pattern::new(template.body.as_deref().unwrap_or_default()));
        match (method, path, body) {
            (Some(method), Some(path), Some(body)) if problems.is_empty() => {
                Ok(Self { weight: template.weight.into(), method, authority, path, headers, body })
            }
            _ => Err(problems),
        }
    }

    fn request(&self, dice: &mut Dice, mark: &str, version: Version) -> Result<Request<Full<Bytes>>, http::Error> {
        let path = PathAndQuery::try_from(self.path.draw(dice))?;
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 3);
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("pratfall/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in &self.headers {
            headers.insert(name, HeaderValue::try_from(value.draw(dice))?);
        }
        if !mark.is_empty() {
            let mut baggage = mark.as_bytes().to_vec();
            if let Some(written) = headers.get(BAGGAGE) {
                baggage.push(b',');
                baggage.extend_from_slice(written.as_bytes());
            }
            headers.insert(BAGGAGE, HeaderValue::try_from(baggage)?);
        }
        let uri = if version == Version::HTTP_2 {
            Uri::builder().scheme(Scheme::HTTP).authority(self.authority.clone()).path_and_query(path).build()?
        } else {
            headers.insert(HOST, HeaderValue::try_from(self.authority.as_str())?);
            Uri::from(path)
        };
        let mut request = Request::new(Full::new(Bytes::from(self.body.draw(dice))));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        *request.version_mut() = version;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// Keeps a problem for the list, and what is well for the choice.
fn keep<T>(problems: &mut Vec<Problem>, key: &'static str, checked: Result<T, String>) -> Option<T> {
    checked.map_err(|problem| problems.push((key, problem))).ok()
}

fn method(text: &str) -> Result<Method, String> {
    let method = Method::from_bytes(text.as_bytes())
        .map_err(|_| format!("`{text}` is no method: write one word, as in `GET` or `POST`"))?;
    let upper = text.to_ascii_uppercase();
    if method == Method::CONNECT {
        return Err("`CONNECT` opens tunnels and sends no request: write another method".to_owned());
    }
    // Methods are case-sensitive, and a server would answer 405 to what looks right in the document.
    let meant = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];
    if text != upper && meant.contains(&upper.as_str()) {
        return Err(format!("methods are written in capitals: `{upper}`, not `{text}`"));
    }
    Ok(method)
}

fn path(text: &str) -> Result<Pattern, String> {
    let pattern = Pattern::new(text)?;
    if !text.starts_with('/') {
        return Err(format!("a path starts with `/`, as in `/{text}`"));
    }
    if text.len() > LONGEST_PATH {
        return Err(format!("a path has at most {LONGEST_PATH} bytes"));
    }
    if text.contains('#') {
        return Err("what follows `#` is never sent: leave it out, or write `%23`".to_owned());
    }
    if pattern.texts().any(|text| text.contains(['{', '}'])) {
        return Err(format!(
            "unknown placeholder in `{text}`: write `{{uuid}}` or a range as in `{{1..500}}`; a brace itself is `%7B` or `%7D`"
        ));
    }
    PathAndQuery::try_from(pattern.sample()).map_err(|_| {
        format!("`{text}` is no path: write what is not allowed in it with `%`, as in `%20` for a space")
    })?;
    Ok(pattern)
}

fn header(name: &str, value: &str) -> Result<(HeaderName, Pattern), String> {
    let field = HeaderName::try_from(name)
        .map_err(|_| format!("`{name}` is no header field: write letters, digits and `-`, as in `content-type`"))?;
    if OURS.contains(&field.as_str()) && !(field == TE && value == "trailers") {
        return Err(format!("`{field}` is written by the connection itself: leave it out"));
    }
    let pattern = Pattern::new(value)?;
    // `HeaderValue` takes every byte above 127; what people type is meant as text, which few servers read the same.
    if !pattern.texts().all(|text| text.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte))) {
        return Err(format!(
            "the value of `{field}` has bytes that a header cannot carry: write plain ASCII on one line"
        ));
    }
    Ok((field, pattern))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use http_body_util::BodyExt;

    use super::*;

    fn template(path: &str) -> Template {
        Template { weight: 1, method: "GET".to_owned(), path: path.to_owned(), headers: BTreeMap::new(), body: None }
    }

    fn requests(templates: &[Template], seed: u64) -> Requests {
        Requests::new(templates, &Authority::from_static("front"), Version::HTTP_11, Seed(seed)).unwrap()
    }

    fn paths(requests: &Requests, n: u64) -> Vec<String> {
        (0..n).map(|index| requests.nth(index, "").unwrap().uri().to_string()).collect()
    }

    fn problems(template: Template) -> Vec<String> {
        let found = Requests::new(&[template], &Authority::from_static("front"), Version::HTTP_11, Seed(1));
        found.unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_same_seed_sends_the_same_requests_in_the_same_order() {
        let templates = [template("/checkout/{1..500}?at={uuid}"), template("/cart/{1..500}")];
        let first = paths(&requests(&templates, 7), 100);
        assert_eq!(first, paths(&requests(&templates, 7), 100));
        assert_ne!(first, paths(&requests(&templates, 8), 100));
        // Written down, so that a change of the draws, which a stored seed relies on, is noticed.
        insta::assert_debug_snapshot!(first[..4], @r#"
    [
        "/cart/243",
        "/checkout/333?at=eb67d1df-cb31-4d01-a229-ce6d8c41ccc8",
        "/checkout/296?at=306501bd-4e3c-47d5-bad7-d189bfe62869",
        "/cart/403",
    ]
    "#);
    }

    #[test]
    fn templates_are_drawn_by_weight() {
        let templates = [
            Template { weight: 3, ..template("/often") },
            template("/seldom"),
            Template { weight: 0, ..template("/never") },
        ];
        let drawn = paths(&requests(&templates, 7), 4_000);
        let often = drawn.iter().filter(|path| *path == "/often").count();
        assert!(!drawn.contains(&"/never".to_owned()));
        // Five standard errors around three quarters of 4,000.
        assert!((2_863..=3_137).contains(&often), "{often}");
    }

    #[tokio::test]
    async fn a_request_has_its_method_host_headers_body_and_mark() {
        let written = Template {
            method: "POST".to_owned(),
            headers: [("content-type", "application/json"), ("idempotency-key", "{uuid}"), ("baggage", "user=7")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            body: Some(r#"{"id":{5..5},"of":{},"{x":1}"#.to_owned()),
            ..template("/orders")
        };
        let request = requests(&[written], 7).nth(0, "pratfall=abc.t.1").unwrap();
        assert_eq!((request.method(), request.uri().to_string()), (&Method::POST, "/orders".to_owned()));
        assert_eq!(request.headers()["host"], "front");
        assert_eq!(request.headers()["content-type"], "application/json");
        assert_eq!(request.headers()["idempotency-key"].len(), 36);
        assert_eq!(request.headers().get_all("baggage").iter().collect::<Vec<_>>(), ["pratfall=abc.t.1,user=7"]);
        assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), r#"{"id":5,"of":{},"{x":1}"#);
    }

    #[test]
    fn the_host_is_named_by_the_template_or_the_target_in_both_versions_of_http() {
        let named = Template { headers: [("Host".to_owned(), "shop.example".to_owned())].into(), ..template("/a") };
        for (template, host) in [(named, "shop.example"), (template("/a"), "front")] {
            let one = requests(std::slice::from_ref(&template), 7).nth(0, "").unwrap();
            assert_eq!((one.headers()["host"].to_str().unwrap(), one.uri().to_string()), (host, "/a".to_owned()));
            let two = Requests::new(&[template], &Authority::from_static("front"), Version::HTTP_2, Seed(7)).unwrap();
            let two = two.nth(0, "").unwrap();
            assert_eq!((two.headers().get("host"), two.uri().to_string()), (None, format!("http://{host}/a")));
        }
    }

    #[test]
    fn a_mark_that_cannot_be_sent_is_an_error_and_no_request_without_it() {
        assert!(requests(&[template("/a")], 7).nth(0, "a\nb").is_err());
    }

    #[test]
    fn what_cannot_be_sent_is_refused_with_the_way_out() {
        let header = |name: &str, value: &str| Template {
            headers: [(name.to_owned(), value.to_owned())].into(),
            ..template("/a")
        };
        let mistakes = [
            Template { method: "GE T".to_owned(), ..template("/a") },
            Template { method: "post".to_owned(), ..template("/a") },
            Template { method: "CONNECT".to_owned(), ..template("/a") },
            template("checkout"),
            template("/a b"),
            template("/a#b"),
            template("/{id}"),
            template("/{500..1}"),
            template("/{1..99999999999999999999}"),
            header("a b", "c"),
            header("x-note", "two\nlines"),
            header("x-note", "caf\u{e9}"),
            header("host", "a b"),
            header("content-length", "7"),
            Template { weight: 0, ..template("/a") },
            Template { method: String::new(), body: Some("{2..1}".to_owned()), ..template("") },
        ];
        let found: Vec<_> = mistakes.into_iter().flat_map(problems).collect();
        insta::assert_snapshot!(found.join("\n"), @"
        requests[0].method: `GE T` is no method: write one word, as in `GET` or `POST`
        requests[0].method: methods are written in capitals: `POST`, not `post`
        requests[0].method: `CONNECT` opens tunnels and sends no request: write another method
        requests[0].path: a path starts with `/`, as in `/checkout`
        requests[0].path: `/a b` is no path: write what is not allowed in it with `%`, as in `%20` for a space
        requests[0].path: what follows `#` is never sent: leave it out, or write `%23`
        requests[0].path: unknown placeholder in `/{id}`: write `{uuid}` or a range as in `{1..500}`; a brace itself is `%7B` or `%7D`
        requests[0].path: `{500..1}` has nothing in it: write the smaller number first
        requests[0].path: the numbers of `{1..99999999999999999999}` are too large: they have to fit in 64 bits
        requests[0].headers: `a b` is no header field: write letters, digits and `-`, as in `content-type`
        requests[0].headers: the value of `x-note` has bytes that a header cannot carry: write plain ASCII on one line
        requests[0].headers: the value of `x-note` has bytes that a header cannot carry: write plain ASCII on one line
        requests[0].headers: `a b` is no host, as in `shop.example:8080`
        requests[0].headers: `content-length` is written by the connection itself: leave it out
        every request has weight 0, so none can be drawn: give one of them a weight of 1 or more
        requests[0].method: `` is no method: write one word, as in `GET` or `POST`
        requests[0].path: a path starts with `/`, as in `/`
        requests[0].body: `{2..1}` has nothing in it: write the smaller number first
        ");
    }
}
