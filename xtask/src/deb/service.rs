//! The daemon's unit under systemd: what it is like, and what is done to it.

use std::fs;
use std::time::{Duration, Instant};

use walrecv_tests::{Cluster, Context, Failure, Result};

use super::boot::Container;
use super::root::Root;

/// How long anything may take that nobody else delays.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the daemon may take to stop, and to tell what has changed.
pub(super) const PROMPT: Duration = Duration::from_secs(10);

/// Where the configuration is in the root.
pub(super) const CONFIGURATION: &str = "etc/walrecv-server/walrecv-server.toml";

/// The unit, systemd, and the server that is backed up.
pub(super) struct Service<'r> {
    // Dropped first: it streams from the cluster.
    pub(super) container: Container,
    pub(super) cluster: Cluster,
    pub(super) root: &'r Root,
}

impl Service<'_> {
    pub(super) fn property(&self, name: &str) -> Result<String> {
        let value =
            self.container.run(&format!("systemctl show --value -p {name} walrecv-server"))?;
        Ok(value.trim().to_owned())
    }

    pub(super) fn pid(&self) -> Result<String> {
        self.property("MainPID")
    }

    pub(super) fn is_active(&self) -> Result<bool> {
        Ok(self.property("ActiveState")? == "active")
    }

    /// What the daemon, and systemd about it, have written into the journal.
    pub(super) fn journal(&self, which: &str) -> Result<String> {
        self.container.run(&format!("journalctl -q --no-pager -o cat -u walrecv-server {which}"))
    }

    pub(super) fn configuration(&self) -> Result<String> {
        fs::read_to_string(self.root.path(CONFIGURATION))
            .context(|| format!("cannot read /{CONFIGURATION}"))
    }

    pub(super) fn configure(&self, text: &str) -> Result<()> {
        fs::write(self.root.path(CONFIGURATION), text)
            .context(|| format!("cannot write /{CONFIGURATION}"))
    }

    /// Adds to the unit, as `systemctl edit` does, and restarts it.
    pub(super) fn drop_in(&self, name: &str, text: &str) -> Result<()> {
        let directory = self.root.path("etc/systemd/system/walrecv-server.service.d");
        let about = || format!("cannot write the drop-in {name}");
        fs::create_dir_all(&directory).context(about)?;
        fs::write(directory.join(format!("{name}.conf")), text).context(about)?;
        self.container.run("systemctl daemon-reload && systemctl restart walrecv-server").map(drop)
    }

    /// Waits until WAL streams.
    pub(super) fn streams(&self) -> Result<()> {
        self.wait_for("WAL to stream", PATIENCE, || {
            let status = self.container.run("walrecv-server status main")?;
            Ok(status.contains("\tReceiver: streaming\n"))
        })
    }

    /// Waits until `systemctl status` has this in its line of status.
    pub(super) fn says(&self, text: &str) -> Result<()> {
        self.wait_for(&format!("the status `{text}`"), PROMPT, || {
            Ok(self.property("StatusText")?.contains(text))
        })
    }

    /// Waits until another process streams than this one.
    pub(super) fn comes_back_after(&self, pid: &str) -> Result<()> {
        self.wait_for("another process", PATIENCE, || {
            let now = self.pid()?;
            Ok(now != pid && now != "0" && self.is_active()?)
        })?;
        self.streams()
    }

    pub(super) fn wait_for(
        &self,
        what: &str,
        patience: Duration,
        mut holds: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < patience {
            if holds()? {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(Failure::new(format!("waited {patience:?} in vain for {what}")))
    }
}
