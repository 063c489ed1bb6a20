//! From a system file to something that serves: the only place that knows all rooms.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::admin::{self, Admin, Token};
use crate::config::{LedgerConfig, System};
use crate::lab::{Control, Lab};
use crate::ledger::Ledger;
use crate::ledger::halt::HaltMark;
use crate::proxy::config::Mode;
use crate::proxy::{ListenerConfig, Proxy, ProxyError};

/// How long requests may take to finish when a serving process ends: as long as Kubernetes waits before it kills.
const GRACE: Duration = Duration::from_secs(25);

/// How long runs may take to end when they are told to: they are cut short, so this is plenty.
const RUNS_END: Duration = Duration::from_secs(5);

/// File descriptors that are asked for: two sockets a request, with room for ten thousand connections.
const DESCRIPTORS: u64 = 65_536;

/// Why nothing can be started.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The system file asks for what this version cannot do: a matter of the file.
    #[error("{0}")]
    NotYet(String),
    /// A listener cannot be had.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The ledger cannot be had, and a run must not begin without.
    #[error(transparent)]
    Ledger(#[from] crate::ledger::LedgerError),
    /// The admin or telemetry listener cannot be had.
    #[error("{what} cannot listen on {address}: {cause}")]
    Admin {
        /// Which of them.
        what: &'static str,
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        cause: io::Error,
    },
}

/// Something that serves.
#[derive(Debug)]
pub struct App {
    /// The data plane.
    pub proxy: Arc<Proxy>,
    /// The switchboard.
    pub control: Arc<Control>,
    /// Where runs are remembered.
    pub ledger: Option<Arc<Ledger>>,
    /// The folder that reports are written to.
    pub reports: PathBuf,
    /// What is wrong outside the listeners, for `/readyz?verbose`.
    pub complaints: Vec<String>,
}

impl App {
    /// For `run`: own listeners, which may inject what the documents say, and a ledger that must be there.
    pub async fn conduct(mut system: System, folder: &Path) -> Result<Self, AppError> {
        let mut later = unserved(&system);
        if !system.notify.is_empty() {
            later.push("`notify` is read but nobody is told by this version; leave it out".into());
        }
        if !system.start.is_empty() {
            later.push("`start` is read but nothing is started by this version; start the system yourself".into());
        }
        if !later.is_empty() {
            return Err(AppError::NotYet(later.join("\n")));
        }
        descriptors();
        let path = file(&system, folder)?;
        let ledger = Arc::new(Ledger::open(&path)?);
        let sockets = Proxy::bind(listeners(&mut system, folder)).await?;
        Self::assemble(system, folder, sockets, Some(ledger), Some(HaltMark::beside(&path)), true, Vec::new())
    }

    /// For `serve`: whatever is wrong outside the listeners disarms and is said, and the traffic flows.
    pub async fn serve(mut system: System, folder: &Path) -> Result<Self, AppError> {
        let later = unserved(&system);
        if !later.is_empty() {
            return Err(AppError::NotYet(later.join("\n")));
        }
        descriptors();
        let mut complaints = Vec::new();
        if !system.notify.is_empty() {
            complaints.push("notify: nobody is told by this version".to_owned());
        }
        if !system.start.is_empty() {
            complaints.push("start: a serving proxy starts nothing".to_owned());
        }
        let path = file(&system, folder).inspect_err(|error| complaints.push(format!("ledger: {error}"))).ok();
        let ledger = path
            .as_deref()
            .and_then(|path| Ledger::open(path).inspect_err(|error| complaints.push(format!("ledger: {error}"))).ok());
        if ledger.is_none() {
            // Without a memory nothing is injected.
            system.limits.faults.clear();
        }
        complaints.iter().for_each(|complaint| tracing::warn!("{complaint}"));
        let mark = path.as_deref().map(HaltMark::beside);
        let sockets = Proxy::bind(listeners(&mut system, folder)).await?;
        Self::assemble(system, folder, sockets, ledger.map(Arc::new), mark, false, complaints)
    }

    /// For `demo`: listeners that are bound already.
    pub fn on(system: System, folder: &Path, sockets: Vec<(ListenerConfig, TcpListener)>) -> Result<Self, AppError> {
        descriptors();
        let path = file(&system, folder)?;
        let ledger = Arc::new(Ledger::open(&path)?);
        Self::assemble(system, folder, sockets, Some(ledger), Some(HaltMark::beside(&path)), true, Vec::new())
    }

    fn assemble(
        mut system: System,
        folder: &Path,
        sockets: Vec<(ListenerConfig, TcpListener)>,
        ledger: Option<Arc<Ledger>>,
        mark: Option<HaltMark>,
        all_faults: bool,
        complaints: Vec<String>,
    ) -> Result<Self, AppError> {
        if all_faults {
            system.limits = system.limits.with_every_fault();
        }
        let proxy = Arc::new(Proxy::serve(sockets, system.workers)?);
        let lab = Lab {
            proxy: proxy.clone(),
            limits: Arc::new(system.limits),
            ledger: ledger.clone(),
            system: Some(system.name),
        };
        let control = Control::new(lab, mark);
        Ok(Self { proxy, control, ledger, reports: under(folder, &system.reports), complaints })
    }

    /// Opens the operator's door and the window for telemetry, where the system has them.
    pub async fn open_doors(&self, system: &System, folder: &Path) -> Result<Option<admin::Doors>, AppError> {
        let Some(config) = &system.admin else {
            if let Some(address) = system.telemetry {
                let socket = listen("telemetry", address).await?;
                return Ok(Some(admin::open(self.admin(Token::none()), None, Some(socket))));
            }
            return Ok(None);
        };
        let token = match &config.token_file {
            Some(path) => Token::read(&folder.join(path)),
            None => file(system, folder).map_err(io::Error::other).and_then(|ledger| Token::beside(&ledger)),
        };
        let token = token.unwrap_or_else(|error| {
            tracing::error!(%error, "no token can be had, so no change is taken over the API");
            Token::none()
        });
        let door = listen("admin", config.bind).await?;
        let window = match system.telemetry {
            Some(address) => Some(listen("telemetry", address).await?),
            None => None,
        };
        Ok(Some(admin::open(self.admin(token), Some(door), window)))
    }

    fn admin(&self, token: Token) -> Admin {
        Admin {
            control: self.control.clone(),
            ledger: self.ledger.clone(),
            reports: self.reports.clone(),
            complaints: self.complaints.clone(),
            token,
            draining: tokio_util::sync::CancellationToken::new(),
        }
    }

    /// Ends in good order: faults off first, then the requests under way; runs that were stopped write their reports.
    pub async fn drain(&self) {
        // Whoever was held is let go while all listeners still take the calls that this leads to. Nothing more can be done
        // about a run that is not over by then: the ledger will call it interrupted.
        let _ = tokio::time::timeout(RUNS_END, self.control.over_all()).await;
        self.proxy.drain(GRACE).await;
    }
}

async fn listen(what: &'static str, address: std::net::SocketAddr) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|cause| AppError::Admin { what, address, cause })
}

/// A path that belongs to a folder, without the dots that nobody wants to read.
fn under(folder: &Path, path: &Path) -> PathBuf {
    folder.join(path).components().filter(|part| *part != std::path::Component::CurDir).collect()
}

/// The listeners, with the files that they name where the system file means them.
fn listeners(system: &mut System, folder: &Path) -> Vec<ListenerConfig> {
    std::mem::take(&mut system.listeners).into_iter().map(|listener| listener.within(folder)).collect()
}

/// The ledger's file.
fn file(system: &System, folder: &Path) -> Result<PathBuf, AppError> {
    match &system.ledger {
        LedgerConfig::File(path) => Ok(under(folder, path)),
        LedgerConfig::Remote { .. } => Err(AppError::NotYet(
            "a ledger at another Pratfall is read but not used by this version; name a file".into(),
        )),
    }
}

/// What the listeners ask for and this version does not do. Nothing is ignored.
fn unserved(system: &System) -> Vec<String> {
    let mut later = Vec::new();
    for listener in &system.listeners {
        let mut refuse = |found: bool, what: &str, way_out: &str| {
            if found {
                let name = &listener.name;
                later.push(format!("listener `{name}`: {what} is read but not served by this version; {way_out}"));
            }
        };
        refuse(listener.mode == Mode::Forward, "`mode: forward`", "leave it out");
    }
    later
}

/// Asks for as many file descriptors as the system gives. Too few are noticed when they run out.
fn descriptors() {
    if let Err(error) = rlimit::increase_nofile_limit(DESCRIPTORS) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}
