//! PostgreSQL's own program, into tar archives that it makes durable. What they are worth is for
//! `pg_verifybackup` to say, which reads tar archives from 18 on.

use std::path::{Path, PathBuf};
use std::process::Command;

use walrecv_tests::{Context, Installation, Result};

use super::{Contender, Subject};
use crate::bench::process::{Cost, Process};

pub(super) const PLAIN: &str = "pg_basebackup";
pub(super) const ZSTD: &str = "pg_basebackup zstd 1";
pub(super) const WITH_WAL: &str = "pg_basebackup zstd 1, with WAL";
pub(super) const LZ4: &str = "pg_basebackup lz4";
pub(super) const SERVER_ZSTD: &str = "pg_basebackup, server's zstd 1";

/// The first `pg_verifybackup` that reads tar archives.
const READS_TAR: u32 = 18;

pub(super) struct PgBasebackup {
    name: &'static str,
    arguments: &'static [&'static str],
    /// How it takes the WAL along that the backup needs.
    wal_method: &'static str,
    installation: Installation,
}

impl PgBasebackup {
    pub(super) fn new(
        name: &'static str,
        arguments: &'static [&'static str],
        installation: &Installation,
    ) -> Self {
        Self { name, arguments, wal_method: "none", installation: installation.clone() }
    }

    /// Takes the WAL along that the backup needs, as it does unless it is told otherwise.
    pub(super) fn with_wal(self) -> Self {
        Self { wal_method: "stream", ..self }
    }

    fn program(&self, name: &str) -> Result<Command> {
        let program = self.installation.program(name);
        Ok(Command::new(program.context(|| format!("there is no {name}"))?))
    }

    fn take(
        &self,
        subject: &Subject,
        place: &Path,
        into: &str,
        more: &[&str],
    ) -> Result<(Cost, PathBuf)> {
        let into = place.join(into);
        let mut command = self.program("pg_basebackup")?;
        command.args(["-d", &subject.conninfo, "-Ft", "-X", self.wal_method, "-c", "fast"]);
        command.arg("-D").arg(&into).args(self.arguments).args(more);
        Ok((Process::spawn(&mut command, &place.join("log"))?.wait()?, into))
    }
}

impl Contender for PgBasebackup {
    fn name(&self) -> &str {
        self.name
    }

    fn back_up(&self, subject: &Subject, place: &Path) -> Result<(Cost, PathBuf)> {
        self.take(subject, place, "full", &[])
    }

    fn verify(&self, place: &Path) -> Result<Option<Cost>> {
        if self.installation.major < READS_TAR {
            return Ok(None);
        }
        let mut command = self.program("pg_verifybackup")?;
        command.arg("-n").arg(place.join("full"));
        Process::spawn(&mut command, &place.join("log"))?.wait().map(Some)
    }

    fn back_up_changes(&self, subject: &Subject, place: &Path) -> Result<Option<(Cost, PathBuf)>> {
        // On the one before.
        let name = |number| format!("changes-{number}");
        let before = (1..).take_while(|number| place.join(name(*number)).is_dir()).last();
        let parent = before.map_or_else(|| "full".to_owned(), name);
        let into = name(before.unwrap_or(0) + 1);
        let manifest = place.join(parent).join("backup_manifest").display().to_string();
        self.take(subject, place, &into, &["--incremental", &manifest]).map(Some)
    }
}
