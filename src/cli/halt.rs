//! `pratfall halt` and `pratfall resume`: the one switch that takes every fault off.

use std::path::PathBuf;

use http::{Method, StatusCode};

use super::exit::Exit;
use super::{print, remote, system};
use crate::ledger::halt::HaltMark;

const HALT_EXAMPLES: &str = "\
Examples:
  pratfall halt                                all processes on the ledger of ./pratfall.yaml
  pratfall halt --config shop.yaml
  pratfall halt --on http://127.0.0.1:9900

SIGUSR1 to the process, and POST /halt from the same machine, do the same.";

const RESUME_EXAMPLES: &str = "\
Examples:
  pratfall resume
  pratfall resume --on http://127.0.0.1:9900";

/// Take every fault off, now, and refuse new runs until `resume`.
///
/// Leaves a mark beside the ledger, which every process on it obeys within 100 ms, and tells the serving proxy whose
/// `admin` the system file names. With --on, tells that proxy alone.
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
    /// The ledger, where it is a file: the mark is beside it.
    fn ledger(&self) -> anyhow::Result<PathBuf> {
        system::ledger(self.ledger.as_deref(), self.config.as_deref())
    }

    /// The proxy that is to be told: named, or that of the system file. Whoever names a ledger means no other place.
    fn door(&self) -> Option<String> {
        let written = || system::admin(self.config.as_deref()).filter(|_| self.ledger.is_none());
        self.on.clone().or_else(|| written().map(|door| door.url))
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

    /// Changes the mark and tells the proxy. With --on the proxy alone counts; else either is enough, and what could not
    /// be reached is said.
    async fn both(&self, mark: impl FnOnce(HaltMark) -> anyhow::Result<()>, path: &str) -> anyhow::Result<String> {
        if let Some(url) = &self.on {
            self.tell(url, path).await?;
            return Ok(url.clone());
        }
        let marked = self.ledger().and_then(|ledger| {
            mark(HaltMark::beside(&ledger))?;
            Ok(format!("every process on the ledger {}", ledger.display()))
        });
        let Some(url) = self.door() else { return marked };
        match (self.tell(&url, path).await, marked) {
            (Ok(()), Ok(marked)) => Ok(format!("{marked}, and {url}")),
            (Ok(()), Err(error)) => {
                anstream::eprintln!("warning: no mark could be set, so a restart forgets it: {error:#}");
                Ok(url)
            }
            (Err(error), Ok(marked)) => {
                anstream::eprintln!("warning: {error:#}; only the mark beside the ledger speaks");
                Ok(marked)
            }
            (Err(error), Err(other)) => Err(error.context(format!("{other:#}"))),
        }
    }
}

impl Halt {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let who = std::env::var("USER").unwrap_or_else(|_| "an operator".to_owned());
        let plain: String = who.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
        let reached = self.which.both(|mark| Ok(mark.set(&who)?), &format!("/halt?by={plain}")).await?;
        print(format!("halted: all faults are off, and nothing starts until `pratfall resume` ({reached})"));
        Ok(Exit::Done)
    }
}

impl Resume {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let reached = self.which.both(|mark| Ok(mark.clear()?), "/resume").await?;
        print(format!("resumed: runs may start again ({reached})"));
        Ok(Exit::Done)
    }
}
