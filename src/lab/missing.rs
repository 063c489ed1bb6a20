//! What an inconclusive run lacks: units, and the time they take at this slice.

use super::bound::{Allowed, Bound, Levels};
use super::evidence::{Ended, Evidence};
use crate::experiment::Ending;
use crate::report::{BoundVerdict, Counted, words};
use crate::stats::plan::{growth_one_arm, growth_per_treated, minutes, treated_needed_one_arm, treated_needed_two_arm};

/// What would settle the bound that needs most.
pub(super) fn missing(
    bounds: &[Bound],
    verdicts: &[BoundVerdict],
    evidence: &Evidence,
    levels: Levels,
) -> Option<String> {
    if matches!(evidence.ended, Ended::Never(_)) {
        return None; // nothing was injected: what is missing is what the reason says
    }
    let open = bounds.iter().zip(verdicts).filter(|(_, verdict)| verdict.ending == Ending::Inconclusive);
    let more = open
        .map(|(bound, verdict)| units(bound, verdict, evidence.indicators[bound.indicator].baseline, levels))
        .fold(None, |most: Option<f64>, units| Some(most.map_or(units, |most| most.max(units))))?;
    if !more.is_finite() || more > 1e7 {
        return Some(
            "the truth lies too near the bound to be told apart; a wider bound or a larger dose would settle it".into(),
        );
    }
    // In units, as what is needed: somebody who came ten times is one.
    let treated = verdicts.iter().map(|verdict| verdict.treated.of).max().unwrap_or_default() as f64;
    let rate = treated / evidence.inject_secs.max(0.001);
    let more = (more.max(1.0) / 10.0).ceil() as u64 * 10;
    if rate <= 0.0 {
        return Some(format!("about {} treated requests", words::count(more)));
    }
    let time = minutes(more as f64, rate);
    let time = if time < 1.5 { format!("{:.0} s", (time * 60.0).ceil()) } else { format!("{:.0} min", time.ceil()) };
    Some(format!("about {} more treated requests: {time} at this slice", words::count(more)))
}

fn units(bound: &Bound, verdict: &BoundVerdict, baseline: Counted, levels: Levels) -> f64 {
    let alpha = (-levels.held).exp();
    let (n, share) = (verdict.treated.of as f64, verdict.treated.share());
    let control = verdict.control.share();
    let smooth = |share: f64, n: f64| (share * n + 0.5) / (n + 1.0);
    if n == 0.0 {
        // Nothing was measured: all that is known is baseline.
        let p0 = smooth(baseline.share(), baseline.of as f64);
        return match bound.allowed {
            Allowed::Max(max) => treated_needed_one_arm(p0.min(max * 0.9), max, alpha),
            Allowed::More(margin) => treated_needed_two_arm(p0, p0, margin, 1.0, alpha),
        };
    }
    match bound.allowed {
        Allowed::Max(max) if share < max => {
            let needed = treated_needed_one_arm(smooth(share, n).min(max * 0.9), max, alpha) - n;
            needed.max(0.1 * n)
        }
        Allowed::More(margin) if share - control < margin => {
            let k = (verdict.control.of as f64 / n.max(1.0)).max(0.1);
            let pooled = smooth((share * n + control * n * k) / (n * (1.0 + k)).max(1.0), n * (1.0 + k));
            let needed = treated_needed_two_arm(pooled, pooled, margin, k, alpha) - n;
            needed.max(0.1 * n)
        }
        // Beyond the bound, and not shown yet: what BROKEN still needs at the growth that was seen.
        Allowed::Max(max) => (levels.broken - verdict.log_e_broken) / growth_one_arm(share, max).max(1e-9),
        Allowed::More(margin) => {
            let k = (verdict.control.of as f64 / n.max(1.0)).max(0.1);
            (levels.broken - verdict.log_e_broken) / growth_per_treated(share, control, margin, k).max(1e-9)
        }
    }
}
