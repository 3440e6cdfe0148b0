//! What is in an archive, found out while its plain bytes pass by: every file is hashed for the
//! spool, every member noted in the index, and pages are compared with their checksums if that is
//! wanted.

use std::mem;

use pgwire_stream::Archive;
use pgwire_stream::manifest::{ChecksumAlgorithm, FileHasher};

use super::BackupError;
use super::archive::ArchiveOptions;
use super::pages::Pages;
use super::spool::{ReceivedFile, SpoolWriter};
use crate::catalog::{DamagedPages, IndexWriter, backup_record};
use crate::storage::tar::{Member, MemberKind, TarError, TarEvent, TarReader};

/// How many damaged pages are logged one by one.
const MOST_LOGGED: u64 = 100;

/// What is known of the files of a backup, archive by archive.
#[derive(Debug)]
pub(super) struct Findings {
    /// Every file in the order in which it came.
    pub(super) spool: SpoolWriter,
    /// Pages that were damaged on the server.
    pub(super) damaged: DamagedPages,
}

/// Looks into one archive.
pub(super) struct Look {
    archive: Archive,
    /// The name that it is stored under.
    name: String,
    options: ArchiveOptions,
    /// What the paths of the archive are below, in the data directory.
    prefix: String,
    tar: TarReader,
    member: Option<(Member, Option<FileHasher>)>,
    pages: Option<Pages>,
    index: IndexWriter,
    findings: Findings,
    files: u64,
}

/// An archive that was looked into, from its beginning to its end.
pub(super) struct Looked {
    pub(super) index: IndexWriter,
    pub(super) findings: Findings,
    /// How many files are in it.
    pub(super) files: u64,
    /// How many plain bytes came.
    pub(super) size: u64,
    /// Whether it ended with the zeros that a tar archive ends with.
    pub(super) terminated: bool,
}

impl Look {
    pub(super) fn new(
        archive: Archive,
        name: &str,
        options: ArchiveOptions,
        index: IndexWriter,
        findings: Findings,
    ) -> Self {
        Self {
            prefix: backup_record::prefix(archive.tablespace),
            name: name.to_owned(),
            archive,
            options,
            tar: TarReader::new(),
            member: None,
            pages: None,
            index,
            findings,
            files: 0,
        }
    }

    /// Where frames are noted.
    pub(super) fn index(&mut self) -> &mut IndexWriter {
        &mut self.index
    }

    /// Takes the next bytes of the plain archive.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        let mut rest = bytes;
        while let Some(event) = self.tar.feed(&mut rest).map_err(unusable(&self.name))? {
            match event {
                TarEvent::Member(member) => {
                    self.index.member(&member)?;
                    let hasher = self.options.checksums.map(ChecksumAlgorithm::hasher);
                    self.pages = self.options.pages_before.and_then(|begin| {
                        Pages::of(&[self.prefix.as_bytes(), &member.path].concat(), begin)
                    });
                    self.member = Some((member, hasher));
                }
                TarEvent::Content(content) => {
                    if let Some((_, Some(hasher))) = &mut self.member {
                        hasher.update(content);
                    }
                    if let Some(pages) = &mut self.pages {
                        let damaged = &mut self.findings.damaged;
                        pages.feed(content, &mut |page| {
                            if damaged.pages < MOST_LOGGED {
                                tracing::warn!(%page, "a page of the server is not as it should be");
                            }
                            damaged.add(&page.path);
                        });
                    }
                }
                TarEvent::MemberEnd => {
                    if let Some((member, hasher)) = self.member.take()
                        && member.kind == MemberKind::File
                    {
                        self.files += 1;
                        self.findings.spool.push(&received(&self.prefix, member, hasher))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// There are no more bytes.
    pub(super) fn finish(mut self) -> Result<Looked, BackupError> {
        let size = self.tar.position();
        let terminated = match (mem::take(&mut self.tar).finish(), &self.member) {
            (Ok(terminated), _) => terminated,
            (Err(_), Some((member, _))) => {
                let path = String::from_utf8_lossy(&member.path).into_owned();
                return Err(BackupError::CutFile { archive: self.name, path });
            }
            (Err(error), None) => return Err(unusable(&self.name)(error)),
        };
        // A server that ends its archives did not end this one: there was more to come.
        if !terminated && self.archive.terminated {
            return Err(unusable(&self.name)(TarError::Truncated { at: size }));
        }
        let Self { index, findings, files, .. } = self;
        Ok(Looked { index, findings, files, size, terminated })
    }
}

fn received(prefix: &str, member: Member, hasher: Option<FileHasher>) -> ReceivedFile {
    let mut path = prefix.as_bytes().to_vec();
    path.extend_from_slice(&member.path);
    ReceivedFile {
        path,
        size: member.size,
        modified: member.modified,
        digest: hasher.map(FileHasher::finish).unwrap_or_default(),
    }
}

fn unusable(archive: &str) -> impl FnOnce(TarError) -> BackupError {
    move |source| BackupError::Archive { archive: archive.to_owned(), source }
}
