//! A fault that is on: what calls meet, what new connections meet, and how whoever is held is let go.

use std::sync::OnceLock;

use tokio_util::sync::CancellationToken;

use crate::fault::tls::Forger;
use crate::fault::{Fault, Release};

/// A fault that is on.
#[derive(Debug)]
pub(super) struct Injecting {
    /// What calls meet, the outermost first.
    pub(super) calls: Vec<Fault>,
    /// Whether calls have their connection end behind them.
    pub(super) sends_away: bool,
    /// What new connections meet, one of these each.
    pub(super) connections: Vec<Fault>,
    /// Makes certificates; only where some are asked for.
    forger: OnceLock<Forger>,
    /// Lets go whoever is held.
    pub(super) stop: CancellationToken,
    pub(super) release: Release,
}

impl Injecting {
    pub(super) fn new(faults: Vec<Fault>, stop: CancellationToken, release: Release) -> Self {
        let (connections, others): (Vec<_>, Vec<_>) = faults.into_iter().partition(Fault::meets_new_connections);
        let (goaway, calls): (Vec<_>, Vec<_>) = others.into_iter().partition(Fault::meets_connections);
        Self { calls, sends_away: !goaway.is_empty(), connections, forger: OnceLock::new(), stop, release }
    }

    /// Whether a call meets anything.
    pub(super) fn meets_calls(&self) -> bool {
        self.sends_away || !self.calls.is_empty()
    }

    /// The kinds of faults that a call meets.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &'static str> {
        self.calls.iter().map(Fault::kind).chain(self.sends_away.then_some("drop"))
    }

    pub(super) fn forger(&self) -> &Forger {
        self.forger.get_or_init(Forger::new)
    }

    /// The fault is over: whoever is held is let go, in turn where there are many.
    pub(super) fn end(&self, held: u64) {
        self.release.prepare(held);
        self.stop.cancel();
    }
}
