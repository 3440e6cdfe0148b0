//! What a restore would do, decided before a byte is written. Everything that can be refused is
//! refused here, and nothing is changed.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use pgwire_stream::{TimelineHistory, TimelineId};
use serde::Serialize;

use super::choice::{Choice, choose};
use super::destination::Place;
use super::error::RestoreError;
use super::extract::{ExtractError, Layer};
use super::outside::{self, OutsideFiles};
use super::owner::Owner;
use super::reach::{Reached, WalRange};
use super::recovery::{self, Recovery, RecoverySettings};
use super::standby::{self, Standby, StandbyRequest};
use super::tablespaces::{self, PlacedTablespace, TablespaceMapping};
use super::target::{RecoveryTarget, TargetAction, TimelineChoice};
use crate::catalog::{BackupRecord, LeaseId, ManifestFiles, WalStore};
use crate::settings::ServerName;
use crate::storage::{
    ArchivedWal, BackupId, DecryptionError, Home, KeyFile, ServerDir, StorageError, encryption,
};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The backup, by its id, its name, or in a word such as `latest`.
    pub backup: String,
    /// The new data directory.
    pub destination: PathBuf,
    /// How far to recover.
    pub target: RecoveryTarget,
    /// Along which timeline.
    pub timeline: TimelineChoice,
    /// Whether the target itself is replayed.
    pub inclusive: bool,
    /// What happens there.
    pub action: TargetAction,
    /// Where tablespaces go that are not to go back to where they were.
    pub tablespaces: Vec<TablespaceMapping>,
    /// Who is to own the files; the destination's place says otherwise.
    pub owner: Option<String>,
    /// How the server gets at its WAL.
    pub wal: WalDelivery,
    /// Whether to go on although WAL on the way is suspect.
    pub suspect_wal: bool,
    /// The absolute path of this program, for `restore_command`.
    pub program: PathBuf,
    /// What opens an encrypted backup and its WAL; the path must be absolute.
    pub keys: Option<KeyFile>,
    /// The lease that the restored server renews as it asks for WAL.
    pub lease: Option<LeaseId>,
    /// How many threads decompress.
    pub jobs: NonZeroUsize,
    /// Whether the server goes on as a standby, and of whom.
    pub standby: Option<StandbyRequest>,
    /// Whether configuration files that lay outside of the data directory are restored beside it.
    pub config: bool,
}

/// How the restored server gets at its WAL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WalDelivery {
    /// It asks for each file with `get-wal`.
    #[default]
    GetWal,
    /// All of it is copied into its `pg_wal` beforehand.
    Copy,
}

/// What a restore would do.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The server that was backed up.
    pub server: ServerName,
    /// Its version.
    pub version: String,
    /// The backup.
    pub backup: BackupId,
    /// The backup and all that it builds on, the full one last.
    pub chain: Vec<BackupId>,
    /// How far to recover.
    pub target: RecoveryTarget,
    /// Whether all WAL is replayed, because the target is no earlier than its end.
    pub recovers_all: bool,
    /// Along which timeline.
    pub timeline: TimelineId,
    /// The WAL on the way.
    pub wal: WalRange,
    /// How the server gets at it.
    pub wal_delivery: WalDelivery,
    /// The size of the files to be written, about.
    pub bytes: u64,
    /// The new data directory.
    pub destination: PathBuf,
    /// The tablespaces.
    pub tablespaces: Vec<PlacedTablespace>,
    /// Who will own the files.
    pub owner: Owner,
    /// What it is told as a standby, if it is to be one.
    pub standby: Option<Standby>,
    /// The configuration files that lay outside of the data directory.
    pub config_files: Option<OutsideFiles>,
    /// What the server is told about its recovery.
    pub settings: RecoverySettings,
    /// What the operator should know.
    pub notes: Vec<String>,
    /// How the execution gets at all that.
    #[serde(skip)]
    pub(super) sources: Sources,
}

/// What the execution reads.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    pub(super) server: ServerDir,
    pub(super) record: BackupRecord,
    /// What it builds on: its parent first, the full backup last.
    pub(super) ancestors: Vec<BackupRecord>,
    pub(super) history: TimelineHistory,
    pub(super) keys: Option<KeyFile>,
    pub(super) jobs: NonZeroUsize,
}

impl Sources {
    /// The backup and all that it builds on, the full one last.
    pub(super) fn chain(&self) -> Vec<&BackupRecord> {
        [&self.record].into_iter().chain(&self.ancestors).collect()
    }

    /// What the extraction needs to know of the first of these backups.
    pub(super) fn layer(&self, chain: &[&BackupRecord]) -> Result<Layer, RestoreError> {
        let record = chain.first().copied().unwrap_or(&self.record);
        let parent = chain.get(1).map(|parent| (parent.id, parent.begin));
        let manifest = self.server.backup(record.id).manifest();
        let expected = ManifestFiles::open(&manifest).map_err(ExtractError::from)?;
        Ok(Layer { backup: record.id, parent, expected, labelled: false })
    }
}

/// What a running daemon would do for a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Whether it hands out WAL.
    pub wal: bool,
    /// Whether it can decrypt what is encrypted of it.
    pub decrypts: bool,
}

/// What a running daemon would do with the WAL of this server for this user.
pub type ServesWal<'a> = &'a dyn Fn(&ServerName, &Owner) -> Served;

/// Plans a restore.
///
/// # Errors
/// If what is asked for is not possible; the hint says what is.
pub fn plan(
    home: &Home,
    server: &ServerName,
    request: &Request,
    serves_wal: ServesWal<'_>,
) -> Result<Plan, RestoreError> {
    let dir = home.server(server);
    let Choice { record, ancestors, history, timeline, reached } = choose(&dir, request)?;
    let Reached { wal, target, inclusive, recovers_all, mut notes, .. } = reached;
    let chain: Vec<&BackupRecord> = [&record].into_iter().chain(&ancestors).collect();
    for record in &chain {
        check_archives(&dir, record, request.keys.as_ref())?;
    }
    let encrypted = encrypted_wal(&dir, &record, &history, &wal)?;

    let place = Place::look(&request.destination)?;
    let owner = choose_owner(request.owner.as_deref(), &place)?;
    place.check(&owner, home.path())?;
    let tablespaces = tablespaces::place(&record.tablespaces, &request.tablespaces, &place.path)?;
    let places = place_tablespaces(&tablespaces, request, &owner, home, &place)?;
    let beside = || {
        let beside = Place::look(&outside::directory(&place.path))?;
        beside.check(&owner, home.path())?;
        places.values().try_for_each(|other| beside.check_apart(other))?;
        Ok(beside)
    };
    let backup = dir.backup(record.id);
    let kept = record.config_files.as_ref();
    let config_files = outside::plan(kept, &backup, request, beside, &mut notes)?;
    let standby = request.standby.as_ref();
    let standby = standby
        .map(|standby| Standby::plan(request, standby, record.server_version, &owner, &mut notes))
        .transpose()?;

    let restore_command = match request.wal {
        WalDelivery::GetWal => {
            let access = WalAccess { server: &dir, home, owner: &owner, encrypted: &encrypted };
            let keys = access.keys_of_owner(request, serves_wal)?;
            if let Some(keys) = keys {
                notes.push(format!(
                    "the restored server decrypts its WAL with `{}`: leave that where it is until \
                     the recovery is over",
                    keys.path().display()
                ));
            }
            let identity = keys.map(|keys| utf8(keys.path())).transpose()?;
            let home = std::path::absolute(home.path())
                .map_err(StorageError::of("resolve", home.path()))?;
            let command = recovery::get_wal_command(
                utf8(&request.program)?,
                utf8(&home)?,
                server.as_str(),
                identity,
                // A standby would renew it for as long as it lives.
                request.lease.as_ref().filter(|_| standby.is_none()),
            );
            command + if standby.is_some() { standby::ASK_AGAIN } else { "" }
        }
        WalDelivery::Copy => {
            check_keys(&dir, &encrypted, request.keys.as_ref())?;
            recovery::NO_ARCHIVE_COMMAND.to_owned()
        }
    };
    let mut settings = RecoverySettings::new(
        record.server_version,
        &Recovery {
            target: &target,
            inclusive,
            action: request.action,
            timeline,
            restore_command: &restore_command,
            standby: standby.as_ref(),
        },
    );
    for (&setting, path) in config_files.iter().flat_map(|files| &files.pointers) {
        settings.locate(setting, utf8(path)?);
    }
    if tablespaces.iter().any(|tablespace| tablespace.in_place) {
        settings.allow_in_place_tablespaces();
    }
    let wal_bytes = match request.wal {
        WalDelivery::GetWal => 0,
        WalDelivery::Copy => wal.needed_to.bytes_since(wal.needed_from),
    };
    notes.extend(check_room(&chain, &place, &places, wal_bytes)?);
    if standby.is_none()
        && target != RecoveryTarget::Latest
        && request.action == TargetAction::Pause
    {
        notes.push(
            "at its target the server waits, and can be read only: `SELECT pg_wal_replay_resume()` \
             opens it for writing, as --target-action promote does by itself"
                .to_owned(),
        );
    }
    Ok(Plan {
        server: server.clone(),
        version: record.server_version.to_string(),
        backup: record.id,
        target: request.target.clone(),
        recovers_all,
        timeline: history.timeline(),
        wal,
        wal_delivery: request.wal,
        chain: chain.iter().map(|record| record.id).collect(),
        bytes: chain_size(&chain).saturating_add(wal_bytes),
        destination: place.path,
        tablespaces,
        owner,
        standby,
        config_files,
        settings,
        notes,
        sources: Sources {
            server: dir,
            record,
            ancestors,
            history,
            keys: request.keys.clone(),
            jobs: request.jobs,
        },
    })
}

fn choose_owner(wanted: Option<&str>, place: &Place) -> Result<Owner, RestoreError> {
    let current = Owner::current();
    let owner = match wanted {
        Some(name) => Owner::by_name(name)
            .ok_or_else(|| RestoreError::UnknownOwner { name: name.to_owned() })?,
        None if current.is_root() => place.natural_owner()?,
        None => current.clone(),
    };
    if owner.is_root() {
        return Err(RestoreError::RootOwner);
    }
    if owner.uid != current.uid && !current.is_root() {
        return Err(RestoreError::ForeignOwner { owner: owner.name, current: current.name });
    }
    Ok(owner)
}

/// Looks at the directories that tablespaces go to; those within the data directory need none.
fn place_tablespaces(
    tablespaces: &[PlacedTablespace],
    request: &Request,
    owner: &Owner,
    home: &Home,
    destination: &Place,
) -> Result<BTreeMap<u32, Place>, RestoreError> {
    let mut places: BTreeMap<u32, Place> = BTreeMap::new();
    for tablespace in tablespaces.iter().filter(|tablespace| !tablespace.in_place) {
        let checked = Place::look(&tablespace.directory).and_then(|place| {
            place.check(owner, home.path())?;
            place.check_apart(destination)?;
            places.values().try_for_each(|other| place.check_apart(other))?;
            Ok(place)
        });
        let mapped = request.tablespaces.iter().any(|m| m.directory == tablespace.directory);
        match checked {
            Ok(place) => {
                places.insert(tablespace.oid, place);
            }
            Err(source) if mapped => return Err(source.into()),
            Err(source) => {
                let tablespace =
                    tablespace.name.clone().unwrap_or_else(|| tablespace.oid.to_string());
                return Err(RestoreError::TablespaceInPlace { tablespace, source });
            }
        }
    }
    Ok(places)
}

/// Refuses a backup that is encrypted and would not be decrypted.
fn check_archives(
    server: &ServerDir,
    record: &BackupRecord,
    keys: Option<&KeyFile>,
) -> Result<(), RestoreError> {
    let backup = server.backup(record.id);
    for archive in record.archives.iter().filter(|archive| archive.encrypted) {
        encryption::open(&backup.archive(&archive.name, archive.form()), archive.form(), keys)?;
    }
    Ok(())
}

/// What is encrypted of the WAL that the server will read.
fn encrypted_wal(
    server: &ServerDir,
    record: &BackupRecord,
    history: &TimelineHistory,
    wal: &WalRange,
) -> Result<Vec<ArchivedWal>, RestoreError> {
    let store = WalStore::new(server, record.segment_size);
    Ok(store.encrypted_between(history, wal.needed_from, wal.needed_to)?)
}

/// Refuses WAL that would not be decrypted: the header of a file tells. Every one of them, because
/// the recipients may have changed from any to the next.
fn check_keys(
    server: &ServerDir,
    encrypted: &[ArchivedWal],
    keys: Option<&KeyFile>,
) -> Result<(), DecryptionError> {
    for &file in encrypted {
        encryption::open(&server.archived_file(file), file.form, keys)?;
    }
    Ok(())
}

/// How the restored server gets at its WAL.
struct WalAccess<'a> {
    server: &'a ServerDir,
    home: &'a Home,
    owner: &'a Owner,
    encrypted: &'a [ArchivedWal],
}

impl WalAccess<'_> {
    /// The keys that it must be told of. Refuses a `restore_command` that would not work.
    fn keys_of_owner<'k>(
        &self,
        request: &'k Request,
        serves_wal: ServesWal<'_>,
    ) -> Result<Option<&'k KeyFile>, RestoreError> {
        let Self { server, home, owner, encrypted } = *self;
        let program = &request.program;
        if !owner.can_run(program) {
            let (owner, program) = (owner.name.clone(), program.clone());
            return Err(RestoreError::ProgramUnreachable { owner, program });
        }
        let keys = request.keys.as_ref();
        let keys_of_owner = keys.filter(|keys| owner.can_read(keys.path()));
        let reads = [server.identity(), server.wals(), server.streaming(), server.state()];
        let reads = reads.iter().all(|path| owner.can_read(path));
        if reads && (encrypted.is_empty() || keys_of_owner.is_some()) {
            check_keys(server, encrypted, keys_of_owner)?;
            return Ok(keys_of_owner);
        }
        let served = serves_wal(server.name(), owner);
        if served.wal && (encrypted.is_empty() || served.decrypts) {
            return Ok(None);
        }
        let (name, home) = (owner.name.clone(), home.path().to_owned());
        Err(match (reads, served.wal, keys, encrypted.first()) {
            (true, _, Some(keys), _) => {
                let keys = keys.path().to_owned();
                RestoreError::IdentityUnreadable { owner: name, keys }
            }
            (true, _, None, Some(&file)) => {
                DecryptionError::NoKeys { path: server.archived_file(file) }.into()
            }
            (false, true, ..) => {
                let server = server.name().clone();
                RestoreError::DaemonWithoutKeys { owner: name, server, home }
            }
            _ => RestoreError::WalUnreadable { owner: name, home },
        })
    }
}

/// The size of what a chain becomes at most: that of the full backup, and all that was changed.
fn chain_size(chain: &[&BackupRecord]) -> u64 {
    chain.iter().map(|record| record.plain_size()).fold(0, u64::saturating_add)
}

/// Adds up what goes to each file system. How much of the incremental backups of a chain comes on top
/// of what the full one has is not known before they are read: that it may not suffice is a note.
fn check_room(
    chain: &[&BackupRecord],
    destination: &Place,
    places: &BTreeMap<u32, Place>,
    wal_bytes: u64,
) -> Result<Option<String>, RestoreError> {
    /// What goes to one file system.
    struct Need<'a> {
        path: &'a Path,
        least: u64,
        most: u64,
    }
    let mut needs: BTreeMap<u64, Need<'_>> = BTreeMap::new();
    let archives = chain.iter().enumerate().flat_map(|(age, record)| {
        record.archives.iter().map(move |archive| (age + 1 == chain.len(), archive))
    });
    let archives = archives.map(|(full, archive)| {
        let place = archive.tablespace.and_then(|oid| places.get(&oid)).unwrap_or(destination);
        (place, full, archive.plain_size)
    });
    for (place, sure, bytes) in archives.chain([(destination, true, wal_bytes)]) {
        let path = place.nearest.as_path();
        let device = fs::metadata(path).map_err(StorageError::of("look at", path))?.dev();
        let need = needs.entry(device).or_insert(Need { path, least: 0, most: 0 });
        need.least = need.least.saturating_add(if sure { bytes } else { 0 });
        need.most = need.most.saturating_add(bytes);
    }
    let mut note = None;
    for Need { path, least, most } in needs.into_values() {
        let room = rustix::fs::statvfs(path)
            .map_err(|errno| StorageError::of("look at", path)(errno.into()))?;
        let available = room.f_bavail.saturating_mul(room.f_frsize);
        if available < least {
            let path = path.to_owned();
            return Err(RestoreError::NoRoom { path, needed: least, available });
        }
        if available < most {
            note = Some(format!(
                "`{}` has room for {available} bytes, and up to {most} are to be written: that may \
                 not suffice",
                path.display()
            ));
        }
    }
    Ok(note)
}

fn utf8(path: &Path) -> Result<&str, RestoreError> {
    path.to_str().ok_or_else(|| RestoreError::NotUtf8 { path: path.to_owned() })
}
