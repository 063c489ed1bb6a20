//! What a serving proxy may do at most, whatever an experiment asks for.
//!
//! ```yaml
//! limits:
//!   faults: [latency, error]
//!   max_slice: 25%
//!   hours: Mon-Thu 09:00-16:00 Europe/Berlin
//!   protect: [{ at: front, path: /healthz }]
//! ```

use std::fmt;
use std::str::FromStr;

use http::Method;
use jiff::Timestamp;
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::Deserialize;

use super::check::{help, meant};
use super::check_slice::{method, path_glob};
use super::glob::PathGlob;
use super::slice::WordError;
use super::written::{OneOrMany, TextOr};
use crate::document::Problems;
use crate::fault::Fault;
use crate::units::{Percent, Span};

/// Limits as they were written.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsDraft {
    /// The faults that `serve` may inject, or `none`; `none` where nothing is written.
    #[schemars(extend("x-expected" = "a list of faults or `none`"))]
    pub faults: Option<TextOr<Vec<String>>>,
    /// The largest treatment; no limit where nothing is written.
    pub max_slice: Option<Percent>,
    /// Runs at one time; 1 where nothing is written.
    #[schemars(range(min = 1))]
    pub max_running: Option<u32>,
    /// The longest run, from baseline to recovery; `1h` where nothing is written.
    pub max_duration: Option<Span>,
    /// Requests held in an injected delay at one time; 1000 where nothing is written.
    #[schemars(range(min = 1))]
    pub max_held: Option<u32>,
    /// Methods that a `duplicate` may send twice, beside the safe ones; none where nothing is written.
    #[schemars(example = &"PUT")]
    pub duplicate_methods: OneOrMany<String>,
    /// When runs may inject: days, hours and their time zone; always where nothing is written.
    #[schemars(example = &"Mon-Thu 09:00-16:00 Europe/Berlin")]
    pub hours: OneOrMany<String>,
    /// Routes that are never touched.
    pub protect: Vec<ProtectDraft>,
}

/// A route that is never touched.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProtectDraft {
    /// The listener.
    pub at: String,
    /// A pattern of the path; decoded paths are compared as well.
    #[schemars(example = &"/healthz")]
    pub path: String,
}

/// Limits as they were meant.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// The kinds of faults that `serve` may inject; none means that it is not armed.
    pub faults: Vec<String>,
    /// The largest treatment, where there is a limit.
    pub max_slice: Option<Percent>,
    /// Runs at one time.
    pub max_running: u32,
    /// The longest run.
    pub max_duration: Span,
    /// Requests held in an injected delay at one time.
    pub max_held: u32,
    /// Methods that a `duplicate` may send twice, beside the safe ones.
    pub duplicate_methods: Vec<Method>,
    /// When runs may inject; always where there are none.
    pub hours: Vec<Hours>,
    /// Routes that are never touched.
    pub protect: Vec<Protected>,
}

/// A route that is never touched.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Protected {
    /// The listener.
    pub at: String,
    /// A pattern of the path.
    pub path: PathGlob,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            faults: Vec::new(),
            max_slice: None,
            max_running: 1,
            max_duration: Span::secs(3600),
            max_held: 1000,
            duplicate_methods: Vec::new(),
            hours: Vec::new(),
            protect: Vec::new(),
        }
    }
}

impl Limits {
    /// Reads limits; what cannot be read is reported and left at its safe side.
    pub fn check(draft: LimitsDraft, pointer: &str, listeners: &[&str], problems: &mut Problems) -> Self {
        let usual = Self::default();
        if draft.max_slice.is_some_and(|share| share.ratio() == 0.0) {
            problems.error(
                &format!("{pointer}/max_slice"),
                "no run has a treatment of `0%`",
                help("to allow no faults at all write `faults: none`"),
            );
        }
        if draft.max_duration == Some(Span::default()) {
            problems.error(
                &format!("{pointer}/max_duration"),
                "no run is over within `0s`",
                help("to allow no faults at all write `faults: none`"),
            );
        }
        Self {
            faults: faults(draft.faults, &format!("{pointer}/faults"), problems),
            max_slice: draft.max_slice,
            max_running: draft.max_running.unwrap_or(usual.max_running),
            max_duration: draft.max_duration.unwrap_or(usual.max_duration),
            max_held: draft.max_held.unwrap_or(usual.max_held),
            duplicate_methods: methods(&draft.duplicate_methods, &format!("{pointer}/duplicate_methods"), problems),
            hours: hours(&draft.hours, &format!("{pointer}/hours"), problems),
            protect: protect(&draft.protect, &format!("{pointer}/protect"), listeners, problems),
        }
    }

    /// Whether anything may be injected at all.
    pub fn armed(&self) -> bool {
        !self.faults.is_empty()
    }

    /// How many requests may be held at one time.
    pub fn max_held(&self) -> u64 {
        self.max_held.into()
    }

    /// Whether a fault may be injected.
    pub fn allows_fault(&self, fault: &Fault) -> bool {
        self.faults.iter().any(|kind| kind == fault.kind())
    }

    /// The same limits with every fault allowed: `run` with its own listeners may inject what its document says.
    pub fn with_every_fault(self) -> Self {
        Self { faults: Fault::KINDS.map(str::to_owned).to_vec(), ..self }
    }

    /// Whether a path, as it is on the wire, is never touched at a listener. The decoded path is looked at as well, so
    /// that `/%68ealthz` is as safe as `/healthz`.
    pub fn protects(&self, listener: &str, path: &str) -> bool {
        let mut here = self.protect.iter().filter(|route| route.at == listener).peekable();
        if here.peek().is_none() {
            return false;
        }
        let decoded = path.contains('%').then(|| super::matcher::decoded(path, false));
        let decoded = decoded.as_deref().map(String::from_utf8_lossy);
        here.any(|route| {
            route.path.matches(path) || decoded.as_deref().is_some_and(|decoded| route.path.matches(decoded))
        })
    }

    /// Whether runs may inject at this time.
    pub fn allows_now(&self, now: Timestamp) -> bool {
        self.hours.is_empty() || self.hours.iter().any(|hours| hours.contain(now))
    }
}

fn faults(written: Option<TextOr<Vec<String>>>, pointer: &str, problems: &mut Problems) -> Vec<String> {
    let kinds = match written {
        None => return Vec::new(),
        Some(TextOr::Text(word)) if word == "none" => return Vec::new(),
        Some(TextOr::Text(word)) => {
            problems.error(
                pointer,
                format!("`{word}` is no list of faults"),
                help("write those that may be injected, as in `[latency, error]`, or `none`"),
            );
            return Vec::new();
        }
        Some(TextOr::More(kinds)) => kinds,
    };
    for (index, kind) in kinds.iter().enumerate().filter(|(_, kind)| !Fault::KINDS.contains(&kind.as_str())) {
        problems.error(
            &format!("{pointer}/{index}"),
            format!("there is no fault `{kind}`"),
            meant(kind, &Fault::KINDS),
        );
    }
    kinds
}

fn methods(written: &OneOrMany<String>, pointer: &str, problems: &mut Problems) -> Vec<Method> {
    let mut all = Vec::new();
    for (place, text) in written.places(pointer) {
        match method(text) {
            Ok(method) => all.push(method),
            Err((message, way)) => problems.error(&place, message, way),
        }
    }
    all
}

fn hours(written: &OneOrMany<String>, pointer: &str, problems: &mut Problems) -> Vec<Hours> {
    if written.is_empty_list() {
        problems.error(pointer, "an empty list leaves no hour", help("remove it to allow runs at any time"));
    }
    let mut all = Vec::new();
    for (place, text) in written.places(pointer) {
        match text.parse::<Hours>() {
            Ok(hours) => all.push(hours),
            Err(error) => problems.error(
                &place,
                error.0,
                help("write days, hours and their time zone, as in `Mon-Thu 09:00-16:00 Europe/Berlin`"),
            ),
        }
    }
    all
}

fn protect(written: &[ProtectDraft], pointer: &str, listeners: &[&str], problems: &mut Problems) -> Vec<Protected> {
    let mut all = Vec::new();
    for (index, route) in written.iter().enumerate() {
        let pointer = format!("{pointer}/{index}");
        if !listeners.contains(&route.at.as_str()) {
            problems.error(
                &format!("{pointer}/at"),
                format!("there is no listener `{}`", route.at),
                meant(&route.at, listeners),
            );
        }
        match path_glob(&route.path) {
            Ok(path) => all.push(Protected { at: route.at.clone(), path }),
            Err((message, way)) => problems.error(&format!("{pointer}/path"), message, way),
        }
    }
    all
}

/// Hours of some days in a time zone: `Mon-Thu 09:00-16:00 Europe/Berlin`.
#[derive(Clone, Debug, PartialEq)]
pub struct Hours {
    text: String,
    /// Monday first.
    days: [bool; 7],
    from: Time,
    /// Excluded; `None` is midnight.
    to: Option<Time>,
    zone: TimeZone,
}

impl Hours {
    fn contain(&self, now: Timestamp) -> bool {
        let here = now.to_zoned(self.zone.clone());
        let time = here.time();
        self.days[here.weekday().to_monday_zero_offset() as usize]
            && time >= self.from
            && self.to.is_none_or(|to| time < to)
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Hours {
    type Err = WordError;
    fn from_str(text: &str) -> Result<Self, WordError> {
        let parts: Vec<&str> = text.split_whitespace().collect();
        let [days, hours, zone] = parts.as_slice() else {
            return Err(WordError(format!("`{text}` is not days, hours and a time zone")));
        };
        let (from, to) = hours
            .split_once('-')
            .and_then(|(from, to)| Some((time(from)?, if to == "24:00" { None } else { Some(time(to)?) })))
            .ok_or_else(|| WordError(format!("`{hours}` are not hours, as in `09:00-16:00`")))?;
        if to.is_some_and(|to| to <= from) {
            return Err(WordError(format!("`{hours}` ends before it begins; hours across midnight are two entries")));
        }
        let zone = TimeZone::get(zone).map_err(|_| WordError(format!("there is no time zone `{zone}`")))?;
        Ok(Self { text: text.to_owned(), days: week(days)?, from, to, zone })
    }
}

fn time(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(hour) && digits(minute)).then(|| Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()).flatten()
}

fn week(text: &str) -> Result<[bool; 7], WordError> {
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        let mut each = first;
        loop {
            days[each.to_monday_zero_offset() as usize] = true;
            if each == last {
                break;
            }
            each = each.next();
        }
    }
    Ok(days)
}

fn day(text: &str) -> Result<Weekday, WordError> {
    const DAYS: [(&str, Weekday); 7] = [
        ("Mon", Weekday::Monday),
        ("Tue", Weekday::Tuesday),
        ("Wed", Weekday::Wednesday),
        ("Thu", Weekday::Thursday),
        ("Fri", Weekday::Friday),
        ("Sat", Weekday::Saturday),
        ("Sun", Weekday::Sunday),
    ];
    let known = DAYS.iter().find(|(name, _)| *name == text).map(|(_, day)| *day);
    known.ok_or_else(|| WordError(format!("`{text}` is no day; they are Mon, Tue, Wed, Thu, Fri, Sat and Sun")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_allowed_in_their_hours_in_their_time_zone_and_at_no_other_time() {
        let hours = |text: &str| Limits { hours: vec![text.parse().expect(text)], ..Limits::default() };
        for (text, time, allowed) in [
            // 2026-11-19 is a Thursday; Berlin is an hour ahead of UTC in winter and two in summer.
            ("Mon-Thu 09:00-16:00 Europe/Berlin", "2026-11-19T08:00:00Z", true),
            ("Mon-Thu 09:00-16:00 Europe/Berlin", "2026-11-19T07:59:59Z", false),
            ("Mon-Thu 09:00-16:00 Europe/Berlin", "2026-11-19T14:59:59Z", true),
            ("Mon-Thu 09:00-16:00 Europe/Berlin", "2026-11-19T15:00:00Z", false),
            ("Mon-Thu 09:00-16:00 Europe/Berlin", "2026-07-16T07:00:00Z", true),
            ("Mon-Thu 09:00-16:00 Europe/Berlin", "2026-11-20T09:00:00Z", false),
            ("Sat-Mon 00:00-24:00 UTC", "2026-11-22T23:59:59Z", true),
            ("Sat-Mon 00:00-24:00 UTC", "2026-11-24T00:00:00Z", false),
            ("Wed,Fri 10:00-11:00 UTC", "2026-11-20T10:30:00Z", true),
            ("Wed,Fri 10:00-11:00 UTC", "2026-11-19T10:30:00Z", false),
        ] {
            let time: Timestamp = time.parse().expect(time);
            assert_eq!(hours(text).allows_now(time), allowed, "{text} at {time}");
        }
        assert!(Limits::default().allows_now(Timestamp::UNIX_EPOCH));
    }

    #[test]
    fn hours_that_nobody_can_keep_are_refused() {
        for text in [
            "",
            "Mon-Thu",
            "09:00-16:00 UTC",
            "Mon-Thu 09:00-16:00",
            "Monday 09:00-16:00 UTC",
            "Mon 9:00-16:00 UTC",
            "Mon 16:00-09:00 UTC",
            "Mon 09:00-25:00 UTC",
            "Mon 09:00-16:00 Europe/Atlantis",
        ] {
            assert!(text.parse::<Hours>().is_err(), "{text}");
        }
    }

    #[test]
    fn protected_routes_are_protected_however_they_are_written() {
        let path = PathGlob::new("/health/**").expect("a pattern");
        let limits = Limits { protect: vec![Protected { at: "front".to_owned(), path }], ..Limits::default() };
        for (listener, path, safe) in [
            ("front", "/health", true),
            ("front", "/health/live", true),
            ("front", "/%68ealth", true),
            ("front", "/health%2Flive", true),
            ("front", "/healthy", false),
            ("front", "/%68ealthy", false),
            ("back", "/health", false),
        ] {
            assert_eq!(limits.protects(listener, path), safe, "{listener} {path}");
        }
    }
}
