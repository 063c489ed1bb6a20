//! Units as people write them: `250ms`, `5%`, `1pp`, `200/s`, `64KiB`. Parsed once, correct ever after.
//!
//! Each type reads and writes the same text, so that a report shows what the document said. Within a sentence `{:#}`
//! sets the unit apart, as people write it there: `5 %`, `2 m 30 s`.

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Why a text is not of the unit that was expected, and how it is written.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(String);

/// Checks a text against a unit by its JSON Schema `format`; `None` where the format is not one of ours.
pub fn check(format: &str, text: &str) -> Option<Result<(), UnitError>> {
    Some(match format {
        Percent::FORMAT => text.parse::<Percent>().map(drop),
        Points::FORMAT => text.parse::<Points>().map(drop),
        Increase::FORMAT => text.parse::<Increase>().map(drop),
        Span::FORMAT => text.parse::<Span>().map(drop),
        Rate::FORMAT => text.parse::<Rate>().map(drop),
        Throughput::FORMAT => text.parse::<Throughput>().map(drop),
        ByteSize::FORMAT => text.parse::<ByteSize>().map(drop),
        _ => return None,
    })
}

/// Text form, serde and schema of a unit: one text in, one text out.
macro_rules! written_as_text {
    ($type:ident, $format:literal, $example:literal, $doc:literal) => {
        impl $type {
            /// The `format` of this unit in our JSON Schemas.
            pub const FORMAT: &'static str = $format;
        }
        impl TryFrom<String> for $type {
            type Error = UnitError;
            fn try_from(text: String) -> Result<Self, UnitError> {
                text.parse()
            }
        }
        impl From<$type> for String {
            fn from(unit: $type) -> Self {
                unit.to_string()
            }
        }
        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format, "description": $doc, "examples": [$example] })
            }
        }
    };
}

/// A share of a whole, from `0%` to `100%`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Percent(f64);
written_as_text!(Percent, "percent", "5%", "A share of a whole, with its sign: `5%`.");

impl Percent {
    /// Takes a ratio between 0 and 1.
    pub fn from_ratio(ratio: f64) -> Option<Self> {
        (0.0..=1.0).contains(&ratio).then_some(Self(ratio))
    }

    /// The share between 0 and 1.
    pub fn ratio(self) -> f64 {
        self.0
    }
}

impl FromStr for Percent {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let number = text
            .strip_suffix('%')
            .and_then(|n| decimal(n.trim_end()))
            .ok_or_else(|| UnitError(format!("write a share with its sign, as in `5%`, not `{text}`")))?;
        Self::from_ratio(number / 100.0)
            .ok_or_else(|| UnitError(format!("a share lies between `0%` and `100%`, not `{text}`")))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        written(f, format_args!("{}%", trim(self.0 * 100.0)))
    }
}

/// A distance between two shares, in percentage points: `1pp`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Points(f64);
written_as_text!(Points, "points", "1pp", "Percentage points between two shares: `1pp`.");

impl Points {
    /// The distance between 0 and 1.
    pub fn ratio(self) -> f64 {
        self.0
    }
}

impl FromStr for Points {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let number = text
            .strip_suffix("pp")
            .and_then(|n| decimal(n.trim_end()))
            .ok_or_else(|| UnitError(format!("write percentage points as in `1pp`, not `{text}`")))?;
        if number > 0.0 && number < 100.0 {
            Ok(Self(number / 100.0))
        } else {
            Err(UnitError(format!("percentage points lie between `0pp` and `100pp`, both excluded, not `{text}`")))
        }
    }
}

impl fmt::Display for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        written(f, format_args!("{}pp", trim(self.0 * 100.0)))
    }
}

/// How much worse treatment may be than control: points (`1pp`) or a ratio (`1.5x`).
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Increase {
    /// A difference of shares.
    Points(Points),
    /// A ratio of shares, above 1.
    Ratio(f64),
}
written_as_text!(Increase, "increase", "1pp", "How much worse than control: points (`1pp`) or a ratio (`1.5x`).");

impl FromStr for Increase {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        if let Some(number) = text.strip_suffix('x') {
            return match decimal(number.trim_end()) {
                Some(ratio) if ratio > 1.0 => Ok(Self::Ratio(ratio)),
                _ => Err(UnitError(format!("a ratio is above one, as in `1.5x`, not `{text}`"))),
            };
        }
        if text.ends_with("pp") {
            return text.parse().map(Self::Points);
        }
        Err(UnitError(format!("write an increase in points, as in `1pp`, or as a ratio, as in `1.5x`, not `{text}`")))
    }
}

impl fmt::Display for Increase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Points(points) => points.fmt(f),
            Self::Ratio(ratio) => written(f, format_args!("{}x", trim(*ratio))),
        }
    }
}

/// A length of time: `250ms`, `1.5s`, `2m30s`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(Duration);
written_as_text!(Span, "span", "250ms", "A length of time: `250ms`, `1.5s`, `2m30s`.");

impl Span {
    /// A span of whole milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// A span of whole seconds.
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// The same length for the standard library.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

/// A year: longer than any experiment, short enough that adding it to an instant cannot overflow.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

impl FromStr for Span {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || {
            UnitError(format!("write a length of time with its unit, as in `250ms`, `1.5s` or `2m30s`, not `{text}`"))
        };
        let mut rest = text;
        let mut seconds = 0.0;
        let mut smallest = f64::INFINITY;
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
            let number = decimal(&rest[..digits]).ok_or_else(wrong)?;
            rest = &rest[digits..];
            let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
            let unit = match &rest[..letters] {
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86400.0,
                _ => return Err(wrong()),
            };
            if unit >= smallest {
                return Err(wrong());
            }
            smallest = unit;
            seconds += number * unit;
            rest = &rest[letters..];
        }
        // Whole microseconds: `0.1s` must not become 99.999999 ms on its way through a float.
        let span = Duration::from_micros((seconds * 1e6).round() as u64);
        if span > LONGEST {
            return Err(UnitError(format!("`{text}` is longer than a year")));
        }
        Ok(Self(span))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros() as u64;
        if !micros.is_multiple_of(1000) && micros < 1_000_000 {
            let (number, unit) = if micros < 1000 { (micros as f64, "us") } else { (trim(micros as f64 / 1e3), "ms") };
            return written(f, format_args!("{number}{unit}"));
        }
        let millis = micros / 1000;
        if millis < 1000 {
            return written(f, format_args!("{millis}ms"));
        }
        let (minutes, seconds) = (millis / 60_000, (millis % 60_000) as f64 / 1e3);
        let part = |number: f64, unit: &str| if number > 0.0 { format!("{number}{unit}") } else { String::new() };
        let (hours, minutes) = (part((minutes / 60) as f64, "h"), part((minutes % 60) as f64, "m"));
        written(f, format_args!("{hours}{minutes}{}", part(trim(seconds), "s")))
    }
}

/// Events per second: `200/s`, `30/m`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate(f64);
written_as_text!(Rate, "rate", "200/s", "Events per time: `200/s`, `30/m`.");

impl Rate {
    /// Events per second.
    pub fn per_second(self) -> f64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || UnitError(format!("write a rate with its time, as in `200/s` or `30/m`, not `{text}`"));
        let (number, time) = text.split_once('/').ok_or_else(wrong)?;
        let number = decimal(number.trim_end()).filter(|n| *n > 0.0).ok_or_else(wrong)?;
        match time.trim_start() {
            "s" => Ok(Self(number)),
            "m" => Ok(Self(number / 60.0)),
            "h" => Ok(Self(number / 3600.0)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.0 * 60.0;
        if self.0 < 1.0 && (minutes - minutes.round()).abs() < 1e-9 {
            return write!(f, "{}/m", trim(minutes));
        }
        write!(f, "{}/s", trim(self.0))
    }
}

/// An amount of data: `4KiB`, `10MB`, `512B`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(u64);
written_as_text!(ByteSize, "size", "4KiB", "An amount of data: `512B`, `4KiB`, `10MB`.");

impl ByteSize {
    /// A size in bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

const SIZES: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("B", 1),
];

impl FromStr for ByteSize {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        SIZES
            .iter()
            .find_map(|(unit, bytes)| Some((decimal(text.strip_suffix(unit)?.trim_end())?, *bytes as f64)))
            .map(|(number, unit)| Self((number * unit).round() as u64))
            .ok_or_else(|| {
                UnitError(format!("write a size with its unit, as in `512B`, `4KiB` or `10MB`, not `{text}`"))
            })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, bytes) =
            SIZES.iter().find(|(_, bytes)| self.0 > 0 && self.0.is_multiple_of(*bytes)).unwrap_or(&("B", 1));
        written(f, format_args!("{}{unit}", self.0 / bytes))
    }
}

/// Data per second: `64KiB/s`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Throughput(ByteSize);
written_as_text!(Throughput, "throughput", "64KiB/s", "Data per second: `64KiB/s`.");

impl Throughput {
    /// Bytes per second.
    pub fn per_second(self) -> u64 {
        self.0.get()
    }
}

impl FromStr for Throughput {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let size = text.strip_suffix("/s").and_then(|size| size.trim_end().parse().ok());
        size.filter(|size: &ByteSize| size.get() > 0)
            .map(Self)
            .ok_or_else(|| UnitError(format!("write data per second as in `64KiB/s`, not `{text}`")))
    }
}

impl fmt::Display for Throughput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

/// What every choice left to chance is drawn from; a run with the same seed chooses the same.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Seed(pub u64);

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Plain decimals only: `inf`, `nan`, `1e3` and signs are not how people write units.
fn decimal(text: &str) -> Option<f64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (digits && text.len() <= 18 && text.starts_with(|c: char| c.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// Writes a unit as it is, or within a sentence with its number and its sign apart.
fn written(f: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>) -> fmt::Result {
    if !f.alternate() {
        return f.write_fmt(text);
    }
    let number = |letter: char| letter.is_ascii_digit() || letter == '.';
    let mut before = None;
    for letter in text.to_string().chars() {
        if before.is_some_and(|before| number(before) != number(letter)) {
            f.write_char(' ')?;
        }
        f.write_char(letter)?;
        before = Some(letter);
    }
    Ok(())
}

/// A number without the noise of binary fractions: `0.05 * 100` is `5`.
fn trim(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_read_what_people_write_and_write_it_back() {
        for text in ["0%", "5%", "0.5%", "100%"] {
            assert_eq!(text.parse::<Percent>().map(|u| u.to_string()), Ok(text.to_owned()));
        }
        for text in ["1us", "1.5ms", "250ms", "1s", "1.5s", "2m30s", "1h", "1h5m", "26h0.5s", "0ms"] {
            assert_eq!(text.parse::<Span>().map(|u| u.to_string()), Ok(text.to_owned()));
        }
        for text in ["1pp", "0.5pp", "1.5x"] {
            assert_eq!(text.parse::<Increase>().map(|u| u.to_string()), Ok(text.to_owned()));
        }
        for text in ["200/s", "30/m", "1.5/s"] {
            assert_eq!(text.parse::<Rate>().map(|u| u.to_string()), Ok(text.to_owned()));
        }
        for text in ["512B", "4KiB", "10MB", "1GiB"] {
            assert_eq!(text.parse::<ByteSize>().map(|u| u.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("64KiB/s".parse::<Throughput>().map(|u| u.per_second()), Ok(65536));
    }

    #[test]
    fn within_a_sentence_a_unit_is_set_apart() {
        let span = |text: &str| format!("{:#}", text.parse::<Span>().unwrap());
        assert_eq!(
            ["1.5ms", "800ms", "2m30s", "1h", "26h0.5s"].map(span),
            ["1.5 ms", "800 ms", "2 m 30 s", "1 h", "26 h 0.5 s"]
        );
        assert_eq!(format!("{:#}", "0.5%".parse::<Percent>().unwrap()), "0.5 %");
        assert_eq!(format!("{:#}", "1pp".parse::<Increase>().unwrap()), "1 pp");
        assert_eq!(format!("{:#}", "10MB".parse::<ByteSize>().unwrap()), "10 MB");
    }

    #[test]
    fn a_unit_that_is_not_written_is_an_error_that_shows_how() {
        for text in ["5", "5 percent", "-1%", "101%", "nan%", "1e2%", "%", ".5%"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
        for text in ["", "1", "1.5", "s", "1s2m", "1s1s", "-1s", "1 s", "9999d", "1y"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        for text in ["1%", "0pp", "100pp", "1x", "0.5x", "x", "pp"] {
            assert!(text.parse::<Increase>().is_err(), "{text}");
        }
        for text in ["200", "0/s", "/s", "200/day"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        assert_eq!("5".parse::<Percent>().unwrap_err().to_string(), "write a share with its sign, as in `5%`, not `5`");
    }
}
