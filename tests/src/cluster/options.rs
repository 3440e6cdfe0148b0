//! How a new cluster is to be.

use crate::cluster::Cluster;
use crate::failure::Result;
use crate::installation::Installation;

/// The options of a new cluster.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    pub(super) installation: Installation,
    pub(super) wal_segment_megabytes: Option<u32>,
    pub(super) data_checksums: bool,
    pub(super) tls: bool,
    pub(super) archive: bool,
    pub(super) durable: bool,
    pub(super) settings: Vec<String>,
    pub(super) hba: Vec<String>,
}

impl ClusterOptions {
    pub(super) fn new(installation: &Installation) -> Self {
        Self {
            installation: installation.clone(),
            wal_segment_megabytes: None,
            data_checksums: false,
            tls: false,
            archive: false,
            durable: false,
            settings: Vec::new(),
            hba: Vec::new(),
        }
    }

    /// `initdb --wal-segsize`, in megabytes; needs PostgreSQL 11 or newer.
    #[must_use]
    pub fn wal_segment_megabytes(mut self, megabytes: u32) -> Self {
        self.wal_segment_megabytes = Some(megabytes);
        self
    }

    /// `initdb --data-checksums` (18 has them anyway).
    #[must_use]
    pub fn data_checksums(mut self) -> Self {
        self.data_checksums = true;
        self
    }

    /// TLS with a certificate for `localhost` and `127.0.0.1`, signed by an authority of the
    /// cluster's own that client certificates may come from too.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// An `archive_command` that copies every complete segment into
    /// [`Cluster::archive_directory`]: the server's own word on what its WAL was.
    #[must_use]
    pub fn archive(mut self) -> Self {
        self.archive = true;
        self
    }

    /// Leaves `fsync` on; tests that never cut the power are quicker without.
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// A line for `postgresql.conf`.
    #[must_use]
    pub fn config(mut self, line: impl Into<String>) -> Self {
        self.settings.push(line.into());
        self
    }

    /// A line for `pg_hba.conf`, before the default ones: the first that matches counts.
    ///
    /// The default ones trust the Unix socket, and demand SCRAM from everybody on 127.0.0.1.
    #[must_use]
    pub fn hba(mut self, line: impl Into<String>) -> Self {
        self.hba.push(line.into());
        self
    }

    /// Initialises the cluster without starting it.
    pub fn create(self) -> Result<Cluster> {
        Cluster::initialise(&self)
    }

    /// Initialises and starts the cluster.
    pub fn start(self) -> Result<Cluster> {
        let mut cluster = self.create()?;
        cluster.start()?;
        Ok(cluster)
    }
}
