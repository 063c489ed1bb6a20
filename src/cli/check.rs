//! `pratfall check`: reads documents and says everything that is wrong with them, and what they mean.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::documents::{self, Document, Variables};
use super::exit::Exit;
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
  pratfall check - < experiment.yaml";

/// Check experiments, game days and system files, without starting anything.
///
/// Every problem of a file is named at once, with its place and the way out.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Check {
    /// Files, folders, or `-`.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The system file: names of listeners and probes are resolved with it.
    #[arg(long, env = "PRATFALL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    variables: Variables,
}

impl Check {
    pub(super) fn run(self, output: Output) -> anyhow::Result<Exit> {
        let system = match &self.config {
            Some(path) => Some(system::read(Some(path), &self.variables)?.0),
            None => None,
        };
        let mut bad = false;
        let mut all = Vec::new();
        for document in documents::read(&self.files)? {
            let (meaning, problems) = self.check(&document, system.as_ref());
            bad |= problems.has_errors();
            match output {
                Output::Json => all.push(json!({
                    "file": document.name,
                    "ok": !problems.has_errors(),
                    "problems": problems.list(),
                    "meaning": meaning,
                })),
                Output::Text => {
                    if !problems.is_empty() {
                        anstream::eprintln!("{problems}\n");
                    }
                    if let Some(meaning) = meaning {
                        print(format!("{}: {meaning}", document.name));
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
    fn check(&self, document: &Document, system: Option<&System>) -> (Option<String>, Problems) {
        let Document { name, text } = document;
        let variables = self.variables.get();
        let (meaning, problems) = match Kind::of(name, text) {
            Ok(Kind::System) => match System::parse(name, text, &variables) {
                Ok((system, problems)) => (Some(format!("ok, the system {}", system.name)), problems),
                Err(problems) => (None, problems),
            },
            Ok(Kind::GameDay) => match GameDay::parse(name, text, &variables) {
                Ok((day, problems)) => (Some(format!("ok, the game day {}", day.name)), problems),
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
                    (Some(meaning(&experiment)), problems)
                }
                Err(problems) => (None, problems),
            },
        };
        (meaning.filter(|_| !problems.has_errors()), problems)
    }
}

/// What an experiment means, with the defaults that it does not write.
fn meaning(experiment: &Experiment) -> String {
    let slice = &experiment.slice;
    let shares: Vec<String> = slice.treatment.iter().map(|share| format!("{share:#}")).collect();
    let mut lines = vec![format!("ok, the experiment {}", experiment.name)];
    let mut line = |label: &str, text: String| lines.push(format!("    {label:<10} {text}"));
    line(
        "slice",
        format!("at {}: {} treated, {:#} control, by {}", slice.at, shares.join(" then "), slice.control, slice.by),
    );
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
