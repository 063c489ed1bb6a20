//! Speaking to a serving proxy: a small client for its admin API.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::exit::{Exit, Usage};
use super::run::Planned;
use super::show::{Place, summary};
use super::{Output, print};
use crate::report::Report;

/// How often a run is asked for, which is its heartbeat too: well within its lease.
const BEAT: Duration = Duration::from_millis(500);

/// A serving proxy.
pub(super) struct Remote {
    base: String,
    token: Option<String>,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Remote {
    pub(super) fn new(url: &str, token_file: Option<&Path>) -> anyhow::Result<Self> {
        let base = url.trim_end_matches('/').to_owned();
        let sound = base.parse::<Uri>().is_ok_and(|uri| uri.scheme_str() == Some("http") && uri.authority().is_some());
        if !sound {
            return Err(Usage(format!("`{url}` is no admin address; write `http://127.0.0.1:9900`")).into());
        }
        let token = match token_file {
            Some(path) => {
                Some(std::fs::read_to_string(path).with_context(|| format!("token file {}", path.display()))?)
            }
            // The same user's command line finds the token where the serving proxy keeps it.
            None => std::fs::read_to_string("pratfall.db.token").ok(),
        };
        let token = token.map(|token| token.trim().to_owned());
        Ok(Self { base, token, client: Client::builder(TokioExecutor::new()).build_http() })
    }

    pub(super) async fn call(&self, method: Method, path: &str, body: String) -> anyhow::Result<(StatusCode, Value)> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(Bytes::from(body)))?;
        let answer = tokio::time::timeout(Duration::from_secs(10), self.client.request(request)).await;
        let response = answer.map_err(|_| anyhow!("{} does not answer", self.base))?;
        let response = response.map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            anyhow!("{} cannot be reached: {error}: {cause}", self.base)
        })?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }
}

/// Conducts experiments on a serving proxy. The run goes on for as long as this command asks for it.
pub(super) async fn run(
    url: &str,
    token_file: Option<&Path>,
    planned: &[Planned],
    seed: Option<u64>,
    underpowered: bool,
    output: Output,
) -> anyhow::Result<Exit> {
    let remote = Remote::new(url, token_file)?;
    let mut exits = Vec::new();
    let of = planned.len();
    for (index, planned) in planned.iter().enumerate() {
        let place = Place { number: index + 1, of };
        let seed = seed.map(|seed| format!("&seed={seed}")).unwrap_or_default();
        let path = format!("/runs?underpowered={underpowered}{seed}");
        let document = planned.experiment.document.clone();
        let (status, answer) = remote.call(Method::POST, &path, document).await?;
        if status != StatusCode::ACCEPTED {
            let why = answer["error"].as_str().unwrap_or("no reason was given").to_owned();
            anstream::eprintln!("refused: {}: {why}", planned.experiment.name);
            exits.push(match status {
                StatusCode::UNPROCESSABLE_ENTITY => Exit::Usage,
                StatusCode::CONFLICT => Exit::Invalid,
                _ => Exit::Failed,
            });
            continue;
        }
        let run = answer["run"].as_str().context("the proxy named no run")?.to_owned();
        exits.push(attend(&remote, &run, place, output).await?);
    }
    Ok(Exit::worst(exits))
}

/// Keeps a run alive, shows it, and halts it when this command is told to end.
async fn attend(remote: &Remote, run: &str, place: Place, output: Output) -> anyhow::Result<Exit> {
    let mut signal = None;
    let mut shown = String::new();
    loop {
        let (status, answer) = remote.call(Method::GET, &format!("/runs/{run}"), String::new()).await?;
        if status != StatusCode::OK {
            bail!("{run} is not known any more");
        }
        if let Some(why) = answer["refused"].as_str() {
            anstream::eprintln!("refused: {why}");
            return Ok(Exit::Invalid);
        }
        if let Ok(report) = serde_json::from_value::<Report>(answer["report"].clone()) {
            print(match output {
                Output::Text => summary(&report, place, None),
                Output::Json => serde_json::to_string(&report)?,
            });
            return Ok(signal.map_or_else(|| Exit::ended(report.verdict.ending), Exit::Signal));
        }
        let phase = answer["progress"]["phase"].as_str().unwrap_or_default();
        if phase != shown {
            phase.clone_into(&mut shown);
            anstream::eprintln!("{run}: {phase}");
        }
        tokio::select! {
            () = tokio::time::sleep(BEAT) => drop(remote.call(Method::POST, &format!("/runs/{run}/heartbeat"), String::new()).await?),
            number = ended() => {
                signal = Some(number);
                remote.call(Method::POST, &format!("/runs/{run}/halt"), String::new()).await?;
            }
        }
    }
}

async fn ended() -> i32 {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => 2,
        _ = terminate.recv() => 15,
    }
}
