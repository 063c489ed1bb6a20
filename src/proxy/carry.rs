//! How the arm of a request reaches the calls that the application makes for it: in the baggage, or by an id that the
//! application passes on and that was seen at the slice a moment ago.
//!
//! Ids are remembered in this process only, for a while, and so many at the most. Nothing is written for them: a request
//! that is known by its id leaves as it came.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use super::brought::{Brought, Id, MOST_IDS, Space};
use super::context::{Mark, Member};
use super::trial::Trial;
use crate::experiment::Carry;
use crate::measure::{Arm, Note};

/// "A moment ago": what an application does for a request later than this, it does for nobody that we know.
pub(super) const MOMENT: Duration = Duration::from_secs(60);

/// So that workers seldom wait for each other.
const SHARDS: usize = 16;
/// Ids of one shard in one of its two halves: 131,072 in all, 12 MiB.
const MOST: usize = 4096;

/// The ids of requests at the slice, and what they stand for.
#[derive(Debug)]
pub(super) struct Memory {
    shards: [Mutex<Shard>; SHARDS],
    moment: Duration,
}

/// Two generations: when the younger is full or has had its time, the older goes.
#[derive(Debug)]
struct Shard {
    young: Ids,
    old: Ids,
    since: Instant,
}

/// By the hash of an id, which is keyed already: to hash it again would protect nobody. Its upper bits are those that the
/// arm was read from, so that in a small arm all begin alike, and a map tells by the upper bits; they are spread anew.
type Ids = HashMap<u64, Known, BuildHasherDefault<Itself>>;

#[derive(Default)]
struct Itself(u64);

impl Hasher for Itself {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("ids are numbers");
    }
}

/// What an id stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Known {
    /// Nothing where requests of several arms have the same id: it tells nobody whose call it is.
    arm: Option<Arm>,
    op: u128,
    seen: Instant,
}

/// What is known of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Told {
    /// It belongs to an operation of an arm, and how that was carried.
    By(Note, Arm, u128),
    /// Its id is that of requests in several arms.
    Ambiguous,
    /// Nothing.
    Nothing,
}

impl Memory {
    /// Remembers ids for a moment, or for as long as a request may wait for its answer if that is longer.
    pub(super) fn new(patience: Duration) -> Self {
        let shard = || Mutex::new(Shard { young: Ids::default(), old: Ids::default(), since: Instant::now() });
        Self { shards: std::array::from_fn(|_| shard()), moment: MOMENT.max(patience) }
    }

    /// The last to come counts, as long as all that came lately are of one arm.
    fn remember(&self, id: u64, arm: Arm, op: u128, now: Instant) {
        let mut shard = self.shard(id);
        let before = shard.recall(id, now, self.moment);
        let arm = before.map_or(Some(arm), |known| known.arm.filter(|before| *before == arm));
        if shard.young.len() >= MOST || now.saturating_duration_since(shard.since) > self.moment {
            shard.old = std::mem::take(&mut shard.young);
            shard.since = now;
        }
        shard.young.insert(id, Known { arm, op, seen: now });
    }

    fn recall(&self, id: u64) -> Option<Known> {
        self.shard(id).recall(id, Instant::now(), self.moment)
    }

    fn shard(&self, id: u64) -> std::sync::MutexGuard<'_, Shard> {
        // Other bits than those by which a map finds its place.
        let shard = &self.shards[(id >> 32) as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn recall(&self, id: u64, now: Instant, moment: Duration) -> Option<Known> {
        let known = self.young.get(&id).or_else(|| self.old.get(&id)).copied();
        known.filter(|known| now.saturating_duration_since(known.seen) <= moment)
    }
}

/// The hash of an id that carries an arm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carrying {
    hash: u64,
    /// The arm was drawn from it: all requests that have it are in the same.
    drawn: bool,
}

/// The ids of a request that are to carry its arm, by what that was drawn from and the hash of it.
pub(super) fn ids(trial: &Trial, brought: &Brought<'_>, (drawn, key): (&[u8], u64)) -> [Option<Carrying>; MOST_IDS] {
    if trial.has_one_place() {
        return [None; MOST_IDS];
    }
    let carrying = |id: Id<'_>| {
        let same = id.text == drawn;
        let hash = if same && id.space == Space::Trace { key } else { trial.id(&id) };
        Carrying { hash, drawn: same }
    };
    brought.ids(&trial.experiment.slice.carry).map(|id| id.map(carrying))
}

/// At the slice: sees to it that the calls of a request can be told. `Err` where they cannot, so that it is in no arm.
///
/// What goes up as its baggage is given back where the request has none, and meets nothing of the run's here that might
/// look at it; else it is among the fields.
pub(super) fn send(
    trial: &Trial,
    headers: &mut HeaderMap,
    (arm, op): (Arm, u128),
    ids: [Option<Carrying>; MOST_IDS],
    (external, baggage): (bool, bool),
    now: Instant,
) -> Result<Option<Member>, Note> {
    let carry = &trial.experiment.slice.carry;
    let taking_part = arm != Arm::Bystander;
    let writing = writes(carry) && !external;
    let here_too = trial.has_one_place();
    let mut member = (taking_part && writing).then(|| trial.members.member(arm, op));
    if let Some(among) = member.take_if(|_| baggage || here_too)
        && !among.put(headers)
    {
        return Err(Note::NoRoom);
    }
    let mut carried = here_too || writing;
    for id in ids.into_iter().flatten() {
        carried = true;
        if taking_part || !id.drawn {
            trial.memory.remember(id.hash, arm, op, now);
        }
    }
    if carried { Ok(member) } else { Err(Note::NoId) }
}

/// At the fault: whose call it is.
pub(super) fn receive(trial: &Trial, headers: &HeaderMap, mark: Option<Mark>) -> Told {
    let carry = &trial.experiment.slice.carry;
    match mark {
        Some(Mark::Arm { token, arm, op }) if token == trial.token && writes(carry) => {
            return Told::By(Note::ByBaggage, arm, op);
        }
        _ => {}
    }
    let mut told = Told::Nothing;
    for id in Brought::of(headers).ids(carry).into_iter().flatten() {
        match trial.memory.recall(trial.id(&id)) {
            Some(Known { arm: Some(Arm::Bystander), .. }) => return Told::Nothing,
            Some(Known { arm: Some(arm), op, .. }) => return Told::By(id.by, arm, op),
            // Another of its ids may say more.
            Some(Known { arm: None, .. }) => told = Told::Ambiguous,
            None => {}
        }
    }
    told
}

/// Whether the baggage says it.
pub(super) fn writes(carry: &Carry) -> bool {
    matches!(carry, Carry::Auto | Carry::Baggage)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A_MINUTE: Duration = Duration::from_secs(60);

    fn arm(memory: &Memory, id: u64) -> Option<Option<Arm>> {
        memory.recall(id).map(|known| known.arm)
    }

    #[tokio::test(start_paused = true)]
    async fn an_id_is_remembered_for_a_moment_and_the_last_to_bring_it_counts() {
        let memory = Memory::new(Duration::from_secs(1));
        memory.remember(1, Arm::Treatment, 7, Instant::now());
        tokio::time::advance(A_MINUTE / 2).await;
        memory.remember(1, Arm::Treatment, 8, Instant::now());
        tokio::time::advance(A_MINUTE).await;
        assert_eq!(memory.recall(1).map(|known| (known.arm, known.op)), Some((Some(Arm::Treatment), 8)));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(arm(&memory, 1), None, "that was a moment ago");
        assert_eq!(arm(&memory, 2), None);
        let patient = Memory::new(A_MINUTE * 5);
        patient.remember(1, Arm::Control, 7, Instant::now());
        tokio::time::advance(A_MINUTE * 5).await;
        assert_eq!(arm(&patient, 1), Some(Some(Arm::Control)), "its request may still be under way");
    }

    #[tokio::test(start_paused = true)]
    async fn an_id_of_several_arms_is_nobodys_until_it_is_forgotten() {
        let memory = Memory::new(A_MINUTE);
        for other in [Arm::Control, Arm::Bystander] {
            memory.remember(1, Arm::Treatment, 7, Instant::now());
            memory.remember(1, other, 8, Instant::now());
            assert_eq!(arm(&memory, 1), Some(None));
            memory.remember(1, Arm::Treatment, 9, Instant::now());
            assert_eq!(arm(&memory, 1), Some(None), "once is enough");
            tokio::time::advance(A_MINUTE * 2).await;
        }
        memory.remember(1, Arm::Treatment, 10, Instant::now());
        assert_eq!(arm(&memory, 1), Some(Some(Arm::Treatment)));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_the_oldest_go_first() {
        let memory = Memory::new(A_MINUTE);
        let many = (SHARDS * MOST * 4) as u64;
        // Spread over the shards, as hashes are.
        let id = |n: u64| n << 32 | n;
        (0..many).for_each(|n| memory.remember(id(n), Arm::Treatment, u128::from(n), Instant::now()));
        let kept = (0..many).filter(|n| memory.recall(id(*n)).is_some()).count();
        assert!((SHARDS * MOST..=2 * SHARDS * MOST).contains(&kept), "{kept}");
        assert!(memory.recall(id(0)).is_none() && memory.recall(id(many - 1)).is_some());
        // The same id again and again takes no more room.
        (0..many).for_each(|n| memory.remember(7, Arm::Control, u128::from(n), Instant::now()));
        assert!(memory.shard(7).young.len() <= MOST);
    }
}
