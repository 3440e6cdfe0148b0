//! The product. Raw WAL is received up to the end and acknowledged, all of it durable. Compressed
//! WAL is received until all of it is in the archive.

use std::path::Path;
use std::time::{Duration, Instant};

use walrecv_tests::walrecv::Walrecv;
use walrecv_tests::{Failure, Result};

use super::super::receivers::{SERVER, section};
use super::{Contender, Field, Run, Stretch};
use crate::bench::process::{Cost, Process};

pub(super) const RAW: &str = "walrecv-server raw";
pub(super) const RAW_UNCHECKED: &str = "walrecv-server raw, not validating";
pub(super) const ZSTD_1: &str = "walrecv-server zstd 1";
pub(super) const ZSTD_3: &str = "walrecv-server zstd 3";
pub(super) const LZ4: &str = "walrecv-server lz4";

/// WAL is validated as it comes, unless this says otherwise.
const UNCHECKED: &str = "wal_validation = false";

/// How often is looked whether the archive is complete.
const GLANCE: Duration = Duration::from_millis(10);

/// How long it may take to become so.
const PATIENCE: Duration = Duration::from_secs(600);

struct Product {
    name: &'static str,
    settings: &'static [&'static str],
    compressed: bool,
}

pub(super) fn enter(field: &mut Field) -> Result<()> {
    let raw = |name, settings| Product { name, settings, compressed: false };
    let compressed = |name, settings| Product { name, settings, compressed: true };
    field.add(raw(RAW, &["compression = \"none\""]));
    if can_be_told_not_to_validate()? {
        field.add(raw(RAW_UNCHECKED, &["compression = \"none\"", UNCHECKED]));
    } else {
        field.note(
            "walrecv-server has no setting `wal_validation` in this version: it was measured as \
             it is by default only.",
        );
    }
    field.add(compressed(ZSTD_1, &["compression = \"zstd\"", "compression_level = 1"]));
    field.add(compressed(ZSTD_3, &["compression = \"zstd\"", "compression_level = 3"]));
    field.add(compressed(LZ4, &["compression = \"lz4\""]));
    Ok(())
}

/// Whether this version knows the setting: one that does not refuses the whole configuration.
fn can_be_told_not_to_validate() -> Result<bool> {
    let walrecv = Walrecv::new(&section(SERVER, "host=127.0.0.1", "slot", &[UNCHECKED]))?;
    let output = walrecv.run(&["list-backups", SERVER])?;
    if output.stderr.contains("unknown key `wal_validation`") {
        return Ok(false);
    }
    output.success().map(|_| true)
}

impl Contender for Product {
    fn name(&self) -> &str {
        self.name
    }

    fn run(&self, stretch: &Stretch, slot: &str, place: &Path) -> Result<Run> {
        let walrecv = Walrecv::new(&section(SERVER, &stretch.conninfo, slot, self.settings))?;
        let store = walrecv.home().join(SERVER);
        let log = place.join("log");
        let (wall, cost) = if self.compressed {
            let mut process =
                Process::spawn(&mut walrecv.command(&["receive-wal", SERVER])?, &log)?;
            let wall = wait_for_the_archive(stretch, &store, &mut process)?;
            (wall, process.stop()?)
        } else {
            let end = stretch.end.to_string();
            let arguments = ["receive-wal", SERVER, "--endpos", &end];
            let cost: Cost = Process::spawn(&mut walrecv.command(&arguments)?, &log)?.wait()?;
            (cost.wall, cost)
        };
        Ok(Run {
            wall,
            cpu_seconds: cost.cpu_seconds,
            peak_mib: cost.peak_mib,
            stored: stretch.stored(&store)?,
            not_archived: Some(stretch.stored(&store.join("streaming"))?.complete()),
        })
    }
}

/// Returns when every segment is archived, and no raw one is left.
fn wait_for_the_archive(
    stretch: &Stretch,
    store: &Path,
    process: &mut Process,
) -> Result<Duration> {
    let (wals, streaming) = (store.join("wals"), store.join("streaming"));
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        process.demand_running()?;
        let archived = wals.is_dir() && stretch.is_in(&stretch.stored(&wals)?);
        if archived && stretch.stored(&streaming)?.complete() == 0 {
            return Ok(process.began().elapsed());
        }
        std::thread::sleep(GLANCE);
    }
    Err(Failure::new(format!("the archive was not complete after {PATIENCE:?}")))
}
