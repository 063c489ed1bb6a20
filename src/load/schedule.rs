//! When requests leave: the instants are known from the start, so that a late one never moves the next.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Arrivals;
use super::chance::{Chance, Purpose, unit};
use crate::units::{Rate, Seed, Span};

/// The intended starts of all requests, as distances from the start of the load. It never ends.
#[derive(Clone, Debug)]
pub struct Schedule {
    arrivals: Arrivals,
    per_second: f64,
    ramp: f64,
    chance: Chance,
    /// How many instants were given out.
    index: u64,
    /// Where the last Poisson arrival lies.
    last: Duration,
}

impl Schedule {
    /// Requests at `rate`; `ramp` is how long a ramp takes to get there, and `seed` is what Poisson gaps are drawn from.
    pub fn new(arrivals: Arrivals, rate: Rate, ramp: Span, seed: Seed) -> Self {
        Self {
            arrivals,
            per_second: rate.per_second(),
            ramp: ramp.get().as_secs_f64(),
            chance: Chance::new(seed),
            index: 0,
            last: Duration::ZERO,
        }
    }

    /// On a ramp of length R to rate r, `r·t²/2R` requests are due by `t`: `r·R/2` by its end, and r each second after.
    fn ramped(&self, n: f64) -> f64 {
        let on_the_ramp = self.per_second * self.ramp / 2.0;
        if n < on_the_ramp {
            (2.0 * self.ramp * n / self.per_second).sqrt()
        } else {
            self.ramp + (n - on_the_ramp) / self.per_second
        }
    }

    /// The exponential gap before an arrival. `libm`, so that every platform draws the same bits.
    fn gap(&self, index: u64) -> f64 {
        let u = unit(self.chance.dice(Purpose::Gap, index).bits());
        -libm::log(1.0 - u) / self.per_second
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let n = self.index as f64;
        let offset = match self.arrivals {
            Arrivals::Constant => whole_nanos(n / self.per_second),
            Arrivals::Ramp => whole_nanos(self.ramped(n)),
            Arrivals::Poisson => {
                self.last = self.last.saturating_add(whole_nanos(self.gap(self.index)));
                self.last
            }
        };
        self.index += 1;
        Some(offset)
    }
}

/// The nearest nanosecond; centuries where there is no end.
fn whole_nanos(seconds: f64) -> Duration {
    Duration::from_nanos((seconds * 1e9).round() as u64)
}

/// Calls `leave` with the number and the intended start of each request when it is due, until `stop`. Overdue requests
/// leave at once, one after the other.
pub(super) async fn pace(schedule: Schedule, stop: &CancellationToken, mut leave: impl FnMut(u64, Instant)) {
    let start = Instant::now();
    let mut stopped = pin!(stop.cancelled());
    for (index, offset) in (0..).zip(schedule) {
        let intended = start + offset;
        // Both sides take part in Tokio's budget, so that a long row of overdue requests lets others run.
        tokio::select! {
            biased;
            () = &mut stopped => return,
            () = sleep_until(intended) => leave(index, intended),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use futures_util::poll;
    use tokio::time::advance;

    use super::*;

    fn schedule(arrivals: Arrivals, rate: &str, ramp: Span) -> Schedule {
        Schedule::new(arrivals, rate.parse().unwrap(), ramp, Seed(7))
    }

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn constant_arrivals_stay_on_their_grid_for_hours() {
        let mut constant = schedule(Arrivals::Constant, "200/s", Span::default());
        assert_eq!(constant.by_ref().take(4).collect::<Vec<_>>(), [millis(0), millis(5), millis(10), millis(15)]);
        assert_eq!(constant.nth(4_000_000 - 4), Some(millis(20_000_000)));
        // A third of a millisecond cannot be written in nanoseconds; its thousandth multiple can.
        assert_eq!(schedule(Arrivals::Constant, "3/s", Span::default()).nth(3_000_000), Some(millis(1_000_000_000)));
    }

    #[test]
    fn a_ramp_grows_from_nothing_to_the_rate_and_stays_there() {
        let instants: Vec<_> = schedule(Arrivals::Ramp, "100/s", Span::secs(10)).take(1001).collect();
        // Half as many as at the full rate: 500 on the ramp, a quarter of them in its first half.
        assert_eq!(instants[0], millis(0));
        assert_eq!(instants[125], millis(5_000));
        assert_eq!(instants[500], millis(10_000));
        assert_eq!(instants[501], millis(10_010));
        assert_eq!(instants[1000], millis(15_000));
        assert!(instants.is_sorted());
    }

    #[test]
    fn a_ramp_of_no_length_is_constant() {
        let ramp: Vec<_> = schedule(Arrivals::Ramp, "100/s", Span::default()).take(500).collect();
        assert_eq!(ramp, schedule(Arrivals::Constant, "100/s", Span::default()).take(500).collect::<Vec<_>>());
    }

    #[test]
    fn poisson_arrivals_come_from_the_seed_with_exponential_gaps() {
        let instants: Vec<_> = schedule(Arrivals::Poisson, "100/s", Span::default()).take(20_000).collect();
        assert_eq!(instants, schedule(Arrivals::Poisson, "100/s", Span::default()).take(20_000).collect::<Vec<_>>());
        let other = Schedule::new(Arrivals::Poisson, "100/s".parse().unwrap(), Span::default(), Seed(8));
        assert_ne!(instants[..10], other.take(10).collect::<Vec<_>>());

        let gaps: Vec<_> = instants.windows(2).map(|two| (two[1] - two[0]).as_secs_f64() * 100.0).collect();
        let share_above_one = gaps.iter().filter(|gap| **gap > 1.0).count() as f64 / gaps.len() as f64;
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        // Five standard errors: 1/√n for the mean, √(p(1-p)/n) for the share e⁻¹.
        assert!((mean - 1.0).abs() < 5.0 / (gaps.len() as f64).sqrt(), "{mean}");
        assert!((share_above_one - (-1.0f64).exp()).abs() < 5.0 * 0.482 / (gaps.len() as f64).sqrt());
    }

    #[tokio::test(start_paused = true)]
    async fn requests_leave_at_their_intended_instants() {
        let (start, stop) = (Instant::now(), CancellationToken::new());
        let mut left = Vec::new();
        pace(schedule(Arrivals::Constant, "200/s", Span::default()), &stop, |index, intended| {
            left.push((index, intended - start, start.elapsed()));
            if index == 399 {
                stop.cancel();
            }
        })
        .await;
        let grid: Vec<_> = (0..400).map(|n| (n, millis(5 * n), millis(5 * n))).collect();
        assert_eq!(left, grid);
    }

    #[tokio::test(start_paused = true)]
    async fn overdue_requests_leave_at_once_and_the_rest_on_time() {
        let (start, stop) = (Instant::now(), CancellationToken::new());
        let left = RefCell::new(Vec::new());
        {
            let mut load =
                pin!(pace(schedule(Arrivals::Constant, "100/s", Span::default()), &stop, |index, intended| {
                    left.borrow_mut().push((intended - start, start.elapsed()));
                    if index == 5 {
                        stop.cancel();
                    }
                }));
            assert!(poll!(&mut load).is_pending());
            // Nobody polls the load for a while: the scheduler is late.
            advance(millis(35)).await;
            load.await;
        }
        let lefts = [(0, 0), (10, 35), (20, 35), (30, 35), (40, 40), (50, 50)].map(|(a, b)| (millis(a), millis(b)));
        assert_eq!(left.into_inner(), lefts);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_leaves_after_stop_even_when_it_is_overdue() {
        let stop = CancellationToken::new();
        let mut left = 0;
        {
            let mut load = pin!(pace(schedule(Arrivals::Constant, "100/s", Span::default()), &stop, |_, _| left += 1));
            assert!(poll!(&mut load).is_pending());
            advance(millis(1_000)).await;
            stop.cancel();
            load.await;
        }
        assert_eq!(left, 1);
    }
}
