//! The order in which Barman has its rows. Ours that it does not have come behind them.

use super::Row;

const BARMAN: &[&str] = &[
    "WAL archive",
    "PostgreSQL",
    "superuser or standard user with backup privileges",
    "PostgreSQL streaming",
    "PostgreSQL server is standby",
    "Primary server is not a standby",
    "Primary and standby have same system ID",
    "wal_level",
    "replication slot",
    "directories",
    "retention policy settings",
    "backup maximum age",
    "backup minimum size",
    "encryption",
    "wal maximum age",
    "wal size",
    "compression settings",
    "failed backups",
    "minimum redundancy requirements",
    "systemid coherence",
    "receive-wal running",
    "archiver errors",
    "check timeout",
];

/// Puts rows in order.
pub(super) fn sort(rows: &mut [Row]) {
    rows.sort_by_key(|row| {
        let place = BARMAN.iter().position(|name| *name == row.name);
        (row.advisory, place.unwrap_or(BARMAN.len()))
    });
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn barmans_rows_come_first_and_advice_last() {
        let mut rows = vec![
            Row::advice("clock skew", State::Ok, "x"),
            Row::ok("archiver errors"),
            Row::ok("last backup"),
            Row::ok("wal_level"),
            Row::ok("PostgreSQL"),
        ];
        sort(&mut rows);
        let names: Vec<_> = rows.iter().map(|row| row.name).collect();
        assert_eq!(
            names,
            ["PostgreSQL", "wal_level", "archiver errors", "last backup", "clock skew"]
        );
    }
}
