//! The files of a report: one folder a run, with the model, its renderings and the follow-up.

use std::io;
use std::path::{Path, PathBuf};

use super::{Report, html, markdown};

/// Writes `report.json`, `report.md`, `report.html` and `follow-up.yaml` into `folder/<run>`, and says where that is.
pub fn save(report: &Report, folder: &Path) -> io::Result<PathBuf> {
    let folder = folder.join(&report.run);
    std::fs::create_dir_all(&folder)?;
    let json = serde_json::to_string_pretty(report).map_err(io::Error::other)?;
    // The model first: whatever happens to the rest, nothing is lost.
    std::fs::write(folder.join("report.json"), json + "\n")?;
    std::fs::write(folder.join("report.md"), markdown::render(report))?;
    std::fs::write(folder.join("report.html"), html::render(report))?;
    if let Some(follow_up) = &report.follow_up {
        std::fs::write(folder.join("follow-up.yaml"), &follow_up.document)?;
    }
    Ok(folder)
}
