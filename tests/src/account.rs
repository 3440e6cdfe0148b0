//! Who runs the servers: PostgreSQL refuses root, so root lends them another account.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::failure::{Context, Result};

/// An account of this machine that may run a PostgreSQL server.
#[derive(Debug, Clone)]
pub struct Account {
    /// Its name, as `restore --owner` and `wal_readers` want it.
    pub name: String,
    uid: u32,
    gid: u32,
    /// Whether programs must be switched to it (we are root) or run as it anyway.
    lent: bool,
}

impl Account {
    /// Ourselves; for root `postgres` if that account exists, else `nobody`.
    pub fn for_servers() -> Result<Self> {
        let text =
            fs::read_to_string("/etc/passwd").context(|| "cannot read /etc/passwd".to_owned())?;
        let accounts: Vec<Self> = text.lines().filter_map(Self::parse).collect();
        let uid = rustix::process::geteuid();
        if uid.is_root() {
            return ["postgres", "nobody"]
                .iter()
                .find_map(|name| accounts.iter().find(|account| account.name == *name))
                .map(|account| Self { lent: true, ..account.clone() })
                .context(|| {
                    "running as root, but neither `postgres` nor `nobody` is in /etc/passwd to run \
                     the servers"
                        .to_owned()
                });
        }
        let ourselves = accounts.into_iter().find(|account| account.uid == uid.as_raw());
        Ok(ourselves.unwrap_or_else(|| Self {
            name: uid.as_raw().to_string(),
            uid: uid.as_raw(),
            gid: rustix::process::getegid().as_raw(),
            lent: false,
        }))
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Self { name, uid, gid, lent: false })
    }

    /// Makes `command` run as this account. Root's supplementary groups are dropped with it.
    pub fn runs<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        if self.lent {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Makes this account the owner of a file or directory (not of what lies below it).
    pub fn owns(&self, path: &Path) -> Result<()> {
        if self.lent {
            chown(path, Some(self.uid), Some(self.gid))
                .context(|| format!("cannot give {} to {}", path.display(), self.name))?;
        }
        Ok(())
    }
}
