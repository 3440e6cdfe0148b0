//! pgBackRest: `archive-push` of every segment, as the server's `archive_command` would call it. It
//! reads from the server's own directory, so it receives nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use walrecv_tests::{Context, Result, program};

use super::{Contender, Field, Run, Stretch};
use crate::bench::process::Process;
use crate::postgres::peers;

pub(super) const ZSTD: &str = "pgBackRest zst";

struct PgBackRest {
    name: &'static str,
    compression: &'static str,
    program: PathBuf,
}

pub(super) fn enter(field: &mut Field) {
    let Some(program) = peers::pgbackrest() else {
        field.note("SKIPPED: pgBackRest is not installed; `--peers` gets it.");
        return;
    };
    for (name, compression) in [("pgBackRest raw", "none"), (ZSTD, "zst")] {
        field.add(PgBackRest { name, compression, program: program.clone() });
    }
}

impl Contender for PgBackRest {
    fn name(&self) -> &str {
        self.name
    }

    fn run(&self, stretch: &Stretch, _slot: &str, place: &Path) -> Result<Run> {
        let account = stretch.cluster.account();
        // It runs as the server's account, which must be able to write here, and get here.
        let repository = place.join("repository");
        fs::create_dir(&repository).context(|| format!("cannot make {}", repository.display()))?;
        for path in [place, &repository] {
            account.owns(path)?;
        }
        program::run(self.command(stretch, &repository, "stanza-create").arg("--no-online"))?;
        let mut run = Run {
            wall: Duration::ZERO,
            cpu_seconds: 0.0,
            peak_mib: 0.0,
            stored: stretch.stored(&repository)?,
            not_archived: None,
        };
        let wal = stretch.cluster.data_directory().join("pg_wal");
        for segment in &stretch.segments {
            let mut push = self.command(stretch, &repository, "archive-push");
            push.arg(format!("--compress-type={}", self.compression)).arg(wal.join(segment));
            let cost = Process::spawn(&mut push, &place.join("log"))?.wait()?;
            run.wall += cost.wall;
            run.cpu_seconds += cost.cpu_seconds;
            run.peak_mib = run.peak_mib.max(cost.peak_mib);
        }
        run.stored = stretch.stored(&repository)?;
        Ok(run)
    }
}

impl PgBackRest {
    fn command(&self, stretch: &Stretch, repository: &Path, name: &str) -> Command {
        let mut command = Command::new(&self.program);
        let option = |name: &str, value: &Path| format!("--{name}={}", value.display());
        stretch
            .cluster
            .account()
            .runs(&mut command)
            .current_dir("/")
            .args(["--stanza=main", "--log-level-file=off", "--log-level-console=warn"])
            .arg(option("pg1-path", stretch.cluster.data_directory()))
            .arg(option("repo1-path", repository))
            .arg(option("lock-path", &repository.join("lock")))
            .arg(name);
        command
    }
}
