//! `pratfall inject`: a fault by hand, without a hypothesis: for exploring, and for improvising on a game day.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::documents::Variables;
use super::exit::{Exit, Usage};
use super::remote::{self, Remote};
use super::show::{Place, Screen, Style, bar, follow};
use super::{Output, print, signals, system};
use crate::app::App;
use crate::document::nearest;
use crate::experiment::ByHand;
use crate::experiment::by_hand::{BUDGET, LENGTH, SHARE, Written, read_fault, read_match};
use crate::fault::Fault;
use crate::lab::{Exploration, Explored, Progress};
use crate::ledger::new_run_id;
use crate::report::words;
use crate::units::{Percent, Seed, Span};

const EXAMPLES: &str = "\
Examples:
  pratfall inject 'latency: { delay: 400ms }' --at inventory --share 10% --for 5m
  pratfall inject 'error: { status: 503 }' --at inventory --match '{ method: GET, path: /stock/** }'
  pratfall inject 'drop: { how: hang }' --at inventory --budget 20 --on http://127.0.0.1:9900

Exit codes: 0 it ran to its end, 1 internal error, 2 usage or a bad fault, 5 refused (halted, not armed, listener taken,
upstream down, hours), 6 halted or the budget is spent, 130 and 143 by signal, after cleaning up.";

/// Inject a fault by hand, without a hypothesis.
///
/// The fault is YAML in the words of experiments. Every call at the listener that matches is drawn with --share; no slice
/// is chosen elsewhere, and nothing is compared. Limits, halt and the budget hold as for runs; Ctrl-C takes the fault off at
/// once. It is kept in the ledger without a verdict, and the last lines offer the experiment that would make it one.
///
/// Binds the listeners of the system file, as `run` does, or with --on asks a serving proxy, for as long as this command lives.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Inject {
    /// Faults: `latency: { delay: 400ms }`. The first is the outermost.
    #[arg(required = true, value_name = "FAULT")]
    faults: Vec<String>,
    /// The listener whose calls meet the fault.
    #[arg(long, value_name = "LISTENER")]
    at: String,
    /// The share of the calls that meets it.
    #[arg(long, default_value = SHARE, value_name = "SHARE")]
    share: Percent,
    /// How long it stays.
    #[arg(long = "for", default_value = LENGTH, value_name = "TIME")]
    length: Span,
    /// Which calls, as `match` in experiments: `{ path: /stock/** }`.
    #[arg(long = "match", value_name = "CONDITIONS")]
    matches: Option<String>,
    /// Calls that meet it at the most; then it ends.
    #[arg(long, default_value_t = BUDGET, value_parser = clap::value_parser!(u64).range(1..), value_name = "NUMBER")]
    budget: u64,
    /// Where chance comes from.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// The system file.
    #[arg(long, env = "PRATFALL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Inject on a serving proxy, by its admin address.
    #[arg(long, env = "PRATFALL_ON", value_name = "URL")]
    on: Option<String>,
    /// The file with the admin token, for --on.
    #[arg(long, env = "PRATFALL_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    variables: Variables,
}

impl Inject {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<Exit> {
        let by_hand = self.read()?;
        if let Some(warning) = by_hand.warning() {
            anstream::eprintln!("warning: {warning}");
        }
        if let Some(url) = &self.on {
            let remote = remote::named(url, self.token_file.as_deref(), None, self.config.as_deref())?;
            return elsewhere(&remote, &by_hand, output).await;
        }
        let (system, folder) = system::read(self.config.as_deref(), &self.variables)?;
        known(&by_hand.at, &system.listener_names())?;
        let app = App::conduct(system, &folder).await?;
        let asked = signals::listen(app.control.clone())?;
        let ended = here(&app, by_hand).await;
        let signal = *asked.borrow();
        app.drain().await;
        let exit = ended.map(|explored| told(&explored, output))?;
        Ok(signal.map_or(exit, Exit::Signal))
    }

    /// Reads everything, and names everything that is wrong, before anything starts.
    fn read(&self) -> anyhow::Result<ByHand> {
        let variables = self.variables.get();
        let (mut faults, mut wrong) = (Vec::new(), Vec::new());
        for (index, text) in self.faults.iter().enumerate() {
            let name = if self.faults.len() == 1 { "fault".to_owned() } else { format!("fault {}", index + 1) };
            match read_fault(&name, text, &variables) {
                Ok(mut fault) => {
                    wrong.extend(self.read_file(&mut fault.meant).err().map(|why| format!("{name}: {why}")));
                    faults.push(fault);
                }
                Err(problems) => wrong.push(problems.to_string()),
            }
        }
        let matches = match self.matches.as_deref().map(|text| read_match("--match", text, &variables)) {
            None => Written::default(),
            Some(Ok(matches)) => matches,
            Some(Err(problems)) => {
                wrong.push(problems.to_string());
                Written::default()
            }
        };
        if self.share.ratio() == 0.0 {
            wrong.push("--share: nobody would meet the fault; `1%` is a careful beginning".to_owned());
        }
        if self.length == Span::default() {
            wrong.push("--for: a fault of `0s` is none; write how long it stays, as in `5m`".to_owned());
        }
        if !wrong.is_empty() {
            return Err(Usage(format!("nothing was started\n\n{}", wrong.join("\n\n"))).into());
        }
        Ok(ByHand {
            at: self.at.clone(),
            matches,
            faults,
            share: self.share,
            length: self.length,
            budget: self.budget,
            seed: self.seed.map(Seed),
        })
    }

    /// Reads the file that a fault names; none goes with it to another proxy.
    fn read_file(&self, fault: &mut Fault) -> Result<(), String> {
        let Some((key, _)) = fault.file() else { return Ok(()) };
        if self.on.is_some() {
            return Err(format!("`{key}`: no file goes with a fault to a proxy elsewhere; write what is in it"));
        }
        fault.read_file(Path::new("")).map_err(|why| format!("`{key}`: {why}"))
    }
}

/// Whether there is such a listener.
fn known(at: &str, names: &[&str]) -> anyhow::Result<()> {
    if names.contains(&at) {
        return Ok(());
    }
    let way = nearest(at, names.iter().copied())
        .map_or_else(|| format!("the system has {}", names.join(", ")), |near| format!("did you mean `{near}`?"));
    Err(Usage(format!("--at: there is no listener `{at}`; {way}")).into())
}

async fn here(app: &App, by_hand: ByHand) -> anyhow::Result<Explored> {
    let listeners = app.proxy.listeners();
    let names: Vec<&str> = listeners.iter().map(|listener| listener.name.as_str()).collect();
    let exploration = Exploration::new(by_hand, &names, new_run_id(crate::clock::now()))?;
    anstream::eprintln!("{}: Ctrl-C or `pratfall halt` takes it off", exploration.title());
    let started = Arc::clone(&app.control).explore(exploration, false)?;
    follow(started.progress, Screen::with(Place::ALONE, STYLE)).await;
    Ok(started.result.await??)
}

async fn elsewhere(remote: &Remote, by_hand: &ByHand, output: Output) -> anyhow::Result<Exit> {
    let told = |over: &Value| Ok(told(&serde_json::from_value(over["exploration"].clone())?, output));
    remote::one(remote, "/inject", by_hand.document(), Screen::with(Place::ALONE, STYLE), told).await
}

/// Prints what came of it, with the experiment that would make it one.
fn told(explored: &Explored, output: Output) -> Exit {
    print(match output {
        Output::Json => serde_json::json!(explored).to_string(),
        Output::Text => summary(explored),
    });
    if explored.ended_by.is_some() { Exit::Halted } else { Exit::Done }
}

fn summary(explored: &Explored) -> String {
    let mut lines = vec![explored.title.clone()];
    let mut line = |label: &str, text: String| lines.push(format!("     {label:<13}{text}"));
    line("matching", explored.matching.clone());
    line("faulted", words::many(explored.faulted, "call", "calls"));
    let why: Vec<String> =
        explored.spared.iter().map(|(why, count)| format!("{} by {why}", words::count(*count))).collect();
    line("spared", if why.is_empty() { "nobody".to_owned() } else { why.join(", ") });
    if explored.released > 0 {
        line("released", format!("{} who were held at its end", words::count(explored.released)));
    }
    let lasted = words::length(explored.lasted_ms);
    line(
        "ended",
        match &explored.ended_by {
            Some(why) => format!("after {lasted}: {why}"),
            None => format!("as planned, after {lasted}"),
        },
    );
    line("kept as", format!("{}, without a verdict", explored.run));
    let offer = explored.experiment.trim_end();
    lines.push(format!("\nThe experiment that would make it one; save it, and say what you believe:\n\n{offer}"));
    lines.join("\n")
}

/// How a fault by hand is shown while it is on.
const STYLE: Style = Style { live, plain };

fn live(now: &Progress) -> String {
    let left = now.planned.saturating_sub(now.elapsed);
    if now.phase != "inject" || now.planned.is_zero() {
        return now.title.clone();
    }
    let left = words::length(Duration::from_secs(left.as_secs()).as_millis() as u64);
    format!("{}  {} {left} left{}", now.title, bar(now.elapsed, now.planned), figures(now))
}

fn plain(now: &Progress) -> String {
    let (elapsed, planned) = (now.elapsed.as_secs(), now.planned.as_secs());
    format!("{}: {} {elapsed} s of {planned} s{}", now.experiment, now.phase, figures(now))
}

fn figures(now: &Progress) -> String {
    let held = if now.held > 0 { format!("  held {}", words::count(now.held)) } else { String::new() };
    format!("  faulted {}  spared {}{held}", words::count(now.faulted), words::count(now.spared.values().sum()))
}
