//! Signals: the first ends in good order, the second at once.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::lab::{Control, Stop};

/// Which signal asked for the end, if one did.
pub(super) type Asked = watch::Receiver<Option<i32>>;

/// Listens: SIGINT and SIGTERM stop all runs and ask for the end, SIGUSR1 halts.
pub(super) fn listen(control: Arc<Control>) -> std::io::Result<Asked> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut user = signal(SignalKind::user_defined1())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (ask, asked) = watch::channel(None);
    tokio::spawn(async move {
        loop {
            let number = tokio::select! {
                _ = interrupt.recv() => 2,
                _ = terminate.recv() => 15,
                _ = hangup.recv() => {
                    tracing::warn!("SIGHUP: this version does not reload; restart to take a new system file up");
                    continue;
                }
                _ = user.recv() => {
                    if let Err(error) = control.halt("SIGUSR1") {
                        tracing::error!(%error, "all faults are off, but the mark cannot be written");
                    }
                    continue;
                }
            };
            if ask.borrow().is_some() {
                std::process::exit(128 + number);
            }
            control.stop_all(&Stop::Signal(number));
            ask.send_replace(Some(number));
        }
    });
    Ok(asked)
}
