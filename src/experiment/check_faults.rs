//! Faults that can be injected: one shape each, and nothing that contradicts itself.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};

use super::check::{help, meant, words};
use super::check_indicators::grpc_names;
use super::draft::SearchDraft;
use crate::document::Problems;
use crate::fault::drop::{At, How};
use crate::fault::latency::{Distribution, Latency};
use crate::fault::tls::{Tls, TlsHow};
use crate::fault::{Body, Direction, Drop, ErrorAnswer, Fault, grpc};
use crate::service::OF_ONE_HOP;
use crate::units::{ByteSize, Span};

/// A document that came over the API names no file of this machine.
pub(super) fn travelled(fault: &Fault, pointer: &str, problems: &mut Problems) {
    if let Some((key, _)) = fault.file() {
        problems.error(
            &format!("{pointer}/{key}"),
            "a document that comes over the API can name no file",
            help("write what is in it into the document, or start this where the file is, without `--on`"),
        );
    }
}

pub(super) fn fault(fault: &Fault, pointer: &str, problems: &mut Problems) {
    match fault {
        Fault::Latency(latency) => check_latency(latency, pointer, problems),
        Fault::Error(error) => check_error(error, pointer, problems),
        Fault::Drop(drop) => check_drop(drop, pointer, problems),
        Fault::Body(body) => check_body(body, pointer, problems),
        Fault::Headers(headers) => {
            if headers.set.is_empty() && headers.remove.is_empty() {
                problems.error_at_key(
                    pointer,
                    "no header field is set or removed",
                    help("add `set: { cache-control: no-store }` or `remove: [etag]`"),
                );
            }
            fields(&headers.set, &format!("{pointer}/set"), problems);
            for (index, name) in headers.remove.iter().enumerate() {
                let place = format!("{pointer}/remove/{index}");
                field_name(name, &place, false, problems);
                if headers.direction() == Direction::Request && name.eq_ignore_ascii_case("host") {
                    problems.error(
                        &place,
                        "a request that names no host is none",
                        help("write another, as in `set: { host: elsewhere.example }`"),
                    );
                }
            }
        }
        Fault::Overload(overload) => {
            if overload.rate.is_none() && overload.in_flight.is_none() {
                problems.error_at_key(
                    pointer,
                    "how much is too much is not written",
                    help("add `rate: 50/s`, `in_flight: 20` or both"),
                );
            }
        }
        Fault::Tls(tls) => check_tls(tls, pointer, problems),
        Fault::Throttle(_) | Fault::Duplicate(_) => {}
    }
}

fn check_latency(latency: &Latency, pointer: &str, problems: &mut Problems) {
    let shapes = [
        ("delay", latency.delay.is_some()),
        ("p50", latency.p50.is_some() || latency.p99.is_some()),
        ("distribution", latency.distribution.is_some()),
        ("histogram", latency.histogram.is_some()),
    ];
    let shapes: Vec<_> = shapes.into_iter().filter(|(_, written)| *written).map(|(name, _)| name).collect();
    if shapes.len() > 1 {
        problems.error_at_key(
            &format!("{pointer}/{}", shapes[1]),
            format!("a delay has one shape, and this has {}", words(shapes.iter().copied()).replace(" or ", " and ")),
            help("keep one of them"),
        );
        return;
    }
    let parameters = [
        ("mean", latency.mean.is_some(), Distribution::Normal),
        ("stddev", latency.stddev.is_some(), Distribution::Normal),
        ("min", latency.min.is_some(), Distribution::Uniform),
        ("max", latency.max.is_some(), Distribution::Uniform),
    ];
    for (name, _, of) in parameters.iter().filter(|(_, written, of)| *written && latency.distribution != Some(*of)) {
        let distribution = if *of == Distribution::Normal { "normal" } else { "uniform" };
        // Said of the whole fault, so that it is not said where the distribution was there, but unreadable.
        problems.error_at_key(
            pointer,
            format!("`{name}` belongs to a {distribution} distribution"),
            help(format!("add `distribution: {distribution}`, or remove `{name}`")),
        );
    }
    let zero = |span: Option<Span>| span == Some(Span::default());
    match (latency.delay, latency.jitter) {
        (Some(delay), Some(jitter)) if jitter > delay => problems.error(
            &format!("{pointer}/jitter"),
            format!("a jitter of `{jitter}` around `{delay}` would make some delays negative"),
            help(format!("at most `jitter: {delay}`")),
        ),
        (None, Some(_)) => problems.error_at_key(
            pointer,
            "`jitter` is plus or minus around a `delay`, and there is none",
            help("add `delay: 250ms`, or write `distribution: uniform` with `min` and `max`"),
        ),
        (Some(_), None) if zero(latency.delay) => problems.error(
            &format!("{pointer}/delay"),
            "a delay of `0s` is no fault",
            help("write how long to hold, as in `250ms`"),
        ),
        _ => {}
    }
    match shapes.first() {
        None if parameters.iter().any(|(_, written, _)| *written) || latency.jitter.is_some() => {}
        None => problems.error_at_key(
            pointer,
            "how long the delay is is not written",
            help("add `delay: 250ms`, `p50` with `p99`, `distribution`, or `histogram` with a file"),
        ),
        Some(&"p50") => check_log_normal(latency, pointer, problems),
        Some(&"distribution") => check_distribution(latency, pointer, problems),
        Some(_) => {}
    }
}

fn check_log_normal(latency: &Latency, pointer: &str, problems: &mut Problems) {
    match (latency.p50, latency.p99) {
        (Some(p50), Some(p99)) if p50 >= p99 || p50 == Span::default() => problems.error(
            &format!("{pointer}/p50"),
            format!("the median, `{p50}`, is more than nothing and less than the 99th percentile, `{p99}`"),
            help("write it as in `{ p50: 300ms, p99: 2s }`"),
        ),
        (Some(_), None) => problems.error_at_key(
            pointer,
            "a log-normal delay goes through two points, and `p99` is missing",
            help("add `p99`, or write `delay` for a fixed one"),
        ),
        (None, Some(_)) => problems.error_at_key(
            pointer,
            "a log-normal delay goes through two points, and `p50` is missing",
            help("add `p50`"),
        ),
        _ => {}
    }
}

fn check_distribution(latency: &Latency, pointer: &str, problems: &mut Problems) {
    match latency.distribution {
        Some(Distribution::Normal) if latency.mean.is_none() || latency.stddev.is_none() => problems.error_at_key(
            pointer,
            "a normal distribution has a mean and a standard deviation",
            help("write both, as in `mean: 200ms, stddev: 50ms`"),
        ),
        Some(Distribution::Uniform) => match (latency.min, latency.max) {
            (Some(min), Some(max)) if min < max => {}
            (Some(min), Some(max)) => problems.error_at_key(
                pointer,
                format!("nothing lies between `{min}` and `{max}`"),
                help("`min` is less than `max`; a fixed delay is `delay: 250ms`"),
            ),
            _ => problems.error_at_key(
                pointer,
                "a uniform distribution has a least and a largest delay",
                help("write both, as in `min: 100ms, max: 300ms`"),
            ),
        },
        _ => {}
    }
}

fn check_error(error: &ErrorAnswer, pointer: &str, problems: &mut Problems) {
    match (error.status, &error.grpc) {
        (None, None) => problems.error_at_key(
            pointer,
            "what is answered is not written",
            help("add `status: 503`, or `grpc: UNAVAILABLE`"),
        ),
        (Some(_), Some(_)) => problems.error_at_key(
            &format!("{pointer}/grpc"),
            "a gRPC answer always has the HTTP status 200",
            help("keep `status` or `grpc`"),
        ),
        (Some(status @ (204 | 205 | 304)), None) if error.body.is_some() || error.body_file.is_some() => problems
            .error(
                &format!("{pointer}/status"),
                format!("an answer with status {status} has no body"),
                help("remove the body, or choose another status"),
            ),
        (None, Some(name)) => {
            let pointer = format!("{pointer}/grpc");
            match grpc::code(name) {
                None => problems.error(&pointer, format!("there is no gRPC status `{name}`"), grpc_names(name)),
                Some(0) => problems.error(&pointer, "`OK` is no error", help("choose another, as in `UNAVAILABLE`")),
                Some(_) => {}
            }
        }
        _ => {}
    }
    if error.grpc.is_some() {
        for (key, written) in [("body", error.body.is_some()), ("body_file", error.body_file.is_some())] {
            if written {
                problems.error_at_key(
                    &format!("{pointer}/{key}"),
                    "a gRPC error has no body",
                    help("write what it says as `message`"),
                );
            }
        }
    } else if error.message.is_some() {
        problems.error_at_key(
            &format!("{pointer}/message"),
            "`message` stands beside a gRPC status",
            help("write `body` for what an HTTP answer says"),
        );
    }
    if error.body.is_some() && error.body_file.is_some() {
        problems.error_at_key(
            &format!("{pointer}/body_file"),
            "an answer has one body, and this has `body` and `body_file`",
            help("keep one of them"),
        );
    }
    fields(&error.headers, &format!("{pointer}/headers"), problems);
}

fn check_drop(fault: &Drop, pointer: &str, problems: &mut Problems) {
    if fault.hold.is_some() && fault.how != How::Hang {
        problems.error_at_key(
            &format!("{pointer}/for"),
            "only a `hang` takes some time",
            help("remove `for`, or write `how: hang`"),
        );
    }
    if fault.hold == Some(Span::default()) {
        problems.error(
            &format!("{pointer}/for"),
            "a hang of `0s` is none",
            help("write `how: close` to close at once"),
        );
    }
    let Some(at) = fault.at else { return };
    let pointer = format!("{pointer}/at");
    if matches!(fault.how, How::Goaway | How::Refuse) {
        problems.error_at_key(
            &pointer,
            "a connection that is refused or sent away has no moment of its own",
            help("remove `at`, or write `how: reset`, `close` or `hang`"),
        );
    }
    if matches!(at, At::Chunks(0) | At::Events(0) | At::Messages(0)) || at == At::Bytes(ByteSize::new(0)) {
        problems.error(
            &pointer,
            "nothing has passed by then",
            help("write `at: headers` for the moment before the body"),
        );
    }
}

fn check_tls(tls: &Tls, pointer: &str, problems: &mut Problems) {
    if tls.hold.is_some() && tls.how != TlsHow::Stall {
        problems.error_at_key(
            &format!("{pointer}/for"),
            "only a `stall` takes some time",
            help("remove `for`, or write `how: stall`"),
        );
    }
    if tls.hold == Some(Span::default()) {
        problems.error(
            &format!("{pointer}/for"),
            "a stall of `0s` is none",
            help("write `drop: { how: refuse }` to close at once"),
        );
    }
}

fn check_body(body: &Body, pointer: &str, problems: &mut Problems) {
    let kinds = [
        ("cut_after", body.cut_after.is_some()),
        ("stall_after", body.stall_after.is_some()),
        ("corrupt", body.corrupt.is_some()),
        ("replace", body.replace.is_some()),
        ("drip", body.drip.is_some()),
    ];
    let written: Vec<_> = kinds.into_iter().filter(|(_, written)| *written).map(|(name, _)| name).collect();
    match written.as_slice() {
        [] => problems.error_at_key(
            pointer,
            "what happens to the body is not written",
            help(format!("add {}", words(kinds.iter().map(|(name, _)| *name)))),
        ),
        [_] => {}
        [first, second, ..] => problems.error_at_key(
            &format!("{pointer}/{second}"),
            format!("one thing happens to a body, and this has `{first}` and `{second}`"),
            help("make two faults of it: the first that is written is the outermost"),
        ),
    }
    for (key, belongs, to, here) in [
        ("for", body.hold.is_some(), "stall_after", body.stall_after.is_some()),
        ("honest_length", body.honest_length.is_some(), "replace", body.replace.is_some()),
    ] {
        if belongs && !here {
            problems.error_at_key(
                pointer,
                format!("`{key}` belongs to `{to}`"),
                help(format!("add `{to}`, or remove `{key}`")),
            );
        }
    }
    if body.corrupt.is_some_and(|share| share.ratio() == 0.0) {
        problems.error(&format!("{pointer}/corrupt"), "no byte would be changed", help("write a share, as in `1%`"));
    }
    for (key, span) in [("drip", body.drip), ("for", body.hold)] {
        if span == Some(Span::default()) {
            problems.error(&format!("{pointer}/{key}"), "`0s` is no time at all", help("write a time, as in `100ms`"));
        }
    }
}

/// Checks the names and values of header fields that are to be sent.
fn fields(fields: &BTreeMap<String, String>, pointer: &str, problems: &mut Problems) {
    for (name, value) in fields {
        let place = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
        field_name(name, &place, true, problems);
        if HeaderValue::from_str(value).is_err() {
            problems.error(
                &place,
                format!("the value of `{name}` cannot be sent: it has a line break or another control character"),
                help("write it on one line"),
            );
        }
    }
}

fn field_name(name: &str, pointer: &str, key: bool, problems: &mut Problems) {
    let wrong = match HeaderName::from_bytes(name.as_bytes()) {
        Err(_) => (
            format!("`{name}` cannot be the name of a header field"),
            help("names are made of letters, digits and hyphens, as in `x-tier`"),
        ),
        Ok(name) if OF_ONE_HOP.contains(&name.as_str()) || name == "x-pratfall" => (
            format!("`{name}` is written by the proxy itself"),
            help(match name.as_str() {
                "content-length" => {
                    "remove it; a length that lies is `body: { replace: \"{}\", honest_length: false }`"
                }
                "x-pratfall" => "remove it; it marks every answer that is made up here",
                _ => "remove it; what breaks a connection is `drop: { how: reset }`",
            }),
        ),
        Ok(_) => return,
    };
    if key { problems.error_at_key(pointer, wrong.0, wrong.1) } else { problems.error(pointer, wrong.0, wrong.1) }
}

/// Checks a search by putting each dose into its fault.
pub(super) fn search(search: &SearchDraft, faults: &[Fault], problems: &mut Problems) {
    let vary =
        |problems: &mut Problems, message: String, way: Option<String>| problems.error("/search/vary", message, way);
    let kinds: Vec<_> = faults.iter().map(Fault::kind).collect();
    let Some((kind, key)) = search.vary.split_once('.') else {
        return vary(
            problems,
            format!("`{}` names no key of a fault", search.vary),
            help("write the fault and its key, as in `latency.delay`"),
        );
    };
    let mut those = faults.iter().filter(|fault| fault.kind() == kind);
    let fault = match (those.next(), those.next()) {
        (Some(fault), None) => fault,
        (Some(_), Some(_)) => {
            let message = format!("there are several faults `{kind}` here");
            return vary(problems, message, help("a search varies one fault; keep the one that is meant"));
        }
        (None, _) => return vary(problems, format!("there is no fault `{kind}` here"), meant(kind, &kinds)),
    };
    let json = serde_json::to_value(fault).expect("a fault can be written as JSON");
    let keys: Vec<_> = json[kind].as_object().into_iter().flat_map(|map| map.keys()).map(String::as_str).collect();
    if !keys.contains(&key) {
        return vary(problems, format!("`{key}` is not written in the fault `{kind}`"), meant(key, &keys));
    }
    if search.through.len() < 2 {
        problems.error("/search/through", "a search has at least two doses", help("write them from the mildest on"));
    }
    for (index, dose) in search.through.iter().enumerate() {
        let text = serde_json::Value::String(dose.0.clone());
        let number = dose.0.parse::<u64>().ok().map(serde_json::Value::from);
        let takes = |value: serde_json::Value| {
            let mut json = json.clone();
            json[kind][key] = value;
            serde_json::from_value::<Fault>(json).map(drop)
        };
        if let Err(error) = takes(text)
            && number.is_none_or(|number| takes(number).is_err())
        {
            problems.error(
                &format!("/search/through/{index}"),
                format!("`{}` cannot be the `{key}` of a `{kind}`: {error}", dose.0),
                None,
            );
        }
    }
}
