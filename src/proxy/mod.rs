//! The data plane: from an accepted connection to a recorded answer.
//!
//! One acceptor a listener hands sockets to the worker with the fewest connections; a worker is a thread of its own. The
//! path of a request: `serve` → `answer` → *(only while a run is live)* [`trial`] → `route` → `hop` → `upstream` → `connect`.

mod again;
mod answer;
pub mod check;
pub mod config;
mod connect;
pub mod context;
mod hop;
mod interim;
pub mod listen;
mod meet;
mod observe;
mod peer;
mod route;
mod serve;
mod site;
mod tls;
pub mod trial;
mod tunnel;
mod upstream;
mod wait;
mod wire;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::config::ListenerConfig;
pub use self::connect::reach;
pub use self::listen::{Listener, Setup, Totals};
pub use self::tls::TlsError;
pub use self::trial::{Enrolled, Injection, Terms, Trial};
pub use self::wire::Socket;
pub use self::worker::Worker;
use self::worker::{Command, Handle};

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
    listeners: Vec<Arc<Listener>>,
    addresses: Vec<SocketAddr>,
    workers: Arc<Vec<Handle>>,
    drain: CancellationToken,
    closed: CancellationToken,
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
            match TcpListener::bind(config.bind).await {
                Ok(socket) => sockets.push((config, socket)),
                Err(cause) => {
                    return Err(ProxyError::Bind { listener: config.name, address: config.bind, cause });
                }
            }
        }
        Ok(sockets)
    }

    /// Serves listeners that are bound already.
    pub fn serve(sockets: Vec<(ListenerConfig, TcpListener)>, workers: usize) -> Result<Self, ProxyError> {
        let (drain, closed) = (CancellationToken::new(), CancellationToken::new());
        let workers = (0..workers.max(1)).map(Worker::start).collect::<io::Result<Vec<_>>>();
        let workers = Arc::new(workers.map_err(ProxyError::Worker)?);
        let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
        for (index, (config, socket)) in sockets.into_iter().enumerate() {
            let address = socket.local_addr().unwrap_or(config.bind);
            let name = config.name.clone();
            let setup = Setup::read(config).map_err(|cause| ProxyError::Tls { listener: name, cause })?;
            let listener = Listener::new(index, setup, workers.len(), drain.clone());
            tokio::spawn(accept(listener.clone(), socket, workers.clone(), closed.clone()));
            listeners.push(listener);
            addresses.push(address);
        }
        Ok(Self { listeners, addresses, workers, drain, closed })
    }

    /// A proxy without sockets and threads, for tests and simulations: whoever has requests takes them through
    /// [`trial::pass`] with the one worker that records, in the `LocalSet` that this is called in.
    pub fn in_memory(configs: Vec<ListenerConfig>, worker: &Rc<Worker>) -> Self {
        let (drain, closed) = (CancellationToken::new(), CancellationToken::new());
        let addresses = configs.iter().map(|config| config.bind).collect();
        let listeners = configs.into_iter().enumerate().map(|(index, config)| {
            let setup = Setup::read(config).expect("a listener in memory has no certificates");
            Listener::new(index, setup, 1, drain.clone())
        });
        Self { listeners: listeners.collect(), addresses, workers: Arc::new(vec![worker.here()]), drain, closed }
    }

    /// All listeners, in the order of the system file.
    pub fn listeners(&self) -> &[Arc<Listener>] {
        &self.listeners
    }

    /// The listener at a place that [`Proxy::find`] told.
    pub fn at(&self, index: usize) -> &Arc<Listener> {
        &self.listeners[index]
    }

    /// A listener by its name, with its place and the address that it really has.
    pub fn find(&self, name: &str) -> Option<(usize, SocketAddr)> {
        let index = self.listeners.iter().position(|listener| listener.name == name)?;
        Some((index, self.addresses[index]))
    }

    /// Has a listener go by another setup from the next request on; its connections stay.
    pub fn renew(&self, listener: &Arc<Listener>, setup: Arc<Setup>) {
        listener.tell(setup);
        for worker in self.workers.iter() {
            // A worker that is gone serves nothing any more.
            let _ = worker.commands.send(Command::Renew(listener.clone()));
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

    /// Enrolls a run at all listeners, and has all workers record it.
    pub fn enroll(&self, trial: &Arc<Trial>) -> Enrolled {
        for worker in self.workers.iter() {
            // A worker that is gone records nothing any more; the run ends for want of traffic.
            let _ = worker.commands.send(Command::Watch(trial.clone()));
        }
        Enrolled::new(&self.listeners, trial.clone())
    }

    /// Stops accepting, lets requests finish, and waits for the connections to be over, but not longer than `grace`.
    pub async fn drain(&self, grace: Duration) {
        self.closed.cancel();
        self.drain.cancel();
        let over = async {
            while self.connections() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(grace, over).await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.closed.cancel();
        self.drain.cancel();
    }
}

async fn accept(listener: Arc<Listener>, socket: TcpListener, workers: Arc<Vec<Handle>>, closed: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = closed.cancelled() => return,
        };
        match accepted.and_then(|(stream, peer)| {
            stream.set_nodelay(true)?;
            Ok((stream.into_std()?, peer))
        }) {
            Ok((stream, peer)) => {
                let load = |worker: &&Handle| worker.connections.load(Ordering::Relaxed);
                let worker = workers.iter().min_by_key(load).expect("there is at least one worker");
                listener.accepted.fetch_add(1, Ordering::Relaxed);
                let most = listener.setup().config.bounds.connections as usize;
                if listener.open.load(Ordering::Relaxed) >= most {
                    // Closed at once: an answer would cost what we do not have.
                    listener.shed.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                worker.connections.fetch_add(1, Ordering::Relaxed);
                listener.open.fetch_add(1, Ordering::Relaxed);
                if worker.commands.send(Command::Serve(listener.clone(), stream, peer)).is_err() {
                    worker.connections.fetch_sub(1, Ordering::Relaxed);
                    listener.open.fetch_sub(1, Ordering::Relaxed);
                }
            }
            // Out of file descriptors, or a caller that was gone at once: neither may spin or end the listener.
            Err(error) => {
                tracing::warn!(listener = listener.name, %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
