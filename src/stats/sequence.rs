//! Intervals and tests that stay valid while somebody keeps looking; companions of the e-process.
//!
//! Mixture martingales: Robbins 1970 (Ann. Math. Statist. 41:1397), Ville 1939. Confidence sequence: Howard, Ramdas,
//! McAuliffe & Sekhon 2021 (Ann. Statist. 49:1055, arXiv 1810.08240). Normal mixture: Johari, Koomen, Pekelis & Walsh
//! 2022 (Oper. Res., arXiv 1512.04922). Label test: Lindon & Malek 2022 (NeurIPS, arXiv 2011.03567).

use super::beta::{log_beta, log_beta_above, log_beta_below, log_mixture};
use super::eprocess::Side;
use super::{bisect, clip};

/// The alpha for which the mixture is tuned, whatever alpha it is read at.
const TUNED_FOR: f64 = 0.05;

/// ln of the mixture martingale for "the share is `p`" whose prior is centred on `p`; sharpest after `t_opt` units.
pub fn log_mart_centred(bad: f64, n: f64, p: f64, t_opt: f64) -> f64 {
    let variance = p * (1.0 - p);
    let budget = 2.0 * (1.0 / TUNED_FOR).ln();
    let rho = variance * t_opt / (budget + budget.ln_1p());
    let r = (rho - variance).max(1e-3 * variance);
    log_mixture(bad, n - bad, p, r / (1.0 - p), r / p)
}

/// ln of the mixture martingale for "the share is `p`" with a fixed Beta(a, b) prior.
pub fn log_mart_fixed(bad: f64, n: f64, p: f64, a: f64, b: f64) -> f64 {
    log_mixture(bad, n - bad, p, a, b)
}

/// The confidence sequence of one share: an interval that holds at all times at once with probability 1 - alpha.
pub fn bernoulli_cs(bad: f64, n: f64, alpha: f64, t_opt: f64) -> (f64, f64) {
    if n <= 0.0 {
        return (0.0, 1.0);
    }
    let limit = (1.0 / alpha).ln();
    let rejected = |p: f64| log_mart_centred(bad, n, p, t_opt) >= limit;
    let seen = (bad / n).clamp(0.0, 1.0);
    let low = if bad > 0.0 { bisect(0.0, seen, rejected) } else { 0.0 };
    let high = if bad < n { bisect(seen, 1.0, |p| !rejected(p)) } else { 1.0 };
    (low, high)
}

/// One arm of [`union_cs`]: what was seen, its part of alpha, and the units after which it is sharpest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arm {
    /// Bad units.
    pub bad: f64,
    /// All units.
    pub n: f64,
    /// Its part of alpha.
    pub alpha: f64,
    /// Sharpest after so many units.
    pub t_opt: f64,
}

/// A confidence sequence for the difference of two shares from one for each arm (Bonferroni). Assumes constant rates
/// and a constant slice, which the e-process does not.
pub fn union_cs(treated: Arm, control: Arm) -> (f64, f64) {
    let of = |arm: Arm| bernoulli_cs(arm.bad, arm.n, arm.alpha, arm.t_opt);
    let ((low_t, high_t), (low_c, high_c)) = (of(treated), of(control));
    (low_t - high_c, high_t - low_c)
}

/// The normal-mixture interval for the difference of two shares, and its always-valid p-value. Asymptotic: with rare
/// errors it says "held" twice as often as it may, so it is for comparison with other tools only. None while either
/// arm is empty or nothing varies.
pub fn normal_mixture(
    (bad_t, n_t): (f64, f64),
    (bad_c, n_c): (f64, f64),
    alpha: f64,
    tau2: f64,
) -> Option<(f64, f64, f64)> {
    let (p_t, p_c) = (bad_t / n_t, bad_c / n_c);
    let v = p_t * (1.0 - p_t) / n_t + p_c * (1.0 - p_c) / n_c;
    if !(n_t > 0.0 && n_c > 0.0 && v > 0.0) {
        return None;
    }
    let seen = p_t - p_c;
    let half = (v * (v + tau2) / tau2 * ((v + tau2) / (v * alpha * alpha)).ln()).sqrt();
    let p = ((v + tau2) / v).sqrt() * (-seen * seen * tau2 / (2.0 * v * (v + tau2))).exp();
    Some((seen - half, seen + half, p.min(1.0)))
}

/// The chance that a bad unit is a treated one, when a share `rho` of the units is treated and the treatment is
/// `ratio` times as bad.
pub fn label_share(rho: f64, ratio: f64) -> f64 {
    rho * ratio / (rho * ratio + 1.0 - rho)
}

/// ln E of the label test: among bad units, who was treated? Exact whatever the error rate does over time; for a ratio
/// margin, where bad units are very rare. `theta` is [`label_share`] at the margin, `(a, b)` the prior.
pub fn label_log_e(side: Side, bad_t: f64, bad_c: f64, theta: f64, (a, b): (f64, f64)) -> f64 {
    let theta = clip(theta);
    let tail = match side {
        Side::Broken => log_beta_above,
        Side::Held => log_beta_below,
    };
    let inside = tail(theta, a + bad_t, b + bad_c) - tail(theta, a, b);
    log_beta(a + bad_t, b + bad_c) - log_beta(a, b) + inside - bad_t * theta.ln() - bad_c * (-theta).ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_units_give_a_narrower_sequence() {
        let width = |n: f64| {
            let (low, high) = bernoulli_cs(n / 100.0, n, 0.05, 1000.0);
            assert!(low <= 0.01 && 0.01 <= high, "{n}");
            high - low
        };
        assert!(width(1e3) < width(1e2) && width(1e4) < width(1e3));
    }

    #[test]
    fn nothing_and_all_have_open_ends() {
        assert_eq!(bernoulli_cs(0.0, 0.0, 0.05, 1000.0), (0.0, 1.0));
        assert_eq!(bernoulli_cs(0.0, 50.0, 0.05, 1000.0).0, 0.0);
        assert_eq!(bernoulli_cs(50.0, 50.0, 0.05, 1000.0).1, 1.0);
        assert_eq!(normal_mixture((0.0, 10.0), (0.0, 10.0), 0.05, 1e-4), None);
    }

    #[test]
    fn the_label_test_is_at_most_one_on_average_at_the_margin() {
        // Every outcome of twelve bad units, with its probability when each is treated with chance theta.
        for side in [Side::Held, Side::Broken] {
            let theta = label_share(0.05, 2.0);
            let mean: f64 = (0..=12)
                .map(|k| {
                    let choose = (0..k).fold(1.0, |c, i| c * f64::from(12 - i) / f64::from(i + 1));
                    let chance = choose * theta.powi(k) * (1.0 - theta).powi(12 - k);
                    chance * label_log_e(side, f64::from(k), f64::from(12 - k), theta, (0.5, 0.5)).exp()
                })
                .sum();
            assert!((mean - 1.0).abs() < 1e-9, "{side:?}: {mean}");
        }
    }
}
