//! `pratfall halt` and `pratfall resume`: the one switch that takes every fault off.

use std::path::PathBuf;

use http::{Method, StatusCode};

use super::exit::Exit;
use super::{print, remote, system};
use crate::ledger::halt::HaltMark;

const HALT_EXAMPLES: &str = "\
Examples:
  pratfall halt                                all processes on this ledger
  pratfall halt --on http://127.0.0.1:9900

SIGUSR1 to the process, and POST /halt from the same machine, do the same.";

const RESUME_EXAMPLES: &str = "\
Examples:
  pratfall resume
  pratfall resume --on http://127.0.0.1:9900";

/// Take every fault off, now, and refuse new runs until `resume`.
///
/// Leaves a mark beside the ledger, which every process on it obeys within 100 ms; with --on, tells a serving proxy.
#[derive(Debug, clap::Args)]
#[command(after_help = HALT_EXAMPLES)]
pub(super) struct Halt {
    #[command(flatten)]
    which: Which,
}

/// Allow runs again.
#[derive(Debug, clap::Args)]
#[command(after_help = RESUME_EXAMPLES)]
pub(super) struct Resume {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// A serving proxy, by its admin address.
    #[arg(long, env = "PRATFALL_ON", value_name = "URL")]
    on: Option<String>,
    /// The file with the admin token, for --on.
    #[arg(long, env = "PRATFALL_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The system file that names the ledger.
    #[arg(long, env = "PRATFALL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The ledger itself.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
}

impl Which {
    fn mark(&self) -> anyhow::Result<HaltMark> {
        Ok(HaltMark::beside(&system::ledger(self.ledger.as_deref(), self.config.as_deref())?))
    }

    async fn tell(&self, url: &str, path: &str) -> anyhow::Result<()> {
        let (token, ledger) = (self.token_file.as_deref(), self.ledger.as_deref());
        let remote = remote::named(url, token, ledger, self.config.as_deref())?;
        let (status, answer) = remote.call(Method::POST, path, String::new()).await?;
        match status {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(()),
            _ => anyhow::bail!("{url}: {}", answer["error"].as_str().unwrap_or("refused")),
        }
    }
}

impl Halt {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let who = std::env::var("USER").unwrap_or_else(|_| "an operator".to_owned());
        match &self.which.on {
            Some(url) => {
                let plain: String = who.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
                self.which.tell(url, &format!("/halt?by={plain}")).await?;
            }
            None => self.which.mark()?.set(&who)?,
        }
        print("halted: all faults are off, and nothing starts until `pratfall resume`");
        Ok(Exit::Done)
    }
}

impl Resume {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        match &self.which.on {
            Some(url) => self.which.tell(url, "/resume").await?,
            None => self.which.mark()?.clear()?,
        }
        print("resumed: runs may start again");
        Ok(Exit::Done)
    }
}
