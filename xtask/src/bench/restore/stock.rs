//! What a person does by hand: `zstd -d | tar x` of everything, `pg_combinebackup` if it is a chain,
//! and `sync`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use walrecv_tests::{Context, Installation, Result, program};

use super::{Contender, Subject};
use crate::bench::process::{Cost, Process};

pub(super) const NAME: &str = "zstd -d, tar and sync";

pub(super) struct Stock {
    installation: Installation,
}

impl Stock {
    pub(super) fn new(installation: &Installation) -> Self {
        Self { installation: installation.clone() }
    }

    fn program(&self, name: &str) -> Result<PathBuf> {
        self.installation.program(name).context(|| format!("there is no {name}"))
    }
}

/// The backups of a place, the oldest first.
fn backups(place: &Path) -> Result<Vec<PathBuf>> {
    let about = || format!("cannot read {}", place.display());
    let entries = fs::read_dir(place).context(about)?.flatten().map(|entry| entry.path());
    let mut backups: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    backups.sort();
    Ok(backups)
}

impl Contender for Stock {
    fn name(&self) -> &str {
        NAME
    }

    fn back_up(&self, subject: &Subject, place: &Path) -> Result<()> {
        let before = backups(place)?;
        let mut command = Command::new(self.program("pg_basebackup")?);
        command.args(["-d", &subject.conninfo, "-Ft", "-X", "none", "-c", "fast"]);
        command.args(["--compress=client-zstd:1", "-D"]);
        command.arg(place.join(before.len().to_string()));
        if let Some(parent) = before.last() {
            command.arg("--incremental").arg(parent.join("backup_manifest"));
        }
        program::run(&mut command).map(drop)
    }

    fn restore(&self, _subject: &Subject, place: &Path, into: &Path) -> Result<Cost> {
        let backups = backups(place)?;
        let single = backups.len() == 1;
        let mut script = String::from("set -e\n");
        let mut unpacked = String::new();
        for (number, backup) in backups.iter().enumerate() {
            let to = if single {
                into.display().to_string()
            } else {
                format!("{}.{number}", into.display())
            };
            script.push_str(&format!(
                "mkdir '{to}'\nzstd -dc '{}/base.tar.zst' | tar -xf - -C '{to}'\n\
                 cp '{0}/backup_manifest' '{to}'\n",
                backup.display()
            ));
            unpacked.push_str(&format!(" '{to}'"));
        }
        if !single {
            let judge = self.program("pg_combinebackup")?;
            script.push_str(&format!(
                "'{}' --no-sync -o '{}'{unpacked}\n",
                judge.display(),
                into.display()
            ));
        }
        script.push_str(&format!("sync -f '{}'\n", into.display()));
        let mut shell = Command::new("sh");
        Process::spawn(shell.args(["-c", &script]), &place.join("log"))?.wait()
    }

    fn verify(&self, _subject: &Subject, _place: &Path) -> Result<Vec<(&'static str, Cost)>> {
        Ok(Vec::new())
    }
}
