//! What became of treated operations: their own ends, joined with the calls that met the fault.

use std::collections::HashMap;
use std::time::Duration;

use super::End;

/// News of a treated operation.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// The operation itself is over, seen where the slice is.
    Operation {
        /// Which.
        op: u128,
        /// Whether its caller got an error, or nothing whole.
        failed: bool,
        /// How it ended.
        end: End,
        /// How long it took.
        total: Duration,
    },
    /// One of its calls, seen where the fault is.
    Call {
        /// The operation.
        op: u128,
        /// Method, path and query as a hash: the same again is another attempt.
        call: u64,
        /// The method is not safe to repeat (RFC 9110, 9.2.1).
        unsafe_method: bool,
        /// What it met.
        met: Met,
    },
}

/// What a treated call met.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Met {
    /// Nothing: it was let through.
    Nothing,
    /// An answer that we made up, with a status.
    Error(u16),
    /// The connection was cut.
    Cut,
    /// It was answered, and its connection ended behind the answer.
    SentAway,
    /// Something on its way was changed or slowed, and it was not cut off.
    Changed,
    /// It was held, and waited to the end.
    Waited {
        /// How long it was to be held.
        asked: Duration,
        /// How long it was held.
        applied: Duration,
    },
    /// It was held, and its caller left first.
    Left {
        /// How long it was to be held; `Duration::MAX` for a hang without an end.
        asked: Duration,
        /// When the caller left.
        after: Duration,
    },
    /// It was held, and let go when the injection ended.
    Released,
}

/// The most operations that are joined; more are counted, not joined. 24 MiB at the most.
const MOST: usize = 200_000;

/// Everything that is known about treated operations.
#[derive(Debug, Default)]
pub struct Operations {
    ops: HashMap<u128, Operation>,
    attempts: HashMap<(u128, u64), u32>,
    /// Calls that met the fault.
    pub faulted: u64,
    /// Calls that waited through the whole hold.
    pub waited: u64,
    /// Calls whose caller left during the hold, by when (in milliseconds, sorted on demand).
    pub left_after_ms: Vec<f64>,
    /// Calls that were let go because the injection ended.
    pub released: u64,
    /// Delays in milliseconds as asked, of calls that waited.
    pub asked_ms: Vec<f64>,
    /// Delays in milliseconds as applied, of the same calls.
    pub applied_ms: Vec<f64>,
    /// Repeated calls of a method that is not safe to repeat.
    pub unsafe_repeats: u64,
    /// The most attempts that any call of an operation took.
    pub most_attempts: u32,
}

/// One operation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Operation {
    /// Calls that met the fault.
    pub faulted: u32,
    /// Calls that met an error or a cut.
    pub errors: u32,
    /// All calls.
    pub calls: u32,
    /// How it ended: failed, how, after how long.
    pub end: Option<(bool, End, Duration)>,
}

impl Operations {
    /// Takes in one piece of news.
    pub fn hear(&mut self, event: Event) {
        match event {
            Event::Operation { op, failed, end, total } => {
                if let Some(operation) = self.known(op) {
                    operation.end = Some((failed, end, total));
                }
            }
            Event::Call { op, call, unsafe_method, met } => {
                if self.attempts.len() < MOST {
                    let attempts = self.attempts.entry((op, call)).or_default();
                    *attempts += 1;
                    self.most_attempts = self.most_attempts.max(*attempts);
                    self.unsafe_repeats += u64::from(unsafe_method && *attempts > 1);
                }
                self.met(met);
                if let Some(operation) = self.known(op) {
                    operation.calls += 1;
                    operation.faulted += u32::from(met != Met::Nothing);
                    operation.errors += u32::from(matches!(met, Met::Error(_) | Met::Cut));
                }
            }
        }
    }

    fn met(&mut self, met: Met) {
        let ms = |span: Duration| span.as_secs_f64() * 1e3;
        self.faulted += u64::from(met != Met::Nothing);
        match met {
            Met::Waited { asked, applied } => {
                self.waited += 1;
                if self.asked_ms.len() < MOST {
                    self.asked_ms.push(ms(asked));
                    self.applied_ms.push(ms(applied));
                }
            }
            Met::Left { after, .. } if self.left_after_ms.len() < MOST => self.left_after_ms.push(ms(after)),
            Met::Released => self.released += 1,
            _ => {}
        }
    }

    fn known(&mut self, op: u128) -> Option<&mut Operation> {
        if self.ops.len() >= MOST && !self.ops.contains_key(&op) {
            return None;
        }
        Some(self.ops.entry(op).or_default())
    }

    /// Operations of which at least one call met the fault.
    pub fn exposed(&self) -> impl Iterator<Item = &Operation> {
        self.ops.values().filter(|operation| operation.faulted > 0)
    }

    /// Operations that are over, exposed or not.
    pub fn over(&self) -> usize {
        self.ops.values().filter(|operation| operation.end.is_some()).count()
    }

    /// Calls for each operation that made any.
    pub fn calls_per_operation(&self) -> f64 {
        let (calls, ops) = self.ops.values().fold((0u64, 0u64), |(calls, ops), operation| {
            (calls + u64::from(operation.calls), ops + u64::from(operation.calls > 0))
        });
        if ops == 0 { 0.0 } else { calls as f64 / ops as f64 }
    }

    /// Attempts for each distinct call of an operation.
    pub fn attempts_per_call(&self) -> f64 {
        let attempts: u64 = self.attempts.values().map(|attempts| u64::from(*attempts)).sum();
        if self.attempts.is_empty() { 0.0 } else { attempts as f64 / self.attempts.len() as f64 }
    }
}
