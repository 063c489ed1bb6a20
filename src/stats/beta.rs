//! The beta function, its tails, and the binomial and normal distributions.
//!
//! Incomplete beta: the continued fraction NIST DLMF 8.17.22 by Lentz's method (Thompson & Barnett 1986, J. Comput.
//! Phys. 64:490), in logarithms so that a far tail is a number and not zero. The deviance form of a beta ratio is
//! Loader 2000, "Fast and accurate computation of binomial probabilities": at a million units the difference of three
//! log-gammas has lost nine digits, the deviance has lost none.

use libm::lgamma;

/// ln B(a, b).
pub fn log_beta(a: f64, b: f64) -> f64 {
    lgamma(a) + lgamma(b) - lgamma(a + b)
}

/// ln of a Beta(a, b) mixture's likelihood of `bad` and `good` units over their likelihood under the share `p`.
pub fn log_mixture(bad: f64, good: f64, p: f64, a: f64, b: f64) -> f64 {
    log_beta_over(a + bad, b + good, p) - log_beta_over(a, b, p)
}

/// ln( B(a, b) / (p^a (1-p)^b) ).
fn log_beta_over(a: f64, b: f64, p: f64) -> f64 {
    let n = a + b;
    deviance(a, n * p)
        + deviance(b, n * (1.0 - p))
        + 0.5 * (2.0 * std::f64::consts::PI * (1.0 / a + 1.0 / b)).ln()
        + stirling_error(a)
        + stirling_error(b)
        - stirling_error(n)
}

/// `x ln(x/m) + m - x`, without losing digits where x is near m.
fn deviance(x: f64, m: f64) -> f64 {
    let v = (x - m) / (x + m);
    if v.abs() > 0.1 {
        return x * (x / m).ln() + m - x;
    }
    let mut sum = (x - m) * v;
    let mut term = 2.0 * x * v;
    for odd in (3..).step_by(2) {
        term *= v * v;
        let next = sum + term / f64::from(odd);
        if next == sum {
            break;
        }
        sum = next;
    }
    sum
}

/// What Stirling's formula leaves of ln Γ(x).
fn stirling_error(x: f64) -> f64 {
    if x < 16.0 {
        return lgamma(x) - ((x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln());
    }
    let square = 1.0 / (x * x);
    (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square * (1.0 / 1680.0 - square / 1188.0)))) / x
}

/// ln P(X <= x) for X ~ Beta(a, b).
pub fn log_beta_below(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        f64::NEG_INFINITY
    } else if x >= 1.0 {
        0.0
    } else if x < (a + 1.0) / (a + b + 2.0) {
        log_tail(x, a, b).min(0.0)
    } else {
        log_rest(log_tail(1.0 - x, b, a))
    }
}

/// ln P(X >= x) for X ~ Beta(a, b).
pub fn log_beta_above(x: f64, a: f64, b: f64) -> f64 {
    log_beta_below(1.0 - x, b, a)
}

/// ln(1 - e^log).
fn log_rest(log: f64) -> f64 {
    (-log.min(0.0).exp()).ln_1p()
}

/// The continued fraction, for the side of the mean where it converges quickly.
fn log_tail(x: f64, a: f64, b: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    // It needs about the square root of the larger parameter; the limit is for parameters that no run has.
    for m in 1..100_000_u32 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / away(1.0 + even * d);
        c = away(1.0 + even / c);
        fraction *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / away(1.0 + odd * d);
        c = away(1.0 + odd / c);
        fraction *= d * c;
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    a * x.ln() + b * (-x).ln_1p() - a.ln() - log_beta(a, b) + fraction.ln()
}

/// P(X <= k) for X ~ Binomial(n, p).
pub fn binomial_at_most(k: u64, n: u64, p: f64) -> f64 {
    if k >= n {
        return 1.0;
    }
    log_beta_below(1.0 - p, (n - k) as f64, k as f64 + 1.0).exp()
}

/// P(Z <= z) for a standard normal Z.
pub fn normal_below(z: f64) -> f64 {
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
}

/// P(|Z| >= |z|) for a standard normal Z.
pub fn normal_beyond(z: f64) -> f64 {
    libm::erfc(z.abs() / std::f64::consts::SQRT_2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deviance_form_is_the_difference_of_log_betas() {
        for (bad, good, p, a, b) in
            [(0.0, 100.0, 0.02_f64, 0.5, 0.5), (12.0, 900.0, 0.05, 5.0, 95.0), (3.0, 0.0, 0.9, 20.0, 2.2)]
        {
            let plain = log_beta(a + bad, b + good) - log_beta(a, b) - bad * p.ln() - good * (-p).ln_1p();
            let ours = log_mixture(bad, good, p, a, b);
            assert!((ours - plain).abs() < 1e-11, "{bad} {good} {p}: {ours} {plain}");
        }
    }

    #[test]
    fn huge_counts_that_are_as_expected_are_no_surprise() {
        // Laplace: half a squared deviation, less half a log of the count over the prior's. The difference of
        // log-gammas would be wrong in the first digit here.
        let (n, off) = (1e15_f64, 1e7_f64);
        let expected = 0.5 * off * off / (n * 0.05 * 0.95)
            - 0.5 * (n / 100.0).ln()
            - (stirling_error(5.0) + stirling_error(95.0) - stirling_error(100.0));
        let log = log_mixture(0.05 * n + off, 0.95 * n - off, 0.05, 5.0, 95.0);
        assert!((log - expected).abs() < 1e-4, "{log} {expected}");
    }

    #[test]
    fn tails_are_those_of_the_binomial_by_summing_it() {
        let (n, p) = (30_u64, 0.3_f64);
        let mut sum = 0.0;
        for k in 0..=n {
            let choose = (0..k).fold(1.0, |c, i| c * (n - i) as f64 / (i + 1) as f64);
            sum += choose * p.powi(k as i32) * (1.0 - p).powi((n - k) as i32);
            assert!((binomial_at_most(k, n, p) - sum).abs() < 1e-13, "{k}: {} {sum}", binomial_at_most(k, n, p));
        }
    }

    #[test]
    fn both_tails_make_one_and_a_far_tail_is_not_zero() {
        for x in [0.001, 0.04, 0.05, 0.5, 0.99] {
            let both = log_beta_below(x, 5.0, 95.0).exp() + log_beta_above(x, 5.0, 95.0).exp();
            assert!((both - 1.0).abs() < 1e-13, "{x}: {both}");
        }
        let far = log_beta_below(1e-6, 200.0, 3.0);
        assert!(far.is_finite() && far < -2000.0, "{far}");
    }
}
