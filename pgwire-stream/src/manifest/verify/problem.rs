//! How a directory can differ from its manifest.

use std::fmt;
use std::io;

use crate::SystemId;
use crate::control_file::ControlFileError;
use crate::manifest::ChecksumAlgorithm;

/// A file that is not as the manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The path below the directory, in the bytes of the file system.
    pub path: Vec<u8>,
    /// What is wrong with it.
    pub discrepancy: Discrepancy,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Discrepancy {
    /// The manifest lists it, and it is not there.
    #[error("is in the manifest but not on disk")]
    Missing,
    /// It is there, and the manifest does not list it.
    #[error("is on disk but not in the manifest")]
    Extra,
    /// It is neither a file nor a directory; or a symbolic link where a backup has none.
    #[error("is not a regular file or directory")]
    NotAFile,
    /// It has another size.
    #[error("has {on_disk} bytes on disk and {listed} in the manifest")]
    Size {
        /// The size of the file.
        on_disk: u64,
        /// The size that the manifest states.
        listed: u64,
    },
    /// It has another content.
    #[error("does not have the {algorithm} checksum that the manifest states")]
    Checksum {
        /// How the checksum was computed.
        algorithm: ChecksumAlgorithm,
    },
    /// It cannot be read.
    #[error("cannot be read: {message}")]
    Unreadable {
        /// What kind of failure it was.
        kind: io::ErrorKind,
        /// What the operating system said.
        message: String,
    },
    /// It is the control file, and cannot be understood.
    #[error("is not usable: {0}")]
    ControlFile(ControlFileError),
    /// It is the control file of another cluster than that of the manifest.
    #[error("is of cluster {on_disk}, and the manifest of cluster {listed}")]
    SystemId {
        /// The cluster that the file names.
        on_disk: SystemId,
        /// The cluster that the manifest names.
        listed: SystemId,
    },
}

impl Discrepancy {
    pub(super) fn unreadable(error: &io::Error) -> Self {
        Self::Unreadable { kind: error.kind(), message: error.to_string() }
    }

    pub(super) fn of(self, path: &[u8]) -> Problem {
        Problem { path: path.to_owned(), discrepancy: self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", String::from_utf8_lossy(&self.path), self.discrepancy)
    }
}
