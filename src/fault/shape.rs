//! The shapes of delays: from one uniform number to one length of time.
//!
//! All draws are by inverse transform (Devroye 1986, Non-Uniform Random Variate Generation, II.2): one number decides one
//! delay, so that the same call of the same run is held for as long again.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::latency::{Distribution, Latency};
use crate::stats::quantile::normal_quantile;
use crate::units::Span;

/// What the longest delay is cut to: a year, as everywhere else. The tail of a log-normal one has no end of its own.
const LONGEST: f64 = 365.0 * 24.0 * 3600.0;

/// The shape of a delay.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// Uniform around a delay; `jitter` may be nothing.
    Around { delay: Duration, jitter: Duration },
    /// The logarithm is normal, in seconds.
    LogNormal { mu: f64, sigma: f64 },
    /// Normal, in seconds; what would be less than nothing is nothing.
    Normal { mean: f64, stddev: f64 },
    /// As often as it was measured.
    Measured(Arc<Histogram>),
}

impl Shape {
    /// The shape that was written.
    pub(super) fn of(latency: &Latency) -> Self {
        let seconds = |span: Option<Span>| span.unwrap_or_default().get().as_secs_f64();
        match latency {
            Latency { measured: Some(measured), .. } => Self::Measured(measured.clone()),
            // The quantiles of a log-normal are exp(mu + sigma z) (Aitchison and Brown 1957, 2.3): through the median,
            // where z is 0, and the 99th percentile, where it is 2.3263.
            Latency { p50: Some(p50), p99: Some(p99), .. } => {
                let (p50, p99) = (p50.get().as_secs_f64(), p99.get().as_secs_f64());
                Self::LogNormal { mu: p50.ln(), sigma: (p99 / p50).ln() / normal_quantile(0.99) }
            }
            Latency { distribution: Some(Distribution::Normal), mean, stddev, .. } => {
                Self::Normal { mean: seconds(*mean), stddev: seconds(*stddev) }
            }
            Latency { distribution: Some(Distribution::Uniform), min, max, .. } => {
                let (min, max) = (min.unwrap_or_default().get(), max.unwrap_or_default().get());
                let jitter = max.saturating_sub(min) / 2;
                Self::Around { delay: min + jitter, jitter }
            }
            Latency { delay, jitter, .. } => {
                Self::Around { delay: delay.unwrap_or_default().get(), jitter: jitter.unwrap_or_default().get() }
            }
        }
    }

    /// Whether all delays are alike.
    pub(super) fn is_fixed(&self) -> bool {
        matches!(self, Self::Around { jitter, .. } if jitter.is_zero())
    }

    /// The delay that a share `u` of all delays is below, 0 <= u < 1.
    pub(super) fn at(&self, u: f64) -> Duration {
        let seconds = |seconds: f64| Duration::from_secs_f64(seconds.clamp(0.0, LONGEST));
        match self {
            Self::Around { delay, jitter } => (*delay + jitter.mul_f64(2.0 * u)).saturating_sub(*jitter),
            Self::LogNormal { mu, sigma } => seconds((mu + sigma * normal_quantile(u)).exp()),
            // Without a spread the ends, which are infinite, are the mean as well.
            Self::Normal { mean, stddev: 0.0 } => seconds(*mean),
            Self::Normal { mean, stddev } => seconds(mean + stddev * normal_quantile(u)),
            Self::Measured(histogram) => histogram.at(u),
        }
    }
}

/// Delays as they were measured, each as often as it was.
///
/// A line is a delay with its unit; behind a comma, how often it was measured, once where nothing is there. Empty lines
/// and those that begin with `#` are passed over.
///
/// ```text
/// # from yesterday's access log
/// 12ms,840
/// 35ms,112
/// 1.2s,9
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Histogram {
    /// Each delay, with how many were counted up to and with it.
    steps: Vec<(Duration, u64)>,
}

impl Histogram {
    fn at(&self, u: f64) -> Duration {
        let total = self.steps.last().map_or(0, |(_, up_to)| *up_to);
        let place = (u * total as f64) as u64;
        let step = self.steps.partition_point(|(_, up_to)| *up_to <= place);
        // Above 2^53 the product may be rounded up to the total.
        self.steps[step.min(self.steps.len() - 1)].0
    }
}

impl FromStr for Histogram {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut steps, mut total) = (Vec::new(), 0u64);
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why: String| format!("line {}: {why}", index + 1);
            let (delay, count) =
                line.split_once(',').map_or((line, None), |(delay, count)| (delay, Some(count.trim())));
            let delay = short(delay.trim()).parse::<Span>().map_err(|error| wrong(error.to_string()))?;
            let count = match count {
                None => 1,
                Some(count) => count.parse::<u64>().map_err(|_| {
                    wrong(format!("behind the comma stands how often, as in `250ms,12`, not `{}`", short(count)))
                })?,
            };
            total = total.checked_add(count).ok_or_else(|| wrong("there are too many to be counted".to_owned()))?;
            if count > 0 {
                steps.push((delay.get(), total));
            }
        }
        if steps.is_empty() {
            return Err("no delay is in it; write one a line, as in `250ms` or `250ms,12`".to_owned());
        }
        Ok(Self { steps })
    }
}

/// As much as fits into a message, of what may be anything.
fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;
    use crate::stats::beta::normal_below;
    use crate::units::Seed;

    const DRAWS: usize = 2000;

    /// Delays in seconds, sorted, as the proxy draws them.
    fn drawn(json: &str) -> Vec<f64> {
        let shape = Shape::of(&serde_json::from_str(json).expect(json));
        let chance = Chance::new(Seed(7), "shapes");
        let mut all: Vec<f64> = (0..DRAWS as u64)
            .map(|call| {
                let draw = crate::fault::Draw(chance.bits("draw", &call.to_be_bytes()));
                shape.at(draw.uniform(0)).as_secs_f64()
            })
            .collect();
        all.sort_by(f64::total_cmp);
        all
    }

    /// The largest distance between the share of draws up to a value and what it should be (Kolmogorov and Smirnov).
    fn distance(sorted: &[f64], below: impl Fn(f64) -> f64) -> f64 {
        let n = sorted.len() as f64;
        let steps = sorted.iter().enumerate();
        steps.fold(0.0, |most, (i, x)| {
            let there = below(*x);
            f64::max(most, f64::max((i as f64 + 1.0) / n - there, there - i as f64 / n))
        })
    }

    /// 1.628 / sqrt(n): larger in 1 % of all samples that are as they should be (Smirnov 1948, Ann. Math. Stat. 19:279).
    fn critical() -> f64 {
        1.628 / (DRAWS as f64).sqrt()
    }

    #[test]
    fn a_log_normal_delay_goes_through_its_two_points() {
        let delays = drawn(r#"{"p50":"300ms","p99":"2s"}"#);
        let sigma = (2.0f64 / 0.3).ln() / 2.3263;
        let d = distance(&delays, |x| normal_below((x.ln() - 0.3f64.ln()) / sigma));
        assert!(d < critical(), "{d}");
        let share = |over: f64| delays.iter().filter(|delay| **delay > over).count() as f64 / DRAWS as f64;
        assert!((share(0.3) - 0.5).abs() < 0.03 && (share(2.0) - 0.01).abs() < 0.006, "{} {}", share(0.3), share(2.0));
    }

    #[test]
    fn a_normal_delay_is_normal_and_never_below_zero() {
        let delays = drawn(r#"{"distribution":"normal","mean":"200ms","stddev":"50ms"}"#);
        let d = distance(&delays, |x| normal_below((x - 0.2) / 0.05));
        assert!(d < critical(), "{d}");
        // A mean of one standard deviation: 15.9 % of all would be negative, and are nothing.
        let delays = drawn(r#"{"distribution":"normal","mean":"50ms","stddev":"50ms"}"#);
        let none = delays.iter().filter(|delay| **delay == 0.0).count() as f64 / DRAWS as f64;
        // Within 2.576 standard errors of a share: the same 1 %.
        assert!((none - 0.1587).abs() < 2.576 * (0.1587 * 0.8413 / DRAWS as f64).sqrt(), "{none}");
    }

    #[test]
    fn a_uniform_delay_is_uniform_between_its_bounds() {
        let delays = drawn(r#"{"distribution":"uniform","min":"100ms","max":"300ms"}"#);
        let d = distance(&delays, |x| (x - 0.1) / 0.2);
        assert!(d < critical() && delays[0] >= 0.1 && delays[DRAWS - 1] <= 0.3, "{d}");
        let around = drawn(r#"{"delay":"200ms","jitter":"100ms"}"#);
        assert_eq!(delays, around, "two ways to write the same");
    }

    #[test]
    fn a_measured_delay_comes_as_often_as_it_was_measured() {
        let histogram: Histogram = "# ours\n5ms,50\n\n 20ms , 30\n80ms,15\n1s,5\n2s,0\n".parse().unwrap();
        let shape = Shape::of(&Latency { measured: Some(Arc::new(histogram)), ..Latency::default() });
        let chance = Chance::new(Seed(7), "shapes");
        let mut seen = [0.0; 4];
        for call in 0..DRAWS as u64 {
            let draw = crate::fault::Draw(chance.bits("draw", &call.to_be_bytes()));
            let delay = shape.at(draw.uniform(0)).as_millis();
            seen[[5, 20, 80, 1000].iter().position(|known| *known == delay).expect("one of those")] += 1.0;
        }
        let expected = [0.5, 0.3, 0.15, 0.05].map(|share| share * DRAWS as f64);
        let chi_square: f64 = seen.iter().zip(expected).map(|(seen, of)| (seen - of) * (seen - of) / of).sum();
        // Three degrees of freedom: above 11.345 in 1 % of all samples (Pearson 1900).
        assert!(chi_square < 11.345, "{chi_square}: {seen:?}");
    }

    #[test]
    fn the_ends_of_a_shape_are_delays_that_can_be_waited_for() {
        let shapes = [
            r#"{"p50":"1us","p99":"365d"}"#,
            r#"{"distribution":"normal","mean":"365d","stddev":"365d"}"#,
            r#"{"distribution":"normal","mean":"1s","stddev":"0s"}"#,
        ];
        for json in shapes {
            let shape = Shape::of(&serde_json::from_str(json).expect(json));
            for u in [0.0, 0.5, 1.0 - f64::EPSILON] {
                assert!(shape.at(u).as_secs_f64() <= LONGEST, "{json} at {u}");
            }
        }
    }

    #[test]
    fn what_is_no_delay_in_a_histogram_is_named_with_its_line() {
        for (text, why) in [
            ("", "no delay is in it; write one a line, as in `250ms` or `250ms,12`"),
            ("5ms,0\n", "no delay is in it; write one a line, as in `250ms` or `250ms,12`"),
            ("5ms\n\n12\n", "line 3: write a length of time with its unit, as in `250ms`, `1.5s` or `2m30s`, not `12`"),
            ("5ms,often", "line 1: behind the comma stands how often, as in `250ms,12`, not `often`"),
            ("5ms,-1", "line 1: behind the comma stands how often, as in `250ms,12`, not `-1`"),
            ("1ms,18446744073709551615\n1ms", "line 2: there are too many to be counted"),
        ] {
            assert_eq!(text.parse::<Histogram>(), Err(why.to_owned()), "{text:?}");
        }
    }
}
