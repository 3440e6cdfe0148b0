//! A primary whose commits wait for the backup server, and a ledger of those it acknowledged.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use pgwire_stream::{Lsn, SegmentSize, TimelineId};
use walrecv_tests::disk::{Disk, FileSystem};
use walrecv_tests::ledger::Ledger;
use walrecv_tests::run::ScenarioResult;
use walrecv_tests::stored_wal::StoredWal;
use walrecv_tests::walrecv::Daemon;
use walrecv_tests::{Cluster, Context, Installation, Result};

use crate::site::{Site, lsn};

/// How many clients commit at a time.
pub(crate) const CLIENTS: usize = 4;

/// The name by which the primary knows the receiver.
const APPLICATION_NAME: &str = "walrecv";

/// A site with a base backup, the ledger's table and, if it was asked for, a disk of the store's
/// own. The server keeps all its WAL, to compare with.
pub(crate) struct Synchronous {
    // Dropped in this order: whoever uses the disk ends before it goes.
    pub(crate) daemon: Option<Daemon>,
    pub(crate) disk: Option<Disk>,
    pub(crate) site: Site,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) backup: String,
    pub(crate) size: SegmentSize,
    /// All before this position has been found in the store.
    pub(crate) found: Lsn,
    /// The highest flush position that the server has heard.
    pub(crate) acknowledged: Lsn,
}

impl Synchronous {
    /// All of it, and no receiver. None, and said so, where there can be no such disk.
    pub(crate) fn new(
        installation: &Installation,
        file_system: Option<FileSystem>,
    ) -> Result<Option<Self>> {
        // No checkpoint comes, so no WAL goes.
        let mut options = Cluster::options(installation)
            .config("max_wal_size = '8GB'")
            .config("checkpoint_timeout = '1h'");
        if installation.major >= 11 {
            options = options.wal_segment_megabytes(1);
        }
        let site = Site::around(options.start()?)?;
        let disk = match file_system {
            None => None,
            Some(file_system) => match Disk::mount(file_system, 512, &site.walrecv.home())? {
                None => return Ok(None),
                mounted => mounted,
            },
        };
        let size = site.segment_size()?;
        let ledger = Ledger::create(&site.cluster)?;
        let daemon = site.run()?;
        // Only then is the store made.
        site.settle()?;
        let backup = site.backup()?;
        let found = site.settle()?;
        assert_eq!(daemon.stop()?, 0);
        if let Some(disk) = &disk {
            disk.sync()?;
        }
        let names = format!("ALTER SYSTEM SET synchronous_standby_names = '{APPLICATION_NAME}'");
        site.cluster.execute(&names)?;
        site.cluster.reload()?;
        site.cluster.wait_for("the setting", |cluster| {
            Ok(cluster.value("SHOW synchronous_standby_names")? == APPLICATION_NAME)
        })?;
        let acknowledged = found;
        let daemon = None;
        Ok(Some(Self { daemon, disk, site, ledger, backup, size, found, acknowledged }))
    }

    /// Starts the receiver and waits until WAL flows.
    pub(crate) fn start(&mut self) -> Result<()> {
        self.daemon = Some(self.site.run()?);
        Ok(())
    }

    /// SIGKILL to the receiver.
    pub(crate) fn kill_receiver(&mut self) -> Result<()> {
        self.daemon.take().map_or(Ok(()), Daemon::kill9)
    }

    /// The machine of the backup server loses its power. First the receiver stands still: a sync
    /// that is under way when a file system is shut down may return as if it had succeeded, which
    /// no program sees when the power goes.
    pub(crate) fn cut_power(&mut self) -> Result<()> {
        if let Some(daemon) = &self.daemon {
            daemon.halt()?;
        }
        self.disk()?.cut_power()?;
        self.kill_receiver()
    }

    /// And has it again; no receiver is started.
    pub(crate) fn restore_power(&self) -> Result<()> {
        self.disk()?.restore_power()
    }

    fn disk(&self) -> Result<&Disk> {
        self.disk.as_ref().context(|| "the store has no disk of its own".to_owned())
    }

    /// What the server has heard from a receiver that is dead now: every flush position moves the
    /// slot. After a reconnection it begins a little further back.
    pub(crate) fn hear(&mut self) -> Result<Lsn> {
        self.site.cluster.wait_for("the server to miss the receiver", |cluster| {
            Ok(cluster.value("SELECT active FROM pg_replication_slots")? == "f")
        })?;
        let kept =
            lsn(&self.site.cluster.value("SELECT restart_lsn FROM pg_replication_slots")?)?;
        self.acknowledged = self.acknowledged.max(kept);
        Ok(self.acknowledged)
    }

    /// The first acknowledged position that the store does not hold; None if it holds all. The
    /// receiver must be dead.
    pub(crate) fn first_loss(&mut self) -> Result<Option<Lsn>> {
        let end = self.hear()?;
        let stored = StoredWal::new(self.site.walrecv.home().join("main"));
        let pg_wal = self.site.cluster.data_directory().join("pg_wal");
        let timeline = TimelineId::FIRST;
        let loss = stored.first_loss(&pg_wal, timeline, self.size, self.found, end)?;
        if loss.is_none() {
            self.found = end;
        }
        Ok(loss)
    }

    /// The primary is dead: restores what the store has and demands every acknowledged row.
    pub(crate) fn judge(mut self) -> ScenarioResult {
        // It serves WAL to the restored server, and looks for the primary in vain.
        self.daemon = Some(self.site.walrecv.spawn(&["run"])?);
        self.wait_for_socket()?;
        let restored = self.site.restore_and_start("restored", &[&self.backup])?;
        let missing = self.ledger.missing_in(&restored)?;
        let acknowledged = self.ledger.acknowledged();
        assert!(
            missing.is_empty(),
            "{} of {acknowledged} acknowledged commits are lost, such as {:?}",
            missing.len(),
            missing.first()
        );
        assert!(acknowledged > 0, "nothing was acknowledged");
        Ok(())
    }

    /// Waits until the daemon can be asked for WAL: its socket has a name, not a file.
    fn wait_for_socket(&self) -> Result<()> {
        for _ in 0..400 {
            let sockets = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
            let inodes: Vec<&str> = sockets
                .lines()
                .filter(|line| line.contains("@walrecv-server"))
                .filter_map(|line| line.split_whitespace().nth(6))
                .collect();
            let pid = self.daemon.as_ref().map_or(0, Daemon::id);
            let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
            let mut targets = files.flatten().filter_map(|file| file.path().read_link().ok());
            if targets.any(|target| {
                inodes
                    .iter()
                    .any(|inode| target.as_os_str() == format!("socket:[{inode}]").as_str())
            }) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        Err(walrecv_tests::Failure::new("the daemon does not open its socket"))
    }
}

/// Sleeps for a random time between so many milliseconds.
pub(crate) fn sleep_between(milliseconds: Range<u64>) {
    let span = milliseconds.end.saturating_sub(milliseconds.start).max(1);
    let random = RandomState::new().build_hasher().finish() % span;
    std::thread::sleep(Duration::from_millis(milliseconds.start + random));
}
