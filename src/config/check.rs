//! From the system file as it was written to what was meant.

use std::net::SocketAddr;

use super::draft::{AdminDraft, NotifyDraft, StartDraft, SystemDraft};
use super::{AdminConfig, LedgerConfig, StartConfig, System};
use crate::document::Problems;
use crate::experiment::check::{MISSING, check_key, check_name, help, words};
use crate::experiment::limits::Limits;
use crate::experiment::written::TextOr;
use crate::notify::{Channel, NotifyConfig};
use crate::probe::ProbeConfig;
use crate::proxy::check::{address, is_local, listener};
use crate::units::Span;

pub(super) fn system(draft: SystemDraft, problems: &mut Problems) -> System {
    let name = draft.system.unwrap_or_else(|| MISSING.to_owned());
    check_name(problems, "/system", "a system", &name);
    let written = draft.listeners.unwrap_or_default();
    if written.0.is_empty() {
        problems.error(
            "/listeners",
            "no traffic comes in anywhere",
            help("add a listener, as in `front: { bind: 127.0.0.1:8080, upstream: \"http://127.0.0.1:3000\" }`"),
        );
    }
    let mut bound = Bound::default();
    let mut listeners = Vec::new();
    for (name, written) in written.0 {
        let pointer = format!("/listeners/{}", name.replace('~', "~0").replace('/', "~1"));
        check_key(problems, &pointer, "a listener", &name);
        let listener = listener(&name, written, &pointer, problems);
        bound.add(listener.bind, &format!("listener `{name}`"), &format!("{pointer}/bind"), problems);
        listeners.push(listener);
    }
    let admin = draft.admin.map(|admin| self::admin(admin, &mut bound, problems));
    let telemetry = draft.telemetry.map(|telemetry| {
        let bind = address(&telemetry.bind, "/telemetry/bind", problems);
        bound.add(bind, "`telemetry`", "/telemetry/bind", problems);
        bind
    });
    let names: Vec<&str> = listeners.iter().map(|listener| listener.name.as_str()).collect();
    let limits = Limits::check(draft.limits, "/limits", &names, problems);
    let mut probes = Vec::new();
    for (name, probe) in draft.probes.0 {
        let pointer = format!("/probes/{}", name.replace('~', "~0").replace('/', "~1"));
        check_key(problems, &pointer, "a probe", &name);
        check_probe(&probe, &pointer, problems);
        probes.push((name, probe));
    }
    let start = draft.start.into_iter().enumerate();
    let notify = draft.notify.into_iter().enumerate();
    System {
        name,
        workers: draft.workers.unwrap_or(1) as usize,
        drain: draft.drain,
        access_log: draft.access_log,
        admin,
        telemetry,
        ledger: ledger(draft.ledger, problems),
        reports: draft.reports.unwrap_or_else(|| "reports".into()),
        limits,
        start: start.map(|(index, start)| self::start(start, &format!("/start/{index}"), problems)).collect(),
        notify: notify
            .filter_map(|(index, notify)| self::notify(notify, &format!("/notify/{index}"), problems))
            .collect(),
        listeners,
        probes,
    }
}

/// Who listens where.
#[derive(Debug, Default)]
struct Bound(Vec<(SocketAddr, String)>);

impl Bound {
    fn add(&mut self, bind: SocketAddr, who: &str, pointer: &str, problems: &mut Problems) {
        // Port 0 is a free port each time.
        let meets = |other: &SocketAddr| {
            let everywhere = other.ip().is_unspecified() || bind.ip().is_unspecified();
            bind.port() != 0 && other.port() == bind.port() && (everywhere || other.ip() == bind.ip())
        };
        match self.0.iter().find(|(other, _)| meets(other)) {
            Some((other, first)) => problems.error(
                pointer,
                format!("{first} listens at `{other}` already"),
                help("give each its own port; port 0 takes a free one"),
            ),
            None => self.0.push((bind, who.to_owned())),
        }
    }
}

fn admin(draft: AdminDraft, bound: &mut Bound, problems: &mut Problems) -> AdminConfig {
    let bind = address(&draft.bind, "/admin/bind", problems);
    bound.add(bind, "`admin`", "/admin/bind", problems);
    if !is_local(bind) && draft.token_file.is_none() {
        problems.error(
            "/admin/bind",
            format!("everybody who reaches `{bind}` could inject faults"),
            help("add `token_file`, or bind to `127.0.0.1`; health and metrics can be read elsewhere with `telemetry`"),
        );
    }
    AdminConfig { bind, token_file: draft.token_file }
}

fn ledger(written: Option<TextOr<super::draft::RemoteLedgerDraft>>, problems: &mut Problems) -> LedgerConfig {
    match written {
        None => LedgerConfig::File("pratfall.db".into()),
        Some(TextOr::Text(text)) => {
            if text.contains("://") {
                problems.error(
                    "/ledger",
                    format!("`{text}` is no file"),
                    help(format!("write `ledger: {{ url: \"{text}\", token_file: ledger.token }}`")),
                );
            } else if text.trim().is_empty() {
                problems.error("/ledger", "no file is named", help("leave it out for `pratfall.db`"));
            }
            LedgerConfig::File(text.into())
        }
        Some(TextOr::More(remote)) => {
            check_url(&remote.url, "/ledger/url", problems);
            LedgerConfig::Remote { url: remote.url, token_file: remote.token_file }
        }
    }
}

fn check_probe(probe: &ProbeConfig, pointer: &str, problems: &mut Problems) {
    let pointer = format!("{pointer}/{}", probe.kind());
    match probe {
        ProbeConfig::Prometheus(probe) => {
            check_url(&probe.url, &format!("{pointer}/url"), problems);
            if probe.query.trim().is_empty() {
                problems.error(&format!("{pointer}/query"), "nothing is asked", help("write a query with one value"));
            }
        }
        ProbeConfig::Http(probe) => {
            check_url(&probe.url, &format!("{pointer}/url"), problems);
            if let Some(json) = probe.json.as_deref().filter(|json| !json.is_empty() && !json.starts_with('/')) {
                problems.error(
                    &format!("{pointer}/json"),
                    format!("`{json}` is no JSON pointer"),
                    help(format!("write `/{}`", json.trim_start_matches(['$', '.']).replace('.', "/"))),
                );
            }
        }
        ProbeConfig::Command(probe) => check_program(&probe.run, &format!("{pointer}/run"), problems),
    }
    if probe.every() < Span::millis(100) {
        problems.error(
            &format!("{pointer}/every"),
            format!("a probe is read at most ten times a second, not every `{}`", probe.every()),
            help("write a longer time, as in `2s`"),
        );
    }
}

fn start(draft: StartDraft, pointer: &str, problems: &mut Problems) -> StartConfig {
    check_program(&draft.run, &format!("{pointer}/run"), problems);
    if let Some(url) = &draft.ready {
        check_url(url, &format!("{pointer}/ready"), problems);
    } else if draft.ready_within.is_some() {
        problems.error_at_key(
            &format!("{pointer}/ready_within"),
            "nothing tells when this process is ready",
            help("add `ready:` with a page that answers then, or remove `ready_within`"),
        );
    }
    if draft.ready_within == Some(Span::default()) {
        problems.error(
            &format!("{pointer}/ready_within"),
            "nothing is ready within `0s`",
            help("leave it out for `30s`"),
        );
    }
    StartConfig {
        run: draft.run,
        env: draft.env,
        ready: draft.ready,
        ready_within: draft.ready_within.unwrap_or(Span::secs(30)),
    }
}

fn notify(draft: NotifyDraft, pointer: &str, problems: &mut Problems) -> Option<NotifyConfig> {
    if draft.on.is_empty() {
        problems.error(
            &format!("{pointer}/on"),
            "nobody is ever told",
            help("write the moments, as in `[broken, halted]`"),
        );
    }
    let keys = [
        ("slack", draft.slack.is_some()),
        ("pagerduty", draft.pagerduty.is_some()),
        ("webhook", draft.webhook.is_some()),
    ];
    let mut written = keys.iter().filter(|(_, written)| *written).map(|(key, _)| *key);
    match (written.next(), written.next()) {
        (None, _) => {
            let way = help(format!("add {}", words(keys.iter().map(|(key, _)| *key))));
            problems.error(pointer, "who is told is not written", way);
            return None;
        }
        (Some(first), Some(second)) => {
            problems.error_at_key(
                &format!("{pointer}/{second}"),
                format!("an entry tells one channel, and this has `{first}` and `{second}`"),
                help("make two entries of it"),
            );
            return None;
        }
        _ => {}
    }
    let slack = draft.slack.map(Channel::Slack);
    let channel =
        slack.or_else(|| draft.pagerduty.map(Channel::Pagerduty)).or_else(|| draft.webhook.map(Channel::Webhook))?;
    if let Channel::Webhook(webhook) = &channel {
        check_url(&webhook.url, &format!("{pointer}/webhook/url"), problems);
    }
    Some(NotifyConfig { on: draft.on, min_impact: draft.min_impact, channel })
}

fn check_program(run: &[String], pointer: &str, problems: &mut Problems) {
    if run.first().is_none_or(|program| program.trim().is_empty()) {
        problems.error(
            pointer,
            "there is no program to run",
            help("write the program and its arguments, as in `[node, shop.js]`"),
        );
    }
}

fn check_url(text: &str, pointer: &str, problems: &mut Problems) {
    let url = text.parse::<http::Uri>().ok();
    let known =
        url.as_ref().is_some_and(|url| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some());
    if !known {
        problems.error(
            pointer,
            format!("`{text}` is no page"),
            help("write it with its scheme, as in `http://127.0.0.1:9090`"),
        );
    }
}
