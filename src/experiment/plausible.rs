//! What each part allows and the whole does not: faults and slices that do not meet, and numbers in the prose that are
//! nowhere in the document.

use serde_json::Value;

use super::check::help;
use super::draft::Draft;
use super::indicator::{Indicator, Measure};
use super::slice::{By, Carry};
use super::written::TextOr;
use super::{Inject, Slice};
use crate::document::Problems;
use crate::load::Traffic;
use crate::units::{ByteSize, Increase, Percent, Rate, Span, Throughput};

/// Parts that do not fit each other.
pub(super) fn together(
    slice: &Slice,
    inject: &Inject,
    indicators: &[Indicator],
    traffic: Option<&Traffic>,
    problems: &mut Problems,
) {
    let together = slice.at == inject.at;
    for (index, fault) in inject.faults.iter().enumerate().filter(|(_, fault)| fault.meets_connections()) {
        if slice.carry == Carry::None || (slice.by == By::ClientIp && together) {
            continue;
        }
        let way = if together {
            "choose the slice `by: client-ip`, or compare phases with `carry: none`".to_owned()
        } else {
            format!("choose the slice at `{}`, `by: client-ip`, or compare phases with `carry: none`", inject.at)
        };
        problems.error_at_key(
            &format!("/inject/faults/{index}/{}", fault.kind()),
            format!("`{}` would meet a whole connection, and others with it who are not in the slice", words(fault)),
            Some(way),
        );
    }
    for (index, fault) in inject.faults.iter().enumerate().filter(|(_, fault)| fault.meets_new_connections()) {
        let pointer = format!("/inject/faults/{index}/{}", fault.kind());
        if !slice.matches.asks_for_callers_only() || !inject.matches.asks_for_callers_only() {
            problems.error_at_key(
                &pointer,
                format!(
                    "`{}` meets connections before anything is asked on them, and `match` asks for more",
                    words(fault)
                ),
                help("match `caller` alone, or nothing"),
            );
        }
        if traffic.is_some_and(|traffic| traffic.only_own) {
            problems.error_at_key(
                &pointer,
                format!("nothing tells Pratfall's own connections from others before `{}` meets them", words(fault)),
                help("write `only_own: false` under `traffic`, so that everybody takes part"),
            );
        }
    }
    if slice.carry == Carry::None && !together {
        problems.error(
            "/slice/carry",
            format!(
                "with `carry: none` nothing tells `{}` which calls belong to the slice at `{}`",
                inject.at, slice.at
            ),
            help(format!(
                "choose the slice at `{}` as well, and write `at: {}` at the indicators; or let the arm be carried",
                inject.at, slice.at
            )),
        );
    }
    let joined = |indicator: &Indicator| matches!(indicator.measure, Measure::FailedOperations { .. });
    if inject.attempts.is_some() && together && slice.by == By::Request && !indicators.iter().any(joined) {
        problems.error_at_key(
            "/inject/attempts",
            "nothing tells the attempts of one operation from those of another: with `by: request` each stands alone",
            help("choose the slice by what they share, as in `by: header:x-request-id`"),
        );
    }
    if traffic.is_some_and(|traffic| traffic.only_own) && slice.by == By::ClientIp {
        problems.warn(
            "/slice/by",
            "Pratfall's own requests come from one address, so that all of them fall into one arm",
            help("choose the slice `by: request`"),
        );
    }
}

fn words(fault: &crate::fault::Fault) -> String {
    match fault {
        crate::fault::Fault::Drop(drop) => format!("drop: {{ how: {} }}", serde_word(&drop.how)),
        crate::fault::Fault::Tls(tls) => format!("tls: {{ how: {} }}", serde_word(&tls.how)),
        other => other.kind().to_owned(),
    }
}

fn serde_word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Warns of numbers in `when` and `then` that the document does not contain. What is `given` describes the world, which
/// is not in the document; neither is what comes after a `because`.
pub(super) fn check(draft: &Draft, document: &Option<Value>, problems: &mut Problems) {
    let Some(Value::Object(document)) = document else { return };
    let mut known = Vec::new();
    for (_, value) in document.iter().filter(|(key, _)| !matches!(key.as_str(), "hypothesis" | "title" | "experiment"))
    {
        collect(value, &mut known);
    }
    let mut look = |pointer: &str, prose: &str| {
        for (text, quantity) in quantities(prose) {
            if !known.contains(&quantity) {
                problems.warn(
                    pointer,
                    format!("`{text}` is in the hypothesis, and nowhere else in this document"),
                    help("only what `steady_state`, `slice` and `inject` say is tested: write the same number there"),
                );
            }
        }
    };
    match &draft.hypothesis {
        None => {}
        Some(TextOr::Text(sentence)) => look("/hypothesis", sentence.split("because").next().unwrap_or_default()),
        Some(TextOr::More(steps)) => {
            look("/hypothesis/when", &steps.when);
            look("/hypothesis/then", &steps.then);
        }
    }
}

/// A number with its unit, so that `800 ms` and `0.8s` are one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Quantity {
    Time(Span),
    /// In parts of a million: a share, or points between shares.
    Share(u64),
    Ratio(u64),
    Rate(u64),
    Size(u64),
    Throughput(u64),
}

fn collect(value: &Value, known: &mut Vec<Quantity>) {
    match value {
        Value::String(text) => known.extend(quantities(text).map(|(_, quantity)| quantity)),
        Value::Array(items) => items.iter().for_each(|item| collect(item, known)),
        Value::Object(map) => map.values().for_each(|value| collect(value, known)),
        _ => {}
    }
}

/// The numbers with units in a text, as they are written there.
fn quantities(text: &str) -> impl Iterator<Item = (String, Quantity)> {
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || "(),;:–—\"'`".contains(c)).collect();
    let words: Vec<&str> = words.into_iter().map(|word| word.trim_end_matches(['.', '!', '?'])).collect();
    let mut found = Vec::new();
    for (index, word) in words.iter().enumerate().filter(|(_, word)| word.starts_with(|c: char| c.is_ascii_digit())) {
        let bare = word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let next = words.get(index + 1).copied().unwrap_or_default();
        let (written, plain) = match short(next) {
            Some(unit) if bare => (format!("{word} {next}"), format!("{word}{unit}")),
            _ => ((*word).to_owned(), (*word).to_owned()),
        };
        if let Some(quantity) = quantity(&plain) {
            found.push((written, quantity));
        }
    }
    found.into_iter()
}

/// The unit that a word stands for where a space is between it and its number.
fn short(word: &str) -> Option<&'static str> {
    Some(match word {
        "us" | "µs" | "microseconds" => "us",
        "ms" | "millisecond" | "milliseconds" => "ms",
        "s" | "sec" | "second" | "seconds" => "s",
        "min" | "minute" | "minutes" => "m",
        "h" | "hour" | "hours" => "h",
        "%" | "percent" => "%",
        "pp" | "points" => "pp",
        "KiB" => "KiB",
        "MiB" => "MiB",
        "KB" => "KB",
        "MB" => "MB",
        _ => return None,
    })
}

fn quantity(text: &str) -> Option<Quantity> {
    let millionths = |ratio: f64| (ratio * 1e6).round() as u64;
    if let Ok(span) = text.parse::<Span>() {
        return Some(Quantity::Time(span));
    }
    if let Ok(share) = text.parse::<Percent>() {
        return Some(Quantity::Share(millionths(share.ratio())));
    }
    match text.parse::<Increase>() {
        Ok(Increase::Points(points)) => return Some(Quantity::Share(millionths(points.ratio()))),
        Ok(Increase::Ratio(ratio)) => return Some(Quantity::Ratio(millionths(ratio))),
        Err(_) => {}
    }
    if let Ok(rate) = text.parse::<Rate>() {
        return Some(Quantity::Rate(millionths(rate.per_second())));
    }
    if let Ok(size) = text.parse::<ByteSize>() {
        return Some(Quantity::Size(size.get()));
    }
    text.parse::<Throughput>().ok().map(|throughput| Quantity::Throughput(throughput.per_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_in_prose_with_their_units_however_they_are_written() {
        let found = |text: &str| quantities(text).map(|(written, _)| written).collect::<Vec<_>>().join("|");
        for (text, expected) in [
            ("orders take over 800 ms, no more", "800 ms"),
            ("within 1.5s.", "1.5s"),
            ("5 % of them (2 minutes)", "5 %|2 minutes"),
            ("200/s and 64KiB/s, at most 1pp", "200/s|64KiB/s|1pp"),
            ("answers 503 to 2.5 attempts in 3 steps", ""),
            ("one second late, p99 of v2", ""),
        ] {
            assert_eq!(found(text), expected, "{text}");
        }
        assert_eq!(quantity("800ms"), quantity("0.8s"));
        assert_eq!(quantity("5%"), quantity("5pp"));
        assert_ne!(quantity("5%"), quantity("5s"));
    }
}
