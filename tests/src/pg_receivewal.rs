//! `pg_receivewal` at work beside the product: another opinion on what the WAL was.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::cluster::Cluster;
use crate::failure::{Context, Result};
use crate::tools;

/// A running `pg_receivewal`. Dropping it kills it.
#[derive(Debug)]
pub struct PgReceivewal {
    child: Child,
    directory: PathBuf,
}

impl PgReceivewal {
    /// Starts one, from the segment that the server writes now. None, and said so, where no such
    /// program serves this major.
    pub fn start(cluster: &Cluster) -> Result<Option<Self>> {
        let Some(program) = tools::for_server("pg_receivewal", cluster.major()) else {
            tools::missing("pg_receivewal", &cluster.installation().name());
            return Ok(None);
        };
        let directory = cluster.new_directory("pg_receivewal")?;
        let about = || "cannot run pg_receivewal".to_owned();
        let log =
            File::create(cluster.base_directory().join("pg_receivewal.log")).context(about)?;
        let mut command = tools::client(program, cluster);
        let child = cluster
            .account()
            .runs(&mut command)
            .args(["-w", "-s", "1", "-D"])
            .arg(&directory)
            .current_dir(cluster.base_directory())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context(about)?;
        let receiving = Self { child, directory };
        cluster.wait_for("pg_receivewal to receive", |cluster| {
            let count = "SELECT count(*) FROM pg_stat_replication \
                         WHERE application_name = 'pg_receivewal' AND state = 'streaming'";
            Ok(cluster.value(count)? == "1")
        })?;
        Ok(Some(receiving))
    }

    /// Where it puts the segments.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for PgReceivewal {
    fn drop(&mut self) {
        // It may have ended with its server.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
