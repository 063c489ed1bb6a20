//! Why a context is lost: the usual cause, told by what the calls carry instead, with the way out.

use super::map::Stand;
use super::whose::Call;
use crate::experiment::Carry;
use crate::measure::Note;

/// The usual cause why calls are nobody's. `between` is the listener before the service that made them; to `elsewhere` it
/// passes the context on.
pub(super) fn cause(between: Option<&Stand>, calls: &[&Call<'_>], elsewhere: &[&str], carry: &Carry) -> String {
    let has = |by| calls.iter().any(|call| call.seen.ids.iter().flatten().any(|shown| shown.by == by));
    let marks = matches!(carry, Carry::Auto | Carry::Baggage);
    let field = match carry {
        Carry::Traceparent => "traceparent",
        Carry::B3 => "b3",
        Carry::Header(name) => name.as_str(),
        Carry::Auto | Carry::Baggage | Carry::None => "baggage",
    };
    // It could have gone on with the trace of the request.
    let own_trace = || {
        let other = if has(Note::ByTraceparent) { "traceparent" } else { "b3" };
        format!(
            "its calls begin a trace of their own in `{other}`: the service does not go on with that of the request; see \
             that its OTEL_PROPAGATORS are those of its callers, or copy the header `{field}` from the request"
        )
    };
    let traced = has(Note::ByTraceparent) || has(Note::ByB3);
    match (between, carry) {
        (Some(stand), _) if stand.external && marks => {
            format!("what is behind {} is external: nothing of ours is sent there", stand.name)
        }
        // Where it is not told to trust them, a listener of ours between slice and fault takes marks out.
        (Some(stand), _) if !stand.trusts && marks => format!(
            "the listener {} takes members of our name out of the baggage; say `trust_baggage: true` there, because it \
             stands between the slice and the fault",
            stand.name
        ),
        _ if calls.iter().filter(|call| call.ambiguous).count() * 2 > calls.len() => {
            "its calls have ids that requests of both arms have, so that nobody can tell whose they are; choose the slice \
             `by: trace`, or by that id, so that all who share one are in one arm"
                .to_owned()
        }
        (_, Carry::Header(name)) if has(Note::ByHeader) => {
            format!("its calls have a `{name}` that no request of the slice came with: pass that of the request on")
        }
        _ if !elsewhere.is_empty() => format!(
            "it passes the context on to {}, so this call is made by a client that is not instrumented, or by hand; \
             copy the header `{field}` from the request",
            elsewhere.join(" and ")
        ),
        (_, Carry::Header(name)) => format!("its calls come without `{name}`: copy that header from the request"),
        (_, Carry::Baggage) if has(Note::ByTraceparent) => {
            "its calls carry `traceparent` and no baggage: OpenTelemetry is there, and its propagators are without \
             baggage; set OTEL_PROPAGATORS=tracecontext,baggage"
                .to_owned()
        }
        (_, Carry::Baggage) if has(Note::ByB3) => {
            "its calls carry `b3` and no baggage: set OTEL_PROPAGATORS=b3,baggage, or copy the header `baggage`".to_owned()
        }
        _ if traced => own_trace(),
        _ => format!(
            "its calls carry neither a trace nor `{field}`: OpenTelemetry is not installed or is switched off \
             (OTEL_SDK_DISABLED), or the call is made by hand; copy the header `{field}` from the request"
        ),
    }
}
