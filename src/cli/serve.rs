//! `pratfall serve`: the plain proxy that nobody notices, until an experiment is started on it.

use std::path::PathBuf;

use super::documents::Variables;
use super::exit::Exit;
use super::{signals, system};
use crate::app::App;

const EXAMPLES: &str = "\
Examples:
  pratfall serve
  pratfall serve --config /etc/pratfall/pratfall.yaml --set FRONT=0.0.0.0:8080";

/// Serve the listeners of the system file, with health, metrics and an admin API.
///
/// Nothing is injected unless `limits.faults` allows it and somebody starts an experiment with `run … --on URL`. SIGTERM
/// drains: faults off first, then the requests under way; a second signal ends at once. SIGUSR1 halts all runs.
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
        let (system, folder) = system::read(self.config.as_deref(), &self.variables)?;
        let app = App::serve(system.clone(), &folder).await?;
        let mut asked = signals::listen(app.control.clone())?;
        let doors = app.open_doors(&system, &folder).await?;
        for listener in app.proxy.listeners().iter() {
            let (_, address) = app.proxy.find(&listener.name).expect("it is a listener of this proxy");
            anstream::eprintln!("listener {} on {address}", listener.name);
        }
        if let Some(admin) = &system.admin {
            anstream::eprintln!("admin on http://{}", admin.bind);
        }
        let armed = &app.control.lab().limits.faults;
        let armed = if armed.is_empty() { "nothing".to_owned() } else { armed.join(", ") };
        anstream::eprintln!("serving {}; armed for {armed}", system.name);
        let _ = asked.wait_for(Option::is_some).await;
        if let Some(doors) = &doors {
            doors.not_ready();
        }
        app.drain().await;
        Ok(Exit::Done)
    }
}
