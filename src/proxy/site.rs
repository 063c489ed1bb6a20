//! A listener as one worker sees it: its configuration, the pools behind it, and what was counted there.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use http::Request;

use super::config::ListenerConfig;
use super::listen::{Listener, Setup, Stats};
use super::route;
use super::upstream::{Pool, Upstreams};

/// A listener on one worker. Its plan is replaced as a whole when the system file changes.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) listener: Arc<Listener>,
    worker: usize,
    plan: RefCell<Rc<Plan>>,
}

/// What a request needs to know of its listener, ready for use.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) setup: Arc<Setup>,
    pools: Vec<Rc<Pool>>,
    otherwise: Option<Rc<Pool>>,
}

impl Site {
    pub(super) fn new(listener: Arc<Listener>, worker: usize, upstreams: &Upstreams) -> Rc<Self> {
        let plan = RefCell::new(Plan::new(listener.setup(), upstreams));
        Rc::new(Self { listener, worker, plan })
    }

    /// What holds for a request that comes now.
    pub(super) fn plan(&self) -> Rc<Plan> {
        self.plan.borrow().clone()
    }

    /// Takes over what the listener has been told since.
    pub(super) fn renew(&self, upstreams: &Upstreams) {
        *self.plan.borrow_mut() = Plan::new(self.listener.setup(), upstreams);
    }

    /// What this worker counts here.
    pub(super) fn stats(&self) -> &Stats {
        &self.listener.stats[self.worker]
    }
}

impl Plan {
    fn new(setup: Arc<Setup>, upstreams: &Upstreams) -> Rc<Self> {
        let pool = |target| upstreams.pool(target, &setup);
        let pools = setup.config.routes.iter().map(|route| pool(&route.upstream)).collect();
        let otherwise = setup.config.upstream.as_ref().map(pool);
        Rc::new(Self { pools, otherwise, setup })
    }

    pub(super) fn config(&self) -> &ListenerConfig {
        &self.setup.config
    }

    /// Where a request goes: the first route that takes it, else the listener's own upstream.
    pub(super) fn pool<B>(&self, request: &Request<B>) -> Option<&Rc<Pool>> {
        if self.pools.is_empty() {
            return self.otherwise.as_ref();
        }
        let taken = route::taken(&self.setup.config.routes, request);
        taken.map(|index| &self.pools[index]).or(self.otherwise.as_ref())
    }
}
