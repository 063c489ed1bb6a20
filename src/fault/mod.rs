//! What we break. One fault is one file: its YAML, its layer, its tests.

mod accept;
pub mod body;
mod corrupt;
pub mod drop;
pub mod duplicate;
pub mod error;
mod file;
pub mod grpc;
pub mod headers;
pub mod hold;
pub mod latency;
mod moment;
mod outlet;
pub mod overload;
mod pace;
mod replace;
mod shape;
mod sheet;
mod stack;
mod stream;
mod tear;
pub mod throttle;
pub mod tls;
mod tunnel;

use std::fmt::Write;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::accept::Written;
pub use self::body::Body;
pub use self::drop::Drop;
pub use self::duplicate::Duplicate;
pub use self::error::ErrorAnswer;
pub use self::headers::Headers;
pub use self::hold::{Arrived, Release, Spared, Testimony, Witness};
pub use self::latency::Latency;
pub use self::outlet::{Outlet, Upward};
pub use self::overload::Overload;
pub use self::shape::Histogram;
pub use self::sheet::Sheet;
pub use self::stack::{Draw, Injected, Once, stack};
pub use self::throttle::Throttle;
pub use self::tls::Tls;
pub use self::tunnel::Tunnel;

/// The closed list of faults, as documents write them: `- latency: { delay: 250ms }`.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Holds a request or its answer for a while.
    Latency(Latency),
    /// Answers in the upstream's place, with a status of its own.
    Error(ErrorAnswer),
    /// Ends the exchange without an answer.
    Drop(Drop),
    /// Damages the body on its way.
    Body(Body),
    /// Sets and removes header fields.
    Headers(Headers),
    /// Lets a body through no faster than a rate.
    Throttle(Throttle),
    /// Sends the request to the upstream twice.
    Duplicate(Duplicate),
    /// Turns away more than a rate or a number in flight.
    Overload(Overload),
    /// Fails the TLS handshake of new connections.
    Tls(Tls),
}

impl Fault {
    /// The words for all kinds of faults, as documents write them.
    pub const KINDS: [&str; 9] =
        ["latency", "error", "drop", "body", "headers", "throttle", "duplicate", "overload", "tls"];

    /// The word for this kind of fault: the key in the document, part of the failure's fingerprint.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Latency(_) => "latency",
            Self::Error(_) => "error",
            Self::Drop(_) => "drop",
            Self::Body(_) => "body",
            Self::Headers(_) => "headers",
            Self::Throttle(_) => "throttle",
            Self::Duplicate(_) => "duplicate",
            Self::Overload(_) => "overload",
            Self::Tls(_) => "tls",
        }
    }

    /// Whether it meets a whole connection, and with it everybody else's requests on it.
    pub fn meets_connections(&self) -> bool {
        match self {
            Self::Tls(_) => true,
            Self::Drop(drop) => matches!(drop.how, drop::How::Goaway | drop::How::Refuse),
            _ => false,
        }
    }

    /// Whether it meets connections when they are new, before anything is asked on them.
    pub fn meets_new_connections(&self) -> bool {
        self.meets_connections() && !matches!(self, Self::Drop(drop) if drop.how == drop::How::Goaway)
    }

    /// What it does, in a few words: `latency of 1 s ± 50 ms`, `answers 503`, `connection reset`.
    pub fn describe(&self) -> String {
        match self {
            Self::Latency(latency) => describe_latency(latency),
            Self::Error(error) => match (error.status, &error.grpc) {
                (_, Some(grpc)) => format!("answers gRPC {grpc}"),
                (Some(status), None) => format!("answers {status}"),
                (None, None) => "answers with an error".to_owned(),
            },
            Self::Drop(drop) => describe_drop(drop),
            Self::Body(body) => describe_body(body),
            Self::Headers(headers) => describe_headers(headers),
            Self::Throttle(throttle) => format!("{} at {}", way(throttle.direction()), throttle.rate),
            Self::Duplicate(_) => "requests sent twice".to_owned(),
            Self::Overload(overload) => {
                let rate = overload.rate.map(|rate| rate.to_string());
                let in_flight = overload.in_flight.map(|count| format!("{count} in flight"));
                let most = rate.into_iter().chain(in_flight).collect::<Vec<_>>().join(" or ");
                format!("answers {} above {most}", overload.status())
            }
            Self::Tls(tls) => {
                let how = match tls.how {
                    tls::TlsHow::Expired => "expired certificate",
                    tls::TlsHow::WrongHost => "certificate of another host",
                    tls::TlsHow::SelfSigned => "self-signed certificate",
                    tls::TlsHow::Stall => "stalled TLS handshake",
                };
                tls.hold.map_or_else(|| how.to_owned(), |hold| format!("{how} for {hold:#}"))
            }
        }
    }
}

fn describe_latency(latency: &Latency) -> String {
    let mut words = String::from("latency");
    let written = match latency {
        Latency { delay: Some(delay), jitter: Some(jitter), .. } => write!(words, " of {delay:#} ± {jitter:#}"),
        Latency { delay: Some(delay), .. } => write!(words, " of {delay:#}"),
        Latency { p50: Some(p50), p99: Some(p99), .. } => write!(words, " with median {p50:#} and p99 {p99:#}"),
        Latency { mean: Some(mean), stddev: Some(stddev), .. } => {
            write!(words, " around {mean:#} (normal, ± {stddev:#})")
        }
        Latency { min: Some(min), max: Some(max), .. } => write!(words, " between {min:#} and {max:#}"),
        Latency { histogram: Some(_), .. } => write!(words, " as measured"),
        _ => Ok(()),
    };
    written.expect("a string takes whatever is written");
    if latency.per.is_some() {
        words.push_str(" before each chunk");
    }
    if latency.direction == Some(Direction::Response) {
        words.push_str(" on the answer");
    }
    words
}

fn describe_drop(fault: &Drop) -> String {
    use self::drop::{At, How};

    let mut words = match fault.how {
        How::Reset => "connection reset",
        How::Close => "connection closed without an answer",
        How::Goaway => "connection sent away (GOAWAY)",
        How::Hang => "no answer",
        How::Refuse => "connection refused",
    }
    .to_owned();
    if let Some(hold) = fault.hold {
        words += &format!(" for {hold:#}");
    }
    match fault.at {
        None | Some(At::Request) => {}
        Some(At::Headers) => words += " after the head",
        Some(At::Bytes(size)) => words += &format!(" after {size:#}"),
        Some(At::Chunks(count)) => words += &format!(" after {count} chunks"),
        Some(At::Events(count)) => words += &format!(" after {count} events"),
        Some(At::Messages(count)) => words += &format!(" after {count} messages"),
    }
    words
}

fn describe_body(body: &Body) -> String {
    let whose = way(body.direction());
    match body {
        Body { cut_after: Some(size), .. } => format!("{whose} cut off after {size:#}"),
        Body { stall_after: Some(size), hold: Some(hold), .. } => {
            format!("{whose} stalled after {size:#} for {hold:#}")
        }
        Body { stall_after: Some(size), .. } => format!("{whose} stalled after {size:#}"),
        Body { corrupt: Some(share), .. } => format!("{share:#} of the bytes of the {whose} changed"),
        Body { replace: Some(_), .. } => format!("{whose} replaced"),
        Body { drip: Some(gap), .. } => format!("{whose} dripping, a byte every {gap:#}"),
        _ => format!("{whose} damaged"),
    }
}

fn describe_headers(headers: &Headers) -> String {
    let set = headers.set.keys().map(|name| format!("{name} set"));
    let removed = headers.remove.iter().map(|name| format!("{name} removed"));
    let what = set.chain(removed).collect::<Vec<_>>().join(", ");
    let whose = match headers.direction() {
        Direction::Request => "request",
        Direction::Response => "response",
    };
    format!("{whose} header {what}")
}

fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Request => "request body",
        Direction::Response => "response body",
    }
}

/// Which way a fault looks.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// On the way to the upstream.
    #[default]
    Request,
    /// On the way back.
    Response,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_written_under_its_kind_and_says_what_it_does_in_a_few_words() {
        for (json, kind, words) in [
            (r#"{"latency":{"delay":"1s","jitter":"50ms"}}"#, "latency", "latency of 1 s ± 50 ms"),
            (r#"{"latency":{"p50":"300ms","p99":"2s"}}"#, "latency", "latency with median 300 ms and p99 2 s"),
            (r#"{"latency":{"delay":"1ms","per":"chunk"}}"#, "latency", "latency of 1 ms before each chunk"),
            (r#"{"error":{"status":503}}"#, "error", "answers 503"),
            (r#"{"error":{"grpc":"UNAVAILABLE"}}"#, "error", "answers gRPC UNAVAILABLE"),
            (r#"{"drop":{"how":"reset"}}"#, "drop", "connection reset"),
            (r#"{"drop":{"how":"reset","at":{"bytes":"4KiB"}}}"#, "drop", "connection reset after 4 KiB"),
            (
                r#"{"drop":{"how":"close","at":"headers"}}"#,
                "drop",
                "connection closed without an answer after the head",
            ),
            (r#"{"drop":{"how":"hang","for":"20s"}}"#, "drop", "no answer for 20 s"),
            (r#"{"body":{"cut_after":"10KiB"}}"#, "body", "response body cut off after 10 KiB"),
            (r#"{"body":{"corrupt":"1%"}}"#, "body", "1 % of the bytes of the response body changed"),
            (r#"{"headers":{"remove":["etag"],"direction":"response"}}"#, "headers", "response header etag removed"),
            (r#"{"throttle":{"rate":"32KiB/s"}}"#, "throttle", "response body at 32KiB/s"),
            (r#"{"duplicate":{}}"#, "duplicate", "requests sent twice"),
            (r#"{"overload":{"rate":"50/s","in_flight":20}}"#, "overload", "answers 503 above 50/s or 20 in flight"),
            (r#"{"tls":{"how":"wrong_host"}}"#, "tls", "certificate of another host"),
        ] {
            let fault: Fault = serde_json::from_str(json).expect(json);
            assert_eq!((fault.kind(), fault.describe().as_str()), (kind, words), "{json}");
            assert!(Fault::KINDS.contains(&fault.kind()));
        }
    }
}
