//! From sightings to a map: where the requests of a rehearsal were seen again, by what, and who lost them. Pure.
//!
//! Who calls whom is nowhere written down. It is read off the clock: a call that causes another is under way when that one
//! arrives, and lasts longer.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::cause::cause;
use super::whose::{Call, Memory};
use crate::experiment::Carry;
use crate::measure::Sighting;

/// How many of the calls at a listener must fall within those of another, for this one to be their cause.
const COVERED: f64 = 0.95;

/// So many of the calls may be somebody else's before the context counts as partly lost.
const OTHERS: f64 = 0.05;

/// A listener, as the map knows it.
#[derive(Clone, Debug, Default)]
pub struct Stand {
    /// Its place.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// The service behind it.
    pub upstream: String,
    /// Whether a mark that arrives goes on to the service behind it.
    pub trusts: bool,
    /// Whether nothing of ours is sent to what is behind it.
    pub external: bool,
}

/// What was seen at a listener.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Seen {
    /// Its name.
    pub listener: String,
    /// The service behind it.
    pub upstream: String,
    /// Enrolled requests that were seen here.
    pub requests: u64,
    /// The same by what told so, whether it carries the arm or not; one request may be told by several.
    pub by: BTreeMap<String, u64>,
    /// Calls of enrolled requests.
    pub calls: u64,
    /// Calls that belong to no enrolled request, as far as anybody can tell.
    pub without: u64,
    /// The mean number of attempts of each call of a request.
    pub attempts: f64,
    /// The most attempts.
    pub most_attempts: u64,
    /// What became of the context.
    pub context: Context,
}

/// What became of the context at a listener.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Context {
    /// Nobody came.
    #[default]
    NoCalls,
    /// The slice is chosen here.
    Begins,
    /// It arrives.
    Arrives,
    /// Some calls come without it.
    Partly,
    /// No call has it.
    Lost,
    /// Calls come, but while no enrolled request is under way: they are somebody else's.
    Others,
}

/// Where the context is lost.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Loss {
    /// The listener that calls reach without it.
    pub at: String,
    /// The listener before the service that loses it, where it can be told.
    pub behind: Option<String>,
    /// That service.
    pub service: Option<String>,
    /// The usual cause, with the way out.
    pub cause: String,
}

/// The whole map.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Map {
    /// Requests that were enrolled.
    pub enrolled: u64,
    /// All listeners.
    pub listeners: Vec<Seen>,
    /// Where the context is lost.
    pub losses: Vec<Loss>,
}

/// Draws the map. The slice is chosen at the place `slice_at`.
pub fn draw(sightings: &[Sighting], stands: &[Stand], slice_at: usize, carry: &Carry) -> Map {
    // Whoever is still under way at the slice has been seen further down already.
    let enrolled: HashSet<u128> = sightings.iter().filter_map(|seen| Some(seen.of?.1)).collect();
    let memory = Memory::of(sightings.iter().filter(|seen| seen.listener == slice_at));
    let calls: Vec<Call<'_>> = sightings.iter().map(|seen| memory.call(seen)).collect();
    let mut listeners: Vec<Seen> = Vec::new();
    for stand in stands {
        let mut seen = Seen { listener: stand.name.clone(), upstream: stand.upstream.clone(), ..Seen::default() };
        if stand.index == slice_at {
            seen.requests = enrolled.len() as u64;
            seen.context = if enrolled.is_empty() { Context::NoCalls } else { Context::Begins };
        } else {
            look(&mut seen, at(&calls, stand.index), &memory);
        }
        listeners.push(seen);
    }
    let mut map = Map { enrolled: enrolled.len() as u64, listeners, losses: Vec::new() };
    let flows: BTreeMap<usize, Flow> = stands.iter().map(|it| (it.index, Flow::of(at(&calls, it.index)))).collect();
    let passes = passes(&calls, stands, &flows);
    for (place, stand) in stands.iter().enumerate() {
        if matches!(map.listeners[place].context, Context::Lost | Context::Partly) {
            let unknown: Vec<&Call<'_>> = at(&calls, stand.index).filter(|call| call.op.is_none()).collect();
            let loss = lost(&unknown, place, stands, slice_at, &flows, &passes);
            match loss {
                Lost::Nobodys if map.listeners[place].context == Context::Lost => {
                    map.listeners[place].context = Context::Others;
                }
                Lost::Nobodys => {}
                // Its caller got none either; that is told where it is lost.
                Lost::By(caller) if map.listeners[caller].context == Context::Lost => {}
                Lost::By(caller) => map.losses.push(explained(place, Some(caller), stands, &unknown, &passes, carry)),
                Lost::Unknown => map.losses.push(explained(place, None, stands, &unknown, &passes, carry)),
            }
        }
    }
    map
}

fn at<'c, 's>(calls: &'c [Call<'s>], index: usize) -> impl Iterator<Item = &'c Call<'s>> {
    calls.iter().filter(move |call| call.seen.listener == index)
}

fn look<'c>(seen: &mut Seen, calls: impl Iterator<Item = &'c Call<'c>>, memory: &Memory) {
    let mut by: BTreeMap<&str, HashSet<u128>> = BTreeMap::new();
    let mut attempts: HashMap<(u128, u64), u64> = HashMap::new();
    let mut requests = HashSet::new();
    for call in calls {
        for (carrier, op) in memory.told(call.seen) {
            by.entry(carrier.carrier().unwrap_or_default()).or_default().insert(op);
        }
        match call.op {
            Some(op) => {
                seen.calls += 1;
                requests.insert(op);
                *attempts.entry((op, call.seen.call)).or_default() += 1;
            }
            None => seen.without += 1,
        }
    }
    seen.requests = requests.len() as u64;
    seen.by = by.into_iter().map(|(carrier, ops)| (carrier.to_owned(), ops.len() as u64)).collect();
    seen.attempts = if attempts.is_empty() { 0.0 } else { seen.calls as f64 / attempts.len() as f64 };
    seen.most_attempts = attempts.values().copied().max().unwrap_or_default();
    let missing = seen.without as f64 / (seen.calls + seen.without).max(1) as f64;
    seen.context = match (seen.calls, seen.without) {
        (0, 0) => Context::NoCalls,
        (0, _) => Context::Lost,
        _ if missing > OTHERS => Context::Partly,
        _ => Context::Arrives,
    };
}

/// When calls were under way at one listener.
struct Flow {
    /// By arrival: when it came, and when the last of those who came until then left.
    under_way: Vec<(Instant, Instant)>,
    mean: Duration,
}

impl Flow {
    fn of<'c>(calls: impl Iterator<Item = &'c Call<'c>>) -> Self {
        let mut under_way: Vec<(Instant, Instant)> = calls.map(|call| (call.seen.arrived, call.seen.left)).collect();
        under_way.sort_unstable();
        let all: Duration = under_way.iter().map(|(arrived, left)| *left - *arrived).sum();
        let mean = all / (under_way.len().max(1) as u32);
        for index in 1..under_way.len() {
            under_way[index].1 = under_way[index].1.max(under_way[index - 1].1);
        }
        Self { under_way, mean }
    }

    /// Whether any call was under way.
    fn was_at(&self, instant: Instant) -> bool {
        let until = self.under_way.partition_point(|(arrived, _)| *arrived <= instant);
        until > 0 && self.under_way[until - 1].1 >= instant
    }
}

/// For each listener whose calls are known to belong to a request: the one before the service that made them.
fn passes(all: &[Call<'_>], stands: &[Stand], flows: &BTreeMap<usize, Flow>) -> BTreeMap<usize, usize> {
    let mut known: HashMap<(usize, u128), Vec<&Sighting>> = HashMap::new();
    for call in all {
        if let Some(op) = call.op {
            known.entry((call.seen.listener, op)).or_default().push(call.seen);
        }
    }
    let mut passes = BTreeMap::new();
    for (place, stand) in stands.iter().enumerate() {
        let calls: Vec<&Call<'_>> = at(all, stand.index).filter(|call| call.op.is_some()).collect();
        let covers = |other: &Stand| {
            let within = |call: &&&Call<'_>| {
                let theirs = call.op.and_then(|op| known.get(&(other.index, op)));
                let arrived = call.seen.arrived;
                theirs.into_iter().flatten().any(|it| it.arrived <= arrived && arrived <= it.left)
            };
            calls.iter().filter(within).count() as f64 >= COVERED * calls.len() as f64
        };
        let callers = stands.iter().enumerate().filter(|(_, it)| it.index != stand.index && !calls.is_empty());
        let callers = callers.filter(|(_, it)| flows[&it.index].mean >= flows[&stand.index].mean && covers(it));
        if let Some((caller, _)) = callers.min_by_key(|(_, it)| flows[&it.index].mean) {
            passes.insert(place, caller);
        }
    }
    passes
}

enum Lost {
    /// By the service behind this one.
    By(usize),
    /// Nobody can tell by whom.
    Unknown,
    /// They belong to no request that was enrolled.
    Nobodys,
}

/// Whose calls these are, that say of no request.
fn lost(
    calls: &[&Call<'_>],
    place: usize,
    stands: &[Stand],
    slice_at: usize,
    flows: &BTreeMap<usize, Flow>,
    passes: &BTreeMap<usize, usize>,
) -> Lost {
    // A reload may have closed the slice's listener meanwhile.
    let Some(slice) = flows.get(&slice_at) else { return Lost::Unknown };
    let ours: Vec<&&Call<'_>> = calls.iter().filter(|call| slice.was_at(call.seen.arrived)).collect();
    if ours.len() * 2 < calls.len() {
        return Lost::Nobodys;
    }
    let own = flows[&stands[place].index].mean;
    let covers = |stand: &Stand| {
        let flow = &flows[&stand.index];
        let within = ours.iter().filter(|call| flow.was_at(call.seen.arrived)).count();
        flow.mean >= own && within as f64 >= COVERED * ours.len() as f64
    };
    let callers: Vec<usize> = (0..stands.len()).filter(|it| *it != place && covers(&stands[*it])).collect();
    // The innermost, and of those whom nobody has seen passing the context on rather than the others.
    let shown: BTreeSet<usize> = passes.values().copied().collect();
    let innermost = callers.iter().copied().min_by_key(|it| (shown.contains(it), flows[&stands[*it].index].mean));
    innermost.map_or(Lost::Unknown, Lost::By)
}

fn explained(
    place: usize,
    caller: Option<usize>,
    stands: &[Stand],
    calls: &[&Call<'_>],
    passes: &BTreeMap<usize, usize>,
    carry: &Carry,
) -> Loss {
    let at = stands[place].name.clone();
    let elsewhere: Vec<&str> = passes
        .iter()
        .filter(|(there, it)| Some(**it) == caller && **there != place)
        .map(|(there, _)| stands[*there].name.as_str())
        .collect();
    let between = caller.map(|it| &stands[it]);
    let cause = cause(between, calls, &elsewhere, carry);
    Loss { at, behind: between.map(|it| it.name.clone()), service: between.map(|it| it.upstream.clone()), cause }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Arm, Note, Shown};

    const NAMES: [&str; 4] = ["front", "catalogue", "inventory", "prices"];

    fn stands() -> Vec<Stand> {
        let stand = |(index, name): (usize, &&str)| Stand {
            index,
            name: (*name).to_owned(),
            upstream: format!("http://{name}"),
            trusts: true,
            external: false,
        };
        NAMES.iter().enumerate().map(stand).collect()
    }

    struct World {
        began: Instant,
        sightings: Vec<Sighting>,
        number: u128,
    }

    impl World {
        fn new() -> Self {
            Self { began: Instant::now(), sightings: Vec::new(), number: 0 }
        }

        /// A call at a listener from one millisecond to another, with the mark of the request of this moment or without.
        fn call(&mut self, listener: usize, from: u64, until: u64, marked: bool, id: Option<Shown>) {
            let at = |ms| self.began + Duration::from_millis(ms);
            let arm = if self.number.is_multiple_of(2) { Arm::Treatment } else { Arm::Control };
            self.sightings.push(Sighting {
                listener,
                arrived: at(from),
                left: at(until),
                of: marked.then_some((arm, self.number)),
                ids: [id, None, None, None],
                call: listener as u64,
            });
        }

        fn map(&self) -> Map {
            draw(&self.sightings, &stands(), 0, &Carry::Auto)
        }
    }

    /// Requests through a chain of four, so many milliseconds apart; the context ends behind a listener.
    fn chain(apart: u64, ends_behind: usize) -> World {
        let mut world = World::new();
        for number in 0..200 {
            let start = number * apart;
            world.number += 1;
            for place in 0..4 {
                let late = place as u64 * 3;
                world.call(place, start + late, start + 40 - late, place <= ends_behind, None);
            }
        }
        world
    }

    #[test]
    fn in_a_chain_the_one_that_loses_the_context_is_named_however_many_are_under_way() {
        for apart in [1, 7, 100] {
            for ends_behind in 0..3 {
                let map = chain(apart, ends_behind).map();
                let [loss] = map.losses.as_slice() else { panic!("{apart} {ends_behind}: {:?}", map.losses) };
                assert_eq!(loss.behind.as_deref(), Some(NAMES[ends_behind]), "{apart} ms apart");
                assert_eq!(loss.at, NAMES[ends_behind + 1]);
                assert!(loss.cause.contains("OTEL_SDK_DISABLED"), "{}", loss.cause);
            }
            let whole = chain(apart, 3).map();
            assert!(whole.losses.is_empty(), "{:?}", whole.losses);
            assert!(
                whole.listeners.iter().skip(1).all(|seen| seen.context == Context::Arrives && seen.requests == 200)
            );
        }
    }

    #[test]
    fn a_client_by_hand_is_told_from_a_service_that_passes_nothing_on() {
        let mut world = World::new();
        for number in 0..100 {
            let start = number * 50;
            world.number += 1;
            world.call(0, start, start + 30, true, None);
            world.call(1, start + 2, start + 10, true, None);
            world.call(2, start + 12, start + 20, false, None);
        }
        let map = world.map();
        let [loss] = map.losses.as_slice() else { panic!("{:?}", map.losses) };
        assert_eq!((loss.at.as_str(), loss.behind.as_deref()), ("inventory", Some("front")));
        assert!(loss.cause.contains("passes the context on to catalogue"), "{}", loss.cause);
    }

    /// Requests whose calls carry an id and no mark.
    fn identified(by: Note, carries: bool, ids: impl Fn(u64) -> [u64; 2]) -> World {
        let mut world = World::new();
        for number in 0..50 {
            world.number += 1;
            let [asked, called] = ids(number).map(|id| Some(Shown { by, id, carries }));
            world.call(0, number * 50, number * 50 + 30, true, asked);
            world.call(2, number * 50 + 2, number * 50 + 10, false, called);
        }
        world
    }

    #[test]
    fn a_call_is_known_by_the_ids_that_carry_the_arm_and_by_no_others() {
        for (by, word) in [(Note::ByTraceparent, "traceparent"), (Note::ByHeader, "header")] {
            let world = identified(by, true, |n| [n, n]);
            let map = world.map();
            assert!(map.losses.is_empty(), "{:?}", map.losses);
            let inventory = &map.listeners[2];
            assert_eq!((inventory.requests, inventory.context), (50, Context::Arrives));
            assert_eq!(inventory.by, BTreeMap::from([(word.to_owned(), 50)]));
        }
        let map = draw(&identified(Note::ByTraceparent, false, |n| [n, n]).sightings, &stands(), 0, &Carry::Baggage);
        assert!(map.losses[0].cause.contains("OTEL_PROPAGATORS=tracecontext,baggage"), "{}", map.losses[0].cause);
        assert_eq!(map.listeners[2].by, BTreeMap::from([("traceparent".to_owned(), 50)]), "it would do");
        assert_eq!((map.listeners[2].context, map.listeners[2].requests), (Context::Lost, 0));
    }

    #[test]
    fn what_the_calls_carry_says_what_the_cause_is() {
        let header = || "header:x-order".parse().unwrap();
        for (world, carry, cause) in [
            (identified(Note::ByTraceparent, true, |n| [n, n + 1000]), Carry::Auto, "a trace of their own"),
            (identified(Note::ByTraceparent, true, |n| [n / 2, n / 2]), Carry::Auto, "`by: trace`"),
            (identified(Note::ByHeader, true, |n| [n, n + 1000]), header(), "pass that of the request on"),
            (chain(100, 1), header(), "come without `x-order`"),
            (chain(100, 1), Carry::Traceparent, "copy the header `traceparent`"),
        ] {
            let map = draw(&world.sightings, &stands(), 0, &carry);
            let [loss] = map.losses.as_slice() else { panic!("{cause}: {:?}", map.losses) };
            assert!(loss.cause.contains(cause), "{cause}: {}", loss.cause);
        }

        let world = chain(100, 1);
        let mut stands = stands();
        stands[1].trusts = false;
        let map = draw(&world.sightings, &stands, 0, &Carry::Baggage);
        assert!(map.losses[0].cause.contains("trust_baggage: true"), "{}", map.losses[0].cause);
    }

    #[test]
    fn attempts_are_counted_and_calls_of_others_are_nobodys_loss() {
        let mut world = World::new();
        for number in 0..40 {
            let start = number * 100;
            world.number += 1;
            world.call(0, start, start + 40, true, None);
            for attempt in 0..1 + number % 2 * 2 {
                world.call(1, start + 5 + attempt * 6, start + 9 + attempt * 6, true, None);
            }
            world.call(2, start + 60, start + 70, false, None);
        }
        let map = world.map();
        let catalogue = &map.listeners[1];
        assert_eq!((catalogue.requests, catalogue.calls, catalogue.most_attempts), (40, 80, 3));
        assert!((catalogue.attempts - 2.0).abs() < 1e-9);
        assert_eq!(map.listeners[2].context, Context::Others);
        assert_eq!((map.listeners[3].context, map.losses.len()), (Context::NoCalls, 0));
        // One is under way at the slice when all is over: it counts nevertheless.
        world.number += 1;
        world.call(1, 9000, 9010, true, None);
        assert_eq!((world.map().enrolled, world.map().listeners[0].requests), (41, 41));
    }
}
