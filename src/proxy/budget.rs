//! How many faults a run may inject: in all, in each second, and to one caller. Only treated calls ask.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::experiment::{Experiment, Guard};

/// Callers that are told apart: 3 MiB at the most. Whoever comes later is spared.
const MOST_CALLERS: usize = 50_000;

/// So much of a second's faults may come at once.
const BURST: f64 = 0.1;

/// A run's budget of faults.
#[derive(Debug)]
pub(super) struct FaultBudget {
    left: AtomicU64,
    bounds: Option<Mutex<Bounds>>,
}

#[derive(Debug)]
struct Bounds {
    bucket: Option<Bucket>,
    callers: Option<Callers>,
}

#[derive(Debug)]
struct Callers {
    most: u64,
    met: HashMap<IpAddr, u64>,
}

/// A token bucket on Tokio's clock.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

impl FaultBudget {
    /// At most `max` in all, and what else the experiment's guard says.
    pub(super) fn of(experiment: &Experiment, max: Option<u64>) -> Self {
        let (mut bucket, mut callers) = (None, None);
        for guard in &experiment.guards {
            if let Guard::Faulted { rate, per_caller, .. } = guard {
                bucket = rate.map(|rate| Bucket::new(rate.per_second()));
                callers = per_caller.map(|most| Callers { most, met: HashMap::new() });
            }
        }
        let bounds = (bucket.is_some() || callers.is_some()).then(|| Mutex::new(Bounds { bucket, callers }));
        Self { left: AtomicU64::new(max.unwrap_or(u64::MAX)), bounds }
    }

    /// Spends one fault on a caller. `false` where it is not to be had: nothing is spent then.
    pub(super) fn spend(&self, caller: IpAddr) -> bool {
        let Some(bounds) = &self.bounds else { return self.take() };
        let mut bounds = bounds.lock().unwrap_or_else(PoisonError::into_inner);
        let Bounds { bucket, callers } = &mut *bounds;
        let caller = caller.to_canonical();
        let allowed = callers.as_ref().is_none_or(|callers| callers.may_meet(caller))
            && bucket.as_mut().is_none_or(Bucket::has_one)
            && self.take();
        if allowed {
            if let Some(callers) = callers {
                *callers.met.entry(caller).or_default() += 1;
            }
            if let Some(bucket) = bucket {
                bucket.tokens -= 1.0;
            }
        }
        allowed
    }

    /// A fault that was spent on a caller, and did not meet it after all. What a rate allowed is gone with its moment.
    pub(super) fn give_back(&self, caller: IpAddr) {
        self.left.fetch_add(1, Ordering::Relaxed);
        let Some(bounds) = &self.bounds else { return };
        let mut bounds = bounds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(met) = bounds.callers.as_mut().and_then(|callers| callers.met.get_mut(&caller.to_canonical())) {
            *met = met.saturating_sub(1);
        }
    }

    fn take(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

impl Callers {
    fn may_meet(&self, caller: IpAddr) -> bool {
        match self.met.get(&caller) {
            Some(met) => *met < self.most,
            // Nobody is forgotten: who cannot be remembered could meet more than is allowed.
            None => self.met.len() < MOST_CALLERS,
        }
    }
}

impl Bucket {
    fn new(per_second: f64) -> Self {
        Self { per_second, tokens: Self::capacity(per_second), filled: Instant::now() }
    }

    fn capacity(per_second: f64) -> f64 {
        (per_second * BURST).max(1.0)
    }

    fn has_one(&mut self) -> bool {
        let now = Instant::now();
        let more = self.per_second * (now - self.filled).as_secs_f64();
        self.tokens = (self.tokens + more).min(Self::capacity(self.per_second));
        self.filled = now;
        // Twenty times a twentieth is a little less than one.
        self.tokens >= 1.0 - 1e-9
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn budget(guard: &str, max: Option<u64>) -> FaultBudget {
        let text = format!(
            "version: 1\nexperiment: test\nhypothesis: All is well.\nslice: {{ at: front }}\n\
             inject: {{ at: back, faults: [{{ error: {{ status: 503 }} }}] }}\n\
             steady_state: [{{ error_rate: {{ max: 1% }} }}]\nhalt_when: [{{ faulted: {guard} }}]\n"
        );
        let (experiment, _) = Experiment::parse("test", &text, &|_| None).unwrap_or_else(|wrong| panic!("{wrong}"));
        FaultBudget::of(&experiment, max)
    }

    fn caller(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_in_every_second_and_a_tenth_of_it_may_come_at_once() {
        for (rate, at_once, in_ten_seconds) in [("50/s", 5, 505), ("30/m", 1, 6), ("1/s", 1, 11)] {
            let budget = budget(&format!("{{ rate: {rate} }}"), None);
            assert_eq!((0..100).filter(|_| budget.spend(caller(1))).count(), at_once, "{rate}");
            let mut later = 0;
            for _ in 0..1000 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                later += (0..10).filter(|n| budget.spend(caller(*n))).count();
            }
            assert_eq!(at_once + later, in_ten_seconds, "{rate}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_meets_no_more_than_its_part_and_takes_nothing_from_the_others() {
        let budget = budget("{ max: 7, per_caller: 3 }", Some(7));
        let met = |number, times| (0..times).filter(|_| budget.spend(caller(number))).count();
        assert_eq!(met(1, 10), 3);
        let mapped = "::ffff:10.0.0.1".parse().unwrap();
        assert!(!budget.spend(mapped), "the same caller by another spelling");
        assert_eq!((met(2, 2), met(3, 10), met(4, 1)), (2, 2, 0), "seven in all");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_there_is_no_room_to_remember_is_spared() {
        let budget = budget("{ per_caller: 1 }", None);
        let most = u32::try_from(MOST_CALLERS).unwrap();
        assert!((0..most).all(|number| budget.spend(caller(number))));
        assert!(!budget.spend(caller(most)) && !budget.spend(caller(0)));
    }
}
