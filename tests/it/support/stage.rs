//! A proxy with real listeners, and runs on it.

use std::net::SocketAddr;
use std::sync::Arc;

use pratfall::experiment::limits::Limits;
use pratfall::experiment::{Experiment, Match};
use pratfall::measure::{Batch, Budget, Count, Phase, Rule, Tally, Until};
use pratfall::proxy::config::{ListenerConfig, Scheme, Target};
use pratfall::proxy::{Enrolled, Injection, Proxy, Terms, Trial};
use pratfall::units::{Percent, Seed, Span};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use super::h2::H2Client;
use super::wire::Wire;
use super::within;

/// A listener with an upstream; tests change what they are about.
pub fn listener(name: &str, upstream: SocketAddr) -> ListenerConfig {
    ListenerConfig::plain(name, ([127, 0, 0, 1], 0).into(), Some(target(Scheme::Http, upstream)))
}

pub fn target(scheme: Scheme, address: SocketAddr) -> Target {
    Target { scheme, host: address.ip().to_string(), port: address.port() }
}

/// A proxy that serves.
#[derive(Debug)]
pub struct Stage {
    pub proxy: Proxy,
}

impl Stage {
    pub async fn start(listeners: Vec<ListenerConfig>, workers: usize) -> Self {
        Self { proxy: Proxy::start(listeners, workers).await.expect("the proxy starts") }
    }

    /// One listener, `front`, and one worker.
    pub async fn before(upstream: SocketAddr) -> Self {
        Self::start(vec![listener("front", upstream)], 1).await
    }

    /// `front` and `inventory`, each before an upstream of its own.
    pub async fn between(front: SocketAddr, inventory: SocketAddr) -> Self {
        Self::start(vec![listener("front", front), listener("inventory", inventory)], 1).await
    }

    pub fn address(&self, name: &str) -> SocketAddr {
        self.proxy.find(name).expect("there is such a listener").1
    }

    pub async fn call(&self, name: &str) -> Wire {
        Wire::connect(self.address(name)).await
    }

    pub async fn front(&self) -> Wire {
        self.call("front").await
    }

    pub async fn h2(&self, name: &str) -> H2Client {
        H2Client::connect(self.address(name)).await
    }

    pub fn enroll(&self, experiment: Experiment) -> Run {
        self.enroll_with(experiment, |_| {})
    }

    pub fn enroll_with(&self, experiment: Experiment, change: impl FnOnce(&mut Terms)) -> Run {
        let place = |name: &str| self.proxy.find(name).expect("there is such a listener").0;
        let mut terms = Terms {
            run: "R-test".to_owned(),
            seed: Seed(7),
            rules: vec![Rule::Error(Count::DEFAULT.into()), Rule::slow(Span::millis(800).get(), Until::Body)],
            limits: Arc::new(limits()),
            harmed: Budget::new(u64::MAX, CancellationToken::new()),
            max_faulted: None,
            patience: std::time::Duration::from_secs(30),
            places: (place(&experiment.slice.at), place(&experiment.inject.at)),
        };
        change(&mut terms);
        let (trial, batches) = Trial::new(Arc::new(experiment), terms);
        let enrolled = self.proxy.enroll(&trial);
        Run { trial, enrolled, batches, tally: Tally::new(self.proxy.workers(), None) }
    }
}

/// Limits that allow what these tests inject; tests change what they are about.
pub fn limits() -> Limits {
    Limits::default().with_every_fault()
}

/// A run that is enrolled, in baseline.
#[derive(Debug)]
pub struct Run {
    pub trial: Arc<Trial>,
    pub enrolled: Enrolled,
    batches: UnboundedReceiver<Batch>,
    pub tally: Tally,
}

impl Run {
    /// Begins the inject phase with its fault.
    pub fn inject(&self) -> Injection {
        self.trial.begin(Phase::Inject);
        self.enrolled.inject()
    }

    /// Sums what the workers say until something is so.
    pub async fn tally(&mut self, what: &str, so: impl Fn(&Tally) -> bool) -> &Tally {
        within(what, async {
            while !so(&self.tally) {
                self.tally.add(self.batches.recv().await.expect("the trial lives"));
            }
        })
        .await;
        &self.tally
    }
}

/// Requests of one path.
pub fn matching(path: &str) -> Match {
    read("latency: { delay: 1s }", &format!("{{ path: {path} }}")).slice.matches
}

/// Requests that a `match` means.
pub fn meaning(conditions: &str) -> Match {
    read("latency: { delay: 1s }", conditions).slice.matches
}

/// Requests of callers in a network.
pub fn callers(network: &str) -> Match {
    read("latency: { delay: 1s }", &format!("{{ caller: {network} }}")).slice.matches
}

/// An experiment with a fault, at `front` and `inventory`; tests change what they are about. `fault` may go on with
/// `}, { another`.
pub fn experiment(fault: &str) -> Experiment {
    read(fault, "{}")
}

fn read(fault: &str, matches: &str) -> Experiment {
    let text = format!(
        "version: 1
experiment: wire
hypothesis: If the wire misbehaves, then nobody notices, because we looked at it byte by byte.
slice: {{ at: front, match: {matches}, treatment: 50% }}
inject: {{ at: inventory, faults: [{{ {fault} }}] }}
steady_state:
  - name: answers
    error_rate: {{ max_increase: 1pp }}
"
    );
    match Experiment::parse("wire.yaml", &text, &|_| None) {
        Ok((experiment, _)) => experiment,
        Err(problems) => panic!("{problems}"),
    }
}

/// The same with slice and fault at `front`, and everybody treated.
pub fn everybody(fault: &str) -> Experiment {
    let mut experiment = experiment(fault);
    experiment.inject.at = "front".to_owned();
    experiment.slice.treatment = vec![Percent::from_ratio(1.0).expect("a share")];
    experiment.slice.control = Percent::from_ratio(0.0).expect("a share");
    experiment
}
