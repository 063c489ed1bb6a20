//! The bounds of an experiment: each is one claim that must be shown kept, and may be shown crossed.

use crate::experiment::{Experiment, Measure};
use crate::units::Increase;

/// What one indicator allows.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The indicator's place in the document, which is also its rule's.
    pub indicator: usize,
    /// Its name.
    pub name: String,
    /// Where it is measured.
    pub at: String,
    /// What is allowed.
    pub allowed: Allowed,
    /// The bound in words.
    pub words: String,
    /// The increase as it was written.
    pub increase: Option<Increase>,
}

/// What is allowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Allowed {
    /// At most this share of the treatment.
    Max(f64),
    /// At most this much more than control.
    More(f64),
}

impl Bound {
    /// All bounds of an experiment that are decided by evidence.
    pub fn all(experiment: &Experiment) -> Vec<Self> {
        let mut all = Vec::new();
        for (index, indicator) in experiment.steady_state.iter().enumerate() {
            let bounds = match &indicator.measure {
                Measure::ErrorRate { bounds, .. }
                | Measure::SlowRate { bounds, .. }
                | Measure::FailedOperations { bounds, .. } => bounds,
                Measure::Probe(_) => continue,
            };
            let mut bound = |allowed, words, increase| {
                let (name, at) = (indicator.name.clone(), indicator.at.clone());
                all.push(Self { indicator: index, name, at, allowed, words, increase });
            };
            if let Some(max) = bounds.max {
                bound(Allowed::Max(max.ratio()), format!("at most {max:#}"), None);
            }
            if let Some(Increase::Points(points)) = bounds.max_increase {
                let against = if experiment.compares_phases() { "in baseline" } else { "control" };
                let words = format!("at most {points:#} more than {against}");
                bound(Allowed::More(points.ratio()), words, bounds.max_increase);
            }
        }
        all
    }

    /// The margin as a share.
    pub fn margin(&self) -> f64 {
        match self.allowed {
            Allowed::Max(margin) | Allowed::More(margin) => margin,
        }
    }
}

/// The levels that evidence must reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Levels {
    /// ln(1/alpha): every bound at full alpha, because all must be kept (Berger 1982).
    pub held: f64,
    /// ln(K/alpha): any bound is enough, in inject or in recovery, so each gets its part.
    pub broken: f64,
}

impl Levels {
    /// For so many bounds at a confidence of 1 - alpha. K counts each twice: in inject and in recovery (decisions.md 2.3).
    pub fn new(bounds: usize, confidence: f64) -> Self {
        let alpha = (1.0 - confidence).max(1e-9);
        Self { held: (1.0 / alpha).ln(), broken: (2.0 * bounds.max(1) as f64 / alpha).ln() }
    }
}

/// The level of the gates that look at whether the world was quiet: alpha 0.01 (decisions.md 2.5).
pub const QUIET: f64 = 4.605_170_185_988_091;
