//! `pratfall log`: what is remembered.

use std::path::PathBuf;

use serde_json::json;

use super::exit::Exit;
use super::{Output, print, system};
use crate::ledger::{FailureRow, RunRow, RunState};

const EXAMPLES: &str = "\
Examples:
  pratfall log
  pratfall log slow inventory              runs that have these words
  pratfall log --failures
  pratfall log --audit                     nothing was changed or taken away";

/// List runs and failures of the ledger, the newest first.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Log {
    /// Only runs whose title, result or findings have these words.
    words: Vec<String>,
    /// Runs that are listed at the most.
    #[arg(long, default_value_t = 20, value_name = "NUMBER")]
    last: usize,
    /// Only failures.
    #[arg(long)]
    failures: bool,
    /// Check the chain of events instead.
    #[arg(long)]
    audit: bool,
    /// The system file that names the ledger.
    #[arg(long, env = "PRATFALL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The ledger itself.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
}

impl Log {
    pub(super) fn run(self, output: Output) -> anyhow::Result<Exit> {
        let (ledger, path) = system::open(self.ledger.as_deref(), self.config.as_deref())?;
        if self.audit {
            let audit = ledger.audit()?;
            let good = audit.broken.is_none();
            print(match output {
                Output::Json => json!(audit).to_string(),
                Output::Text if good => format!(
                    "{} events, the chain is whole; head {}",
                    audit.events,
                    audit.head.as_deref().unwrap_or("none")
                ),
                Output::Text => format!("the chain is broken: {:?}", audit.broken),
            });
            return Ok(if good { Exit::Done } else { Exit::Failed });
        }
        let runs = match (self.failures, self.words.is_empty()) {
            (true, _) => Vec::new(),
            (false, true) => ledger.runs(self.last)?,
            (false, false) => ledger.search(&self.words.join(" "))?,
        };
        let failures = if self.words.is_empty() { ledger.failures()? } else { Vec::new() };
        if output == Output::Json {
            print(json!({ "runs": runs, "failures": failures }));
            return Ok(Exit::Done);
        }
        if runs.is_empty() && failures.is_empty() {
            print(format!("nothing is in {} yet", path.display()));
        }
        for run in &runs {
            print(run_line(run));
        }
        if !failures.is_empty() {
            print("\nfailures");
        }
        for failure in &failures {
            print(failure_line(failure));
        }
        Ok(Exit::Done)
    }
}

fn run_line(run: &RunRow) -> String {
    let state = if run.by_hand && run.state == RunState::Closed { "explored" } else { run.state.word() };
    let how = run.ending.map_or(state, |ending| ending.word());
    let failure = run.failure.as_deref().map(|failure| format!("  {failure}")).unwrap_or_default();
    let seen = run.seen.as_deref().filter(|_| run.by_hand).map(|seen| format!(": {seen}")).unwrap_or_default();
    format!("{}  {:<12}  {}{seen}{failure}", run.id, how, run.title)
}

fn failure_line(failure: &FailureRow) -> String {
    format!("{}  {:<12}  {}", failure.id, failure.state.word(), failure.title)
}
