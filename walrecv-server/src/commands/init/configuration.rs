//! The first configuration, and files beside it that add a server.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::needs::EXAMPLE_ROLE;
use crate::failure::Failure;
use crate::settings::{self, SCHEMA_LINE, ServerName};

/// What a first configuration is made of.
#[derive(Clone, Debug)]
pub struct FirstConfiguration {
    /// Where it is written.
    pub path: PathBuf,
    /// Where the store is to lie.
    pub home: PathBuf,
    /// Its server.
    pub addition: Addition,
}

/// What a server's section is made of.
#[derive(Clone, Debug)]
pub struct Addition {
    /// The server.
    pub server: ServerName,
    /// How to reach it, where that is known.
    pub conninfo: Option<String>,
    /// The slot.
    pub slot_name: String,
}

/// The configuration cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", .path.display())]
pub struct WriteError {
    path: PathBuf,
    source: io::Error,
}

impl WriteError {
    pub(super) fn new(path: &Path, source: io::Error) -> Self {
        Self { path: path.to_owned(), source }
    }
}

impl Failure for WriteError {
    fn hint(&self) -> Option<String> {
        Some("run as a user who may, or name another file: --config FILE".to_owned())
    }
}

/// Writes the configuration if there is none; says whether it did.
pub fn write_first(first: &FirstConfiguration) -> Result<bool, WriteError> {
    write(&first.path, &text(first))
}

/// Writes a file that adds a server, into `servers.d` beside the configuration; where, if there
/// was none.
pub fn write_addition(
    configuration: &Path,
    addition: &Addition,
) -> Result<Option<PathBuf>, WriteError> {
    let directory = configuration.with_file_name("servers.d");
    let path = directory.join(format!("{}.toml", addition.server));
    Ok(write(&path, &section(addition))?.then_some(path))
}

fn write(path: &Path, text: &str) -> Result<bool, WriteError> {
    let failed = |source| WriteError::new(path, source);
    if let Some(directory) = path.parent() {
        make_directory(directory).map_err(failed)?;
    }
    match create(path) {
        Ok(mut file) => {
            file.write_all(text.as_bytes()).map_err(failed)?;
            file.sync_all().map_err(failed)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

/// A directory that gives access to whom the one above does.
fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let above = directory.parent().and_then(|above| fs::metadata(above).ok());
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    let closed = above.filter(|above| above.mode() & 0o007 == 0);
    if let Some(above) = closed {
        fs::set_permissions(directory, fs::Permissions::from_mode(above.mode() & 0o770))?;
        give_to_group(&fs::File::open(directory)?, above.gid());
    }
    Ok(())
}

/// A new file. Only its owner may read it, because there may be a password in it one day; and the
/// group of its directory, where the directory is for them and nobody else: the daemon is one.
fn create(path: &Path) -> io::Result<fs::File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let directory = path.parent().and_then(|directory| fs::metadata(directory).ok());
    if let Some(directory) = directory
        && directory.mode() & 0o057 == 0o050
    {
        give_to_group(&file, directory.gid());
        file.set_permissions(fs::Permissions::from_mode(0o640))?;
    }
    Ok(file)
}

/// Who may not do that has no such group to think of.
fn give_to_group(file: &fs::File, group: u32) {
    if let Err(error) = fchown(file, None, Some(group)) {
        tracing::debug!(error = %error, "cannot hand a file to its directory's group");
    }
}

/// The keys that a newcomer may want to change, and that hold for every server.
const OFFERED: &[&str] = &[
    "backup_schedule",
    "incremental_schedule",
    "time_zone",
    "retention_policy",
    "minimum_redundancy",
    "last_backup_maximum_age",
    "compression",
    "backup_compression",
    "encryption_recipients",
    "bandwidth_limit",
    "synchronous",
    "failure_webhook",
];

fn text(first: &FirstConfiguration) -> String {
    let home = toml_text(&first.home.to_string_lossy());
    let section = section(&first.addition);
    let (readers, offered) = (settings::explained(&["wal_readers"]), settings::explained(OFFERED));
    format!(
        r#"{SCHEMA_LINE}
# The configuration of walrecv-server; `walrecv-server config reference` explains every key.
# Editors complete and check it by `walrecv-server config schema > walrecv-server.schema.json`.
# Other files with [servers.NAME] sections may stand in servers.d/*.toml beside this one.

# Where backups and WAL are stored.
home = {home}

{readers}
# What holds for all servers; each of these keys can stand in a server's section, too.
[defaults]

{offered}
{section}"#
    )
}

fn section(addition: &Addition) -> String {
    let Addition { server, conninfo, slot_name } = addition;
    let example = format!("host=db1 user={EXAMPLE_ROLE} dbname=postgres");
    let conninfo = toml_text(conninfo.as_deref().unwrap_or(&example));
    let slot_name = toml_text(slot_name);
    format!(
        r#"[servers.{server}]
#description = "what it is"
# How to reach it, as for psql. The password is best kept in ~/.pgpass (mode 0600), or in a file
# like it that passfile=FILE names.
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
    use super::*;
    use crate::settings::{Settings, Typed};

    fn addition(server: &str) -> Addition {
        Addition {
            server: server.parse().unwrap(),
            conninfo: Some("host=db user=backup options='-c x=\"y\"'".to_owned()),
            slot_name: "walrecv".to_owned(),
        }
    }

    fn first(directory: &Path) -> FirstConfiguration {
        FirstConfiguration {
            path: directory.join("etc/walrecv-server.toml"),
            home: PathBuf::from("/srv/it's \"here\""),
            addition: addition("main"),
        }
    }

    fn load(path: &Path) -> Settings {
        let typed = Typed { config: Some(path.to_owned()), ..Typed::default() };
        Settings::load(&typed, &|_| None).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_first_configuration_is_one_that_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let first = first(directory.path());
        assert!(write_first(&first).unwrap());
        assert_eq!(mode(&first.path), 0o600);
        let settings = load(&first.path);
        assert_eq!(settings.home, first.home);
        let [server] = settings.servers.as_slice() else { panic!() };
        assert_eq!(Some(server.streaming_conninfo()), first.addition.conninfo.as_deref());

        // Every key that is commented out can be used as it stands there.
        let text = fs::read_to_string(&first.path).unwrap();
        fs::write(&first.path, uncommented(&text)).unwrap();
        let settings = load(&first.path);
        assert_eq!(settings.wal_readers, ["postgres"]);
    }

    fn uncommented(text: &str) -> String {
        let lines = text.lines().map(|line| match line.strip_prefix('#') {
            Some(key) if !key.starts_with([' ', ':']) => key.replace("\"…\"", "\"host=other\""),
            _ => line.to_owned(),
        });
        lines.map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn a_configuration_that_is_there_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let first = first(directory.path());
        fs::create_dir(directory.path().join("etc")).unwrap();
        fs::write(&first.path, "mine").unwrap();
        assert!(!write_first(&first).unwrap());
        assert_eq!(fs::read(&first.path).unwrap(), b"mine");
    }

    #[test]
    fn a_second_server_gets_a_file_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let first = first(directory.path());
        write_first(&first).unwrap();
        let second = addition("second");
        let path = write_addition(&first.path, &second).unwrap().unwrap();
        assert_eq!(path, directory.path().join("etc/servers.d/second.toml"));
        assert_eq!(load(&first.path).servers.len(), 2);
        assert_eq!(write_addition(&first.path, &second).unwrap(), None);
    }

    #[test]
    fn whom_a_closed_directory_is_for_may_read_what_is_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let first = first(directory.path());
        let etc = directory.path().join("etc");
        fs::create_dir(&etc).unwrap();
        fs::set_permissions(&etc, fs::Permissions::from_mode(0o750)).unwrap();
        write_first(&first).unwrap();
        assert_eq!(mode(&first.path), 0o640);
        let added = write_addition(&first.path, &addition("second")).unwrap().unwrap();
        assert_eq!(mode(added.parent().unwrap()), 0o750);
        assert_eq!(mode(&added), 0o640);
    }
}
