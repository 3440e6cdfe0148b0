//! Paths below the directory of a backup: which are listed, which do not matter, where they lie.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Where the links to tablespaces are: the only ones that are followed.
pub(super) const TABLESPACE_LINKS: &[u8] = b"pg_tblspc";

/// What `pg_verifybackup` does not look at.
const NEVER: [&str; 5] =
    ["backup_manifest", "pg_wal", "postgresql.auto.conf", "recovery.signal", "standby.signal"];

/// Paths that are not looked at.
#[derive(Debug)]
pub(super) struct Ignored<'a>(&'a [Vec<u8>]);

impl<'a> Ignored<'a> {
    pub(super) const fn new(more: &'a [Vec<u8>]) -> Self {
        Self(more)
    }

    /// Whether it is one of them or lies below one.
    pub(super) fn covers(&self, path: &[u8]) -> bool {
        NEVER.iter().map(|path| path.as_bytes()).chain(self.0.iter().map(Vec::as_slice)).any(
            |ignored| {
                path.strip_prefix(ignored)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
            },
        )
    }
}

/// Paths by the first half of their SHA-256: nobody can make two that are taken for one.
#[derive(Debug, Default)]
pub(super) struct PathSet {
    digests: Vec<u128>,
    repeated: Vec<u128>,
}

impl PathSet {
    pub(super) fn insert(&mut self, path: &[u8]) {
        self.digests.push(digest(path));
    }

    /// Makes it ready to be asked.
    pub(super) fn seal(&mut self) {
        self.digests.sort_unstable();
        self.repeated = self
            .digests
            .windows(2)
            .filter_map(|pair| match pair {
                [first, second] if first == second => Some(*first),
                _ => None,
            })
            .collect();
    }

    pub(super) fn len(&self) -> u64 {
        self.digests.len() as u64
    }

    pub(super) fn contains(&self, path: &[u8]) -> bool {
        self.digests.binary_search(&digest(path)).is_ok()
    }

    /// Whether it was inserted more than once.
    pub(super) fn is_repeated(&self, path: &[u8]) -> bool {
        !self.repeated.is_empty() && self.repeated.binary_search(&digest(path)).is_ok()
    }
}

fn digest(path: &[u8]) -> u128 {
    let digest = Sha256::digest(path);
    u128::from_be_bytes(digest.first_chunk().copied().unwrap_or_default())
}

/// A path with the name of something in it; `directory` is empty for the backup's own.
pub(super) fn joined(directory: &[u8], name: &OsStr) -> Vec<u8> {
    let name = name.as_encoded_bytes();
    if directory.is_empty() { name.to_owned() } else { [directory, b"/", name].concat() }
}

/// Where a path of a manifest lies; `None` for one that cannot be on this file system.
pub(super) fn located(root: &Path, path: &[u8]) -> Option<PathBuf> {
    #[cfg(unix)]
    let path: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(path);
    #[cfg(not(unix))]
    let path: &OsStr = str::from_utf8(path).ok()?.as_ref();
    Some(root.join(path))
}

/// Whether this is the link to a tablespace's directory.
pub(super) fn is_tablespace_link(path: &[u8], on_disk: &Path) -> io::Result<bool> {
    let name = path
        .strip_prefix(TABLESPACE_LINKS)
        .and_then(|rest| rest.strip_prefix(b"/"))
        .filter(|name| !name.contains(&b'/'));
    Ok(name.is_some() && fs::metadata(on_disk)?.is_dir())
}
