//! What is known about each kind of weakness: where to look first, what helps at once, what helps for good.
//!
//! Advice about the kind, never about the case: a report says so beside it.

use super::Class;

/// One page of the playbook.
#[derive(Clone, Copy, Debug)]
pub(super) struct Play {
    /// The kind's name, as it is written in the ledger.
    pub word: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// Where to look first.
    pub look: &'static str,
    /// What helps at once.
    pub relief: &'static str,
    /// What helps for good.
    pub repair: &'static str,
}

/// The page of a kind.
pub(super) fn play(class: Class) -> Play {
    let (word, meaning, look, relief, repair) = match class {
        Class::TimeoutMissing => (
            "timeout-missing",
            "A dependency's delay passes to the caller one to one.",
            "the client's timeout, and who else waits on the same threads",
            "set a timeout on this call, or switch the feature off",
            "hand deadlines on from call to call",
        ),
        Class::RetryStorm => (
            "retry-storm",
            "One failed call becomes many attempts.",
            "attempts per operation, and every layer that retries",
            "switch the retries off",
            "back off with jitter, and give retries a budget",
        ),
        Class::FallbackAbsent => (
            "fallback-absent",
            "A dependency's error passes to the user.",
            "the code that runs on an error answer",
            "switch the feature off",
            "a degraded answer: cached, partial or later",
        ),
        Class::BreakerMisfit => (
            "breaker-misfit",
            "A circuit breaker never opens, flaps or stays open.",
            "the breaker's state changes beside the errors that it saw",
            "open it by hand",
            "thresholds from measured traffic, and a probe before it closes",
        ),
        Class::Spillover => (
            "spillover",
            "Others than the treatment came to harm.",
            "what the two groups share: pools, threads, locks, caches",
            "stop, or make the slice smaller",
            "keep the pools of different callers apart",
        ),
        Class::PoolExhaustion => (
            "pool-exhaustion",
            "Callers wait for a connection, not for the dependency.",
            "the pool's gauges: in use, waiting, refused",
            "a larger pool",
            "limits on waiting, and shed what is over them",
        ),
        Class::ErrorMapping => (
            "error-mapping",
            "An odd answer becomes a wrong status or a crash.",
            "the parser, and the handler of unknown statuses",
            "repair the handler",
            "contract tests with odd answers",
        ),
        Class::DataIntegrity => (
            "data-integrity",
            "Something was written twice, or not at all.",
            "keys that make a write repeatable",
            "stop the writes",
            "idempotency keys, and an outbox",
        ),
        Class::SlowRecovery => (
            "slow-recovery",
            "The system is not well again in time after the fault has gone.",
            "what still waits or is cold when the fault ends",
            "restart what is stuck",
            "warm caches, back off, let queues drop what is too old",
        ),
        Class::DetectionGap => (
            "detection-gap",
            "The hypothesis broke and no alarm rang.",
            "the alert rules, and what they would have needed to see",
            "watch by hand",
            "alert on the burn of the objective",
        ),
        Class::Headroom => (
            "headroom",
            "A small dose is enough to miss the objective.",
            "the latency budget of each hop",
            "more capacity",
            "a budget for each hop, kept by tests",
        ),
        Class::HiddenDependency => (
            "hidden-dependency",
            "What was thought optional is not.",
            "a trace of one harmed request",
            "bring the dependency back",
            "make it optional, or own its objective",
        ),
        Class::Untriaged => (
            "untriaged",
            "The evidence names no kind: people decide.",
            "the findings and the latency by phase",
            "keep the slice small until it is understood",
            "choose a kind, so that repeats are counted together",
        ),
    };
    Play { word, meaning, look, relief, repair }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_playbook_uses_the_words_of_the_ledger() {
        for class in [
            Class::TimeoutMissing,
            Class::RetryStorm,
            Class::FallbackAbsent,
            Class::BreakerMisfit,
            Class::Spillover,
            Class::PoolExhaustion,
            Class::ErrorMapping,
            Class::DataIntegrity,
            Class::SlowRecovery,
            Class::DetectionGap,
            Class::Headroom,
            Class::HiddenDependency,
            Class::Untriaged,
        ] {
            assert_eq!(serde_json::to_value(class).unwrap(), play(class).word);
        }
    }
}
