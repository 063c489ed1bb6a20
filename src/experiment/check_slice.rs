//! Who takes part: shares that fit together, keys that can be drawn by, conditions that can be met.

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::Method;
use ipnet::IpNet;
use regex::RegexBuilder;

use super::check::{help, meant, percent, words};
use super::draft::{MatchDraft, SliceDraft};
use super::glob::{Glob, PathGlob, PathGlobError};
use super::matcher::{Conditions, Match};
use super::slice::{By, Carry, Slice, WordError, header_name};
use super::written::OneOrMany;
use crate::document::{self, Problems};
use crate::units::{Percent, Span};

/// The largest program that a `path_regex` may become: ordinary ones need a few KiB.
const REGEX_SIZE: usize = 1 << 20;

/// Whether what is drawn by and how it is carried are words that we know.
pub(super) fn is_readable(draft: &SliceDraft) -> bool {
    let by = draft.by.as_deref().is_none_or(|text| text.parse::<By>().is_ok());
    by && draft.carry.as_deref().is_none_or(|text| text.parse::<Carry>().is_ok())
}

pub(super) fn slice(draft: &SliceDraft, own_traffic: bool, problems: &mut Problems) -> Slice {
    let carry = carry(draft.carry.as_deref(), problems);
    let treatment = treatment(draft, own_traffic, problems);
    let last = treatment.last().copied().expect("a treatment has at least one share");
    let control = control(draft, last, &carry, problems);
    let by = draft.by.as_deref().map_or(By::Trace, |text| by(text, "/slice/by", problems));
    if draft.unit_window == Some(Span::default()) {
        problems.error(
            "/slice/unit_window",
            "nobody can be watched for no time",
            help("leave it out to watch each unit for `10s` from its first request on"),
        );
    } else if draft.unit_window.is_some() && !by.is_sticky() && is_readable(draft) {
        problems.warn(
            "/slice/unit_window",
            format!("`unit_window` has no meaning with `by: {by}`, where each request counts for itself"),
            help("remove it, or choose by user, address or cookie"),
        );
    }
    Slice {
        at: draft.at.clone(),
        matches: matcher(&draft.matches, "/slice/match", problems),
        treatment,
        control,
        by,
        unit_window: draft.unit_window.unwrap_or(Span::secs(10)),
        carry,
    }
}

fn treatment(draft: &SliceDraft, own_traffic: bool, problems: &mut Problems) -> Vec<Percent> {
    let nobody = |problems: &mut Problems, pointer: &str| {
        problems.error(
            pointer,
            "nobody would meet the fault: the share is `0%`",
            help("`1%` is a careful beginning; `pratfall check` says what it means before anything starts"),
        );
    };
    let Some(ramp) = &draft.ramp else {
        let share = draft.treatment.unwrap_or_else(|| percent(if own_traffic { 0.5 } else { 0.05 }));
        if share.ratio() == 0.0 {
            nobody(problems, "/slice/treatment");
        }
        return vec![share];
    };
    if draft.treatment.is_some() {
        problems.error_at_key(
            "/slice/treatment",
            "`treatment` and `ramp` say the same thing twice",
            help("keep one: the last share of a ramp is what the treatment grows to"),
        );
    }
    if ramp.len() < 2 {
        problems.error("/slice/ramp", "a ramp has at least two shares", help("for a single one write `treatment: 5%`"));
    }
    for (index, share) in ramp.iter().enumerate() {
        let pointer = format!("/slice/ramp/{index}");
        let before = index.checked_sub(1).and_then(|before| ramp.get(before));
        match before {
            Some(before) if before >= share => problems.error(
                &pointer,
                format!("a ramp grows from step to step, and `{share}` comes after `{before}`"),
                help("write the shares from the smallest to the largest, each once"),
            ),
            _ if share.ratio() == 0.0 => nobody(problems, &pointer),
            _ => {}
        }
    }
    if ramp.is_empty() { vec![percent(0.05)] } else { ramp.clone() }
}

/// The control is as large as the treatment will be, as far as there is room for it.
fn control(draft: &SliceDraft, treatment: Percent, carry: &Carry, problems: &mut Problems) -> Percent {
    let rest = percent((1.0 - treatment.ratio()).clamp(0.0, 1.0));
    let shares = match &draft.ramp {
        Some(ramp) => format!("/slice/ramp/{}", ramp.len().saturating_sub(1)),
        None => "/slice/treatment".to_owned(),
    };
    let Some(control) = draft.control else {
        if rest.ratio() == 0.0 && *carry != Carry::None {
            problems.error(
                &shares,
                "nobody is left to compare with: the treatment is everybody",
                help("`50%` leaves a control of the same size; `carry: none` compares phases instead of arms"),
            );
        }
        return if treatment < rest { treatment } else { rest };
    };
    if *carry == Carry::None {
        problems.warn(
            "/slice/control",
            "`control` has no meaning with `carry: none`, where inject is compared with baseline",
            help("remove it"),
        );
    } else if control.ratio() == 0.0 {
        problems.error(
            "/slice/control",
            "nobody is left to compare with: the control is `0%`",
            help("leave `control` out: it is then as large as the treatment"),
        );
    }
    // The tolerance is that of binary fractions: 90 % and 10 % are everybody, not more.
    if treatment.ratio() + control.ratio() > 1.0 + 1e-9 {
        problems.error(
            "/slice/control",
            format!("treatment and control overlap: `{treatment}` and `{control}` are more than everybody"),
            help(format!("at most `{rest}` is left; without `control` it is as large as the treatment or the rest")),
        );
    }
    control
}

/// Reads a key that units or operations are told apart by.
pub(super) fn by(text: &str, pointer: &str, problems: &mut Problems) -> By {
    text.parse().unwrap_or_else(|error: WordError| {
        let shapes = "write `trace`, `request`, `client-ip`, `header:NAME` or `cookie:NAME`";
        let near = match text.split_once(':') {
            None => document::nearest(text, ["trace", "request", "client-ip"]),
            Some(_) => None,
        };
        problems.error(
            pointer,
            error.0,
            near.map_or_else(|| help(shapes), |near| help(format!("did you mean `{near}`? {shapes}"))),
        );
        By::Trace
    })
}

fn carry(text: Option<&str>, problems: &mut Problems) -> Carry {
    let Some(text) = text else { return Carry::Auto };
    text.parse().unwrap_or_else(|error: WordError| {
        let known = ["auto", "baggage", "traceparent", "b3", "header:NAME", "none"];
        let way = if text.contains(':') { None } else { meant(text, &known) };
        problems.error("/slice/carry", error.0, way.or_else(|| help(format!("write {}", words(known)))));
        Carry::Auto
    })
}

/// Compiles conditions; what cannot be compiled is reported and left out.
pub fn matcher(draft: &MatchDraft, pointer: &str, problems: &mut Problems) -> Match {
    Match::new(conditions(draft, pointer, problems))
}

fn conditions(draft: &MatchDraft, pointer: &str, problems: &mut Problems) -> Conditions {
    let at = |key: &str| format!("{pointer}/{key}");
    Conditions {
        methods: compile(&draft.method, &at("method"), problems, method),
        paths: compile(&draft.path, &at("path"), problems, path_glob),
        path_regex: draft.path_regex.as_ref().and_then(|text| {
            RegexBuilder::new(text)
                .size_limit(REGEX_SIZE)
                .build()
                .map_err(|error| {
                    let (message, help) = regex_error(&error);
                    problems.error(&at("path_regex"), message, help);
                })
                .ok()
        }),
        hosts: compile(&draft.host, &at("host"), problems, host),
        headers: named(&draft.header, &at("header"), problems, |name| header_name(name).map_err(|error| error.0)),
        query: named(&draft.query, &at("query"), problems, |name| Ok(name.to_owned())),
        cookies: named(&draft.cookie, &at("cookie"), problems, |name| Ok(name.to_owned())),
        callers: compile(&draft.caller, &at("caller"), problems, network),
        baggage: named(&draft.baggage, &at("baggage"), problems, |name| Ok(name.to_owned())),
        grpc: compile(&draft.grpc, &at("grpc"), problems, grpc),
        not: draft.not.places(&at("not")).map(|(place, each)| conditions(each, &place, problems)).collect(),
        any: draft
            .any
            .iter()
            .enumerate()
            .map(|(index, each)| conditions(each, &format!("{pointer}/any/{index}"), problems))
            .collect(),
    }
}

/// What is wrong, and the way out.
pub(crate) type Wrong = (String, Option<String>);

fn compile<T>(
    written: &OneOrMany<String>,
    pointer: &str,
    problems: &mut Problems,
    read: impl Fn(&str) -> Result<T, Wrong>,
) -> Vec<T> {
    let mut compiled = Vec::new();
    if written.is_empty_list() {
        problems.error(pointer, "an empty list allows nothing", help("remove the key to allow everything"));
    }
    for (place, text) in written.places(pointer) {
        match read(text) {
            Ok(value) => compiled.push(value),
            Err((message, help)) => problems.error(&place, message, help),
        }
    }
    compiled
}

fn named<N>(
    written: &BTreeMap<String, OneOrMany<String>>,
    pointer: &str,
    problems: &mut Problems,
    read: impl Fn(&str) -> Result<N, String>,
) -> Vec<(N, Vec<Glob>)> {
    let mut compiled = Vec::new();
    for (name, values) in written {
        // RFC 6901 writes a slash within a name as `~1`.
        let place = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
        match read(name) {
            Ok(name) => compiled.push((name, compile(values, &place, problems, |text| Ok(Glob::new(text))))),
            Err(message) => problems.error_at_key(
                &place,
                message,
                help("names are made of letters, digits and hyphens, as in `x-tier`"),
            ),
        }
    }
    compiled
}

pub(super) fn method(text: &str) -> Result<Method, Wrong> {
    let capitals = text.to_ascii_uppercase();
    match Method::from_bytes(text.as_bytes()) {
        Ok(method) if text == capitals => Ok(method),
        Ok(_) => Err((format!("methods are written in capitals, not `{text}`"), help(format!("write `{capitals}`")))),
        Err(_) => Err((format!("`{text}` is no method"), help("several are a list: `[GET, POST]`"))),
    }
}

/// Reads a pattern of a path.
pub(crate) fn path_glob(text: &str) -> Result<PathGlob, Wrong> {
    PathGlob::new(text).map_err(|error| {
        let way = match error {
            PathGlobError::NoSlash if text.contains("://") => {
                "write the path alone; the host is matched by `host`".to_owned()
            }
            PathGlobError::NoSlash => format!("write `/{text}`"),
            PathGlobError::Query => {
                let path = text.split(['?', '#']).next().unwrap_or_default();
                format!(
                    "write `path: {path}`, and what the query must say under `query:`, as in `query: {{ v: \"2\" }}`"
                )
            }
            PathGlobError::HalfSegment => "a single `*` stands for anything within a segment".to_owned(),
            PathGlobError::NotOnTheWire(odd) => {
                let mut bytes = [0; 4];
                let escaped: String = odd.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")).collect();
                format!("write `{escaped}` in its place")
            }
        };
        (error.to_string(), Some(way))
    })
}

fn host(text: &str) -> Result<Glob, Wrong> {
    let port =
        text.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()) && !text.ends_with(']'));
    if text.contains('/') || port {
        return Err((
            format!("`{text}` is more than a host"),
            help("write its name alone, without scheme, port or path, as in `shop.example.com` or `*.example.com`"),
        ));
    }
    Ok(Glob::new(text))
}

/// Reads a network or a single address.
pub(crate) fn network(text: &str) -> Result<IpNet, Wrong> {
    text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
        (format!("`{text}` is no network"), help("write it as in `10.0.0.0/8` or `2001:db8::/32`, or an address"))
    })
}

fn grpc(text: &str) -> Result<(String, PathGlob), Wrong> {
    let wrong = || {
        (
            format!("`{text}` is no gRPC method"),
            help("write the service with its package and the method, as in `shop.Ranker/Rank`, or `shop.Ranker/*`"),
        )
    };
    let (service, method) = text.split_once('/').ok_or_else(wrong)?;
    let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let fits = !service.is_empty()
        && service.chars().all(|c| name(c) || c == '.')
        && (method == "*" || (!method.is_empty() && method.chars().all(name)));
    if !fits {
        return Err(wrong());
    }
    Ok((text.to_owned(), PathGlob::new(&format!("/{text}")).map_err(|_| wrong())?))
}

fn regex_error(error: &regex::Error) -> Wrong {
    match error {
        regex::Error::CompiledTooBig(_) => (
            "this regular expression becomes too large".to_owned(),
            help("bound its repetitions, or use `path` with `*` and `**`"),
        ),
        error => {
            // The crate draws the expression and a caret over several lines; the last one says what is wrong.
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            (
                format!("this is no regular expression: {reason}"),
                help("look-around and back-references do not exist here"),
            )
        }
    }
}
