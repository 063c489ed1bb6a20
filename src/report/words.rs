//! Figures and texts as people read them: `0.2 %`, `1,170`, `2 m 30 s`; the same words in every rendering.
//!
//! Names and sentences come from documents and from traffic, so [`line()`] and [`lines`] make them harmless to look at.

use jiff::Timestamp;

/// Where a figure is missing or is no number.
const NOTHING: &str = "–";

/// A whole number with its thousands apart: `1,170`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with at most so many decimals, none of them a trailing zero, and a minus that is one.
pub fn number(number: f64, decimals: usize) -> String {
    if !number.is_finite() {
        return if number.is_nan() { NOTHING.to_owned() } else { format!("{}∞", sign(number)) };
    }
    let text = format!("{:.*}", decimals, number.abs());
    let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
    let whole = whole.parse().map_or_else(|_| whole.to_owned(), count);
    let rest = rest.trim_end_matches('0');
    let minus = if text.bytes().any(|digit| (b'1'..=b'9').contains(&digit)) { sign(number) } else { "" };
    if rest.is_empty() { format!("{minus}{whole}") } else { format!("{minus}{whole}.{rest}") }
}

fn sign(number: f64) -> &'static str {
    if number < 0.0 { "−" } else { "" }
}

/// A share of a whole: `0.2 %`; small ones keep a figure that is not zero.
pub fn share(ratio: f64) -> String {
    let percent = ratio * 100.0;
    let decimals = if percent != 0.0 && percent.abs() < 0.1 { 3 } else { 1 };
    // 99.96 % is not everybody.
    let decimals = if percent < 100.0 && percent > 99.94 { 3 } else { decimals };
    format!("{} %", number(percent, decimals))
}

/// A difference of shares, with its sign: `+24.6 pp`.
pub fn points(difference: f64) -> String {
    let text = number(difference * 100.0, if difference.abs() < 0.001 { 2 } else { 1 });
    if difference > 0.0 { format!("+{text} pp") } else { format!("{text} pp") }
}

/// A distance between shares, which has no sign: `1.2 pp`.
pub fn distance(difference: f64) -> String {
    format!("{} pp", number(difference * 100.0, if difference < 0.001 { 2 } else { 1 }))
}

/// A length of time, as coarse as its size allows: `250 ms`, `2.5 s`, `2 m 30 s`.
pub fn length(millis: u64) -> String {
    let seconds = millis.saturating_add(500) / 1000;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        _ if millis < 1000 => format!("{millis} ms"),
        _ if millis < 60_000 => format!("{} s", number(millis as f64 / 1e3, 1)),
        (0, minutes, 0) => format!("{minutes} m"),
        (0, minutes, seconds) => format!("{minutes} m {seconds} s"),
        (hours, 0, _) => format!("{hours} h"),
        (hours, minutes, _) => format!("{hours} h {minutes} m"),
    }
}

/// A place in the run: `0:20.5`, `1:02:03.0`.
pub fn place(millis: u64) -> String {
    let tenths = millis / 100;
    let (hours, minutes) = (tenths / 36_000, tenths / 600 % 60);
    let seconds = format!("{:02}.{}", tenths / 10 % 60, tenths % 10);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds}") } else { format!("{minutes}:{seconds}") }
}

/// A latency or a delay, in milliseconds without their unit: `0.4`, `12`, `1,004`.
pub fn millis(millis: f64) -> String {
    number(millis, if millis < 10.0 { 1 } else { 0 })
}

/// A moment in UTC: `2026-10-03 14:02:11 UTC`.
pub fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// The same without seconds, for deadlines.
pub fn deadline(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// One of something or many: `1 call`, `1,170 calls`.
pub fn many(number: u64, one: &str, more: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { more })
}

/// A text on one line, at most so many characters long, that cannot turn its neighbours around.
pub fn line(text: &str, at_most: usize) -> String {
    let mut clean = String::with_capacity(text.len().min(at_most));
    for (place, word) in text.split_whitespace().enumerate() {
        if place > 0 {
            clean.push(' ');
        }
        visible(word, &mut clean);
        if clean.len() > at_most * 4 {
            break;
        }
    }
    match clean.char_indices().nth(at_most) {
        Some((end, _)) => format!("{}…", clean[..end].trim_end()),
        None => clean,
    }
}

/// A text of many lines, such as a document, with line ends of one kind.
pub fn lines(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    for (place, line) in text.trim_end().split('\n').enumerate() {
        if place > 0 {
            clean.push('\n');
        }
        visible(line, &mut clean);
    }
    clean
}

/// Writes what cannot be seen, or turns the reading direction, as its code: `\u{202e}` (Unicode TR 36, 2.10).
fn visible(text: &str, clean: &mut String) {
    for character in text.chars() {
        match character {
            '\t' => clean.push(character),
            '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{061c}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' => clean.extend(character.escape_unicode()),
            _ if character.is_control() => clean.extend(character.escape_unicode()),
            _ => clean.push(character),
        }
    }
}

/// A sentence in pieces, and whether each is code: what stands between two backticks.
pub fn pieces(text: &str) -> Vec<(&str, bool)> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut from = 0;
    while let Some(start) = rest[from..].find('`').map(|at| from + at) {
        match rest[start + 1..].find('`') {
            // Nothing between two backticks is no code, so that they stay what they are.
            Some(0) => from = start + 1,
            Some(length) => {
                pieces.push((&rest[..start], false));
                pieces.push((&rest[start + 1..start + 1 + length], true));
                (rest, from) = (&rest[start + length + 2..], 0);
            }
            None => break,
        }
    }
    pieces.push((rest, false));
    pieces.retain(|(piece, _)| !piece.is_empty());
    pieces
}

/// A word as a shell takes it, whatever is in it: plain where it is harmless, quoted where not.
pub fn shell(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/' | b':');
    if !word.is_empty() && !word.starts_with('-') && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_as_people_write_them() {
        for (figure, expected) in [
            (count(0), "0"),
            (count(999), "999"),
            (count(1170), "1,170"),
            (count(1_234_567), "1,234,567"),
            (share(0.0), "0 %"),
            (share(0.002), "0.2 %"),
            (share(0.00004), "0.004 %"),
            (share(0.123), "12.3 %"),
            (share(0.99996), "99.996 %"),
            (share(1.0), "100 %"),
            (share(f64::NAN), "– %"),
            (points(0.246), "+24.6 pp"),
            (points(-0.003), "−0.3 pp"),
            (points(0.0), "0 pp"),
            (length(250), "250 ms"),
            (length(2500), "2.5 s"),
            (length(150_000), "2 m 30 s"),
            (length(180_000), "3 m"),
            (length(3_720_000), "1 h 2 m"),
            (place(20_500), "0:20.5"),
            (place(3_723_000), "1:02:03.0"),
            (millis(0.42), "0.4"),
            (millis(1004.4), "1,004"),
            (number(-0.04, 1), "0"),
            (number(f64::NEG_INFINITY, 1), "−∞"),
            (many(1, "call", "calls"), "1 call"),
            (many(2000, "call", "calls"), "2,000 calls"),
        ] {
            assert_eq!(figure, expected);
        }
    }

    #[test]
    fn what_cannot_be_seen_is_written_out_and_what_is_long_is_cut() {
        assert_eq!(line("a\u{202e}b\n\n  c\u{0}", 99), r"a\u{202e}b c\u{0}");
        assert_eq!(line("naïve text", 6), "naïve…");
        assert_eq!(line(&"x".repeat(10_000), 5), "xxxxx…");
        assert_eq!(lines("a: 1\r\n\tb: \u{2066}2\n\n"), "a: 1\n\tb: \\u{2066}2");
    }

    #[test]
    fn what_stands_between_backticks_is_code() {
        for (text, expected) in [
            ("plain", vec![("plain", false)]),
            ("pass `baggage` on", vec![("pass ", false), ("baggage", true), (" on", false)]),
            ("`a``b`", vec![("a", true), ("b", true)]),
            ("``` fence", vec![("``` fence", false)]),
            ("one ` only", vec![("one ` only", false)]),
            ("", vec![]),
        ] {
            assert_eq!(pieces(text), expected, "{text}");
        }
    }

    #[test]
    fn a_hostile_id_stays_one_word_of_a_command() {
        assert_eq!(shell("F-7k2m"), "F-7k2m");
        assert_eq!(shell("x; rm -rf ~"), "'x; rm -rf ~'");
        assert_eq!(shell("it's"), r"'it'\''s'");
        assert_eq!(shell("--on"), "'--on'");
    }
}
