//! Our member of the W3C baggage, and the keys that requests bring along.
//!
//! `baggage: pratfall=<token>.<t|c>.<op>` says which arm a request is in. It goes first, because the last member is
//! the one that is lost when a service keeps only so many (decisions.md 3.1).

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::IpAddr;

use bytes::Bytes;
use http::header::{COOKIE, Entry, HeaderMap, HeaderName, HeaderValue};

use crate::experiment::{By, Carry};
use crate::measure::{Arm, Note};

/// The field of the W3C baggage.
pub const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
const NAME: &str = "pratfall";

/// W3C Baggage, 3.3.2: what every platform must be able to carry.
const MOST_MEMBERS: usize = 64;
const MOST_BYTES: usize = 8192;

/// What our member of a request's baggage says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mark {
    /// The request belongs to an operation of an arm.
    Arm {
        /// The run.
        token: u64,
        /// Which arm.
        arm: Arm,
        /// Which operation.
        op: u128,
    },
    /// The request is our own load's.
    Own {
        /// The run.
        token: u64,
        /// Which request it is.
        index: u64,
        /// When it was to leave, in microseconds since the run began.
        intended: u64,
    },
}

impl Mark {
    /// The whole member.
    pub fn member(&self) -> String {
        let mut line = Vec::with_capacity(LONGEST_MEMBER);
        self.push(&mut line);
        String::from_utf8(line).expect("digits, points and our name")
    }

    /// Adds the whole member to a line. By hand: every enrolled request pays for it, and `format!` costs eight times as much.
    fn push(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(NAME.as_bytes());
        line.push(b'=');
        match self {
            Self::Arm { token, arm, op } => {
                push_hex(line, *token);
                line.extend_from_slice(if *arm == Arm::Treatment { b".t." } else { b".c." });
                let (high, low) = ((*op >> 64) as u64, *op as u64);
                if high > 0 {
                    push_hex(line, high);
                    push_digits(line, low, 16);
                } else {
                    push_hex(line, low);
                }
            }
            Self::Own { token, index, intended } => {
                push_hex(line, *token);
                line.extend_from_slice(b".o.");
                push_hex(line, *index);
                line.push(b'.');
                push_hex(line, *intended);
            }
        }
    }

    fn parse(value: &str) -> Option<Self> {
        // Properties of a member (`;ttl=1`) are somebody else's additions.
        let mut parts = value.split(';').next()?.trim().split('.');
        let number = |parts: &mut std::str::Split<'_, char>| u64::from_str_radix(parts.next()?, 16).ok();
        let token = number(&mut parts)?;
        let arm = match parts.next()? {
            "t" => Arm::Treatment,
            "c" => Arm::Control,
            "o" => {
                let (index, intended) = (number(&mut parts)?, number(&mut parts)?);
                return parts.next().is_none().then_some(Self::Own { token, index, intended });
            }
            _ => return None,
        };
        let op = u128::from_str_radix(parts.next()?, 16).ok()?;
        parts.next().is_none().then_some(Self::Arm { token, arm, op })
    }
}

/// `pratfall=`, a token, an arm and an operation.
const LONGEST_MEMBER: usize = 9 + 16 + 3 + 32;

fn push_hex(line: &mut Vec<u8>, number: u64) {
    push_digits(line, number, (64 - number.leading_zeros()).div_ceil(4).max(1));
}

fn push_digits(line: &mut Vec<u8>, number: u64, digits: u32) {
    let mut text = [0; 16];
    text[..8].copy_from_slice(&eight_digits((number >> 32) as u32));
    text[8..].copy_from_slice(&eight_digits(number as u32));
    line.extend_from_slice(&text[16 - digits as usize..]);
}

/// All digits at once, each in a byte of its own.
fn eight_digits(number: u32) -> [u8; 8] {
    let spread = u64::from(number);
    let spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    let spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    let spread = (spread | spread << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // Above nine 6 more overflow into the upper half of the byte.
    let letters = ((spread + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    let after_nine = u64::from(b'a' - b'9' - 1);
    (spread + 0x3030_3030_3030_3030 + letters * after_nine).to_be_bytes()
}

/// Reads our member. Of several the first counts: it is the one that we put there.
pub fn read(headers: &HeaderMap) -> Option<Mark> {
    members(headers).find_map(|(name, value)| (name == NAME).then(|| Mark::parse(value))?)
}

/// The value of somebody else's member.
pub fn member<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    members(headers).find_map(|(other, value)| (other == name).then_some(value))
}

fn members(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let lines = headers.get_all(BAGGAGE).into_iter().map(HeaderValue::as_bytes);
    // Each for itself: one with other bytes than text must not hide those beside it.
    lines.flat_map(|line| line.split(|byte| *byte == b',')).filter_map(|member| {
        let (name, value) = str::from_utf8(member).ok()?.split_once('=')?;
        Some((name.trim_ascii(), value.trim_ascii()))
    })
}

/// Removes every member of our name; the rest stays as it is, byte for byte where there is nothing to remove.
pub fn strip(headers: &mut HeaderMap) {
    if !headers.contains_key(BAGGAGE) || !headers.get_all(BAGGAGE).iter().any(|line| has_ours(line.as_bytes())) {
        return;
    }
    let kept: Vec<HeaderValue> = headers.get_all(BAGGAGE).iter().filter_map(without_ours).collect();
    headers.remove(BAGGAGE);
    for line in kept {
        headers.append(BAGGAGE, line);
    }
}

fn has_ours(line: &[u8]) -> bool {
    line.split(|byte| *byte == b',').any(is_ours)
}

fn is_ours(member: &[u8]) -> bool {
    let name = member.split(|byte| *byte == b'=').next().unwrap_or_default();
    name.trim_ascii() == NAME.as_bytes()
}

fn without_ours(line: &HeaderValue) -> Option<HeaderValue> {
    if !has_ours(line.as_bytes()) {
        return Some(line.clone());
    }
    let kept: Vec<&[u8]> = line.as_bytes().split(|byte| *byte == b',').filter(|member| !is_ours(member)).collect();
    let joined = kept.join(&b',');
    if joined.trim_ascii().is_empty() { None } else { HeaderValue::from_bytes(joined.trim_ascii()).ok() }
}

/// Puts our member first, into one line with all others. `false`, and nothing is changed, where there is no room.
pub fn write(headers: &mut HeaderMap, mark: &Mark) -> bool {
    if let Entry::Vacant(alone) = headers.entry(BAGGAGE) {
        let mut line = Vec::with_capacity(LONGEST_MEMBER);
        mark.push(&mut line);
        return HeaderValue::from_maybe_shared(Bytes::from(line)).is_ok_and(|line| {
            alone.insert(line);
            true
        });
    }
    strip(headers);
    let all = headers.get_all(BAGGAGE);
    let others: usize = all.iter().map(|others| others.len() + 1).sum();
    let mut line = Vec::with_capacity(LONGEST_MEMBER + others);
    mark.push(&mut line);
    let mut count = 1;
    for others in all {
        line.push(b',');
        line.extend_from_slice(others.as_bytes());
        count += others.as_bytes().split(|byte| *byte == b',').count();
    }
    if count > MOST_MEMBERS || line.len() > MOST_BYTES {
        return false;
    }
    match HeaderValue::from_maybe_shared(Bytes::from(line)) {
        Ok(line) => {
            headers.insert(BAGGAGE, line);
            true
        }
        Err(_) => false,
    }
}

/// What a request brings along by which it may be known.
#[derive(Debug)]
pub struct Brought<'h> {
    headers: &'h HeaderMap,
    traces: OnceCell<Traces<'h>>,
}

/// The fields of a request that tell its trace, found in one walk: to look up each would cost as much again as all else.
#[derive(Debug, Default)]
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
        Self { headers, traces: OnceCell::new() }
    }

    fn traces(&self) -> &Traces<'h> {
        self.traces.get_or_init(|| Traces::of(self.headers))
    }

    /// The trace that a request belongs to: `traceparent`, `b3` (both forms), or `x-request-id`. An id that is empty or
    /// all zeros is none (W3C Trace Context, 3.2.2.3): it would be everybody's, and put them all into one arm.
    pub fn trace(&self) -> Option<&'h [u8]> {
        let Traces { traceparent, b3, b3_trace_id, request_id } = *self.traces();
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
                let traces = self.traces();
                let request_id = traces.request_id.and_then(|text| field(text, Note::ByRequestId));
                [traces.traceparent(), traces.b3(), request_id]
            }
            Carry::Traceparent => [self.traces().traceparent(), None, None],
            Carry::B3 => [self.traces().b3(), None, None],
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
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(BAGGAGE, HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    fn lines(headers: &HeaderMap) -> Vec<&str> {
        headers.get_all(BAGGAGE).iter().map(|line| line.to_str().unwrap()).collect()
    }

    const MARK: Mark = Mark::Arm { token: 0xab, arm: Arm::Treatment, op: 0x17 };

    #[test]
    fn our_member_goes_first_and_says_the_same_on_the_other_side() {
        let mut headers = headers(&["tenant=acme;p=1", "beta=1"]);
        assert!(write(&mut headers, &MARK));
        assert_eq!(lines(&headers), ["pratfall=ab.t.17,tenant=acme;p=1,beta=1"]);
        assert_eq!(read(&headers), Some(MARK));
        let own = Mark::Own { token: 1, index: 2, intended: 3 };
        assert!(write(&mut headers, &own));
        assert_eq!(read(&headers), Some(own), "the old member is gone");
    }

    #[test]
    fn members_with_other_bytes_than_text_do_not_hide_ours_beside_them() {
        let mut headers = HeaderMap::new();
        headers.append(BAGGAGE, HeaderValue::from_bytes(b"name=Zo\xeb,tenant=acme").unwrap());
        assert!(write(&mut headers, &MARK));
        assert_eq!(headers[BAGGAGE].as_bytes(), b"pratfall=ab.t.17,name=Zo\xeb,tenant=acme");
        assert_eq!((read(&headers), member(&headers, "tenant")), (Some(MARK), Some("acme")));
    }

    #[test]
    fn digits_are_those_of_everybody() {
        for number in [0, 9, 10, 0xf, 0x9a, 0x0123_4567_89ab_cdef, u64::MAX, 0xfedc_ba98_7654_3210, 1 << 63] {
            let (mut short, mut long) = (Vec::new(), Vec::new());
            push_hex(&mut short, number);
            push_digits(&mut long, number, 16);
            assert_eq!((short, long), (format!("{number:x}").into_bytes(), format!("{number:016x}").into_bytes()));
        }
    }

    #[test]
    fn stripping_leaves_everybody_elses_members_as_they_are() {
        for (before, after) in [
            (vec!["a=1 , b=2"], vec!["a=1 , b=2"]),
            (vec!["pratfall=1.t.2"], vec![]),
            (vec!["a=1,pratfall=1.t.2,b=2", "c=3"], vec!["a=1,b=2", "c=3"]),
            (vec![" pratfall = 1.t.2 ,a=1"], vec!["a=1"]),
            (vec!["pratfalls=1,xpratfall=2"], vec!["pratfalls=1,xpratfall=2"]),
        ] {
            let mut headers = headers(&before);
            strip(&mut headers);
            assert_eq!(lines(&headers), after, "{before:?}");
        }
    }

    #[test]
    fn what_is_not_exactly_our_member_is_not_believed() {
        for value in ["", "x.t.1", "1.x.2", "1.t", "1.t.2.3", "1.o.2", "1.t.g", "1.t.111111111111111111111111111111111"]
        {
            assert_eq!(read(&headers(&[&format!("pratfall={value}")])), None, "{value}");
        }
        assert_eq!(read(&headers(&["pratfall=ab.t.17;ttl=1"])), Some(MARK));
    }

    #[test]
    fn without_room_the_request_stays_as_it_was() {
        let many = (0..64).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        let long = format!("k={}", "v".repeat(8180));
        for full in [many, long] {
            let mut headers = headers(&[&full]);
            assert!(!write(&mut headers, &MARK));
            assert_eq!(lines(&headers), [full.as_str()]);
        }
    }

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
