//! `init`: a first configuration, what the server needs, and whether it can be reached.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use pgwire_stream::{Config, Endpoint, ServerVersion, SslMode, SystemId, TimelineId};

use crate::failure::{Failure, quoted_role};
use crate::peer::{DATABASE, Peer, ServerFailure};
use crate::settings::{ServerName, ServerSettings};

/// The role that the example uses.
const EXAMPLE_ROLE: &str = "walrecv";

/// What a first configuration is made of.
#[derive(Clone, Debug)]
pub struct FirstConfiguration {
    /// Where it is written.
    pub path: PathBuf,
    /// Where the store is to lie.
    pub home: PathBuf,
    /// The server.
    pub server: ServerName,
    /// How to reach it, where that is known.
    pub conninfo: Option<String>,
    /// The slot.
    pub slot_name: String,
}

/// The configuration cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the configuration {}", .path.display())]
pub struct WriteError {
    path: PathBuf,
    source: io::Error,
}

impl Failure for WriteError {
    fn hint(&self) -> Option<String> {
        Some("name another file: --config FILE".to_owned())
    }
}

/// What `init` did, and what is left to do on the server.
#[derive(Clone, Debug)]
pub struct InitOutcome {
    /// The configuration.
    pub file: PathBuf,
    /// Whether it was written now; it is never overwritten.
    pub written: bool,
    /// The server.
    pub server: ServerName,
    /// What a superuser runs on the server.
    pub sql: Vec<String>,
    /// What goes into the server's `pg_hba.conf`.
    pub hba: Vec<String>,
    /// The server as it was reached; `None` if the conninfo is not known yet, or the server could
    /// not be reached.
    pub reached: Option<Reached>,
}

/// A server that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Its version.
    pub version: ServerVersion,
    /// Which cluster it is.
    pub system_id: SystemId,
    /// The timeline that it is on.
    pub timeline: TimelineId,
}

/// Writes the configuration if there is none; says whether it did.
pub fn write_configuration(first: &FirstConfiguration) -> Result<bool, WriteError> {
    let failed = |source| WriteError { path: first.path.clone(), source };
    if let Some(directory) = first.path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(failed)?;
    }
    // Only its owner may read it: there may be a password in it one day.
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&first.path);
    match created {
        Ok(mut file) => {
            file.write_all(text(first).as_bytes()).map_err(failed)?;
            file.sync_all().map_err(failed)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

/// What has to be done on a server before it can be backed up.
pub fn prepare(file: &Path, written: bool, server: &ServerName, conninfo: &str) -> InitOutcome {
    let config = Config::load(conninfo).ok();
    let role = config.as_ref().and_then(|config| config.user.clone());
    let role = quoted_role(role.as_deref().unwrap_or(EXAMPLE_ROLE));
    let database = config.as_ref().and_then(|config| config.dbname.clone());
    let database = quoted_role(database.as_deref().unwrap_or(DATABASE));
    let sql = vec![
        format!("CREATE ROLE {role} LOGIN REPLICATION PASSWORD '…';"),
        format!("GRANT EXECUTE ON FUNCTION pg_switch_wal() TO {role};  -- for switch-wal"),
        format!("GRANT pg_checkpoint TO {role};  -- 15 and newer, for switch-wal --force"),
    ];
    let host = match config.as_ref().map(|config| config.ssl_mode) {
        Some(SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) => "hostssl",
        _ => "host",
    };
    let local = config.is_some_and(|config| {
        config.hosts.iter().all(|host| matches!(host.endpoint, Endpoint::Unix(_)))
    });
    let hba = if local {
        vec![
            format!("local  replication  {role}  scram-sha-256"),
            format!("local  {database}  {role}  scram-sha-256"),
        ]
    } else {
        vec![
            format!("{host}  replication  {role}  THIS-HOST/32  scram-sha-256"),
            format!("{host}  {database}  {role}  THIS-HOST/32  scram-sha-256"),
        ]
    };
    let (file, server) = (file.to_owned(), server.clone());
    InitOutcome { file, written, server, sql, hba, reached: None }
}

/// Tries whether the server can be reached as it has to be.
pub async fn reach(server: &ServerSettings) -> Result<Reached, ServerFailure> {
    let peer = Peer::new(&server.name, server.streaming_conninfo())?;
    let mut client = peer.replication().await?;
    let version = client.server_version();
    let system = client.identify_system().await.map_err(peer.failed("identify"))?;
    let _ = client.close().await;
    Ok(Reached { version, system_id: system.system_id, timeline: system.timeline })
}

fn text(first: &FirstConfiguration) -> String {
    let FirstConfiguration { home, server, conninfo, slot_name, .. } = first;
    let home = toml_text(&home.to_string_lossy());
    let example = format!("host=db1 user={EXAMPLE_ROLE} dbname=postgres");
    let conninfo = toml_text(conninfo.as_deref().unwrap_or(&example));
    let slot_name = toml_text(slot_name);
    format!(
        r#"# The configuration of walrecv-server.
# Other files with [servers.NAME] sections may stand in servers.d/*.toml beside this one.

# Where backups and WAL are stored.
home = {home}

# Operating system users that restored servers run as: the daemon hands them WAL.
#wal_readers = ["postgres"]

# What holds for all servers; each of these keys can stand in a server's section, too.
[defaults]
#compression = "zstd"            # of WAL: zstd, lz4, gzip, none
#compression_level = 1
#backup_compression = "zstd"
#backup_compression_level = 1
#backup_compression_workers = 2  # one for each core, if not set
#backup_compression_location = "client"  # or server (15 and later)
#encryption_recipients = []      # public keys of age (age1…): only who has a secret key can read it
#incremental_base = "latest"     # what `backup --incremental auto` builds on: latest or full
#incremental_chain_max = 7       # so many on top of a full one
#basebackup_retry_times = 0      # how often a backup that failed is tried again
#basebackup_retry_sleep = "30s"  # before the first time; the pauses double
#manifest_checksums = "CRC32C"   # or SHA224, SHA256, SHA384, SHA512, NONE
#immediate_checkpoint = false    # begin backups at once, at the price of more I/O
#bandwidth_limit = 0             # of a backup, in kB/s, or as "20MB"; 0 is unlimited
#flush_interval = "1s"           # the longest time between received and durable
#synchronous = "auto"            # true, false; auto: when named in synchronous_standby_names
#wal_validation = true           # look at WAL when it comes: is it WAL, and what does it say?

[servers.{server}]
#description = "what it is"
# How to reach it, as for psql. The password is best kept in ~/.pgpass (mode 0600).
conninfo = {conninfo}
#streaming_conninfo = "…"        # for WAL, if not the same
#backup_conninfo = "…"           # for base backups, if not the same: a standby, perhaps
slot_name = {slot_name}
create_slot = "auto"             # or manual
#slot_on_all_hosts = false       # keep it on every host of the conninfo, for the next failover
"#
    )
}

/// A text as TOML writes it.
fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::settings::{Settings, Typed};

    fn first(directory: &Path) -> FirstConfiguration {
        FirstConfiguration {
            path: directory.join("etc/walrecv-server.toml"),
            home: PathBuf::from("/srv/it's \"here\""),
            server: "main".parse().unwrap(),
            conninfo: Some("host=db user=backup options='-c x=\"y\"'".to_owned()),
            slot_name: "walrecv".to_owned(),
        }
    }

    #[test]
    fn the_first_configuration_is_one_that_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let first = first(directory.path());
        assert!(write_configuration(&first).unwrap());
        let mode = first.path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let typed = Typed { config: Some(first.path.clone()), ..Typed::default() };
        let settings = Settings::load(&typed, &|_| None).unwrap();
        assert_eq!(settings.home, first.home);
        let [server] = settings.servers.as_slice() else { panic!() };
        assert_eq!(Some(server.streaming_conninfo()), first.conninfo.as_deref());

        // Every key that is commented out can be used as it stands there.
        let text = std::fs::read_to_string(&first.path).unwrap();
        std::fs::write(&first.path, uncommented(&text)).unwrap();
        let settings = Settings::load(&typed, &|_| None).unwrap();
        assert_eq!(settings.wal_readers, ["postgres"]);
    }

    fn uncommented(text: &str) -> String {
        let lines = text.lines().map(|line| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') => key.replace("\"…\"", "\"host=other\""),
            _ => line.to_owned(),
        });
        lines.map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn a_configuration_that_is_there_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let first = first(directory.path());
        std::fs::create_dir(directory.path().join("etc")).unwrap();
        std::fs::write(&first.path, "mine").unwrap();
        assert!(!write_configuration(&first).unwrap());
        assert_eq!(std::fs::read(&first.path).unwrap(), b"mine");
    }

    #[test]
    fn what_the_server_needs_names_role_and_database() {
        let server = "main".parse().unwrap();
        let outcome = prepare(
            Path::new("x"),
            true,
            &server,
            "host=db user=Backup dbname=app password=geheim",
        );
        assert!(outcome.sql[0].starts_with("CREATE ROLE \"Backup\" LOGIN REPLICATION"));
        assert_eq!(outcome.hba[1], "host  app  \"Backup\"  THIS-HOST/32  scram-sha-256");
        let encrypted = prepare(Path::new("x"), true, &server, "host=db sslmode=verify-full");
        assert!(encrypted.hba.iter().all(|line| line.starts_with("hostssl  ")));
        let local = prepare(Path::new("x"), true, &server, "host=/run user=backup");
        assert_eq!(local.hba[0], "local  replication  backup  scram-sha-256");
        assert!(!format!("{outcome:?}").contains("geheim"));
    }
}
