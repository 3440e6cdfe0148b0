//! From a stored backup and WAL to a data directory that a server starts from.
//!
//! [`plan()`] decides everything and refuses what is not possible; it changes nothing. [`execute`]
//! does what the plan says:
//!
//! ```text
//! directories → archives of the chain, compared with their manifests → WAL, if it is to be copied
//!   → links, configuration beside, recovery settings → everything durable
//!   → global/pg_control gets its name
//! ```
//!
//! Until the last step no server starts from the directory, so an interrupted restore is not
//! taken for a complete one.

mod beneath;
mod choice;
mod destination;
mod error;
mod extract;
mod handover;
mod lease;
mod neutralise;
mod outside;
mod owner;
mod plan;
mod reach;
mod standby;
mod survey;
mod syncer;
mod tablespaces;
#[cfg(test)]
mod tests;
mod wal_copy;

pub mod get_wal;
pub mod recovery;
pub mod target;

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use pgwire_stream::ServerVersion;
use serde::Serialize;
use tokio::sync::watch;

use self::beneath::Root;
use self::extract::{Extracted, Extractor, PG_CONTROL, PG_CONTROL_WITHHELD};
use crate::catalog::{Archive, BackupRecord, read_archive};
use crate::progress::ProgressSink;
use crate::storage::{BackupId, Fingerprint, StorageError, encryption};

pub use destination::DestinationError;
pub use error::RestoreError;
pub use extract::{ExtractError, ExtractFileError, extract_file};
pub use outside::{OutsideError, OutsideFiles};
pub use owner::Owner;
pub use plan::{Plan, Request, Served, ServesWal, WalDelivery, plan};
pub use reach::WalRange;
pub use standby::{Primary, Standby, StandbyError, StandbyRequest};
pub use tablespaces::{MappingError, PlacedTablespace, TablespaceMapping};

/// From this version on a server's group may be allowed to read its data directory.
const GROUP_ACCESS: ServerVersion = ServerVersion::from_num(110_000);
/// From this version on WAL lies in `pg_wal`, and no longer in `pg_xlog`.
const PG_WAL: ServerVersion = ServerVersion::from_num(100_000);

/// What a restore did.
#[derive(Clone, Debug, Serialize)]
pub struct RestoreReport {
    /// The backup.
    pub backup: BackupId,
    /// The new data directory.
    pub destination: PathBuf,
    /// How many files of the backup were written.
    pub files: u64,
    /// How many bytes are in them.
    pub bytes: u64,
    /// How many files of WAL were copied.
    pub wal_files: u64,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// Does what a plan says. When it returns, the data directory is complete and durable.
///
/// # Errors
/// If the backup turns out to be damaged, something cannot be written, or `interrupted` becomes
/// true. What was written so far stays, and no server starts from it.
pub fn execute(
    plan: &Plan,
    progress: &dyn ProgressSink,
    interrupted: &watch::Receiver<bool>,
) -> Result<RestoreReport, RestoreError> {
    let version = plan.sources.record.server_version;
    let mut roots = Roots::create(plan)?;
    let (extracted, wal_files) = syncer::with_syncer(|syncer| {
        let extracted = extract_archives(plan, &mut roots, syncer, progress, interrupted)?;
        let wal_files = match plan.wal_delivery {
            WalDelivery::GetWal => 0,
            WalDelivery::Copy => {
                let directory = if version >= PG_WAL { "pg_wal" } else { "pg_xlog" };
                wal_copy::copy(plan, directory, &mut roots.data, syncer, progress, interrupted)?
            }
        };
        Ok((extracted, wal_files))
    })
    .map_err(|error| match error {
        RestoreError::Extract(ExtractError::Interrupted) => RestoreError::Interrupted {
            destination: plan.destination.clone(),
            tablespaces: plan.tablespaces.iter().map(|placed| placed.directory.clone()).collect(),
        },
        error => error,
    })?;
    let (directory_mode, file_mode) =
        if extracted.group_access { (0o750, 0o640) } else { (0o700, 0o600) };
    let mut notes = plan.notes.clone();
    notes.extend(handover::prepare(plan, &mut roots.data, file_mode)?);
    roots.finish(directory_mode)?;
    Ok(RestoreReport {
        backup: plan.backup,
        destination: plan.destination.clone(),
        files: extracted.files,
        bytes: extracted.bytes,
        wal_files,
        notes,
    })
}

/// The directories that are written into.
struct Roots {
    data: Root,
    /// By the tablespaces' object identifiers.
    tablespaces: BTreeMap<u32, Root>,
}

impl Roots {
    fn create(plan: &Plan) -> Result<Self, RestoreError> {
        let owner = recipient(plan);
        let open = |path: &Path| -> Result<Root, RestoreError> {
            make_empty(path)?;
            let root = Root::open(path, owner)?;
            root.set_mode(0o700)?;
            Ok(root)
        };
        let mut data = open(&plan.destination)?;
        let mut tablespaces = BTreeMap::new();
        for tablespace in &plan.tablespaces {
            if tablespace.in_place {
                data.make_dirs(format!("pg_tblspc/{}", tablespace.oid).as_bytes(), 0o700)?;
            }
            tablespaces.insert(tablespace.oid, open(&tablespace.directory)?);
        }
        Ok(Self { data, tablespaces })
    }

    /// Makes everything durable, and last of all the directory one to start from.
    fn finish(&mut self, directory_mode: u32) -> Result<(), StorageError> {
        for root in self.tablespaces.values_mut().chain([&mut self.data]) {
            root.set_mode(directory_mode)?;
            root.sync()?;
        }
        self.data.rename(PG_CONTROL_WITHHELD, PG_CONTROL)?;
        self.data.sync_dir(b"global")
    }
}

/// Whom what is made is handed to. Only root can give files away, and to itself nobody needs to.
fn recipient(plan: &Plan) -> Option<&Owner> {
    rustix::process::geteuid().is_root().then_some(&plan.owner)
}

/// Makes a directory, unless it is there and still as empty as when the restore was planned.
fn make_empty(path: &Path) -> Result<(), RestoreError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            destination::Place::look(path)?;
            Ok(())
        }
        Err(error) => Err(StorageError::of("create", path)(error).into()),
    }
}

/// Extracts the archives of a chain, the newest backup first.
fn extract_archives(
    plan: &Plan,
    roots: &mut Roots,
    syncer: &syncer::Syncer,
    progress: &dyn ProgressSink,
    interrupted: &watch::Receiver<bool>,
) -> Result<Extracted, RestoreError> {
    let chain = plan.sources.chain();
    let size = chain.iter().map(|record| record.plain_size()).sum();
    progress.begin("restoring files", Some(size));
    let allow_group = plan.sources.record.server_version >= GROUP_ACCESS;
    let newest = plan.sources.layer(&chain)?;
    let mut extractor = Extractor::new(newest, syncer, progress, interrupted, allow_group);
    for (age, &record) in chain.iter().enumerate() {
        if age > 0 {
            if !extractor.needs_more() {
                break;
            }
            extractor.older(plan.sources.layer(chain.get(age..).unwrap_or_default())?)?;
        }
        for archive in &record.archives {
            let root = match archive.tablespace {
                None => Some(&mut roots.data),
                Some(oid) => roots.tablespaces.get_mut(&oid),
            };
            // Only what was backed up before may have been dropped since.
            if root.is_none() && age == 0 {
                return Err(RestoreError::TablespaceMap { backup: record.id });
            }
            extract_archive(plan, record, archive, root, &mut extractor)?;
        }
    }
    let extracted = extractor.finish(&mut roots.data)?;
    progress.finish();
    Ok(extracted)
}

fn extract_archive(
    plan: &Plan,
    record: &BackupRecord,
    archive: &Archive,
    root: Option<&mut Root>,
    extractor: &mut Extractor<'_>,
) -> Result<(), RestoreError> {
    let backup = plan.sources.server.backup(record.id);
    let path = backup.archive(&archive.name, archive.form());
    if record.manifest.as_ref().is_none_or(|manifest| manifest.checksum_algorithm.is_none()) {
        compare_stored(record, archive, &path)?;
    }
    let file = File::open(&path).map_err(StorageError::of("open", &path))?;
    let compressed =
        encryption::compressed(&path, file, archive.form(), plan.sources.keys.as_ref())?;
    let prefix = archive.prefix();
    let extracted = read_archive(&backup, archive, compressed, plan.sources.jobs, |pieces| {
        extractor.archive(&archive.name, prefix.as_bytes(), root, pieces)
    });
    Ok(extracted??)
}

/// Reads an archive once more before it is extracted: where the manifest has no checksums of
/// files, that of the archive must do.
fn compare_stored(
    record: &BackupRecord,
    archive: &Archive,
    path: &Path,
) -> Result<(), ExtractError> {
    let noted = archive.fingerprint();
    let again = |noted: Fingerprint| File::open(path).and_then(|stored| noted.again(stored));
    match noted.map(again).transpose().map_err(StorageError::of("read", path))? {
        Some(stored) if Some(stored) == noted => Ok(()),
        _ => Err(ExtractError::Altered { backup: record.id, archive: archive.name.clone() }),
    }
}
