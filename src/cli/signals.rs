//! Signals: the first ends in good order, the second at once.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::admin::Standing;
use crate::lab::{Control, Stop};

/// Which signal asked for the end, if one did.
pub(super) type Asked = watch::Receiver<Option<i32>>;

/// Listens: SIGINT and SIGTERM stop all runs and ask for the end, SIGUSR1 halts.
pub(super) fn listen(control: Arc<Control>) -> std::io::Result<Asked> {
    listen_with(control, None)
}

/// Listens, and has SIGHUP read the system file of a serving process again.
pub(super) fn listen_with(control: Arc<Control>, serving: Option<Arc<Standing>>) -> std::io::Result<Asked> {
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
                    match serving.clone() {
                        // What comes of it is in the log.
                        Some(serving) => drop(tokio::spawn(async move { serving.reload().await })),
                        None => tracing::warn!("SIGHUP: only `serve` reads its system file again"),
                    }
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
            control.end(&Stop::Signal(number));
            ask.send_replace(Some(number));
        }
    });
    Ok(asked)
}
