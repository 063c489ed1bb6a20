//! What the promises are worth on simulated traffic. Each test prints its rates (`cargo test simulations -- --nocapture`);
//! all chance comes from one seed, so that a rate is the same today and tomorrow.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::Block;
use super::eprocess::{OneArm, Side, TwoArm};
use super::interval::{mantel_haenszel, newcombe};
use super::multiple::crossing;
use super::plan::{treated_needed_one_arm, treated_needed_two_arm};
use super::ratio::{SAMPLE_RATIO_ALARM, SampleRatio, sample_ratio_log_e};

const STREAMS: usize = 1000;
const ALPHA: f64 = 0.05;
const SEED: u64 = 20_260_921;

/// The promise plus three standard errors of a rate over so many streams.
fn allowed(alpha: f64, streams: usize) -> f64 {
    alpha + 3.0 * (alpha * (1.0 - alpha) / streams as f64).sqrt()
}

/// How many of `n` are bad, by jumping from one bad unit to the next: quick where bad is rare.
fn binomial(rng: &mut SmallRng, n: f64, p: f64) -> f64 {
    if p > 0.5 {
        return n - binomial(rng, n, 1.0 - p);
    }
    if p <= 0.0 {
        return 0.0;
    }
    let (mut bad, mut place) = (0.0, 0.0);
    loop {
        place += (rng.random::<f64>().ln() / (-p).ln_1p()).floor() + 1.0;
        if place > n {
            return bad;
        }
        bad += 1.0;
    }
}

fn block(rng: &mut SmallRng, (n_t, p_t): (f64, f64), (n_c, p_c): (f64, f64)) -> Block {
    Block { bad_t: binomial(rng, n_t, p_t), n_t, bad_c: binomial(rng, n_c, p_c), n_c }
}

/// The share of streams of which `crossed` is true.
fn rate(streams: usize, mut crossed: impl FnMut(&mut SmallRng) -> bool) -> f64 {
    let mut rng = SmallRng::seed_from_u64(SEED);
    (0..streams).filter(|_| crossed(&mut rng)).count() as f64 / streams as f64
}

#[test]
fn two_arms_at_the_boundary_are_rarely_called_broken_or_held_however_often_one_looks() {
    let limit = crossing(1, ALPHA);
    for (p_c, margin, k) in
        [(0.001, 0.005, 19.0), (0.005, 0.01, 19.0), (0.01, 0.01, 1.0), (0.01, 0.01, 19.0), (0.2, 0.1, 1.0)]
    {
        for side in [Side::Held, Side::Broken] {
            let wrong = rate(STREAMS, |rng| {
                let mut process = TwoArm::new(side, margin, p_c);
                (0..60).any(|_| process.push(block(rng, (40.0, p_c + margin), (40.0 * k, p_c))) >= limit)
            });
            println!("two arms, control {p_c}, margin {margin}, {k} control per treated: false {side:?} {wrong:.4}");
            assert!(wrong <= allowed(ALPHA, STREAMS), "{side:?} {wrong}");
        }
    }
}

#[test]
fn a_ratio_at_the_boundary_is_rarely_called_broken_or_held() {
    let limit = crossing(1, ALPHA);
    for side in [Side::Held, Side::Broken] {
        let wrong = rate(STREAMS, |rng| {
            let mut process = TwoArm::ratio(side, 1.5, 0.05);
            (0..60).any(|_| process.push(block(rng, (40.0, 0.075), (160.0, 0.05))) >= limit)
        });
        println!("ratio 1.5, control 0.05: false {side:?} {wrong:.4}");
        assert!(wrong <= allowed(ALPHA, STREAMS), "{side:?} {wrong}");
    }
}

#[test]
fn one_arm_at_its_bound_is_rarely_called_broken_or_held() {
    let limit = crossing(1, ALPHA);
    for bound in [0.001, 0.01, 0.2] {
        for side in [Side::Held, Side::Broken] {
            let wrong = rate(STREAMS, |rng| {
                let mut process = OneArm::new(side, bound, bound / 3.0);
                (0..100).any(|_| process.push(binomial(rng, 60.0, bound), 60.0) >= limit)
            });
            println!("one arm, bound {bound}: false {side:?} {wrong:.4}");
            assert!(wrong <= allowed(ALPHA, STREAMS), "{side:?} {wrong}");
        }
    }
}

#[test]
fn users_counted_by_their_bad_share_at_the_boundary_are_rarely_called_broken_or_held() {
    // Ten requests a user that succeed or fail together nine times in ten: counting requests would be wrong here.
    let limit = crossing(1, ALPHA);
    let shares = |rng: &mut SmallRng, users: u32, p: f64| -> f64 {
        (0..users)
            .map(|_| {
                let together = rng.random_bool(0.9);
                if together { f64::from(u8::from(rng.random_bool(p))) } else { binomial(rng, 10.0, p) / 10.0 }
            })
            .sum()
    };
    for side in [Side::Held, Side::Broken] {
        let wrong = rate(STREAMS, |rng| {
            let mut process = TwoArm::new(side, 0.05, 0.05);
            (0..40).any(|_| {
                let (bad_t, bad_c) = (shares(rng, 20, 0.1), shares(rng, 20, 0.05));
                process.push(Block { bad_t, n_t: 20.0, bad_c, n_c: 20.0 }) >= limit
            })
        });
        println!("sticky users: false {side:?} {wrong:.4}");
        assert!(wrong <= allowed(ALPHA, STREAMS), "{side:?} {wrong}");
    }
}

#[test]
fn drifting_traffic_under_a_growing_slice_breaks_nothing_but_the_pooled_difference() {
    const RAMPS: usize = 200;
    let limit = crossing(1, ALPHA);
    let (mut pooled_wrong, mut stratified) = (0, 0.0);
    let wrong = rate(RAMPS, |rng| {
        let mut process = TwoArm::new(Side::Broken, 0.002, 0.003);
        let blocks: Vec<Block> = (0..300)
            .map(|index| {
                // Everybody's error rate rises tenfold while the slice steps from 1 % to 50 %; the fault does nothing.
                let p = 0.003 + 0.027 * f64::from(index) / 299.0;
                let treated = 1000.0 * [0.01, 0.05, 0.2, 0.5][index as usize / 75];
                block(rng, (treated, p), (1000.0 - treated, p))
            })
            .collect();
        let sum = |of: fn(&Block) -> f64| blocks.iter().map(of).sum::<f64>();
        let (low, _) = newcombe(sum(|b| b.bad_t), sum(|b| b.n_t), sum(|b| b.bad_c), sum(|b| b.n_c), 0.95);
        pooled_wrong += usize::from(low > 0.002);
        stratified += mantel_haenszel(&blocks).expect("both arms").0 / RAMPS as f64;
        blocks.into_iter().any(|block| process.push(block) >= limit)
    });
    let pooled = pooled_wrong as f64 / RAMPS as f64;
    println!("drift and ramp: false broken {wrong:.4}, pooled {pooled:.4}; stratified difference {stratified:.6}");
    assert!(wrong <= allowed(ALPHA, RAMPS), "{wrong}");
    assert!(pooled > 0.9, "the trap that this avoids: {pooled}");
    assert!(stratified.abs() < 0.0005, "{stratified}");
}

#[test]
fn damage_that_sets_in_late_is_found_and_takes_held_back() {
    const RUNS: usize = 200;
    let limit = crossing(1, ALPHA);
    let (mut held_before, mut held_after, mut broken) = (0, 0, 0);
    rate(RUNS, |rng| {
        let (mut held, mut harm) = (TwoArm::new(Side::Held, 0.01, 0.01), TwoArm::new(Side::Broken, 0.01, 0.01));
        for index in 0..200 {
            held_before += usize::from(index == 100 && held.log_e() >= limit);
            let p_t = if index < 100 { 0.01 } else { 0.06 };
            let next = block(rng, (20.0, p_t), (380.0, 0.01));
            held.push(next);
            harm.push(next);
        }
        held_after += usize::from(held.log_e() >= limit);
        broken += usize::from(harm.max_log_e() >= limit);
        false
    });
    println!("late onset, of {RUNS}: held at half-time {held_before}, held at the end {held_after}, broken {broken}");
    assert!(held_before > RUNS / 2, "the trap that reading held only at the end avoids");
    assert_eq!(held_after, 0);
    assert!(broken > RUNS * 9 / 10);
}

#[test]
fn the_planned_units_are_enough_in_about_nine_runs_of_ten() {
    const RUNS: usize = 300;
    let limit = crossing(1, ALPHA);
    for (p, margin, k) in [(0.01, 0.01, 19.0), (0.005, 0.05, 1.0), (0.05, 0.05, 19.0)] {
        let blocks = (treated_needed_two_arm(p, p, margin, k, ALPHA) / 20.0).ceil() as usize;
        let held = rate(RUNS, |rng| {
            let mut process = TwoArm::new(Side::Held, margin, p);
            for _ in 0..blocks {
                process.push(block(rng, (20.0, p), (20.0 * k, p)));
            }
            process.max_log_e() >= limit
        });
        println!("plan, share {p}, margin {margin}, k {k}: {} treated, held {held:.3}", blocks * 20);
        assert!((0.84..=0.99).contains(&held), "{held}");
    }
    for (p, bound) in [(0.002, 0.01), (0.05, 0.1)] {
        let blocks = (treated_needed_one_arm(p, bound, ALPHA) / 20.0).ceil() as usize;
        let held = rate(RUNS, |rng| {
            let mut process = OneArm::new(Side::Held, bound, p);
            for _ in 0..blocks {
                process.push(binomial(rng, 20.0, p), 20.0);
            }
            process.max_log_e() >= limit
        });
        println!("plan, share {p}, bound {bound}: {} units, held {held:.3}", blocks * 20);
        assert!((0.84..=0.99).contains(&held), "{held}");
    }
}

#[test]
fn the_sample_ratio_alarm_rings_for_lost_units_and_hardly_ever_else() {
    // (lost, alarm when blocks are summed, alarm when units are summed)
    let ring = |lost: f64| {
        let treated = |rng: &mut SmallRng| binomial(rng, 400.0, 0.1 * (1.0 - lost)) as u64;
        let blocks = rate(STREAMS, |rng| {
            let mut log_e = 0.0;
            (0..60).any(|_| {
                let n_t = treated(rng);
                log_e += sample_ratio_log_e(n_t, 400 - n_t, 0.1, 100.0);
                log_e >= SAMPLE_RATIO_ALARM
            })
        });
        let units = rate(STREAMS, |rng| {
            let mut run = SampleRatio::default();
            (0..60).any(|_| {
                let n_t = treated(rng);
                run.push(n_t, 400 - n_t, 0.1) >= SAMPLE_RATIO_ALARM
            })
        });
        println!("sample ratio, {lost} of the treated lost: alarm by blocks {blocks:.4}, by units {units:.4}");
        (blocks, units)
    };
    let sound = ring(0.0);
    assert!(sound.0.max(sound.1) <= allowed(0.001, STREAMS), "{sound:?}");
    assert!(ring(0.15).1 > 0.95);
    assert!(ring(0.3).0 > 0.95);
}
