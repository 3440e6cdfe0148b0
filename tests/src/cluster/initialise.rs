//! `initdb` and the configuration files of a new cluster.

use std::fs;
use std::path::Path;

use crate::certificates::{Authority, write_private};
use crate::cluster::{Cluster, ClusterOptions, SUPERUSER};
use crate::failure::{Context, Result};
use crate::program;

/// The superuser's password, for connections over TCP.
pub const SUPERUSER_PASSWORD: &str = "superuser-secret";

impl Cluster {
    pub(super) fn initialise(options: &ClusterOptions) -> Result<Self> {
        let mut cluster = Self::empty(&options.installation)?;
        cluster.run_initdb(options)?;
        cluster.write_configuration(options)?;
        if options.tls {
            cluster.write_certificates()?;
        }
        if options.archive {
            cluster.new_directory("archive")?;
        }
        Ok(cluster)
    }

    fn run_initdb(&self, options: &ClusterOptions) -> Result<()> {
        let password = self.base_directory().join("password");
        write_private(&password, SUPERUSER_PASSWORD)?;
        self.account().owns(&password)?;

        let mut initdb = self.command("initdb")?;
        initdb
            .arg("-D")
            .arg(self.data_directory())
            .args(["-U", SUPERUSER, "-E", "UTF8", "--locale=C", "--no-sync"])
            .args(["-A", "scram-sha-256", "--pwfile"])
            .arg(&password);
        if let Some(megabytes) = options.wal_segment_megabytes {
            initdb.arg(format!("--wal-segsize={megabytes}"));
        }
        if options.data_checksums {
            initdb.arg("--data-checksums");
        }
        program::run(&mut initdb)?;
        Ok(())
    }

    fn write_configuration(&self, options: &ClusterOptions) -> Result<()> {
        let mut lines: Vec<String> = [
            "shared_buffers = '16MB'",
            "max_connections = 40",
            "max_wal_senders = 10",
            "max_replication_slots = 10",
            "wal_level = replica",
            "password_encryption = 'scram-sha-256'",
            "log_replication_commands = on",
        ]
        .map(String::from)
        .into();
        if !options.durable {
            lines.push("fsync = off".to_owned());
        }
        if options.tls {
            lines.push("ssl = on".to_owned());
            lines.push("ssl_ca_file = 'ca.crt'".to_owned());
        }
        if options.archive {
            // In two steps, so that a file under its final name is always complete.
            let to = self.archive_directory();
            let to = to.display();
            lines.push("archive_mode = on".to_owned());
            lines.push(format!("archive_command = 'cp %p {to}/.%f && mv {to}/.%f {to}/%f'"));
        }
        lines.extend(options.settings.iter().cloned());
        append(&self.data_directory().join("postgresql.conf"), &lines)?;

        let mut hba = options.hba.clone();
        hba.extend(
            [
                "local all all trust",
                "local replication all trust",
                "host all all 127.0.0.1/32 scram-sha-256",
                "host replication all 127.0.0.1/32 scram-sha-256",
            ]
            .map(String::from),
        );
        let path = self.data_directory().join("pg_hba.conf");
        fs::write(&path, hba.join("\n") + "\n")
            .context(|| format!("cannot write {}", path.display()))
    }

    fn write_certificates(&mut self) -> Result<()> {
        let authority = Authority::new()?;
        let server = authority.server()?;
        for (path, content) in [
            (self.ca_certificate(), &authority.certificate),
            (self.data_directory().join("ca.crt"), &authority.certificate),
            (self.data_directory().join("server.crt"), &server.certificate),
            (self.data_directory().join("server.key"), &server.key),
        ] {
            write_private(&path, content)?;
            self.account().owns(&path)?;
        }
        self.authority = Some(authority);
        Ok(())
    }
}

fn append(path: &Path, lines: &[String]) -> Result<()> {
    let about = || format!("cannot write {}", path.display());
    let mut text = fs::read_to_string(path).context(about)?;
    text.push_str(&lines.join("\n"));
    text.push('\n');
    fs::write(path, text).context(about)
}
