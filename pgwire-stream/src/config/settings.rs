//! What was set, by which name: the step between text and [`Config`].

use std::collections::BTreeMap;
use std::path::Path;

use zeroize::Zeroizing;

use super::keyword::{self, KEYWORDS, Keyword};
use super::pair::Pair;
use super::value::Value;
use super::{Config, ConfigError, RootCert, SslMode};
use super::{conninfo, environment, host, uri};

/// The options that are set; the last setting of each counts.
#[derive(Default)]
pub(super) struct Settings(BTreeMap<&'static str, (&'static str, Zeroizing<String>)>);

impl Settings {
    /// Reads a connection string of either form.
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        // libpq's strings end there, and so do those of the protocol.
        if text.contains('\0') {
            return Err(ConfigError::Syntax { problem: "it contains a NUL character".to_owned() });
        }
        let pairs = match uri::strip_scheme(text) {
            Some(rest) => uri::parse(rest)?,
            None => conninfo::parse(text)?,
        };
        let mut settings = Self::default();
        let mut after_password = false;
        for Pair { keyword, value } in pairs {
            if keyword == "requiressl" {
                settings.set_requiressl("requiressl", &value);
                after_password = false;
                continue;
            }
            let Some(known) = keyword::find(&keyword) else {
                if after_password {
                    // It may be a piece of the password.
                    return Err(ConfigError::Syntax {
                        problem: "what follows the password is not a connection option: one is \
                                  misspelt, or the password has spaces and needs single quotes"
                            .to_owned(),
                    });
                }
                return Err(keyword::unknown(&keyword));
            };
            after_password = matches!(known.name, "password" | "sslpassword");
            settings.set(known, known.name, value);
        }
        Ok(settings)
    }

    /// Sets an option; `name` is the keyword or the environment variable.
    pub(super) fn set(
        &mut self,
        keyword: &'static Keyword,
        name: &'static str,
        value: Zeroizing<String>,
    ) {
        self.0.insert(keyword.name, (name, value));
    }

    /// The ancient way to say `sslmode=require`, or `sslmode=prefer`.
    pub(super) fn set_requiressl(&mut self, name: &'static str, value: &str) {
        let mode = if value.starts_with('1') { SslMode::Require } else { SslMode::Prefer };
        self.0.insert("sslmode", (name, Zeroizing::new(mode.as_str().to_owned())));
    }

    /// Whether the option is set, be it to nothing.
    pub(super) fn contains(&self, keyword: &str) -> bool {
        self.0.contains_key(keyword)
    }

    /// The option's value; empty if it is not set.
    pub(super) fn value(&self, keyword: &'static str) -> Value<'_> {
        match self.0.get(keyword) {
            Some((name, text)) => Value { name, text },
            None => Value { name: keyword, text: "" },
        }
    }

    /// The option's value as it is set, be it to nothing.
    pub(super) fn text(&self, keyword: &str) -> Option<&str> {
        self.0.get(keyword).map(|(_, text)| text.as_str())
    }

    /// Forgets an option; the answer is whether it was set.
    pub(super) fn remove(&mut self, keyword: &str) -> bool {
        self.0.remove(keyword).is_some()
    }

    /// The keywords that are set.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    /// Understands every option, without a look at files or the environment.
    pub(super) fn to_pure_config(&self) -> Result<Config, ConfigError> {
        let service = self.value("service");
        if !service.text.is_empty() {
            return Err(service.invalid("services are defined in a file, which only `load` reads"));
        }
        self.to_config(&environment::default_socket_directory())
    }

    /// Understands every option. A server is looked for in `socket_directory` when no host is
    /// given.
    pub(super) fn to_config(&self, socket_directory: &Path) -> Result<Config, ConfigError> {
        let hosts = host::assemble(
            &self.value("host"),
            &self.value("hostaddr"),
            &self.value("port"),
            socket_directory,
        )?;
        let mut config = Config { hosts, ..Config::default() };
        for keyword in KEYWORDS.iter().filter(|keyword| self.contains(keyword.name)) {
            keyword.apply(&mut config, &self.value(keyword.name))?;
        }
        self.strengthen_for_system_roots(&mut config);
        config.check()?;
        Ok(config)
    }

    /// Anybody can get a certificate that some public authority signed: without a look at the name
    /// in it, the system's roots prove nothing.
    fn strengthen_for_system_roots(&self, config: &mut Config) {
        if config.ssl_root_cert == Some(RootCert::System) && !self.contains("sslmode") {
            config.ssl_mode = SslMode::VerifyFull;
        }
    }
}
