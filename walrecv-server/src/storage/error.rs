//! What went wrong with which file.

use std::io;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// The operating system refused something.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`", path.display())]
pub struct StorageError {
    /// What was tried, as in "cannot *create* `path`".
    pub action: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the operating system said.
    pub source: io::Error,
}

impl StorageError {
    /// For `map_err`: the error of doing `action` to `path`.
    pub fn of(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { action, path: path.to_owned(), source }
    }

    /// Whether the file is not there.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Whether the file system, or the user's part of it, is full.
pub fn is_out_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Failure for StorageError {
    fn hint(&self) -> Option<String> {
        let directory = self.path.parent().unwrap_or(&self.path).display();
        match self.source.kind() {
            _ if is_out_of_space(&self.source) => Some(format!(
                "make room on the file system of `{directory}`; nothing that was acknowledged is \
                 lost, and the server keeps what was not"
            )),
            io::ErrorKind::PermissionDenied => {
                Some(format!("run this as the user who owns `{directory}`, or change its owner"))
            }
            io::ErrorKind::ReadOnlyFilesystem => Some(format!(
                "the file system of `{directory}` is mounted read-only; look in the kernel's log \
                 why, then remount it"
            )),
            _ => None,
        }
    }
}
