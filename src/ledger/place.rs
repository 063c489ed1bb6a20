//! Where the ledger is: one true path, so that all who mean one ledger find the same locks and the same halt mark.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::error::LedgerError;

/// The true path of a file that may not be there yet: links are followed, also one that leads to no file yet.
pub(super) fn settled(path: &Path) -> PathBuf {
    let mut path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // As many links as Linux follows.
    for _ in 0..40 {
        let folder = path.parent().map(|folder| fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned()));
        if let (Some(folder), Some(name)) = (folder, path.file_name()) {
            path = folder.join(name);
        }
        match (fs::read_link(&path), path.parent()) {
            (Ok(target), Some(folder)) => path = folder.join(target),
            _ => break,
        }
    }
    path
}

/// A neighbour of the ledger: `pratfall.db` and `halt` make `pratfall.db.halt`.
pub(super) fn beside(ledger: &Path, what: &str) -> PathBuf {
    let mut name = ledger.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    PathBuf::from(name)
}

/// Makes sure that a ledger can be there, and returns its true path.
///
/// Its own folder is made when that folder's parent is there, so that `.pratfall/ledger.db` works in a fresh
/// checkout; a longer way that is not there is more likely a slip of the pen.
pub(super) fn prepare(path: &Path) -> Result<PathBuf, LedgerError> {
    let refuse = |why: &str| LedgerError::Place { path: path.to_owned(), why: why.to_owned() };
    if path.as_os_str().is_empty() || path.file_name().is_none() {
        return Err(refuse("it has no file name; write one, as in `pratfall.db`"));
    }
    if fs::metadata(path).is_ok_and(|there| there.is_dir()) {
        return Err(refuse("it is a folder; name a file in it, as in `pratfall.db`"));
    }
    // Absolute, so that `:memory:` is a file's name and not a ledger that forgets.
    let absolute = std::path::absolute(path).map_err(|cause| refuse(&cause.to_string()))?;
    let folder = absolute.parent().expect("an absolute path with a file name has a parent");
    match fs::create_dir(folder) {
        Ok(()) => {}
        Err(_) if folder.is_dir() => {}
        Err(cause) => {
            return Err(match cause.kind() {
                ErrorKind::NotFound => refuse(&format!(
                    "neither {} nor the folder it would be in is there; make it first",
                    folder.display()
                )),
                ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
                    refuse(&format!("{} is not a folder", folder.display()))
                }
                _ => LedgerError::NotWritable { path: path.to_owned(), cause: cause.into() },
            });
        }
    }
    Ok(settled(&absolute))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_missing_folder_is_made_and_two_are_a_mistake() {
        let folder = tempfile::tempdir().unwrap();
        let near = prepare(&folder.path().join("a/pratfall.db")).unwrap();
        assert!(near.parent().unwrap().is_dir());
        let far = prepare(&folder.path().join("b/c/pratfall.db"));
        assert!(matches!(far, Err(LedgerError::Place { .. })), "{far:?}");
        assert!(!folder.path().join("b").exists());
    }

    #[test]
    fn folders_and_nameless_paths_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        for path in [folder.path().to_owned(), PathBuf::new(), folder.path().join(".."), folder.path().join("file/x")] {
            assert!(matches!(prepare(&path), Err(LedgerError::Place { .. })), "{}", path.display());
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_leads_to_one_true_path_before_and_after_the_file_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let (there, link, second) = (folder.path().join("a"), folder.path().join("b"), folder.path().join("c.db"));
        fs::create_dir(&there).unwrap();
        std::os::unix::fs::symlink("a/pratfall.db", &link).unwrap();
        std::os::unix::fs::symlink(&link, &second).unwrap();
        let file = fs::canonicalize(&there).unwrap().join("pratfall.db");
        assert_eq!(settled(&second), file);
        fs::write(&file, "").unwrap();
        assert_eq!((settled(&second), settled(&there.join("../a/pratfall.db"))), (file.clone(), file));
        let round = folder.path().join("round");
        std::os::unix::fs::symlink(&round, &round).unwrap();
        assert!(settled(&round).ends_with("round"));
    }

    #[test]
    fn memory_is_a_name_like_any_other() {
        assert!(settled(Path::new(":memory:")).is_absolute());
    }
}
