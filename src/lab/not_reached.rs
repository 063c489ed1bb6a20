//! Why a fault reached nobody: the first thing to put right in a run that was set up wrong.

use super::evidence::Reach;
use crate::experiment::{Carry, Experiment};

/// Why the fault reached nobody.
pub(super) fn not_reached(experiment: &Experiment, reach: &Reach) -> String {
    let carry = &experiment.slice.carry;
    if experiment.compares_phases() && reach.treated == 0 {
        return "nobody was measured: no request came to where the indicators are".into();
    }
    if experiment.compares_phases() && reach.eligible + reach.no_match + reach.protected_calls == 0 {
        return match reach.unkeyed {
            0 => "no call came to where the fault waits and was drawn while it was on".into(),
            unkeyed => {
                format!("nobody could be treated: {unkeyed} calls matched, and none had the key that `by` asks for")
            }
        };
    }
    if reach.treated == 0 && reach.unkeyed > 0 {
        let unkeyed = reach.unkeyed;
        return format!("nobody could be treated: {unkeyed} requests matched, and none had the key that `by` asks for");
    }
    if reach.treated == 0 && reach.no_id > 0 {
        let no_id = reach.no_id;
        return format!(
            "nobody could be treated: {no_id} requests matched, and none had an id that carries the arm (`carry: {carry}`)"
        );
    }
    if reach.treated == 0 && reach.protected > 0 {
        return "nobody could be treated: all matching requests were on protected routes".into();
    }
    if reach.treated == 0 && reach.probes > 0 {
        return "nobody could be treated: all matching requests look like health probes; \
                to fault them, write their path out in `match`"
            .into();
    }
    if reach.treated == 0 {
        return "nobody was treated: no request matched the slice".into();
    }
    if reach.eligible > 0 {
        return format!("the fault was not applied: all {} eligible calls were spared", reach.eligible);
    }
    if reach.no_match > 0 {
        return "the fault was not applied: calls of the treatment came, and none matched what is to be faulted".into();
    }
    if reach.protected_calls > 0 {
        return "the fault was not applied: all calls of the treatment were on protected routes".into();
    }
    if reach.carried > 0 {
        return "the fault was not applied: no call of the treatment came while it was on".into();
    }
    if reach.ambiguous > 0 {
        return format!(
            "context was not carried: the id of {} calls is that of requests in several arms (`carry: {carry}`); choose `by` that id",
            reach.ambiguous
        );
    }
    if reach.uncarried > 0 {
        let what = match carry {
            Carry::Baggage => "W3C baggage".to_owned(),
            Carry::Header(name) => format!("`{name}`"),
            Carry::Traceparent | Carry::B3 => format!("`{carry}`"),
            Carry::Auto | Carry::None => "W3C baggage, and no trace or request id".to_owned(),
        };
        return format!(
            "context was not carried: {} calls came, and none carried the mark; the application does not pass {what} on",
            reach.uncarried
        );
    }
    "no call came to where the fault waits".into()
}
