//! `delete`: removes a base backup, those that build on it if that is wanted, and the WAL that no
//! other needs.

use crate::catalog::{
    BackupError, BackupRecord, BackupStatus, Catalog, Leases, NoNewLeases, Removal, RemovalError,
};
use crate::failure::{Class, Failure, in_one_line};
use crate::hooks::{Event, HookError, Hooks, Interrupted};
use crate::retention::{self, RetentionError};
use crate::settings::ServerName;
use crate::storage::{BackupId, LockError, LockKind, ServerDir, ServerLock, StorageError};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct DeleteOptions {
    /// The backup.
    pub backup: String,
    /// Whether those that build on it go, too.
    pub cascade: bool,
    /// Whether what restores need goes all the same.
    pub ignore_leases: bool,
    /// Whether what would go is all that is wanted.
    pub dry_run: bool,
    /// How many full backups have to be left.
    pub minimum_redundancy: u32,
}

/// What was removed, or would be.
#[derive(Debug)]
pub struct DeleteOutcome {
    /// The server.
    pub server: ServerName,
    /// The backups, in the order in which they go.
    pub backups: Vec<BackupRecord>,
    /// Whether they are gone.
    pub removed: bool,
    /// How many files of WAL went with them, or would, because no other backup needs them.
    pub wal_files: u64,
    /// How much room these took.
    pub wal_bytes: u64,
    /// Why the WAL stays as it is although the backups are gone.
    pub wal_stays: Option<RetentionError>,
}

/// A backup that need not be there any more.
#[derive(Clone, Debug)]
pub struct ForgetOutcome {
    /// The server.
    pub server: ServerName,
    /// The backup.
    pub backup: BackupId,
}

/// Why nothing, or not all, was removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeleteFailure {
    /// There is no such backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// It is not to be removed, or cannot be.
    #[error(transparent)]
    Removal(#[from] RemovalError),
    /// Too few full backups would be left.
    #[error(
        "backup `{backup}` is not removed: {left} full backups would be left, and \
         `minimum_redundancy` is {minimum}"
    )]
    Redundancy {
        /// The backup.
        backup: BackupId,
        /// How many can be restored without it.
        left: usize,
        /// How many should.
        minimum: u32,
    },
    /// Another process works on the backups.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A script of the operator's does not allow it.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// Nobody can be kept from needing it meanwhile.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Failure for DeleteFailure {
    fn class(&self) -> Class {
        match self {
            Self::Backup(error) => error.class(),
            Self::Removal(error) => error.class(),
            Self::Redundancy { .. } => Class::Refused,
            Self::Lock(error) => error.class(),
            Self::Hook(error) => error.class(),
            Self::Storage(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Backup(error) => error.hint(),
            Self::Removal(error) => error.hint(),
            Self::Redundancy { .. } => {
                Some("take another backup first, or lower `minimum_redundancy`".to_owned())
            }
            Self::Lock(error) => error.hint(),
            Self::Hook(error) => error.hint(),
            Self::Storage(error) => error.hint(),
        }
    }
}

/// Removes the backup that is named, unless what would go is all that is wanted. If a script refuses
/// one of those that would go, none of them does.
pub fn delete(
    server: &ServerDir,
    options: &DeleteOptions,
    hooks: &Hooks,
    interrupted: Interrupted<'_>,
) -> Result<DeleteOutcome, DeleteFailure> {
    let catalog = Catalog::new(server);
    let plan = || -> Result<_, DeleteFailure> {
        let record = catalog.resolve(&options.backup)?;
        let leases = if options.ignore_leases { Leases::ignored() } else { Leases::load(server) };
        let removal = catalog.plan_removal(record, options.cascade, leases)?;
        keeps_enough(&catalog, &removal, options.minimum_redundancy)?;
        Ok(removal)
    };
    let (removal, wal) = if options.dry_run {
        let removal = plan()?;
        let going: Vec<_> = removal.backups().iter().map(|record| record.id).collect();
        let wal = retention::plan_wal_without(server, &going);
        (removal, wal)
    } else {
        // Nobody takes a backup on top of one that goes.
        let lock = ServerLock::try_acquire(server, LockKind::Backup)?;
        let facts = |record| Event::Delete(catalog.facts(record));
        let events: Vec<_> = plan()?.backups().iter().map(facts).collect();
        events.iter().try_for_each(|event| hooks.before(event, interrupted))?;
        let removed = remove(&catalog, server, plan, &lock);
        let wal = removed.is_ok().then(|| retention::free_wal(server, &lock, hooks));
        drop(lock);
        let error = removed.as_ref().err().map(|error| in_one_line(error));
        events.iter().for_each(|event| hooks.after(event, error.as_deref(), interrupted));
        (removed?, wal.unwrap_or(Ok(None)))
    };
    let (wal_files, wal_bytes) = match &wal {
        Ok(Some(plan)) => (plan.wal_files(), plan.wal_bytes()),
        Ok(None) | Err(_) => (0, 0),
    };
    Ok(DeleteOutcome {
        server: server.name().clone(),
        backups: removal.backups().to_vec(),
        removed: !options.dry_run,
        wal_files,
        wal_bytes,
        wal_stays: wal.err(),
    })
}

/// Has a backup forgotten that somebody took away. WAL that it alone needed goes when WAL goes the next
/// time.
pub fn forget(server: &ServerDir, backup: &str) -> Result<ForgetOutcome, DeleteFailure> {
    let unknown = || BackupError::Unknown {
        wanted: backup.chars().take(40).collect(),
        server: server.name().clone(),
    };
    let id: BackupId = backup.parse().map_err(|_| unknown())?;
    let lock = ServerLock::try_acquire(server, LockKind::Backup)?;
    Catalog::new(server).forget(id, &lock)?;
    Ok(ForgetOutcome { server: server.name().clone(), backup: id })
}

/// Refuses to remove a full backup that counts where too few would be left that do.
fn keeps_enough(catalog: &Catalog, removal: &Removal, minimum: u32) -> Result<(), DeleteFailure> {
    let (mut counted, mut left) = (None, 0);
    for entry in catalog.list()? {
        let Ok(record) = entry.record else { continue };
        let standing = catalog.standing(&record)?;
        let counts = standing.status == BackupStatus::Done && !standing.damaged;
        if record.parent.is_some() || !counts {
            continue;
        }
        if removal.backups().iter().any(|removed| removed.id == record.id) {
            counted = Some(record.id);
        } else {
            left += 1;
        }
    }
    match counted {
        Some(backup) if u32::try_from(left).is_ok_and(|left| left < minimum) => {
            Err(DeleteFailure::Redundancy { backup, left, minimum })
        }
        _ => Ok(()),
    }
}

/// Removes what is planned while nobody can come to need it.
fn remove(
    catalog: &Catalog,
    server: &ServerDir,
    plan: impl FnOnce() -> Result<Removal, DeleteFailure>,
    lock: &ServerLock,
) -> Result<Removal, DeleteFailure> {
    let leases = NoNewLeases::hold(server)?;
    let removal = plan()?;
    catalog.remove(&removal, lock, &leases)?;
    Ok(removal)
}
