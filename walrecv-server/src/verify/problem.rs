//! What can be wrong with a stored backup.

use std::path::PathBuf;

use pgwire_stream::manifest::ChecksumAlgorithm;
use pgwire_stream::{Lsn, SegmentName};

use crate::backup::pages::DamagedPage;

/// How many problems are told apart. A disk that lost a million files is not better known by all
/// of their names.
const MOST: usize = 1000;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A file of the store is not there.
    #[error("`{}` is missing", file.display())]
    Gone {
        /// The file.
        file: PathBuf,
    },
    /// A file of the store cannot be read to its end.
    #[error("`{}` cannot be read: {error}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why not.
        error: String,
    },
    /// A file of the store has another size than was written.
    #[error("`{}` has {found} bytes instead of {expected}", file.display())]
    StoredSize {
        /// The file.
        file: PathBuf,
        /// Its size.
        found: u64,
        /// What was written.
        expected: u64,
    },
    /// A file of the store has other bytes than were written.
    #[error("`{}` does not match the checksum that was noted when it was stored", file.display())]
    StoredChecksum {
        /// The file.
        file: PathBuf,
    },
    /// The index of an archive does not describe it.
    #[error("`{}` does not describe its archive: {what}", file.display())]
    Index {
        /// The index.
        file: PathBuf,
        /// Where they differ.
        what: String,
    },
    /// The manifest is none, or was altered.
    #[error("`{}` is damaged: {error}", file.display())]
    Manifest {
        /// The manifest.
        file: PathBuf,
        /// What is wrong with it.
        error: String,
    },
    /// An archive cannot be unpacked.
    #[error("`{}` cannot be unpacked behind byte {at}{}: {error}", file.display(), within(inside.as_deref()))]
    Archive {
        /// The archive.
        file: PathBuf,
        /// How many plain bytes came before.
        at: u64,
        /// The file of the cluster that is cut by it.
        inside: Option<String>,
        /// What is wrong with it.
        error: String,
    },
    /// The backup that it builds on is gone, or one below that.
    #[error("a backup that it builds on is gone, or not complete: it cannot be restored")]
    Parent,
    /// The search did not come to its end.
    #[error("not everything could be looked at: {error}")]
    Unfinished {
        /// Why not.
        error: String,
    },
    /// A file of the cluster is in the manifest, but in no archive.
    #[error("`{path}` is in the manifest, but not in the archive")]
    FileMissing {
        /// The file.
        path: String,
    },
    /// A file of the cluster is in an archive, but not in the manifest.
    #[error("`{path}` is in the archive, but not in the manifest")]
    FileExtra {
        /// The file.
        path: String,
    },
    /// A file of the cluster has another size.
    #[error("`{path}` has {found} bytes, but {expected} in the manifest")]
    FileSize {
        /// The file.
        path: String,
        /// Its size in the archive.
        found: u64,
        /// Its size in the manifest.
        expected: u64,
    },
    /// A file of the cluster has another content.
    #[error("`{path}` does not match its {algorithm} checksum in the manifest")]
    FileChecksum {
        /// The file.
        path: String,
        /// How the checksum is computed.
        algorithm: ChecksumAlgorithm,
    },
    /// A page does not match its checksum: it was damaged on the server already.
    #[error("{0}")]
    Page(DamagedPage),
    /// WAL that the backup needs is still to come: that is no fault of it.
    #[error("its WAL is not all here yet: from {from} up to {needed} it is still to come")]
    WalAwaited {
        /// The first byte that is not here.
        from: Lsn,
        /// The end of the backup.
        needed: Lsn,
    },
    /// WAL that the backup needs is not held.
    #[error("the WAL segment {segment} is missing")]
    WalMissing {
        /// The segment.
        segment: SegmentName,
    },
    /// Some of a segment that the backup needs is not held.
    #[error("the WAL segment {segment} is held up to {to} only")]
    WalShort {
        /// The segment.
        segment: SegmentName,
        /// Where what is held of it ends.
        to: Lsn,
    },
    /// There are no records up to the end of the backup.
    #[error("the WAL ends with a record that ends at {to}, and the backup needs it up to {needed}")]
    WalEnds {
        /// Where the last valid record ends.
        to: Lsn,
        /// The end of the backup.
        needed: Lsn,
    },
    /// WAL that PostgreSQL could not replay.
    #[error("the WAL from {from} to {to} cannot be replayed: {what}")]
    WalSuspect {
        /// Its first byte.
        from: Lsn,
        /// The byte behind it.
        to: Lsn,
        /// What is wrong with it.
        what: String,
    },
}

impl Problem {
    /// Whether the backup is not any more what was stored. The WAL that it needs, and those that it
    /// builds on, are looked at whenever somebody asks what it is worth.
    pub fn is_damage(&self) -> bool {
        !matches!(
            self,
            Self::Parent
                | Self::Unfinished { .. }
                | Self::Page(_)
                | Self::WalAwaited { .. }
                | Self::WalMissing { .. }
                | Self::WalShort { .. }
                | Self::WalEnds { .. }
                | Self::WalSuspect { .. }
        )
    }
}

fn within(path: Option<&str>) -> String {
    path.map(|path| format!(", in `{path}`")).unwrap_or_default()
}

/// What is wrong, in the order in which it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    told: Vec<Problem>,
    more: u64,
}

impl Problems {
    pub(super) fn add(&mut self, problem: Problem) {
        if self.told.len() < MOST {
            self.told.push(problem);
        } else {
            self.more += 1;
        }
    }

    /// Those that are told apart.
    pub fn told(&self) -> &[Problem] {
        &self.told
    }

    /// How many there are besides.
    pub fn more(&self) -> u64 {
        self.more
    }

    /// Whether nothing is wrong, but WAL is still to come.
    pub fn only_wait(&self) -> bool {
        matches!(self.told(), [Problem::WalAwaited { .. }])
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_counted() {
        let mut problems = Problems::default();
        for number in 0..MOST + 7 {
            problems.add(Problem::FileExtra { path: number.to_string() });
        }
        assert_eq!((problems.told().len(), problems.more()), (MOST, 7));
        assert!(!problems.is_empty());
    }
}
