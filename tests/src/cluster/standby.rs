//! Making a standby of a cluster.

use std::process::Command;

use super::{Cluster, SUPERUSER};
use crate::failure::{Context, Failure, Result};
use crate::program;

impl Cluster {
    /// A standby that streams from this cluster, which must have run with its settings, and be
    /// stopped for the moment of copying. Not started yet.
    pub fn make_standby(&self) -> Result<Self> {
        if self.is_running() {
            return Err(Failure::new("the data of a running cluster cannot just be copied"));
        }
        let mut standby = Self::empty(self.installation())?;
        // With its owner and permissions, on which servers insist.
        program::run(
            Command::new("cp").arg("-a").arg(self.data_directory()).arg(standby.data_directory()),
        )?;
        standby.follow(self)?;
        standby.set("archive_mode", "off");
        Ok(standby)
    }

    /// Has this cluster, which is not running and has none of its own WAL that the other has not,
    /// stream from the other from its next start on.
    pub fn follow(&mut self, primary: &Self) -> Result<()> {
        let primary = format!(
            "host={} port={} user={SUPERUSER}",
            primary.base_directory().display(),
            primary.port()
        );
        let (file, text) = if self.major() >= 12 {
            self.set("primary_conninfo", &primary);
            ("standby.signal", String::new())
        } else {
            ("recovery.conf", format!("standby_mode = on\nprimary_conninfo = '{primary}'\n"))
        };
        let path = self.data_directory().join(file);
        std::fs::write(&path, text).context(|| format!("cannot write {}", path.display()))?;
        self.account().owns(&path)
    }
}
