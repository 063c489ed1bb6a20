//! From a system file to something that serves: the only place that knows all rooms.

mod pages;
mod reload;
mod source;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;

pub use self::reload::Reloading;
pub use self::source::Source;
use crate::admin::{self, Admin, Standing, Token};
use crate::config::{Drain, LedgerConfig, System};
use crate::document::Problems;
use crate::experiment::limits::Limits;
use crate::lab::{Control, Lab};
use crate::ledger::Ledger;
use crate::ledger::halt::HaltMark;
use crate::proxy::config::Mode;
use crate::proxy::{ListenerConfig, Proxy, ProxyError};

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
    /// The system file cannot be read.
    #[error("system file {}: {cause}; name the system file with --config", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// The system file has mistakes.
    #[error("{0}")]
    Wrong(Problems),
    /// A listener cannot be had.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The ledger cannot be had, and a run must not begin without.
    #[error(transparent)]
    Ledger(#[from] crate::ledger::LedgerError),
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
    /// What is wrong outside the listeners, and how reloads went.
    pub standing: Arc<Standing>,
    ending: Arc<Mutex<Drain>>,
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
        let sockets = Proxy::bind(listeners(&system, folder)).await?;
        system.limits = system.limits.with_every_fault();
        Self::assemble(system, folder, sockets, Some(ledger), Some(HaltMark::beside(&path)), Arc::default())
    }

    /// For `serve`: whatever is wrong outside the listeners disarms and is said, and the traffic flows. With it come the
    /// operator's doors, where they could be opened, and whoever looks after the system file.
    pub async fn serve(source: Source) -> Result<(Self, Option<admin::Doors>, Reloading), AppError> {
        descriptors();
        let seen = source.fingerprints(&[]);
        let (system, problems) = source.read_listeners()?;
        let later = unserved(&system);
        if !later.is_empty() {
            return Err(AppError::NotYet(later.join("\n")));
        }
        let folder = source.folder();
        let sockets = Proxy::bind(listeners(&system, &folder)).await?;
        let standing = Arc::new(Standing::default());
        let mut complaints: Vec<String> = problems.errors().map(crate::document::Problem::line).collect();
        let sound = complaints.is_empty();
        complaints.extend(unserved_elsewhere(&system));
        standing.say_of_the_file(complaints, sound);
        let path = match problems.errors().find(|problem| problem.is_about("ledger")) {
            // What it says is in the complaints above.
            Some(_) => Err("ledger: it is not known where; restart once the system file is right".to_owned()),
            None => file(&system, &folder).map_err(|error| format!("ledger: {error}")),
        };
        let opened = path
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|path| Ledger::open(path).map_err(|error| format!("ledger: {error}")))
            .and_then(|ledger| ledger.try_out().map(|()| ledger).map_err(|error| format!("ledger: {error}")));
        let ledger = opened.map_err(|why| standing.complain(why)).ok();
        let mark = path.ok().as_deref().map(HaltMark::beside);
        let app = Self::assemble(system.clone(), &folder, sockets, ledger.map(Arc::new), mark, standing)?;
        let doors = app.open_doors(&system, &folder).await;
        app.disarm_if_it_must_be();
        let reloading = Reloading::begin(&app, source, system, seen);
        pages::give_back();
        Ok((app, doors, reloading))
    }

    /// For `demo`: listeners that are bound already.
    pub fn on(
        mut system: System,
        folder: &Path,
        sockets: Vec<(ListenerConfig, TcpListener)>,
    ) -> Result<Self, AppError> {
        descriptors();
        let path = file(&system, folder)?;
        let ledger = Arc::new(Ledger::open(&path)?);
        system.limits = system.limits.with_every_fault();
        Self::assemble(system, folder, sockets, Some(ledger), Some(HaltMark::beside(&path)), Arc::default())
    }

    fn assemble(
        system: System,
        folder: &Path,
        sockets: Vec<(ListenerConfig, TcpListener)>,
        ledger: Option<Arc<Ledger>>,
        mark: Option<HaltMark>,
        standing: Arc<Standing>,
    ) -> Result<Self, AppError> {
        let proxy = Arc::new(Proxy::serve(sockets, system.workers)?);
        proxy.log_requests(system.access_log.map(|log| log.sample));
        let lab = Lab {
            proxy: proxy.clone(),
            limits: Arc::new(system.limits),
            ledger: ledger.clone(),
            system: Some(system.name),
        };
        let control = Control::new(lab, mark);
        let ending = Arc::new(Mutex::new(system.drain));
        Ok(Self { proxy, control, ledger, reports: under(folder, &system.reports), standing, ending })
    }

    /// Opens the operator's door and the window for telemetry, where the system has them and they can be had.
    async fn open_doors(&self, system: &System, folder: &Path) -> Option<admin::Doors> {
        let door = self.listen("admin", system.admin.as_ref().map(|admin| admin.bind)).await;
        let window = self.listen("telemetry", system.telemetry).await;
        if door.is_none() && window.is_none() {
            return None;
        }
        let token = match &system.admin {
            None => Ok(Token::none()),
            Some(config) => match &config.token_file {
                Some(path) => Token::read(&folder.join(path)),
                None => file(system, folder).map_err(io::Error::other).and_then(|ledger| Token::beside(&ledger)),
            },
        };
        let token = token.unwrap_or_else(|error| {
            self.standing.complain(format!("admin: no token can be had, so no change is taken over the API: {error}"));
            Token::none()
        });
        Some(admin::open(self.admin(token), door, window))
    }

    async fn listen(&self, what: &str, address: Option<std::net::SocketAddr>) -> Option<TcpListener> {
        let address = address?;
        let bound = TcpListener::bind(address).await;
        let bound =
            bound.map_err(|cause| self.standing.complain(format!("{what}: cannot listen on {address}: {cause}")));
        let socket = bound.ok()?;
        tracing::info!("{what} on http://{}", socket.local_addr().unwrap_or(address));
        Some(socket)
    }

    /// Nothing is injected by a process that is not all there: without a memory, or without a way to stop it.
    fn disarm_if_it_must_be(&self) {
        let lab = self.control.lab();
        if self.standing.is_disarmed() && lab.limits.armed() {
            let limits = Limits { faults: Vec::new(), ..Limits::clone(&lab.limits) };
            self.control.reload(limits, lab.system.clone(), &[]);
        }
    }

    fn admin(&self, token: Token) -> Admin {
        Admin {
            control: self.control.clone(),
            ledger: self.ledger.clone(),
            reports: self.reports.clone(),
            standing: self.standing.clone(),
            token,
            draining: tokio_util::sync::CancellationToken::new(),
        }
    }

    /// Ends in good order: faults off first, then the requests under way; runs that were stopped write their reports.
    pub async fn drain(&self) {
        // Whoever was held is let go while all listeners still take the calls that this leads to. Nothing more can be done
        // about a run that is not over by then: the ledger will call it interrupted.
        let _ = tokio::time::timeout(RUNS_END, self.control.over_all()).await;
        let grace = self.ending().grace.get();
        self.proxy.drain(grace).await;
    }

    /// Serves on for a while, until those who balance the load have seen that this process is not ready any more; then
    /// ends as [`App::drain`] does.
    pub async fn take_leave(&self) {
        let delay = self.ending().delay.get();
        self.proxy.take_leave();
        tokio::time::sleep(delay).await;
        self.drain().await;
    }

    fn ending(&self) -> MutexGuard<'_, Drain> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The folder of a file, that its relative paths belong to.
pub fn folder(file: &Path) -> PathBuf {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new(".")).to_owned()
}

/// A path that belongs to a folder, without the dots that nobody wants to read.
pub fn under(folder: &Path, path: &Path) -> PathBuf {
    folder.join(path).components().filter(|part| *part != std::path::Component::CurDir).collect()
}

/// The listeners, with the files that they name where the system file means them.
fn listeners(system: &System, folder: &Path) -> Vec<ListenerConfig> {
    system.listeners.iter().cloned().map(|listener| listener.within(folder)).collect()
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

/// What the rest of the file asks for and this version does not do; it disarms nobody.
fn unserved_elsewhere(system: &System) -> Vec<String> {
    let mut later = Vec::new();
    if !system.notify.is_empty() {
        later.push("notify: nobody is told by this version".to_owned());
    }
    if !system.start.is_empty() {
        later.push("start: a serving proxy starts nothing".to_owned());
    }
    later
}

/// Asks for as many file descriptors as the system gives. Too few are noticed when they run out.
fn descriptors() {
    if let Err(error) = rlimit::increase_nofile_limit(DESCRIPTORS) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}
