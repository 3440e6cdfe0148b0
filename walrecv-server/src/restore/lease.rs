//! What a restore needs to stay until the restored server has its WAL.

use jiff::Timestamp;

use super::owner::Owner;
use super::plan::Plan;
use crate::catalog::leases::TERM;
use crate::catalog::{Lease, LeaseId};

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
}
