//! Phases instead of arms (`carry: none`): a phase is compared with baseline, block by block.
//!
//! How many blocks there are is fixed before the first unit of the phase comes, from the rate of baseline, so that looking
//! again and again stays honest: baseline is cut into so many equal parts by arrival, the phase into blocks as large as it
//! needs for as many, and they are paired in order (decisions.md 2.14).

use std::ops::Range;
use std::time::Duration;

use crate::measure::block::{self, ENOUGH, Pair, Ticks, Undecided};
use crate::measure::{Arm, Counts, Phase, TICK, Tally};

/// Ticks before the fault whose requests may still be under way when it comes, so that they may have met it.
const STRADDLING: u32 = 4;

/// What stands beside each block of a phase.
#[derive(Clone, Debug)]
pub(super) struct Pairing {
    /// Arrivals of a block.
    size: f64,
    /// The ticks of baseline beside each block.
    beside: Vec<Range<u32>>,
}

impl Pairing {
    /// For a phase of this length, after a baseline of that one.
    pub(super) fn new(tally: &Tally, baseline: Duration, length: Duration) -> Self {
        let ticks = |span: Duration| (span.as_millis() / TICK.as_millis()) as u32;
        let end = ticks(baseline).checked_sub(STRADDLING).filter(|end| *end > 2 * STRADDLING);
        let (end, baseline) = end.map_or((u32::MAX, baseline), |end| (end, TICK * end));
        let came: Vec<(u32, u64)> = tally
            .requests(Phase::Baseline)
            .take_while(|(tick, _)| *tick < end)
            .map(|(tick, arms)| (tick, arms[Arm::Treatment as usize].arrived))
            .collect();
        let total: u64 = came.iter().map(|(_, arrived)| arrived).sum();
        let expected = (total as f64 * length.as_secs_f64() / baseline.as_secs_f64().max(0.001)).round() as u64;
        let most = (total / ENOUGH).min(expected / ENOUGH).min(came.len() as u64).min(ticks(length).into()).max(1);
        let mut beside = Vec::new();
        let (mut from, mut seen) = (0, 0);
        for (tick, arrived) in came {
            seen += arrived;
            if seen * most >= total * (beside.len() as u64 + 1) {
                beside.push(from..tick + 1);
                from = tick + 1;
            }
        }
        let size = expected as f64 / beside.len().max(1) as f64;
        Self { size: size.max(1.0), beside }
    }

    /// The blocks of one rule that come after some others. Without a bound against baseline they are as small as may be,
    /// and nothing is beside them.
    pub(super) fn cut(
        &self,
        tally: &Tally,
        rule: usize,
        paired: bool,
        after: After,
        (units, complete, undecided): (&Ticks, u32, Undecided),
    ) -> Vec<Pair> {
        let (mut came, mut number) = (after.came, after.blocks);
        let full = |sums: &[Counts; 2]| {
            let arrived = sums[Arm::Treatment as usize].arrived;
            if !paired {
                return arrived >= ENOUGH;
            }
            // As many as there should be by now, so that blocks made of whole ticks do not fall behind.
            let full = (came + arrived) as f64 >= self.size * (number + 1) as f64;
            if full {
                (came, number) = (came + arrived, number + 1);
            }
            full
        };
        let units = units.range(after.from..);
        let mut blocks = block::cut_when(units, rule, complete, undecided, full, |block| block.n_t > 0);
        if !paired {
            return blocks;
        }
        for place in 0..blocks.len() {
            let Some(range) = self.beside.get(after.blocks + place) else { break };
            let mut sum = Counts::default();
            let ticks = tally.requests_from(Phase::Baseline, range.start).take_while(|(tick, _)| *tick < range.end);
            ticks.for_each(|(_, arms)| sum.add(&arms[Arm::Treatment as usize]));
            if undecided == Undecided::Wait && !sum.is_decided(rule) {
                blocks.truncate(place);
                break;
            }
            (blocks[place].bad_c, blocks[place].n_c) = (sum.bad[rule], sum.decided[rule]);
        }
        blocks
    }
}

/// What has been cut already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct After {
    /// The first tick that is in no block yet.
    pub(super) from: u32,
    /// Blocks before it.
    pub(super) blocks: usize,
    /// Units in those.
    pub(super) came: u64,
}

impl After {
    /// One more block.
    pub(super) fn and(&mut self, block: &Pair) {
        *self = Self { from: block.last_tick + 1, blocks: self.blocks + 1, came: self.came + block.n_t };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Batch;
    use tokio::time::Instant;

    /// So many units in each tick of baseline, the last of which is not decided.
    fn baseline(ticks: u32, units: u64, open: u64) -> Tally {
        let mut tally = Tally::new(1, None);
        let mut batch = Batch::empty(0, Instant::now());
        for tick in 0..ticks {
            let counts = &mut batch.ticks.entry((Phase::Baseline, tick)).or_default()[0];
            counts.arrived = units;
            counts.decided[0] = units - if tick + STRADDLING + 1 == ticks { open } else { 0 };
            counts.bad[0] = f64::from(tick % 2);
        }
        tally.add(batch);
        tally
    }

    fn units(ticks: Range<u32>, arrived: u64) -> Ticks {
        let tick = |tick| {
            let mut arms = [Counts::default(); 3];
            (arms[0].arrived, arms[0].decided[0], arms[0].bad[0]) = (arrived, arrived, 2.0);
            (tick, arms)
        };
        ticks.map(tick).collect()
    }

    fn pairs(pairing: &Pairing, tally: &Tally, units: &Ticks, undecided: Undecided) -> Vec<Pair> {
        pairing.cut(tally, 0, true, After::default(), (units, u32::MAX, undecided))
    }

    #[tokio::test(start_paused = true)]
    async fn inject_and_baseline_are_cut_into_as_many_blocks_and_paired_in_order() {
        // Eleven seconds at forty a second, of which the last may have met the fault: ten seconds, 400 units.
        let tally = baseline(44, 10, 0);
        let pairing = Pairing::new(&tally, TICK * 44, TICK * 44);
        let blocks = pairs(&pairing, &tally, &units(0..44, 10), Undecided::Bad);
        assert_eq!(blocks.len(), 20, "{blocks:?}");
        assert!(blocks.iter().all(|block| (block.n_c, block.bad_c) == (20, 1.0) && block.n_t >= 20), "{blocks:?}");
        assert_eq!(blocks.iter().map(|block| block.n_t).sum::<u64>(), 440);
        // A longer inject has larger blocks, as many as baseline can stand beside.
        let pairing = Pairing::new(&tally, TICK * 44, TICK * 440);
        let all = units(0..440, 10);
        let blocks = pairs(&pairing, &tally, &all, Undecided::Bad);
        assert_eq!((blocks.len(), blocks[0].n_t, blocks[0].n_c), (20, 220, 20));
        // Cut in pieces they are the same.
        let (mut after, mut again) = (After::default(), Vec::new());
        for complete in (0..=440).step_by(7).chain([440]) {
            let more = pairing.cut(&tally, 0, true, after, (&all, complete, Undecided::Wait));
            more.iter().for_each(|block| after.and(block));
            again.extend(more);
        }
        assert_eq!(again, blocks);
        // Where more come than were to be expected, the rest find nothing beside them.
        let more = pairs(&pairing, &tally, &units(0..440, 20), Undecided::Bad);
        assert_eq!((more.len(), more[19].n_c, more[20].n_c), (40, 20, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_block_waits_for_what_is_beside_it() {
        let tally = baseline(44, 10, 1);
        let pairing = Pairing::new(&tally, TICK * 44, TICK * 44);
        let all = units(0..44, 10);
        assert_eq!(pairs(&pairing, &tally, &all, Undecided::Wait).len(), 19);
        let last = pairs(&pairing, &tally, &all, Undecided::Bad)[19];
        assert_eq!((last.n_c, last.bad_c), (19, 1.0), "at the end it is left out");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_bound_against_baseline_blocks_are_as_small_as_may_be() {
        let tally = baseline(44, 10, 0);
        let pairing = Pairing::new(&tally, TICK * 44, TICK * 440);
        let all = (&units(0..440, 10), u32::MAX, Undecided::Bad);
        let blocks = pairing.cut(&tally, 0, false, After::default(), all);
        assert_eq!((blocks.len(), blocks[0].n_t, blocks[0].n_c), (220, 20, 0));
    }
}
