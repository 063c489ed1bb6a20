//! What a made-up answer says, where nobody wrote it: in the form that the caller asks for, and nothing to callers that
//! ask for none.

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};

/// A body that somebody wrote, and what it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Written {
    /// The body.
    pub bytes: Bytes,
    /// Its content type: what it looks like.
    pub kind: &'static str,
}

impl From<Bytes> for Written {
    fn from(bytes: Bytes) -> Self {
        Self { kind: kind_of(&bytes), bytes }
    }
}

/// The forms in which a status can be said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    Json,
    Text,
}

/// The body and content type of an answer with nothing but a status.
pub(super) fn say(status: StatusCode, asked: &HeaderMap) -> Option<Written> {
    // RFC 9110, 15.3.5, 15.3.6 and 15.4.5: these have no content.
    if matches!(status.as_u16(), 204 | 205 | 304) {
        return None;
    }
    let reason = status.canonical_reason().unwrap_or("Error");
    let (said, kind) = match form(asked)? {
        Form::Json => (format!(r#"{{"error":"{reason}","status":{}}}"#, status.as_u16()), JSON),
        Form::Text => (format!("{reason}\n"), TEXT),
    };
    Some(Written { bytes: said.into(), kind })
}

fn kind_of(body: &[u8]) -> &'static str {
    let is_json = || serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
    match body.trim_ascii_start().first() {
        // A lone word or number would parse too, and is meant as text.
        Some(b'{' | b'[') if is_json() => JSON,
        _ if std::str::from_utf8(body).is_ok() => TEXT,
        _ => "application/octet-stream",
    }
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// The form that is asked for by name with the highest weight, of equals the first (RFC 9110, 12.5.1). `*/*` is what
/// programs send that were told nothing: it asks for no form.
fn form(asked: &HeaderMap) -> Option<Form> {
    let lines = asked.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let mut best: Option<(Form, f32)> = None;
    for range in lines.flat_map(|line| line.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let form = match name.as_str() {
            "application/json" | "application/*" => Form::Json,
            "text/plain" | "text/html" | "text/*" => Form::Text,
            name if name.starts_with("application/") && name.ends_with("+json") => Form::Json,
            _ => continue,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let weight = weight.map_or(1.0, |weight| weight.trim().parse().unwrap_or(0.0));
        if weight > best.map_or(0.0, |(_, best)| best) {
            best = Some((form, weight));
        }
    }
    best.map(|(form, _)| form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_the_one_that_is_asked_for_by_name() {
        for (accept, form) in [
            ("application/json", Some(Form::Json)),
            ("application/json, text/plain, */*", Some(Form::Json)),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Some(Form::Text)),
            ("text/plain;q=0.5, application/problem+json", Some(Form::Json)),
            ("application/json;q=0.1, text/*;q=0.2", Some(Form::Text)),
            ("application/json;q=0", None),
            ("*/*", None),
            ("image/png", None),
            ("", None),
        ] {
            let mut asked = HeaderMap::new();
            asked.insert(ACCEPT, accept.parse().unwrap());
            assert_eq!(super::form(&asked), form, "{accept}");
        }
        assert_eq!(form(&HeaderMap::new()), None);
    }

    #[test]
    fn a_body_that_somebody_wrote_is_what_it_looks_like() {
        assert_eq!(kind_of(b" {\"error\": \"busy\"}\n"), JSON);
        assert_eq!(kind_of(b"[1, 2]"), JSON);
        assert_eq!(kind_of(b"{asleep"), TEXT);
        assert_eq!(kind_of(b"503"), TEXT, "a number is what somebody said");
        assert_eq!(kind_of(b"\xff\xfe"), "application/octet-stream");
    }
}
