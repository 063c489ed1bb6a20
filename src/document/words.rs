//! The words of messages: quoted texts, lists of names, and the name that was probably meant.

/// Nearest of `words` to `word`, where one is near enough to be meant.
pub fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 64;
    let plain = |text: &str| text.to_lowercase().replace(['-', ' '], "_");
    let length = word.chars().count();
    if length == 0 || length > LONGEST {
        return None;
    }
    let word = plain(word);
    words
        .into_iter()
        .filter(|candidate| candidate.len() <= LONGEST)
        .filter_map(|candidate| {
            let other = plain(candidate);
            let begins = length >= 3 && other.starts_with(&word);
            let distance = if begins { 1 } else { strsim::osa_distance(&word, &other) };
            let longer = length.max(other.chars().count());
            (begins || distance <= (longer / 3).max(1) && distance < longer).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A text of the document in a message: short, and told from our own words.
pub(super) fn quote(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

/// `` `a`, `b` or `c` ``
pub(super) fn either(words: &[&str]) -> String {
    join(&words.iter().map(|word| quote(word)).collect::<Vec<_>>(), "or")
}

/// `` `a`, `b` and `c` ``
pub(super) fn both(words: &[&str]) -> String {
    join(&words.iter().map(|word| quote(word)).collect::<Vec<_>>(), "and")
}

/// `a, b or c`, of what is quoted already.
pub(super) fn join(words: &[String], last: &str) -> String {
    match words {
        [] => "something else".to_owned(),
        [word] => word.clone(),
        [words @ .., end] => format!("{} {last} {end}", words.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_one_that_could_be_meant() {
        let names = ["treatment", "control", "max", "max_increase", "at", "by", "steady_state", "owner"];
        for (word, expected) in [
            ("treatmnt", Some("treatment")),
            ("Treatment", Some("treatment")),
            ("treat", Some("treatment")),
            ("contorl", Some("control")),
            ("max-increase", Some("max_increase")),
            ("mx", Some("max")),
            ("a", Some("at")),
            ("steadystate", Some("steady_state")),
            ("x", None),
            ("min", None),
            ("other", None),
            ("to", None),
            ("latency", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, names), expected, "{word}");
        }
        assert_eq!(nearest(&"a".repeat(1 << 20), names), None);
    }
}
