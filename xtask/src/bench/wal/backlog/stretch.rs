//! The stretch of WAL that every contender receives.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use pgwire_stream::Lsn;
use walrecv_tests::{Cluster, Context, Failure, Result};

use super::super::receivers::{conninfo, create_slot, drop_slot};
use super::super::{Bench, pgbench, tell};

/// The slot that holds it; each run gets a copy.
const SLOT: &str = "stretch";

/// How often a checkpoint comes, in rounds of load: what is changed first after one is logged as a
/// whole page.
const CHECKPOINT_EVERY: u64 = 4;

/// A server, and the WAL that it keeps.
pub(super) struct Stretch {
    pub(super) cluster: Cluster,
    pub(super) conninfo: String,
    /// It ends where a segment ends, and a little more WAL lies behind.
    pub(super) end: Lsn,
    /// The names of its segments, in order.
    pub(super) segments: Vec<String>,
    pub(super) bytes: u64,
}

/// What a store holds of it.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// How much room the files take that belong to it.
    pub(super) bytes: u64,
    /// How many files there are of each segment, half-written ones not counted.
    complete: BTreeMap<String, usize>,
}

impl Stretch {
    /// Fills a server: a third of the WAL comes from loading tables, the rest from transactions.
    pub(super) fn prepare(bench: &Bench<'_>) -> Result<Self> {
        let megabytes = bench.arguments.size;
        tell(&format!("backlog: preparing {megabytes} MB of WAL"));
        let cluster = bench.cluster().config("autovacuum = off").start()?;
        let mut session = cluster.session()?;
        session.query("SELECT pg_switch_wal()")?;
        session.query("CHECKPOINT")?;
        create_slot(&mut session, SLOT)?;
        let begin =
            format!("(SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = '{SLOT}')");

        pgbench::initialise(&cluster, (megabytes / 45).max(4))?;
        let so_far = format!("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), {begin})");
        let mut rounds = 0;
        while number(&session.value(&so_far)?)? < megabytes * 1_000_000 {
            bench.interrupt.check()?;
            if rounds % CHECKPOINT_EVERY == 0 {
                session.query("CHECKPOINT")?;
            }
            pgbench::transactions(&cluster, 4, megabytes * 2)?;
            rounds += 1;
        }
        session.query("SELECT pg_switch_wal()")?;
        let size = number(
            &session.value("SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'")?,
        )?;
        let now = session.value("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")?;
        let end = Lsn::from_u64(number(&now)? / size * size);
        let segments = session.query(&format!(
            "SELECT name FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{{24}}$' \
             AND name >= pg_walfile_name({begin}) AND name <= pg_walfile_name('{end}') \
             ORDER BY name"
        ))?;
        let segments: Vec<String> = segments.into_iter().flatten().collect();
        // `pg_receivewal` ends behind its end position only.
        session.query("SELECT pg_create_restore_point('end')")?;
        let bytes = size * segments.len() as u64;
        tell(&format!("backlog: {} segments", segments.len()));
        Ok(Self { conninfo: conninfo(&cluster), cluster, end, segments, bytes })
    }

    /// The slot for one run.
    pub(super) fn copy_slot(&self, slot: &str) -> Result<()> {
        self.cluster
            .execute(&format!("SELECT pg_copy_physical_replication_slot('{SLOT}', '{slot}')"))
    }

    pub(super) fn drop_slot(&self, slot: &str) -> Result<()> {
        drop_slot(&self.cluster, slot)
    }

    pub(super) fn last(&self) -> &str {
        self.segments.last().map_or("", String::as_str)
    }

    /// What lies of it in a directory and below.
    pub(super) fn stored(&self, directory: &Path) -> Result<Stored> {
        let mut stored = Stored::default();
        self.collect(directory, &mut stored)?;
        Ok(stored)
    }

    fn collect(&self, directory: &Path, stored: &mut Stored) -> Result<()> {
        let about = || format!("cannot read {}", directory.display());
        for entry in fs::read_dir(directory).context(about)? {
            let entry = entry.context(about)?;
            // Files may be moved while we look.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                self.collect(&entry.path(), stored)?;
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(segment) = segment_of(&name) else { continue };
            if self.segments.binary_search_by(|known| known.as_str().cmp(segment)).is_ok() {
                stored.bytes += metadata.len();
                if !name.contains("partial") && !name.ends_with(".tmp") {
                    *stored.complete.entry(segment.to_owned()).or_default() += 1;
                }
            }
        }
        Ok(())
    }

    /// Demands that a store holds all of it.
    pub(super) fn demand(&self, stored: &Stored) -> Result<()> {
        if self.is_in(stored) {
            return Ok(());
        }
        Err(Failure::new(format!(
            "only {} of {} segments are stored",
            stored.complete.len(),
            self.segments.len()
        )))
    }

    pub(super) fn is_in(&self, stored: &Stored) -> bool {
        stored.complete.len() == self.segments.len()
    }
}

impl Stored {
    pub(super) fn complete(&self) -> usize {
        self.complete.len()
    }
}

/// The segment that a file belongs to: all contenders begin its name with the segment's.
fn segment_of(file: &str) -> Option<&str> {
    let name = file.get(..24)?;
    name.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(name)
}

fn number(text: &str) -> Result<u64> {
    text.parse().context(|| format!("`{text}` is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_belong_to_segments_by_name() {
        let one = "000000010000000000000001";
        for suffix in ["", ".zst", ".partial", "-0123abcd.zst"] {
            assert_eq!(segment_of(&format!("{one}{suffix}")), Some(one));
        }
        for other in ["index", ".000000010000000000000001.zst.tmp", "00000002.history"] {
            assert_eq!(segment_of(other), None);
        }
    }
}
