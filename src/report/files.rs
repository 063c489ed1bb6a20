//! The files of a report: one folder a run, with the model, its renderings and the follow-up.
//!
//! Each file is whole or not there: a serving proxy and the command that watches it may write the same report.

use std::io;
use std::path::{Path, PathBuf};

use super::{Report, html, markdown};

/// Writes `report.json`, `report.md`, `report.html` and `follow-up.yaml` into `folder/<run>`, and says where that is.
pub fn save(report: &Report, folder: &Path) -> io::Result<PathBuf> {
    let folder = folder.join(&report.run);
    std::fs::create_dir_all(&folder)?;
    // An empty folder would look like a report that was lost.
    write_all(report, &folder).inspect_err(|_| drop(std::fs::remove_dir(&folder)))?;
    Ok(folder)
}

fn write_all(report: &Report, folder: &Path) -> io::Result<()> {
    let json = serde_json::to_string_pretty(report).map_err(io::Error::other)?;
    // The model first: whatever happens to the rest, nothing is lost.
    write(folder, "report.json", json + "\n")?;
    write(folder, "report.md", markdown::render(report))?;
    write(folder, "report.html", html::render(report))?;
    if let Some(follow_up) = &report.follow_up {
        write(folder, "follow-up.yaml", &follow_up.document)?;
    }
    Ok(())
}

fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> io::Result<()> {
    let unfinished = folder.join(format!(".{name}.{}", std::process::id()));
    let written = std::fs::write(&unfinished, text).and_then(|()| std::fs::rename(&unfinished, folder.join(name)));
    written.inspect_err(|_| drop(std::fs::remove_file(&unfinished)))
}
