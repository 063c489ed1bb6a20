//! The system file of a command, and the folder that its paths belong to.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use super::documents::Variables;
use super::exit::Usage;
use crate::app::{folder, under};
use crate::config::{LedgerConfig, System};
use crate::document;
use crate::ledger::Ledger;

/// Where a system file is looked for.
pub(super) const USUAL: &str = "pratfall.yaml";

/// Reads the system file; warnings go to stderr.
pub(super) fn read(config: Option<&Path>, variables: &Variables) -> anyhow::Result<(System, PathBuf)> {
    let path = config.unwrap_or_else(|| Path::new(USUAL));
    let text = document::load(path).map_err(|error| {
        let help = if config.is_none() { "; name the system file with --config" } else { "" };
        Usage(format!("system file {}: {error}{help}", path.display()))
    })?;
    let (system, warnings) = System::parse(&path.display().to_string(), &text, &variables.get())?;
    if !warnings.is_empty() {
        anstream::eprintln!("{warnings}\n");
    }
    Ok((system, folder(path)))
}

/// What the system file says of a place, with its folder. That does not depend on variables that this command was not
/// given.
fn known(config: Option<&Path>) -> anyhow::Result<(System, PathBuf)> {
    let path = config.unwrap_or_else(|| Path::new(USUAL));
    let text = document::load(path).map_err(|error| Usage(format!("system file {}: {error}", path.display())))?;
    let (system, _) = System::parse(&path.display().to_string(), &text, &|name| std::env::var(name).ok())?;
    Ok((system, folder(path)))
}

/// The ledger of a command that only reads: named, or the system file's, or the usual one.
pub(super) fn ledger(named: Option<&Path>, config: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    if config.is_none() && !Path::new(USUAL).exists() {
        return Ok("pratfall.db".into());
    }
    let (system, folder) = known(config)?;
    match system.ledger {
        LedgerConfig::File(ledger) => Ok(folder.join(ledger)),
        LedgerConfig::Remote { url, .. } => Err(Usage(format!("the ledger is at {url}; look there")).into()),
    }
}

/// Opens the ledger of a command that only reads. One that is not there is not made: nothing would be in it.
pub(super) fn open(named: Option<&Path>, config: Option<&Path>) -> anyhow::Result<(Ledger, PathBuf)> {
    let path = ledger(named, config)?;
    if !path.exists() {
        let from = match config {
            _ if named.is_some() => "as --ledger says".to_owned(),
            Some(config) => format!("as {} says", config.display()),
            None if Path::new(USUAL).exists() => format!("as {USUAL} says"),
            None => format!("its usual place; there is no {USUAL} here"),
        };
        anyhow::bail!(
            "there is no ledger at {} ({from}); the first run makes one, --ledger or --config names another",
            path.display()
        );
    }
    Ok((Ledger::open(&path)?, path))
}

/// The admin listener of a system file, as a command on the same machine reaches it.
#[derive(Debug)]
pub(super) struct AdminDoor {
    pub(super) url: String,
    pub(super) token_file: Option<PathBuf>,
}

/// The admin listener of the system file that a command names, or that is in its usual place. A file that cannot be read
/// here says nothing about a proxy elsewhere.
pub(super) fn admin(config: Option<&Path>) -> Option<AdminDoor> {
    let (system, folder) = known(config).ok()?;
    let admin = system.admin?;
    let mut bind = admin.bind;
    if bind.ip().is_unspecified() {
        bind.set_ip(if bind.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    // Nobody but the system knows which port it gave.
    (bind.port() > 0).then(|| AdminDoor {
        url: format!("http://{bind}"),
        token_file: admin.token_file.map(|file| folder.join(file)),
    })
}

/// Where a command that has no listeners of its own writes reports: as the system file says, else in `reports` here.
pub(super) fn reports(config: Option<&Path>) -> PathBuf {
    known(config).map_or_else(|_| "reports".into(), |(system, folder)| under(&folder, &system.reports))
}
