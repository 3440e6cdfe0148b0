//! Verifying the directory of a backup against its manifest, as `pg_verifybackup` does. The only
//! module of [`manifest`](super) that touches files.
//!
//! ```text
//!  manifest, once ──▶ intact? 16 bytes of each path ─┐
//!  directory, all of it ─────────────────────────────┴▶ what is too many, what is no file
//!  manifest, again ──▶ file by file ─▶ what is missing, has another size, another content
//! ```
//!
//! Memory is 16 bytes for each file of the backup and nothing that grows with their sizes: a
//! digest of its path, by which the walk through the directory knows it. So there is nothing to
//! sort on disk, and the manifest can be larger than memory.

mod error;
mod files;
mod paths;
mod problem;
#[cfg(test)]
#[cfg(unix)]
mod tests;
mod walk;

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use super::{ManifestFile, ManifestItem, ManifestReader, WalRange};
use crate::SystemId;
use files::Files;
use paths::{Ignored, PathSet};

pub use error::VerifyError;
pub use problem::{Discrepancy, Problem};

const READ_SIZE: usize = 128 * 1024;

/// What to verify, and what to leave out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VerifyOptions {
    /// Where the manifest is; `None` is `backup_manifest` in the directory.
    pub manifest: Option<PathBuf>,
    /// Whether to read the files and compare their checksums. Without, only their presence and
    /// sizes are verified. Default true.
    pub checksums: bool,
    /// Paths below the directory that are not looked at, with all below them, beside those that
    /// never are: `backup_manifest`, `pg_wal`, `postgresql.auto.conf`, `recovery.signal` and
    /// `standby.signal`.
    pub ignore: Vec<Vec<u8>>,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self { manifest: None, checksums: true, ignore: Vec::new() }
    }
}

/// What was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// The version of the manifest.
    pub version: u32,
    /// The cluster that the manifest names; only in version 2.
    pub system_id: Option<SystemId>,
    /// How many files the manifest lists.
    pub files: u64,
    /// How many bytes were read to compare checksums.
    pub bytes: u64,
    /// How many problems were reported. With none, the directory is the backup, but for its WAL.
    pub problems: u64,
    /// The WAL that the backup needs, which is not looked at.
    pub wal: Vec<WalRange>,
}

/// Verifies an unpacked backup against its manifest, and reports every problem as it is found.
///
/// What `pg_verifybackup` says of a directory, this says too, and of backups of every version. Two
/// things differ: symbolic links are followed only where a backup has some, in `pg_tblspc`, and are
/// problems elsewhere; and a `pg_control` that is not right is a problem like others, not the end.
/// The WAL is not read.
///
/// It reads the whole backup and returns when it is done: give it a thread of its own.
///
/// # Errors
/// If the manifest cannot be read or is not intact, so that there is nothing to compare with; or
/// if the directory cannot be read at all.
pub fn verify_directory(
    directory: &Path,
    options: &VerifyOptions,
    mut report: impl FnMut(Problem),
) -> Result<Verified, VerifyError> {
    let path = options.manifest.clone().unwrap_or_else(|| directory.join("backup_manifest"));
    let mut manifest = Manifest {
        file: File::open(&path).map_err(|err| VerifyError::io("open", &path, &err))?,
        path,
    };
    let mut verified =
        Verified { version: 0, system_id: None, files: 0, bytes: 0, problems: 0, wal: Vec::new() };
    let mut listed = PathSet::default();
    manifest.read(|item| {
        match item {
            ManifestItem::Version(version) => verified.version = version,
            ManifestItem::SystemId(id) => verified.system_id = Some(id),
            ManifestItem::File(file) => listed.insert(&file.path),
            ManifestItem::WalRange(range) => verified.wal.push(range),
        }
        Ok(())
    })?;
    listed.seal();
    verified.files = listed.len();

    let ignored = Ignored::new(&options.ignore);
    let mut problems = 0;
    let mut report = |problem| {
        problems += 1;
        report(problem);
    };
    walk::walk(directory, &ignored, &listed, &mut report)?;
    let mut files = Files::new(directory, options.checksums, verified.system_id);
    manifest.files(|file| {
        if listed.is_repeated(&file.path) {
            return Err(VerifyError::Repeated { path: file.path });
        }
        if !ignored.covers(&file.path) {
            files.verify(&file, &mut report);
        }
        Ok(())
    })?;
    verified.bytes = files.bytes_read();
    verified.problems = problems;
    Ok(verified)
}

/// The manifest on disk, which is read twice.
struct Manifest {
    path: PathBuf,
    file: File,
}

impl Manifest {
    fn files(
        &mut self,
        mut each: impl FnMut(ManifestFile) -> Result<(), VerifyError>,
    ) -> Result<(), VerifyError> {
        self.read(|item| match item {
            ManifestItem::File(file) => each(file),
            _ => Ok(()),
        })
    }

    fn read(
        &mut self,
        mut each: impl FnMut(ManifestItem) -> Result<(), VerifyError>,
    ) -> Result<(), VerifyError> {
        let broken = |source| VerifyError::Manifest { path: self.path.clone(), source };
        let unreadable = |err| VerifyError::io("read", &self.path, &err);
        self.file.rewind().map_err(unreadable)?;
        let mut reader = ManifestReader::new();
        let mut buffer = vec![0; READ_SIZE];
        loop {
            let bytes = next_bytes(&mut self.file, &mut buffer).map_err(unreadable)?;
            if bytes.is_empty() {
                return reader.finish().map_err(broken);
            }
            for item in reader.feed(bytes).map_err(broken)? {
                each(item)?;
            }
        }
    }
}

/// The next bytes of a file; none at its end.
fn next_bytes<'b>(file: &mut File, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
    loop {
        match file.read(buffer) {
            Ok(length) => return Ok(buffer.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
