//! The numbers behind a verdict: pure mathematics, no traffic, no clock, no chance.
//!
//! | file | question | decides a verdict |
//! |---|---|---|
//! | [`eprocess`] | is the treatment within its bound, however often somebody looks? | yes |
//! | [`project`] | which point of the null is nearest to what we bet on? | yes, under `eprocess` |
//! | [`multiple`] | what do several bounds, or many experiments, say together? | yes |
//! | [`ratio`] | are the arms as uneven as they were asked to be? | yes: invalid |
//! | [`plan`] | how many units does an answer need? | before the run |
//! | [`interval`] | what is the estimate, and how far off may it be? | no, shown beside it |
//! | [`sequence`] | the same, for people who keep looking | no |
//! | [`quantile`], [`band`] | where does a latency quantile lie? | no |
//! | [`rank`] | how often is a treated unit slower than a control unit? | no |
//! | [`survival`] | how long until people learned, or the system was well again? | no |
//! | [`programme`] | what did all the experiments bring? | no |
//! | [`beta`] | the special functions under all of them | |
//!
//! Logs are natural; `t` is treatment and `c` control; counts are `f64`, because a sticky unit may be bad in part.
//! Every method is checked against `tests/stats/vectors.json`, made by another implementation in another language.

pub mod band;
pub mod beta;
pub mod eprocess;
pub mod interval;
pub mod multiple;
pub mod plan;
pub mod programme;
pub mod project;
pub mod quantile;
pub mod rank;
pub mod ratio;
pub mod sequence;
pub mod survival;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod simulations;
#[cfg(test)]
mod vectors;

pub use self::eprocess::{Block, OneArm, Side, TwoArm};

/// Shares are kept this far from 0 and 1 where a logarithm is taken of them.
const EPSILON: f64 = 1e-9;

/// A share away from 0 and 1; what is no number counts as the smallest.
fn clip(share: f64) -> f64 {
    if share.is_nan() { EPSILON } else { share.clamp(EPSILON, 1.0 - EPSILON) }
}

/// A share between 0 and 1; what is no number counts as 0.
fn share(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) }
}

/// More units than any block has, so that sums stay finite and whole numbers exact.
const MOST: f64 = 1e15;

/// A count of units; what is no number counts as none.
fn count(units: f64) -> f64 {
    if units.is_nan() { 0.0 } else { units.clamp(0.0, MOST) }
}

/// Bad units among `of`; there cannot be more.
fn part(bad: f64, of: f64) -> f64 {
    count(bad).min(of)
}

/// The first whole number from `from` on where `holds`, by doubling and halving; it must hold for ever after.
fn first(from: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut step) = (from, 1_u64);
    if holds(low) {
        return low;
    }
    while step < 1 << 62 && !holds(low + step) {
        low += step;
        step *= 2;
    }
    let mut high = low + step;
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if holds(middle) { high = middle } else { low = middle }
    }
    high
}

/// The place between `low` and `high` where `above` turns from true to false.
fn bisect(mut low: f64, mut high: f64, above: impl Fn(f64) -> bool) -> f64 {
    // 200 halvings reach any place down to 1e-60; places away from zero stop earlier, at two neighbouring floats.
    for _ in 0..200 {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            break;
        }
        if above(middle) { low = middle } else { high = middle }
    }
    low + (high - low) / 2.0
}
