//! Why a backup could not be verified at all.

use std::io;
use std::path::{Path, PathBuf};

use crate::manifest::ManifestError;

/// There is nothing to compare, or nothing to compare it with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The manifest or the directory cannot be read.
    #[error("cannot {action} `{}`: {message}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What kind of failure it was.
        kind: io::ErrorKind,
        /// What the operating system said.
        message: String,
    },
    /// The manifest is not intact.
    #[error("`{}` cannot be used", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// The manifest lists a file twice.
    #[error("the manifest lists `{}` twice", String::from_utf8_lossy(path))]
    Repeated {
        /// The file, as in the manifest.
        path: Vec<u8>,
    },
}

impl VerifyError {
    pub(super) fn io(action: &'static str, path: &Path, error: &io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), kind: error.kind(), message: error.to_string() }
    }
}
