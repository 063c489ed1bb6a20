//! The way out of the proxy, as a fault sees it that must know what has left before it ends an exchange.

use std::fmt;
use std::sync::Arc;

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

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outlet(..)")
    }
}
