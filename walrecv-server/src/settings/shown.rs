//! What is configured, as it is shown: every key of a server with its value, and who said so.

use super::environment::Lookup;
use super::error::{Origin, SettingsError};
use super::keys::{self, Kind, Section};
use super::secrets::{HIDDEN, without_passwords};
use super::sources::Sources;
use super::value::{Given, Raw};
use super::{ServerName, ServerSettings, Settings, Typed, WebhookUrl};

/// All that is configured for a server, without secrets.
#[derive(Clone, Debug)]
pub struct ShownServer {
    /// The server.
    pub name: ServerName,
    /// Every key, in the order of the reference.
    pub settings: Vec<ShownSetting>,
}

/// A key, and what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownSetting {
    /// The key.
    pub key: &'static str,
    /// Its value as JSON, as it counts.
    pub value: serde_json::Value,
    /// Where it was given; `None` if it was not.
    pub origin: Option<Origin>,
}

impl ShownSetting {
    /// The value as text; nothing where there is none.
    pub fn text(&self) -> String {
        match &self.value {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Array(items) => {
                let texts = items
                    .iter()
                    .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned));
                texts.collect::<Vec<_>>().join(", ")
            }
            other => other.to_string(),
        }
    }

    /// Where the value comes from, in words.
    pub fn from(&self) -> String {
        self.origin.as_ref().map_or_else(|| "default".to_owned(), ToString::to_string)
    }
}

impl Settings {
    /// What is configured for the servers that were typed, or for all.
    ///
    /// # Errors
    /// Those of [`Settings::load`], and if one of them is not configured.
    pub fn show(typed: &Typed, environment: Lookup<'_>) -> Result<Vec<ShownServer>, SettingsError> {
        let settings = Self::load(typed, environment)?;
        let sources = Sources::read(typed, environment, &mut Vec::new())?;
        let wanted: Vec<_> = match typed.servers.as_slice() {
            [] if settings.servers.is_empty() => return Err(SettingsError::NoServers),
            [] => settings.servers.iter().collect(),
            named => named.iter().map(|name| settings.server(name)).collect::<Result<_, _>>()?,
        };
        Ok(wanted.into_iter().map(|server| shown(server, &sources, typed)).collect())
    }
}

fn shown(server: &ServerSettings, sources: &Sources, typed: &Typed) -> ShownServer {
    let layers = sources.of_server(&server.name, typed);
    let overriding = sources.overriding().into_iter().chain([&sources.files.global]).collect();
    let shown = |key: &'static keys::Key| {
        let layers: &Vec<_> = if key.section == Section::Global { &overriding } else { &layers };
        let given = layers.iter().find_map(|layer| layer.get(key.name));
        let value = match given {
            Some(given) => given_value(key.kind, given),
            None => unset_value(key, server),
        };
        ShownSetting { key: key.name, value, origin: given.map(|given| given.origin.clone()) }
    };
    let settings = keys::of(Section::Server).chain(keys::of(Section::Global)).map(shown).collect();
    ShownServer { name: server.name.clone(), settings }
}

/// A value as it was given, without secrets.
fn given_value(kind: Kind, given: &Given) -> serde_json::Value {
    match (&given.raw, kind) {
        (Raw::Text(text), Kind::Conninfo) => without_passwords(text).into(),
        (Raw::Text(text), Kind::Webhook) => {
            let url = text.parse::<WebhookUrl>();
            url.map_or_else(|_| HIDDEN.to_owned(), |url| url.to_string()).into()
        }
        (Raw::Text(text), Kind::Words) => {
            text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect()
        }
        // From the environment or an argument.
        (Raw::Text(text), Kind::Flag | Kind::FlagOr(_)) => match text.as_str() {
            "true" | "on" | "yes" | "1" => true.into(),
            "false" | "off" | "no" | "0" => false.into(),
            other => other.into(),
        },
        (Raw::Text(text), Kind::Count(..)) => {
            text.trim().parse::<i64>().map_or_else(|_| text.as_str().into(), Into::into)
        }
        (Raw::Text(text), _) => text.as_str().into(),
        (Raw::Integer(number), _) => (*number).into(),
        (Raw::Boolean(flag), _) => (*flag).into(),
        (Raw::List(items), _) => items
            .iter()
            .filter_map(|item| match item {
                Raw::Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect(),
        (Raw::Other, _) => serde_json::Value::Null,
    }
}

/// What a key has that is not set.
fn unset_value(key: &keys::Key, server: &ServerSettings) -> serde_json::Value {
    match key.name {
        // These depend on others, or on this machine.
        "streaming_conninfo" => without_passwords(server.streaming_conninfo()).into(),
        "backup_conninfo" => without_passwords(server.backup_conninfo()).into(),
        "compression_level" => server.compression_level.into(),
        "backup_compression_level" => server.backup_compression.level.into(),
        "backup_compression_workers" => server.backup_compression.workers.into(),
        _ => key.default_as_json().unwrap_or_default(),
    }
}
