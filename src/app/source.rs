//! Where a serving process has its system file from, so that it can be read again.

use std::fmt;
use std::path::PathBuf;

use super::AppError;
use crate::config::System;
use crate::document::Problems;
use crate::proxy::listen::fingerprint;

type Variables = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// A file, and what its `${NAME}`s stand for.
pub struct Source {
    path: PathBuf,
    variables: Variables,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Source {
    /// A system file.
    pub fn new(path: PathBuf, variables: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self { path, variables: Box::new(variables) }
    }

    /// The folder that its paths belong to.
    pub(super) fn folder(&self) -> PathBuf {
        super::folder(&self.path)
    }

    /// The system, if all of it is right.
    pub(super) fn read(&self) -> Result<System, AppError> {
        let (name, text) = self.text()?;
        let (system, warnings) = System::parse(&name, &text, &*self.variables).map_err(AppError::Wrong)?;
        warn(&warnings);
        Ok(system)
    }

    /// The system, if its listeners are right, with what is wrong elsewhere.
    pub(super) fn read_listeners(&self) -> Result<(System, Problems), AppError> {
        let (name, text) = self.text()?;
        let (system, problems) = System::parse_listeners(&name, &text, &*self.variables).map_err(AppError::Wrong)?;
        warn(&problems);
        Ok((system, problems))
    }

    fn text(&self) -> Result<(String, String), AppError> {
        let text = crate::document::load_ordinary(&self.path);
        let text = text.map_err(|cause| AppError::File { path: self.path.clone(), cause })?;
        Ok((self.path.display().to_string(), text))
    }

    /// What is in the file, and in others that it names. A link is followed each time, to where it leads now.
    pub(super) fn fingerprints(&self, others: &[PathBuf]) -> Vec<[u8; 32]> {
        std::iter::once(&self.path).chain(others).map(|path| fingerprint(path)).collect()
    }
}

fn warn(problems: &Problems) {
    problems.warnings().for_each(|problem| tracing::warn!("{}", problem.line()));
}
