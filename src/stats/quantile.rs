//! Where a quantile lies: of the normal distribution, and of latencies without assuming any distribution.
//!
//! Normal: algorithm AS 241, Wichura 1988 (Appl. Statist. 37:477). Ranks, one look: David & Nagaraja 2003, Order
//! Statistics, 7.1. Ranks, always: Howard & Ramdas 2022 (Bernoulli 28:1704, arXiv 1906.09712), theorem 1. Buckets:
//! Masson, Rim & Lee 2019 (VLDB 12:2195).

use super::beta::binomial_at_most;
use super::sequence::log_mart_centred;
use super::{clip, first, share};

/// The z with P(Z <= z) = p.
pub fn normal_quantile(p: f64) -> f64 {
    if p.is_nan() || p <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if p >= 1.0 {
        return f64::INFINITY;
    }
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        return q * rational(0.180625 - q * q, &CENTRE);
    }
    let r = (-p.min(1.0 - p).ln()).sqrt();
    let z = if r <= 5.0 { rational(r - 1.6, &MIDDLE) } else { rational(r - 5.0, &FAR) };
    z.copysign(q)
}

/// The z of a two-sided interval.
pub(super) fn two_sided(confidence: f64) -> f64 {
    normal_quantile(1.0 - (1.0 - share(confidence)) / 2.0)
}

/// One polynomial over another, constant terms first.
fn rational(r: f64, [above, below]: &[[f64; 8]; 2]) -> f64 {
    let horner = |terms: &[f64; 8]| terms.iter().rev().fold(0.0, |sum, term| sum * r + term);
    horner(above) / horner(below)
}

#[expect(clippy::excessive_precision, reason = "the digits are the paper's")]
const CENTRE: [[f64; 8]; 2] = [
    [
        3.387_132_872_796_366_608,
        1.331_416_678_917_843_774_5e2,
        1.971_590_950_306_551_442_7e3,
        1.373_169_376_550_946_112_5e4,
        4.592_195_393_154_987_145_7e4,
        6.726_577_092_700_870_085_3e4,
        3.343_057_558_358_812_810_5e4,
        2.509_080_928_730_122_672_7e3,
    ],
    [
        1.0,
        4.231_333_070_160_091_125_2e1,
        6.871_870_074_920_579_083e2,
        5.394_196_021_424_751_107_7e3,
        2.121_379_430_158_659_586_7e4,
        3.930_789_580_009_271_061e4,
        2.872_908_573_572_194_267_4e4,
        5.226_495_278_852_854_561e3,
    ],
];
#[expect(clippy::excessive_precision, reason = "the digits are the paper's")]
const MIDDLE: [[f64; 8]; 2] = [
    [
        1.423_437_110_749_683_577_34,
        4.630_337_846_156_545_295_9,
        5.769_497_221_460_691_405_5,
        3.647_848_324_763_204_605_04,
        1.270_458_252_452_368_382_58,
        2.417_807_251_774_506_117_7e-1,
        2.272_384_498_926_918_458_33e-2,
        7.745_450_142_783_414_076_4e-4,
    ],
    [
        1.0,
        2.053_191_626_637_758_821_87,
        1.676_384_830_183_803_849_4,
        6.897_673_349_851_000_045_5e-1,
        1.481_039_764_274_800_745_9e-1,
        1.519_866_656_361_645_719_66e-2,
        5.475_938_084_995_344_946e-4,
        1.050_750_071_644_416_843_24e-9,
    ],
];
#[expect(clippy::excessive_precision, reason = "the digits are the paper's")]
const FAR: [[f64; 8]; 2] = [
    [
        6.657_904_643_501_103_777_2,
        5.463_784_911_164_114_369_9,
        1.784_826_539_917_291_335_8,
        2.965_605_718_285_048_912_3e-1,
        2.653_218_952_657_612_309_3e-2,
        1.242_660_947_388_078_438_6e-3,
        2.711_555_568_743_487_578_15e-5,
        2.010_334_399_292_288_132_65e-7,
    ],
    [
        1.0,
        5.998_322_065_558_879_376_9e-1,
        1.369_298_809_227_358_053_1e-1,
        1.487_536_129_085_061_485_25e-2,
        7.868_691_311_456_132_591e-4,
        1.846_318_317_510_054_681_8e-5,
        1.421_511_758_316_445_888_7e-7,
        2.044_263_103_389_939_785_64e-15,
    ],
];

/// The ranks, counted from 1, of the two order statistics between which a quantile lies. `None` is without end: the
/// sample is too small to say.
pub type Ranks = (Option<u64>, Option<u64>);

/// Ranks around the p-quantile of `n` values that hold with `confidence`, if one looks once.
pub fn ranks_fixed(n: u64, p: f64, confidence: f64) -> Ranks {
    let tail = (1.0 - share(confidence)) / 2.0;
    let p = share(p);
    let low = first(0, |k| binomial_at_most(k, n, p) >= tail);
    let high = first(0, |k| binomial_at_most(k, n, p) >= 1.0 - tail) + 1;
    within(low, high, n)
}

/// Ranks around the p-quantile of `n` values that hold however often one looks; tightest after `t_opt` values.
pub fn ranks_sequential(n: u64, p: f64, alpha: f64, t_opt: f64) -> Ranks {
    let limit = (1.0 / alpha).ln();
    let p = clip(p);
    let log = |k: u64| log_mart_centred(k as f64, n as f64, p, t_opt);
    // Convex in the count: it falls to its lowest, which is always accepted, and rises from there.
    let lowest = first(0, |k| k >= n || log(k + 1) >= log(k));
    let low = first(0, |k| k >= lowest || log(k) < limit);
    let high = first(lowest, |k| k > n || log(k) >= limit);
    within(low, high, n)
}

fn within(low: u64, high: u64, n: u64) -> Ranks {
    ((low >= 1).then_some(low), (high <= n).then_some(high))
}

/// The smallest sample whose upper limit for the p-quantile is finite, if one looks once.
pub fn smallest_sample_fixed(p: f64, confidence: f64) -> u64 {
    (((1.0 - share(confidence)) / 2.0).ln() / clip(p).ln()).ceil() as u64
}

/// The smallest sample whose upper limit for the p-quantile is finite, however often one looks.
pub fn smallest_sample_sequential(p: f64, alpha: f64, t_opt: f64) -> u64 {
    let limit = (1.0 / alpha).ln();
    first(1, |n| log_mart_centred(n as f64, n as f64, clip(p), t_opt) >= limit)
}

/// The bucket of a histogram whose buckets are `accuracy` wide: its number, and its edges `(below, up to]`. For an
/// interval take the lower edge at the low rank and the upper edge at the high one.
pub fn log_bucket(value: f64, accuracy: f64) -> (i64, f64, f64) {
    let gamma = (1.0 + accuracy) / (1.0 - accuracy);
    let index = (value.ln() / gamma.ln()).ceil();
    (index as i64, gamma.powf(index - 1.0), gamma.powf(index))
}

#[cfg(test)]
mod tests {
    use super::super::beta::normal_below;
    use super::*;

    #[test]
    fn a_normal_quantile_is_the_way_back_from_its_share() {
        for p in [1e-300, 1e-20, 1e-6, 0.01, 0.075, 0.2, 0.5, 0.6, 0.925, 0.975, 0.999_999] {
            let back = normal_below(normal_quantile(p));
            assert!((back / p - 1.0).abs() < 1e-12, "{p}: {back}");
        }
        assert!((normal_quantile(0.975) - 1.959_963_984_540_054).abs() < 1e-15);
        assert_eq!(normal_quantile(0.0), f64::NEG_INFINITY);
        assert_eq!(normal_quantile(1.0), f64::INFINITY);
    }

    #[test]
    fn an_upper_limit_appears_with_the_smallest_sample_that_allows_it() {
        for p in [0.5, 0.9, 0.99] {
            let n = smallest_sample_fixed(p, 0.95);
            assert_eq!(ranks_fixed(n - 1, p, 0.95).1, None, "{p}");
            assert!(ranks_fixed(n, p, 0.95).1.is_some(), "{p}");
            let n = smallest_sample_sequential(p, 0.05, 1000.0);
            assert_eq!(ranks_sequential(n - 1, p, 0.05, 1000.0).1, None, "{p}");
            assert_eq!(ranks_sequential(n, p, 0.05, 1000.0).1, Some(n), "{p}");
        }
    }

    #[test]
    fn of_nothing_no_quantile_is_known() {
        assert_eq!(ranks_fixed(0, 0.5, 0.95), (None, None));
        assert_eq!(ranks_sequential(0, 0.5, 0.05, 1000.0), (None, None));
    }

    #[test]
    fn a_bucket_contains_its_value() {
        for value in [1e-9, 0.3, 1.0, 17.5, 1e9] {
            let (_, below, up_to) = log_bucket(value, 0.01);
            assert!(below < value * (1.0 + 1e-12) && value <= up_to * (1.0 + 1e-12), "{value}: {below} {up_to}");
        }
    }
}
