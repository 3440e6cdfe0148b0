//! Archives of a backup become files, each compared with the manifest while it is written.
//!
//! ```text
//! thread: stored archive → decompress ─┐ bounded queue
//!                                      ▼
//!                     tar members → hash → write → syncer threads
//!                                      ▲
//!                     manifest, in the same order
//! ```
//!
//! `global/pg_control` gets a temporary name: without it no server starts, so an interrupted
//! restore cannot be mistaken for a complete one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use pgwire_stream::manifest::{FileHasher, ManifestError, ManifestFile};
use tokio::sync::watch;

use super::beneath::Root;
use super::syncer::Syncer;
use crate::catalog::{ManifestFiles, ManifestFilesError};
use crate::failure::Failure;
use crate::progress::ProgressSink;
use crate::storage::tar::{Member, MemberKind, TarError, TarEvent, TarReader};
use crate::storage::{StorageError, read_ahead};

/// The file without which no server starts.
pub(super) const PG_CONTROL: &[u8] = b"global/pg_control";
/// Its name until everything else is in place.
pub(super) const PG_CONTROL_WITHHELD: &[u8] = b"global/pg_control.restoring";

/// Why an archive did not become files.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// A file cannot be written, or the store not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The stored archive cannot be read or decompressed.
    #[error("cannot read the stored archive `{archive}`")]
    Read {
        /// Its name in the backup.
        archive: String,
        /// What reading said.
        source: io::Error,
    },
    /// The stored archive is not what was stored.
    #[error("the stored archive `{archive}` does not match its checksum")]
    Altered {
        /// Its name in the backup.
        archive: String,
    },
    /// The stored archive is not a tar as PostgreSQL sends it.
    #[error("the stored archive `{archive}` is damaged")]
    Tar {
        /// Its name in the backup.
        archive: String,
        /// What is wrong with it.
        source: TarError,
    },
    /// The stored manifest is not what the server wrote.
    #[error("the stored manifest `{}` is damaged", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// The archive holds a file where the manifest has another, or none.
    #[error("`{path}` is in the stored archive, where the manifest has {expected}")]
    Unexpected {
        /// The file in the archive.
        path: String,
        /// What the manifest has.
        expected: String,
    },
    /// A file is not what was backed up.
    #[error("`{path}` in the stored backup does not match its {what} in the manifest")]
    Mismatch {
        /// The file.
        path: String,
        /// What does not match.
        what: &'static str,
    },
    /// The manifest has a file that no archive holds.
    #[error("`{path}` is in the manifest, but in no stored archive")]
    Missing {
        /// The file.
        path: String,
    },
    /// The user does not want it any more.
    #[error("interrupted")]
    Interrupted,
}

impl Failure for ExtractError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Storage(error) => error.hint(),
            _ => Some(
                "the stored backup cannot be trusted any more; remove what was restored and \
                 restore another backup"
                    .to_owned(),
            ),
        }
    }
}

/// What came out of the archives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extracted {
    /// How many files.
    pub(super) files: u64,
    /// How many bytes in them.
    pub(super) bytes: u64,
    /// Whether the cluster lets the server's group read it (11 and later).
    pub(super) group_access: bool,
}

/// Turns the archives of one backup into files. They must come in the order of the manifest.
pub(super) struct Extractor<'a> {
    expected: ManifestFiles,
    syncer: &'a Syncer,
    progress: &'a dyn ProgressSink,
    interrupted: &'a watch::Receiver<bool>,
    /// Servers before 11 refuse to start from what their group may read.
    allow_group: bool,
    /// Bytes of archives that are done.
    done: u64,
    extracted: Extracted,
}

/// The file that is being written.
struct Open {
    path: Vec<u8>,
    expected: ManifestFile,
    hasher: Option<FileHasher>,
    file: File,
}

impl<'a> Extractor<'a> {
    /// An extractor for the backup whose manifest this is.
    pub(super) fn new(
        expected: ManifestFiles,
        syncer: &'a Syncer,
        progress: &'a dyn ProgressSink,
        interrupted: &'a watch::Receiver<bool>,
        allow_group: bool,
    ) -> Self {
        let extracted = Extracted::default();
        Self { expected, syncer, progress, interrupted, allow_group, done: 0, extracted }
    }

    /// Extracts one archive below `root`. `prefix` is where the root lies in the data directory:
    /// empty, or `pg_tblspc/<oid>/`.
    ///
    /// # Errors
    /// If anything in it is not what the manifest says, or cannot be written. What was written so
    /// far stays.
    pub(super) fn archive(
        &mut self,
        archive: &str,
        prefix: &[u8],
        root: &mut Root,
        stored: Box<dyn Read + Send>,
    ) -> Result<(), ExtractError> {
        read_ahead(stored, |pieces| {
            let mut reader = TarReader::new();
            let mut file = None;
            for piece in pieces {
                let piece = piece
                    .map_err(|source| ExtractError::Read { archive: archive.to_owned(), source })?;
                let mut bytes = piece.as_slice();
                while let Some(event) =
                    reader.feed(&mut bytes).map_err(|source| damaged(archive, source))?
                {
                    self.event(event, prefix, root, &mut file)?;
                }
                self.progress.advance_to(self.done + reader.position());
                if *self.interrupted.borrow() {
                    return Err(ExtractError::Interrupted);
                }
            }
            self.done += reader.position();
            reader.finish().map(drop).map_err(|source| damaged(archive, source))
        })
    }

    /// Says that there are no more archives.
    ///
    /// # Errors
    /// If the manifest has more files, or is itself not what the server wrote.
    pub(super) fn finish(mut self) -> Result<Extracted, ExtractError> {
        if let Some(file) = self.expected.next_file()? {
            return Err(ExtractError::Missing { path: shown(&file.path) });
        }
        self.expected.finish()?;
        Ok(self.extracted)
    }

    fn event(
        &mut self,
        event: TarEvent<'_>,
        prefix: &[u8],
        root: &mut Root,
        open: &mut Option<Open>,
    ) -> Result<(), ExtractError> {
        match event {
            TarEvent::Member(member) if member.kind == MemberKind::Directory => {
                let mode = self.mode(&member, 0o700, 0o050);
                self.extracted.group_access |= mode & 0o050 != 0;
                root.make_dir(&member.path, mode)?;
            }
            TarEvent::Member(member) => *open = Some(self.begin(&member, prefix, root)?),
            TarEvent::Content(bytes) => {
                if let Some(open) = open {
                    if let Some(hasher) = &mut open.hasher {
                        hasher.update(bytes);
                    }
                    open.file
                        .write_all(bytes)
                        .map_err(StorageError::of("write", &root.resolve(&open.path)))?;
                    self.extracted.bytes += bytes.len() as u64;
                }
            }
            TarEvent::MemberEnd => {
                if let Some(open) = open.take() {
                    self.end(open, root)?;
                }
            }
        }
        Ok(())
    }

    fn begin(
        &mut self,
        member: &Member,
        prefix: &[u8],
        root: &mut Root,
    ) -> Result<Open, ExtractError> {
        let full = [prefix, &member.path].concat();
        let expected = match self.expected.next_file()? {
            Some(expected) if expected.path == full => expected,
            other => {
                return Err(ExtractError::Unexpected {
                    path: shown(&full),
                    expected: other.map_or("no more files".to_owned(), |file| {
                        format!("`{}`", shown(&file.path))
                    }),
                });
            }
        };
        if expected.size != member.size {
            return Err(ExtractError::Mismatch { path: shown(&full), what: "size" });
        }
        let path =
            if full == PG_CONTROL { PG_CONTROL_WITHHELD.to_vec() } else { member.path.clone() };
        let file = root.create(&path, self.mode(member, 0o600, 0o040))?;
        let hasher = expected.checksum.as_ref().map(|(algorithm, _)| algorithm.hasher());
        Ok(Open { path, expected, hasher, file })
    }

    fn end(&mut self, open: Open, root: &Root) -> Result<(), ExtractError> {
        let computed = open.hasher.map(FileHasher::finish);
        if computed.as_ref() != open.expected.checksum.as_ref().map(|(_, digest)| digest) {
            return Err(ExtractError::Mismatch {
                path: shown(&open.expected.path),
                what: "checksum",
            });
        }
        self.extracted.files += 1;
        self.syncer.sync(open.file, root.resolve(&open.path));
        Ok(())
    }

    fn mode(&self, member: &Member, owner: u32, group: u32) -> u32 {
        if self.allow_group { owner | (member.mode & group) } else { owner }
    }
}

impl From<ManifestFilesError> for ExtractError {
    fn from(error: ManifestFilesError) -> Self {
        match error {
            ManifestFilesError::Storage(error) => Self::Storage(error),
            ManifestFilesError::Damaged { path, source } => Self::Manifest { path, source },
        }
    }
}

/// A path of an archive, for messages.
fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn damaged(archive: &str, source: TarError) -> ExtractError {
    ExtractError::Tar { archive: archive.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use pgwire_stream::manifest::{ChecksumAlgorithm, ManifestWriter};

    use super::super::syncer::with_syncer;
    use super::*;
    use crate::progress::Silent;
    use crate::storage::tar::TERMINATOR;

    fn member(archive: &mut Vec<u8>, name: &str, kind: tar::EntryType, mode: u32, content: &[u8]) {
        let mut header = tar::Header::new_ustar();
        header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_mtime(0);
        header.set_cksum();
        archive.extend_from_slice(header.as_bytes());
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }

    fn file(archive: &mut Vec<u8>, name: &str, content: &[u8]) {
        member(archive, name, tar::EntryType::Regular, 0o640, content);
    }

    fn manifest(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = ManifestWriter::version_1(Vec::new()).unwrap();
        for (path, content) in files {
            let mut hasher = ChecksumAlgorithm::Sha256.hasher();
            hasher.update(content);
            writer
                .file(&ManifestFile {
                    path: path.as_bytes().to_vec(),
                    size: content.len() as u64,
                    modified: "2026-03-05 15:11:33 GMT".to_owned(),
                    checksum: Some((ChecksumAlgorithm::Sha256, hasher.finish())),
                })
                .unwrap();
        }
        writer.finish(&[]).unwrap()
    }

    /// Extracts `(prefix, archive)` into `to`.
    fn extract(
        to: &Path,
        manifest: &[u8],
        archives: &[(&str, &[u8])],
    ) -> Result<Extracted, ExtractError> {
        let stored = tempfile::tempdir().unwrap();
        let manifest_path = stored.path().join("backup_manifest");
        fs::write(&manifest_path, manifest).unwrap();
        with_syncer(|syncer| {
            let expected = ManifestFiles::open(&manifest_path)?;
            let (_wish, interrupted) = watch::channel(false);
            let mut extractor = Extractor::new(expected, syncer, &Silent, &interrupted, true);
            for (prefix, archive) in archives {
                let mut root = Root::open(to, None)?;
                let archive = archive.to_vec();
                let stored = Box::new(io::Cursor::new(archive));
                extractor.archive("base.tar", prefix.as_bytes(), &mut root, stored)?;
            }
            extractor.finish()
        })
    }

    #[test]
    fn files_come_out_as_they_went_in() {
        let large = vec![3; 700_000];
        let files: &[(&str, &[u8])] = &[
            ("backup_label", b"START"),
            ("base/1/1259", &large),
            ("global/pg_control", b"control"),
        ];
        let mut base = Vec::new();
        file(&mut base, files[0].0, files[0].1);
        for directory in ["base/", "base/1/", "global/"] {
            member(&mut base, directory, tar::EntryType::Directory, 0o755, b"");
        }
        file(&mut base, files[1].0, files[1].1);
        file(&mut base, files[2].0, files[2].1);
        base.extend_from_slice(&TERMINATOR);
        let dir = tempfile::tempdir().unwrap();
        let extracted = extract(dir.path(), &manifest(files), &[("", &base)]).unwrap();
        assert_eq!(extracted, Extracted { files: 3, bytes: 700_012, group_access: true });
        assert_eq!(fs::read(dir.path().join("base/1/1259")).unwrap(), large);
        assert_eq!(fs::read(dir.path().join("global/pg_control.restoring")).unwrap(), b"control");
        assert!(!dir.path().join("global/pg_control").exists());
        let mode =
            |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("base/1"), mode("base/1/1259")), (0o750, 0o640));
    }

    #[test]
    fn tablespaces_are_compared_below_their_oid() {
        let files: &[(&str, &[u8])] = &[("pg_tblspc/16386/PG_15_202209061/5/16387", b"row")];
        let mut archive = Vec::new();
        member(&mut archive, "PG_15_202209061/", tar::EntryType::Directory, 0o700, b"");
        member(&mut archive, "PG_15_202209061/5/", tar::EntryType::Directory, 0o700, b"");
        file(&mut archive, "PG_15_202209061/5/16387", b"row");
        let dir = tempfile::tempdir().unwrap();
        let archives = [("pg_tblspc/16386/", &archive[..])];
        extract(dir.path(), &manifest(files), &archives).unwrap();
        assert_eq!(fs::read(dir.path().join("PG_15_202209061/5/16387")).unwrap(), b"row");
    }

    #[test]
    fn what_differs_from_the_manifest_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let extracted = |files: &[(&str, &[u8])], members: &[(&str, &[u8])]| {
            let mut archive = Vec::new();
            for (name, content) in members {
                file(&mut archive, name, content);
            }
            let to = tempfile::tempdir_in(&dir).unwrap();
            extract(to.path(), &manifest(files), &[("", &archive)]).unwrap_err().to_string()
        };
        assert_eq!(
            extracted(&[("a", b"one")], &[("a", b"two")]),
            "`a` in the stored backup does not match its checksum in the manifest"
        );
        assert_eq!(
            extracted(&[("a", b"one")], &[("a", b"three")]),
            "`a` in the stored backup does not match its size in the manifest"
        );
        assert_eq!(
            extracted(&[("a", b"one")], &[("a", b"one"), ("b", b"")]),
            "`b` is in the stored archive, where the manifest has no more files"
        );
        assert_eq!(
            extracted(&[("a", b""), ("b", b"")], &[("b", b""), ("a", b"")]),
            "`b` is in the stored archive, where the manifest has `a`"
        );
        assert_eq!(
            extracted(&[("a", b""), ("b", b"")], &[("a", b"")]),
            "`b` is in the manifest, but in no stored archive"
        );
    }

    #[test]
    fn an_altered_manifest_or_a_torn_archive_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut archive = Vec::new();
        file(&mut archive, "a", b"one");
        let good = manifest(&[("a", b"one")]);
        let altered = String::from_utf8(good.clone()).unwrap().replace("15:11:33", "15:11:34");
        let error = extract(dir.path(), altered.as_bytes(), &[("", &archive)]).unwrap_err();
        assert!(matches!(error, ExtractError::Manifest { .. }), "{error}");
        let other = tempfile::tempdir().unwrap();
        let error = extract(other.path(), &good, &[("", &archive[..700])]).unwrap_err();
        assert!(matches!(error, ExtractError::Tar { .. }), "{error}");
    }

    #[test]
    fn hostile_members_write_nothing_outside() {
        let outside = tempfile::tempdir().unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
        let kinds = [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Fifo];
        for (name, kind) in [
            ("../evil", tar::EntryType::Regular),
            ("/tmp/evil", tar::EntryType::Regular),
            ("link/evil", tar::EntryType::Regular),
            ("link", tar::EntryType::Regular),
            ("link/", tar::EntryType::Directory),
        ]
        .into_iter()
        .chain(kinds.map(|kind| ("evil", kind)))
        {
            let mut archive = Vec::new();
            member(&mut archive, name, kind, 0o777, b"");
            // Even when the manifest was made to agree.
            let listing = manifest(&[(name, b"")]);
            extract(dir.path(), &listing, &[("", &archive)]).unwrap_err();
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
