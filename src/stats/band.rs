//! How far a whole latency curve may be from the truth: half-widths of bands around every quantile at once.
//!
//! One look: Massart 1990 (Ann. Probab. 18:1269). Always: Howard & Ramdas 2022 (Bernoulli 28:1704, arXiv 1906.09712),
//! theorem 2.

use super::bisect;

/// Half-width of the band after `n` values, if one looks once.
pub fn band_fixed(n: f64, alpha: f64) -> f64 {
    if n <= 0.0 { 1.0 } else { ((2.0 / alpha).ln() / (2.0 * n)).sqrt() }
}

/// The factor before the root; any above 0.71 is valid, this one is tight for the sizes that runs have.
const FACTOR: f64 = 0.85;

/// Half-width of the band after `t` values, however often one looks from the `t_min`-th value on.
pub fn band_sequential(t: f64, alpha: f64, t_min: f64) -> f64 {
    if t < t_min || t <= 0.0 {
        return 1.0;
    }
    let constant = bisect(0.0, 1000.0, |constant| ever_outside(constant) > alpha);
    FACTOR * (((t / t_min).ln().ln_1p() + constant) / t).sqrt()
}

/// The theorem's bound on the chance that the curve is ever outside a band with this constant: its smallest value over
/// the ratio of the epochs into which time is cut.
fn ever_outside(constant: f64) -> f64 {
    let bound = |eta: f64| {
        let gamma = (2.0 / eta).sqrt() * (FACTOR - (2.0 * (eta - 1.0) / constant).sqrt());
        if gamma <= 1.0 {
            return f64::INFINITY;
        }
        let square = gamma * gamma;
        4.0 * (-square * constant).exp() * (1.0 + 1.0 / ((square - 1.0) * eta.ln()))
    };
    // It has no closed minimum and one valley: a grid finds it, thirds narrow it down.
    let widest = 2.0 * FACTOR * FACTOR;
    let grid = |step: u32| 1.0 + (widest - 1.0) * f64::from(step) / 200.0;
    let best = (1..200).min_by(|a, b| bound(grid(*a)).total_cmp(&bound(grid(*b)))).unwrap_or(1);
    let (mut low, mut high) = (grid(best - 1), grid(best + 1));
    for _ in 0..60 {
        let (left, right) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
        if bound(left) < bound(right) { high = right } else { low = left }
    }
    bound(low + (high - low) / 2.0).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_all_the_time_costs_width_and_more_values_give_it_back() {
        assert!(band_sequential(1000.0, 0.05, 100.0) > band_fixed(1000.0, 0.05));
        assert!(band_sequential(10_000.0, 0.05, 100.0) < band_sequential(1000.0, 0.05, 100.0));
        assert_eq!(band_sequential(10.0, 0.05, 100.0), 1.0);
        assert_eq!(band_fixed(0.0, 0.05), 1.0);
    }
}
