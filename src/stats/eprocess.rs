//! Evidence that may be looked at all the time: is the treatment within its bound, or beyond it?
//!
//! Traffic is cut into blocks. Before a block is read, experts choose an alternative from *earlier* blocks; the block's
//! factor is its likelihood under that alternative over its likelihood under the nearest point of the null. The mean of
//! the experts' products is E: at most one on average while the null is true, so that it ever reaches `1/alpha` with
//! probability at most alpha (Ville 1939).
//!
//! E-variables for two streams: Turner, Ly & Grünwald 2024 (J. Stat. Plan. Inference, arXiv 2106.02693), Turner &
//! Grünwald 2023 (Stat. Probab. Lett., arXiv 2203.09785); averaging over bets: Waudby-Smith & Ramdas 2024 (J. R. Stat.
//! Soc. B 86, arXiv 2010.09686).

use super::project::{rmle_diff, rmle_ratio};
use super::{clip, count, part, share};

/// What was seen in both arms during the same moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Block {
    /// Bad treated units; fractions where a sticky unit was bad in part.
    pub bad_t: f64,
    /// All treated units.
    pub n_t: f64,
    /// Bad control units.
    pub bad_c: f64,
    /// All control units.
    pub n_c: f64,
}

impl Block {
    /// The same block with what cannot be (negative, not a number, more bad than all) put right.
    fn sound(self) -> Self {
        let (n_t, n_c) = (count(self.n_t), count(self.n_c));
        Self { bad_t: part(self.bad_t, n_t), n_t, bad_c: part(self.bad_c, n_c), n_c }
    }
}

/// What large evidence would show.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Side {
    /// That the bound is kept; the null is that it is reached or passed.
    Held,
    /// That the bound is passed; the null is that it is kept.
    Broken,
}

/// Pseudo-units at the baseline share `p0` that steady an expert's first guesses.
pub const KAPPA: f64 = 100.0;

/// After so many blocks the forgetting expert, which catches damage that sets in late, has forgotten half.
const HALF_LIFE: f64 = 10.0;

/// What an expert bets on above this would be certainty.
const NEARLY_ALL: f64 = 0.999;

/// How much worse the treatment may be than control.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Margin {
    Points(f64),
    Ratio(f64),
}

impl Margin {
    /// The margin as a difference of shares, where control's share is `control`.
    fn points(self, control: f64) -> f64 {
        match self {
            Self::Points(points) => points,
            Self::Ratio(ratio) => (ratio - 1.0) * control,
        }
    }

    /// Whether the pair is in the alternative, where a bet can win.
    fn admits(self, side: Side, (q_t, q_c): (f64, f64)) -> bool {
        let (seen, allowed) = match self {
            Self::Points(points) => (q_t - q_c, points),
            Self::Ratio(ratio) => (q_t, ratio * q_c),
        };
        match side {
            Side::Held => seen < allowed,
            Side::Broken => seen > allowed,
        }
    }

    /// The log-likelihood ratio of one block: the bet over its projection on the null's boundary.
    fn log_factor(self, block: Block, (q_t, q_c): (f64, f64)) -> f64 {
        let Block { bad_t, n_t, bad_c, n_c } = block;
        let (p_t, p_c) = match self {
            Self::Points(points) => rmle_diff(n_t * q_t, n_t, n_c * q_c, n_c, points),
            Self::Ratio(ratio) => rmle_ratio(n_t * q_t, n_t, n_c * q_c, n_c, ratio),
        };
        log_likelihood_ratio(bad_t, n_t, q_t, clip(p_t)) + log_likelihood_ratio(bad_c, n_c, q_c, clip(p_c))
    }
}

/// The log-likelihood ratio of one block about a difference of `margin`: the bet `(q_t, q_c)`, which must come from
/// elsewhere, over its projection. Its exponential is at most one on average wherever the null is true.
pub fn log_factor_of_difference(block: Block, bet: (f64, f64), margin: f64) -> f64 {
    Margin::Points(margin).log_factor(block.sound(), (clip(bet.0), clip(bet.1)))
}

fn log_likelihood_ratio(bad: f64, n: f64, q: f64, p: f64) -> f64 {
    bad * (q.ln() - p.ln()) + (n - bad) * ((-q).ln_1p() - (-p).ln_1p())
}

/// The experts' wealth, and its largest value so far.
#[derive(Clone, Debug)]
struct Wealth {
    logs: Vec<f64>,
    largest: f64,
}

impl Wealth {
    fn new(side: Side) -> Self {
        let experts = match side {
            Side::Held => 3,
            Side::Broken => 6,
        };
        Self { logs: vec![0.0; experts], largest: 0.0 }
    }

    fn bet(&mut self, factors: impl Iterator<Item = Option<f64>>) {
        for (log, factor) in self.logs.iter_mut().zip(factors) {
            *log += factor.unwrap_or(0.0);
        }
        self.largest = self.largest.max(self.log());
    }

    /// The log of the mean.
    fn log(&self) -> f64 {
        let top = self.logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = self.logs.iter().map(|log| (log - top).exp()).sum();
        top + (sum / self.logs.len() as f64).ln()
    }
}

/// The mean of earlier blocks, steadied by pseudo-units at `p0`.
fn steadied(bad: f64, n: f64, p0: f64, kappa: f64) -> f64 {
    (bad + kappa * p0) / (n + kappa)
}

/// The mean of earlier blocks that is not steadied, and so quick to believe the worst (Krichevsky & Trofimov 1981).
fn quick(bad: f64, n: f64) -> f64 {
    (bad + 0.5) / (n + 1.0)
}

/// Evidence about the difference, or the ratio, between two arms that ran at the same time.
#[derive(Clone, Debug)]
pub struct TwoArm {
    side: Side,
    margin: Margin,
    p0: f64,
    kappa: f64,
    past: Block,
    /// The past with older blocks fading away.
    fading: Block,
    wealth: Wealth,
}

impl TwoArm {
    /// Treatment against control plus `margin` (a share between 0 and 1); `p0` is the share that baseline had.
    pub fn new(side: Side, margin: f64, p0: f64) -> Self {
        Self::with_kappa(side, margin, p0, KAPPA)
    }

    /// The same, with another number of pseudo-units behind `p0`.
    pub fn with_kappa(side: Side, margin: f64, p0: f64, kappa: f64) -> Self {
        Self::start(side, Margin::Points(share(margin)), p0, kappa)
    }

    /// Treatment against `ratio` times control.
    pub fn ratio(side: Side, ratio: f64, p0: f64) -> Self {
        let ratio = if ratio.is_nan() { 1.0 } else { ratio.clamp(1e-6, 1e6) };
        Self::start(side, Margin::Ratio(ratio), p0, KAPPA)
    }

    fn start(side: Side, margin: Margin, p0: f64, kappa: f64) -> Self {
        // Without any pseudo-unit the first guess would be nothing over nothing.
        let kappa = count(kappa).max(super::EPSILON);
        let (past, fading) = (Block::default(), Block::default());
        Self { side, margin, p0: share(p0), kappa, past, fading, wealth: Wealth::new(side) }
    }

    /// Takes the next block and returns ln E. A block with an empty arm says nothing about the difference: it only
    /// teaches the experts.
    pub fn push(&mut self, block: Block) -> f64 {
        let block = block.sound();
        if block.n_t > 0.0 && block.n_c > 0.0 {
            let bets = self.experts().into_iter().map(|(q_t, q_c)| (clip(q_t), clip(q_c)));
            let factors =
                bets.map(|bet| self.margin.admits(self.side, bet).then(|| self.margin.log_factor(block, bet)));
            let factors: Vec<_> = factors.collect();
            self.wealth.bet(factors.into_iter());
        }
        let fade = 0.5_f64.powf(1.0 / HALF_LIFE);
        add(&mut self.past, 1.0, block);
        add(&mut self.fading, fade, block);
        self.log_e()
    }

    /// ln E after the blocks so far.
    pub fn log_e(&self) -> f64 {
        self.wealth.log()
    }

    /// The largest ln E so far; 0, where everything starts, if it only fell.
    pub fn max_log_e(&self) -> f64 {
        self.wealth.largest
    }

    /// What the experts bet on, from earlier blocks alone.
    fn experts(&self) -> Vec<(f64, f64)> {
        let Self { past, fading, p0, kappa, .. } = *self;
        let q_t = steadied(past.bad_t, past.n_t, p0, kappa);
        let q_c = steadied(past.bad_c, past.n_c, p0, kappa);
        let margin = self.margin.points(q_c);
        if self.side == Side::Held {
            let pooled = steadied(past.bad_t + past.bad_c, past.n_t + past.n_c, p0, kappa);
            return vec![(pooled, pooled), (q_t, q_c), (q_c + margin / 2.0, q_c)];
        }
        let step = margin.max(p0);
        let lately = (quick(fading.bad_t, fading.n_t), steadied(fading.bad_c, fading.n_c, p0, kappa));
        vec![
            (quick(past.bad_t, past.n_t), q_c),
            (q_t, q_c),
            ((q_c + margin + step).min(NEARLY_ALL), q_c),
            ((q_c + margin + 5.0 * step).min(NEARLY_ALL), q_c),
            (0.5, q_c),
            lately,
        ]
    }
}

fn add(sum: &mut Block, fade: f64, block: Block) {
    sum.bad_t = fade * sum.bad_t + block.bad_t;
    sum.n_t = fade * sum.n_t + block.n_t;
    sum.bad_c = fade * sum.bad_c + block.bad_c;
    sum.n_c = fade * sum.n_c + block.n_c;
}

/// Evidence about one arm against an absolute bound: the two-arm factor without control, projected on the bound.
#[derive(Clone, Debug)]
pub struct OneArm {
    side: Side,
    bound: f64,
    p0: f64,
    /// (bad, all) of earlier blocks.
    past: (f64, f64),
    fading: (f64, f64),
    wealth: Wealth,
}

impl OneArm {
    /// One arm against `bound` (a share between 0 and 1); `p0` is the share that baseline had.
    pub fn new(side: Side, bound: f64, p0: f64) -> Self {
        let empty = (0.0, 0.0);
        Self { side, bound: clip(bound), p0: share(p0), past: empty, fading: empty, wealth: Wealth::new(side) }
    }

    /// Takes the next block and returns ln E.
    pub fn push(&mut self, bad: f64, n: f64) -> f64 {
        let n = count(n);
        let bad = part(bad, n);
        if n > 0.0 {
            let (side, bound) = (self.side, self.bound);
            let factors = self.experts().into_iter().map(clip).map(|q| {
                let admitted = if side == Side::Held { q < bound } else { q > bound };
                admitted.then(|| bad * (q / bound).ln() + (n - bad) * ((1.0 - q) / (1.0 - bound)).ln())
            });
            self.wealth.bet(factors);
        }
        let fade = 0.5_f64.powf(1.0 / HALF_LIFE);
        self.past = (self.past.0 + bad, self.past.1 + n);
        self.fading = (fade * self.fading.0 + bad, fade * self.fading.1 + n);
        self.log_e()
    }

    /// ln E after the blocks so far.
    pub fn log_e(&self) -> f64 {
        self.wealth.log()
    }

    /// The largest ln E so far; 0, where everything starts, if it only fell.
    pub fn max_log_e(&self) -> f64 {
        self.wealth.largest
    }

    /// What the experts bet on, from earlier blocks alone.
    fn experts(&self) -> Vec<f64> {
        let Self { past, fading, bound, p0, .. } = *self;
        let q = steadied(past.0, past.1, p0, KAPPA);
        if self.side == Side::Held {
            return vec![q, bound / 2.0, q.min(bound) / 4.0 + 1e-6];
        }
        let step = bound.max(p0);
        vec![
            quick(past.0, past.1),
            q,
            (bound + step).min(NEARLY_ALL),
            (bound + 5.0 * step).min(NEARLY_ALL),
            0.5,
            quick(fading.0, fading.1),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTHY: Block = Block { bad_t: 0.0, n_t: 50.0, bad_c: 9.0, n_c: 950.0 };

    #[test]
    fn nothing_is_no_evidence() {
        for side in [Side::Held, Side::Broken] {
            let mut process = TwoArm::new(side, 0.01, 0.01);
            assert_eq!((process.log_e(), process.max_log_e()), (0.0, 0.0));
            for _ in 0..100 {
                assert_eq!(process.push(Block::default()), 0.0);
                assert_eq!(process.push(Block { n_t: 0.0, bad_t: 0.0, ..HEALTHY }), 0.0);
                assert_eq!(process.push(Block { n_c: 0.0, bad_c: 0.0, ..HEALTHY }), 0.0);
            }
            assert_eq!(OneArm::new(side, 0.01, 0.01).push(0.0, 0.0), 0.0);
        }
    }

    #[test]
    fn a_healthy_stream_holds_and_a_sick_one_breaks() {
        let mut held = TwoArm::new(Side::Held, 0.05, 0.01);
        let mut broken = TwoArm::new(Side::Broken, 0.05, 0.01);
        for _ in 0..20 {
            held.push(HEALTHY);
            broken.push(Block { bad_t: 20.0, ..HEALTHY });
        }
        assert!(held.log_e() > 20_f64.ln(), "{}", held.log_e());
        assert!(broken.log_e() > 20_f64.ln(), "{}", broken.log_e());
    }

    #[test]
    fn a_total_failure_is_shown_by_the_first_small_block() {
        let all = Block { bad_t: 5.0, n_t: 5.0, bad_c: 1.0, n_c: 95.0 };
        assert!(TwoArm::new(Side::Broken, 0.01, 0.01).push(all) > 20_f64.ln());
        assert!(OneArm::new(Side::Broken, 0.01, 0.003).push(5.0, 5.0) > 20_f64.ln());
    }

    #[test]
    fn the_largest_evidence_is_kept_when_evidence_falls() {
        let mut process = TwoArm::new(Side::Broken, 0.01, 0.01);
        let peak = process.push(Block { bad_t: 20.0, ..HEALTHY });
        for _ in 0..50 {
            process.push(HEALTHY);
        }
        assert!(process.log_e() < peak);
        assert_eq!(process.max_log_e(), peak);
    }

    #[test]
    fn a_ratio_is_judged_by_the_ratio() {
        let twice = Block { bad_t: 100.0, n_t: 1000.0, bad_c: 50.0, n_c: 1000.0 };
        let run = |side, ratio| {
            let mut process = TwoArm::ratio(side, ratio, 0.05);
            for _ in 0..20 {
                process.push(twice);
            }
            process.log_e()
        };
        assert!(run(Side::Held, 3.0) > 20_f64.ln());
        assert!(run(Side::Broken, 1.5) > 20_f64.ln());
        assert!(run(Side::Held, 1.5) < 0.0);
        assert!(run(Side::Broken, 3.0) < 0.0);
    }

    #[test]
    fn no_more_than_all_can_be_bad() {
        for side in [Side::Held, Side::Broken] {
            let all = Block { bad_t: 5.0, n_t: 5.0, bad_c: 95.0, n_c: 95.0 };
            let more = Block { bad_t: 50.0, bad_c: 950.0, ..all };
            assert_eq!(TwoArm::new(side, 0.01, 0.01).push(more), TwoArm::new(side, 0.01, 0.01).push(all));
            assert_eq!(OneArm::new(side, 0.01, 0.01).push(50.0, 5.0), OneArm::new(side, 0.01, 0.01).push(5.0, 5.0));
        }
    }

    #[test]
    fn what_cannot_be_counts_as_nothing() {
        let mut process = TwoArm::with_kappa(Side::Broken, f64::NAN, f64::NAN, f64::NAN);
        process.push(Block { bad_t: f64::NAN, n_t: f64::INFINITY, bad_c: -1.0, n_c: f64::NAN });
        process.push(Block { bad_t: 10.0, n_t: 5.0, bad_c: f64::INFINITY, n_c: 3.0 });
        assert!(process.log_e().is_finite());
    }
}
