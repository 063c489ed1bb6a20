//! From what was written to what was meant: every mistake is named, with the way out.
//!
//! Each part reads on after a mistake with something harmless in its place, so that one look finds them all.

use std::path::Path;

use jiff::civil::Date;

use super::check_slice::Wrong;
use super::draft::{AtMost, Draft, InjectDraft, KnownDraft, PhasesDraft, Steps};
use super::written::TextOr;
use super::{Ending, Experiment, Guard, Hypothesis, Impact, Inject, Known, Length, Measure, Phases, Search};
use super::{check_faults, check_indicators, check_slice, check_traffic, plausible};
use crate::clock;
use crate::document::{self, Problems};
use crate::fault::Fault;
use crate::units::{Percent, Span};

impl Experiment {
    /// Reads an experiment. With it come the warnings; without it, everything that is wrong.
    pub fn parse(
        name: &str,
        text: &str,
        variables: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Self, Problems), Problems> {
        let reading = document::read::<Draft>(name, text, variables);
        let mut problems = reading.problems;
        let experiment = reading.value.map(|draft| {
            plausible::check(&draft, &document::read::<serde_json::Value>(name, text, variables).value, &mut problems);
            experiment(draft, text, &mut problems)
        });
        match experiment {
            Some(experiment) if !problems.has_errors() => Ok((experiment, problems)),
            _ => Err(problems),
        }
    }
}

impl Experiment {
    /// Compares the names in this experiment with those that a system has; what is not there is added to `problems`,
    /// which came with the experiment.
    pub fn check_names(&self, problems: &mut Problems, listeners: &[&str], probes: &[&str]) {
        let unknown = |problems: &mut Problems, pointer: &str, what: &str, name: &str, known: &[&str]| {
            if !known.contains(&name) {
                let way = if known.is_empty() {
                    help(format!("the system has no {what} at all"))
                } else {
                    meant(name, known)
                };
                problems.error(pointer, format!("the system has no {what} `{name}`"), way);
            }
        };
        unknown(problems, "/slice/at", "listener", &self.slice.at, listeners);
        if self.inject.at != self.slice.at {
            unknown(problems, "/inject/at", "listener", &self.inject.at, listeners);
        }
        for (index, indicator) in self.steady_state.iter().enumerate() {
            let pointer = format!("/steady_state/{index}");
            match &indicator.measure {
                Measure::Probe(probe) => {
                    unknown(problems, &format!("{pointer}/probe/name"), "probe", &probe.name, probes);
                }
                _ if indicator.at != self.slice.at => {
                    unknown(problems, &format!("{pointer}/at"), "listener", &indicator.at, listeners);
                }
                _ => {}
            }
        }
        // The guards that were written come first, so that their places are those of the document.
        for (index, guard) in self.guards.iter().enumerate() {
            if let Guard::Probe(probe) = guard {
                unknown(problems, &format!("/halt_when/{index}/probe/name"), "probe", &probe.name, probes);
            }
        }
    }

    /// Refuses what a document must not have that came over the API: files and programs of this machine. It has no
    /// addresses to name: those are in the system file.
    pub fn check_travelled(&self, problems: &mut Problems) {
        for (index, fault) in self.inject.faults.iter().enumerate() {
            check_faults::travelled(fault, &format!("/inject/faults/{index}/{}", fault.kind()), problems);
        }
        if self.traffic.as_ref().is_some_and(|traffic| traffic.command.is_some()) {
            problems.error(
                "/traffic/command",
                "a document that comes over the API can run no program",
                help("give a `rate` and `requests`, or start the run where the program is, with `pratfall run`"),
            );
        }
    }

    /// Reads the files that this experiment names, once, before anything runs. What cannot be used is told with its
    /// place in the document.
    pub fn read_files(&mut self, folder: &Path) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        for (index, fault) in self.inject.faults.iter_mut().enumerate() {
            if let (Err(why), Some((key, _))) = (fault.read_file(folder), fault.file()) {
                wrong.push((place(index, fault, key), why));
            }
        }
        wrong
    }
}

fn place(index: usize, fault: &Fault, key: &str) -> String {
    format!("/inject/faults/{index}/{}/{key}", fault.kind())
}

/// The way out.
pub(crate) fn help(text: impl Into<String>) -> Option<String> {
    Some(text.into())
}

/// `a`, `b` or `c`, each in quotes of code.
pub(crate) fn words<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<_> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// The nearest of some words, as a suggestion, or all of them.
pub(crate) fn meant(word: &str, known: &[&str]) -> Option<String> {
    Some(match document::nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("write {}", words(known.iter().copied())),
    })
}

/// Checks a name. Names become parts of metrics, file names and headers: `[a-z0-9][a-z0-9-]{0,62}`.
pub fn check_name(problems: &mut Problems, pointer: &str, what: &str, name: &str) {
    if let Some((message, way)) = misnamed(what, name) {
        problems.error(pointer, message, way);
    }
}

/// As [`check_name`], for a name that is a key.
pub fn check_key(problems: &mut Problems, pointer: &str, what: &str, name: &str) {
    if let Some((message, way)) = misnamed(what, name) {
        problems.error_at_key(pointer, message, way);
    }
}

fn misnamed(what: &str, name: &str) -> Option<Wrong> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !name.is_empty() && name.len() <= 63 && name.chars().all(fits) && !name.starts_with('-') {
        return None;
    }
    let better: String = name.to_lowercase().chars().map(|c| if fits(c) { c } else { ' ' }).collect();
    let better = better.split([' ', '-']).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    let better: String = better.chars().take(63).collect();
    Some((
        format!("the name of {what} is made of small letters, digits and hyphens, at most 63 of them, not `{name}`"),
        (!better.is_empty()).then(|| format!("for instance `{better}`")),
    ))
}

/// Stands where a name is missing, which has been said already.
pub(crate) const MISSING: &str = "missing";

fn experiment(draft: Draft, text: &str, problems: &mut Problems) -> Experiment {
    let name = draft.experiment.unwrap_or_else(|| MISSING.to_owned());
    check_name(problems, "/experiment", "an experiment", &name);
    let hypothesis = hypothesis(draft.hypothesis, problems);
    let own = draft.traffic.as_ref().is_some_and(|traffic| traffic.only_own);
    // Where a part is missing or unreadable the others are looked at on their own.
    let complete = draft.inject.is_some() && draft.slice.as_ref().is_some_and(check_slice::is_readable);
    let slice = check_slice::slice(&draft.slice.unwrap_or_default(), own, problems);
    let inject = match draft.inject {
        Some(draft) => inject(draft, &slice.at, problems),
        None => {
            let (at, matches) = (slice.at.clone(), super::Match::any());
            Inject { at, matches, share: percent(1.0), attempts: None, faults: Vec::new() }
        }
    };
    let parts = complete.then_some((&slice, &inject));
    let steady_state = draft.steady_state.map(|drafts| check_indicators::indicators(drafts, parts, problems));
    let steady_state = steady_state.unwrap_or_default();
    let guards = check_indicators::guards(draft.halt_when, problems);
    if complete {
        plausible::together(&slice, &inject, &steady_state, draft.traffic.as_ref(), problems);
    }
    if let Some(traffic) = &draft.traffic {
        check_traffic::traffic(traffic, problems);
    }
    let confidence = draft.confidence.unwrap_or_else(|| percent(0.95));
    if !(0.5..=0.999).contains(&confidence.ratio()) {
        problems.error(
            "/confidence",
            format!("a verdict is between `50%` and `99.9%` sure, not `{confidence}`"),
            help("`95%` is usual; more of it needs more traffic"),
        );
    }
    let search = draft.search.map(|search| {
        check_faults::search(&search, &inject.faults, problems);
        Search {
            vary: search.vary,
            through: search.through.into_iter().map(|value| value.0).collect(),
            bisect: search.bisect,
        }
    });
    Experiment {
        title: draft.title.unwrap_or_else(|| name.clone()),
        name,
        owner: draft.owner,
        tags: draft.tags,
        hypothesis,
        slice,
        inject,
        steady_state,
        guards,
        phases: phases(&draft.phases, problems),
        observe: draft.observe.unwrap_or_default(),
        confidence,
        seed: draft.seed,
        fail_on: draft.fail_on,
        impact: impact(draft.impact, problems),
        traffic: draft.traffic,
        known: draft.known.map(|known| self::known(known, problems)),
        search,
        document: text.to_owned(),
    }
}

/// A share that is written in this program.
pub(super) fn percent(ratio: f64) -> Percent {
    Percent::from_ratio(ratio).expect("a share between 0 and 1")
}

fn hypothesis(written: Option<TextOr<Steps>>, problems: &mut Problems) -> Hypothesis {
    let mut not_empty = |pointer: &str, text: &str| {
        if text.trim().is_empty() {
            problems.error(
                pointer,
                "nothing is said here",
                help("a run can only show what somebody believed before it"),
            );
        }
    };
    let Some(written) = written else { return Hypothesis::Sentence(String::new()) };
    match written {
        TextOr::Text(sentence) => {
            not_empty("/hypothesis", &sentence);
            Hypothesis::Sentence(sentence)
        }
        TextOr::More(steps) => {
            not_empty("/hypothesis/given", &steps.given);
            not_empty("/hypothesis/when", &steps.when);
            not_empty("/hypothesis/then", &steps.then);
            if let Some(prediction) = &steps.predict
                && !matches!(prediction.outcome, Ending::Held | Ending::Broken)
            {
                problems.error(
                    "/hypothesis/predict/outcome",
                    format!("`{}` says nothing about the hypothesis", prediction.outcome.word()),
                    help("predict `held` or `broken`"),
                );
            }
            Hypothesis::Steps { given: steps.given, when: steps.when, then: steps.then, predict: steps.predict }
        }
    }
}

fn inject(draft: InjectDraft, slice_at: &str, problems: &mut Problems) -> Inject {
    let share = draft.share.unwrap_or_else(|| percent(1.0));
    if share.ratio() == 0.0 {
        problems.error(
            "/inject/share",
            "no treated call would meet the fault: its share is `0%`",
            help("leave `share` out for all of them, or lower `slice.treatment` for fewer people"),
        );
    }
    if draft.faults.is_empty() {
        problems.error(
            "/inject/faults",
            "there is no fault to inject",
            help("add one, as in `- latency: { delay: 250ms }`"),
        );
    }
    if draft.faults.len() > 1 {
        let count = if draft.faults.len() == 2 { "two".to_owned() } else { draft.faults.len().to_string() };
        problems.warn(
            "/inject/faults",
            format!("{count} faults at once: when the hypothesis breaks, the report cannot say which of them did it"),
            help("write one experiment for each, unless it is their meeting that you believe something about"),
        );
    }
    for (index, fault) in draft.faults.iter().enumerate() {
        check_faults::fault(fault, &format!("/inject/faults/{index}/{}", fault.kind()), problems);
    }
    Inject {
        at: draft.at.unwrap_or_else(|| slice_at.to_owned()),
        matches: check_slice::matcher(&draft.matches, "/inject/match", problems),
        share,
        attempts: draft.attempts,
        faults: draft.faults,
    }
}

fn phases(draft: &PhasesDraft, problems: &mut Problems) -> Phases {
    let mut length = |name: &str, written: &Option<TextOr<AtMost>>| {
        let pointer = format!("/phases/{name}");
        let length = match written {
            None => return Length::Auto { at_most: None },
            Some(TextOr::More(AtMost { at_most })) => Length::Auto { at_most: Some(*at_most) },
            Some(TextOr::Text(word)) if word == "auto" => Length::Auto { at_most: None },
            // The schema has seen to it that everything else is a length of time.
            Some(TextOr::Text(text)) => Length::Fixed(text.parse().unwrap_or_default()),
        };
        let (Length::Fixed(span) | Length::Auto { at_most: Some(span) }) = length else { return length };
        if name == "inject" && span < Span::secs(1) {
            problems.error(
                &pointer,
                format!("the inject phase is at least `1s` long, not `{span}`"),
                help("leave it out, or write `auto`: `pratfall check` then says how long the plan needs"),
            );
        } else if span == Span::default() && name == "baseline" {
            problems.warn(
                &pointer,
                "without a baseline nobody knows whether the system was well before the fault",
                help("leave it out, or write `auto`: 20 s or 200 requests, the longer"),
            );
        } else if span == Span::default() {
            problems.warn(
                &pointer,
                "without a recovery phase the run cannot say whether the system gets well again",
                help("leave it out for 20 s"),
            );
        }
        length
    };
    Phases {
        baseline: length("baseline", &draft.baseline),
        inject: length("inject", &draft.inject),
        recovery: length("recovery", &draft.recovery),
    }
}

fn impact(written: Option<Impact>, problems: &mut Problems) -> Impact {
    let impact = written.unwrap_or_default();
    if impact.value_per_request.is_some_and(|value| value < 0.0) {
        problems.error("/impact/value_per_request", "a request is worth nothing or more", None);
    }
    if impact.outage == Span::default() {
        problems.error("/impact/outage", "an outage takes some time", help("leave it out for `30m`"));
    }
    impact
}

fn known(draft: KnownDraft, problems: &mut Problems) -> Known {
    if !draft.failure.starts_with("F-") || draft.failure.contains(char::is_whitespace) {
        problems.error(
            "/known/failure",
            format!("`{}` is not the id of a failure", draft.failure),
            help("ids look like `F-7k2m`; `pratfall log` shows them"),
        );
    }
    let today = clock::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let until = draft.until.parse::<Date>().unwrap_or_else(|_| {
        problems.error("/known/until", format!("`{}` is not a day", draft.until), help("write it as in `2027-01-31`"));
        today
    });
    if until < today {
        problems.warn(
            "/known/until",
            format!("{} was tolerated until {until}, which is over: broken fails the command again", draft.failure),
            help("remove `known`, or agree on another day with whoever is mending it"),
        );
    }
    Known { failure: draft.failure, until }
}
