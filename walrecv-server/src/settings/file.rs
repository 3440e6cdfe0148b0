//! Configuration files: where they are, and TOML that remembers its lines.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ServerName;
use super::barman_keys;
use super::error::{Mistake, Origin, SettingsError};
use super::exposed::exposed;
use super::keys::{self, Section};
use super::layer::Layer;
use super::value::{Given, Raw};

/// Where the configuration is looked for when nothing names one.
pub const DEFAULT_PATH: &str = "/etc/walrecv-server/walrecv-server.toml";

/// The directory beside the configuration whose files add servers.
const SERVERS_DIRECTORY: &str = "servers.d";

/// What the files say.
#[derive(Default)]
pub(super) struct Files {
    pub(super) global: Layer,
    pub(super) defaults: Layer,
    pub(super) http: Layer,
    pub(super) servers: BTreeMap<ServerName, Layer>,
    pub(super) mistakes: Vec<Mistake>,
}

impl Files {
    /// Reads the configuration at `path` and the files beside it that add servers.
    pub(super) fn read(path: &Path) -> Result<Self, SettingsError> {
        let mut files = Self::default();
        let text = read_text(path)?;
        files.parse(path, &text, Place::Main);
        if let Some(directory) = path.parent() {
            for path in added(&directory.join(SERVERS_DIRECTORY))? {
                let text = read_text(&path)?;
                files.parse(&path, &text, Place::Added);
            }
        }
        files.mistakes.extend(exposed(&files));
        Ok(files)
    }

    /// Takes in what one file says.
    pub(super) fn parse(&mut self, path: &Path, text: &str, place: Place) {
        let source = Source { path: Arc::from(path), text };
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            if let Some(at) = barman_keys::sign_in(text) {
                let problem = "this is a configuration of Barman, and not TOML".to_owned();
                let hint = "write it anew, which `walrecv-server init` helps with: [servers.NAME] for \
                            [NAME], and quotes around text";
                self.mistakes.push(source.mistake(&(at..at), problem, Some(hint.to_owned())));
                return;
            }
            // Syntax first: what recovery makes of the rest would only confuse.
            for error in errors {
                let span = error.span().unwrap_or(0..0);
                self.mistakes.push(source.mistake(&span, error.message().to_owned(), None));
            }
            return;
        }
        for (key, value) in document.get_ref() {
            self.top_level(&source, place, key, value);
        }
    }

    fn top_level(
        &mut self,
        source: &Source<'_>,
        place: Place,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let name: &str = key.get_ref();
        match (name, value.get_ref()) {
            ("servers", DeValue::Table(servers)) => {
                for (name, table) in servers {
                    self.server(source, name, table);
                }
            }
            (_, _) if place == Place::Added && !is_unknown(name) => {
                let problem = format!("`{name}` cannot be set here");
                let hint = "files in servers.d hold [servers.NAME] only".to_owned();
                self.mistakes.push(source.mistake(&key.span(), problem, Some(hint)));
            }
            ("defaults", DeValue::Table(table)) => {
                self.defaults = source.layer(table, Section::Server, &mut self.mistakes);
                for key in keys::of(Section::Server).filter(|key| key.of_one_server) {
                    let key = key.name;
                    if let Some(given) = self.defaults.get(key) {
                        self.mistakes.push(Mistake {
                            origin: given.origin.clone(),
                            problem: format!("`{key}` describes one server, not all of them"),
                            hint: Some("move it into [servers.NAME]".into()),
                        });
                    }
                }
            }
            ("http", DeValue::Table(table)) => {
                self.http = source.layer(table, Section::Http, &mut self.mistakes);
            }
            ("defaults" | "http" | "servers", _) => {
                let problem = format!("`{name}` must be a section");
                let hint = match name {
                    "servers" => "write [servers.NAME]",
                    "http" => "write [http]",
                    _ => "write [defaults]",
                };
                self.mistakes.push(source.mistake(&key.span(), problem, Some(hint.into())));
            }
            _ if keys::find(Section::Global, name).is_some() => {
                self.global.insert(name, source.given(&key.span(), value.get_ref()));
            }
            _ => {
                let (problem, hint) = keys::unknown(name, Section::Global);
                self.mistakes.push(source.mistake(&key.span(), problem, hint));
            }
        }
    }

    fn server(
        &mut self,
        source: &Source<'_>,
        name: &Spanned<std::borrow::Cow<'_, str>>,
        table: &Spanned<DeValue<'_>>,
    ) {
        let span = name.span();
        let parsed: ServerName = match name.get_ref().parse() {
            Ok(parsed) => parsed,
            Err(error) => {
                let error: super::ServerNameError = error;
                self.mistakes.push(source.mistake(&span, error.to_string(), None));
                return;
            }
        };
        let DeValue::Table(table) = table.get_ref() else {
            let (problem, hint) = (
                format!("`servers.{parsed}` must be a section"),
                format!("write [servers.{parsed}]"),
            );
            self.mistakes.push(source.mistake(&span, problem, Some(hint)));
            return;
        };
        if self.servers.contains_key(&parsed) {
            let problem = format!("server `{parsed}` is configured in another file already");
            self.mistakes.push(source.mistake(&span, problem, None));
            return;
        }
        let mut layer = source.layer(table, Section::Server, &mut self.mistakes);
        layer.place = Some(source.origin(&span));
        self.servers.insert(parsed, layer);
    }
}

fn is_unknown(name: &str) -> bool {
    keys::find(Section::Global, name).is_none() && !keys::TABLES.contains(&name)
}

/// Which of the files is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The configuration itself.
    Main,
    /// A file of `servers.d`.
    Added,
}

/// A file's text, which knows where its lines are.
struct Source<'t> {
    path: Arc<Path>,
    text: &'t str,
}

impl Source<'_> {
    fn origin(&self, span: &Range<usize>) -> Origin {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Origin::File { path: Arc::clone(&self.path), line }
    }

    fn mistake(&self, span: &Range<usize>, problem: String, hint: Option<String>) -> Mistake {
        Mistake { origin: self.origin(span), problem, hint }
    }

    fn given(&self, span: &Range<usize>, value: &DeValue<'_>) -> Given {
        Given { raw: raw(value), origin: self.origin(span) }
    }

    fn layer(&self, table: &DeTable<'_>, section: Section, mistakes: &mut Vec<Mistake>) -> Layer {
        let mut layer = Layer::default();
        for (key, value) in table {
            let name: &str = key.get_ref();
            if keys::find(section, name).is_some() {
                layer.insert(name, self.given(&key.span(), value.get_ref()));
            } else {
                let (problem, hint) = keys::unknown(name, section);
                mistakes.push(self.mistake(&key.span(), problem, hint));
            }
        }
        layer
    }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Boolean(value) => Raw::Boolean(*value),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Raw::Other, Raw::Integer)
        }
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw(item.get_ref())).collect()),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => Raw::Other,
    }
}

fn read_text(path: &Path) -> Result<String, SettingsError> {
    fs::read_to_string(path)
        .map_err(|source| SettingsError::Unreadable { path: path.to_owned(), source })
}

/// The files of `servers.d`, in order of their names.
fn added(directory: &Path) -> Result<Vec<PathBuf>, SettingsError> {
    let unreadable = |source| SettingsError::Unreadable { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        // Editors keep files of their own there, hidden.
        let is_hidden = path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"."));
        if !is_hidden && path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
