//! Are the arms as uneven as they were asked to be? If not, something drops units, and the run is invalid.
//!
//! Sequential: a Beta mixture around the ratio that was asked for, Lindon & Malek 2022 (NeurIPS, arXiv 2011.03567).
//! One look: the chi-square test, as in Fabijan et al. 2019 (KDD, "Diagnosing sample ratio mismatch").

use super::beta::{log_mixture, normal_beyond};
use super::{EPSILON, MOST, clip};

/// ln E from which on the alarm rings: ln 1000, so that one sound run in a thousand rings at most.
pub const SAMPLE_RATIO_ALARM: f64 = 6.907_755_278_982_137;

/// ln E against "a share `rho` of these units is treated". Blocks with different `rho` add up. A larger `kappa` looks
/// for smaller deviations.
pub fn sample_ratio_log_e(n_t: u64, n_c: u64, rho: f64, kappa: f64) -> f64 {
    let rho = clip(rho);
    let kappa = if kappa.is_nan() { EPSILON } else { kappa.clamp(EPSILON, MOST) };
    log_mixture(n_t as f64, n_c as f64, rho, kappa * rho, kappa * (1.0 - rho))
}

/// The alarm over a whole run. Units are added up as long as the ratio stays the same, and a new sum begins when it
/// changes: as valid as one sum for each block, and it also sees losses that are too small for any block.
#[derive(Clone, Debug, Default)]
pub struct SampleRatio {
    /// ln E of the sums that are closed.
    closed: f64,
    n_t: u64,
    n_c: u64,
    rho: f64,
}

impl SampleRatio {
    /// How soon small deviations are looked for.
    const KAPPA: f64 = 100.0;

    /// Takes the units of the next block, of which a share `rho` was to be treated, and returns ln E.
    pub fn push(&mut self, n_t: u64, n_c: u64, rho: f64) -> f64 {
        if rho != self.rho {
            *self = Self { closed: self.log_e(), n_t: 0, n_c: 0, rho };
        }
        self.n_t = self.n_t.saturating_add(n_t);
        self.n_c = self.n_c.saturating_add(n_c);
        self.log_e()
    }

    /// ln E after the blocks so far.
    pub fn log_e(&self) -> f64 {
        self.closed + sample_ratio_log_e(self.n_t, self.n_c, self.rho, Self::KAPPA)
    }
}

/// Chi-square of the same question and its p-value, for one look; (0, 1) without units.
pub fn sample_ratio_chi2(n_t: u64, n_c: u64, rho: f64) -> (f64, f64) {
    let n = n_t as f64 + n_c as f64;
    if n == 0.0 {
        return (0.0, 1.0);
    }
    let rho = clip(rho);
    let z = (n_t as f64 - n * rho) / (n * rho * (1.0 - rho)).sqrt();
    (z * z, normal_beyond(z))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alarm_rings_when_one_arm_loses_units_and_not_before() {
        assert!(sample_ratio_log_e(5_000, 95_000, 0.05, 100.0) < 0.0);
        assert!(sample_ratio_log_e(4_000, 95_000, 0.05, 100.0) > SAMPLE_RATIO_ALARM);
        assert!(sample_ratio_log_e(0, 2_000, 0.5, 100.0) > SAMPLE_RATIO_ALARM);
        assert_eq!(sample_ratio_log_e(0, 0, 0.05, 100.0), 0.0);
    }

    #[test]
    fn no_count_and_no_ratio_is_too_large_for_it() {
        for n_t in [0, 1, 1_000_000_000_000, u64::MAX] {
            for rho in [0.0, 1e-12, 0.5, 1.0, f64::NAN] {
                for kappa in [0.0, 100.0, f64::INFINITY, f64::NAN] {
                    assert!(sample_ratio_log_e(n_t, u64::MAX, rho, kappa).is_finite(), "{n_t} {rho} {kappa}");
                }
            }
        }
    }

    #[test]
    fn a_change_of_the_ratio_begins_a_new_sum() {
        let mut run = SampleRatio::default();
        assert_eq!(run.log_e(), 0.0);
        run.push(10, 90, 0.1);
        let first = run.push(30, 270, 0.1);
        assert_eq!(first, sample_ratio_log_e(40, 360, 0.1, 100.0));
        let both = run.push(200, 200, 0.5);
        assert_eq!(both, first + sample_ratio_log_e(200, 200, 0.5, 100.0));
    }

    #[test]
    fn billions_in_the_right_ratio_ring_nothing() {
        assert!(sample_ratio_log_e(50_000_000_000_000, 950_000_000_000_000, 0.05, 100.0) < 0.0);
    }
}
