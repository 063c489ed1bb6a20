//! What `judge` says, and in which order it asks; how often it is right is simulated elsewhere.

use rand::RngExt;

use super::super::evidence::Reach;
use super::super::simulations::{WORLD, World, rng};
use super::*;
use crate::measure::Counts;

/// A run in which all is well.
fn well() -> (Experiment, Evidence) {
    (WORLD.experiment(), WORLD.evidence(&mut rng(1)))
}

/// A run in which much is wrong.
fn ill() -> Evidence {
    World { harm: &[0.2], ..WORLD }.evidence(&mut rng(1))
}

fn says(change: impl FnOnce(&mut Evidence)) -> (Ending, String) {
    let (experiment, mut evidence) = well();
    change(&mut evidence);
    let judged = judge(&experiment, &evidence);
    (judged.ending, judged.reason)
}

#[test]
fn all_well_is_held_and_much_wrong_is_broken() {
    assert_eq!(says(|_| {}), (Ending::Held, "every bound was shown to be kept".to_owned()));
    let (ending, reason) = says(|evidence| *evidence = ill());
    assert_eq!(ending, Ending::Broken);
    assert_eq!(reason, "error rate: shown to cross its bound (at most 1 pp more than control)");
}

#[test]
fn no_early_end_is_held_and_what_was_shown_before_it_stays_broken() {
    for ended in [Ended::Early("halted by ada".into()), Ended::Broken, Ended::Invalid("no traffic".into())] {
        let (ending, _) = says(|evidence| evidence.ended = ended.clone());
        let expected = match ended {
            Ended::Early(_) => Ending::Halted,
            Ended::Invalid(_) => Ending::Invalid,
            _ => Ending::Inconclusive,
        };
        assert_eq!(ending, expected, "{ended:?}");
        let (ending, _) = says(|evidence| *evidence = Evidence { ended: ended.clone(), ..ill() });
        assert_eq!(ending, Ending::Broken, "{ended:?}");
    }
    let never =
        |evidence: Evidence| says(|seen| *seen = Evidence { ended: Ended::Never("too slow".into()), ..evidence });
    assert_eq!(never(ill()), (Ending::Inconclusive, "too slow".to_owned()));
}

#[test]
fn a_fault_that_reached_nobody_is_invalid_and_says_why() {
    let reached = |reach: Reach| says(|evidence| evidence.reach = reach);
    let treated = Reach { treated: 6000, ..Reach::default() };
    for (reach, words) in [
        (Reach::default(), "nobody was treated: no request matched the slice"),
        (Reach { unkeyed: 9, ..Reach::default() }, "nobody could be treated: 9 requests matched, and none had the key"),
        (Reach { probes: 9, ..Reach::default() }, "all matching requests look like health probes"),
        (Reach { protected: 9, ..Reach::default() }, "all matching requests were on protected routes"),
        (treated, "no call came to where the fault waits"),
        (Reach { uncarried: 71, ..treated }, "context was not carried: 71 calls came, and none carried the mark"),
        (Reach { carried: 71, no_match: 71, ..treated }, "none matched what is to be faulted"),
        (Reach { carried: 71, protected_calls: 71, ..treated }, "calls of the treatment were on protected routes"),
        (Reach { carried: 71, uncarried: 600, ..treated }, "no call of the treatment came while it was on"),
        (
            Reach { carried: 71, eligible: 71, ..treated },
            "the fault was not applied: all 71 eligible calls were spared",
        ),
    ] {
        let (ending, reason) = reached(reach);
        assert_eq!(ending, Ending::Invalid, "{reason}");
        assert!(reason.contains(words), "{reason}");
    }
    let few = Reach { faulted: 29, ..treated };
    let (ending, reason) = reached(few);
    assert_eq!((ending, reason.as_str()), (Ending::Invalid, "only 29 calls met the fault; 30 are needed to say held"));
    assert_eq!(
        says(|evidence| *evidence = Evidence { reach: Reach { faulted: 1, ..treated }, ..ill() }).0,
        Ending::Broken
    );
    assert_eq!(
        says(|evidence| *evidence = Evidence { reach: treated, ..ill() }).0,
        Ending::Invalid,
        "whatever was seen"
    );
}

#[test]
fn uneven_arms_are_invalid_whatever_was_seen() {
    let (ending, reason) = says(|evidence| {
        *evidence = ill();
        evidence.arrivals.iter_mut().for_each(|(treated, ..)| *treated = *treated * 4 / 5);
    });
    assert_eq!(ending, Ending::Invalid);
    assert!(reason.starts_with("the arms are not as large as they should be"), "{reason}");
}

#[test]
fn control_that_was_unwell_makes_a_good_run_inconclusive() {
    let (ending, reason) = says(|evidence| {
        let seen = &mut evidence.indicators[0];
        seen.inject.iter_mut().for_each(|block| (block.bad_t, block.bad_c) = (12.0, 12.0));
        seen.baseline_control.bad = 0.0;
    });
    assert_eq!(ending, Ending::Inconclusive);
    assert!(reason.starts_with("error rate: control was unwell too (1"), "{reason}");
}

#[test]
fn what_is_not_well_again_is_broken_by_recovery_alone() {
    let (experiment, mut evidence) = well();
    evidence.indicators[0].recovery.iter_mut().for_each(|block| block.bad_t = block.n_t as f64 * 0.5);
    let judged = judge(&experiment, &evidence);
    assert_eq!(judged.ending, Ending::Broken);
    assert_eq!(judged.reason, "error rate: not well again after the fault was gone");
    assert_eq!(judged.bounds[0].ending, Ending::Held, "the bound itself was kept while the fault was on");
}

#[test]
fn the_baseline_must_keep_a_max_and_agree_with_itself_where_there_is_none() {
    let increase = Bound::all(&WORLD.experiment());
    let max = Bound::all(&World { steady_state: "[{ error_rate: { max: 2% } }]", ..WORLD }.experiment());
    let counted = |bad: f64| Seen { baseline: Counted { bad, of: 1000 }, ..Seen::default() };
    assert_eq!(baseline_unquiet(&max, &[counted(20.0)]), None);
    let why = baseline_unquiet(&max, &[counted(21.0)]).unwrap();
    assert_eq!(why, "error rate: 2.1 % before any fault, and at most 2 % is allowed");
    let halves = |early: f64, late: f64| {
        let half = Pair { bad_t: late, n_t: 40, bad_c: early, n_c: 40, last_tick: 0 };
        Seen { halves: vec![half; 40], ..counted(1.0) }
    };
    assert_eq!(baseline_unquiet(&increase, &[halves(1.0, 1.0)]), None);
    for (early, late) in [(1.0, 9.0), (9.0, 1.0)] {
        assert!(baseline_unquiet(&increase, &[halves(early, late)]).unwrap().contains("do not agree"));
        assert_eq!(baseline_unquiet(&max, &[halves(early, late)]), None, "a max says what quiet is");
    }
}

#[test]
fn nothing_is_held_where_so_many_are_bad_without_the_fault_that_no_difference_could_be_seen() {
    let increase = Bound::all(&WORLD.experiment());
    let full = Seen { baseline: Counted { bad: 995.0, of: 1000 }, ..Seen::default() };
    let why = baseline_unquiet(&increase, &[full]).unwrap();
    assert_eq!(why, "error rate: 99.5 % before any fault leaves no room to be 1 pp worse");
    let (ending, reason) = says(|evidence| {
        let seen = &mut evidence.indicators[0];
        for block in &mut seen.inject {
            (block.bad_t, block.bad_c) = (block.n_t as f64, block.n_c as f64);
        }
        seen.baseline_control = Counted { bad: 1000.0, of: 1000 };
    });
    assert_eq!((ending, reason.as_str()), (Ending::Inconclusive, "error rate: control was unwell too (100 %)"));
}

#[test]
fn a_baseline_too_short_to_show_a_max_says_how_long_it_had_to_be() {
    let max = Bound::all(&World { steady_state: "[{ error_rate: { max: 2% } }]", ..WORLD }.experiment());
    let seen = |of| [Seen { baseline: Counted { bad: 0.0, of }, ..Seen::default() }];
    assert_eq!(baseline_short(&max, &seen(500), 20.0), [""; 0]);
    let [short] = &baseline_short(&max, &seen(200), 20.0)[..] else { panic!("200 are too few") };
    let words = "error rate: baseline was too short to show at most 2 % before any fault: 200 requests, and about ";
    let rest = short.strip_prefix(words).unwrap_or_else(|| panic!("{short}"));
    let (needed, time) = rest.split_once(" are needed (`baseline: ").unwrap();
    assert!(needed.parse::<u64>().is_ok_and(|needed| needed > 400), "{short}");
    assert!(time.trim_end_matches("`)").parse::<Span>().is_ok_and(|time| time > Span::secs(40)), "{short}");
    assert_eq!(baseline_short(&Bound::all(&WORLD.experiment()), &seen(200), 20.0), [""; 0], "an increase needs none");
}

#[test]
fn what_is_missing_is_said_in_units_and_in_time_at_this_slice() {
    let (experiment, mut evidence) = well();
    evidence.indicators[0].inject.truncate(3);
    evidence.inject_secs = 3.0;
    let judged = judge(&experiment, &evidence);
    assert_eq!(judged.ending, Ending::Inconclusive);
    let missing = judged.missing.unwrap();
    let words: Vec<&str> = missing.split(' ').collect();
    let more: f64 = words[1].replace(',', "").parse().unwrap_or_else(|_| panic!("{missing}"));
    assert!((100.0..3000.0).contains(&more), "{missing}");
    assert!(missing.ends_with("s at this slice") && missing.contains("more treated requests: "), "{missing}");
    // With that much more, it holds.
    let (_, mut enough) = well();
    let have: u64 = enough.indicators[0].inject[..3].iter().map(|block| block.n_t).sum();
    let (mut sum, wanted) = (0, have + more as u64);
    enough.indicators[0].inject.retain(|block| {
        sum += block.n_t;
        sum <= wanted + 40
    });
    assert_eq!(judge(&experiment, &enough).ending, Ending::Held, "{missing}");
    evidence.indicators[0].inject.clear();
    let nothing = judge(&experiment, &evidence);
    let missing = nothing.missing.unwrap();
    assert!(missing.starts_with("about ") && nothing.reason.contains("nothing was measured"), "{missing}");
}

#[test]
fn undecided_units_are_bad_at_the_planned_end_and_never_held() {
    let mut ticks = Ticks::new();
    for tick in 0..60 {
        let mut counts = [Counts { arrived: 40, ..Counts::default() }; 3];
        counts[0].decided[0] = 36; // one in ten hangs
        counts[1].decided[0] = 40;
        ticks.insert(tick, counts);
    }
    for (undecided, expected) in [(Undecided::Bad, Ending::Broken), (Undecided::Wait, Ending::Inconclusive)] {
        let (ending, _) = says(|evidence| evidence.indicators[0].inject = block::cut(&ticks, 0, u32::MAX, undecided));
        assert_eq!(ending, expected, "{undecided:?}");
    }
    let left_out = block::cut(&ticks, 0, u32::MAX, Undecided::LeaveOut);
    let (ending, _) = says(|evidence| {
        evidence.indicators[0].inject = left_out;
        evidence.ended = Ended::Early("halted by ada".into());
    });
    assert_eq!(ending, Ending::Halted, "those of whom nobody knows make no run held");
}

/// The same evidence from a file gives the same figures, bit by bit (decisions.md 2.16 asks for 1e-9).
fn same_after_a_round_trip(experiment: &Experiment, evidence: &Evidence) {
    let text = serde_json::to_string(evidence).unwrap();
    let again = judge(experiment, &serde_json::from_str(&text).unwrap());
    let judged = judge(experiment, evidence);
    assert_eq!((judged.ending, &judged.reason, &judged.missing), (again.ending, &again.reason, &again.missing));
    for (bound, again) in judged.bounds.iter().zip(&again.bounds) {
        let figures = |bound: &BoundVerdict| {
            let (low, high) = bound.interval;
            let recovery = bound.log_e_not_recovered.unwrap_or_default();
            [
                bound.log_e_held,
                bound.log_e_broken,
                recovery,
                bound.estimate,
                low,
                high,
                bound.needs_held,
                bound.needs_broken,
            ]
        };
        assert_eq!(figures(bound).map(f64::to_bits), figures(again).map(f64::to_bits));
        assert!(figures(bound).iter().all(|figure| figure.is_finite()), "{bound:?}");
    }
}

#[test]
fn no_evidence_however_poor_is_held_and_all_figures_can_be_stored() {
    let two = "[{ error_rate: { max: 2%, max_increase: 1pp } }, { slow_rate: { over: 800ms, max_increase: 5pp } }]";
    let experiment = World { steady_state: two, usual: &[0.005, 0.02], harm: &[0.0, 0.0], ..WORLD }.experiment();
    let mut endings = std::collections::BTreeSet::new();
    for number in 0..3000 {
        let mut rng = rng(number);
        let mut some = |most: u64| if rng.random_bool(0.4) { 0 } else { rng.random_range(0..=most) };
        let mut pairs = |fraction: f64| -> Vec<Pair> {
            let count = some(30) as u32;
            let block = |last_tick| {
                let (n_t, n_c) = (some(60), some(60));
                let (bad_t, bad_c) = (some(n_t) as f64 * fraction, some(n_c) as f64 * fraction);
                Pair { bad_t, n_t, bad_c, n_c, last_tick }
            };
            (0..count).map(block).collect()
        };
        let fraction = [0.0, 1.0 / 7.0, 1.0][number % 3]; // sticky units are bad in part
        let indicators: Vec<Seen> =
            (0..2).map(|_| Seen { inject: pairs(fraction), recovery: pairs(fraction), ..Seen::default() }).collect();
        let mut counted = || Counted { bad: some(3) as f64, of: some(600) };
        let seen =
            |seen: Seen| Seen { baseline: counted(), baseline_control: counted(), bystanders: counted(), ..seen };
        let indicators = indicators.into_iter().map(seen).collect();
        let ended = match number % 5 {
            0 => Ended::Early("the lease ran out".into()),
            1 => Ended::Broken,
            _ => Ended::Planned,
        };
        let reach = Reach { treated: some(5000), faulted: some(60), carried: some(60), ..Reach::default() };
        let arrivals = (0..some(20)).map(|_| (some(30), some(30), 0.5)).collect();
        let inject_secs = some(60) as f64;
        let evidence = Evidence { indicators, arrivals, ended, reach, inject_secs, recovery_seen: some(1) > 0 };
        let judged = judge(&experiment, &evidence);
        endings.insert(judged.ending.word());
        if judged.ending == Ending::Held {
            assert_eq!(evidence.ended, Ended::Planned);
            assert!(evidence.reach.faulted >= ENOUGH_FAULTED, "{:?}", evidence.reach);
            for seen in &evidence.indicators {
                let (treated, control) = sums(&seen.inject);
                assert!(treated.of > 0 && control.of > 0, "{seen:?}");
            }
        }
        same_after_a_round_trip(&experiment, &evidence);
    }
    assert!(endings.len() >= 4, "poor evidence of every kind: {endings:?}");
}

#[test]
fn a_verdict_is_the_same_again_when_it_is_replayed() {
    let (experiment, mut evidence) = well();
    same_after_a_round_trip(&experiment, &evidence);
    same_after_a_round_trip(&experiment, &ill());
    for block in &mut evidence.indicators[0].inject {
        block.bad_t += 1.0 / 3.0;
        block.bad_c += 2.0 / 7.0;
    }
    same_after_a_round_trip(&experiment, &evidence);
}

#[test]
fn judging_goes_on_where_it_stopped_and_finds_what_judging_anew_finds() {
    let world = World { harm: &[0.03], ..WORLD };
    let experiment = world.experiment();
    let bound = &Bound::all(&experiment)[0];
    let mut rng = rng(3);
    let mut units = Ticks::new();
    for tick in 0..200 {
        let mut arms = [Counts::default(); 3];
        for (arm, share) in [(0, 0.09), (1, 0.01)] {
            arms[arm].arrived = rng.random_range(0..12);
            arms[arm].decided[0] = arms[arm].arrived;
            arms[arm].bad[0] = (0..arms[arm].arrived).filter(|_| rng.random_bool(share)).count() as f64;
        }
        units.insert(tick, arms);
    }
    let seen = Seen { baseline: Counted { bad: 9.0, of: 900 }, ..Seen::default() };
    let (mut so_far, mut highest) = (SoFar::new(&experiment, bound, &seen), 0.0_f64);
    for complete in 0..=200_u32 {
        // The latest are not decided yet when they are first looked at.
        let mut now = units.clone();
        now.range_mut(complete.saturating_sub(4)..).for_each(|(_, arms)| arms[0].decided[0] = 0);
        highest = highest.max(so_far.look(&now, complete, None));
        highest = highest.max(so_far.look(&now, complete, None));
    }
    let whole = block::cut(units.range(..so_far.from()), 0, u32::MAX, Undecided::Wait);
    let anew = super::highest(&path(bound, Side::Broken, &whole, prior(&experiment, bound, &seen)));
    assert!(whole.len() > 20 && highest > 1.0, "{} blocks, {highest}", whole.len());
    assert_eq!(highest.to_bits(), anew.to_bits());
}

#[test]
fn attempts_are_observed_beside_the_bounds_and_count_where_they_are_the_faults_doing() {
    let steady_state =
        "[{ name: ops, failed_operations: { by: trace, deadline: 3s, max_increase: 1pp, max_attempts: 2 } }]";
    let world = World { steady_state, ..WORLD };
    let experiment = world.experiment();
    let judged = |attempts| {
        let mut evidence = world.evidence(&mut rng(1));
        evidence.indicators[0].attempts = Some(attempts);
        let judged = judge(&experiment, &evidence);
        (judged.ending, judged.reason)
    };
    assert_eq!(judged([(200, 100), (100, 100)]).0, Ending::Held, "as many as may be");
    let (ending, reason) = judged([(201, 100), (200, 100)]);
    assert_eq!(
        (ending, &*reason),
        (Ending::Broken, "ops: observed 2.01 attempts on average, and at most 2 are allowed")
    );
    let (ending, reason) = judged([(300, 100), (201, 100)]);
    assert!(ending == Ending::Inconclusive && reason.contains("in control too"), "{reason}");
    let (ending, reason) = judged([(87, 29), (29, 29)]);
    assert!(ending == Ending::Inconclusive && reason.contains("of 29 operations only"), "{reason}");
}
