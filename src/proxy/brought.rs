//! What a request brings along by which it may be known: the keys that its arm is drawn from, and the ids that carry it.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::{COOKIE, HeaderMap};

use crate::experiment::{By, Carry};
use crate::measure::Note;

/// What a request brings along by which it may be known.
#[derive(Debug)]
pub struct Brought<'h> {
    headers: &'h HeaderMap,
    traces: Traces<'h>,
}

/// The fields of a request that tell its trace, found in one walk: to look up each would cost as much again as all else.
#[derive(Clone, Copy, Debug, Default)]
struct Traces<'h> {
    /// The trace id in it.
    traceparent: Option<&'h [u8]>,
    b3: Option<&'h [u8]>,
    b3_trace_id: Option<&'h [u8]>,
    request_id: Option<&'h [u8]>,
}

impl<'h> Traces<'h> {
    fn of(headers: &'h HeaderMap) -> Self {
        let mut brought = Self::default();
        for (name, value) in headers {
            let field = match name.as_str() {
                "traceparent" => &mut brought.traceparent,
                "b3" => &mut brought.b3,
                "x-b3-traceid" => &mut brought.b3_trace_id,
                "x-request-id" => &mut brought.request_id,
                _ => continue,
            };
            field.get_or_insert(value.as_bytes());
        }
        brought.traceparent = brought.traceparent.and_then(trace_of);
        brought
    }

    fn traceparent(&self) -> Option<Id<'h>> {
        trace_id(self.traceparent?, Note::ByTraceparent)
    }

    /// One field, or one of several: the trace id alone in `x-b3-traceid`.
    fn b3(&self) -> Option<Id<'h>> {
        let single = || trace_id(single(self.b3?)?, Note::ByB3);
        single().or_else(|| trace_id(self.b3_trace_id?, Note::ByB3))
    }
}

impl<'h> Brought<'h> {
    /// What is in these fields.
    pub fn of(headers: &'h HeaderMap) -> Self {
        Self { headers, traces: Traces::of(headers) }
    }

    /// The trace that a request belongs to: `traceparent`, `b3` (both forms), or `x-request-id`. An id that is empty or
    /// all zeros is none (W3C Trace Context, 3.2.2.3): it would be everybody's, and put them all into one arm.
    pub fn trace(&self) -> Option<&'h [u8]> {
        let Traces { traceparent, b3, b3_trace_id, request_id } = self.traces;
        let says = |id: &&[u8]| id.iter().any(|byte| *byte != b'0');
        let traceparent = traceparent.filter(says);
        traceparent
            .or_else(|| b3.and_then(single).filter(says))
            .or_else(|| b3_trace_id.filter(says))
            .or_else(|| request_id.filter(says))
    }

    /// What a request says of itself, by what is drawn; nothing where it says nothing, or stands for itself.
    pub fn key(&self, by: &By, caller: IpAddr) -> Option<Cow<'h, [u8]>> {
        let written = match by {
            By::Request => None,
            By::Trace => self.trace().map(Cow::Borrowed),
            By::ClientIp => Some(Cow::Owned(caller.to_string().into_bytes())),
            By::Header(name) => self.headers.get(name).map(|value| Cow::Borrowed(value.as_bytes())),
            By::Cookie(name) => cookie(self.headers, name).map(Cow::Borrowed),
        };
        written.filter(|key| !key.is_empty())
    }

    /// The ids that may carry the request's arm, in the order in which they are asked: all of them where the arm is
    /// carried by whatever arrives, the only one where it was written.
    pub fn ids(&self, carry: &Carry) -> [Option<Id<'h>>; MOST_IDS] {
        match carry {
            Carry::Auto => {
                let traces = &self.traces;
                let request_id = traces.request_id.and_then(|text| field(text, Note::ByRequestId));
                [traces.traceparent(), traces.b3(), request_id]
            }
            Carry::Traceparent => [self.traces.traceparent(), None, None],
            Carry::B3 => [self.traces.b3(), None, None],
            Carry::Header(name) => {
                let value = self.headers.get(name);
                [value.and_then(|text| field(text.as_bytes(), Note::ByHeader)), None, None]
            }
            Carry::Baggage | Carry::None => [None; MOST_IDS],
        }
    }
}

/// Ids of one request that carry its arm, at most.
pub const MOST_IDS: usize = 3;

/// W3C Trace Context, 3.2: version "-" trace-id "-" parent-id "-" flags, the first two of 2 and 32 digits.
fn trace_of(traceparent: &[u8]) -> Option<&[u8]> {
    let ends = traceparent.get(2) == Some(&b'-') && traceparent.get(35).is_none_or(|next| *next == b'-');
    let id: &[u8; 32] = traceparent.get(3..35)?.try_into().ok()?;
    // All of them, whatever they are: that is a few instructions, and to stop at the first one is a hundred.
    let dashes = id.iter().fold(false, |dashes, byte| dashes | (*byte == b'-'));
    (ends && !dashes).then_some(id)
}

/// The trace id of `b3` in one field: trace-id "-" span-id and more.
fn single(b3: &[u8]) -> Option<&[u8]> {
    b3.split(|byte| *byte == b'-').next().filter(|id| id.len() >= 16)
}

/// An id that a request brings along, by which its calls may be known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Id<'h> {
    /// How the arm is carried by it.
    pub by: Note,
    /// What it is an id of.
    pub space: Space,
    /// The id.
    pub text: &'h [u8],
}

/// What an id is an id of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Space {
    /// A trace: one that came as `traceparent` may go on as `b3`.
    Trace,
    /// A request.
    Request,
}

/// Without zeros before it: an id of 64 bits is filled up with them where it goes on as one of 128.
fn trace_id(id: &[u8], by: Note) -> Option<Id<'_>> {
    let zeros = id.iter().take_while(|byte| **byte == b'0').count();
    let text = &id[zeros..];
    (!text.is_empty()).then_some(Id { by, space: Space::Trace, text })
}

fn field(text: &[u8], by: Note) -> Option<Id<'_>> {
    text.iter().any(|byte| *byte != b'0').then_some(Id { by, space: Space::Request, text })
}

/// The value of a cookie.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let lines = headers.get_all(COOKIE).into_iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';')).find_map(|pair| {
        let pair = pair.trim_ascii_start();
        let rest = pair.strip_prefix(name.as_bytes())?;
        rest.strip_prefix(b"=")
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn keys_are_found_where_people_put_them() {
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", HeaderValue::from_static("r1"));
        assert_eq!(Brought::of(&headers).trace(), Some(&b"r1"[..]));
        headers.insert("b3", HeaderValue::from_static("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1"));
        assert_eq!(Brought::of(&headers).trace(), Some(&b"80f198ee56343ba864fe8b2a57d3eff7"[..]));
        let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        headers.insert("traceparent", HeaderValue::from_static(traceparent));
        assert_eq!(Brought::of(&headers).trace(), Some(&b"4bf92f3577b34da6a3ce929d0e0e4736"[..]));
        headers.insert(COOKIE, HeaderValue::from_static("a=1; session=xyz; sessions=no"));
        assert_eq!(cookie(&headers, "session"), Some(&b"xyz"[..]));
        assert_eq!(cookie(&headers, "sess"), None);
    }

    #[test]
    fn the_ids_that_carry_an_arm_are_those_that_were_asked_for_and_a_trace_is_the_same_in_every_form() {
        let (long, short) = ("00000000000000004bf92f3577b34da6", "4bf92f3577b34da6");
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("traceparent", format!("00-{long}-00f067aa0ba902b7-01")),
            ("b3", format!("{short}-00f067aa0ba902b7-1")),
            ("x-b3-traceid", "80f198ee56343ba8".to_owned()),
            ("x-request-id", "r1".to_owned()),
            ("x-order", "17".to_owned()),
        ] {
            headers.insert(name, HeaderValue::from_str(&value).unwrap());
        }
        let told = |headers: &HeaderMap, carry: &str| -> Vec<(Note, String)> {
            let text = |id: Id<'_>| format!("{:?} {}", id.space, String::from_utf8_lossy(id.text));
            Brought::of(headers)
                .ids(&carry.parse().unwrap())
                .into_iter()
                .flatten()
                .map(|id| (id.by, text(id)))
                .collect()
        };
        let (trace, id) = (format!("Trace {short}"), |text: &str| format!("Request {text}"));
        let by_traceparent = (Note::ByTraceparent, trace.clone());
        let all = [by_traceparent.clone(), (Note::ByB3, trace), (Note::ByRequestId, id("r1"))];
        assert_eq!(told(&headers, "auto"), all);
        assert_eq!(told(&headers, "traceparent"), [by_traceparent]);
        assert_eq!(told(&headers, "b3"), [all[1].clone()]);
        assert_eq!(told(&headers, "header:x-order"), [(Note::ByHeader, id("17"))]);
        assert_eq!(told(&headers, "baggage"), []);
        headers.insert("b3", HeaderValue::from_static("0"));
        assert_eq!(told(&headers, "b3"), [(Note::ByB3, "Trace 80f198ee56343ba8".to_owned())]);
        let zeros = HeaderValue::from_static("00-00000000000000000000000000000000-00f067aa0ba902b7-01");
        headers.insert("traceparent", zeros);
        assert_eq!(told(&headers, "traceparent"), [], "it would be everybody's");
    }

    #[test]
    fn an_id_that_would_be_everybodys_is_none() {
        let mut headers = HeaderMap::new();
        let zeros = "00000000000000000000000000000000";
        for (name, value) in [
            ("traceparent", &*format!("00-{zeros}-00f067aa0ba902b7-01")),
            ("b3", &*format!("{zeros}-e457b5a2e4d86bd1-1")),
            ("x-b3-traceid", ""),
            ("x-request-id", ""),
        ] {
            headers.insert(name, HeaderValue::from_str(value).unwrap());
            assert_eq!(Brought::of(&headers).trace(), None, "{name}: {value}");
        }
        headers.insert("x-b3-traceid", HeaderValue::from_static("80f198ee56343ba8"));
        assert_eq!(
            Brought::of(&headers).trace(),
            Some(&b"80f198ee56343ba8"[..]),
            "the next that says something counts"
        );
    }
}
