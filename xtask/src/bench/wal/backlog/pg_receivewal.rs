//! PostgreSQL's own receiver, to the end of the stretch. It syncs each segment that it completes.

use std::path::Path;

use walrecv_tests::{Context, Installation, Result};

use super::super::{Bench, receivers};
use super::{Contender, Field, Run, Stretch};
use crate::bench::process::Process;

pub(super) const RAW: &str = "pg_receivewal raw";

struct PgReceivewal {
    name: &'static str,
    arguments: &'static [&'static str],
    installation: Installation,
}

pub(super) fn enter(field: &mut Field, bench: &Bench<'_>) {
    let variants: [(_, &[&str]); 2] = [(RAW, &[]), ("pg_receivewal lz4", &["-Z", "lz4"])];
    for (name, arguments) in variants {
        field.add(PgReceivewal { name, arguments, installation: bench.installation.clone() });
    }
}

impl Contender for PgReceivewal {
    fn name(&self) -> &str {
        self.name
    }

    fn run(&self, stretch: &Stretch, slot: &str, place: &Path) -> Result<Run> {
        let store = place.join("wal");
        std::fs::create_dir(&store).context(|| format!("cannot make {}", store.display()))?;
        let mut command =
            receivers::pg_receivewal(&self.installation, &stretch.conninfo, slot, &store)?;
        command.args(["--no-loop", "--endpos", &stretch.end.to_string()]).args(self.arguments);
        let cost = Process::spawn(&mut command, &place.join("log"))?.wait()?;
        Ok(Run {
            wall: cost.wall,
            cpu_seconds: cost.cpu_seconds,
            peak_mib: cost.peak_mib,
            stored: stretch.stored(&store)?,
            not_archived: None,
        })
    }
}
