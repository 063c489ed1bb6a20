//! `pratfall rehearse`: everything but the fault, and a map of who passes the context on.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::documents::{self, Variables};
use super::exit::{Exit, Usage};
use super::remote::{self, Remote};
use super::show::{Place, Screen, Style, bar, follow};
use super::{Output, print, signals, system};
use crate::app::App;
use crate::config::System;
use crate::config::schema::Kind;
use crate::experiment::{Ending, Experiment};
use crate::lab::map::{Context, Seen};
use crate::lab::rehearse::{LENGTH, SHORTEST};
use crate::lab::{Order, Progress, Rehearsed};
use crate::ledger::new_run_id;
use crate::report::words;
use crate::units::{Seed, Span};

const EXAMPLES: &str = "\
Examples:
  pratfall rehearse experiments/slow-inventory.yaml
  pratfall rehearse slow.yaml --for 30s                      where little traffic comes
  pratfall rehearse slow.yaml --on http://127.0.0.1:9900     on a serving proxy, armed or not

Exit codes: 0 a run may begin, 1 internal error, 2 usage or bad file, 4 too little traffic, or not well without any fault,
5 the context is lost, no traffic came, the arms differ, or refused, 6 halted, 130 and 143 by signal.";

/// Rehearse an experiment: everything but the fault.
///
/// Marks every matching request for a few seconds, injects nothing, and says where they were seen again: who passes the
/// context on and who loses it, how often calls are tried, whether treatment and control are alike without any fault, and
/// what a run would need. Nothing is written into the ledger.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Rehearse {
    /// The experiment.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How long.
    #[arg(long = "for", default_value = LENGTH, value_name = "TIME")]
    length: Span,
    /// The system file.
    #[arg(long, env = "PRATFALL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Rehearse on a serving proxy, by its admin address.
    #[arg(long, env = "PRATFALL_ON", value_name = "URL")]
    on: Option<String>,
    /// The file with the admin token, for --on.
    #[arg(long, env = "PRATFALL_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Where chance comes from, over what the document says.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    #[command(flatten)]
    variables: Variables,
}

impl Rehearse {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<Exit> {
        if self.length < SHORTEST {
            return Err(Usage(format!("--for: a rehearsal is at least `{SHORTEST}` long")).into());
        }
        if let Some(url) = &self.on {
            let experiment = self.read(None)?;
            let remote = remote::named(url, self.token_file.as_deref(), None, self.config.as_deref())?;
            return self.elsewhere(&remote, &experiment, output).await;
        }
        let (system, folder) = system::read(self.config.as_deref(), &self.variables)?;
        let experiment = self.read(Some(&system))?;
        let app = App::conduct(system, &folder).await?;
        let asked = signals::listen(app.control.clone())?;
        let ended = self.here(&app, experiment).await;
        let signal = *asked.borrow();
        app.drain().await;
        let exit = told(&ended?, output);
        Ok(signal.map_or(exit, Exit::Signal))
    }

    fn read(&self, system: Option<&System>) -> anyhow::Result<Experiment> {
        let mut documents = documents::read(std::slice::from_ref(&self.file))?;
        let (Some(document), true) = (documents.pop(), documents.is_empty()) else {
            return Err(Usage(format!("{}: one experiment is rehearsed at a time", self.file.display())).into());
        };
        if Kind::of(&document.name, &document.text)? != Kind::Experiment {
            return Err(Usage(format!("{}: this is no experiment", document.name)).into());
        }
        let (experiment, mut problems) = Experiment::parse(&document.name, &document.text, &self.variables.get())?;
        if let Some(system) = system {
            experiment.check_names(&mut problems, &system.listener_names(), &system.probe_names());
        }
        if problems.has_errors() {
            return Err(problems.into());
        }
        if !problems.is_empty() {
            anstream::eprintln!("{problems}\n");
        }
        Ok(experiment)
    }

    async fn here(&self, app: &App, experiment: Experiment) -> anyhow::Result<Rehearsed> {
        let order = Order {
            seed: self.seed.map(Seed).or(experiment.seed).unwrap_or_else(|| Seed(rand::random())),
            run: new_run_id(crate::clock::now()),
            follow_up_of: None,
            underpowered: true,
            experiment: Arc::new(experiment),
        };
        let started = app.control.rehearse(order, self.length, false)?;
        follow(started.progress, Screen::with(Place::ALONE, STYLE)).await;
        Ok(started.result.await??)
    }

    async fn elsewhere(&self, remote: &Remote, experiment: &Experiment, output: Output) -> anyhow::Result<Exit> {
        let seed = self.seed.map(|seed| format!("&seed={seed}")).unwrap_or_default();
        let path = format!("/rehearse?for={}{seed}", self.length);
        let told = |over: &Value| Ok(told(&serde_json::from_value(over["rehearsal"].clone())?, output));
        remote::one(remote, &path, experiment.document.clone(), Screen::with(Place::ALONE, STYLE), told).await
    }
}

fn told(rehearsed: &Rehearsed, output: Output) -> Exit {
    print(match output {
        Output::Json => serde_json::json!(rehearsed).to_string(),
        Output::Text => summary(rehearsed),
    });
    Exit::ended(rehearsed.ending)
}

fn summary(rehearsed: &Rehearsed) -> String {
    let lasted = words::length(rehearsed.lasted_ms);
    let mut lines = vec![format!("{}: rehearsed for {lasted}, no fault was injected\n", rehearsed.title)];
    lines.extend(table(rehearsed));
    lines.push(String::new());
    let mut line = |label: &str, text: String| lines.push(format!("     {label:<13}{text}"));
    for loss in &rehearsed.map.losses {
        let who = match (&loss.behind, &loss.service) {
            (Some(behind), Some(service)) => format!("by the service behind {behind} ({service})"),
            _ => "by nobody who can be named".to_owned(),
        };
        line("lost", format!("{who}: its calls reach {} without the context", loss.at));
        line("usually", loss.cause.clone());
    }
    for arms in &rehearsed.arms {
        let (treated, control) = (words::share(arms.treated.share()), words::share(arms.control.share()));
        line("arms", format!("{}: {treated} treatment v {control} control, none met a fault", arms.indicator));
    }
    for how in &rehearsed.differ {
        line("differ", how.clone());
    }
    if let Some(why) = &rehearsed.unquiet {
        line("not well", why.clone());
    }
    if let Some(needs) = &rehearsed.needs {
        let (treated, inject) = (words::count(needs.treated), words::length(whole(needs.inject_ms)));
        let rate = words::number(needs.rate, 1);
        line("a run needs", format!("{treated} treated units for {}: {inject} at {rate}/s and its slice", needs.bound));
        line(
            "",
            match needs.too_short_ms {
                Some(short) => format!("`inject` is {} and too short for that", words::length(short)),
                None => format!("{} from baseline to recovery", words::length(whole(needs.run_ms))),
            },
        );
    }
    if let Some(why) = &rehearsed.refused {
        line("now refused", why.clone());
    }
    let word = match rehearsed.ending {
        Ending::Held => "READY".to_owned(),
        other => other.word().to_uppercase(),
    };
    line(&word, rehearsed.reason.clone());
    lines.join("\n")
}

/// Whole seconds: nobody plans in milliseconds.
fn whole(millis: u64) -> u64 {
    millis.div_ceil(1000) * 1000
}

/// One row for each listener.
fn table(rehearsed: &Rehearsed) -> Vec<String> {
    let mut rows = vec![["listener", "requests", "seen by", "attempts", "context"].map(str::to_owned)];
    for seen in &rehearsed.map.listeners {
        rows.push(row(seen, rehearsed));
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths = [0, 1, 2, 3].map(width);
    let padded = |row: &[String; 5]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| {
            let room = width.saturating_sub(cell.chars().count());
            format!("{cell}{}   ", " ".repeat(room))
        });
        format!("     {}{}", cells.collect::<String>(), row[4]).trim_end().to_owned()
    };
    rows.iter().map(padded).collect()
}

fn row(seen: &Seen, rehearsed: &Rehearsed) -> [String; 5] {
    let begins = seen.context == Context::Begins;
    let requests = if begins {
        format!("{} enrolled", words::count(seen.requests))
    } else {
        format!("{} of {}", words::count(seen.requests), words::count(rehearsed.map.enrolled))
    };
    let by: Vec<String> = seen.by.iter().map(|(carrier, n)| format!("{carrier} {}", words::count(*n))).collect();
    let attempts = match seen.calls {
        0 => "–".to_owned(),
        _ => format!("{}, at most {}", words::number(seen.attempts, 2), words::count(seen.most_attempts)),
    };
    let without = words::many(seen.without, "call", "calls");
    let context = match seen.context {
        Context::NoCalls => "no call came".to_owned(),
        Context::Begins => "begins here".to_owned(),
        Context::Arrives => "arrives".to_owned(),
        Context::Partly => format!("arrives, and {without} came without"),
        Context::Lost => format!("LOST: {without} came without"),
        Context::Others => format!("{without} of others"),
    };
    let fault = seen.listener == rehearsed.fault_at;
    let context = if fault { format!("{context}; the fault would wait here") } else { context };
    let by = if by.is_empty() { "–".to_owned() } else { by.join(", ") };
    [seen.listener.clone(), requests, by, attempts, context]
}

/// How a rehearsal is shown while it is under way.
const STYLE: Style = Style { live, plain };

fn live(now: &Progress) -> String {
    let left = now.planned.saturating_sub(now.elapsed).as_secs();
    format!("rehearsing {}  {} {left} s left", now.title, bar(now.elapsed, now.planned))
}

fn plain(now: &Progress) -> String {
    format!("{}: rehearsing, {} s of {} s", now.experiment, now.elapsed.as_secs(), now.planned.as_secs())
}
