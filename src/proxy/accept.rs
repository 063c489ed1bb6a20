//! A listener's door: its socket, who accepts there, and how many may come in.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::listen::Listener;
use super::worker::{Command, Handle};

/// How long the acceptor rests when nothing can be taken in: short beside a caller's patience, long beside a loop.
const REST: Duration = Duration::from_millis(50);

/// How often the same complaint is repeated, at most.
const REPEAT: Duration = Duration::from_secs(10);

/// Descriptors that are kept for everything that is not a caller: ledger, logs, listeners, the doors of the control plane.
const RESERVE: u64 = 128;

/// A socket with its listener.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) listener: Arc<Listener>,
    /// The address that it really has.
    pub(super) address: SocketAddr,
    /// For whoever listens there next, so that no caller is lost in between; the acceptor holds it open.
    pub(super) socket: Weak<TcpListener>,
    closed: CancellationToken,
}

impl Door {
    /// Accepts from now on.
    pub(super) fn open(
        listener: Arc<Listener>,
        socket: Arc<TcpListener>,
        workers: Arc<Vec<Handle>>,
        room: Arc<Room>,
    ) -> Arc<Self> {
        let address = socket.local_addr().unwrap_or(listener.setup().config.bind);
        let closed = CancellationToken::new();
        let door = Arc::new(Self { listener, address, socket: Arc::downgrade(&socket), closed });
        tokio::spawn(accept(door.listener.clone(), socket, workers, room, door.closed.clone()));
        door
    }

    /// For tests: nobody comes in by it.
    pub(super) fn without_socket(listener: Arc<Listener>) -> Arc<Self> {
        let address = listener.setup().config.bind;
        Arc::new(Self { listener, address, socket: Weak::new(), closed: CancellationToken::new() })
    }

    /// Stops accepting.
    pub(super) fn accept_no_more(&self) {
        self.closed.cancel();
    }

    /// Stops accepting, and has its connections end when their requests are done.
    pub(super) fn close(&self) {
        self.accept_no_more();
        self.listener.drain.cancel();
    }

    /// Waits until its connections are over.
    pub(super) async fn empty(&self, deadline: Instant) {
        while self.listener.open.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// How many connections the process has descriptors for.
#[derive(Debug)]
pub(super) struct Room {
    all: usize,
    share: AtomicUsize,
}

impl Room {
    /// What the process is allowed at this moment. Each connection needs a second descriptor for its upstream.
    pub(super) fn of_process() -> Arc<Self> {
        let limit = rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(u64::MAX, |(soft, _)| soft);
        let all = usize::try_from((limit - RESERVE.min(limit / 3)) / 2).unwrap_or(usize::MAX).max(1);
        Arc::new(Self { all, share: AtomicUsize::new(all) })
    }

    /// Divides it among so many listeners. Otherwise the callers of one could fill it while the calls that their own
    /// requests lead to wait before another.
    pub(super) fn share(&self, listeners: usize) {
        self.share.store((self.all / listeners.max(1)).max(1), Ordering::Relaxed);
    }

    fn is_there(&self, listener: &Listener) -> bool {
        listener.open.load(Ordering::Relaxed) < self.share.load(Ordering::Relaxed)
    }
}

/// A complaint that is written down seldom, with the number of those that were not.
#[derive(Debug, Default)]
struct Seldom {
    last: Option<Instant>,
    kept_back: u64,
}

impl Seldom {
    /// Whether it is time to write, and how many were kept back since.
    fn is_due(&mut self) -> Option<u64> {
        if self.last.is_some_and(|last| last.elapsed() < REPEAT) {
            self.kept_back += 1;
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.kept_back))
    }
}

async fn accept(
    listener: Arc<Listener>,
    socket: Arc<TcpListener>,
    workers: Arc<Vec<Handle>>,
    room: Arc<Room>,
    closed: CancellationToken,
) {
    let (mut full, mut many, mut failing) = (Seldom::default(), Seldom::default(), Seldom::default());
    let name = listener.name.as_str();
    loop {
        if !room.is_there(&listener) {
            if let Some(kept_back) = full.is_due() {
                let why = "too few file descriptors: callers wait until others leave";
                tracing::warn!(listener = name, kept_back, "{why}");
            }
            tokio::select! {
                () = sleep(REST) => continue,
                () = closed.cancelled() => return,
            }
        }
        let accepted = tokio::select! {
            biased;
            () = closed.cancelled() => return,
            accepted = socket.accept() => accepted,
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
                    if let Some(kept_back) = many.is_due() {
                        let why = "a connection was closed at once: `bounds.connections` are open";
                        tracing::warn!(listener = name, kept_back, "{why}");
                    }
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
                if let Some(kept_back) = failing.is_due() {
                    tracing::warn!(listener = name, %error, kept_back, "cannot accept a connection");
                }
                tokio::select! {
                    () = sleep(REST) => {}
                    () = closed.cancelled() => return,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_complaint_is_written_seldom_and_says_how_often_it_was_not() {
        let mut seldom = Seldom::default();
        assert_eq!(seldom.is_due(), Some(0), "the first at once");
        assert_eq!((0..7).filter_map(|_| seldom.is_due()).count(), 0);
        sleep(REPEAT).await;
        assert_eq!((seldom.is_due(), seldom.is_due()), (Some(7), None));
    }
}
