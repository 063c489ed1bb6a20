//! How a unit ended, and whether that is good.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a unit ended.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// The gRPC status, if there was one.
    pub grpc: Option<u8>,
    /// How the exchange ended.
    pub end: End,
    /// From arrival to the head of the answer.
    pub head: Option<Duration>,
    /// From arrival to the end.
    pub total: Duration,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The whole answer was handed over.
    Complete,
    /// A connection broke or could not be made.
    Transport,
    /// The listener's timeout passed.
    Timeout,
    /// The caller left before the answer was whole.
    GaveUp,
}

/// One kind of answer, or lack of one, that counts as an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Count {
    /// A class of statuses: `4xx`, `5xx`; the digit is kept.
    Class(u8),
    /// One status.
    Status(u16),
    /// The connection broke, or could not be made.
    Transport,
    /// The listener's response timeout passed.
    Timeout,
    /// The caller left before the answer was whole.
    GaveUp,
    /// A gRPC status, by its number.
    Grpc(u8),
}

/// Where the clock of a slow rate stops.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// At the last byte of the answer.
    #[default]
    Body,
    /// At the head of the answer.
    Headers,
}

/// What counts as an error, so that one look at an outcome tells: every unit is asked.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// A bit for each class of statuses.
    classes: u16,
    statuses: Vec<u16>,
    transport: bool,
    timeout: bool,
    gave_up: bool,
    /// A bit for each gRPC status (there are 17); others say nothing.
    grpc: u32,
}

impl<C: AsRef<[Count]>> From<C> for Counted {
    fn from(counts: C) -> Self {
        let mut counted = Self::default();
        for count in counts.as_ref() {
            match *count {
                Count::Class(class) => counted.classes |= 1 << (class & 15),
                Count::Status(status) => counted.statuses.push(status),
                Count::Transport => counted.transport = true,
                Count::Timeout => counted.timeout = true,
                Count::GaveUp => counted.gave_up = true,
                Count::Grpc(code) => counted.grpc |= 1u32.checked_shl(code.into()).unwrap_or(0),
            }
        }
        counted
    }
}

impl Counted {
    fn has(&self, outcome: &Outcome) -> bool {
        let end = match outcome.end {
            End::Complete => false,
            End::Transport => self.transport,
            End::Timeout => self.timeout,
            End::GaveUp => self.gave_up,
        };
        let status = |status: u16| self.classes & 1 << ((status / 100) & 15) != 0 || self.statuses.contains(&status);
        let grpc = |code: u8| self.grpc & 1u32.checked_shl(code.into()).unwrap_or(0) != 0;
        end || outcome.status.is_some_and(status) || outcome.grpc.is_some_and(grpc)
    }
}

/// A yes-or-no question to every unit: was it bad?
#[derive(Clone, Debug)]
pub enum Rule {
    /// Bad if it is one of these.
    Error(Counted),
    /// Bad if it took longer.
    Slow {
        /// The threshold in microseconds; zero while it is not known yet (`baseline_p95`).
        over: Arc<AtomicU64>,
        /// Where the clock stops.
        until: Until,
    },
}

impl Rule {
    /// A threshold that is known from the start.
    pub fn slow(over: Duration, until: Until) -> Self {
        Self::Slow { over: Arc::new(AtomicU64::new(over.as_micros() as u64)), until }
    }

    /// Whether a unit that is over was bad; `None` where nobody can tell.
    pub fn judge(&self, outcome: &Outcome) -> Option<bool> {
        match self {
            Self::Error(counted) => Some(counted.has(outcome)),
            Self::Slow { until, .. } => {
                let over = self.threshold()?;
                Some(match (outcome.end, until, outcome.head) {
                    (_, Until::Headers, Some(head)) => head > over,
                    (End::Complete, ..) => outcome.total > over,
                    // Whoever got no whole answer waited for ever.
                    _ => true,
                })
            }
        }
    }

    /// Whether a unit under way is already bad after so long. `patience` is the response timeout of its listener, which
    /// does not run while a fault holds the request: without a head by then, it has timed out (decisions.md 2.1).
    pub fn overdue(&self, elapsed: Duration, head: Option<Duration>, patience: Duration) -> bool {
        match self {
            Self::Error(counted) => head.is_none() && elapsed > patience && counted.timeout,
            Self::Slow { until: Until::Headers, .. } if head.is_some() => false,
            Self::Slow { .. } => self.threshold().is_some_and(|over| elapsed > over),
        }
    }

    /// From when on a unit is slow, where that is asked and known.
    pub fn threshold(&self) -> Option<Duration> {
        match self {
            Self::Slow { over, .. } => match over.load(Ordering::Relaxed) {
                0 => None,
                micros => Some(Duration::from_micros(micros)),
            },
            Self::Error(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_got_no_whole_answer_is_slow_and_what_counts_as_an_error_is_one() {
        let slow = Rule::slow(Duration::from_millis(800), Until::Body);
        let errors = Rule::Error([Count::Class(5), Count::Transport, Count::Timeout, Count::GaveUp].into());
        let ms = Duration::from_millis;
        for (status, end, total, is_slow, is_error) in [
            (Some(200), End::Complete, 100, false, false),
            (Some(200), End::Complete, 801, true, false),
            (Some(404), End::Complete, 1, false, false),
            (Some(503), End::Complete, 1, false, true),
            (Some(200), End::Transport, 5, true, true),
            (None, End::Transport, 5, true, true),
            (None, End::Timeout, 30_000, true, true),
            (None, End::GaveUp, 20, true, true),
        ] {
            let outcome = Outcome { status, grpc: None, end, head: None, total: ms(total) };
            assert_eq!(slow.judge(&outcome), Some(is_slow), "slow: {outcome:?}");
            assert_eq!(errors.judge(&outcome), Some(is_error), "error: {outcome:?}");
        }
        let headers = Rule::slow(ms(50), Until::Headers);
        let streamed = Outcome { status: Some(200), grpc: None, end: End::GaveUp, head: Some(ms(10)), total: ms(9000) };
        assert_eq!(headers.judge(&streamed), Some(false), "the head was in time, whatever came after");
        let patience = ms(30_000);
        let overdue = |rule: &Rule, elapsed, head: Option<u64>| rule.overdue(ms(elapsed), head.map(ms), patience);
        assert!(overdue(&slow, 801, Some(1)) && !overdue(&headers, 801, Some(1)));
        assert!(!overdue(&errors, 30_000, None) && overdue(&errors, 30_001, None), "it has timed out");
        assert!(!overdue(&errors, 60_000, Some(1)), "an answer under way may take its time");
        assert!(!overdue(&Rule::Error([Count::Class(5)].into()), 60_000, None), "a timeout is no error here");
    }
}
