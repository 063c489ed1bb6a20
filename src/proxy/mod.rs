//! The data plane: from an accepted connection to a recorded answer.
//!
//! One acceptor a listener hands sockets to the worker with the fewest connections; a worker is a thread of its own. The
//! path of a request: [`listen`] → `route` → *(only while a run is live)* [`trial`] → `hop` → `upstream`.

pub mod check;
pub mod config;
pub mod context;
pub mod hop;
pub mod listen;
mod meet;
mod observe;
mod route;
pub mod trial;
mod upstream;
mod wire;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::config::ListenerConfig;
pub use self::listen::Listener;
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
            let listener = Listener::new(index, config, drain.clone());
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
        let listeners =
            configs.into_iter().enumerate().map(|(index, config)| Listener::new(index, config, drain.clone()));
        Self { listeners: listeners.collect(), addresses, workers: Arc::new(vec![worker.here()]), drain, closed }
    }

    /// All listeners, in the order of the system file.
    pub fn listeners(&self) -> &[Arc<Listener>] {
        &self.listeners
    }

    /// A listener by its name, with its place and the address that it really has.
    pub fn find(&self, name: &str) -> Option<(usize, SocketAddr)> {
        let index = self.listeners.iter().position(|listener| listener.config.name == name)?;
        Some((index, self.addresses[index]))
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
                worker.connections.fetch_add(1, Ordering::Relaxed);
                listener.stats.accepted.fetch_add(1, Ordering::Relaxed);
                if worker.commands.send(Command::Serve(listener.clone(), stream, peer)).is_err() {
                    uncount(&worker.connections);
                }
            }
            // Out of file descriptors, or a caller that was gone at once: neither may spin or end the listener.
            Err(error) => {
                tracing::warn!(listener = listener.config.name, %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn uncount(connections: &AtomicUsize) {
    connections.fetch_sub(1, Ordering::Relaxed);
}
