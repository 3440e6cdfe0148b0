//! A backup that is dated in the future.

use jiff::Timestamp;

use super::facts::{Facts, KnownBackup};

impl Facts {
    /// The same facts, where a backup that is dated later than it can be has the dates of the next
    /// one in the order of WAL: it is not newer than that. Without a next one, it is of now.
    pub(super) fn dated(&self, latest: Timestamp) -> Self {
        let mut dated = self.clone();
        let mut order: Vec<_> = (0..self.backups.len()).collect();
        // What leads to another has the smaller position, so the next one has its dates before.
        order.sort_by_key(|&place| {
            std::cmp::Reverse(self.backups.get(place).and_then(|at| at.begin).map(|at| at.lsn))
        });
        for place in order {
            let Some(backup) = dated.backups.get(place) else { continue };
            let (began, ended) = (backup.began_at, backup.ended_at);
            if began <= latest && ended.is_none_or(|ended| ended <= latest) {
                continue;
            }
            let next = next(&dated, backup).map(|next| (next.began_at, next.ended_at));
            let (began_at, ended_at) = next.unwrap_or((latest, Some(latest)));
            if let Some(backup) = dated.backups.get_mut(place) {
                backup.began_at = began.min(began_at);
                backup.ended_at = ended.map(|ended| ended.min(ended_at.unwrap_or(latest)));
            }
        }
        dated
    }
}

fn next<'a>(facts: &'a Facts, backup: &KnownBackup) -> Option<&'a KnownBackup> {
    let behind = facts.backups.iter().filter(|other| facts.is_before(backup, other));
    behind.min_by_key(|other| other.begin.map(|begin| begin.lsn))
}
