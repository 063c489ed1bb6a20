//! How many units an answer needs, said before anybody is hurt.
//!
//! Evidence grows by a Kullback-Leibler distance per unit (Wald 1947, Sequential Analysis), so a typical run needs
//! `ln(1/alpha)` over that growth. Nine runs in ten need less than 2.2 times as much: from simulating ten settings,
//! which gave 2.0 to 2.4. One look: Blackwelder 1982 (Controlled Clin. Trials 3:345).

use super::project::rmle_diff;
use super::quantile::normal_quantile;
use super::{EPSILON, clip, share};

/// From a typical run to nine in ten.
const NINE_IN_TEN: f64 = 2.2;

/// What a unit with share `q` says against the share `p`.
fn distance(q: f64, p: f64) -> f64 {
    let term = |q: f64, p: f64| if q > 0.0 { q * (q / p.max(EPSILON * EPSILON)).ln() } else { 0.0 };
    term(q, p) + term(1.0 - q, 1.0 - p)
}

/// Expected ln E per treated unit about a difference of `margin`, when the shares are `p_t` and `p_c` and there are `k`
/// control units per treated one.
pub fn growth_per_treated(p_t: f64, p_c: f64, margin: f64, k: f64) -> f64 {
    let (q_t, q_c) = (clip(p_t), clip(p_c));
    let k = if k.is_nan() { EPSILON } else { k.clamp(EPSILON, 1.0 / EPSILON) };
    let (at_t, at_c) = rmle_diff(q_t, 1.0, k * q_c, k, share(margin));
    (distance(q_t, at_t) + k * distance(q_c, at_c)).max(0.0)
}

/// Expected ln E per unit about an absolute `bound`, when the share is `p`.
pub fn growth_one_arm(p: f64, bound: f64) -> f64 {
    distance(clip(p), clip(bound)).max(0.0)
}

/// Units until ln E reaches `ln(1/alpha)` in a typical run.
pub fn typical(growth: f64, alpha: f64) -> f64 {
    units(1.0, growth, alpha)
}

/// Units until ln E has reached `ln(1/alpha)` in nine runs of ten.
pub fn ninety(growth: f64, alpha: f64) -> f64 {
    units(NINE_IN_TEN, growth, alpha)
}

/// Below this, growth is rounding: the truth is at the margin, and no number of units is enough.
const NO_GROWTH: f64 = 1e-12;

fn units(times: f64, growth: f64, alpha: f64) -> f64 {
    if growth > NO_GROWTH { (times * (1.0 / alpha).ln() / growth).ceil() } else { f64::INFINITY }
}

/// Treated units after which nine runs of ten say held, for a difference; infinite when the truth is not within the
/// margin, or when the margin allows anything.
pub fn treated_needed_two_arm(p_t: f64, p_c: f64, margin: f64, k: f64, alpha: f64) -> f64 {
    if clip(p_t) - clip(p_c) < margin { ninety(growth_per_treated(p_t, p_c, margin, k), alpha) } else { f64::INFINITY }
}

/// Treated units after which nine runs of ten say held, for an absolute bound; infinite when the truth is not below it.
pub fn treated_needed_one_arm(p: f64, bound: f64, alpha: f64) -> f64 {
    if clip(p) < bound { ninety(growth_one_arm(p, bound), alpha) } else { f64::INFINITY }
}

/// How many minutes so many units take at so many per second.
pub fn minutes(units: f64, per_second: f64) -> f64 {
    if units <= 0.0 { 0.0 } else { units / per_second.max(0.0) / 60.0 }
}

/// What an experiment with one look at its end is planned for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OneLook {
    /// The treated share.
    pub p_t: f64,
    /// The control share.
    pub p_c: f64,
    /// How much worse the treatment may be.
    pub margin: f64,
    /// Control units per treated one.
    pub k: f64,
    /// One-sided level.
    pub alpha: f64,
    /// The chance to see it.
    pub power: f64,
}

impl OneLook {
    /// Treated units, not yet rounded up; for people who know this formula and want to compare.
    pub fn treated(&self) -> f64 {
        let Self { p_t, p_c, margin, k, alpha, power } = *self;
        let z = normal_quantile(1.0 - alpha) + normal_quantile(power);
        let room = margin - (p_t - p_c);
        if room > 0.0 { z * z * (p_t * (1.0 - p_t) + p_c * (1.0 - p_c) / k) / (room * room) } else { f64::INFINITY }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_bound_needs_fourteen_over_it_at_a_fifth_and_forty_three_at_half() {
        for bound in [0.001, 0.01] {
            let fifth = treated_needed_one_arm(bound / 5.0, bound, 0.05) * bound;
            let half = treated_needed_one_arm(bound / 2.0, bound, 0.05) * bound;
            assert!((fifth - 14.0).abs() < 0.5, "{bound}: {fifth}");
            assert!((half - 43.0).abs() < 0.5, "{bound}: {half}");
        }
    }

    #[test]
    fn a_difference_needs_far_fewer_than_an_absolute_bound() {
        assert_eq!(treated_needed_one_arm(0.005, 0.01, 0.05), 4261.0);
        assert_eq!(treated_needed_two_arm(0.005, 0.005, 0.05, 1.0, 0.05), 174.0);
    }

    #[test]
    fn what_is_not_so_cannot_be_shown() {
        assert_eq!(treated_needed_two_arm(0.03, 0.01, 0.02, 19.0, 0.05), f64::INFINITY);
        assert_eq!(treated_needed_two_arm(1.0, 0.0, 0.01, 1.0, 0.05), f64::INFINITY);
        assert_eq!(treated_needed_one_arm(0.01, 0.01, 0.05), f64::INFINITY);
        assert_eq!(minutes(treated_needed_one_arm(0.5, 0.01, 0.05), 10.0), f64::INFINITY);
        assert_eq!(minutes(1200.0, 20.0), 1.0);
        assert_eq!(minutes(1.0, 0.0), f64::INFINITY);
        assert_eq!(minutes(0.0, 0.0), 0.0);
    }

    #[test]
    fn nothing_bad_at_all_is_the_rule_of_three() {
        assert_eq!(typical(growth_one_arm(0.0, 0.01), 0.05), 299.0);
    }
}
