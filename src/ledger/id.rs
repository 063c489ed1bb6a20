//! Short names that people can read aloud: of runs (`r-20261121-230341-k7m2`) and of failures (`F-7k2m`).

use jiff::Timestamp;
use rand::TryRng;
use rand::rngs::SysRng;

/// Crockford's base 32 in small letters: no i, l, o or u, which are misread.
const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A new run's id: sorts by time, and differs from another one's of the same second.
pub fn new_run_id(now: Timestamp) -> String {
    let chance = SysRng.try_next_u32().expect("the system has no randomness, nothing is safe to start");
    format!("{}-{}", now.strftime("r-%Y%m%d-%H%M%S"), letters(&chance.to_be_bytes(), 4))
}

/// The first letters of some bytes, five bits each.
pub(super) fn letters(bytes: &[u8], length: usize) -> String {
    let bit = |n: usize| bytes.get(n / 8).map_or(0, |byte| usize::from(byte >> (7 - n % 8)) & 1);
    let letter = |n: usize| (0..5).fold(0, |sum, b| sum * 2 + bit(n * 5 + b));
    (0..length).map(|n| char::from(LETTERS[letter(n)])).collect()
}

/// Whether an id can be a file's name and a word in a URL.
pub(super) fn is_plain(id: &str) -> bool {
    !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// The known names that look most like one, best first.
pub(super) fn near(asked: &str, known: Vec<String>) -> Vec<String> {
    let asked = asked.to_lowercase();
    let mut scored: Vec<_> =
        known.into_iter().map(|name| (strsim::jaro_winkler(&asked, &name.to_lowercase()), name)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(3).map(|(_, name)| name).collect()
}

/// `a, b or c`.
pub(super) fn one_of(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_id_is_readable_and_sorts_by_time() {
        let early = new_run_id("2026-11-21T23:03:41.9Z".parse().unwrap());
        let late = new_run_id("2026-11-21T23:03:42Z".parse().unwrap());
        assert!(early.starts_with("r-20261121-230341-") && early.len() == "r-20261121-230341-k7m2".len(), "{early}");
        assert!(early < late, "{early} {late}");
        assert!(is_plain(&early));
    }

    #[test]
    fn ids_of_one_second_differ() {
        let now = "2026-11-21T23:03:41Z".parse().unwrap();
        // Sixteen of a million: two of them agree in one trial of ten thousand; all of them never do.
        let ids: std::collections::HashSet<_> = (0..16).map(|_| new_run_id(now)).collect();
        assert!(ids.len() > 8, "{ids:?}");
    }

    #[test]
    fn letters_are_five_bits_each_from_the_left() {
        assert_eq!(letters(&[0b0000_0000, 0b0100_0100, 0b0011_0010], 4), "0123");
        assert_eq!(letters(&[0xff; 4], 4), "zzzz");
    }

    #[test]
    fn ids_that_could_leave_the_folder_are_not_plain() {
        for (id, plain) in [("r-1", true), ("", false), ("..", false), ("a/b", false), ("a b", false), ("é", false)] {
            assert_eq!(is_plain(id), plain, "{id}");
        }
    }
}
