//! Blocks: stretches of ticks in which both arms have enough arrivals to be compared.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Arm, Counts};

/// Arrivals of each arm that close a block; smaller ones throw evidence away (decisions.md 2.2).
pub const ENOUGH: u64 = 20;

/// What one block saw of one rule, in the order treatment and control: bad units and units.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Pair {
    /// Bad treated units.
    pub bad_t: f64,
    /// Treated units.
    pub n_t: u64,
    /// Bad control units.
    pub bad_c: f64,
    /// Control units.
    pub n_c: u64,
    /// The last tick of the block.
    pub last_tick: u32,
}

/// What becomes of units that are not decided.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Undecided {
    /// Their block, and all later ones, wait for them.
    Wait,
    /// The phase went to its planned end and they had all the time there was: they are bad.
    Bad,
    /// The phase ended before its plan: nobody knows what would have become of them.
    LeaveOut,
}

/// Units by the tick of their arrival.
pub type Ticks = BTreeMap<u32, [Counts; 3]>;

/// Cuts ticks into blocks for one rule.
///
/// Blocks are closed by counts of arrivals only, never by outcomes. `complete` ticks have all their arrivals. Unless
/// units are waited for, the phase is over: the last block is closed as it is, and dropped if one of its arms is empty.
pub fn cut<'t>(
    ticks: impl IntoIterator<Item = (&'t u32, &'t [Counts; 3])>,
    rule: usize,
    complete: u32,
    undecided: Undecided,
) -> Vec<Pair> {
    let enough = |sums: &[Counts; 2]| sums.iter().all(|counts| counts.arrived >= ENOUGH);
    let whole = |block: &Pair| block.n_t > 0 && block.n_c > 0;
    cut_when(ticks, rule, complete, undecided, enough, whole)
}

/// The same, with blocks that are closed when arrivals are `full`, and a last one that is dropped unless it is `whole`.
pub fn cut_when<'t>(
    ticks: impl IntoIterator<Item = (&'t u32, &'t [Counts; 3])>,
    rule: usize,
    complete: u32,
    undecided: Undecided,
    mut full: impl FnMut(&[Counts; 2]) -> bool,
    whole: impl Fn(&Pair) -> bool,
) -> Vec<Pair> {
    let mut blocks = Vec::new();
    let mut open: Option<[Counts; 2]> = None;
    let mut last = 0;
    for (tick, arms) in ticks.into_iter().take_while(|(tick, _)| **tick < complete) {
        let sums = open.get_or_insert_default();
        sums[0].add(&arms[Arm::Treatment as usize]);
        sums[1].add(&arms[Arm::Control as usize]);
        last = *tick;
        if full(sums) {
            match pair(sums, rule, last, undecided) {
                Some(block) => blocks.push(block),
                None => return blocks,
            }
            open = None;
        }
    }
    if undecided != Undecided::Wait
        && let Some(block) = open.and_then(|sums| pair(&sums, rule, last, undecided))
    {
        blocks.extend(whole(&block).then_some(block));
    }
    blocks
}

fn pair(sums: &[Counts; 2], rule: usize, last_tick: u32, undecided: Undecided) -> Option<Pair> {
    let count = |counts: &Counts| match undecided {
        Undecided::Wait if !counts.is_decided(rule) => None,
        Undecided::Bad => {
            let open = counts.arrived.saturating_sub(counts.decided[rule]);
            Some((counts.bad[rule] + open as f64, counts.arrived.max(counts.decided[rule])))
        }
        _ => Some((counts.bad[rule], counts.decided[rule])),
    };
    let ((bad_t, n_t), (bad_c, n_c)) = (count(&sums[0])?, count(&sums[1])?);
    Some(Pair { bad_t, n_t, bad_c, n_c, last_tick })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arms(t: u64, c: u64, decided: bool) -> [Counts; 3] {
        let counts = |n: u64, bad: f64| {
            let mut counts = Counts { arrived: n, ..Counts::default() };
            counts.decided[0] = if decided { n } else { n - 1 };
            counts.bad[0] = bad;
            counts
        };
        [counts(t, 1.0), counts(c, 0.0), Counts::default()]
    }

    #[test]
    fn a_block_grows_until_both_arms_have_enough_and_waits_until_all_are_decided() {
        let mut ticks = BTreeMap::from([(0, arms(15, 30, true)), (1, arms(5, 1, true)), (2, arms(25, 20, true))]);
        let blocks = cut(&ticks, 0, 3, Undecided::Wait);
        assert_eq!(blocks.len(), 2);
        assert_eq!((blocks[0].n_t, blocks[0].n_c, blocks[0].bad_t), (20, 31, 2.0));
        assert_eq!(cut(&ticks, 0, 2, Undecided::Wait).len(), 1, "a tick that is not complete closes nothing");
        ticks.insert(1, arms(5, 1, false));
        assert!(cut(&ticks, 0, 3, Undecided::Wait).is_empty(), "an undecided unit holds its block and all later ones");
        assert_eq!(cut(&ticks, 0, 3, Undecided::LeaveOut)[0].n_t, 19, "after an early end they are left out");
        let bad = cut(&ticks, 0, 3, Undecided::Bad)[0];
        assert_eq!((bad.n_t, bad.bad_t, bad.bad_c), (20, 3.0, 1.0), "after the planned end they are bad");
    }

    #[test]
    fn the_last_block_is_closed_by_the_end_of_the_phase_unless_an_arm_is_empty() {
        let mut ticks = BTreeMap::from([(0, arms(20, 20, true)), (1, arms(3, 2, true))]);
        assert_eq!(cut(&ticks, 0, 9, Undecided::Wait).len(), 1);
        assert_eq!(cut(&ticks, 0, 9, Undecided::Bad).len(), 2);
        ticks.insert(1, [arms(3, 2, true)[0], Counts::default(), Counts::default()]);
        assert_eq!(cut(&ticks, 0, 9, Undecided::Bad).len(), 1);
    }
}
