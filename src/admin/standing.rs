//! What a serving process says about itself beside its traffic, and the way to ask it for a reload.

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

/// What is to be known of a reload that took place, or everything that is wrong with it.
pub type Reloaded = Result<Vec<String>, String>;

/// What a serving process says about itself.
#[derive(Debug, Default)]
pub struct Standing {
    now: Mutex<Now>,
    reload: Mutex<Option<mpsc::Sender<oneshot::Sender<Reloaded>>>>,
}

#[derive(Debug, Default)]
struct Now {
    lasting: Vec<String>,
    of_the_file: Vec<String>,
    reloads: Reloads,
}

/// What came of reloads.
#[derive(Clone, Debug, Default)]
pub struct Reloads {
    /// How many took place.
    pub succeeded: u64,
    /// How many did not.
    pub failed: u64,
    /// Whether nothing is wrong with the file that is served.
    pub sound: bool,
    /// Everything that is wrong with a file that was seen since, and is not served.
    pub wrong: Option<String>,
    /// When the file that is served was read.
    pub read_at: Option<Timestamp>,
}

impl Standing {
    /// Something is wrong that only a restart can put right, and nothing may be injected.
    pub fn complain(&self, what: String) {
        tracing::error!("not armed: {what}");
        self.now().lasting.push(what);
    }

    /// Whether something is wrong that only a restart can put right.
    pub fn is_disarmed(&self) -> bool {
        !self.now().lasting.is_empty()
    }

    /// What is to be said of the file that is served, from now on.
    pub fn say_of_the_file(&self, complaints: Vec<String>, sound: bool) {
        complaints.iter().for_each(|complaint| tracing::warn!("{complaint}"));
        let mut now = self.now();
        now.of_the_file = complaints;
        now.reloads = Reloads { sound, wrong: None, read_at: Some(crate::clock::now()), ..now.reloads };
    }

    /// A reload came to this.
    pub fn count(&self, reloaded: &Reloaded) {
        let mut now = self.now();
        match reloaded {
            Ok(_) => now.reloads.succeeded += 1,
            Err(why) => {
                now.reloads.failed += 1;
                now.reloads.wrong = Some(why.clone());
            }
        }
    }

    /// Everything that is wrong outside the listeners.
    pub fn complaints(&self) -> Vec<String> {
        let now = self.now();
        now.lasting.iter().chain(&now.of_the_file).cloned().collect()
    }

    /// What came of reloads.
    pub fn reloads(&self) -> Reloads {
        self.now().reloads.clone()
    }

    /// Reloads are asked for here from now on.
    pub fn take_reloads(&self) -> mpsc::Receiver<oneshot::Sender<Reloaded>> {
        let (ask, asked) = mpsc::channel(8);
        *self.reload.lock().unwrap_or_else(PoisonError::into_inner) = Some(ask);
        asked
    }

    /// Asks for a reload, and waits for it.
    pub async fn reload(&self) -> Reloaded {
        let ask = self.reload.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let not_here = || "this process does not reload, or is about to end".to_owned();
        let (tell, told) = oneshot::channel();
        ask.ok_or_else(not_here)?.send(tell).await.map_err(|_| not_here())?;
        told.await.unwrap_or_else(|_| Err(not_here()))
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
