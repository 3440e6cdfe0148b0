//! A manifest made again from the stored archives, where the one that was stored is lost.
//!
//! It is made only of archives that are still what was stored, so it lists what was backed up.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::num::NonZeroUsize;

use pgwire_stream::ServerVersion;
use pgwire_stream::manifest::{ChecksumAlgorithm, FileHasher, ManifestFile, ManifestWriter};
use tokio::sync::watch;

use super::stored::Summing;
use crate::backup::made_manifest::{modified, wal_ranges};
use crate::catalog::{
    BackupError, BackupOutcome, BackupRecord, Catalog, HistoryStoreError, Manifest, ManifestOrigin,
    history_of, read_archive,
};
use crate::failure::{Class, Failure, in_one_line};
use crate::progress::ProgressSink;
use crate::storage::durable::AtomicFile;
use crate::storage::tar::{Member, MemberKind, TarEvent, TarReader};
use crate::storage::{
    BackupId, DecryptionError, HashingWriter, KeyFile, ServerDir, ServerLock, StorageError,
    encryption,
};

/// From this version on manifests say which cluster they are of.
const VERSION_2: ServerVersion = ServerVersion::from_num(170_000);

/// Why no manifest was made.
#[derive(Debug, thiserror::Error)]
pub enum ManifestAgainError {
    /// There is one.
    #[error("backup `{backup}` has its manifest")]
    Exists {
        /// The backup.
        backup: BackupId,
    },
    /// It is no whole backup.
    #[error("backup `{backup}` is not complete")]
    NotComplete {
        /// The backup.
        backup: BackupId,
    },
    /// An archive is not what was stored.
    #[error("the stored archive `{archive}` of backup `{backup}` is damaged: {what}")]
    Damaged {
        /// The backup.
        backup: BackupId,
        /// The archive's name in it.
        archive: String,
        /// What is wrong with it.
        what: String,
    },
    /// The record cannot be written.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// An archive cannot be decrypted.
    #[error(transparent)]
    Decryption(#[from] DecryptionError),
    /// The history of its timeline cannot be read.
    #[error(transparent)]
    History(#[from] HistoryStoreError),
    /// The store cannot be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The user does not want it any more.
    #[error("the work was interrupted")]
    Interrupted,
}

impl Failure for ManifestAgainError {
    fn class(&self) -> Class {
        match self {
            Self::Exists { .. } => Class::Refused,
            Self::Interrupted => Class::Interrupted,
            Self::NotComplete { .. } | Self::Damaged { .. } => Class::Failed,
            Self::Backup(error) => error.class(),
            Self::Decryption(error) => error.class(),
            Self::History(error) => error.class(),
            Self::Storage(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Exists { .. } => Some(
                "`verify-backup` says whether it is good; one that is damaged can be moved away"
                    .to_owned(),
            ),
            Self::NotComplete { .. } | Self::Interrupted => None,
            Self::Damaged { .. } => {
                Some("nobody can tell any more what was backed up; take another backup".to_owned())
            }
            Self::Backup(error) => error.hint(),
            Self::Decryption(error) => error.hint(),
            Self::History(error) => error.hint(),
            Self::Storage(error) => error.hint(),
        }
    }
}

/// Makes the manifest of a backup again, and notes it in the record. How many files are in it.
///
/// # Errors
/// If there is one, the archives are not what was stored, or it cannot be written.
pub fn make_manifest_again(
    server: &ServerDir,
    mut record: BackupRecord,
    keys: Option<&KeyFile>,
    jobs: NonZeroUsize,
    progress: &dyn ProgressSink,
    interrupted: &watch::Receiver<bool>,
    _backup: &ServerLock,
) -> Result<u64, ManifestAgainError> {
    let backup = server.backup(record.id);
    let (BackupOutcome::Copied, Some(begin), Some(end)) =
        (&record.outcome, record.begin, record.end)
    else {
        return Err(ManifestAgainError::NotComplete { backup: record.id });
    };
    let target = backup.manifest();
    if target.symlink_metadata().is_ok() {
        return Err(ManifestAgainError::Exists { backup: record.id });
    }
    let algorithm = record.manifest.as_ref().and_then(|manifest| {
        manifest.checksum_algorithm.as_ref().and_then(|algorithm| algorithm.parse().ok())
    });
    let algorithm = algorithm.unwrap_or(ChecksumAlgorithm::Crc32c);
    let failed = |error| StorageError::of("write", &target)(error);
    let file = AtomicFile::create(&target, server.access())?;
    let sink = HashingWriter::new(BufWriter::new(file));
    let writer = if record.server_version >= VERSION_2 {
        ManifestWriter::version_2(sink, record.system_id)
    } else {
        ManifestWriter::version_1(sink)
    };
    let mut listing = Listing {
        writer: writer.map_err(failed)?.as_written_by(record.server_version),
        algorithm,
        open: None,
        files: 0,
    };
    progress.begin("reading archives", Some(record.plain_size()));
    let mut done = 0;
    for archive in &record.archives {
        let path = backup.archive(&archive.name, archive.form());
        let damaged = |what: String| ManifestAgainError::Damaged {
            backup: record.id,
            archive: archive.name.clone(),
            what,
        };
        let stored = File::open(&path).map_err(StorageError::of("open", &path))?;
        let (stored, sum) = Summing::new(stored, archive.fingerprint(), None);
        let compressed = encryption::compressed(&path, stored, archive.form(), keys)?;
        let prefix = archive.prefix();
        let mut tar = TarReader::new();
        read_archive(&backup, archive, compressed, jobs, |pieces| {
            for piece in pieces {
                let piece = piece.map_err(|error| damaged(in_one_line(&error)))?;
                let mut bytes = &piece[..];
                while let Some(event) =
                    tar.feed(&mut bytes).map_err(|error| damaged(in_one_line(&error)))?
                {
                    listing.take(event, &prefix).map_err(failed)?;
                }
                progress.advance_to(done + tar.position());
                if *interrupted.borrow() {
                    return Err(ManifestAgainError::Interrupted);
                }
            }
            Ok(())
        })??;
        done += tar.position();
        tar.finish().map_err(|error| damaged(in_one_line(&error)))?;
        if Some(sum.taken()) != archive.fingerprint() {
            return Err(damaged("it does not match its checksum".to_owned()));
        }
    }
    progress.finish();
    let history = history_of(server, begin, end)?;
    let ranges = wal_ranges(&history, begin, end).unwrap_or_default();
    let files = listing.files;
    let mut sink = listing.writer.finish(&ranges).map_err(failed)?;
    sink.flush().map_err(failed)?;
    let (buffered, stored) = sink.finish();
    let file = buffered.into_inner().map_err(|error| failed(error.into_error()))?;
    let lost = record.manifest.as_ref();
    if lost.is_none_or(|lost| lost.size != stored.size || lost.sha256 != stored.sha256) {
        // The record first: with it, a manifest that is not there can be made again.
        record.manifest = Some(Manifest {
            origin: ManifestOrigin::Receipt,
            checksum_algorithm: Some(algorithm.name().to_owned()),
            size: stored.size,
            sha256: stored.sha256,
        });
        Catalog::new(server).save(&record)?;
    }
    file.commit()?;
    Ok(files)
}

/// The manifest, while archives pass by.
struct Listing<W: Write> {
    writer: ManifestWriter<W>,
    algorithm: ChecksumAlgorithm,
    open: Option<(Member, FileHasher)>,
    files: u64,
}

impl<W: Write> Listing<W> {
    fn take(&mut self, event: TarEvent<'_>, prefix: &str) -> std::io::Result<()> {
        match event {
            TarEvent::Member(member) if member.kind == MemberKind::File => {
                self.open = Some((member, self.algorithm.hasher()));
            }
            TarEvent::Member(_) => self.open = None,
            TarEvent::Content(bytes) => {
                if let Some((_, hasher)) = &mut self.open {
                    hasher.update(bytes);
                }
            }
            TarEvent::MemberEnd => {
                if let Some((member, hasher)) = self.open.take() {
                    self.files += 1;
                    self.writer.file(&ManifestFile {
                        path: [prefix.as_bytes(), &member.path].concat(),
                        size: member.size,
                        modified: modified(member.modified),
                        checksum: Some((self.algorithm, hasher.finish())),
                    })?;
                }
            }
        }
        Ok(())
    }
}
