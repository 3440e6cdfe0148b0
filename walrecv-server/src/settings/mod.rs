//! What the operator wants: file, environment and arguments become validated settings.
//!
//! Every place gives raw values that remember where they were given (a layer); a value is
//! looked up through the layers (arguments, environment, the server's section, `[defaults]`) and
//! parsed once, so that a mistake is told in the same words wherever it was made, and all mistakes
//! are told at once. Knows no command and opens no connection.

mod environment;
mod error;
mod file;
mod hook_scripts;
mod http;
mod keys;
mod layer;
mod period;
mod recipient;
mod retention_policy;
mod schedule;
mod server;
mod server_name;
mod value;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

pub use environment::{Lookup, process as process_environment};
pub use error::{Mistake, Origin, SettingsError};
pub use file::DEFAULT_PATH;
pub use hook_scripts::{Hook, HookEvent, HookKind, HookPhase, HookScripts};
pub use http::HttpSettings;
pub use period::{Period, PeriodError};
pub use recipient::{Recipient, RecipientError};
pub use retention_policy::{Generations, RetentionPolicy, RetentionPolicyError};
pub use schedule::{Moments, Schedule, ScheduleError};
pub use server::{
    BackupCompression, Compression, CompressionLocation, ConnInfo, CreateSlot, IncrementalBase,
    ServerSettings, Synchronous,
};
pub use server_name::{ServerName, ServerNameError};

use file::Files;
use layer::{Layer, Layers};
use value::{Given, Raw};

/// Where the store lies when nothing says otherwise.
pub const DEFAULT_HOME: &str = "/var/lib/walrecv-server";

/// How many base backups are taken at a time.
const MAX_PARALLEL_BACKUPS: u32 = 2;

/// The environment variable that names the configuration.
const CONFIG_VARIABLE: &str = "WALRECV_CONFIG";

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
        let arguments = arguments(typed, &mut mistakes);
        let environment = from_environment(environment);

        let path = if wants_file(typed, &arguments, &environment) {
            find_file(typed, &environment.config)?
        } else {
            None
        };
        let mut files = match &path {
            Some(path) => Files::read(path)?,
            None => Files::default(),
        };
        mistakes.append(&mut files.mistakes);

        let overriding = [&arguments, &environment.layer];
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

        let mut names: BTreeSet<_> = files.servers.keys().cloned().collect();
        let described = overriding.iter().any(|layer| layer.get("conninfo").is_some());
        match typed.servers.as_slice() {
            [only] if described => {
                names.insert(only.clone());
            }
            _ => one_server_only(overriding, typed.scope, &mut mistakes),
        }
        let nothing = Layer::default();
        let servers = names
            .into_iter()
            .filter_map(|name| {
                let own = files.servers.get(&name).unwrap_or(&nothing);
                // Arguments and environment speak about the servers that the command is about.
                let concerned = typed.servers.is_empty() || typed.servers.contains(&name);
                let layers = overriding.into_iter().filter(|_| concerned);
                let layers = layers.chain([own, &files.defaults]).collect();
                let mut server =
                    ServerSettings::resolve(name, &mut Layers::new(layers, &mut mistakes))?;
                server.hooks.configuration.clone_from(&path);
                Some(server)
            })
            .collect();

        if mistakes.is_empty() {
            Ok(Self {
                file: path,
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

/// What the environment gives.
struct Environment {
    config: Option<PathBuf>,
    layer: Layer,
}

fn from_environment(lookup: Lookup<'_>) -> Environment {
    let mut layer = Layer::default();
    for key in keys::GLOBAL.iter().chain(keys::SERVER) {
        if let Some(given) = environment::given(lookup, key) {
            layer.insert(key, given);
        }
    }
    Environment { config: lookup(CONFIG_VARIABLE).map(PathBuf::from), layer }
}

fn arguments(typed: &Typed, mistakes: &mut Vec<Mistake>) -> Layer {
    let known: Vec<_> = keys::GLOBAL.iter().chain(keys::SERVER).copied().collect();
    let mut layer = Layer::default();
    for Argument { option, key, value } in &typed.arguments {
        let origin = Origin::Argument(option.clone());
        if known.contains(&key.as_str()) {
            layer.insert(key, Given { raw: Raw::Text(value.clone()), origin });
        } else {
            let (problem, hint) = keys::unknown(key, &known);
            mistakes.push(Mistake { origin, problem, hint });
        }
    }
    layer
}

/// Whether the configuration is read at all. What names the store more closely counts more: a home
/// among the arguments makes up for a configuration in the environment.
fn wants_file(typed: &Typed, arguments: &Layer, environment: &Environment) -> bool {
    let home_suffices = arguments.get("home").is_some()
        || environment.layer.get("home").is_some() && environment.config.is_none();
    typed.config.is_some() || typed.scope == Scope::Servers || !home_suffices
}

/// The configuration: one that is named must exist, the default one may.
fn find_file(typed: &Typed, named: &Option<PathBuf>) -> Result<Option<PathBuf>, SettingsError> {
    if let Some(path) = typed.config.as_ref().or(named.as_ref()) {
        return Ok(Some(path.clone()));
    }
    let path = Path::new(DEFAULT_PATH);
    match path.try_exists() {
        Ok(exists) => Ok(exists.then(|| path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
        Err(source) => Err(SettingsError::Unreadable { path: path.to_owned(), source }),
    }
}

/// What describes one server cannot be given for several.
fn one_server_only(overriding: [&Layer; 2], scope: Scope, mistakes: &mut Vec<Mistake>) {
    if scope == Scope::Store {
        return;
    }
    for given in overriding
        .into_iter()
        .flat_map(|layer| keys::OF_ONE_SERVER.iter().filter_map(|key| layer.get(key)))
    {
        mistakes.push(Mistake {
            origin: given.origin.clone(),
            problem: "this describes one server".into(),
            hint: Some("name that server, and only it, on the command line".into()),
        });
    }
}

#[cfg(test)]
mod tests;
