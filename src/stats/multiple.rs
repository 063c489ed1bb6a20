//! What several bounds of one run, or many experiments of a programme, say together.
//!
//! Held needs every bound at full alpha: the intersection-union test, Berger 1982 (Technometrics 24:295). Broken needs
//! one bound at alpha shared among all (Bonferroni). Holm 1979 (Scand. J. Statist. 6:65) for p-values; e-BH, Wang &
//! Ramdas 2022 (J. R. Stat. Soc. B 84:822), for the false discovery rate of a programme.

use super::eprocess::Side;

/// The ln E that one of `tests` must reach so that all together are wrong with probability `alpha` at most.
pub fn crossing(tests: usize, alpha: f64) -> f64 {
    (tests.max(1) as f64 / alpha).ln()
}

/// What the bounds say together; none of both is inconclusive. Without any bound nothing is said: no data is never a
/// success.
pub fn together(held: &[f64], broken: &[f64], alpha_held: f64, alpha_broken: f64) -> Option<Side> {
    let beyond = crossing(broken.len(), alpha_broken);
    let kept = crossing(1, alpha_held);
    if broken.iter().any(|log_e| *log_e >= beyond) {
        Some(Side::Broken)
    } else if !held.is_empty() && held.iter().all(|log_e| *log_e >= kept) {
        Some(Side::Held)
    } else {
        None
    }
}

/// p-values adjusted step by step, in the order they came.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut adjusted = vec![0.0; p.len()];
    let mut running = 0.0_f64;
    for (rank, index) in order.into_iter().enumerate() {
        running = running.max(((p.len() - rank) as f64 * p[index]).min(1.0));
        adjusted[index] = running;
    }
    adjusted
}

/// The places of those e-values that may be called discoveries, so that a share `alpha` of them at most is false.
pub fn e_bh(e: &[f64], alpha: f64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..e.len()).collect();
    order.sort_by(|a, b| e[*b].total_cmp(&e[*a]));
    let enough = |rank: usize| e[order[rank - 1]] >= e.len() as f64 / (alpha * rank as f64);
    let found = (1..=e.len()).rev().find(|rank| enough(*rank)).unwrap_or(0);
    order.truncate(found);
    order.sort_unstable();
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_is_stronger_than_held_and_nothing_is_no_success() {
        assert_eq!(together(&[9.0], &[9.0], 0.05, 0.05), Some(Side::Broken));
        assert_eq!(together(&[9.0], &[0.0], 0.05, 0.05), Some(Side::Held));
        assert_eq!(together(&[], &[], 0.05, 0.05), None);
        assert_eq!(together(&[f64::NAN], &[f64::NAN], 0.05, 0.05), None);
    }

    #[test]
    fn empty_lists_stay_empty() {
        assert!(holm(&[]).is_empty());
        assert!(e_bh(&[], 0.05).is_empty());
        assert!(e_bh(&[1.0, 2.0], 0.05).is_empty());
    }

    #[test]
    fn a_weak_one_is_found_in_the_company_of_strong_ones() {
        assert_eq!(e_bh(&[45.0, 45.0], 0.05), [0, 1].to_vec());
        assert_eq!(e_bh(&[1000.0, 21.0], 0.05), [0, 1].to_vec());
        assert_eq!(e_bh(&[0.0, 21.0], 0.05), Vec::<usize>::new());
    }
}
