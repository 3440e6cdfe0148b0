//! pgBackRest, with two processes. It reads from the server's own directory and restores on the same
//! machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use walrecv_tests::{Context, Result, program};

use super::{Contender, Subject};
use crate::bench::process::{Cost, Process};
use crate::bench::wal::receivers;
use crate::postgres::peers;

pub(super) const NAME: &str = "pgBackRest zst, 2 processes";

pub(super) struct PgBackRest {
    program: PathBuf,
}

impl PgBackRest {
    /// The one on this machine, if it knows such servers.
    pub(super) fn find(subject: &Subject) -> Result<Option<Self>> {
        let Some(program) = peers::pgbackrest() else { return Ok(None) };
        let found = Self { program };
        let place = receivers::directory()?;
        found.prepare(subject, place.path())?;
        let mut create = found.online(subject, place.path(), "stanza-create");
        Ok(program::run(&mut create).is_ok().then_some(found))
    }

    /// Makes the repository, which the server's account must be able to write to, and get to.
    fn prepare(&self, subject: &Subject, place: &Path) -> Result<()> {
        let account = subject.cluster.account();
        let repository = place.join("repository");
        fs::create_dir(&repository).context(|| format!("cannot make {}", repository.display()))?;
        [place, &repository].into_iter().try_for_each(|path| account.owns(path))
    }

    fn command(&self, subject: &Subject, place: &Path, data: &Path, name: &str) -> Command {
        let cluster = &subject.cluster;
        let repository = place.join("repository");
        let option = |name: &str, value: &Path| format!("--{name}={}", value.display());
        let mut command = Command::new(&self.program);
        cluster
            .account()
            .runs(&mut command)
            .current_dir("/")
            .args(["--stanza=main", "--log-level-file=off", "--log-level-console=warn"])
            .arg(option("repo1-path", &repository))
            .arg(name);
        if name != "verify" {
            command
                .arg(option("pg1-path", data))
                .arg(option("lock-path", &repository.join("lock")));
        }
        command
    }

    /// With what only the commands know that speak to the server.
    fn online(&self, subject: &Subject, place: &Path, name: &str) -> Command {
        let cluster = &subject.cluster;
        let mut command = self.command(subject, place, cluster.data_directory(), name);
        command
            .arg(format!("--pg1-socket-path={}", cluster.base_directory().display()))
            .arg(format!("--pg1-port={}", cluster.port()))
            .arg(format!("--pg1-user={}", walrecv_tests::cluster::SUPERUSER));
        command
    }
}

impl Contender for PgBackRest {
    fn name(&self) -> &str {
        NAME
    }

    fn back_up(&self, subject: &Subject, place: &Path) -> Result<()> {
        self.prepare(subject, place)?;
        program::run(&mut self.online(subject, place, "stanza-create"))?;
        let mut backup = self.online(subject, place, "backup");
        backup.args(["--type=full", "--start-fast", "--no-archive-check", "--process-max=2"]);
        program::run(backup.args(["--compress-type=zst", "--compress-level=1"])).map(drop)
    }

    fn restore(&self, subject: &Subject, place: &Path, into: &Path) -> Result<Cost> {
        // Its parent was made by us.
        if let Some(parent) = into.parent() {
            subject.cluster.account().owns(parent)?;
        }
        let mut restore = self.command(subject, place, into, "restore");
        restore.args(["--process-max=2", "--type=immediate"]);
        Process::spawn(&mut restore, &place.join("log"))?.wait()
    }

    fn verify(&self, subject: &Subject, place: &Path) -> Result<Vec<(&'static str, Cost)>> {
        let data = subject.cluster.data_directory();
        let mut verify = self.command(subject, place, data, "verify");
        verify.arg("--process-max=2");
        Ok(vec![(NAME, Process::spawn(&mut verify, &place.join("log"))?.wait()?)])
    }
}
