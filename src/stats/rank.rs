//! How often a treated unit is slower than a control unit: description, not a verdict.
//!
//! Mann & Whitney 1947 (Ann. Math. Statist. 18:50) with the correction for ties; the share of pairs is the measure of
//! Vargha & Delaney 2000 (J. Educ. Behav. Stat. 25:101).

use super::beta::normal_beyond;

/// Two samples compared by order alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Order {
    /// Pairs in which the first sample's value is the larger; ties count half.
    pub u: f64,
    /// The same as a share of all pairs.
    pub share: f64,
    /// Two-sided p-value by the normal approximation.
    pub p: f64,
    /// The same with the correction for continuity.
    pub p_corrected: f64,
}

/// Compares two samples; none when one is empty.
pub fn order(x: &[f64], y: &[f64]) -> Option<Order> {
    if x.is_empty() || y.is_empty() {
        return None;
    }
    let mut all: Vec<(f64, bool)> = x.iter().map(|v| (*v, true)).chain(y.iter().map(|v| (*v, false))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut rank_sum, mut ties, mut before) = (0.0, 0.0, 0.0);
    for equal in all.chunk_by(|a, b| a.0 == b.0) {
        let size = equal.len() as f64;
        let middle = before + (size + 1.0) / 2.0;
        rank_sum += middle * equal.iter().filter(|(_, first)| *first).count() as f64;
        ties += size * size * size - size;
        before += size;
    }
    let (n, m) = (x.len() as f64, y.len() as f64);
    let u = rank_sum - n * (n + 1.0) / 2.0;
    let variance = n * m / 12.0 * ((n + m + 1.0) - ties / ((n + m) * (n + m - 1.0)));
    let distance = (u - n * m / 2.0).abs();
    let p = |distance: f64| {
        if variance > 0.0 { normal_beyond(distance.max(0.0) / variance.sqrt()) } else { 1.0 }
    };
    Some(Order { u, share: u / (n * m), p: p(distance), p_corrected: p(distance - 0.5) })
}

/// The exact two-sided p-value of `u` for samples of `n` and `m` values without ties, by counting all orders. Its cost
/// is n² m²: for small samples.
pub fn exact_p(u: f64, n: usize, m: usize) -> f64 {
    let pairs = n * m;
    // `ways[i][k]`: orders of i values of the first sample among those of the second so far that give U = k.
    let mut ways = vec![vec![0.0_f64; pairs + 1]; n + 1];
    ways.iter_mut().for_each(|row| row[0] = 1.0);
    for second in 1..=m {
        for first in 1..=n {
            let (fewer, row) = ways.split_at_mut(first);
            // The largest value of all is one of the first sample's, and beats all `second` others; or it is not.
            for k in second..=pairs {
                row[0][k] += fewer[first - 1][k - second];
            }
        }
    }
    let far = u.max(pairs as f64 - u).ceil() as usize;
    let beyond: f64 = ways[n].iter().skip(far).sum();
    (2.0 * beyond / ways[n].iter().sum::<f64>()).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apart_is_all_pairs_and_equal_is_half_of_them() {
        let apart = order(&[3.0, 4.0], &[1.0, 2.0]).expect("two samples");
        assert_eq!((apart.u, apart.share), (4.0, 1.0));
        let equal = order(&[1.0, 1.0], &[1.0, 1.0, 1.0]).expect("two samples");
        assert_eq!((equal.share, equal.p, equal.p_corrected), (0.5, 1.0, 1.0));
        assert_eq!(order(&[], &[1.0]), None);
    }

    #[test]
    fn small_samples_are_counted() {
        // Of the six orders of two and two, one gives U = 4 and one gives U = 0.
        assert!((exact_p(4.0, 2, 2) - 2.0 / 6.0).abs() < 1e-15);
        assert!((exact_p(0.0, 2, 2) - 2.0 / 6.0).abs() < 1e-15);
        assert_eq!(exact_p(2.0, 2, 2), 1.0);
    }
}
