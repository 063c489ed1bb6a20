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

use super::listen::Listener;
use super::serve::serve;
use super::site::Site;
use super::trial::Trial;
use super::upstream::{SWEEP, Upstreams};
use super::watchdog::Watchdog;
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
    /// A listener has been told something else.
    Renew(Arc<Listener>),
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
    pub(super) watchdog: Rc<Watchdog>,
    upstreams: Upstreams,
    sites: RefCell<Vec<Rc<Site>>>,
    recorders: RefCell<Vec<(Arc<Trial>, Rc<Recorder>)>>,
    operations: Cell<u32>,
}

impl Worker {
    /// A worker without a thread, for whoever has one already, in the `LocalSet` that this is called in.
    pub fn new(index: usize) -> Rc<Self> {
        let watchdog = Watchdog::start();
        Rc::new(Self {
            index,
            upstreams: Upstreams::new(watchdog.clone()),
            watchdog,
            sites: RefCell::default(),
            recorders: RefCell::default(),
            operations: Cell::new(0),
        })
    }

    /// Starts the thread of a worker. It ends when its handle is gone, and its connections end with it: drain first.
    pub(super) fn start(index: usize) -> io::Result<Handle> {
        let (commands, inbox) = unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        // Not a `LocalRuntime`: it costs 900 instructions less for a request that is alone, and more for each of many.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            LocalSet::new().block_on(&runtime, async {
                crate::clock::sharpen();
                Self::new(index).run(inbox, counter).await;
            });
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
        tokio::task::spawn_local(sweep(Rc::downgrade(&self)));
        while let Some(command) = inbox.recv().await {
            match command {
                Command::Serve(listener, stream, peer) => {
                    let counted = Counted::new(connections.clone(), listener.clone());
                    tokio::task::spawn_local(serve(self.clone(), self.site(listener), stream, peer, counted));
                }
                Command::Watch(trial) => {
                    let worker = self.clone();
                    // A task of its own: a panic in a run's code must not be this thread's end.
                    tokio::task::spawn_local(async move { drop(worker.recorder(&trial)) });
                }
                Command::Renew(listener) => self.site(listener).renew(&self.upstreams),
            }
        }
    }

    /// A listener as this worker sees it; made when it is first asked for.
    fn site(&self, listener: Arc<Listener>) -> Rc<Site> {
        let known = self.sites.borrow().iter().find(|site| Arc::ptr_eq(&site.listener, &listener)).cloned();
        known.unwrap_or_else(|| {
            let site = Site::new(listener, self.index, &self.upstreams);
            self.sites.borrow_mut().push(site.clone());
            site
        })
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

/// Looks through idle upstream connections, for as long as there is a worker.
async fn sweep(worker: std::rc::Weak<Worker>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(worker) = worker.upgrade() else { return };
        worker.upstreams.sweep();
        worker.sites.borrow_mut().retain(|site| !site.listener.drain.is_cancelled() || Rc::strong_count(site) > 1);
    }
}

/// One connection in the counts of its worker and its listener, for as long as it lives.
#[derive(Debug)]
pub(super) struct Counted(Arc<AtomicUsize>, Arc<Listener>);

impl Counted {
    fn new(count: Arc<AtomicUsize>, listener: Arc<Listener>) -> Self {
        // The acceptor counted it already when it chose this worker.
        Self(count, listener)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        self.1.open.fetch_sub(1, Ordering::Relaxed);
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
