//! `pratfall status`: what a serving proxy is doing.

use std::path::PathBuf;

use http::Method;

use super::exit::{Exit, Usage};
use super::{Output, print, remote, system};
use crate::report::words;

/// Where a proxy is asked whose system file is not here.
const USUAL: &str = "http://127.0.0.1:9900";

const EXAMPLES: &str = "\
Examples:
  pratfall status                          the proxy of ./pratfall.yaml, by its `admin`
  pratfall status --config shop.yaml
  pratfall status --on http://127.0.0.1:9900 --output json";

/// Show what a serving proxy is doing: armed or not, halted or not, and its runs.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Show {
    /// Its admin address; that of the system file unless it is named, or http://127.0.0.1:9900.
    #[arg(long, env = "PRATFALL_ON", value_name = "URL")]
    on: Option<String>,
    /// The file with the admin token.
    #[arg(long, env = "PRATFALL_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The system file, whose `admin` says where it is.
    #[arg(long, env = "PRATFALL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Show {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<Exit> {
        let config = self.config.as_deref();
        let url = match (self.on, system::admin(config)) {
            (Some(url), _) => url,
            (None, Some(door)) => door.url,
            (None, None) if config.is_some() => {
                let why = "the system file has no `admin` that could be asked; name the proxy with --on";
                return Err(Usage(why.to_owned()).into());
            }
            (None, None) => USUAL.to_owned(),
        };
        let remote = remote::named(&url, self.token_file.as_deref(), None, config)?;
        let (_, status) = remote.call(Method::GET, "/status", String::new()).await?;
        if output == Output::Json {
            print(status);
            return Ok(Exit::Done);
        }
        let armed: Vec<&str> =
            status["armed"].as_array().into_iter().flatten().filter_map(|kind| kind.as_str()).collect();
        print(format!("armed for {}", if armed.is_empty() { "nothing".to_owned() } else { armed.join(", ") }));
        if let Some(by) = status["halted"]["by"].as_str() {
            let at = status["halted"]["at"].as_str().unwrap_or("?");
            print(format!("halted by {by} at {}", at.parse().map_or_else(|_| at.to_owned(), words::moment)));
        }
        for run in status["runs"].as_array().into_iter().flatten() {
            let progress = &run["progress"];
            let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let how = run["ending"].as_str().map_or_else(|| word(&progress["phase"]), ToOwned::to_owned);
            let how = run["refused"].as_str().map_or(how, |why| format!("refused: {why}"));
            print(format!("{}  {}  {how}", word(&progress["run"]), word(&progress["experiment"])));
        }
        Ok(Exit::Done)
    }
}
