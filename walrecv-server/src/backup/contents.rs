//! The files of a backup, made of the events of the stream. Blocks; knows no sockets.

use std::io::Write;
use std::mem;

use pgwire_stream::{BackupEvent, SystemId};

use super::BackupError;
use super::archive::{ArchiveOptions, ArchiveWriter};
use super::check::Check;
use super::spool::{SpoolReader, SpoolWriter};
use crate::catalog::{self, DamagedPages};
use crate::storage::durable::AtomicFile;
use crate::storage::{BackupDir, HashingWriter, StorageError, Stored};

/// How many damaged pages are logged one by one.
const MOST_LOGGED: u64 = 100;

/// Takes the events of a base backup in their order and writes its files.
///
/// ```text
///   Archives ──ArchiveStart, ArchiveData…, ArchiveEnd──▶ Archives ──ManifestStart──▶ Manifest
/// ```
pub(super) struct ContentsWriter {
    directory: BackupDir,
    system_id: SystemId,
    options: ArchiveOptions,
    archives: Vec<catalog::Archive>,
    damaged: DamagedPages,
    stage: Stage,
}

enum Stage {
    Archives {
        spool: SpoolWriter,
        open: Option<Box<ArchiveWriter>>,
    },
    Manifest {
        file: HashingWriter<AtomicFile>,
        check: Box<Check>,
    },
    /// An error ended it.
    Failed,
}

/// What was written. Every file of it is durable.
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
            damaged: DamagedPages::default(),
            stage: Stage::Archives { spool, open: None },
        })
    }

    /// Takes the next event. An error is final.
    pub(super) fn take(&mut self, event: BackupEvent) -> Result<(), BackupError> {
        self.stage = match (mem::replace(&mut self.stage, Stage::Failed), event) {
            (stage, BackupEvent::Progress(_)) => stage,
            (Stage::Archives { spool, open: None }, BackupEvent::ArchiveStart(archive)) => {
                if self.holds(archive.tablespace) {
                    return Err(BackupError::Disorder { what: "an archive for the second time" });
                }
                let open = ArchiveWriter::new(&self.directory, archive, self.options.clone())?;
                Stage::Archives { spool, open: Some(Box::new(open)) }
            }
            (
                Stage::Archives { mut spool, open: Some(mut open) },
                BackupEvent::ArchiveData(bytes),
            ) => {
                open.write(&bytes, &mut spool, |page| {
                    if self.damaged.pages < MOST_LOGGED {
                        tracing::warn!(%page, "a page of the server is not as it should be");
                    }
                    self.damaged.add(&page.path);
                })?;
                Stage::Archives { spool, open: Some(open) }
            }
            (Stage::Archives { spool, open: Some(open) }, BackupEvent::ArchiveEnd) => {
                self.archives.push(open.finish()?);
                Stage::Archives { spool, open: None }
            }
            (Stage::Archives { spool, open: None }, BackupEvent::ManifestStart) => {
                let target = self.directory.manifest();
                let file = AtomicFile::create(&target, self.directory.access())?;
                let received = spool.into_reader()?;
                let check = Box::new(Check::new(received, self.options.checksums, self.system_id));
                Stage::Manifest { file: HashingWriter::new(file), check }
            }
            (Stage::Manifest { mut file, mut check }, BackupEvent::ManifestData(bytes)) => {
                let target = self.directory.manifest();
                file.write_all(&bytes).map_err(StorageError::of("write", &target))?;
                check.feed(&bytes)?;
                Stage::Manifest { file, check }
            }
            (_, event) => return Err(BackupError::Disorder { what: out_of_place(&event) }),
        };
        Ok(())
    }

    /// The stream is over. What is returned is verified, and durable.
    pub(super) fn finish(self) -> Result<Contents, BackupError> {
        if !self.holds(None) {
            return Err(BackupError::Disorder { what: "no archive of the data directory" });
        }
        let manifest = match self.stage {
            Stage::Archives { spool, open: None } => {
                ReceivedManifest::None { received: spool.into_reader()? }
            }
            Stage::Manifest { file, check } => {
                check.finish()?;
                let (file, stored) = file.finish();
                file.commit()?;
                ReceivedManifest::Verified { stored }
            }
            Stage::Archives { open: Some(_), .. } | Stage::Failed => {
                return Err(BackupError::Disorder { what: "the end in the middle of an archive" });
            }
        };
        Ok(Contents { archives: self.archives, manifest, damaged: self.damaged })
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
