//! The operator's door: health, metrics, status, and the switches.
//!
//! | route | what it does | token |
//! |---|---|---|
//! | `GET /livez` | the process lives | |
//! | `GET /readyz` | it serves; `?verbose` says how | |
//! | `GET /metrics` | Prometheus text | |
//! | `GET /status` | runs, halt, arms | |
//! | `POST /runs` | starts the experiment in the body (YAML) | yes |
//! | `POST /rehearse` | rehearses the experiment in the body | yes |
//! | `POST /inject` | injects the fault in the body by hand | yes |
//! | `GET /runs/{run}` | one run | |
//! | `POST /runs/{run}/heartbeat` | the run may go on for another lease | yes |
//! | `POST /runs/{run}/halt` | stops one run | from loopback not |
//! | `POST /halt` | takes all faults off and refuses new runs | from loopback not |
//! | `POST /resume` | allows runs again | yes |
//! | `POST /reload` | reads the system file again | yes |
//!
//! HTTP status codes of the API appear in this room only.

mod api;
mod door;
mod metrics;
mod standing;
mod token;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::standing::{Reloaded, Reloads, Standing};
pub use self::token::{Token, path_beside as token_beside};
use crate::lab::Control;
use crate::ledger::Ledger;

/// What the door leads to.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The switchboard.
    pub control: Arc<Control>,
    /// Where runs are remembered.
    pub ledger: Option<Arc<Ledger>>,
    /// The folder that reports are written to.
    pub reports: PathBuf,
    /// What is wrong outside the listeners, and how reloads went.
    pub standing: Arc<Standing>,
    /// Who may make changes.
    pub token: Token,
    /// Cancelled when the process is about to end: it is not ready any more.
    pub draining: CancellationToken,
}

/// Doors that are open. Dropping it closes them.
#[derive(Debug)]
pub struct Doors {
    admin: Admin,
    tasks: Vec<JoinHandle<()>>,
}

impl Doors {
    /// Says on `/readyz` that the process is about to end.
    pub fn not_ready(&self) {
        self.admin.draining.cancel();
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Opens the door on one socket, and the read-only window on another.
pub fn open(admin: Admin, door: Option<TcpListener>, window: Option<TcpListener>) -> Doors {
    let mut tasks = Vec::new();
    let telemetry = api::telemetry(admin.clone());
    if let Some(socket) = door {
        let all = telemetry.clone().merge(api::switches(admin.clone()));
        tasks.push(tokio::spawn(door::serve(socket, all)));
    }
    if let Some(socket) = window {
        tasks.push(tokio::spawn(door::serve(socket, telemetry)));
    }
    Doors { admin, tasks }
}
