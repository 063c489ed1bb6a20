//! Patterns of paths and values, against their definition and in time that does not grow with the stars.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pratfall::experiment::glob::{Glob, PathGlob};

/// Whether the pieces fit, by the table of all pairs of ends: slow, but nothing is clever in it.
fn fits<P, V>(pattern: &[P], value: &[V], is_any: impl Fn(&P) -> bool, same: impl Fn(&P, &V) -> bool) -> bool {
    let mut row: Vec<bool> = (0..=value.len()).map(|taken| taken == 0).collect();
    for wanted in pattern {
        let mut next = vec![false; value.len() + 1];
        for taken in 0..=value.len() {
            next[taken] = if is_any(wanted) {
                row[taken] || (taken > 0 && next[taken - 1])
            } else {
                taken > 0 && row[taken - 1] && same(wanted, &value[taken - 1])
            };
        }
        row = next;
    }
    row[value.len()]
}

fn value_fits(pattern: &[u8], value: &[u8]) -> bool {
    fits(pattern, value, |wanted| *wanted == b'*', |wanted, byte| wanted == byte)
}

fuzz_target!(|text: &str| {
    let (pattern, value) = text.split_once('\n').unwrap_or((text, ""));
    if pattern.len() > 256 || value.len() > 1024 {
        return;
    }
    let glob = Glob::new(pattern);
    assert_eq!(glob.as_str(), pattern);
    assert!(glob.matches(pattern.as_bytes()), "a pattern fits itself");
    assert_eq!(glob.matches(value.as_bytes()), value_fits(pattern.as_bytes(), value.as_bytes()));
    let capitals = value_fits(pattern.to_ascii_uppercase().as_bytes(), value.to_ascii_uppercase().as_bytes());
    assert_eq!(glob.matches_in_any_case(value.as_bytes()), capitals);
    if !pattern.contains('*') {
        assert_eq!(glob.matches(value.as_bytes()), pattern == value, "without a star it is a text");
    }

    let Ok(glob) = PathGlob::new(pattern) else {
        let is_path = pattern.starts_with('/') && pattern.bytes().all(|byte| byte.is_ascii_graphic());
        assert!(!is_path || pattern.contains(['?', '#', '*']), "every path is a pattern of itself");
        return;
    };
    assert_eq!(glob.to_string(), pattern);
    assert!(glob.matches(pattern), "a pattern fits itself");
    let (wanted, pieces): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), value.split('/').collect());
    let same = |wanted: &&str, piece: &&str| value_fits(wanted.as_bytes(), piece.as_bytes());
    assert_eq!(glob.matches(value), fits(&wanted, &pieces, |wanted| *wanted == "**", same));
    if let Some(above) = pattern.strip_suffix("/**")
        && !above.contains('*')
    {
        assert!(glob.matches(above) && glob.matches(&format!("{above}/{value}")), "all that is below, and itself");
    }
});
