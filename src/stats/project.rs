//! The nearest point of a null: the likeliest pair of shares that differ by exactly the margin.
//!
//! Difference: the closed-form root of the likelihood's cubic, Farrington & Manning 1990 (Statist. Med. 9:1447),
//! appendix, after Miettinen & Nurminen 1985 (Statist. Med. 4:213). Ratio: the quadratic of the latter. Both take
//! fractional counts, so that with `n·q` they give the Kullback-Leibler projection of `q` on the null's boundary.

use super::bisect;

/// Nearer to an edge than this, the closed form has lost the digits that matter there.
const EDGE: f64 = 1e-7;

/// The likeliest `(p1, p2)` with `p1 - p2 = delta`, for `x1` bad of `n1` and `x2` bad of `n2`.
pub fn rmle_diff(x1: f64, n1: f64, x2: f64, n2: f64, delta: f64) -> (f64, f64) {
    let delta = delta.clamp(-1.0, 1.0);
    let p1 = cubic_root(x1, n1, x2, n2, delta);
    let p2 = p1 - delta;
    let to_edge = p1.min(p2).min(1.0 - p1).min(1.0 - p2);
    if to_edge > EDGE { (p1, p2) } else { polished(x1, n1, x2, n2, delta) }
}

/// The closed form; no number where an arm is empty.
fn cubic_root(x1: f64, n1: f64, x2: f64, n2: f64, delta: f64) -> f64 {
    let (p1, p2, theta) = (x1 / n1, x2 / n2, n2 / n1);
    let a = 1.0 + theta;
    let b = -(1.0 + theta + p1 + theta * p2 + delta * (theta + 2.0));
    let c = delta * delta + delta * (2.0 * p1 + theta + 1.0) + p1 + theta * p2;
    let d = -p1 * delta * (1.0 + delta);
    let third = b / (3.0 * a);
    let v = third.powi(3) - b * c / (6.0 * a * a) + d / (2.0 * a);
    let u = (third * third - c / (3.0 * a)).max(0.0).sqrt().copysign(v);
    let cosine = if u == 0.0 { 0.0 } else { (v / u.powi(3)).clamp(-1.0, 1.0) };
    let w = (std::f64::consts::PI + cosine.acos()) / 3.0;
    2.0 * u * w.cos() - third
}

/// The same point by bisection of the score, measured from the lower edge so that tiny shares keep all their digits.
fn polished(x1: f64, n1: f64, x2: f64, n2: f64, delta: f64) -> (f64, f64) {
    let (low1, low2) = (delta.max(0.0), (-delta).max(0.0));
    let room = 1.0 - delta.abs();
    // The slope of the log-likelihood, times both variances: a sum that has no poles inside.
    let rising = |step: f64| {
        let (p1, p2) = (low1 + step, low2 + step);
        let (not1, not2) = ((1.0 - low1) - step, (1.0 - low2) - step);
        (x1 - n1 * p1) * p2 * not2 + (x2 - n2 * p2) * p1 * not1 > 0.0
    };
    let step = bisect(0.0, room, rising);
    ((low1 + step).min(1.0), (low2 + step).min(1.0))
}

/// The likeliest `(p1, p2)` with `p1 = ratio · p2`, for `x1` bad of `n1` and `x2` bad of `n2`.
pub fn rmle_ratio(x1: f64, n1: f64, x2: f64, n2: f64, ratio: f64) -> (f64, f64) {
    let a = (n1 + n2) * ratio;
    let b = ratio * n1 + x1 + n2 + ratio * x2;
    let c = x1 + x2;
    let root = (b * b - 4.0 * a * c).max(0.0).sqrt();
    // The smaller root, written without the difference of two large numbers.
    let p2 = if c > 0.0 { (2.0 * c / (b + root)).min(1.0) } else { 0.0 };
    ((ratio * p2).min(1.0), p2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the projection must satisfy inside the square; zero there, and only there.
    fn residual(q: (f64, f64), p: (f64, f64), n: (f64, f64)) -> f64 {
        n.0 * (q.0 - p.0) / (p.0 * (1.0 - p.0)) + n.1 * (q.1 - p.1) / (p.1 * (1.0 - p.1))
    }

    #[test]
    fn the_closed_form_and_the_bisection_are_the_same_point() {
        for (x1, n1, x2, n2, delta) in [
            (0.5, 50.0, 9.5, 950.0, 0.01),
            (25.0, 50.0, 9.5, 950.0, 0.01),
            (3.0, 50.0, 940.0, 950.0, -0.2),
            (49.0, 50.0, 9.5, 950.0, 0.5),
            (10.0, 20.0, 5.0, 10.0, 0.001),
        ] {
            let p1 = cubic_root(x1, n1, x2, n2, delta);
            let (exact, _) = polished(x1, n1, x2, n2, delta);
            assert!((p1 - exact).abs() < 1e-11, "{x1}/{n1} {x2}/{n2} {delta}: {p1} {exact}");
        }
    }

    #[test]
    fn tiny_shares_keep_their_digits() {
        let q = 1e-9;
        let (p1, p2) = rmle_diff(20.0 * q, 20.0, 380.0 * q, 380.0, 0.01);
        assert!(p2 > 0.0 && p2 < 1e-9, "{p2}");
        assert!(residual((q, q), (p1, p2), (20.0, 380.0)).abs() < 1e-4, "{p1} {p2}");
    }

    #[test]
    fn the_point_is_inside_the_square_and_on_the_line_at_every_corner() {
        for bad1 in [0.0, 7.0] {
            for bad2 in [0.0, 11.0] {
                for delta in [-1.0, -0.999_999, -0.3, -1e-9, 0.0, 1e-9, 0.3, 0.999_999, 1.0] {
                    let (p1, p2) = rmle_diff(bad1, 7.0, bad2, 11.0, delta);
                    assert!((0.0..=1.0).contains(&p1) && (0.0..=1.0).contains(&p2), "{bad1} {bad2} {delta}: {p1} {p2}");
                    assert!((p1 - p2 - delta).abs() < 1e-12, "{bad1} {bad2} {delta}: {p1} {p2}");
                }
                for ratio in [1e-6, 0.5, 1.0, 1.5, 1e6] {
                    let (p1, p2) = rmle_ratio(bad1, 7.0, bad2, 11.0, ratio);
                    assert!((0.0..=1.0).contains(&p1) && (0.0..=1.0).contains(&p2), "{bad1} {bad2} {ratio}: {p1} {p2}");
                }
            }
        }
    }

    #[test]
    fn a_point_that_is_on_the_line_already_stays_where_it_is() {
        let (p1, p2) = rmle_diff(0.03 * 40.0, 40.0, 0.02 * 90.0, 90.0, 0.01);
        assert!((p1 - 0.03).abs() < 1e-12 && (p2 - 0.02).abs() < 1e-12, "{p1} {p2}");
        let (p1, p2) = rmle_ratio(0.03 * 40.0, 40.0, 0.02 * 90.0, 90.0, 1.5);
        assert!((p1 - 0.03).abs() < 1e-12 && (p2 - 0.02).abs() < 1e-12, "{p1} {p2}");
    }
}
