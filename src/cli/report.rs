//! `pratfall report`: shows a run, or judges it again.

use std::path::PathBuf;

use clap::ValueEnum;

use super::exit::{Exit, Usage};
use super::next::Door;
use super::{Output, print, system};
use crate::experiment::Experiment;
use crate::lab::judge;
use crate::report::{Report, html, junit, markdown};

const EXAMPLES: &str = "\
Examples:
  pratfall report                          the latest run, as Markdown
  pratfall report 7k2m --format html > report.html
  pratfall report reports/RUN/report.json --replay";

/// Show the report of a run, or replay its verdict.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Show {
    /// The run: its id, the beginning of it, `latest`, or a report.json.
    #[arg(default_value = "latest")]
    run: String,
    /// How it is written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Judge the stored evidence again, and compare.
    #[arg(long)]
    replay: bool,
    /// The system file that names the ledger.
    #[arg(long, env = "PRATFALL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The ledger itself.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
enum Format {
    #[default]
    Markdown,
    Html,
    Json,
    Junit,
}

impl Show {
    pub(super) fn run(self, output: Output) -> anyhow::Result<Exit> {
        let report = self.find()?;
        if self.replay {
            return replay(&report);
        }
        let format = if output == Output::Json { Format::Json } else { self.format };
        print(match format {
            Format::Markdown => markdown::render(&report),
            Format::Html => html::render(&report),
            Format::Json => serde_json::to_string_pretty(&report)?,
            Format::Junit => junit::render(std::slice::from_ref(&report)),
        });
        Ok(Exit::Done)
    }

    fn find(&self) -> anyhow::Result<Report> {
        if self.run.ends_with(".json") {
            let text = std::fs::read_to_string(&self.run).map_err(|error| Usage(format!("{}: {error}", self.run)))?;
            return serde_json::from_str(&text)
                .map_err(|error| Usage(format!("{}: not a report: {error}", self.run)).into());
        }
        let (ledger, path) = system::open(self.ledger.as_deref(), self.config.as_deref())?;
        let mut report = ledger.report(&self.run)?;
        let door = self.ledger.as_deref().map_or(Door::File(self.config.as_deref()), Door::Ledger);
        Door::to(&ledger, &report.run, &path, door).show(&mut report, None);
        Ok(report)
    }
}

/// Judges the stored evidence with this engine. Log-evidence may differ by 1e-9: libm differs between platforms.
fn replay(report: &Report) -> anyhow::Result<Exit> {
    let unreadable = |why: String| Usage(format!("{}: its document cannot be read any more: {why}", report.run));
    // Values of variables were not stored; their names stand for themselves.
    let variables = |name: &str| std::env::var(name).ok();
    let (experiment, _) = Experiment::parse(&report.experiment, &report.replay.document, &variables)
        .map_err(|problems| unreadable(problems.to_string()))?;
    let evidence =
        serde_json::from_value(report.replay.evidence.clone()).map_err(|error| unreadable(error.to_string()))?;
    let again = judge(&experiment, &evidence);
    let mut same = again.ending == report.verdict.ending;
    for (then, now) in report.verdict.bounds.iter().zip(&again.bounds) {
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(1.0);
        same &= near(then.log_e_held, now.log_e_held) && near(then.log_e_broken, now.log_e_broken);
    }
    let engine = &report.replay.engine;
    let word = if same { "the same" } else { "NOT the same" };
    print(format!(
        "{}: {} then (engine {engine}), {} now (engine {}): {word}",
        report.run,
        report.verdict.ending.word(),
        again.ending.word(),
        env!("CARGO_PKG_VERSION")
    ));
    Ok(if same { Exit::Done } else { Exit::Failed })
}
