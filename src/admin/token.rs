//! Who may make changes: whoever knows the token.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// A bearer token; only its hash is kept, so that no log and no dump can show it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Token(Option<[u8; 32]>);

impl Token {
    /// No token: no changes.
    pub fn none() -> Self {
        Self(None)
    }

    /// A token from a file.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| io::Error::new(error.kind(), format!("token file {}: {error}", path.display())))?;
        let text = text.trim();
        if text.is_empty() {
            return Err(io::Error::other(format!("token file {} is empty", path.display())));
        }
        Ok(Self(Some(hash(text))))
    }

    /// The token beside a ledger, made where there is none: the same user's command line finds it there.
    pub fn beside(ledger: &Path) -> io::Result<Self> {
        let path = path_beside(ledger);
        if !path.exists() {
            let secret: [u64; 4] = [rand::random(), rand::random(), rand::random(), rand::random()];
            let secret: String = secret.iter().map(|part| format!("{part:016x}")).collect();
            match write_secret(&path, &secret) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Self::read(&path)
    }

    /// Whether a request's `Authorization` says the token. Hashes are compared, so that time tells nothing.
    pub fn admits(&self, authorization: Option<&str>) -> bool {
        let said = authorization.and_then(|value| value.strip_prefix("Bearer "));
        match (self.0, said) {
            (Some(known), Some(said)) => known == hash(said.trim()),
            _ => false,
        }
    }
}

/// Where the token beside a ledger is.
pub fn path_beside(ledger: &Path) -> PathBuf {
    let mut name = ledger.as_os_str().to_owned();
    name.push(".token");
    name.into()
}

/// Writes a file that only its owner can read.
fn write_secret(path: &Path, secret: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(secret.as_bytes())
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}
