//! What to type next: commands that work where this one was typed, in the same folder and on the same system.

use std::path::Path;

use crate::ledger::Ledger;
use crate::report::Report;
use crate::report::words::shell;

/// How a command knows its system.
#[derive(Clone, Copy, Debug)]
pub(super) enum Door<'a> {
    /// By a system file: named, or in its usual place.
    File(Option<&'a Path>),
    /// By a ledger that was named.
    Ledger(&'a Path),
    /// By the admin address of a serving proxy.
    On(&'a str),
    /// The demo's own shop, with the folder of its reports.
    Demo(&'a Path),
}

/// The ledger of the demo, in the folder of its reports.
pub(super) const DEMO_LEDGER: &str = "demo.db";
/// What the demo calls its system.
pub(super) const DEMO_SYSTEM: &str = "demo";
/// Where the demo writes, unless it is told otherwise.
pub(super) const DEMO_FOLDER: &str = "reports";

impl<'a> Door<'a> {
    /// The door that leads to what is in a ledger: the demo's shop where the demo wrote it.
    pub(super) fn to(ledger: &Ledger, run: &str, path: &'a Path, otherwise: Self) -> Self {
        let named = path.file_name().is_some_and(|name| name == DEMO_LEDGER);
        let demo = || ledger.run(run).is_ok_and(|row| row.system.as_deref() == Some(DEMO_SYSTEM));
        match path.parent() {
            Some(folder) if named && demo() => Self::Demo(folder),
            _ => otherwise,
        }
    }

    /// Writes into a report what to type next. `folder` is where its files are, if it has some.
    pub(super) fn show(self, report: &mut Report, folder: Option<&Path>) {
        report.replay.command = Some(self.replay(report, folder));
        let command = report.failure.as_deref().and_then(|failure| self.follow_up(failure, folder));
        if let Some(follow_up) = &mut report.follow_up {
            follow_up.command = command;
        }
    }

    fn follow_up(self, failure: &str, folder: Option<&Path>) -> Option<String> {
        Some(match self {
            Self::File(config) => format!("pratfall run {}{}", shell(failure), option("config", config)),
            // The ledger does not say where its system is.
            Self::Ledger(_) => return None,
            Self::On(url) => {
                let file = folder?.join("follow-up.yaml");
                format!("pratfall run {} --on {}", word(&file), shell(url))
            }
            Self::Demo(folder) if folder == Path::new(DEMO_FOLDER) => "pratfall demo --fixed".to_owned(),
            Self::Demo(folder) => format!("pratfall demo --fixed{}", option("reports", Some(folder))),
        })
    }

    fn replay(self, report: &Report, folder: Option<&Path>) -> String {
        let (what, more) = match (self, folder) {
            (Self::File(config), _) => (shell(&report.run), option("config", config)),
            (Self::Ledger(ledger), _) => (shell(&report.run), option("ledger", Some(ledger))),
            (Self::Demo(folder), _) => (shell(&report.run), option("ledger", Some(&folder.join(DEMO_LEDGER)))),
            (Self::On(_), Some(folder)) => (word(&folder.join("report.json")), String::new()),
            (Self::On(_), None) => (shell(&report.run), String::new()),
        };
        format!("pratfall report {what} --replay{more}")
    }
}

fn option(name: &str, path: Option<&Path>) -> String {
    path.map(|path| format!(" --{name} {}", word(path))).unwrap_or_default()
}

fn word(path: &Path) -> String {
    shell(&path.to_string_lossy())
}

/// A command of ours as it can be typed here: `pratfall` may not be on the path of whoever has just built it.
pub(super) fn typed(command: &str) -> String {
    let called = std::env::args().next().filter(|called| called.contains('/'));
    match (called, command.strip_prefix("pratfall ")) {
        (Some(called), Some(rest)) => format!("{} {rest}", shell(&called)),
        _ => command.to_owned(),
    }
}
