//! The data plane: from an accepted connection to a recorded answer.
//!
//! One acceptor a listener hands sockets to the worker with the fewest connections; a worker is a thread of its own. The
//! path of a request: `serve` → `answer` → *(only while a run is live)* [`trial`] → `route` → `hop` → `upstream` → `connect`.

mod accept;
mod access;
mod again;
mod answer;
pub mod brought;
mod budget;
mod carry;
pub mod check;
mod compare;
pub mod config;
mod connect;
pub mod context;
mod exchange;
mod fail_open;
mod greet;
pub mod head;
pub mod hop;
mod idle;
mod injecting;
mod interim;
mod key;
pub mod listen;
mod meet;
mod observe;
mod outgoing;
pub mod pass;
mod peer;
mod reload;
mod reply;
pub mod rest;
mod route;
mod serve;
mod sight;
mod site;
mod tls;
mod torn;
mod treated;
pub mod trial;
mod tunnel;
mod upload;
mod upstream;
mod wait;
mod watchdog;
mod wire;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::accept::{Door, Room};

pub use self::config::ListenerConfig;
pub use self::connect::reach;
pub use self::listen::{Listener, Setup, Totals};
pub use self::reload::Prepared;
pub use self::tls::TlsError;
pub use self::trial::{Enrolled, Injection, Terms, Trial};
pub use self::wire::Socket;
pub use self::worker::Worker;
use self::worker::{Command, Handle};
use crate::units::Percent;

/// Why the proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// A listener's address cannot be had.
    #[error("listener `{listener}` cannot listen on {address}: {cause}")]
    Bind {
        /// Which listener.
        listener: String,
        /// Where.
        address: SocketAddr,
        /// Why not.
        cause: io::Error,
    },
    /// A listener's certificates cannot be used.
    #[error("listener `{listener}`: {cause}")]
    Tls {
        /// Which listener.
        listener: String,
        /// Why not.
        cause: TlsError,
    },
    /// A worker cannot be started.
    #[error("a worker thread cannot be started: {0}")]
    Worker(io::Error),
}

/// A proxy that serves.
#[derive(Debug)]
pub struct Proxy {
    /// The listeners that are open, in the order of the system file.
    doors: Mutex<Vec<Arc<Door>>>,
    /// All listeners that there ever were, by their places: a run keeps its own although a reload closes it.
    ever: trial::Everywhere,
    workers: Arc<Vec<Handle>>,
    room: Arc<Room>,
    log: Arc<access::Log>,
}

impl Proxy {
    /// Binds all listeners, then serves them with so many workers. Nothing is served when one cannot be bound.
    pub async fn start(configs: Vec<ListenerConfig>, workers: usize) -> Result<Self, ProxyError> {
        Self::serve(Self::bind(configs).await?, workers)
    }

    /// Binds all listeners, or none.
    pub async fn bind(configs: Vec<ListenerConfig>) -> Result<Vec<(ListenerConfig, TcpListener)>, ProxyError> {
        let mut sockets = Vec::new();
        for config in configs {
            let socket = bind(&config).await?;
            sockets.push((config, socket));
        }
        Ok(sockets)
    }

    /// Serves listeners that are bound already.
    pub fn serve(sockets: Vec<(ListenerConfig, TcpListener)>, workers: usize) -> Result<Self, ProxyError> {
        let workers = (0..workers.max(1)).map(Worker::start).collect::<io::Result<Vec<_>>>();
        let workers = Arc::new(workers.map_err(ProxyError::Worker)?);
        let proxy = Self::of(workers);
        let mut read = Vec::new();
        for (config, socket) in sockets {
            read.push((setup(config)?, socket));
        }
        let doors = read.into_iter().map(|(setup, socket)| proxy.open(setup, Arc::new(socket))).collect();
        proxy.stand(doors);
        Ok(proxy)
    }

    /// A proxy without sockets and threads, for tests and simulations: whoever has requests takes them through
    /// [`pass::pass`] with the one worker that records, in the `LocalSet` that this is called in.
    pub fn in_memory(configs: Vec<ListenerConfig>, worker: &Rc<Worker>) -> Self {
        let workers = Arc::new(vec![worker.here()]);
        let proxy = Self::of(workers);
        let doors = configs.into_iter().map(|config| {
            let setup = Setup::read(config).expect("a listener in memory has no certificates");
            Door::without_socket(proxy.listener(setup))
        });
        let doors = doors.collect();
        proxy.stand(doors);
        proxy
    }

    fn of(workers: Arc<Vec<Handle>>) -> Self {
        let (doors, ever, log) = (Mutex::default(), Arc::default(), Arc::default());
        Self { doors, ever, workers, room: Room::of_process(), log }
    }

    /// A listener with a place that no other ever had.
    fn listener(&self, setup: Arc<Setup>) -> Arc<Listener> {
        let mut ever = trial::lock(&self.ever);
        let listener =
            Listener::with_log(ever.len(), setup, self.workers.len(), CancellationToken::new(), self.log.clone());
        if let Some(other) = ever.first() {
            listener.learn_runs_of(other);
        }
        ever.push(listener.clone());
        listener
    }

    /// A listener on a socket; it accepts from now on.
    fn open(&self, setup: Arc<Setup>, socket: Arc<TcpListener>) -> Arc<Door> {
        Door::open(self.listener(setup), socket, self.workers.clone(), self.room.clone())
    }

    /// From now on these are the listeners that are open.
    fn stand(&self, doors: Vec<Arc<Door>>) {
        self.room.share(doors.len());
        *self.doors() = doors;
    }

    fn doors(&self) -> MutexGuard<'_, Vec<Arc<Door>>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All listeners that are open, in the order of the system file.
    pub fn listeners(&self) -> Vec<Arc<Listener>> {
        self.doors().iter().map(|door| door.listener.clone()).collect()
    }

    /// The listener at a place that [`Proxy::find`] told; a listener that a reload has closed keeps its place.
    pub fn at(&self, index: usize) -> Arc<Listener> {
        trial::lock(&self.ever)[index].clone()
    }

    /// A listener by its name, with its place and the address that it really has.
    pub fn find(&self, name: &str) -> Option<(usize, SocketAddr)> {
        let doors = self.doors();
        let door = doors.iter().find(|door| door.listener.name == name)?;
        Some((door.listener.index, door.address))
    }

    /// Has a listener go by another setup from the next request on; its connections stay.
    pub fn renew(&self, listener: &Arc<Listener>, setup: Arc<Setup>) {
        listener.tell(setup);
        for worker in self.workers.iter() {
            // A worker that is gone serves nothing any more.
            let _ = worker.commands.send(Command::Renew(listener.clone()));
        }
    }

    /// Writes a share of all requests to the log, from now on; none where there is none.
    pub fn log_requests(&self, share: Option<Percent>) {
        if let Err(error) = self.log.sample(share) {
            tracing::error!(%error, "requests are not logged");
        }
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Connections that are open at this moment.
    pub fn connections(&self) -> usize {
        self.workers.iter().map(|worker| worker.connections.load(Ordering::Relaxed)).sum()
    }

    /// Enrolls a run at all listeners, those that come later included, and has all workers record it.
    pub fn enroll(&self, trial: &Arc<Trial>) -> Enrolled {
        for worker in self.workers.iter() {
            // A worker that is gone records nothing any more; the run ends for want of traffic.
            let _ = worker.commands.send(Command::Watch(trial.clone()));
        }
        Enrolled::everywhere(&self.ever, trial.clone())
    }

    /// The process will end soon: everything is served as before, but callers on HTTP/1 are told to come back on
    /// another connection, which whoever balances the load will give to somebody else.
    pub fn take_leave(&self) {
        self.listeners().iter().for_each(|listener| listener.leaving.store(true, Ordering::Relaxed));
    }

    /// Stops accepting, lets requests finish, and waits for the connections to be over, but not longer than `grace`.
    ///
    /// One listener after the other, in the order of the system file: whoever stands behind the first must still reach
    /// the second for the requests that are under way.
    pub async fn drain(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.take_leave();
        let doors = self.doors().clone();
        for door in &doors {
            door.close();
            door.empty(deadline).await;
        }
        // Those that a reload closed.
        while self.connections() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.doors().iter().for_each(|door| door.close());
    }
}

async fn bind(config: &ListenerConfig) -> Result<TcpListener, ProxyError> {
    let taken = |cause| ProxyError::Bind { listener: config.name.clone(), address: config.bind, cause };
    TcpListener::bind(config.bind).await.map_err(taken)
}

fn setup(config: ListenerConfig) -> Result<Arc<Setup>, ProxyError> {
    let listener = config.name.clone();
    Setup::read(config).map_err(|cause| ProxyError::Tls { listener, cause })
}
