//! What a restore would do, decided before a byte is written. Everything that can be refused is
//! refused here, and nothing is changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use pgwire_stream::{Lsn, ServerVersion, TimelineHistory, TimelineId};
use serde::Serialize;

use super::destination::Place;
use super::error::RestoreError;
use super::owner::Owner;
use super::recovery::{self, Recovery, RecoverySettings};
use super::tablespaces::{self, PlacedTablespace, TablespaceMapping};
use super::target::{RecoveryTarget, TargetAction, TimelineChoice};
use crate::catalog::{
    BackupOutcome, BackupRecord, BackupStatus, Catalog, Gap, HistoryStore, LeaseId, Position,
    Reach, SuspectWal, WalStore,
};
use crate::settings::ServerName;
use crate::storage::{
    ArchivedWal, BackupDir, BackupId, DecryptionError, Home, KeyFile, ServerDir, StorageError,
    encryption,
};

/// The first version that can recover to an LSN.
const LSN_TARGET: ServerVersion = ServerVersion::from_num(100_000);
/// The first version that stops when its target is not in the WAL, instead of promoting.
const UNREACHED_TARGET_IS_FATAL: ServerVersion = ServerVersion::from_num(130_000);
/// No position lies behind this one.
const END_OF_WAL: Lsn = Lsn::from_u64(u64::MAX);

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

/// WAL of one timeline history, held without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct WalRange {
    /// Where the backup begins: the first WAL that is needed.
    pub needed_from: Lsn,
    /// Where the backup ends: the first position that can be a target.
    pub first_target: Lsn,
    /// Up to where the server will read to reach its target; all there is, if nobody can tell.
    pub needed_to: Lsn,
    /// Where WAL ends, or breaks off.
    pub held_to: Lsn,
    /// Whether there is more WAL behind a gap, which cannot be reached.
    pub gap_behind: bool,
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
    /// How far to recover.
    pub target: RecoveryTarget,
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
    pub(super) backup: BackupDir,
    pub(super) record: BackupRecord,
    pub(super) history: TimelineHistory,
    pub(super) keys: Option<KeyFile>,
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
    let record = Catalog::new(&dir).resolve_restorable(&request.backup)?;
    let (begin, end) = check_backup(&dir, &record)?;
    let mut notes = Vec::new();
    let (history, timeline_setting) = choose_timeline(&dir, &record, end, request.timeline)?;
    if timeline_setting.is_none() {
        notes.push(format!(
            "the history of timeline {} is not stored; recovery stays on it",
            history.timeline()
        ));
    }
    let wal = find_wal(&dir, &record, &history, begin, end, &request.target)?;
    check_target(&record, &wal, end, &request.target, &mut notes)?;
    if let Some(suspect) = suspect_wal(&dir, &record, &history, &wal, &request.target)? {
        if !request.suspect_wal {
            return Err(suspect);
        }
        notes.push(format!("{suspect}; recovery may end there"));
    }

    check_archives(&dir, &record, request.keys.as_ref())?;
    let encrypted = encrypted_wal(&dir, &record, &history, &wal)?;

    let place = Place::look(&request.destination)?;
    let owner = choose_owner(request.owner.as_deref(), &place)?;
    place.check(&owner, home.path())?;
    let tablespaces = tablespaces::place(&record.tablespaces, &request.tablespaces, &place.path)?;
    let places = place_tablespaces(&tablespaces, request, &owner, home, &place)?;

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
            recovery::get_wal_command(
                utf8(&request.program)?,
                utf8(&home)?,
                server.as_str(),
                identity,
                request.lease.as_ref(),
            )
        }
        WalDelivery::Copy => {
            check_keys(&dir, &encrypted, request.keys.as_ref())?;
            recovery::NO_ARCHIVE_COMMAND.to_owned()
        }
    };
    let mut settings = RecoverySettings::new(
        record.server_version,
        &Recovery {
            target: &request.target,
            inclusive: request.inclusive,
            action: request.action,
            timeline: timeline_setting,
            restore_command: &restore_command,
        },
    );
    if tablespaces.iter().any(|tablespace| tablespace.in_place) {
        settings.allow_in_place_tablespaces();
    }
    let wal_bytes = match request.wal {
        WalDelivery::GetWal => 0,
        WalDelivery::Copy => wal.needed_to.bytes_since(wal.needed_from),
    };
    check_room(&record, &place, &places, wal_bytes)?;
    Ok(Plan {
        server: server.clone(),
        version: record.server_version.to_string(),
        backup: record.id,
        target: request.target.clone(),
        timeline: history.timeline(),
        wal,
        wal_delivery: request.wal,
        bytes: record.plain_size().saturating_add(wal_bytes),
        destination: place.path,
        tablespaces,
        owner,
        settings,
        notes,
        sources: Sources {
            backup: dir.backup(record.id),
            server: dir,
            record,
            history,
            keys: request.keys.clone(),
        },
    })
}

/// Refuses a backup that is not whole, or never can be consistent.
fn check_backup(
    server: &ServerDir,
    record: &BackupRecord,
) -> Result<(Position, Position), RestoreError> {
    let backup = record.id;
    let incomplete = |why: &str| RestoreError::Incomplete { backup, why: why.to_owned() };
    if let Some(parent) = record.parent {
        return Err(RestoreError::Incremental { backup, parent });
    }
    match &record.outcome {
        BackupOutcome::Copied => {}
        BackupOutcome::Failed { error } => return Err(incomplete(error)),
        BackupOutcome::Started => return Err(incomplete("it is being taken, or was interrupted")),
    }
    let (Some(begin), Some(end)) = (record.begin, record.end) else {
        return Err(incomplete("its record does not say where it begins and ends"));
    };
    let standing = Catalog::new(server).standing(record)?;
    match (standing.status, standing.missing) {
        (BackupStatus::WaitingForWals, Some(missing)) => {
            Err(RestoreError::WaitingForWal { backup, missing })
        }
        (BackupStatus::Broken, Some(missing)) => Err(RestoreError::Broken { backup, missing }),
        (BackupStatus::Done, _) => Ok((begin, end)),
        (status, _) => Err(incomplete(status.name())),
    }
}

/// The timeline to follow, and what the server is told: nothing but "yours", if nobody knows how
/// the backup's own timeline came to be.
fn choose_timeline(
    server: &ServerDir,
    record: &BackupRecord,
    end: Position,
    choice: TimelineChoice,
) -> Result<(TimelineHistory, Option<TimelineId>), RestoreError> {
    let store = HistoryStore::new(server);
    let wanted = match choice {
        TimelineChoice::Current => end.timeline,
        TimelineChoice::Number(timeline) => timeline,
        TimelineChoice::Latest => newest_descendant(&store, end)?,
    };
    if wanted == end.timeline && wanted != TimelineId::FIRST && store.load(wanted)?.is_none() {
        return Ok((TimelineHistory::root(wanted), None));
    }
    let history = store.ancestry(wanted)?;
    if wanted == end.timeline {
        return Ok((history, Some(wanted)));
    }
    let backup = record.id;
    match history.fork_from(end.timeline) {
        Some(fork) if fork >= end.lsn => Ok((history, Some(wanted))),
        Some(fork) => Err(RestoreError::ForkedBeforeEnd { wanted, fork, backup, end: end.lsn }),
        None => Err(RestoreError::NotADescendant { wanted, backup, of_backup: end.timeline }),
    }
}

/// The newest timeline that left that of the backup behind its end; that of the backup if none did.
fn newest_descendant(store: &HistoryStore, end: Position) -> Result<TimelineId, RestoreError> {
    for candidate in store.list()?.into_iter().rev().take_while(|&newer| newer > end.timeline) {
        let fork = store.ancestry(candidate)?.fork_from(end.timeline);
        if fork.is_some_and(|fork| fork >= end.lsn) {
            return Ok(candidate);
        }
    }
    Ok(end.timeline)
}

/// The first WAL on the way that PostgreSQL could not replay, as far as the index knows.
fn suspect_wal(
    server: &ServerDir,
    record: &BackupRecord,
    history: &TimelineHistory,
    wal: &WalRange,
    target: &RecoveryTarget,
) -> Result<Option<RestoreError>, RestoreError> {
    // Recovery ends as soon as it may.
    let to = match target {
        RecoveryTarget::Immediate => wal.first_target,
        _ => wal.needed_to.min(wal.held_to),
    };
    let verdicts = WalStore::new(server, record.segment_size).verdicts()?;
    let on_the_way = |suspect: &SuspectWal| {
        let timeline = suspect.segment.timeline();
        let left = history.fork_from(timeline);
        history.contains(timeline)
            && suspect.range.to > wal.needed_from
            && suspect.range.from < to
            && left.is_none_or(|left| suspect.range.from < left)
    };
    let first = verdicts.suspect.into_iter().filter(on_the_way).min_by_key(|s| s.range.from);
    Ok(first.map(|SuspectWal { segment, range }| RestoreError::SuspectWal { segment, range }))
}

/// How far WAL leads from the backup.
fn find_wal(
    server: &ServerDir,
    record: &BackupRecord,
    history: &TimelineHistory,
    begin: Position,
    end: Position,
    target: &RecoveryTarget,
) -> Result<WalRange, RestoreError> {
    let store = WalStore::new(server, record.segment_size);
    let (held_to, gap) = match store.reach(history, begin.lsn, END_OF_WAL)? {
        Reach::Covered => (END_OF_WAL, None),
        Reach::Missing(gap) => (gap.from, Some(gap)),
    };
    let stop = match target {
        RecoveryTarget::Lsn(lsn) => Some(*lsn),
        RecoveryTarget::Immediate => Some(end.lsn),
        _ => None,
    };
    // The record that ends the replay may reach into the segment behind.
    let size = record.segment_size;
    let needed_to = stop.map_or(held_to, |stop| size.end_of(size.segment_of(stop).next()));
    let range = WalRange {
        needed_from: begin.lsn,
        first_target: end.lsn,
        needed_to: needed_to.min(held_to),
        held_to,
        gap_behind: gap.is_some_and(|gap| gap.passed),
    };
    let missing = |missing: Gap| RestoreError::WalGap { missing, target: target.to_string() };
    match gap {
        // Complete along its own timeline, but not along the one that was chosen.
        Some(gap) if held_to < end.lsn => Err(missing(gap)),
        Some(gap) if gap.passed && *target == RecoveryTarget::Latest => Err(missing(gap)),
        Some(gap) => match target {
            RecoveryTarget::Lsn(lsn) if gap.passed && *lsn >= held_to => Err(missing(gap)),
            _ => Ok(range),
        },
        None => Ok(range),
    }
}

fn check_target(
    record: &BackupRecord,
    wal: &WalRange,
    end: Position,
    target: &RecoveryTarget,
    notes: &mut Vec<String>,
) -> Result<(), RestoreError> {
    let backup = record.id;
    let version = record.server_version;
    match target {
        RecoveryTarget::Latest | RecoveryTarget::Immediate => return Ok(()),
        RecoveryTarget::Lsn(_) if version < LSN_TARGET => {
            return Err(RestoreError::NoLsnTarget { version });
        }
        &RecoveryTarget::Lsn(target) if target < end.lsn => {
            return Err(RestoreError::LsnBeforeEnd { target, backup, end: end.lsn });
        }
        // A server stops at the first record that begins there or later: there must be one.
        &RecoveryTarget::Lsn(target) if target >= wal.held_to => {
            return Err(RestoreError::LsnBeyondWal { target, last: wal.held_to });
        }
        RecoveryTarget::Lsn(_) => return Ok(()),
        RecoveryTarget::Time(time) => {
            let target = time.instant;
            if let Some(end) = record.ended_at.filter(|&ended| target < ended) {
                return Err(RestoreError::TimeBeforeEnd { target, backup, end });
            }
            if target > Timestamp::now() {
                return Err(RestoreError::TimeInFuture { target });
            }
        }
        RecoveryTarget::Xid(_) | RecoveryTarget::Name(_) => {}
    }
    if version < UNREACHED_TARGET_IS_FATAL {
        notes.push(format!(
            "if {target} is not in the WAL, PostgreSQL {version} recovers all there is and opens \
             for writing without a word: check what you got"
        ));
    }
    if wal.gap_behind {
        notes.push(format!("WAL breaks off at {}; {target} must lie before", wal.held_to));
    }
    Ok(())
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

/// Adds up what goes to each file system.
fn check_room(
    record: &BackupRecord,
    destination: &Place,
    places: &BTreeMap<u32, Place>,
    wal_bytes: u64,
) -> Result<(), RestoreError> {
    let mut needs: BTreeMap<u64, (&Path, u64)> = BTreeMap::new();
    let archives = record.archives.iter().map(|archive| {
        let place = archive.tablespace.and_then(|oid| places.get(&oid)).unwrap_or(destination);
        (place, archive.plain_size)
    });
    for (place, bytes) in archives.chain([(destination, wal_bytes)]) {
        let path = place.nearest.as_path();
        let device = fs::metadata(path).map_err(StorageError::of("look at", path))?.dev();
        let need = needs.entry(device).or_insert((path, 0));
        need.1 = need.1.saturating_add(bytes);
    }
    for (path, needed) in needs.into_values() {
        let room = rustix::fs::statvfs(path)
            .map_err(|errno| StorageError::of("look at", path)(errno.into()))?;
        let available = room.f_bavail.saturating_mul(room.f_frsize);
        if available < needed {
            return Err(RestoreError::NoRoom { path: path.to_owned(), needed, available });
        }
    }
    Ok(())
}

fn utf8(path: &Path) -> Result<&str, RestoreError> {
    path.to_str().ok_or_else(|| RestoreError::NotUtf8 { path: path.to_owned() })
}
