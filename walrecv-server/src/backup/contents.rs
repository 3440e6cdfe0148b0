//! The files of a backup, made of the events of the stream. Blocks; knows no sockets.

use std::io::Write;
use std::mem;

use pgwire_stream::{BackupEvent, SystemId};

use super::BackupError;
use super::archive::{ArchiveOptions, ArchiveWriter};
use super::check::Check;
use super::look::Findings;
use super::spool::{SpoolReader, SpoolWriter};
use crate::catalog::{self, DamagedPages};
use crate::storage::durable::AtomicFile;
use crate::storage::{BackupDir, Commits, HashingWriter, StorageError, Stored};

/// Takes the events of a base backup in their order and writes its files.
///
/// ```text
///   Between ──ArchiveStart──▶ Archive ──ArchiveData…, ArchiveEnd──▶ Between ──ManifestStart──▶ Manifest
/// ```
pub(super) struct ContentsWriter {
    directory: BackupDir,
    system_id: SystemId,
    options: ArchiveOptions,
    archives: Vec<catalog::Archive>,
    /// Archives that are complete, and may not be durable yet.
    commits: Commits,
    stage: Stage,
}

enum Stage {
    /// Outside of an archive.
    Between(Findings),
    /// Within one.
    Archive(Box<ArchiveWriter>),
    Manifest {
        file: HashingWriter<AtomicFile>,
        check: Box<Check>,
        damaged: DamagedPages,
    },
    /// An error ended it.
    Failed,
}

/// What was written, and is durable.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) archives: Vec<catalog::Archive>,
    pub(super) manifest: ReceivedManifest,
    /// Pages that were damaged on the server.
    pub(super) damaged: DamagedPages,
}

/// Whether there was a manifest.
#[derive(Debug)]
pub(super) enum ReceivedManifest {
    /// There was, and everything is as it says.
    Verified { stored: Stored },
    /// There was none: here is what can be listed in one.
    None { received: SpoolReader },
}

impl ContentsWriter {
    pub(super) fn new(
        directory: BackupDir,
        system_id: SystemId,
        options: ArchiveOptions,
    ) -> Result<Self, BackupError> {
        let spool = SpoolWriter::new(directory.path())?;
        Ok(Self {
            directory,
            system_id,
            options,
            archives: Vec::new(),
            commits: Commits::default(),
            stage: Stage::Between(Findings { spool, damaged: DamagedPages::default() }),
        })
    }

    /// Takes the next event. An error is final.
    pub(super) fn take(&mut self, event: BackupEvent) -> Result<(), BackupError> {
        self.stage = match (mem::replace(&mut self.stage, Stage::Failed), event) {
            (stage, BackupEvent::Progress(_)) => stage,
            (Stage::Between(findings), BackupEvent::ArchiveStart(archive)) => {
                if self.holds(archive.tablespace) {
                    return Err(BackupError::Disorder { what: "an archive for the second time" });
                }
                let (directory, options) = (&self.directory, self.options.clone());
                let open = ArchiveWriter::new(directory, archive, options, findings)?;
                Stage::Archive(Box::new(open))
            }
            (Stage::Archive(mut open), BackupEvent::ArchiveData(bytes)) => {
                match open.write(&bytes) {
                    Ok(()) => Stage::Archive(open),
                    Err(error) => return Err(open.failure(error)),
                }
            }
            (Stage::Archive(open), BackupEvent::ArchiveEnd) => {
                let (archive, findings) = open.finish(&mut self.commits)?;
                self.archives.push(archive);
                Stage::Between(findings)
            }
            (Stage::Between(Findings { spool, damaged }), BackupEvent::ManifestStart) => {
                let target = self.directory.manifest();
                let file = AtomicFile::create(&target, self.directory.access())?;
                let received = spool.into_reader()?;
                let check = Box::new(Check::new(received, self.options.checksums, self.system_id));
                Stage::Manifest { file: HashingWriter::new(file), check, damaged }
            }
            (
                Stage::Manifest { mut file, mut check, damaged },
                BackupEvent::ManifestData(bytes),
            ) => {
                let target = self.directory.manifest();
                file.write_all(&bytes).map_err(StorageError::of("write", &target))?;
                check.feed(&bytes)?;
                Stage::Manifest { file, check, damaged }
            }
            (_, event) => return Err(BackupError::Disorder { what: out_of_place(&event) }),
        };
        Ok(())
    }

    /// The stream is over. What is returned is verified, and durable.
    pub(super) fn finish(mut self) -> Result<Contents, BackupError> {
        if !self.holds(None) {
            return Err(BackupError::Disorder { what: "no archive of the data directory" });
        }
        let (manifest, damaged) = match self.stage {
            Stage::Between(Findings { spool, damaged }) => {
                self.commits.finish(self.directory.path())?;
                (ReceivedManifest::None { received: spool.into_reader()? }, damaged)
            }
            Stage::Manifest { file, check, damaged } => {
                check.finish()?;
                let (file, stored) = file.finish();
                self.commits.begin(file)?;
                self.commits.finish(self.directory.path())?;
                (ReceivedManifest::Verified { stored }, damaged)
            }
            Stage::Archive(_) | Stage::Failed => {
                return Err(BackupError::Disorder { what: "the end in the middle of an archive" });
            }
        };
        Ok(Contents { archives: self.archives, manifest, damaged })
    }

    /// Whether the archive of a tablespace, or of the data directory, is complete.
    fn holds(&self, tablespace: Option<u32>) -> bool {
        self.archives.iter().any(|archive| archive.tablespace == tablespace)
    }
}

fn out_of_place(event: &BackupEvent) -> &'static str {
    match event {
        BackupEvent::ArchiveStart(_) => "the start of an archive within another part",
        BackupEvent::ArchiveData(_) => "bytes of an archive outside of one",
        BackupEvent::ArchiveEnd => "the end of an archive outside of one",
        BackupEvent::ManifestStart => "the start of a manifest within another part",
        BackupEvent::ManifestData(_) => "bytes of a manifest outside of one",
        BackupEvent::Progress(_) => "its progress",
    }
}
