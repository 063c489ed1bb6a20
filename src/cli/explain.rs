//! Who would be hit, by what, and what stops it: in words, of an experiment on a system and of one request.

use std::net::IpAddr;

use http::{HeaderName, HeaderValue, Request, Uri};
use serde::Serialize;

use super::exit::Usage;
use crate::chance::Chance;
use crate::config::System;
use crate::experiment::limits::Limits;
use crate::experiment::{Arm, By, Carry, Experiment};
use crate::fault::Fault;
use crate::lab::preflight;
use crate::proxy::ListenerConfig;
use crate::proxy::brought::Brought;
use crate::units::Seed;

/// What there is to say, line by line, each under a label.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Explained(Vec<Line>);

#[derive(Clone, Debug, Serialize)]
struct Line {
    label: String,
    text: String,
}

impl Explained {
    fn say(&mut self, label: &str, text: impl Into<String>) {
        self.0.push(Line { label: label.to_owned(), text: text.into() });
    }

    /// The lines below a title, as they are printed.
    pub(super) fn lines(&self) -> Vec<String> {
        self.0.iter().map(|line| format!("    {:<10} {}", line.label, line.text).trim_end().to_owned()).collect()
    }
}

/// An experiment on a system: who, by what, and what stops it.
pub(super) fn experiment(experiment: &Experiment, system: &System) -> Explained {
    let mut said = Explained::default();
    let (slice, inject) = (&experiment.slice, &experiment.inject);
    let last = slice.final_treatment();
    let own = experiment.traffic.as_ref().is_some_and(|traffic| traffic.only_own);
    let whose = if own { "of Pratfall's own requests" } else { "of everybody's requests" };
    said.say("who", format!("{last:#} {whose} at {}: {}", slice.at, slice.matches.describe()));
    said.say(
        "",
        match slice.carry {
            Carry::None => "they are compared with themselves before the fault: baseline v inject".to_owned(),
            _ => format!("{:#} are compared with them, and meet nothing; nobody else takes part", slice.control),
        },
    );
    let part = match (inject.share.ratio() < 1.0, inject.attempts) {
        (false, None) => "all".to_owned(),
        (true, None) => format!("{:#}", inject.share),
        (false, Some(1)) => "the first attempt".to_owned(),
        (false, Some(most)) => format!("the first {most} attempts"),
        (true, Some(most)) => format!("{:#} of the first {most} attempts each", inject.share),
    };
    let theirs = if slice.at == inject.at { "their requests" } else { "their calls" };
    said.say(
        "what",
        format!("{part} of {theirs} at {} ({}): {}", inject.at, inject.matches.describe(), faults(inject)),
    );
    said.say("carried", carried(experiment, system));
    let names = [slice.at.as_str(), inject.at.as_str()];
    let routes = system.limits.protect.iter().filter(|route| names.contains(&route.at.as_str()));
    let routes: Vec<String> = routes.map(|route| format!("{} at {}", route.path.as_str(), route.at)).collect();
    said.say("protected", if routes.is_empty() { "no route of these listeners".into() } else { routes.join(", ") });
    limits(&mut said, experiment, system);
    said.say("", "");
    let longest = |text: &dyn Fn(&ListenerConfig) -> String| {
        system.listeners.iter().map(|listener| text(listener).chars().count()).max().unwrap_or_default().max(8)
    };
    let (width, address) = (longest(&|listener| listener.name.clone()), longest(&|listener| listener.bind.to_string()));
    let target = longest(&upstream);
    said.say("listeners", format!("{:<width$}  {:<address$}  {:<target$}  here", "name", "bind", "upstream"));
    for listener in &system.listeners {
        let (bind, upstream) = (listener.bind.to_string(), upstream(listener));
        said.say(
            "",
            format!("{:<width$}  {bind:<address$}  {upstream:<target$}  {}", listener.name, role(experiment, listener)),
        );
    }
    said
}

fn faults(inject: &crate::experiment::Inject) -> String {
    let faults: Vec<String> = inject.faults.iter().map(Fault::describe).collect();
    faults.join(" and ")
}

fn upstream(listener: &ListenerConfig) -> String {
    match (&listener.upstream, listener.routes.len()) {
        (Some(upstream), 0) => upstream.to_string(),
        (Some(upstream), routes) => format!("{upstream}, {routes} routes"),
        (None, routes) => format!("{routes} routes"),
    }
}

fn carried(experiment: &Experiment, system: &System) -> String {
    let (slice, inject) = (&experiment.slice, &experiment.inject);
    if slice.at == inject.at {
        return "nothing has to travel: the fault waits where the slice is chosen".to_owned();
    }
    let external = |name: &str| system.listeners.iter().any(|listener| listener.name == *name && listener.external);
    if external(&slice.at) && slice.carry == Carry::Baggage {
        return format!("cannot: what is behind {} is external, and nothing of ours goes there", slice.at);
    }
    match &slice.carry {
        Carry::Auto => format!(
            "by the baggage member `pratfall`, or a trace or request id that whatever is between {} and {} passes on; \
             `pratfall rehearse` shows who does",
            slice.at, inject.at
        ),
        Carry::Baggage => format!(
            "by the baggage member `pratfall`, through whatever is between {} and {}; `pratfall rehearse` shows who passes it on",
            slice.at, inject.at
        ),
        other => format!("by `{other}`"),
    }
}

/// What `serve` would say, and what stops a run that goes on.
fn limits(said: &mut Explained, experiment: &Experiment, system: &System) {
    let limits = &system.limits;
    let armed = if limits.armed() { limits.faults.join(", ") } else { "nothing".to_owned() };
    let slice = limits.max_slice.map_or_else(|| "any slice".to_owned(), |most| format!("slices up to {most:#}"));
    let (runs, held) = (limits.max_running, limits.max_held);
    said.say(
        "limits",
        format!(
            "`serve` is armed for {armed}; {slice}, {runs} at one time, {:#} at the most, {held} requests held",
            limits.max_duration
        ),
    );
    if !limits.hours.is_empty() {
        let hours: Vec<String> = limits.hours.iter().map(ToString::to_string).collect();
        let now = if limits.allows_now(crate::clock::now()) { "now is within" } else { "now is outside" };
        said.say("hours", format!("{}; {now}", hours.join(", ")));
    }
    said.say("", refused(experiment, system).unwrap_or_else(|| "they allow this experiment".to_owned()));
    said.say("stops", "what `halts` says above, `pratfall halt`, SIGUSR1, a lost lease, the end of the process");
}

/// Why it would not begin now, where it would not. `run` with its own listeners may inject every fault.
fn refused(experiment: &Experiment, system: &System) -> Option<String> {
    let refuse = |limits: Limits| preflight::limits(experiment, &limits.into()).err();
    if let Some(refusal) = refuse(system.limits.clone().with_every_fault()) {
        return Some(format!("`run` and `serve` would refuse it now: {refusal}"));
    }
    let refusal = refuse(system.limits.clone())?;
    Some(format!("`serve` would refuse it now ({refusal}); `run` with its own listeners would not"))
}

fn role(experiment: &Experiment, listener: &ListenerConfig) -> String {
    let (slice, inject) = (listener.name == experiment.slice.at, listener.name == experiment.inject.at);
    let role = match (slice, inject) {
        (true, true) => "the slice is chosen, and the fault waits",
        (true, false) => "the slice is chosen",
        (false, true) => "the fault waits",
        (false, false) if listener.trust_baggage => "the mark is left as it is",
        (false, false) => "the mark is taken out",
    };
    let external = if listener.external { "; external" } else { "" };
    format!("{role}{external}")
}

/// A request that somebody asks about.
#[derive(Debug)]
pub(super) struct Asked {
    request: Request<()>,
    caller: IpAddr,
    seed: Option<Seed>,
}

impl Asked {
    /// Reads `GET /checkout/7` with its header fields, each `name: value`.
    pub(super) fn parse(
        line: &str,
        headers: &[String],
        caller: Option<IpAddr>,
        seed: Option<u64>,
    ) -> Result<Self, Usage> {
        let wrong = |why: String| Usage(format!("--request: {why}; write it as in 'GET /checkout/7'"));
        let (method, target) = match line.trim().split_once(char::is_whitespace) {
            Some((method, target)) => (method, target.trim()),
            None => ("GET", line.trim()),
        };
        let uri: Uri = target.parse().map_err(|_| wrong(format!("`{target}` is no target")))?;
        if !uri.path().starts_with('/') {
            return Err(wrong(format!("`{target}` is no path")));
        }
        let mut request = Request::builder().method(method).uri(uri);
        for header in headers {
            let (name, value) = header
                .split_once(':')
                .and_then(|(name, value)| {
                    let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
                    Some((name, HeaderValue::from_str(value.trim()).ok()?))
                })
                .ok_or_else(|| Usage(format!("--header: `{header}` is no field; write `name: value`")))?;
            request = request.header(name, value);
        }
        let request = request.body(()).map_err(|_| wrong(format!("`{method}` is no method")))?;
        Ok(Self { request, caller: caller.unwrap_or_else(|| IpAddr::from([127, 0, 0, 1])), seed: seed.map(Seed) })
    }
}

/// One request: who would take it, in which arm it is, and what it would meet.
pub(super) fn request(experiment: &Experiment, system: Option<&System>, asked: &Asked) -> Explained {
    let mut said = Explained::default();
    let (slice, inject) = (&experiment.slice, &experiment.inject);
    said.say("request", format!("{} {}", asked.request.method(), asked.request.uri()));
    let path = asked.request.uri().path();
    let protected = |at: &str| system.is_some_and(|system| system.limits.protects(at, path));
    let at_slice = slice.matches.why_not(&asked.request, Some(asked.caller));
    match &at_slice {
        Some(why) => said.say(&slice.at, format!("does not match: {why}; it is forwarded and takes no part")),
        None if protected(&slice.at) => said.say(&slice.at, "matches, on a protected route: it is spared, always"),
        None => {
            said.say(&slice.at, format!("matches ({})", slice.matches.describe()));
            arm(&mut said, experiment, asked);
        }
    }
    if slice.at != inject.at {
        match inject.matches.why_not(&asked.request, Some(asked.caller)) {
            Some(why) => {
                said.say(&inject.at, format!("as a call there it does not match: {why}; nothing would meet it"))
            }
            None if protected(&inject.at) => said.say(&inject.at, "as a call there it is on a protected route: spared"),
            None => said.say(
                &inject.at,
                "as a call there it matches: it meets the fault if it carries the mark of the treatment",
            ),
        }
    }
    if let Some(why) = system.and_then(|system| refused(experiment, system)) {
        said.say("limits", why);
    }
    said
}

/// In which arm it is, and what that means.
fn arm(said: &mut Explained, experiment: &Experiment, asked: &Asked) {
    let slice = &experiment.slice;
    if experiment.traffic.as_ref().is_some_and(|traffic| traffic.only_own) {
        said.say("own", "only Pratfall's own requests take part (`traffic.only_own`): one from elsewhere is forwarded");
    }
    let key = Brought::of(asked.request.headers()).key(&slice.by, asked.caller);
    let (treatment, control) = (slice.final_treatment(), slice.control);
    let Some(key) = key else {
        match slice.by {
            By::Request | By::Trace => said
                .say("arm", format!("drawn anew for each request: {treatment:#} are treated, {control:#} are control")),
            _ => said.say("key", format!("it has no {}: it is in no arm, and counted", slice.by)),
        }
        return;
    };
    let shown =
        if matches!(slice.by, By::Cookie(_)) { "…".into() } else { String::from_utf8_lossy(&key).into_owned() };
    said.say("key", format!("{} {shown}", slice.by));
    let Some(seed) = asked.seed.or(experiment.seed) else {
        said.say(
            "arm",
            format!(
                "differs from run to run: {treatment:#} treatment, {control:#} control; write `seed:` or give --seed to know it"
            ),
        );
        return;
    };
    let u = Chance::new(seed, &experiment.name).draw("arm", &key);
    let shares: Vec<f64> = slice.treatment.iter().map(|share| share.ratio()).collect();
    let bounds = format!("treatment below {treatment:#}, control from {} on", percent(1.0 - control.ratio()));
    said.say("u", format!("{} under seed {}: {bounds}", percent(u), seed.0));
    let arms: Vec<Arm> = shares.iter().map(|share| Arm::of(u, *share, control.ratio())).collect();
    let last = arms.last().copied().unwrap_or(Arm::Bystander);
    let step = arms.iter().position(|arm| *arm == Arm::Treatment).filter(|step| *step > 0);
    let ramp = step.map(|step| format!(", from step {} of the ramp on", step + 1)).unwrap_or_default();
    said.say("arm", format!("{}{ramp}", last.word()));
    let inject = &experiment.inject;
    said.say(
        "meets",
        match last {
            Arm::Treatment if slice.at == inject.at => faults(inject),
            Arm::Treatment => format!(
                "{}, in its calls at {} ({}), if the mark is passed on to them",
                faults(inject),
                inject.at,
                inject.matches.describe()
            ),
            Arm::Control => "nothing: it is measured to be compared with".to_owned(),
            Arm::Bystander => "nothing: it is in no arm".to_owned(),
        },
    );
}

fn percent(ratio: f64) -> String {
    format!("{:.2} %", ratio * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow(changes: &[(&str, &str)]) -> Experiment {
        let text = include_str!("../../tests/documents/valid/slow-inventory.yaml");
        let text = changes.iter().fold(text.to_owned(), |text, (old, new)| {
            assert!(text.contains(old), "{old}");
            text.replace(old, new)
        });
        Experiment::parse("slow.yaml", &text, &|_| None).unwrap_or_else(|problems| panic!("{problems}")).0
    }

    fn system() -> System {
        let text = "version: 1\nsystem: shop\nlisteners:\n  front: { bind: 127.0.0.1:1, upstream: \"http://127.0.0.1:3\" }\n  \
            inventory: { bind: 127.0.0.1:2, upstream: \"http://127.0.0.1:4\" }\n  other: { bind: 127.0.0.1:5, upstream: \"http://127.0.0.1:6\" }\n\
            limits: { faults: [latency], max_slice: 5%, protect: [{ at: front, path: /checkout/health }] }\n";
        System::parse("pratfall.yaml", text, &|_| None).unwrap_or_else(|problems| panic!("{problems}")).0
    }

    fn told(experiment: &Experiment, line: &str, headers: &[&str], seed: Option<u64>) -> String {
        let headers: Vec<String> = headers.iter().map(|header| (*header).to_owned()).collect();
        let asked = Asked::parse(line, &headers, None, seed).unwrap();
        request(experiment, Some(&system()), &asked).lines().join("\n")
    }

    #[test]
    fn a_system_says_who_is_hit_by_what_and_what_stops_it() {
        let said = experiment(&slow(&[]), &system()).lines().join("\n");
        for words in [
            "10 % of everybody's requests at front: GET, path /checkout/**",
            "all of their calls at inventory (path /stock/**): latency of 1 s ± 50 ms",
            "baggage member `pratfall`",
            "/checkout/health at front",
            "armed for latency; slices up to 5 %",
            "`run` and `serve` would refuse it now: the treatment of 10 % is above `limits.max_slice`",
            "the mark is taken out",
            "http://127.0.0.1:4",
        ] {
            assert!(said.contains(words), "`{words}` is not in\n{said}");
        }
    }

    #[test]
    fn a_request_is_told_which_condition_does_not_hold() {
        let said = told(&slow(&[]), "POST /checkout/7", &[], None);
        assert!(said.contains("front      does not match: the method POST is not GET"), "{said}");
        assert!(!said.contains("arm "), "{said}");
        let said = told(&slow(&[]), "GET /stock/7", &[], None);
        assert!(said.contains("the path /stock/7 is not /checkout/**"), "{said}");
        assert!(said.contains("as a call there it matches"), "{said}");
        let said = told(&slow(&[]), "GET /checkout/health", &[], None);
        assert!(said.contains("protected route"), "{said}");
    }

    #[test]
    fn its_arm_is_the_one_that_the_data_plane_draws_under_the_seed() {
        let by_user = slow(&[("by: trace", "by: header:x-user")]);
        let chance = Chance::new(Seed(7), "slow-inventory");
        let mut seen = [false; 3];
        for number in 0..60 {
            let user = format!("user-{number}");
            let arm = Arm::of(chance.draw("arm", user.as_bytes()), 0.1, 0.1);
            let said = told(&by_user, "GET /checkout/7", &[&format!("X-User: {user}")], Some(7));
            assert!(said.contains(&format!("arm        {}", arm.word())), "{user}: {arm:?}\n{said}");
            seen[arm as usize] = true;
        }
        assert_eq!(seen, [true; 3]);
        let said = told(&by_user, "GET /checkout/7", &[], Some(7));
        assert!(said.contains("it has no header:x-user: it is in no arm"), "{said}");
        let said = told(&by_user, "GET /checkout/7", &["x-user: a"], None);
        assert!(said.contains("differs from run to run"), "{said}");
        let said = told(&slow(&[]), "/checkout/7", &[], Some(7));
        assert!(said.contains("drawn anew for each request"), "{said}");
    }

    #[test]
    fn what_is_no_request_is_said_to_be_none() {
        for (line, header) in
            [("GET checkout", "a: b"), ("G=T /a", "a: b"), ("GET /a", "nothing"), ("GET /a", "b c: d")]
        {
            assert!(Asked::parse(line, &[header.to_owned()], None, None).is_err(), "{line} {header}");
        }
    }
}
