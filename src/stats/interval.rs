//! Estimates with an interval, for one look: shown beside the verdict, never deciding it.
//!
//! Wilson 1927 (J. Am. Stat. Assoc. 22:209); Newcombe 1998 (Statist. Med. 17:873), method 10; Miettinen & Nurminen 1985
//! (Statist. Med. 4:213); Farrington & Manning 1990 (Statist. Med. 9:1447); Mantel & Haenszel 1959 with the variance of
//! Sato 1989 (Biometrics 45:1323); Clopper & Pearson 1934 (Biometrika 26:404), at zero.

use super::beta::normal_below;
use super::eprocess::Block;
use super::project::rmle_diff;
use super::quantile::two_sided;
use super::{bisect, count, part};

/// Wilson's score interval for a share; all of `[0, 1]` when nothing was seen.
pub fn wilson(bad: f64, n: f64, confidence: f64) -> (f64, f64) {
    let n = count(n);
    if n == 0.0 {
        return (0.0, 1.0);
    }
    let bad = part(bad, n);
    let (z, p) = (two_sided(confidence), bad / n);
    if z.is_infinite() {
        return (0.0, 1.0);
    }
    let scale = 1.0 + z * z / n;
    let centre = (p + z * z / (2.0 * n)) / scale;
    let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt() / scale;
    // Each limit from the far one and the product of the roots: near an edge a difference would be rounding alone.
    let low = if bad == 0.0 { 0.0 } else { p * p / scale / (centre + half) };
    let high = if bad == n { 1.0 } else { 1.0 - (1.0 - p) * (1.0 - p) / scale / (1.0 - (centre - half)) };
    (low, high)
}

/// Newcombe's interval for the difference of two shares; all of `[-1, 1]` when an arm is empty.
pub fn newcombe(bad_t: f64, n_t: f64, bad_c: f64, n_c: f64, confidence: f64) -> (f64, f64) {
    let (n_t, n_c) = (count(n_t), count(n_c));
    if n_t == 0.0 || n_c == 0.0 {
        return (-1.0, 1.0);
    }
    let (p_t, p_c) = (part(bad_t, n_t) / n_t, part(bad_c, n_c) / n_c);
    let (low_t, high_t) = wilson(bad_t, n_t, confidence);
    let (low_c, high_c) = wilson(bad_c, n_c, confidence);
    let seen = p_t - p_c;
    (seen - (p_t - low_t).hypot(high_c - p_c), seen + (high_t - p_t).hypot(p_c - low_c))
}

/// The score interval of Miettinen and Nurminen for the difference of two shares.
pub fn miettinen_nurminen(bad_t: f64, n_t: f64, bad_c: f64, n_c: f64, confidence: f64) -> (f64, f64) {
    let (n_t, n_c) = (count(n_t), count(n_c));
    let n = n_t + n_c;
    if n_t == 0.0 || n_c == 0.0 || n <= 1.0 {
        return (-1.0, 1.0);
    }
    let (bad_t, bad_c) = (part(bad_t, n_t), part(bad_c, n_c));
    let (z, seen) = (two_sided(confidence), bad_t / n_t - bad_c / n_c);
    // How many standard errors the seen difference is away from `delta`; falls as `delta` grows.
    let score = |delta: f64| {
        let (p_t, p_c) = rmle_diff(bad_t, n_t, bad_c, n_c, delta);
        let variance = (p_t * (1.0 - p_t) / n_t + p_c * (1.0 - p_c) / n_c) * n / (n - 1.0);
        (seen - delta) / variance.sqrt()
    };
    (bisect(-1.0, seen, |delta| score(delta) > z), bisect(seen, 1.0, |delta| score(delta) > -z))
}

/// A score test of `p_t - p_c >= margin` against less, for one look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NonInferiority {
    /// How many standard errors below the margin, negative when below.
    pub z: f64,
    /// One-sided p-value.
    pub p: f64,
    /// The likeliest shares at the margin, treatment and control.
    pub at_margin: (f64, f64),
}

/// The test of Farrington and Manning; none when an arm is empty or nothing can vary.
pub fn farrington_manning(bad_t: f64, n_t: f64, bad_c: f64, n_c: f64, margin: f64) -> Option<NonInferiority> {
    if n_t <= 0.0 || n_c <= 0.0 {
        return None;
    }
    let (p_t, p_c) = rmle_diff(bad_t, n_t, bad_c, n_c, margin);
    let error = (p_t * (1.0 - p_t) / n_t + p_c * (1.0 - p_c) / n_c).sqrt();
    let z = (bad_t / n_t - bad_c / n_c - margin) / error;
    z.is_finite().then(|| NonInferiority { z, p: normal_below(z), at_margin: (p_t, p_c) })
}

/// The difference of shares within blocks, and its standard error. Unlike the pooled difference it is not moved by a
/// slice that grows while traffic drifts. None when no block has both arms.
pub fn mantel_haenszel(blocks: &[Block]) -> Option<(f64, f64)> {
    let (mut above, mut below, mut p, mut q) = (0.0, 0.0, 0.0, 0.0);
    for &Block { bad_t, n_t, bad_c, n_c } in blocks {
        // Written so that what is not a number is left out too.
        if !(n_t > 0.0 && n_c > 0.0) {
            continue;
        }
        let n = n_t + n_c;
        above += (bad_t * n_c - bad_c * n_t) / n;
        below += n_t * n_c / n;
        p += (n_t * n_t * bad_c - n_c * n_c * bad_t + n_t * n_c * (n_c - n_t) / 2.0) / (n * n);
        q += (bad_t * (n_c - bad_c) + bad_c * (n_t - bad_t)) / (2.0 * n);
    }
    if below <= 0.0 {
        return None;
    }
    let difference = above / below;
    let variance = (difference * p + q) / (below * below);
    Some((difference, variance.max(0.0).sqrt()))
}

/// The one-sided upper limit for a share after `n` units without any bad one; about `3/n`.
pub fn none_bad_upper(n: f64, confidence: f64) -> f64 {
    if n <= 0.0 { 1.0 } else { 1.0 - (1.0 - confidence).powf(1.0 / n) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_arm_knows_nothing() {
        assert_eq!(wilson(0.0, 0.0, 0.95), (0.0, 1.0));
        assert_eq!(newcombe(0.0, 0.0, 1.0, 10.0, 0.95), (-1.0, 1.0));
        assert_eq!(miettinen_nurminen(1.0, 10.0, 0.0, 0.0, 0.95), (-1.0, 1.0));
        assert_eq!(farrington_manning(0.0, 0.0, 1.0, 10.0, 0.01), None);
        assert_eq!(mantel_haenszel(&[Block { bad_t: 1.0, n_t: 5.0, bad_c: 0.0, n_c: 0.0 }]), None);
        assert_eq!(none_bad_upper(0.0, 0.95), 1.0);
    }

    #[test]
    fn swapping_the_arms_turns_the_sign() {
        let (low, high) = newcombe(5.0, 56.0, 0.0, 29.0, 0.95);
        assert_eq!(newcombe(0.0, 29.0, 5.0, 56.0, 0.95), (-high, -low));
        let (low, high) = miettinen_nurminen(5.0, 56.0, 0.0, 29.0, 0.95);
        let (back_low, back_high) = miettinen_nurminen(0.0, 29.0, 5.0, 56.0, 0.95);
        assert!((back_low + high).abs() < 1e-9 && (back_high + low).abs() < 1e-9);
    }

    #[test]
    fn score_limits_are_where_the_test_just_rejects() {
        let (_, high) = miettinen_nurminen(3.0, 80.0, 7.0, 90.0, 0.90);
        let test = farrington_manning(3.0, 80.0, 7.0, 90.0, high).expect("both arms");
        // The two differ by the factor N/(N-1) in the variance alone.
        assert!((test.z * (169.0_f64 / 170.0).sqrt() + 1.644_853_626_951).abs() < 1e-6, "{test:?}");
    }

    #[test]
    fn nothing_bad_and_all_bad_have_intervals_too() {
        for (bad_t, bad_c) in [(0.0, 0.0), (40.0, 0.0), (0.0, 60.0), (40.0, 60.0)] {
            let (low, high) = miettinen_nurminen(bad_t, 40.0, bad_c, 60.0, 0.95);
            let seen = bad_t / 40.0 - bad_c / 60.0;
            assert!(-1.0 <= low && low <= seen && seen <= high && high <= 1.0, "{bad_t} {bad_c}: {low} {high}");
        }
    }

    #[test]
    fn a_ramp_over_a_drift_moves_the_pooled_difference_and_not_the_stratified_one() {
        let quiet = Block { bad_t: 1.0, n_t: 50.0, bad_c: 99.0, n_c: 4950.0 };
        let noisy = Block { bad_t: 250.0, n_t: 2500.0, bad_c: 250.0, n_c: 2500.0 };
        let (difference, error) = mantel_haenszel(&[quiet, noisy]).expect("both arms");
        assert!(difference.abs() < 1e-9 && error > 0.0, "{difference} {error}");
        let pooled: f64 = 251.0 / 2550.0 - 349.0 / 7450.0;
        assert!(pooled > 0.05);
    }
}
