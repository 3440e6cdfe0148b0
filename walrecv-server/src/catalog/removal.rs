//! Removing base backups: first what would go, then that it goes.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::backup_record::BackupRecord;
use super::backups::{BackupError, Catalog};
use super::document::DocumentError;
use super::keep::{Keep, KeepTarget};
use super::leases::{Lease, Leases, NoNewLeases};
use crate::failure::{Class, Failure};
use crate::storage::{BackupId, ServerLock, StorageError, durable};

/// Backups that are to go, those that build on others first: however far the removing comes, none
/// of those that are left builds on one that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    backups: Vec<BackupRecord>,
}

/// Why backups cannot be removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemovalError {
    /// Others build on it.
    #[error("backup `{backup}` cannot be removed: {} on it", build(children))]
    Children {
        /// The backup.
        backup: BackupId,
        /// Those that do.
        children: Vec<BackupId>,
    },
    /// It is marked to be kept.
    #[error("backup `{backup}` is kept ({target}), and not removed")]
    Kept {
        /// The backup.
        backup: BackupId,
        /// What stays with it.
        target: KeepTarget,
    },
    /// Nobody knows whether it is to be kept.
    #[error("cannot tell whether backup `{backup}` is to be kept, so it is not removed")]
    Mark {
        /// The backup.
        backup: BackupId,
        /// Why not.
        source: DocumentError,
    },
    /// A restore reads it, or the server that was restored from it may not have all its WAL yet.
    #[error("backup `{backup}` is not removed: {} needs it, {}", whose(.lease), until(.lease))]
    Leased {
        /// The backup.
        backup: BackupId,
        /// The lease of the restore.
        lease: Box<Lease>,
    },
    /// Nobody knows whether a restore needs it.
    #[error("cannot tell which backups a restore needs, so none is removed")]
    Lease {
        /// Why not.
        source: DocumentError,
    },
    /// Nobody knows what builds on what.
    #[error("cannot tell what backup `{unreadable}` builds on, so nothing is removed")]
    Unknown {
        /// A backup whose record cannot be read.
        unreadable: BackupId,
        /// Why not.
        source: BackupError,
    },
    /// It is to be forgotten, and it is there.
    #[error("backup `{backup}` is not forgotten: `{}` is there", path.display())]
    There {
        /// The backup.
        backup: BackupId,
        /// Its directory.
        path: PathBuf,
    },
    /// The records cannot be used.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// Its files cannot be removed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

fn build(children: &[BackupId]) -> String {
    let names: Vec<_> = children.iter().map(|child| format!("`{child}`")).collect();
    let verb = if children.len() == 1 { "builds" } else { "build" };
    format!("{} {verb}", names.join(", "))
}

/// What can be done about a backup of which nobody knows what it is.
pub fn hint_to_unreadable(backup: BackupId) -> String {
    format!(
        "see to its `backup.json`, or move the directory `{backup}` away and have it forgotten by \
         `walrecv-server delete SERVER {backup} --forget`"
    )
}

fn whose(lease: &Lease) -> String {
    format!("the restore into `{}` by {}", lease.destination, lease.holder)
}

fn until(lease: &Lease) -> String {
    if lease.restoring {
        "which is running".to_owned()
    } else {
        format!("until {}", lease.expires.strftime("%Y-%m-%d %H:%M UTC"))
    }
}

impl Failure for RemovalError {
    fn class(&self) -> Class {
        match self {
            Self::Children { .. }
            | Self::Kept { .. }
            | Self::Mark { .. }
            | Self::Leased { .. }
            | Self::Lease { .. }
            | Self::Unknown { .. }
            | Self::There { .. } => Class::Refused,
            Self::Backup(error) => error.class(),
            Self::Storage(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Children { .. } => Some("`--cascade` removes them, too".to_owned()),
            Self::Kept { backup, .. } => {
                Some(format!("`walrecv-server keep SERVER {backup} --release` lets it go"))
            }
            Self::Mark { source, .. } => source.hint(),
            Self::Leased { .. } => Some(
                "wait until the restored server has all its WAL, or remove it all the same with \
                 `--ignore-leases`"
                    .to_owned(),
            ),
            Self::Lease { .. } => {
                Some("see to that file; `--ignore-leases` removes backups all the same".to_owned())
            }
            Self::Unknown { unreadable, .. } => Some(hint_to_unreadable(*unreadable)),
            Self::There { .. } => Some("without `--forget`, it is removed".to_owned()),
            Self::Backup(error) => error.hint(),
            Self::Storage(error) => error.hint(),
        }
    }
}

impl Removal {
    /// The backups, in the order in which they go.
    pub fn backups(&self) -> &[BackupRecord] {
        &self.backups
    }
}

impl Catalog {
    /// The backups that build on this one, directly or not: none before one that builds on it.
    ///
    /// # Errors
    /// If the directory, or any record in it, cannot be read: nobody knows what that one builds on.
    fn descendants(&self, of: BackupId) -> Result<Vec<BackupRecord>, RemovalError> {
        let mut others = Vec::new();
        for entry in self.list()? {
            match entry.record {
                Ok(record) => others.push(record),
                Err(source) => {
                    return Err(RemovalError::Unknown { unreadable: entry.id, source });
                }
            }
        }
        let (mut descendants, mut parents) = (Vec::new(), BTreeSet::from([of]));
        // A generation at a time: clocks may be set back, so nothing follows from when they began.
        while !parents.is_empty() {
            let is_child = |record: &BackupRecord| {
                record.parent.is_some_and(|parent| parents.contains(&parent))
            };
            let (children, rest): (Vec<_>, Vec<_>) = others.into_iter().partition(is_child);
            others = rest;
            parents = children.iter().map(|child| child.id).collect();
            descendants.extend(children);
        }
        descendants.reverse();
        Ok(descendants)
    }

    /// What goes if a backup is removed, with those that build on it if they are to `cascade`.
    ///
    /// # Errors
    /// If one of them is kept or leased, or others build on it and are not to go.
    pub fn plan_removal(
        &self,
        record: BackupRecord,
        cascade: bool,
        mut leases: Leases,
    ) -> Result<Removal, RemovalError> {
        let mut backups = self.descendants(record.id)?;
        if !backups.is_empty() && !cascade {
            let children = backups.iter().rev().map(|child| child.id).collect();
            return Err(RemovalError::Children { backup: record.id, children });
        }
        backups.push(record);
        for record in &backups {
            let backup = record.id;
            match Keep::load(&self.server().backup(backup)) {
                Ok(None) => {}
                Ok(Some(Keep { target, .. })) => {
                    return Err(RemovalError::Kept { backup, target });
                }
                Err(source) => return Err(RemovalError::Mark { backup, source }),
            }
            if let Some(lease) = leases.of(backup).next().cloned() {
                return Err(RemovalError::Leased { backup, lease: Box::new(lease) });
            }
        }
        if let Some(source) = leases.take_unreadable() {
            return Err(RemovalError::Lease { source });
        }
        Ok(Removal { backups })
    }

    /// Removes them. What is removed is no backup any more at once; its space is free a moment
    /// later. Durable on return.
    ///
    /// # Errors
    /// If something cannot be removed. What was removed before stays removed.
    pub fn remove(
        &self,
        removal: &Removal,
        backup: &ServerLock,
        leases: &NoNewLeases,
    ) -> Result<(), RemovalError> {
        for record in &removal.backups {
            self.hide(record.id, backup, leases)?;
        }
        self.collect_removed(backup);
        Ok(())
    }

    /// Takes a backup's name away: it is none any more, and its space is free when what was removed
    /// is [collected](Self::collect_removed). Durable on return.
    ///
    /// # Errors
    /// If it cannot be struck out of the register, or renamed.
    pub fn hide(
        &self,
        id: BackupId,
        backup: &ServerLock,
        _leases: &NoNewLeases,
    ) -> Result<(), BackupError> {
        self.strike_out(id, backup)?;
        Ok(durable::hide_dir(self.server().backup(id).path())?)
    }

    /// No longer expects a backup to be there that somebody took away. Durable on return.
    ///
    /// # Errors
    /// If it is there, or nobody knows of it.
    pub fn forget(&self, id: BackupId, backup: &ServerLock) -> Result<(), RemovalError> {
        let directory = self.server().backup(id);
        if directory.path().exists() {
            let path = directory.path().to_owned();
            return Err(RemovalError::There { backup: id, path });
        }
        if self.strike_out(id, backup)? {
            Ok(())
        } else {
            Err(self.unknown(&id.to_string()).into())
        }
    }

    /// Frees the space of what was removed, also by a removal that was interrupted. What cannot be
    /// freed now is in nobody's way, and is freed another time.
    pub fn collect_removed(&self, _backup: &ServerLock) {
        if let Err(error) = durable::collect_hidden_dirs(&self.server().base()) {
            let cause = error.source.to_string();
            tracing::warn!(%error, cause, "a removed backup still takes space");
        }
    }
}
