//! What the operator wants: file, environment and arguments become validated settings.
//!
//! Every place gives raw values that remember where they were given (a layer); a value is
//! looked up through the layers (arguments, environment, the server's section, `[defaults]`) and
//! parsed once, so that a mistake is told in the same words wherever it was made, and all mistakes
//! are told at once. Knows no command and opens no connection.

mod barman_keys;
mod environment;
mod error;
mod exposed;
mod file;
mod hook_scripts;
mod http;
mod keys;
mod layer;
mod period;
mod recipient;
mod reference;
mod retention_policy;
mod schedule;
mod schema;
mod secrets;
mod server;
mod server_name;
mod shown;
mod sources;
mod value;
mod webhook_url;

use std::path::{Path, PathBuf};

pub use environment::{Lookup, process as process_environment};
pub use error::{Mistake, Origin, SettingsError};
pub use file::DEFAULT_PATH;
pub use hook_scripts::{Hook, HookEvent, HookKind, HookPhase, HookScripts};
pub use http::HttpSettings;
pub use period::{Period, PeriodError};
pub use recipient::{Recipient, RecipientError};
pub use reference::{explained, reference};
pub use retention_policy::{Generations, RetentionPolicy, RetentionPolicyError};
pub use schedule::{Moments, Schedule, ScheduleError};
pub use schema::{SCHEMA_LINE, schema};
pub use secrets::without_passwords;
pub use server::{
    BackupCompression, Compression, CompressionLocation, ConnInfo, CreateSlot, DEFAULT_SLOT,
    IncrementalBase, ServerSettings, Synchronous,
};
pub use server_name::{ServerName, ServerNameError};
pub use shown::{ShownServer, ShownSetting};
pub use webhook_url::{WebhookUrl, WebhookUrlError};

use layer::Layers;
use sources::Sources;

/// Where the store lies when nothing says otherwise.
pub const DEFAULT_HOME: &str = "/var/lib/walrecv-server";

/// How many base backups are taken at a time.
const MAX_PARALLEL_BACKUPS: u32 = 2;

/// What was typed on the command line, as far as it concerns settings.
#[derive(Clone, Default)]
pub struct Typed {
    /// The configuration (`--config`).
    pub config: Option<PathBuf>,
    /// Settings by their keys.
    pub arguments: Vec<Argument>,
    /// The servers that the command is about; empty for all of them.
    pub servers: Vec<ServerName>,
    /// How much the command needs to know.
    pub scope: Scope,
}

/// One setting given by an option of the command line.
#[derive(Clone)]
pub struct Argument {
    /// The option as typed, for messages.
    pub option: String,
    /// The key that it gives.
    pub key: String,
    /// The value; its own `Debug` is not derived, because it may hold a password.
    pub value: String,
}

/// How much a command needs to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Where the store lies: enough to list, restore, and hand out WAL. Where that is given as an
    /// argument, the configuration is not even read, so that `restore_command` needs no access
    /// to it.
    Store,
    /// How to reach the servers, too.
    #[default]
    Servers,
}

/// Everything that is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The configuration that was read, if any.
    pub file: Option<PathBuf>,
    /// Where the store lies.
    pub home: PathBuf,
    /// Whether the store's group may read it.
    pub group_access: bool,
    /// The operating system users whose `get-wal` the daemon serves.
    pub wal_readers: Vec<String>,
    /// How many base backups are taken at a time, of all servers together.
    pub max_parallel_backups: u32,
    /// Where the daemon answers browsers and monitoring.
    pub http: HttpSettings,
    /// The servers, in order of their names.
    pub servers: Vec<ServerSettings>,
    /// The identity file that was named on the command line or in the environment, which needs no
    /// server that is configured.
    pub encryption_identity: Option<PathBuf>,
}

impl Settings {
    /// A store with no server.
    pub fn of(home: &Path) -> Self {
        Self {
            file: None,
            home: home.to_owned(),
            group_access: false,
            wal_readers: Vec::new(),
            max_parallel_backups: MAX_PARALLEL_BACKUPS,
            http: HttpSettings::default(),
            servers: Vec::new(),
            encryption_identity: None,
        }
    }

    /// Brings together what was typed, the environment and the configuration files.
    pub fn load(typed: &Typed, environment: Lookup<'_>) -> Result<Self, SettingsError> {
        let mut mistakes = Vec::new();
        let sources = Sources::read(typed, environment, &mut mistakes)?;
        let (files, overriding) = (&sources.files, sources.overriding());
        let mut global =
            Layers::new(overriding.into_iter().chain([&files.global]).collect(), &mut mistakes);
        let home = global.value("home", value::path).unwrap_or_else(|| DEFAULT_HOME.into());
        let group_access = global.value("group_access", value::boolean).unwrap_or_default();
        let wal_readers = global.value("wal_readers", value::words).unwrap_or_default();

        let max_parallel_backups = global
            .value("max_parallel_backups", |given| value::number(given, 1, 1000))
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(MAX_PARALLEL_BACKUPS);
        let http = HttpSettings::resolve(&mut Layers::new(vec![&files.http], &mut mistakes));

        let encryption_identity = Layers::new(overriding.to_vec(), &mut mistakes)
            .value("encryption_identity", value::path);

        let servers = sources
            .names(typed, &mut mistakes)
            .into_iter()
            .filter_map(|name| {
                let layers = sources.of_server(&name, typed);
                let mut server =
                    ServerSettings::resolve(name, &mut Layers::new(layers, &mut mistakes))?;
                server.hooks.configuration.clone_from(&sources.path);
                Some(server)
            })
            .collect();

        if files.servers.is_empty() {
            // No server would tell what is wrong with them.
            let name = "defaults".parse()?;
            ServerSettings::resolve(name, &mut Layers::new(vec![&files.defaults], &mut mistakes));
        }

        if mistakes.is_empty() {
            Ok(Self {
                file: sources.path,
                home,
                group_access,
                wal_readers,
                max_parallel_backups,
                http,
                servers,
                encryption_identity,
            })
        } else {
            // The same default can be wrong for several servers.
            let mut told: Vec<Mistake> = Vec::new();
            for mistake in mistakes {
                if !told.contains(&mistake) {
                    told.push(mistake);
                }
            }
            Err(SettingsError::Mistakes(told))
        }
    }

    /// The identity file for what is stored for this server, configured or not.
    pub fn identity_file(&self, name: &ServerName) -> Option<&Path> {
        let configured = self.servers.iter().find(|server| server.name == *name);
        configured
            .and_then(|server| server.encryption_identity.as_ref())
            .or(self.encryption_identity.as_ref())
            .map(PathBuf::as_path)
    }

    /// The settings of this server.
    pub fn server(&self, name: &ServerName) -> Result<&ServerSettings, SettingsError> {
        self.servers.iter().find(|server| server.name == *name).ok_or_else(|| {
            SettingsError::UnknownServer {
                name: name.clone(),
                configured: self.servers.iter().map(|server| server.name.clone()).collect(),
            }
        })
    }
}

#[cfg(test)]
mod tests;
