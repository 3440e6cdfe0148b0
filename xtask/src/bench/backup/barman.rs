//! Barman, which has `pg_basebackup` write the files as they are, and `pg_verifybackup` read them again.
//! Both together do what ours does at once.

use std::path::{Path, PathBuf};

use walrecv_tests::{Context, Result};

use super::{Contender, Subject};
use crate::bench::process::{Cost, Process};
use crate::bench::wal::receivers::SERVER;

pub(super) const NAME: &str = "Barman, backup and verify-backup";

pub(super) struct Barman(crate::bench::barman::Barman);

impl Barman {
    /// The one on this machine.
    pub(super) fn find() -> Option<Self> {
        crate::bench::barman::Barman::find().map(Self)
    }

    fn run(&self, place: &Path, arguments: &[&str]) -> Result<Cost> {
        let mut command = self.0.command(place, arguments);
        Process::spawn(&mut command, &place.join("log"))?.wait()
    }
}

impl Contender for Barman {
    fn name(&self) -> &str {
        NAME
    }

    fn back_up(&self, subject: &Subject, place: &Path) -> Result<(Cost, PathBuf)> {
        let receiver = self.0.begin(subject, place)?;
        subject.settle()?;
        let backup = self.run(place, &["backup", SERVER])?;
        let verify = self.run(place, &["verify-backup", SERVER, "latest"])?;
        receiver.stop()?;
        // Every place begins with nothing.
        let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                    WHERE NOT active";
        subject.cluster.wait_for("Barman's slot to be free", |cluster| {
            cluster.execute(drop)?;
            Ok(cluster.value("SELECT count(*) FROM pg_replication_slots")? == "0")
        })?;
        let base = place.join(SERVER).join("base");
        base.is_dir().then_some(()).context(|| format!("no {}", base.display()))?;
        Ok((backup.and(verify), base))
    }

    fn verify(&self, _place: &Path) -> Result<Option<Cost>> {
        Ok(None)
    }

    fn back_up_changes(
        &self,
        _subject: &Subject,
        _place: &Path,
    ) -> Result<Option<(Cost, PathBuf)>> {
        Ok(None)
    }
}
