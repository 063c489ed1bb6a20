//! `pratfall serve`: the plain proxy that nobody notices, until an experiment is started on it.

use std::path::PathBuf;

use super::documents::Variables;
use super::exit::Exit;
use super::signals;
use super::system::USUAL;
use crate::app::{App, Source};

const EXAMPLES: &str = "\
Examples:
  pratfall serve
  pratfall serve --config /etc/pratfall/pratfall.yaml --set FRONT=0.0.0.0:8080";

/// Serve the listeners of the system file, with health, metrics and an admin API.
///
/// Nothing is injected unless `limits.faults` allows it and somebody starts an experiment with `run … --on URL`. A changed
/// system file or certificate is taken up by itself, and at once on SIGHUP. SIGTERM drains: not ready, faults off, then the
/// requests under way; a second signal ends at once. SIGUSR1 halts all runs.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Serve {
    /// The system file.
    #[arg(long, env = "PRATFALL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    variables: Variables,
}

impl Serve {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let path = self.config.unwrap_or_else(|| USUAL.into());
        let (app, doors, reloading) = App::serve(Source::new(path, self.variables.get())).await?;
        let mut asked = signals::listen_with(app.control.clone(), Some(app.standing.clone()))?;
        for listener in app.proxy.listeners() {
            let (_, address) = app.proxy.find(&listener.name).expect("it is a listener of this proxy");
            tracing::info!("listener {} on {address}", listener.name);
        }
        let lab = app.control.lab();
        let armed = &lab.limits.faults;
        let armed = if armed.is_empty() { "nothing".to_owned() } else { armed.join(", ") };
        tracing::info!("serving {}; armed for {armed}", lab.system.as_deref().unwrap_or_default());
        let signal = asked.wait_for(Option::is_some).await.ok().and_then(|signal| *signal);
        if let Some(doors) = &doors {
            doors.not_ready();
        }
        drop(reloading);
        // Whoever presses Ctrl-C is no load balancer.
        if signal == Some(2) {
            app.drain().await;
        } else {
            app.take_leave().await;
        }
        Ok(Exit::Done)
    }
}
