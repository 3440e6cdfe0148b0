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
        let primary = format!(
            "host={} port={} user={SUPERUSER}",
            self.base_directory().display(),
            self.port()
        );
        let (file, text) = if self.major() >= 12 {
            standby.set("primary_conninfo", &primary);
            ("standby.signal", String::new())
        } else {
            ("recovery.conf", format!("standby_mode = on\nprimary_conninfo = '{primary}'\n"))
        };
        let path = standby.data_directory().join(file);
        std::fs::write(&path, text).context(|| format!("cannot write {}", path.display()))?;
        standby.account().owns(&path)?;
        standby.set("archive_mode", "off");
        Ok(standby)
    }
}
