//! The way out of the proxy, as a fault sees it that must know what has left before it ends an exchange.

use std::fmt;
use std::sync::{Arc, OnceLock};

/// Knows whether what was given to the caller has left; put into the request's extensions by whoever has the socket.
#[derive(Clone)]
pub struct Outlet(Arc<dyn Fn() -> bool + Send + Sync>);

impl Outlet {
    /// An outlet that asks `is_empty` whether nothing waits to leave.
    pub fn new(is_empty: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_empty))
    }

    /// Whether nothing waits to leave.
    pub(super) fn is_empty(&self) -> bool {
        (self.0)()
    }
}

/// The way up, which is known only when a connection is; whoever has one tells the request that has this.
#[derive(Clone, Debug, Default)]
pub struct Upward(Arc<OnceLock<Outlet>>);

impl Upward {
    /// The request goes out there. The first connection that is told stays.
    pub fn goes(&self, outlet: Outlet) {
        let _ = self.0.set(outlet);
    }

    pub(super) fn outlet(&self) -> Outlet {
        let way = self.clone();
        Outlet::new(move || way.0.get().is_none_or(Outlet::is_empty))
    }
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outlet(..)")
    }
}
