//! Our member of the W3C baggage.
//!
//! `baggage: pratfall=<token>.<t|c>.<op>` says which arm a request is in. It goes first, because the last member is
//! the one that is lost when a service keeps only so many (decisions.md 3.1).

use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::measure::Arm;

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
        String::from_utf8_lossy(&self.written()).into_owned()
    }

    fn written(&self) -> Vec<u8> {
        match self {
            Self::Arm { token, arm, op } => {
                let mut line = first(*token, letter(*arm));
                push_hex(&mut line, *op);
                line
            }
            Self::Own { token, index, intended } => {
                let mut line = first(*token, b'o');
                push_hex(&mut line, (*index).into());
                line.push(b'.');
                push_hex(&mut line, (*intended).into());
                line
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

/// The members that a run writes: all of them begin alike.
#[derive(Debug)]
pub(super) struct Members {
    treatment: Arc<[u8]>,
    control: Arc<[u8]>,
}

impl Members {
    pub(super) fn of(token: u64) -> Self {
        let first = |arm| first(token, letter(arm)).into();
        Self { treatment: first(Arm::Treatment), control: first(Arm::Control) }
    }

    pub(super) fn member(&self, arm: Arm, op: u128) -> Member {
        let first = if arm == Arm::Treatment { &self.treatment } else { &self.control };
        Member { first: first.clone(), op }
    }
}

fn letter(arm: Arm) -> u8 {
    if arm == Arm::Treatment { b't' } else { b'c' }
}

/// A member that is still to be written.
///
/// Where a request has no other baggage it need not go among the fields: one more of them costs as much as all else that
/// is done for a request in a control arm.
#[derive(Debug)]
pub(super) struct Member {
    /// Up to the operation.
    first: Arc<[u8]>,
    op: u128,
}

impl Member {
    /// Adds it to a head, as a line of its own.
    pub(super) fn push_line(&self, head: &mut Vec<u8>) {
        head.extend_from_slice(b"baggage: ");
        self.push(head);
        head.extend_from_slice(b"\r\n");
    }

    fn push(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(&self.first);
        push_hex(line, self.op);
    }

    /// Puts it first into the baggage, into one line with all other members. `false`, and nothing is changed, where there is
    /// no room.
    pub(super) fn put(&self, headers: &mut HeaderMap) -> bool {
        let mut line = Vec::new();
        self.push(&mut line);
        put(headers, line)
    }

    /// Puts it among the fields after all, where there is one.
    pub(super) fn join(member: Option<&Self>, headers: &mut HeaderMap) {
        if let Some(member) = member {
            // Alone it has room.
            member.put(headers);
        }
    }
}

/// `pratfall=`, the token and whose it is.
fn first(token: u64, whose: u8) -> Vec<u8> {
    let mut line = format!("{NAME}=").into_bytes();
    push_hex(&mut line, token.into());
    line.extend_from_slice(&[b'.', whose, b'.']);
    line
}

/// By hand: every enrolled request pays for it, and `format!` costs eight times as much.
fn push_hex(line: &mut Vec<u8>, number: u128) {
    let mut text = [0; 32];
    for (two, byte) in text.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        two.copy_from_slice(&PAIRS[usize::from(byte)]);
    }
    let zeros = (number.leading_zeros() / 4).min(31);
    line.extend_from_slice(&text[zeros as usize..]);
}

/// The two digits of each byte.
const PAIRS: [[u8; 2]; 256] = {
    let (digits, mut pairs, mut byte) = (b"0123456789abcdef", [[0; 2]; 256], 0);
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

/// Whether there is any baggage. In one walk: of the few fields of most requests, to look at each costs less than to look
/// one up.
pub(super) fn is_there(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| *name == BAGGAGE)
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
    put(headers, mark.written())
}

fn put(headers: &mut HeaderMap, mut line: Vec<u8>) -> bool {
    strip(headers);
    let mut count = 1;
    for others in headers.get_all(BAGGAGE) {
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
        for number in
            [0, 9, 10, 0xf, 0x9a, 1 << 63, u128::from(u64::MAX) + 1, u128::MAX, 0xfedc_ba98_7654_3210_0123_4567]
        {
            let mut line = Vec::new();
            push_hex(&mut line, number);
            assert_eq!(line, format!("{number:x}").into_bytes());
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
}
