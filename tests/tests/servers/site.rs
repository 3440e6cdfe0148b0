//! A database server and the backup server that looks after it.

use std::path::{Path, PathBuf};

use pgwire_stream::{Lsn, SegmentName, SegmentSize};
use walrecv_tests::stored_wal::StoredWal;
use walrecv_tests::walrecv::{Daemon, Output, Walrecv};
use walrecv_tests::{Cluster, Context, Installation, Result, program, tools};

/// The only role that the backup server has.
pub(crate) const ROLE: &str = "walrecv";
/// Its password.
pub(crate) const PASSWORD: &str = "backup-secret";

/// A cluster, and a `walrecv-server` with nothing but a role with REPLICATION there.
pub(crate) struct Site {
    pub(crate) cluster: Cluster,
    pub(crate) walrecv: Walrecv,
}

impl Site {
    /// A cluster that archives, with small segments and TLS where the server can, and an
    /// unstarted backup server.
    pub(crate) fn new(installation: &Installation) -> Result<Self> {
        let mut options = Cluster::options(installation).archive().data_checksums();
        if installation.major >= 11 {
            options = options.wal_segment_megabytes(1);
        }
        if installation.has_tls() {
            options = options.tls();
        }
        Self::around(options.start()?)
    }

    /// A backup server for this cluster.
    pub(crate) fn around(cluster: Cluster) -> Result<Self> {
        cluster.create_role(ROLE, PASSWORD, "REPLICATION")?;
        let walrecv = Walrecv::new(&configuration(&cluster))?;
        Ok(Self { cluster, walrecv })
    }

    /// Goes on with another cluster, such as one that was restored; returns the former.
    pub(crate) fn replace_cluster(&mut self, cluster: Cluster) -> Result<Cluster> {
        self.walrecv.configure(&configuration(&cluster))?;
        Ok(std::mem::replace(&mut self.cluster, cluster))
    }

    /// Adds these lines to the server's section of the configuration.
    pub(crate) fn configure(&self, lines: &str) -> Result<()> {
        self.walrecv.configure(&format!("{}{lines}", configuration(&self.cluster)))
    }

    /// Has the daemon answer HTTP as these lines say, and adds others to the server's section.
    pub(crate) fn configure_http(&self, http: &str, server: &str) -> Result<()> {
        let silent = "[http]\nlisten = \"off\"";
        let configuration = configuration(&self.cluster);
        let answering = configuration.replace(silent, &format!("[http]\n{http}"));
        assert_ne!(configuration, answering);
        self.walrecv.configure(&format!("{answering}{server}"))
    }

    /// Starts the daemon and waits until WAL flows.
    pub(crate) fn run(&self) -> Result<Daemon> {
        let daemon = self.walrecv.spawn(&["run"])?;
        self.wait_until_streaming()?;
        Ok(daemon)
    }

    pub(crate) fn wait_until_streaming(&self) -> Result<()> {
        self.cluster.wait_for("the receiver to stream", |cluster| {
            let count = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
            Ok(cluster.value(count)? == "1")
        })
    }

    /// The server's position now.
    pub(crate) fn position(&self) -> Result<Lsn> {
        lsn(&self.cluster.value("SELECT pg_current_wal_flush_lsn()")?)
    }

    /// The size of the server's segments.
    pub(crate) fn segment_size(&self) -> Result<SegmentSize> {
        let setting = self.cluster.value("SHOW wal_segment_size")?;
        SegmentSize::from_setting(&setting).context(|| "an odd size of segments".to_owned())
    }

    /// Waits until the backup server has acknowledged everything that is committed now.
    pub(crate) fn settle(&self) -> Result<Lsn> {
        let wanted = self.position()?;
        let before = std::time::Instant::now();
        self.cluster.wait_for("the acknowledgement of the last commit", |cluster| {
            // Whoever asks is in the view, too.
            let rows = cluster
                .query("SELECT flush_lsn FROM pg_stat_replication WHERE state = 'streaming'")?;
            let flushed = rows.first().and_then(|row| row.first()).cloned().unwrap_or_default();
            assert!(
                before.elapsed().as_secs() < 60,
                "`{flushed}` acknowledged, {wanted} wanted; the daemon says:\n{}",
                self.daemon_log()
            );
            Ok(!flushed.is_empty() && lsn(&flushed)? >= wanted)
        })?;
        Ok(wanted)
    }

    /// Takes a base backup and waits for its WAL; its id.
    pub(crate) fn backup(&self) -> Result<String> {
        self.walrecv.run(&["backup", "main", "--wait", "--wait-timeout", "60"])?.success()?;
        self.last_backup()
    }

    /// The id of the newest backup.
    pub(crate) fn last_backup(&self) -> Result<String> {
        let listed = self.walrecv.run(&["list-backups", "main", "--minimal"])?.success()?;
        let newest = listed.stdout.lines().next().map(|line| line.trim().to_owned());
        newest.context(|| "no backup is listed".to_owned())
    }

    /// What `show-backup` says of a backup, in the clean JSON.
    pub(crate) fn shown(&self, backup: &str) -> Result<serde_json::Value> {
        self.walrecv.run(&["-f", "json2", "show-backup", "main", backup])?.success()?.json()
    }

    /// Restores into a new directory of the cluster's account, beneath its base directory.
    pub(crate) fn restore(&self, name: &str, arguments: &[&str]) -> Result<(PathBuf, Output)> {
        let destination = self.cluster.base_directory().join(name);
        let text = destination.display().to_string();
        let owner = self.cluster.account().name.clone();
        let mut all = vec!["restore", "main"];
        all.extend(arguments.first());
        all.push(&text);
        all.extend(arguments.iter().skip(1));
        if rustix::process::geteuid().is_root() {
            all.extend(["--owner", &owner]);
        }
        Ok((destination, self.walrecv.run(&all)?))
    }

    /// Restores, starts the result and waits until it is a primary.
    pub(crate) fn restore_and_start(&self, name: &str, arguments: &[&str]) -> Result<Cluster> {
        let (destination, output) = self.restore(name, arguments)?;
        output.success()?;
        let mut restored = Cluster::adopt(self.cluster.installation(), &destination)?;
        restored.start()?;
        restored.wait_until_promoted()?;
        Ok(restored)
    }

    /// Compares every segment that the server archived since `from` with ours, read by stock
    /// `zstd`. How many there were.
    pub(crate) fn compare_with_archive(&self, from: &SegmentName) -> Result<usize> {
        self.compare(from, &self.stored())
    }

    /// The same where ours are encrypted, read by stock `age`; nothing is compared without it.
    pub(crate) fn compare_encrypted(&self, from: &SegmentName, identity: &Path) -> Result<usize> {
        if program::find_on_path("age").is_none() {
            tools::missing("age", "the encrypted WAL");
            return Ok(0);
        }
        self.compare(from, &self.stored().with_identity(identity, self.walrecv.directory()))
    }

    fn stored(&self) -> StoredWal {
        StoredWal::new(self.walrecv.home().join("main"))
    }

    fn compare(&self, from: &SegmentName, stored: &StoredWal) -> Result<usize> {
        let mut compared = 0;
        for entry in std::fs::read_dir(self.cluster.archive_directory()).into_iter().flatten() {
            let path = entry.context(|| "cannot list the server's archive".to_owned())?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let Ok(segment) = name.parse::<SegmentName>() else { continue };
            if segment < *from {
                continue;
            }
            let theirs = std::fs::read(&path).context(|| format!("cannot read {name}"))?;
            let ours = self.stored_segment(stored, &segment)?;
            assert!(ours == theirs, "{name} differs from the server's archive");
            compared += 1;
        }
        Ok(compared)
    }

    /// A segment's bytes as the store holds them.
    fn stored_segment(&self, stored: &StoredWal, segment: &SegmentName) -> Result<Vec<u8>> {
        // It may still be on its way.
        for _ in 0..600 {
            if let Some(bytes) = stored.complete(*segment)? {
                return Ok(bytes);
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        Err(walrecv_tests::Failure::new(format!(
            "{segment} is not stored, but this is: {:?}; the daemon says:\n{}",
            stored.files(),
            self.daemon_log()
        )))
    }

    /// What the daemon has said.
    fn daemon_log(&self) -> String {
        std::fs::read_to_string(self.walrecv.directory().join("daemon.log")).unwrap_or_default()
    }
}

fn configuration(cluster: &Cluster) -> String {
    let conninfo = if cluster.installation().has_tls() && cluster.ca_certificate().exists() {
        cluster.tls_conninfo(ROLE, PASSWORD)
    } else {
        cluster.conninfo(ROLE, PASSWORD)
    };
    format!(
        "wal_readers = [\"{}\"]\n[http]\nlisten = \"off\"\n[servers.main]\nconninfo = \"{conninfo}\"\n\
         immediate_checkpoint = true\n",
        cluster.account().name
    )
}

pub(crate) fn lsn(text: &str) -> Result<Lsn> {
    text.parse().map_err(|error| walrecv_tests::Failure::new(format!("{error}")))
}

/// So many megabytes of WAL that compress badly.
pub(crate) fn write_wal(cluster: &Cluster, megabytes: u32) -> Result<()> {
    let mut session = cluster.session()?;
    session.query("CREATE TABLE IF NOT EXISTS bulk_of_wal (t text)")?;
    for _ in 0..megabytes {
        // Each row fits into a page, or it would be compressed.
        session.query(
            "INSERT INTO bulk_of_wal SELECT (SELECT string_agg(md5(random()::text || g || i), '') \
             FROM generate_series(1, 50) AS i) FROM generate_series(1, 640) AS g",
        )?;
    }
    Ok(())
}
