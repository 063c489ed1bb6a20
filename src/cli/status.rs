//! `pratfall status`: what a serving proxy is doing.

use std::path::PathBuf;

use http::Method;

use super::exit::Exit;
use super::{Output, print, remote};

const EXAMPLES: &str = "\
Examples:
  pratfall status
  pratfall status --on http://127.0.0.1:9900 --output json";

/// Show what a serving proxy is doing: armed or not, halted or not, and its runs.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Show {
    /// Its admin address.
    #[arg(long, env = "PRATFALL_ON", default_value = "http://127.0.0.1:9900", value_name = "URL")]
    on: String,
    /// The file with the admin token.
    #[arg(long, env = "PRATFALL_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Show {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<Exit> {
        let remote = remote::named(&self.on, self.token_file.as_deref(), None, None)?;
        let (_, status) = remote.call(Method::GET, "/status", String::new()).await?;
        if output == Output::Json {
            print(status);
            return Ok(Exit::Done);
        }
        let armed: Vec<&str> =
            status["armed"].as_array().into_iter().flatten().filter_map(|kind| kind.as_str()).collect();
        print(format!("armed for {}", if armed.is_empty() { "nothing".to_owned() } else { armed.join(", ") }));
        if let Some(by) = status["halted"]["by"].as_str() {
            print(format!("halted by {by} at {}", status["halted"]["at"].as_str().unwrap_or("?")));
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
