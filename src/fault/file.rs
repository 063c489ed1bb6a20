//! Files that faults name: read once, before a run begins, and never more than a mebibyte.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::{ErrorAnswer, Fault, Latency};
use crate::file::open_ordinary;

/// The most that a file may hold.
const LARGEST: u64 = 1 << 20;

impl Fault {
    /// The file that this fault names, and the key that names it.
    pub fn file(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::Error(ErrorAnswer { body_file: Some(file), .. }) => Some(("body_file", file)),
            Self::Latency(Latency { histogram: Some(file), .. }) => Some(("histogram", file)),
            _ => None,
        }
    }

    /// Whether it names a file that was not read: it cannot be injected then.
    pub fn is_unread(&self) -> bool {
        self.file().is_some()
            && match self {
                Self::Error(error) => error.content.is_none(),
                Self::Latency(latency) => latency.measured.is_none(),
                _ => false,
            }
    }

    /// Reads the file that it names, if it names one; paths belong to a folder.
    pub fn read_file(&mut self, folder: &Path) -> Result<(), String> {
        let Some((_, name)) = self.file() else { return Ok(()) };
        let name = name.to_owned();
        let bytes = read(&folder.join(&name)).map_err(|why| format!("`{name}` {why}"))?;
        match self {
            Self::Error(error) => error.content = Some(bytes::Bytes::from(bytes).into()),
            Self::Latency(latency) => {
                let text = String::from_utf8(bytes).map_err(|_| format!("`{name}` is not text"))?;
                latency.measured = Some(Arc::new(text.parse().map_err(|why| format!("`{name}`, {why}"))?));
            }
            _ => {}
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "is not there".to_owned(),
        std::io::ErrorKind::InvalidInput => "is not a file".to_owned(),
        _ => format!("cannot be read: {error}"),
    };
    let mut bytes = Vec::new();
    open_ordinary(path).map_err(failed)?.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err("is larger than 1 MiB".to_owned());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(json: &str, folder: &Path) -> Result<Fault, String> {
        let mut fault: Fault = serde_json::from_str(json).expect(json);
        assert!(fault.is_unread());
        fault.read_file(folder)?;
        assert!(!fault.is_unread());
        Ok(fault)
    }

    #[test]
    fn a_file_is_read_whole_and_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("delays.csv"), "5ms\n").unwrap();
        std::fs::write(folder.path().join("busy.json"), b"{}\xff").unwrap();
        let Ok(Fault::Error(error)) = reading(r#"{"error":{"status":503,"body_file":"busy.json"}}"#, folder.path())
        else {
            panic!("it can be read")
        };
        assert_eq!(error.content.unwrap().bytes, &b"{}\xff"[..], "whatever is in it");
        reading(r#"{"latency":{"histogram":"delays.csv"}}"#, folder.path()).unwrap();
        let mut none: Fault = serde_json::from_str(r#"{"latency":{"delay":"1s"}}"#).unwrap();
        assert!(!none.is_unread() && none.read_file(folder.path()).is_ok());
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("folder")).unwrap();
        std::fs::write(path("large"), vec![b'a'; LARGEST as usize + 1]).unwrap();
        std::fs::write(path("binary"), b"\xff").unwrap();
        std::fs::write(path("words"), "5ms\nslow\n").unwrap();
        for (name, why) in [
            ("missing", "`missing` is not there"),
            ("folder", "`folder` is not a file"),
            ("large", "`large` is larger than 1 MiB"),
            ("binary", "`binary` is not text"),
            (
                "words",
                "`words`, line 2: write a length of time with its unit, as in `250ms`, `1.5s` or `2m30s`, not `slow`",
            ),
        ] {
            let json = format!(r#"{{"latency":{{"histogram":"{name}"}}}}"#);
            assert_eq!(reading(&json, folder.path()).unwrap_err(), why);
        }
    }
}
