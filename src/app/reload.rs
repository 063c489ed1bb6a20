//! Takes a changed system file up while the traffic flows, or leaves everything as it is.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::{App, Source, listeners, pages, unserved, unserved_elsewhere};
use crate::admin::{Reloaded, Standing};
use crate::config::{Drain, System};
use crate::lab::Control;
use crate::proxy::{ListenerConfig, Proxy};

/// How often the files are looked at. They are small and in memory; a person who waits for a change does not notice more.
const LOOK: Duration = Duration::from_secs(1);

/// Looks after the system file. Dropping it ends that.
#[derive(Debug)]
pub struct Reloading(JoinHandle<()>);

impl Drop for Reloading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a reload changes.
struct Reloader {
    source: Arc<Source>,
    proxy: Arc<Proxy>,
    control: Arc<Control>,
    standing: Arc<Standing>,
    ending: Arc<Mutex<Drain>>,
    /// What cannot change without a restart is as it was here.
    started: System,
    /// The files that the listeners name, of the system file that was read last.
    files: Vec<PathBuf>,
    /// What was in all of them when they were last taken up, or tried.
    tried: Vec<[u8; 32]>,
}

impl Reloading {
    /// Looks after the file from now on. `seen` is what was in it before it was read.
    pub(super) fn begin(app: &App, source: Source, started: System, seen: Vec<[u8; 32]>) -> Self {
        let mut reloader = Reloader {
            files: files(&listeners(&started, &source.folder())),
            source: Arc::new(source),
            proxy: app.proxy.clone(),
            control: app.control.clone(),
            standing: app.standing.clone(),
            ending: app.ending.clone(),
            started,
            tried: seen,
        };
        // The other files were read between the first and this look; a change in between is a matter of microseconds.
        reloader.tried.extend(reloader.source.fingerprints(&reloader.files).into_iter().skip(1));
        let asked = app.standing.take_reloads();
        Self(tokio::spawn(reloader.run(asked)))
    }
}

impl Reloader {
    async fn run(mut self, mut asked: mpsc::Receiver<oneshot::Sender<Reloaded>>) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before = self.tried.clone();
        loop {
            tokio::select! {
                Some(tell) = asked.recv() => {
                    let now = self.look().await;
                    let reloaded = self.reload(now).await;
                    let _ = tell.send(reloaded); // whoever asked may have left
                }
                _ = looks.tick() => {
                    let now = self.look().await;
                    // A file that is still being written is not read.
                    if now != self.tried && now == before {
                        let _ = self.reload(now.clone()).await; // it is in the log
                    }
                    before = now;
                }
            }
        }
    }

    async fn look(&self) -> Vec<[u8; 32]> {
        let (source, files) = (self.source.clone(), self.files.clone());
        tokio::task::spawn_blocking(move || source.fingerprints(&files)).await.unwrap_or_default()
    }

    async fn reload(&mut self, now: Vec<[u8; 32]>) -> Reloaded {
        self.tried = now;
        let reloaded = self.try_reload().await;
        match &reloaded {
            Ok(notes) => {
                tracing::info!("the system file was read again, and is served");
                notes.iter().for_each(|note| tracing::warn!("{note}"));
            }
            Err(why) => tracing::error!("the system file is not taken up, the one before is served:\n{why}"),
        }
        self.standing.count(&reloaded);
        // It looks through all of the memory, which a run may have made large.
        let _ = tokio::task::spawn_blocking(pages::give_back).await;
        reloaded
    }

    async fn try_reload(&mut self) -> Reloaded {
        let mut system = self.source.read().map_err(|error| error.to_string())?;
        let listeners = listeners(&system, &self.source.folder());
        let named = files(&listeners);
        if named != self.files {
            self.files = named;
            self.tried.truncate(1);
            self.tried.extend(self.source.fingerprints(&self.files).into_iter().skip(1));
        }
        let later = unserved(&system);
        if !later.is_empty() {
            return Err(later.join("\n"));
        }
        let prepared = self.proxy.prepare(listeners).await.map_err(|error| error.to_string())?;
        let notes = self.for_a_restart(&system);
        if self.standing.is_disarmed() {
            system.limits.faults.clear();
        }
        // Faults go before the ground that they stand on.
        self.control.reload(system.limits.clone(), Some(system.name.clone()), prepared.touched());
        self.proxy.apply(prepared);
        self.proxy.log_requests(system.access_log.map(|log| log.sample));
        *self.ending.lock().unwrap_or_else(PoisonError::into_inner) = system.drain;
        self.standing.say_of_the_file(unserved_elsewhere(&system), true);
        Ok(notes)
    }

    /// What has changed and stays as it was until a restart.
    fn for_a_restart(&self, now: &System) -> Vec<String> {
        let was = &self.started;
        let changed = [
            ("workers", was.workers != now.workers),
            ("admin", was.admin != now.admin),
            ("telemetry", was.telemetry != now.telemetry),
            ("ledger", was.ledger != now.ledger),
            ("reports", was.reports != now.reports),
        ];
        let changed = changed.iter().filter(|(_, changed)| *changed);
        changed.map(|(key, _)| format!("`{key}` has changed, which needs a restart")).collect()
    }
}

fn files(listeners: &[ListenerConfig]) -> Vec<PathBuf> {
    listeners.iter().flat_map(|listener| listener.files().map(ToOwned::to_owned)).collect()
}
