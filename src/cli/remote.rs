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
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::{Exit, Usage};
use super::next::Door;
use super::run::{Planned, save, tell};
use super::show::{Place, Screen};
use super::{Output, system};
use crate::admin;
use crate::experiment::Ending;
use crate::lab::{Progress, follow_up};
use crate::measure::Note;
use crate::report::{Counted, Report};

/// How often a run is asked for, which is its heartbeat too: well within its lease.
const BEAT: Duration = Duration::from_millis(500);

/// Looks that may stay without an answer before a proxy counts as gone.
const PATIENCE: u32 = 2;

/// A serving proxy.
pub(super) struct Remote {
    base: String,
    token: Option<String>,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Remote {
    /// A proxy by its admin address. The token is in its file, or beside the ledger, where it exists.
    fn new(url: &str, token_file: Option<&Path>, ledger: Option<&Path>) -> anyhow::Result<Self> {
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
            None => ledger.and_then(|ledger| std::fs::read_to_string(admin::token_beside(ledger)).ok()),
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

/// A serving proxy as a command names it, with the token that lies beside the ledger which the command knows.
pub(super) fn named(
    url: &str,
    token_file: Option<&Path>,
    ledger: Option<&Path>,
    config: Option<&Path>,
) -> anyhow::Result<Remote> {
    // A system file that cannot be read here says nothing about a proxy elsewhere.
    let beside = system::ledger(ledger, config).ok();
    let written =
        system::admin(config).filter(|door| door.url == url.trim_end_matches('/')).and_then(|it| it.token_file);
    Remote::new(url, token_file.or(written.as_deref()), beside.as_deref())
}

/// What was asked of `run --on`, besides the experiments.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) seed: Option<u64>,
    pub(super) underpowered: bool,
    /// Endings that fail the command, where it says so.
    pub(super) fail_on: Option<&'a [Ending]>,
    /// Where the reports are written here.
    pub(super) reports: &'a Path,
    pub(super) output: Output,
}

/// Conducts experiments on a serving proxy. A run goes on for as long as this command asks for it. How each ended, and
/// the reports there are.
pub(super) async fn run(
    remote: &Remote,
    planned: &[Planned],
    asked: &Asked<'_>,
) -> anyhow::Result<(Vec<Exit>, Vec<Report>)> {
    let mut signals = Signals::listen()?;
    let (mut exits, mut reports) = (Vec::new(), Vec::new());
    let of = planned.len();
    for (index, planned) in planned.iter().enumerate() {
        let place = Place { number: index + 1, of };
        let seed = asked.seed.map(|seed| format!("&seed={seed}")).unwrap_or_default();
        let path = format!("/runs?underpowered={}{seed}", asked.underpowered);
        // A follow-up says in its first line what it follows.
        let document = &planned.experiment.document;
        let document = match &planned.follow_up_of {
            Some(failure) if follow_up::failure_of(document).is_none() => follow_up::marked(document, failure),
            _ => document.clone(),
        };
        let (status, answer) = remote.call(Method::POST, &path, document).await?;
        if status != StatusCode::ACCEPTED {
            let why = answer["error"].as_str().unwrap_or("no reason was given").to_owned();
            anstream::eprintln!("refused: {}: {why}", planned.experiment.name);
            exits.push(refused(status));
            continue;
        }
        let run = answer["run"].as_str().context("the proxy named no run")?.to_owned();
        let over = attend(remote, &run, &mut Screen::new(place), &mut signals).await?;
        let exit = match over {
            Ok(over) => {
                let mut report: Report = serde_json::from_value(over["report"].clone())?;
                let saved = save(&mut report, asked.reports, Door::On(&remote.base));
                tell(&report, place, saved.as_deref().ok(), asked.output);
                saved.context("the ledger of the proxy has it, if there was room")?;
                let fail_on = asked.fail_on.or(planned.experiment.fail_on.as_deref());
                let exit = Exit::of_report(&report, fail_on);
                reports.push(report);
                exit
            }
            Err((why, exit)) => {
                anstream::eprintln!("{}: {}: {why}", word(exit), planned.experiment.name);
                exit
            }
        };
        exits.push(exit);
        if let Some(number) = signals.first {
            exits.push(Exit::Signal(number));
            break;
        }
    }
    Ok((exits, reports))
}

/// What a request that was not taken exits with.
pub(super) fn refused(status: StatusCode) -> Exit {
    match status {
        StatusCode::UNPROCESSABLE_ENTITY => Exit::Usage,
        StatusCode::CONFLICT => Exit::Invalid,
        _ => Exit::Failed,
    }
}

/// Asks a proxy for something that is no run, attends to it, and has `told` tell what came of it.
pub(super) async fn one(
    remote: &Remote,
    path: &str,
    document: String,
    mut screen: Screen,
    told: impl FnOnce(&Value) -> anyhow::Result<Exit>,
) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen()?;
    let (status, answer) = remote.call(Method::POST, path, document).await?;
    if status != StatusCode::ACCEPTED {
        anstream::eprintln!("refused: {}", answer["error"].as_str().unwrap_or("no reason was given"));
        return Ok(refused(status));
    }
    let attended = attend(remote, answer["run"].as_str().unwrap_or_default(), &mut screen, &mut signals).await?;
    let exit = match attended {
        Ok(over) => {
            drop(screen);
            told(&over)?
        }
        Err((why, exit)) => {
            anstream::eprintln!("{}: {why}", word(exit));
            exit
        }
    };
    Ok(signals.first().map_or(exit, Exit::Signal))
}

/// How something ended that the proxy has nothing to show of.
fn word(exit: Exit) -> &'static str {
    if exit == Exit::Halted { "halted" } else { "refused" }
}

/// Keeps a run alive, shows it, and halts it when this command is told to end. What the proxy says when it is over, or why
/// it was refused.
pub(super) async fn attend(
    remote: &Remote,
    run: &str,
    screen: &mut Screen,
    signals: &mut Signals,
) -> anyhow::Result<Result<Value, (String, Exit)>> {
    let mut unanswered = 0;
    loop {
        let (status, answer) = match remote.call(Method::GET, &format!("/runs/{run}"), String::new()).await {
            Ok(answered) => answered,
            // The proxy may have closed the connection in the moment in which we asked.
            Err(_) if unanswered < PATIENCE => {
                unanswered += 1;
                tokio::time::sleep(BEAT).await;
                continue;
            }
            // A process takes its faults with it, and one that lives misses the heartbeat.
            Err(error) => {
                return Ok(Err((format!("{error:#}; {run} ends with its process or its lease"), Exit::Halted)));
            }
        };
        unanswered = 0;
        if status != StatusCode::OK {
            bail!("{run} is not known any more");
        }
        if let Some(why) = answer["refused"].as_str() {
            let exit = match answer["refused_for"].as_str() {
                Some("document") => Exit::Usage,
                Some("internal") => Exit::Failed,
                _ => Exit::Invalid,
            };
            return Ok(Err((why.to_owned(), exit)));
        }
        if ["report", "exploration", "rehearsal"].iter().any(|over| answer[*over].is_object()) {
            return Ok(Ok(answer));
        }
        screen.show(&heard(&answer["progress"]));
        tokio::select! {
            // What became of either shows at the next look.
            () = tokio::time::sleep(BEAT) => drop(remote.call(Method::POST, &format!("/runs/{run}/heartbeat"), String::new()).await),
            () = signals.next() => drop(remote.call(Method::POST, &format!("/runs/{run}/halt"), String::new()).await),
        }
    }
}

/// What a proxy shows of a run; what is not understood is left out.
fn heard(shown: &Value) -> Progress {
    let text = |key: &str| shown[key].as_str().unwrap_or_default().to_owned();
    let time = |key: &str| Duration::try_from_secs_f64(shown[key].as_f64().unwrap_or_default()).unwrap_or_default();
    let phases = ["preflight", "baseline", "inject", "recovery", "over"];
    let phase = phases.into_iter().find(|phase| shown["phase"] == *phase).unwrap_or_default();
    let indicators: Vec<(String, Counted, Counted)> =
        serde_json::from_value(shown["indicators"].clone()).unwrap_or_default();
    Progress {
        run: text("run"),
        experiment: text("experiment"),
        title: text("title"),
        phase,
        elapsed: time("elapsed"),
        planned: time("planned"),
        indicators,
        faulted: shown["faulted"].as_u64().unwrap_or_default(),
        spared: Note::ALL
            .into_iter()
            .filter_map(|note| note.spared().and_then(|why| Some((why, shown["spared"][why].as_u64()?))))
            .collect(),
        held: shown["held"].as_u64().unwrap_or_default(),
        broken_after: shown["broken_after"].as_f64().map(|_| time("broken_after")),
        ..Progress::default()
    }
}

/// Signals that ask for the end. Listened to all the while, so that none is lost between two looks.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// The first that came.
    first: Option<i32>,
}

impl Signals {
    pub(super) fn listen() -> std::io::Result<Self> {
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, first: None })
    }

    /// The first signal that came.
    pub(super) fn first(&self) -> Option<i32> {
        self.first
    }

    async fn next(&mut self) {
        let number = tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
        };
        self.first.get_or_insert(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_here_of_a_run_elsewhere_is_what_its_proxy_shows() {
        let now = Progress {
            run: "r-1".into(),
            experiment: "slow".into(),
            title: "it is slow".into(),
            phase: "inject",
            elapsed: Duration::from_millis(2500),
            planned: Duration::from_secs(15),
            indicators: vec![("quick".into(), Counted { bad: 7.0, of: 70 }, Counted { bad: 0.0, of: 71 })],
            broken_after: Some(Duration::from_secs(2)),
            ..Progress::default()
        };
        let there = serde_json::to_value(&now).unwrap();
        assert_eq!(serde_json::to_value(heard(&there)).unwrap(), there);
        assert_eq!(heard(&Value::Null).phase, "");
    }
}
