//! Archives of backups become files, each compared with the manifest while it passes by.
//!
//! ```text
//! threads: stored archive → decrypt → decompress ─┐ in order
//!                                                 ▼
//!                   tar members → hash → write → syncer threads
//!                                  ▲
//!                   manifest, in the same order
//! ```
//!
//! The backups of a chain are read from the newest to the oldest. The newest says which files there
//! are; of those that it has in part, older ones give the blocks that no newer one has
//! ([`assembly`]). So every block is written once, and nothing is put anywhere else before.
//!
//! `global/pg_control` gets a temporary name: without it no server starts, so an interrupted
//! restore cannot be mistaken for a complete one.

mod assembly;
mod blocks;
mod error;
mod one;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Write};
use std::ops::Deref;
use std::path::PathBuf;

use pgwire_stream::backup_label::{self, BackupLabel, IncrementalFrom};
use pgwire_stream::incremental::{IncrementalError, relation_file_name};
use pgwire_stream::manifest::{FileHasher, ManifestFile};
use pgwire_stream::{RelationFiles, control_file};
use tokio::sync::watch;

use self::assembly::Assembly;
use self::blocks::{BlockError, BlockWriter};
use super::beneath::Root;
use super::syncer::Syncer;
use crate::catalog::{ManifestFiles, Position};
use crate::progress::ProgressSink;
use crate::storage::tar::{Member, MemberKind, TarEvent, TarReader};
use crate::storage::{BackupId, StorageError};

pub use error::ExtractError;
pub use one::{ExtractFileError, extract_file};

/// The file without which no server starts.
pub(super) const PG_CONTROL: &[u8] = control_file::FILE_NAME.as_bytes();
/// Its name until everything else is in place.
pub(super) const PG_CONTROL_WITHHELD: &[u8] = b"global/pg_control.restoring";

/// How much is written to a file before the disk begins to write it, too: it would be idle until the
/// file is over, and the restore wait for it in the end.
const EAGER: u64 = 32 << 20;

/// No `backup_label` is larger: its longest line is the operator's label.
pub(super) const LABEL_LIMIT: u64 = 64 << 10;

/// What came out of the archives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extracted {
    /// How many files.
    pub(super) files: u64,
    /// How many bytes were written into them.
    pub(super) bytes: u64,
    /// Whether the cluster lets the server's group read it (11 and later).
    pub(super) group_access: bool,
}

/// A backup of a chain.
#[derive(Debug)]
pub(super) struct Layer {
    /// The backup.
    pub(super) backup: BackupId,
    /// What it builds on, and where that begins.
    pub(super) parent: Option<(BackupId, Option<Position>)>,
    /// Its files.
    pub(super) expected: ManifestFiles,
    /// Whether its `backup_label` said what it builds on.
    pub(super) labelled: bool,
}

/// Turns the archives of a chain of backups into files: the newest backup first, and of each the
/// archives in the order of its manifest.
pub(super) struct Extractor<'a> {
    syncer: &'a Syncer,
    progress: &'a dyn ProgressSink,
    interrupted: &'a watch::Receiver<bool>,
    /// Servers before 11 refuse to start from what their group may read.
    allow_group: bool,
    /// Bytes of archives that are done.
    done: u64,
    extracted: Extracted,
    layer: Layer,
    /// Whether it is the newest.
    newest: bool,
    assembly: Assembly,
}

/// The file that is passing by.
struct Open {
    /// Its path, below the data directory.
    path: Vec<u8>,
    expected: ManifestFile,
    hasher: Option<FileHasher>,
    /// What it says, if it is the `backup_label` of an incremental backup.
    label: Option<Vec<u8>>,
    target: Target,
    /// How much was written since the disk was last told to begin.
    unsynced: u64,
}

/// What becomes of it.
enum Target {
    /// It is one of the new files.
    File(File, PathBuf),
    /// Some of its blocks go to one of the new files.
    Blocks(Box<BlockWriter>),
    /// Nobody needs it.
    Nothing,
}

impl<'a> Extractor<'a> {
    /// An extractor for a chain that ends with this backup.
    pub(super) fn new(
        newest: Layer,
        syncer: &'a Syncer,
        progress: &'a dyn ProgressSink,
        interrupted: &'a watch::Receiver<bool>,
        allow_group: bool,
    ) -> Self {
        Self {
            syncer,
            progress,
            interrupted,
            allow_group,
            done: 0,
            extracted: Extracted::default(),
            layer: newest,
            newest: true,
            assembly: Assembly::new(RelationFiles::DEFAULT),
        }
    }

    /// Extracts one archive below `root`. `prefix` is where the root lies in the data directory:
    /// empty, or `pg_tblspc/<oid>/`. An older backup may have tablespaces that are no more, and
    /// have no root.
    ///
    /// # Errors
    /// If anything in it is not what the manifest says, or cannot be written. What was written so
    /// far stays.
    pub(super) fn archive(
        &mut self,
        archive: &str,
        prefix: &[u8],
        mut root: Option<&mut Root>,
        pieces: impl Iterator<Item = io::Result<impl Deref<Target = [u8]>>>,
    ) -> Result<(), ExtractError> {
        let backup = self.layer.backup;
        let damaged = |source| ExtractError::Tar { backup, archive: archive.to_owned(), source };
        let mut reader = TarReader::new();
        let mut open = None;
        for piece in pieces {
            let piece = piece.map_err(|source| ExtractError::Read {
                backup,
                archive: archive.to_owned(),
                source,
            })?;
            let mut bytes = &piece[..];
            while let Some(event) = reader.feed(&mut bytes).map_err(damaged)? {
                match event {
                    TarEvent::Member(member) if member.kind == MemberKind::Directory => {
                        self.directory(&member, root.as_deref_mut())?;
                    }
                    TarEvent::Member(member) => {
                        open = Some(self.begin(&member, prefix, root.as_deref_mut())?);
                    }
                    TarEvent::Content(bytes) => {
                        if let Some(open) = &mut open {
                            self.content(open, bytes)?;
                        }
                    }
                    TarEvent::MemberEnd => {
                        if let Some(open) = open.take() {
                            self.end(open)?;
                        }
                    }
                }
            }
            self.progress.advance_to(self.done + reader.position());
            if *self.interrupted.borrow() {
                return Err(ExtractError::Interrupted);
            }
        }
        self.done += reader.position();
        reader.finish().map(drop).map_err(damaged)
    }

    /// Whether older backups have blocks that are still to come.
    pub(super) fn needs_more(&self) -> bool {
        self.assembly.any().is_some()
    }

    /// Goes on to the backup that the one before builds on.
    ///
    /// # Errors
    /// If the manifest of that has more files, or is itself not what the server wrote.
    pub(super) fn older(&mut self, layer: Layer) -> Result<(), ExtractError> {
        let newer = std::mem::replace(&mut self.layer, layer);
        self.newest = false;
        ended(newer)
    }

    /// Says that there are no more archives. `root` is the data directory.
    ///
    /// # Errors
    /// If the manifest has more files, or is itself not what the server wrote; or if blocks are
    /// missing.
    pub(super) fn finish(self, root: &mut Root) -> Result<Extracted, ExtractError> {
        if let Some(file) = self.assembly.any() {
            return Err(ExtractError::NoFullFile { path: shown(file) });
        }
        // Files of other sizes would not have passed for incremental ones, but for empty ones.
        if self.layer.parent.is_some() || !self.newest {
            check_block_size(root, self.assembly.sizes())?;
        }
        ended(self.layer)?;
        Ok(self.extracted)
    }

    fn directory(&mut self, member: &Member, root: Option<&mut Root>) -> Result<(), ExtractError> {
        if let (true, Some(root)) = (self.newest, root) {
            let mode = self.mode(member, 0o700, 0o050);
            self.extracted.group_access |= mode & 0o050 != 0;
            root.make_dir(&member.path, mode)?;
        }
        Ok(())
    }

    fn begin(
        &mut self,
        member: &Member,
        prefix: &[u8],
        root: Option<&mut Root>,
    ) -> Result<Open, ExtractError> {
        let backup = self.layer.backup;
        let path = [prefix, &member.path].concat();
        let expected = match self.layer.expected.next_file()? {
            Some(expected) if expected.path == path => expected,
            other => {
                return Err(ExtractError::Unexpected {
                    backup,
                    path: shown(&path),
                    expected: other.map_or("no more files".to_owned(), |file| {
                        format!("`{}`", shown(&file.path))
                    }),
                });
            }
        };
        if expected.size != member.size {
            return Err(ExtractError::Mismatch { backup, path: shown(&path), what: "size" });
        }
        let is_label = self.layer.parent.is_some() && path == backup_label::FILE_NAME.as_bytes();
        if is_label && member.size > LABEL_LIMIT {
            return Err(ExtractError::Mismatch { backup, path: shown(&path), what: "size" });
        }
        let target = match root {
            Some(root) => self.target(member, prefix, root)?,
            None => Target::Nothing,
        };
        let hashed = is_label || !matches!(target, Target::Nothing);
        let checksum = expected.checksum.as_ref().filter(|_| hashed);
        let hasher = checksum.map(|(algorithm, _)| algorithm.hasher());
        let label = is_label.then(Vec::new);
        Ok(Open { path, expected, hasher, label, target, unsynced: 0 })
    }

    /// Where the content of a file goes.
    fn target(
        &mut self,
        member: &Member,
        prefix: &[u8],
        root: &mut Root,
    ) -> Result<Target, ExtractError> {
        let relation = match self.layer.parent {
            Some(_) => relation_path(&member.path),
            None => None,
        };
        let incremental = relation.is_some();
        let place = relation.unwrap_or_else(|| member.path.clone());
        let full = [prefix, &place].concat();
        let assembly = &mut self.assembly;
        if self.newest && !incremental {
            let place = if full == PG_CONTROL { PG_CONTROL_WITHHELD } else { &place };
            let file = root.create(place, self.mode(member, 0o600, 0o040))?;
            return Ok(Target::File(file, root.resolve(place)));
        }
        let file = if self.newest {
            root.create(&place, self.mode(member, 0o600, 0o040))?
        } else if assembly.wants(&full) {
            root.reopen(&place)?
        } else {
            return Ok(Target::Nothing);
        };
        let (path, newest) = (root.resolve(&place), self.newest);
        Ok(Target::Blocks(Box::new(if incremental {
            BlockWriter::incremental(full, file, path, newest, &mut self.assembly)
        } else {
            BlockWriter::whole(full, file, path, member.size, &mut self.assembly)
        })))
    }

    fn content(&mut self, open: &mut Open, bytes: &[u8]) -> Result<(), ExtractError> {
        if let Some(hasher) = &mut open.hasher {
            hasher.update(bytes);
        }
        if let Some(label) = &mut open.label {
            label.extend_from_slice(bytes);
        }
        let written = match &mut open.target {
            Target::File(file, path) => {
                file.write_all(bytes).map_err(StorageError::of("write", path))?;
                bytes.len() as u64
            }
            Target::Blocks(writer) => {
                let written = writer.take(bytes, &mut self.assembly);
                written.map_err(|error| match error {
                    BlockError::Write(source) => {
                        StorageError::of("write", writer.path())(source).into()
                    }
                    BlockError::Incremental(source) => self.incremental(&open.path, source),
                })?
            }
            Target::Nothing => 0,
        };
        self.extracted.bytes += written;
        open.unsynced += written;
        if open.unsynced >= EAGER {
            open.unsynced = 0;
            self.sync_meanwhile(&open.target)?;
        }
        Ok(())
    }

    /// Has the disk write what is there of a file that goes on.
    fn sync_meanwhile(&self, target: &Target) -> Result<(), StorageError> {
        let (file, path) = match target {
            Target::File(file, path) => (file, path),
            Target::Blocks(writer) => (writer.file(), writer.path()),
            Target::Nothing => return Ok(()),
        };
        let same = file.try_clone().map_err(StorageError::of("write", path))?;
        self.syncer.sync(same, path.clone());
        Ok(())
    }

    fn end(&mut self, open: Open) -> Result<(), ExtractError> {
        let Open { path, expected, hasher, label, target, .. } = open;
        if let (Some(hasher), Some((_, digest))) = (hasher, &expected.checksum)
            && hasher.finish() != *digest
        {
            let backup = self.layer.backup;
            return Err(ExtractError::Mismatch { backup, path: shown(&path), what: "checksum" });
        }
        if let Some(label) = label {
            check_label(self.layer.backup, self.layer.parent, &label)?;
            self.layer.labelled = true;
        }
        match target {
            Target::File(file, path) => {
                self.extracted.files += 1;
                self.syncer.sync(file, path);
            }
            Target::Blocks(writer) => {
                self.extracted.files += u64::from(self.newest);
                let place = writer.path().clone();
                let whole = writer.finish(&self.assembly);
                if let Some(file) = whole.map_err(|source| self.incremental(&path, source))? {
                    self.syncer.sync(file, place);
                }
            }
            Target::Nothing => {}
        }
        Ok(())
    }

    fn incremental(&self, path: &[u8], source: IncrementalError) -> ExtractError {
        ExtractError::Incremental { backup: self.layer.backup, path: shown(path), source }
    }

    fn mode(&self, member: &Member, owner: u32, group: u32) -> u32 {
        if self.allow_group { owner | (member.mode & group) } else { owner }
    }
}

/// Whether an incremental backup is the difference to the one that its record names.
fn check_label(
    backup: BackupId,
    parent: Option<(BackupId, Option<Position>)>,
    content: &[u8],
) -> Result<(), ExtractError> {
    let Some((parent, begin)) = parent else { return Ok(()) };
    let label =
        BackupLabel::parse(content).map_err(|source| ExtractError::Label { backup, source })?;
    let begin = begin.map(|begin| IncrementalFrom { lsn: begin.lsn, timeline: begin.timeline });
    if label.incremental_from == begin {
        Ok(())
    } else {
        Err(ExtractError::NotItsParent { backup, parent })
    }
}

/// Whether the manifest of a backup lists no more files, and is what the server wrote.
fn ended(layer: Layer) -> Result<(), ExtractError> {
    let Layer { backup, parent, mut expected, labelled } = layer;
    if let Some((parent, _)) = parent.filter(|_| !labelled) {
        return Err(ExtractError::NotItsParent { backup, parent });
    }
    if let Some(file) = expected.next_file()? {
        return Err(ExtractError::Missing { backup, path: shown(&file.path) });
    }
    Ok(expected.finish()?)
}

/// The path of the relation file that this is an incremental file of.
fn relation_path(path: &[u8]) -> Option<Vec<u8>> {
    let name = path.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
    let (directory, name) = path.split_at(name);
    Some([directory, relation_file_name(name)?].concat())
}

/// Larger than any `pg_control`.
const CONTROL_LIMIT: u64 = 64 << 10;

fn check_block_size(root: &mut Root, sizes: RelationFiles) -> Result<(), ExtractError> {
    let control = root.read(PG_CONTROL_WITHHELD, CONTROL_LIMIT)?.unwrap_or_default();
    // A server that nobody knows has the sizes that everybody has.
    match control_file::ControlFile::parse(&control) {
        Ok(control) if control.relations != sizes => Err(ExtractError::BlockSize {
            block_size: control.relations.block_size(),
            blocks: control.relations.blocks_per_file(),
        }),
        _ => Ok(()),
    }
}

/// A path of an archive, for messages.
fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
