//! What a restore needs to stay until the restored server has its WAL.

use jiff::Timestamp;

use super::error::RestoreError;
use super::owner::Owner;
use super::plan::{Plan, Sources};
use crate::catalog::leases::TERM;
use crate::catalog::{Catalog, Lease, LeaseId, Reach, WalStore};

impl Plan {
    /// A lease on what this plan reads, and what the restored server reads after it.
    pub fn lease(&self, id: LeaseId) -> Lease {
        let created = Timestamp::now();
        Lease {
            id,
            backups: self.sources.chain().iter().map(|backup| backup.id).collect(),
            timeline: self.sources.record.begin.map_or(self.timeline, |begin| begin.timeline),
            first_needed: self.wal.needed_from,
            destination: self.destination.display().to_string(),
            holder: Owner::current().name,
            created,
            expires: created + TERM,
            restoring: true,
        }
    }

    /// Looks whether all is still there that was planned with: it may have been removed before there
    /// was a lease on it.
    ///
    /// # Errors
    /// If a backup or WAL on the way is gone.
    pub fn confirm(&self) -> Result<(), RestoreError> {
        let Sources { server, record, history, .. } = &self.sources;
        let catalog = Catalog::new(server);
        for &backup in &self.chain {
            catalog.load(backup)?;
        }
        let (from, to) = (self.wal.needed_from, self.wal.needed_to.min(self.wal.held_to));
        match WalStore::new(server, record.segment_size).reach(history, from, to)? {
            Reach::Covered => Ok(()),
            Reach::Missing(missing) => {
                let target = self.target.to_string();
                Err(RestoreError::WalGap {
                    backup: self.backup,
                    missing,
                    target,
                    last_target: None,
                })
            }
        }
    }
}
