//! How long until people learned, or the system was well again: times of which some are not over yet.
//!
//! Kaplan & Meier 1958 (J. Am. Stat. Assoc. 53:457). Leaving out what is still open would make a team look quicker the
//! more it leaves open.

/// The median time until an end, from `(time, whether it ended)`; none when too many are still open to say.
pub fn kaplan_meier_median(times: &[(f64, bool)]) -> Option<f64> {
    let mut sorted = times.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut surviving, mut at_risk) = (1.0, sorted.len());
    for equal in sorted.chunk_by(|a, b| a.0 == b.0) {
        let ended = equal.iter().filter(|(_, ended)| *ended).count();
        surviving *= 1.0 - ended as f64 / at_risk as f64;
        // A hair more than half, for products that are half but for rounding.
        if surviving <= 0.5 + 1e-12 {
            return Some(equal[0].0);
        }
        at_risk -= equal.len();
    }
    None
}

/// The first of the windows `(bad, all)` after a fault from which on every window with units is at most `limit` bad, if
/// there are `enough` such windows. A window without units shows nothing, neither good nor bad.
pub fn well_from(windows: &[(f64, f64)], limit: f64, enough: usize) -> Option<usize> {
    let good = |(bad, all): &(f64, f64)| *all <= 0.0 || bad / all <= limit;
    let last_bad = windows.iter().rposition(|window| !good(window));
    let after = last_bad.map_or(0, |index| index + 1);
    let start = after + windows[after..].iter().position(|(_, all)| *all > 0.0)?;
    let shown = windows[start..].iter().filter(|(_, all)| *all > 0.0).count();
    (shown >= enough).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_ends_push_the_median_out() {
        let closed = [(1.0, true), (2.0, true), (3.0, true)];
        assert_eq!(kaplan_meier_median(&closed), Some(2.0));
        let open = [(1.0, true), (2.0, true), (3.0, true), (9.0, false), (9.0, false)];
        assert_eq!(kaplan_meier_median(&open), Some(3.0));
        assert_eq!(kaplan_meier_median(&[(1.0, false)]), None);
        assert_eq!(kaplan_meier_median(&[]), None);
    }

    #[test]
    fn an_early_open_end_leaves_the_risk_set_without_ending() {
        // 1 of 5 ends, 2 leave, then 1 of 2 ends: 4/5 · 1/2 = 2/5. With the two still at risk it would be 3/5.
        let times = [(1.0, true), (2.0, false), (2.0, false), (3.0, true), (4.0, true)];
        assert_eq!(kaplan_meier_median(&times), Some(3.0));
    }

    #[test]
    fn one_bad_window_late_starts_recovery_anew() {
        let (bad, good, empty) = ((5.0, 10.0), (0.0, 10.0), (0.0, 0.0));
        assert_eq!(well_from(&[bad, good, good, good], 0.1, 3), Some(1));
        assert_eq!(well_from(&[bad, good, good, bad, good], 0.1, 1), Some(4));
        assert_eq!(well_from(&[bad, good, good], 0.1, 3), None);
        assert_eq!(well_from(&[bad, empty, good, empty, good], 0.1, 2), Some(2));
        assert_eq!(well_from(&[empty, empty], 0.1, 1), None);
        assert_eq!(well_from(&[], 0.1, 0), None);
    }
}
