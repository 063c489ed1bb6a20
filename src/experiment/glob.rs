//! Patterns of paths and of values, compared byte for byte: case counts, and nothing is decoded.
//!
//! In a path `*` stands for anything within a segment and `**` for any number of whole segments, none included, so that
//! `/x/**` also means `/x`. In a value `*` stands for anything. There are no other special characters.

use std::fmt;
use std::str::Split;

/// A pattern of a path, as it is on the wire and without its query.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PathGlob {
    text: Box<str>,
    shape: Shape,
}

/// Most patterns are a plain path or everything below one, which need no search.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Shape {
    Exact,
    /// Everything at and below the first so many bytes.
    Below(usize),
    Segments(Box<[Segment]>),
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Segment {
    One(Glob),
    Any,
}

/// Why a text is no pattern of a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PathGlobError {
    /// Every path begins with a slash.
    #[error("a path begins with `/`")]
    NoSlash,
    /// The query is not part of the path.
    #[error("the query is no part of the path")]
    Query,
    /// `a**` and the like.
    #[error("`**` stands for whole segments, as in `/a/**` or `/a/**/b`")]
    HalfSegment,
    /// A character that no path on the wire contains.
    #[error("`{0}` is never in a path on the wire, where it is percent-encoded")]
    NotOnTheWire(char),
}

impl PathGlob {
    /// Reads a pattern.
    pub fn new(text: &str) -> Result<Self, PathGlobError> {
        if !text.starts_with('/') && text != "**" {
            return Err(PathGlobError::NoSlash);
        }
        if text.contains(['?', '#']) {
            return Err(PathGlobError::Query);
        }
        if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(PathGlobError::NotOnTheWire(odd));
        }
        if text.split('/').any(|segment| segment.contains("**") && segment != "**") {
            return Err(PathGlobError::HalfSegment);
        }
        let shape = match text.strip_suffix("/**") {
            _ if !text.contains('*') => Shape::Exact,
            Some(above) if !above.contains('*') => Shape::Below(above.len()),
            _ => Shape::Segments(text.split('/').map(Segment::new).collect()),
        };
        Ok(Self { text: text.into(), shape })
    }

    /// Whether this path, without its query, fits the pattern.
    pub fn matches(&self, path: &str) -> bool {
        match &self.shape {
            Shape::Exact => path == &*self.text,
            Shape::Below(length) => {
                let (path, above) = (path.as_bytes(), &self.text.as_bytes()[..*length]);
                path.starts_with(above) && path.get(*length).is_none_or(|next| *next == b'/')
            }
            Shape::Segments(segments) => fit(segments, path.split('/')),
        }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for PathGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Segment {
    fn new(text: &str) -> Self {
        if text == "**" { Self::Any } else { Self::One(Glob::new(text)) }
    }
}

/// Only the last `**` that was met is ever tried again: whatever an earlier one could take, it can take as well.
fn fit(segments: &[Segment], mut path: Split<'_, char>) -> bool {
    let mut wanted = 0;
    let mut again: Option<(usize, Split<'_, char>)> = None;
    loop {
        let mut ahead = path.clone();
        match segments.get(wanted) {
            Some(Segment::Any) => {
                wanted += 1;
                again = Some((wanted, path.clone()));
                continue;
            }
            Some(Segment::One(glob)) => {
                if ahead.next().is_some_and(|piece| glob.matches(piece.as_bytes())) {
                    wanted += 1;
                    path = ahead;
                    continue;
                }
            }
            None => {
                if ahead.next().is_none() {
                    return true;
                }
            }
        }
        let Some((after, from)) = &mut again else { return false };
        if from.next().is_none() {
            return false;
        }
        wanted = *after;
        path = from.clone();
    }
}

/// A pattern of a value: `*` stands for anything, also for nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Glob {
    text: Box<str>,
    stars: bool,
}

impl Glob {
    /// Reads a pattern; every text is one.
    pub fn new(text: &str) -> Self {
        Self { text: text.into(), stars: text.contains('*') }
    }

    /// Whether this value fits the pattern.
    pub fn matches(&self, value: &[u8]) -> bool {
        if self.stars { fits(self.text.as_bytes(), value, |a, b| a == b) } else { self.text.as_bytes() == value }
    }

    /// Whether this value fits the pattern, small and capital letters being the same.
    pub fn matches_in_any_case(&self, value: &[u8]) -> bool {
        fits(self.text.as_bytes(), value, |a, b| a.eq_ignore_ascii_case(&b))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn fits(pattern: &[u8], value: &[u8], same: impl Fn(u8, u8) -> bool) -> bool {
    let (mut wanted, mut at) = (0, 0);
    let mut again = None;
    while at < value.len() || wanted < pattern.len() {
        match pattern.get(wanted) {
            Some(b'*') => {
                wanted += 1;
                again = Some((wanted, at));
            }
            Some(byte) if at < value.len() && same(*byte, value[at]) => {
                wanted += 1;
                at += 1;
            }
            _ => match &mut again {
                Some((after, from)) if *from < value.len() => {
                    *from += 1;
                    (wanted, at) = (*after, *from);
                }
                _ => return false,
            },
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stays_within_its_segment_and_two_stars_cross_them() {
        for (pattern, yes, no) in [
            ("/", &["/"][..], &["", "//", "/a"][..]),
            ("/a", &["/a"], &["/a/", "/A", "/ab", "/"]),
            ("/a/*", &["/a/b", "/a/", "/a/%2F"], &["/a", "/a/b/c"]),
            ("/a/**", &["/a", "/a/", "/a/b", "/a/b/c", "/a//"], &["/ab", "/A", "/", "/b/a"]),
            ("/**", &["/", "/a", "//", "/a/b"], &["*"]),
            ("**", &["/", "/a/b"], &[]),
            ("/**/b", &["/b", "/a/b", "/a/a/b", "/b/b"], &["/a", "/b/"]),
            ("/a/**/b", &["/a/b", "/a/x/b", "/a/b/b", "/a/x/y/b"], &["/a", "/a/b/c"]),
            ("/a/*.json", &["/a/x.json", "/a/.json"], &["/a/x.jso", "/a/b/x.json"]),
            ("/*/b/**/c*", &["/a/b/c", "/a/b/x/y/cd"], &["/b/c", "/a/b/x/d"]),
        ] {
            let glob = PathGlob::new(pattern).expect(pattern);
            yes.iter().for_each(|path| assert!(glob.matches(path), "{pattern} should match {path}"));
            no.iter().for_each(|path| assert!(!glob.matches(path), "{pattern} should not match {path}"));
        }
    }

    #[test]
    fn what_can_never_match_is_no_pattern() {
        for (text, error) in [
            ("", PathGlobError::NoSlash),
            ("a/**", PathGlobError::NoSlash),
            ("/a?b=1", PathGlobError::Query),
            ("/a/b**", PathGlobError::HalfSegment),
            ("/a/***", PathGlobError::HalfSegment),
            ("/a b", PathGlobError::NotOnTheWire(' ')),
            ("/ä", PathGlobError::NotOnTheWire('ä')),
        ] {
            assert_eq!(PathGlob::new(text), Err(error), "{text}");
        }
    }

    #[test]
    fn many_stars_do_not_take_long() {
        let glob = PathGlob::new(&format!("/{}", "**/*a*a*a*b/".repeat(40))).expect("a pattern");
        assert!(!glob.matches(&"/aaaaaaaaaaaaaaaa".repeat(1000)));
    }

    /// The definition, as short as it can be said.
    fn naive(pattern: &[&str], path: &[&str]) -> bool {
        match (pattern, path) {
            ([], []) => true,
            (["**", rest @ ..], _) => (0..=path.len()).any(|taken| naive(rest, &path[taken..])),
            ([one, rest @ ..], [piece, pieces @ ..]) => {
                naive_value(one.as_bytes(), piece.as_bytes()) && naive(rest, pieces)
            }
            _ => false,
        }
    }

    fn naive_value(pattern: &[u8], value: &[u8]) -> bool {
        match (pattern, value) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=value.len()).any(|taken| naive_value(rest, &value[taken..])),
            ([a, rest @ ..], [b, values @ ..]) => a == b && naive_value(rest, values),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn patterns_of_paths_agree_with_their_definition(
            // Few pieces, so that patterns meet paths that fit, or nearly do.
            pattern in "(/(a|ab|a\\*|\\*b|\\*)){0,2}(/(a|b|\\*\\*)){0,2}(/(a|\\*|\\*\\*))",
            path in "(/(a|b|ab|)){1,5}",
        ) {
            let glob = PathGlob::new(&pattern).expect("a pattern");
            let expected = naive(&pattern.split('/').collect::<Vec<_>>(), &path.split('/').collect::<Vec<_>>());
            prop_assert_eq!(glob.matches(&path), expected, "{} {}", pattern, path);
        }

        #[test]
        fn patterns_of_values_agree_with_their_definition(pattern in "[ab*]{0,8}", value in "[ab]{0,8}") {
            let expected = naive_value(pattern.as_bytes(), value.as_bytes());
            prop_assert_eq!(Glob::new(&pattern).matches(value.as_bytes()), expected);
            prop_assert_eq!(Glob::new(&pattern).matches_in_any_case(value.to_uppercase().as_bytes()), expected);
        }
    }
}
