//! What a restore needs to stay until the restored server has its WAL.

use jiff::Timestamp;

use super::owner::Owner;
use super::plan::Plan;
use crate::catalog::leases::TERM;
use crate::catalog::{BackupError, Catalog, Lease, LeaseId};

impl Plan {
    /// A lease on what this plan reads, and what the restored server reads after it.
    ///
    /// # Errors
    /// If it cannot be told what the backup builds on.
    pub fn lease(&self, id: LeaseId) -> Result<Lease, BackupError> {
        let record = &self.sources.record;
        let ancestors = Catalog::new(&self.sources.server).ancestors(record)?.unwrap_or_default();
        let created = Timestamp::now();
        Ok(Lease {
            id,
            backups: [record].into_iter().chain(&ancestors).map(|backup| backup.id).collect(),
            timeline: record.begin.map_or(self.timeline, |begin| begin.timeline),
            first_needed: self.wal.needed_from,
            destination: self.destination.display().to_string(),
            holder: Owner::current().name,
            created,
            expires: created + TERM,
            restoring: true,
        })
    }
}
