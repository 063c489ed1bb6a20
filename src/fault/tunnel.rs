//! What is done to the bytes of a tunnel, when a request that meets a fault becomes one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderMap;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Direction;
use super::stream::{Setting, Treatment};
use crate::service::Body;

/// What faults want done to a tunnel; put into the extensions of a request that asks for one, and taken by whoever joins
/// its ends.
#[derive(Clone, Debug, Default)]
pub struct Tunnel(Arc<Wanted>);

#[derive(Debug, Default)]
struct Wanted {
    /// The outermost first.
    treatments: Mutex<Vec<(Treatment, Setting)>>,
    over: CancellationToken,
}

impl Tunnel {
    pub(super) fn want(&self, treatment: Treatment, setting: Setting) {
        self.treatments().push((treatment, setting));
    }

    /// Whether there is anything to be done.
    pub fn is_treated(&self) -> bool {
        !self.treatments().is_empty()
    }

    /// Treats what goes one way. `headers` are those of the answer that opened the tunnel: they say what it speaks.
    pub fn treat(&self, direction: Direction, mut body: Body, headers: &HeaderMap) -> Body {
        for (treatment, setting) in self.treatments().iter().rev() {
            treatment.clone().wrap_tunnel(direction, headers, &mut body, setting.clone());
        }
        body
    }

    /// Whoever drops this says that the tunnel is over, or will never be.
    pub fn guard(&self) -> DropGuard {
        self.0.over.clone().drop_guard()
    }

    /// Waits until it is over.
    pub async fn ended(&self) {
        self.0.over.cancelled().await;
    }

    fn treatments(&self) -> MutexGuard<'_, Vec<(Treatment, Setting)>> {
        self.0.treatments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
