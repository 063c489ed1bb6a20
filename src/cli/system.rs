//! The system file of a command, and the folder that its paths belong to.

use std::path::{Path, PathBuf};

use super::documents::Variables;
use super::exit::Usage;
use crate::config::{LedgerConfig, System};

/// Where a system file is looked for.
pub(super) const USUAL: &str = "pratfall.yaml";

/// Reads the system file; warnings go to stderr.
pub(super) fn read(config: Option<&Path>, variables: &Variables) -> anyhow::Result<(System, PathBuf)> {
    let path = config.unwrap_or_else(|| Path::new(USUAL));
    let text = std::fs::read_to_string(path).map_err(|error| {
        let help = if config.is_none() { "; name the system file with --config" } else { "" };
        Usage(format!("system file {}: {error}{help}", path.display()))
    })?;
    let (system, warnings) = System::parse(&path.display().to_string(), &text, &variables.get())?;
    if !warnings.is_empty() {
        anstream::eprintln!("{warnings}\n");
    }
    Ok((system, folder(path)))
}

/// The folder of a file.
pub(super) fn folder(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new(".")).to_owned()
}

/// The ledger of a command that only reads: named, or the system file's, or the usual one.
pub(super) fn ledger(named: Option<&Path>, config: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    if config.is_none() && !Path::new(USUAL).exists() {
        return Ok("pratfall.db".into());
    }
    let path = config.unwrap_or_else(|| Path::new(USUAL));
    let text =
        std::fs::read_to_string(path).map_err(|error| Usage(format!("system file {}: {error}", path.display())))?;
    // Where the ledger is does not depend on variables that this command was not given.
    let (system, _) = System::parse(&path.display().to_string(), &text, &|name| std::env::var(name).ok())?;
    match system.ledger {
        LedgerConfig::File(ledger) => Ok(folder(path).join(ledger)),
        LedgerConfig::Remote { url, .. } => Err(Usage(format!("the ledger is at {url}; look there")).into()),
    }
}

/// Where a command that has no listeners of its own writes reports: as the system file says, else in `reports` here.
pub(super) fn reports(config: Option<&Path>) -> PathBuf {
    let path = config.unwrap_or_else(|| Path::new(USUAL));
    let system = std::fs::read_to_string(path).ok().and_then(|text| {
        let parsed = System::parse(&path.display().to_string(), &text, &|name| std::env::var(name).ok());
        parsed.ok().map(|(system, _)| system.reports)
    });
    let reports = system.map_or_else(|| "reports".into(), |reports| folder(path).join(reports));
    reports.components().filter(|part| *part != std::path::Component::CurDir).collect()
}
