//! Texts with placeholders, `{1..500}` and `{uuid}`, drawn from the seed.

use super::chance::{Chance, Dice, Purpose};
use crate::units::Seed;

/// A text with places that are drawn.
#[derive(Debug)]
pub(super) struct Pattern(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Text(String),
    /// Both ends are drawn too.
    Number(u64, u64),
    Uuid,
}

impl Pattern {
    /// Only `{uuid}` and `{1..500}` are placeholders, so that a JSON body keeps its braces.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            literal.push_str(&rest[..open]);
            rest = &rest[open..];
            let inner = rest[1..].split_once('}').map(|(inner, _)| inner);
            if let Some((inner, piece)) = inner.and_then(|inner| Some((inner, placeholder(inner)?))) {
                if !literal.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut literal)));
                }
                pieces.push(piece?);
                rest = &rest[inner.len() + 2..];
            } else {
                literal.push('{');
                rest = &rest[1..];
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Ok(Self(pieces))
    }

    /// The parts that stay as they are.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Text(text) => Some(text.as_str()),
            Piece::Number(..) | Piece::Uuid => None,
        })
    }

    /// Any drawn text: placeholders become digits and letters that fit everywhere, so one is as good as all.
    pub(super) fn sample(&self) -> String {
        self.draw(&mut Chance::new(Seed(0)).dice(Purpose::Request, 0))
    }

    /// The text of one request.
    pub(super) fn draw(&self, dice: &mut Dice) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(literal) => text.push_str(literal),
                Piece::Number(first, last) => {
                    let number = first + dice.below(u128::from(last - first) + 1);
                    text.push_str(&number.to_string());
                }
                Piece::Uuid => text.push_str(&uuid(dice)),
            }
        }
        text
    }
}

/// `None` where the braces are only braces.
fn placeholder(inner: &str) -> Option<Result<Piece, String>> {
    if inner == "uuid" {
        return Some(Ok(Piece::Uuid));
    }
    let (first, last) = inner.split_once("..")?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(first) || !digits(last) {
        return None;
    }
    Some(match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(Piece::Number(first, last)),
        (Ok(_), Ok(_)) => Err(format!("`{{{inner}}}` has nothing in it: write the smaller number first")),
        _ => Err(format!("the numbers of `{{{inner}}}` are too large: they have to fit in 64 bits")),
    })
}

/// RFC 9562, version 4, with bits from the seed instead of the system.
fn uuid(dice: &mut Dice) -> String {
    let (high, low) = (dice.bits(), dice.bits());
    let high = high & !0xf000 | 0x4000;
    let low = low & !(0b11 << 62) | 0b10 << 62;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn drawn(text: &str, n: u64) -> Vec<String> {
        let pattern = Pattern::new(text).unwrap();
        (0..n).map(|index| pattern.draw(&mut Chance::new(Seed(7)).dice(Purpose::Request, index))).collect()
    }

    #[test]
    fn a_range_is_drawn_evenly_with_both_its_ends() {
        let mut counts = BTreeMap::new();
        for number in drawn("{3..7}", 5_000) {
            *counts.entry(number).or_insert(0) += 1;
        }
        assert_eq!(counts.keys().collect::<Vec<_>>(), ["3", "4", "5", "6", "7"]);
        // Five standard errors around a fifth of 5,000.
        assert!(counts.values().all(|count| (860..=1140).contains(count)), "{counts:?}");
        assert_eq!(drawn("a{9..9}b", 2), ["a9b", "a9b"]);
        assert!(drawn("{0..18446744073709551615}", 9).iter().all(|number| number.len() > 15));
    }

    #[test]
    fn a_uuid_is_new_each_time_and_of_version_4() {
        let drawn = drawn("{uuid}{uuid}", 500);
        let shape =
            regex::Regex::new("^([0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}){2}$").unwrap();
        assert!(drawn.iter().all(|two| shape.is_match(two)), "{}", drawn[0]);
        assert_eq!(drawn.iter().flat_map(|two| [&two[..36], &two[36..]]).collect::<BTreeSet<_>>().len(), 1_000);
    }

    #[test]
    fn braces_that_are_no_placeholder_stay() {
        for text in ["", "{", "}", "{}", "{{}", r#"{"a":{"b":[1]}}"#, "{ uuid }", "{1..}", "{..5}", "{-1..5}", "{UUID}"]
        {
            assert_eq!(drawn(text, 1), [text]);
        }
        assert_eq!(drawn("{{2..2}}", 1), ["{2}"]);
    }

    #[test]
    fn a_range_without_numbers_in_it_is_an_error() {
        for text in ["{2..1}", "a{18446744073709551616..18446744073709551617}"] {
            assert!(Pattern::new(text).is_err(), "{text}");
        }
    }
}
