//! A disk that is full or hangs holds up the WAL, but not the connection: the server goes on
//! hearing from the receiver, and nothing is lost.

use std::time::Duration;

use pgwire_stream::{Lsn, SegmentName, TimelineId};
use walrecv_tests::disk::{Disk, FileSystem};
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::walrecv::Daemon;
use walrecv_tests::{Cluster, Installation, Result, program};

use crate::site::{PASSWORD, ROLE, Site, lsn, write_wal};

/// Far less than the disk is in trouble for.
const SERVER_PATIENCE: &str = "wal_sender_timeout = '3s'";

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .per_major("full_disk_holds_the_stream", &[10, 18], |installation| {
            full_disk(installation, "auto")
        })
        .per_major("hanging_disk_holds_the_stream", &[18], |installation| {
            hanging_disk(installation, "auto")
        })
        // One thread receives, writes and syncs as long as the disk is quick.
        .per_major("full_disk_holds_a_synchronous_stream", &[18], |installation| {
            full_disk(installation, "true")
        })
        .per_major("hanging_disk_holds_a_synchronous_stream", &[18], |installation| {
            hanging_disk(installation, "true")
        })
        .per_major("hanging_disk_keeps_no_other_server", &[18], hanging_disk_of_another)
}

/// Dropped in this order: whoever uses the disk ends before it goes.
struct Troubled {
    daemon: Daemon,
    disk: Disk,
    site: Site,
    first: SegmentName,
}

impl Troubled {
    fn new(installation: &Installation, synchronous: &str) -> Result<Option<Self>> {
        let mut options = Cluster::options(installation).archive().config(SERVER_PATIENCE);
        if installation.major >= 11 {
            options = options.wal_segment_megabytes(1);
        }
        let site = Site::around(options.start()?)?;
        let Some(disk) = Disk::mount(FileSystem::Ext4, 512, &site.walrecv.home())? else {
            return Ok(None);
        };
        let conninfo = site.cluster.conninfo(ROLE, PASSWORD);
        site.walrecv.configure(&format!(
            "[servers.main]\nconninfo = \"{conninfo}\"\nsynchronous = \"{synchronous}\"\n"
        ))?;
        let daemon = site.run()?;
        let begin = lsn(&site.cluster.value("SELECT restart_lsn FROM pg_replication_slots")?)?;
        let size = site.segment_size()?;
        let first = SegmentName::new(TimelineId::FIRST, size.segment_of(begin), size);
        Ok(Some(Self { daemon, disk, site, first }))
    }

    /// The process that sends the WAL, which is another one on each connection; and what it has
    /// heard is durable.
    fn sender(&self) -> Result<(String, Lsn)> {
        let sql = "SELECT pid, flush_lsn FROM pg_stat_replication WHERE state IN ('streaming', 'catchup')";
        let rows = self.site.cluster.query(sql)?;
        let row = rows.first().cloned().unwrap_or_default();
        match row.as_slice() {
            [pid, flushed] => Ok((pid.clone(), lsn(flushed)?)),
            _ => Err(walrecv_tests::Failure::new(format!(
                "the connection is lost; the receiver says:\n{}\nand the server:\n{}",
                program::last_lines(&self.daemon.log(), 20),
                program::last_lines(&self.site.cluster.log(), 20)
            ))),
        }
    }

    /// Everything comes through in the end, over the same connection.
    fn recovers(self, sender: &str) -> ScenarioResult {
        self.site.settle()?;
        assert_eq!(self.sender()?.0, sender, "the connection did not last");
        let compared = self.site.compare_with_archive(&self.first)?;
        assert!(compared >= 2, "only {compared} segments were compared");
        assert_eq!(self.daemon.stop()?, 0);
        Ok(())
    }
}

fn full_disk(installation: &Installation, synchronous: &str) -> ScenarioResult {
    let Some(troubled) = Troubled::new(installation, synchronous)? else { return Ok(()) };
    write_wal(&troubled.site.cluster, 2)?;
    troubled.site.settle()?;
    let (sender, _) = troubled.sender()?;
    let ballast = troubled.disk.fill(6 << 20)?;
    write_wal(&troubled.site.cluster, 40)?;

    // Whatever is archived makes a little room, until nothing is left to archive.
    let mut stuck = Lsn::ZERO;
    troubled.site.cluster.wait_for("the disk to be full", |_| {
        std::thread::sleep(Duration::from_secs(1));
        let before = std::mem::replace(&mut stuck, troubled.sender()?.1);
        Ok(before == stuck)
    })?;
    for _ in 0..16 {
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(troubled.sender()?.0, sender, "the connection did not last");
    }
    assert!(troubled.sender()?.1 < troubled.site.position()?, "the disk was not full");
    let check = troubled.site.walrecv.run(&["check", "main"])?.code(1)?;
    let row = "receive-wal running: FAILED (it runs, and fails: the disk is full";
    assert!(check.stdout.contains(row), "{}", check.stdout);
    drop(ballast);
    troubled.recovers(&sender)
}

fn hanging_disk(installation: &Installation, synchronous: &str) -> ScenarioResult {
    let Some(troubled) = Troubled::new(installation, synchronous)? else { return Ok(()) };
    write_wal(&troubled.site.cluster, 2)?;
    troubled.site.settle()?;
    let (sender, _) = troubled.sender()?;
    let frozen = troubled.disk.freeze()?;
    let before = troubled.site.position()?;
    // More than the receiver can hold without its disk.
    write_wal(&troubled.site.cluster, 24)?;
    for _ in 0..12 {
        std::thread::sleep(Duration::from_millis(500));
        let (still, flushed) = troubled.sender()?;
        assert_eq!(still, sender, "the connection did not last");
        assert!(flushed <= before, "{flushed} was acknowledged by a disk that hangs");
    }
    drop(frozen);
    troubled.recovers(&sender)
}

/// Two servers' WAL is received by one process, and the disk of one of them hangs. Their little
/// writes share their threads.
fn hanging_disk_of_another(installation: &Installation) -> ScenarioResult {
    let site = Site::around(Cluster::options(installation).config(SERVER_PATIENCE).start()?)?;
    let Some(disk) = Disk::mount(FileSystem::Ext4, 512, &site.walrecv.home().join("slow"))? else {
        return Ok(());
    };
    let conninfo = site.cluster.conninfo(ROLE, PASSWORD);
    let server = |name| {
        format!(
            "[servers.{name}]\nconninfo = \"{conninfo} application_name={name}\"\n\
             slot_name = \"{name}\"\n"
        )
    };
    let servers = [server("slow"), server("quick")].concat();
    site.walrecv.configure(&format!("[http]\nlisten = \"off\"\n{servers}"))?;
    let daemon = site.walrecv.spawn(&["run"])?;
    let flushed = |cluster: &Cluster, name: &str| {
        let rows = cluster.query(&format!(
            "SELECT flush_lsn FROM pg_stat_replication \
             WHERE application_name = '{name}' AND state = 'streaming' AND flush_lsn IS NOT NULL"
        ))?;
        rows.first().and_then(|row| row.first()).map_or(Ok(Lsn::ZERO), |row| lsn(row))
    };
    let settle = |name| {
        let wanted = site.position()?;
        site.cluster.wait_for("what is committed to be durable", |cluster| {
            Ok(flushed(cluster, name)? >= wanted)
        })
    };
    site.cluster.query("CREATE TABLE little (n int)")?;
    settle("slow")?;
    settle("quick")?;
    let frozen = disk.freeze()?;
    let before = site.position()?;
    for round in 0..8 {
        site.cluster.query(&format!("INSERT INTO little VALUES ({round})"))?;
        settle("quick")?;
        let slow = flushed(&site.cluster, "slow")?;
        assert!(slow <= before, "{slow} was acknowledged by a disk that hangs");
    }
    drop(frozen);
    settle("slow")?;
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}
