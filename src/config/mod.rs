//! The system file: what is under test, where its traffic comes in and goes to, and what may be done to it.
//!
//! A system is read as experiments are: [`draft`] is what was written, [`System`] is what was meant.

mod check;
pub mod draft;
pub mod schema;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use self::draft::SystemDraft;
pub use self::draft::{AccessLog, Drain};
use crate::document::{self, Problems};
use crate::experiment::limits::Limits;
use crate::notify::{Channel, NotifyConfig};
use crate::probe::ProbeConfig;
use crate::proxy::config::ListenerConfig;
use crate::units::Span;

/// A system as it was meant. Paths are as they were written: relative ones belong to the file's folder.
#[derive(Clone, Debug)]
pub struct System {
    /// Its name.
    pub name: String,
    /// Its listeners, by name.
    pub listeners: Vec<ListenerConfig>,
    /// How many threads move traffic.
    pub workers: usize,
    /// How a serving process ends.
    pub drain: Drain,
    /// A log of requests.
    pub access_log: Option<AccessLog>,
    /// The operator's door, where there is one.
    pub admin: Option<AdminConfig>,
    /// Where health and metrics are read; at the admin listener where nothing is written.
    pub telemetry: Option<SocketAddr>,
    /// Where runs and failures are remembered.
    pub ledger: LedgerConfig,
    /// The folder that reports are written to.
    pub reports: PathBuf,
    /// What a serving proxy may do at most.
    pub limits: Limits,
    /// What we can ask the world, by name.
    pub probes: Vec<(String, ProbeConfig)>,
    /// Processes of the system under test, started by `run`.
    pub start: Vec<StartConfig>,
    /// Who is told.
    pub notify: Vec<NotifyConfig>,
}

/// The operator's door.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AdminConfig {
    /// Where it listens.
    pub bind: SocketAddr,
    /// The file with the token that changes need; one is made beside the ledger where nothing is written.
    pub token_file: Option<PathBuf>,
}

/// Where runs and failures are remembered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LedgerConfig {
    /// In a file.
    File(PathBuf),
    /// At another Pratfall.
    Remote {
        /// Its admin listener.
        url: String,
        /// The file with its token.
        token_file: Option<PathBuf>,
    },
}

/// A process of the system under test.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StartConfig {
    /// The program and its arguments.
    pub run: Vec<String>,
    /// What is added to its environment.
    pub env: BTreeMap<String, String>,
    /// A page that answers once it is ready.
    pub ready: Option<String>,
    /// How long that may take.
    pub ready_within: Span,
}

impl System {
    /// Reads a system file. With it come the warnings; without it, everything that is wrong.
    pub fn parse(
        name: &str,
        text: &str,
        variables: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Self, Problems), Problems> {
        let reading = document::read::<SystemDraft>(name, text, variables);
        let mut problems = reading.problems;
        match reading.value.map(|draft| check::system(draft, &mut problems)) {
            Some(system) if !problems.has_errors() => Ok((system, problems)),
            _ => Err(problems),
        }
    }

    /// Reads a system file for the sake of its listeners. What is wrong elsewhere comes with it as errors: nothing may
    /// be injected then, and what it is about is left out. Without the system, the listeners themselves are wrong.
    pub fn parse_listeners(
        name: &str,
        text: &str,
        variables: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Self, Problems), Problems> {
        let reading = document::read_for::<SystemDraft>("listeners", name, text, variables);
        let mut problems = reading.problems;
        let Some(mut system) = reading.value.map(|draft| check::system(draft, &mut problems)) else {
            return Err(problems);
        };
        let wrong = |key: &str| problems.errors().any(|problem| problem.is_about(key));
        if wrong("listeners") || !problems.have_a_tree() {
            return Err(problems);
        }
        if problems.has_errors() {
            system.limits.faults.clear();
        }
        // A door that is not as it was meant might be open to everybody.
        system.admin = system.admin.filter(|_| !wrong("admin"));
        system.telemetry = system.telemetry.filter(|_| !wrong("telemetry"));
        Ok((system, problems))
    }

    /// A listener by its name.
    pub fn listener(&self, name: &str) -> Option<&ListenerConfig> {
        self.listeners.iter().find(|listener| listener.name == name)
    }

    /// The names of the listeners.
    pub fn listener_names(&self) -> Vec<&str> {
        self.listeners.iter().map(|listener| listener.name.as_str()).collect()
    }

    /// The names of the probes.
    pub fn probe_names(&self) -> Vec<&str> {
        self.probes.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The files that this system names, each with its place in the document. Files that are made when they are
    /// missing, the ledger for instance, are not among them.
    pub fn files(&self) -> Vec<(String, PathBuf)> {
        let mut files = Vec::new();
        let mut add = |pointer: String, file: Option<&PathBuf>| files.extend(file.map(|file| (pointer, file.clone())));
        for listener in &self.listeners {
            let pointer = format!("/listeners/{}", listener.name);
            if let Some(tls) = &listener.tls {
                add(format!("{pointer}/tls/cert"), Some(&tls.cert));
                add(format!("{pointer}/tls/key"), Some(&tls.key));
                add(format!("{pointer}/tls/client_ca"), tls.client_ca.as_ref());
            }
            if let Some(tls) = &listener.upstream_tls {
                add(format!("{pointer}/upstream_tls/ca"), tls.ca.as_ref());
                add(format!("{pointer}/upstream_tls/cert"), tls.cert.as_ref());
                add(format!("{pointer}/upstream_tls/key"), tls.key.as_ref());
            }
        }
        add("/admin/token_file".to_owned(), self.admin.as_ref().and_then(|admin| admin.token_file.as_ref()));
        if let LedgerConfig::Remote { token_file, .. } = &self.ledger {
            add("/ledger/token_file".to_owned(), token_file.as_ref());
        }
        for (index, notify) in self.notify.iter().enumerate() {
            let (key, file) = match &notify.channel {
                Channel::Slack(slack) => ("slack/url_file", Some(&slack.url_file)),
                Channel::Pagerduty(pagerduty) => ("pagerduty/routing_key_file", Some(&pagerduty.routing_key_file)),
                Channel::Webhook(webhook) => ("webhook/secret_file", webhook.secret_file.as_ref()),
            };
            add(format!("/notify/{index}/{key}"), file);
        }
        files
    }
}
