//! `pratfall check`: reads documents and says everything that is wrong with them, and what they mean.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::documents::{self, Document, Variables};
use super::exit::Exit;
use super::explain::{self, Asked, Explained};
use super::{Output, print, system};
use crate::config::System;
use crate::config::schema::Kind;
use crate::document::Problems;
use crate::experiment::game_day::GameDay;
use crate::experiment::{Experiment, Guard, Length, Of};
use crate::lab::{plan, preflight};
use crate::report::words;
use crate::units::Span;

const EXAMPLES: &str = "\
Examples:
  pratfall check experiments/slow-inventory.yaml
  pratfall check experiments --config pratfall.yaml
  pratfall check - < experiment.yaml
  pratfall check slow.yaml --config pratfall.yaml --request 'GET /checkout/7' -H 'x-user: 1' --seed 42
                                           what would this request meet, and why?";

/// Check experiments, game days and system files, without starting anything.
///
/// Every problem of a file is named at once, with its place and the way out. With --config it also says who would be hit, by
/// what, and what stops it; with --request, what one request would meet.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Check {
    /// Files, folders, or `-`.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The system file: names of listeners and probes are resolved with it.
    #[arg(long, env = "PRATFALL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Explain this request: in which arm it is, and what it would meet.
    #[arg(long, value_name = "'GET /PATH'")]
    request: Option<String>,
    /// A header field of the request.
    #[arg(short = 'H', long = "header", requires = "request", value_name = "'NAME: VALUE'")]
    headers: Vec<String>,
    /// The address that the request comes from; 127.0.0.1 unless said.
    #[arg(long, requires = "request", value_name = "ADDRESS")]
    caller: Option<IpAddr>,
    /// The seed of the run that the request would meet, over what the document says.
    #[arg(long, requires = "request", value_name = "NUMBER")]
    seed: Option<u64>,
    #[command(flatten)]
    variables: Variables,
}

impl Check {
    pub(super) fn run(self, output: Output) -> anyhow::Result<Exit> {
        let system = match &self.config {
            Some(path) => Some(system::read(Some(path), &self.variables)?.0),
            None => None,
        };
        let asked = match &self.request {
            Some(line) => Some(Asked::parse(line, &self.headers, self.caller, self.seed)?),
            None => None,
        };
        let mut bad = false;
        let mut all = Vec::new();
        for document in documents::each(&self.files)? {
            let document = match document {
                Ok(document) => document,
                Err(unread) => {
                    bad = true;
                    match output {
                        Output::Json => {
                            all.push(json!({ "file": unread.name, "ok": false, "problems": [unread.problem()] }))
                        }
                        Output::Text => anstream::eprintln!("error: {unread}\n"),
                    }
                    continue;
                }
            };
            let (meaning, problems) = self.check(&document, system.as_ref(), asked.as_ref());
            bad |= problems.has_errors();
            match output {
                Output::Json => all.push(json!({
                    "file": document.name,
                    "ok": !problems.has_errors(),
                    "problems": problems.list(),
                    "meaning": meaning.as_ref().map(|meaning| &meaning.text),
                    "explained": meaning.as_ref().and_then(|meaning| meaning.system.as_ref()),
                    "request": meaning.as_ref().and_then(|meaning| meaning.request.as_ref()),
                })),
                Output::Text => {
                    if !problems.is_empty() {
                        anstream::eprintln!("{problems}\n");
                    }
                    if let Some(meaning) = meaning {
                        print(format!("{}: {}", document.name, meaning.lines()));
                    }
                }
            }
        }
        if output == Output::Json {
            print(json!(all));
        }
        Ok(if bad { Exit::Usage } else { Exit::Done })
    }

    /// What a document means, where it means anything, and everything that is wrong with it.
    fn check(
        &self,
        document: &Document,
        system: Option<&System>,
        asked: Option<&Asked>,
    ) -> (Option<Meaning>, Problems) {
        let Document { name, text } = document;
        let variables = self.variables.get();
        let (meaning, problems) = match Kind::of(name, text) {
            Ok(Kind::System) => match System::parse(name, text, &variables) {
                Ok((system, problems)) => (Some(format!("ok, the system {}", system.name).into()), problems),
                Err(problems) => (None, problems),
            },
            Ok(Kind::GameDay) => match GameDay::parse(name, text, &variables) {
                Ok((day, problems)) => (Some(format!("ok, the game day {}", day.name).into()), problems),
                Err(problems) => (None, problems),
            },
            Err(problems) => (None, problems),
            Ok(Kind::Experiment) => match Experiment::parse(name, text, &variables) {
                Ok((mut experiment, mut problems)) => {
                    if let Some(system) = system {
                        experiment.check_names(&mut problems, &system.listener_names(), &system.probe_names());
                    }
                    // A warning here, an error in `run`.
                    for (pointer, why) in experiment.read_files(&crate::app::folder(Path::new(name))) {
                        problems.warn(&pointer, why, Some(documents::BESIDE.to_owned()));
                    }
                    if let Some(why) = plan::too_low(&experiment) {
                        problems.warn("/phases/inject", why, Some("until then `run` refuses it".to_owned()));
                    }
                    let meaning = Meaning {
                        text: meaning(&experiment),
                        system: system.map(|system| explain::experiment(&experiment, system)),
                        request: asked.map(|asked| explain::request(&experiment, system, asked)),
                    };
                    (Some(meaning), problems)
                }
                Err(problems) => (None, problems),
            },
        };
        (meaning.filter(|_| !problems.has_errors()), problems)
    }
}

/// What a document means.
struct Meaning {
    text: String,
    /// On a system.
    system: Option<Explained>,
    /// For one request.
    request: Option<Explained>,
}

impl From<String> for Meaning {
    fn from(text: String) -> Self {
        Self { text, system: None, request: None }
    }
}

impl Meaning {
    fn lines(&self) -> String {
        let mut lines = vec![self.text.clone()];
        for explained in [&self.system, &self.request].into_iter().flatten() {
            lines.push(String::new());
            lines.extend(explained.lines());
        }
        lines.join("\n")
    }
}

/// What an experiment means, with the defaults that it does not write.
fn meaning(experiment: &Experiment) -> String {
    let slice = &experiment.slice;
    let shares: Vec<String> = slice.treatment.iter().map(|share| format!("{share:#}")).collect();
    let mut lines = vec![format!("ok, the experiment {}", experiment.name)];
    let mut line = |label: &str, text: String| lines.push(format!("    {label:<10} {text}"));
    if experiment.compares_phases() {
        let text = format!("at {}: {} of the calls, by {}", slice.at, shares.join(" then "), slice.by);
        line("slice", format!("{text}; inject is compared with baseline, not treatment with control"));
    } else {
        let text =
            format!("at {}: {} treated, {:#} control, by {}", slice.at, shares.join(" then "), slice.control, slice.by);
        line("slice", text);
    }
    let faults: Vec<String> = experiment.inject.faults.iter().map(crate::fault::Fault::describe).collect();
    line("inject", format!("at {}: {}", experiment.inject.at, faults.join(" and ")));
    let guards: Vec<String> = experiment.guards.iter().map(guard).collect();
    line("halts", if guards.is_empty() { "never by itself".into() } else { guards.join("; ") });
    let phases = &experiment.phases;
    line(
        "phases",
        format!(
            "baseline {}, inject {}, recovery {}",
            length(phases.baseline, "20 s or 200 units"),
            length(phases.inject, "as long as the plan needs, 15 m at the most"),
            length(phases.recovery, "20 s"),
        ),
    );
    let rate = experiment.traffic.as_ref().and_then(|traffic| traffic.rate).map(|rate| rate.per_second());
    if let Some(plan) = plan::plan(experiment, |_| None, rate) {
        let time = plan
            .time
            .map(|time| format!(", {:#} at this rate", Span::from(std::time::Duration::from_secs(time.as_secs() + 1))));
        let time = time.unwrap_or_default();
        line("plan", format!("{} treated units for {}{time}", words::count(plan.treated), plan.bound));
    }
    for later in preflight::not_yet(experiment) {
        line("later", later);
    }
    lines.join("\n")
}

fn length(length: Length, auto: &str) -> String {
    match length {
        Length::Fixed(span) => format!("{span:#}"),
        Length::Auto { at_most: Some(most) } => format!("{auto}, but at most {most:#}"),
        Length::Auto { at_most: None } => auto.to_owned(),
    }
}

fn guard(guard: &Guard) -> String {
    let of = |of: &Of| match of {
        Of::Rest => " of everybody but the treatment",
        Of::Treatment => " of the treatment",
        Of::All => " of everybody",
    };
    match guard {
        Guard::ErrorRate { max, window, of: who } => format!("errors{} above {max:#} for {window:#}", of(who)),
        Guard::SlowRate { over, max, window, of: who } => {
            format!("slower than {over:#}{} above {max:#} for {window:#}", of(who))
        }
        Guard::Harmed { max } => format!("{max} treated units harmed"),
        Guard::Faulted { max: Some(max), .. } => format!("{max} calls faulted"),
        Guard::Faulted { .. } => "a budget of faults".to_owned(),
        Guard::Probe(probe) => format!("the probe {}", probe.name),
    }
}
