//! One worker: a thread with a runtime, connections and upstream pools of its own. Nothing in it is shared or locked.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{io, thread};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;

use super::listen::{Listener, serve};
use super::trial::Trial;
use super::upstream::Upstreams;
use crate::measure::Recorder;

/// How often a worker hands over what it recorded: often enough that BROKEN is seen at once, rare beside requests.
const FLUSH: Duration = Duration::from_millis(50);

/// What the control plane tells a worker.
#[derive(Debug)]
pub(super) enum Command {
    /// Serve a connection.
    Serve(Arc<Listener>, std::net::TcpStream, SocketAddr),
    /// Record a run, and say so even if nothing happens.
    Watch(Arc<Trial>),
}

/// The control plane's end of a worker.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) commands: UnboundedSender<Command>,
    pub(super) connections: Arc<AtomicUsize>,
}

/// What the requests of one worker share.
#[derive(Debug)]
pub struct Worker {
    pub(super) index: usize,
    pub(super) upstreams: Upstreams,
    recorders: RefCell<Vec<(Arc<Trial>, Rc<Recorder>)>>,
    operations: Cell<u32>,
}

impl Worker {
    /// A worker without a thread, for whoever has one already.
    pub fn new(index: usize) -> Rc<Self> {
        Rc::new(Self {
            index,
            upstreams: Upstreams::default(),
            recorders: RefCell::default(),
            operations: Cell::new(0),
        })
    }

    /// Starts the thread of a worker. It ends when its handle is gone, and its connections end with it: drain first.
    pub(super) fn start(index: usize) -> io::Result<Handle> {
        let (commands, inbox) = unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            LocalSet::new().block_on(&runtime, Self::new(index).run(inbox, counter));
        })?;
        Ok(Handle { commands, connections })
    }

    /// Lets a worker without a thread do its work in the `LocalSet` that this is called in.
    pub(super) fn here(self: &Rc<Self>) -> Handle {
        let (commands, inbox) = unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        tokio::task::spawn_local(self.clone().run(inbox, connections.clone()));
        Handle { commands, connections }
    }

    async fn run(self: Rc<Self>, mut inbox: UnboundedReceiver<Command>, connections: Arc<AtomicUsize>) {
        while let Some(command) = inbox.recv().await {
            match command {
                Command::Serve(listener, stream, peer) => {
                    let counted = Counted::new(connections.clone());
                    tokio::task::spawn_local(serve(self.clone(), listener, stream, peer, counted));
                }
                Command::Watch(trial) => {
                    let worker = self.clone();
                    // A task of its own: a panic in a run's code must not be this thread's end.
                    tokio::task::spawn_local(async move { drop(worker.recorder(&trial)) });
                }
            }
        }
    }

    /// This worker's record of a run; made, and flushed from then on, when it is first asked for.
    pub fn recorder(self: &Rc<Self>, trial: &Arc<Trial>) -> Rc<Recorder> {
        let known = self.recorders.borrow().iter().find(|(known, _)| Arc::ptr_eq(known, trial)).map(|(_, r)| r.clone());
        if let Some(recorder) = known {
            return recorder;
        }
        let recorder = trial.recorder(self.index);
        self.recorders.borrow_mut().push((trial.clone(), recorder.clone()));
        let (worker, trial, flushed) = (self.clone(), trial.clone(), recorder.clone());
        tokio::task::spawn_local(async move {
            while flushed.flush() {
                tokio::time::sleep(FLUSH).await;
            }
            worker.recorders.borrow_mut().retain(|(known, _)| !Arc::ptr_eq(known, &trial));
        });
        recorder
    }

    /// A number that no other operation of this worker has had for a billion operations.
    pub(super) fn next_operation(&self) -> u32 {
        let next = self.operations.get();
        self.operations.set(next.wrapping_add(1) & 0x3fff_ffff);
        next
    }
}

/// One connection in a worker's count, for as long as it lives.
#[derive(Debug)]
pub(super) struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: Arc<AtomicUsize>) -> Self {
        // The acceptor counted it already when it chose this worker.
        Self(count)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs hyper's background tasks on the worker's own thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalExec;

impl<F> hyper::rt::Executor<F> for LocalExec
where
    F: Future<Output: 'static> + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
