//! All that was said, and where: arguments, environment and files, not yet understood.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::environment::{self, Lookup};
use super::error::{Mistake, Origin, SettingsError};
use super::file::Files;
use super::keys::{self, Section};
use super::layer::Layer;
use super::secrets::Credentials;
use super::value::{Given, Raw};
use super::{Argument, DEFAULT_PATH, Scope, ServerName, Typed};

/// The environment variable that names the configuration.
const CONFIG_VARIABLE: &str = "WALRECV_CONFIG";

/// All that was said.
pub(super) struct Sources {
    /// The configuration that was read, if any.
    pub(super) path: Option<PathBuf>,
    pub(super) files: Files,
    arguments: Layer,
    environment: Layer,
    nothing: Layer,
}

impl Sources {
    pub(super) fn read(
        typed: &Typed,
        lookup: Lookup<'_>,
        mistakes: &mut Vec<Mistake>,
    ) -> Result<Self, SettingsError> {
        let arguments = arguments(typed, mistakes);
        let environment = from_environment(lookup);
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
        let nothing = Layer::default();
        let environment = environment.layer;
        let mut sources = Self { path, files, arguments, environment, nothing };
        let credentials = Credentials::of(lookup);
        for layer in sources.layers() {
            credentials.fill_in(layer);
        }
        Ok(sources)
    }

    fn layers(&mut self) -> impl Iterator<Item = &mut Layer> {
        let Files { global, defaults, http, servers, .. } = &mut self.files;
        let files = [global, defaults, http].into_iter().chain(servers.values_mut());
        files.chain([&mut self.arguments, &mut self.environment])
    }

    /// What counts before every file.
    pub(super) fn overriding(&self) -> [&Layer; 2] {
        [&self.arguments, &self.environment]
    }

    /// What is said of a server, what counts most first.
    pub(super) fn of_server(&self, name: &ServerName, typed: &Typed) -> Vec<&Layer> {
        let own = self.files.servers.get(name).unwrap_or(&self.nothing);
        // Arguments and environment speak about the servers that the command is about.
        let concerned = typed.servers.is_empty() || typed.servers.contains(name);
        let layers = self.overriding().into_iter().filter(|_| concerned);
        layers.chain([own, &self.files.defaults]).collect()
    }

    /// The servers that there are.
    pub(super) fn names(&self, typed: &Typed, mistakes: &mut Vec<Mistake>) -> BTreeSet<ServerName> {
        let mut names: BTreeSet<_> = self.files.servers.keys().cloned().collect();
        let described = self.overriding().iter().any(|layer| layer.get("conninfo").is_some());
        match typed.servers.as_slice() {
            [only] if described => {
                names.insert(only.clone());
            }
            _ => one_server_only(self.overriding(), typed.scope, mistakes),
        }
        names
    }
}

/// What the environment gives.
struct Environment {
    config: Option<PathBuf>,
    layer: Layer,
}

fn from_environment(lookup: Lookup<'_>) -> Environment {
    let mut layer = Layer::default();
    for key in keys::anywhere() {
        if let Some(given) = environment::given(lookup, key.name) {
            layer.insert(key.name, given);
        }
    }
    Environment { config: lookup(CONFIG_VARIABLE).map(PathBuf::from), layer }
}

fn arguments(typed: &Typed, mistakes: &mut Vec<Mistake>) -> Layer {
    let mut layer = Layer::default();
    for Argument { option, key, value } in &typed.arguments {
        let origin = Origin::Argument(option.clone());
        if keys::anywhere().any(|known| known.name == key) {
            layer.insert(key, Given { raw: Raw::Text(value.clone()), origin });
        } else {
            let (problem, hint) = keys::unknown(key, Section::Server);
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
    for given in overriding.into_iter().flat_map(|layer| {
        keys::anywhere().filter(|key| key.of_one_server).filter_map(|key| layer.get(key.name))
    }) {
        mistakes.push(Mistake {
            origin: given.origin.clone(),
            problem: "this describes one server".into(),
            hint: Some("name that server, and only it, on the command line".into()),
        });
    }
}
