//! Open-loop load: requests leave at their intended instants, whatever happened to the ones before them.

mod chance;
mod pattern;
mod schedule;
mod send;
mod template;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Version;
use http::uri::Authority;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

pub use self::schedule::Schedule;
use self::schedule::pace;
use self::send::Sender;
use self::template::Requests;
use crate::units::{Rate, Seed, Span};

/// Traffic of our own: requests at a rate, or a command that makes them.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// How many requests per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// How they are spread; `constant` where nothing is written.
    #[serde(default)]
    pub arrivals: Arrivals,
    /// The version of HTTP, 1 or 2.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 2))]
    pub http: u8,
    /// Whether only these requests take part in the experiment.
    #[serde(default = "yes")]
    pub only_own: bool,
    /// What is sent, drawn by weight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<Template>,
    /// A command that makes the traffic instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// The command's environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// How requests are spread over time.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// One every `1/rate`.
    #[default]
    Constant,
    /// From nothing to `rate` over the baseline, then constant.
    Ramp,
    /// Exponential gaps, as strangers arrive.
    Poisson,
}

/// One kind of request.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// How often, against the others.
    #[serde(default = "one_u32")]
    pub weight: u32,
    /// The method.
    #[serde(default = "get")]
    pub method: String,
    /// The path; `{1..500}` is a uniform number, `{uuid}` a new id.
    pub path: String,
    /// The header fields, with the same placeholders.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The body, with the same placeholders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

fn one() -> u8 {
    1
}
fn one_u32() -> u32 {
    1
}
fn yes() -> bool {
    true
}
fn get() -> String {
    "GET".to_owned()
}

/// Requests under way at once; more are not sent, but counted.
const MOST: usize = 10_000;

/// File descriptors that a request may take when all ends of the system are in one process, as in the demo: a fresh
/// connection at each of four hops.
const DESCRIPTORS: u64 = 8;

/// Requests that may be under way at once: a system that is overwhelmed must not take our reports down with it.
fn most() -> usize {
    let soft = rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(1024, |(soft, _)| soft);
    usize::try_from(soft / DESCRIPTORS).unwrap_or(MOST).min(MOST)
}

/// How long requests may take after the load was stopped.
const GRACE: Duration = Duration::from_secs(30);

/// How long a ramp takes where nobody says: an ordinary baseline.
const RAMP: Span = Span::secs(20);

/// Where requests go and how they are marked.
#[derive(Debug)]
pub struct Load {
    requests: Arc<Requests>,
    sender: Arc<Sender>,
    arrivals: Arrivals,
    rate: Rate,
    ramp: Span,
    seed: Seed,
    most: usize,
    grace: Duration,
}

impl Load {
    /// Reads what the document says; `authority` names the target where no template has a `host` of its own.
    pub fn new(traffic: &Traffic, target: SocketAddr, authority: String, seed: Seed) -> Result<Self, LoadError> {
        let Ok(authority) = authority.parse() else {
            return Err(LoadError::Authority(authority));
        };
        let (rate, requests) = checked(traffic, &authority, seed).map_err(|mut problems| problems.remove(0))?;
        Ok(Self {
            requests: Arc::new(requests),
            sender: Arc::new(Sender::new(target, traffic.http == 2)),
            arrivals: traffic.arrivals,
            rate,
            ramp: RAMP,
            seed,
            most: most(),
            grace: GRACE,
        })
    }

    /// How long `arrivals: ramp` takes from nothing to the rate.
    pub fn ramp_over(self, ramp: Span) -> Self {
        Self { ramp, ..self }
    }

    /// Sends until `stop`; requests under way then may take another 30 s. `mark` gives the value of the `baggage` field by
    /// the number and the intended start of a request; an empty one leaves it unmarked.
    pub async fn run(self, stop: CancellationToken, mark: impl Fn(u64, Instant) -> String, tally: Arc<LoadTally>) {
        let schedule = Schedule::new(self.arrivals, self.rate, self.ramp, self.seed);
        let mut under_way = JoinSet::new();
        pace(schedule, &stop, |index, intended| {
            while under_way.try_join_next().is_some() {}
            if under_way.len() >= self.most {
                count(&tally.shed);
                return;
            }
            count(&tally.sent);
            let mark = mark(index, intended);
            let (requests, sender, tally) = (Arc::clone(&self.requests), Arc::clone(&self.sender), Arc::clone(&tally));
            under_way.spawn(async move {
                match requests.nth(index, &mark) {
                    Ok(request) => sender.send(request, &tally).await,
                    // Not sent without its mark: a stranger would count as nobody's.
                    Err(_) => count(&tally.failed),
                }
            });
        })
        .await;
        // Late answers are evidence; a request that hangs must not hold up the end of the run.
        let _ = timeout(self.grace, async { while under_way.join_next().await.is_some() {} }).await;
        under_way.shutdown().await;
    }
}

/// Every problem of the traffic that we would have to send; none where a command sends it.
pub fn problems(traffic: &Traffic) -> Vec<LoadError> {
    if traffic.command.is_some() && traffic.rate.is_none() && traffic.requests.is_empty() {
        return Vec::new();
    }
    checked(traffic, &Authority::from_static("localhost"), Seed(0)).err().unwrap_or_default()
}

fn checked(traffic: &Traffic, authority: &Authority, seed: Seed) -> Result<(Rate, Requests), Vec<LoadError>> {
    if traffic.command.is_some() {
        return Err(vec![LoadError::Command]);
    }
    let version = if traffic.http == 2 { Version::HTTP_2 } else { Version::HTTP_11 };
    let mut problems = Vec::new();
    if !(1..=2).contains(&traffic.http) {
        problems.push(LoadError::Http(traffic.http));
    }
    let requests = Requests::new(&traffic.requests, authority, version, seed);
    match (traffic.rate, requests) {
        (Some(rate), Ok(requests)) if problems.is_empty() => Ok((rate, requests)),
        (rate, requests) => {
            if rate.is_none() {
                problems.push(LoadError::Rate);
            }
            problems.extend(requests.err().into_iter().flatten());
            Err(problems)
        }
    }
}

/// Why traffic cannot be sent, and what to write instead.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LoadError {
    /// Nothing says how fast.
    #[error("traffic has no rate: write how many requests are sent, as in `rate: 50/s`")]
    Rate,
    /// Nothing says what.
    #[error("traffic has no requests: write what is sent, as in `requests: [{{ path: /checkout/7 }}]`")]
    Requests,
    /// Nothing can be drawn.
    #[error("every request has weight 0, so none can be drawn: give one of them a weight of 1 or more")]
    Weights,
    /// The command makes the traffic.
    #[error("a `command` makes the traffic by itself: leave out either it or `rate` and `requests`")]
    Command,
    /// A version that nobody here speaks.
    #[error("HTTP/{0} is not spoken here: write `http: 1` or `http: 2`")]
    Http(u8),
    /// The target's name is none.
    #[error("`{0}` is no host to send requests to: write a name or an address, as in `127.0.0.1:8080`")]
    Authority(String),
    /// One of the requests cannot be sent.
    #[error("requests[{index}].{key}: {problem}")]
    Template {
        /// Its place in the list.
        index: usize,
        /// The key of the template.
        key: &'static str,
        /// What is wrong, and what to write instead.
        problem: String,
    },
}

/// What became of the requests, as it stands.
#[derive(Debug, Default)]
pub struct LoadTally {
    sent: AtomicU64,
    shed: AtomicU64,
    failed: AtomicU64,
    answered: AtomicU64,
}

impl LoadTally {
    /// The counts of this moment.
    pub fn snapshot(&self) -> LoadCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LoadCounts {
            answered: read(&self.answered),
            failed: read(&self.failed),
            shed: read(&self.shed),
            // Read last: nothing is answered before it was sent, so that no more seem answered than sent.
            sent: read(&self.sent),
        }
    }
}

/// What became of the requests; those neither answered nor failed are under way, or were given up at the end.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct LoadCounts {
    /// Left at their instants.
    pub sent: u64,
    /// Due, but not sent because too many were under way.
    pub shed: u64,
    /// The connection failed before an answer.
    pub failed: u64,
    /// An answer came, whatever it said.
    pub answered: u64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
