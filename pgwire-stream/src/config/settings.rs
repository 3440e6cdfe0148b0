//! What was set, by which name: the step between text and [`Config`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use super::keyword::{self, KEYWORDS, Keyword, Treatment};
use super::{
    ChannelBinding, Config, ConfigError, Keepalive, RootCert, SslMode, TargetSessionAttrs,
};
use super::{conninfo, host, uri};

/// A keyword and its value, as written in a connection string.
pub(super) struct Pair {
    pub(super) keyword: String,
    pub(super) value: Zeroizing<String>,
}

/// The value of an option.
pub(super) struct Value<'a> {
    /// The keyword, or the environment variable if that set it.
    pub(super) name: &'static str,
    /// What it was set to.
    pub(super) text: &'a str,
}

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
                        problem: "what follows the password is not a connection option; \
                                  a password with spaces needs single quotes"
                            .to_owned(),
                    });
                }
                let suggestion = keyword::suggestion(&keyword);
                return Err(ConfigError::UnknownKey { key: keyword, suggestion });
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

    /// Understands every option. `socket_directory` says where a server on a port is looked for
    /// when no host is given.
    pub(super) fn to_config(
        &self,
        socket_directory: &dyn Fn(u16) -> PathBuf,
    ) -> Result<Config, ConfigError> {
        let mut config = Config {
            hosts: host::assemble(
                &self.value("host"),
                &self.value("hostaddr"),
                &self.value("port"),
                socket_directory,
            )?,
            user: None,
            dbname: None,
            password: None,
            passfile: None,
            application_name: None,
            fallback_application_name: None,
            options: None,
            connect_timeout: None,
            keepalive: Keepalive::default(),
            ssl_mode: SslMode::default(),
            ssl_root_cert: None,
            ssl_cert: None,
            ssl_key: None,
            channel_binding: ChannelBinding::default(),
            target_session_attrs: TargetSessionAttrs::default(),
        };
        for keyword in KEYWORDS.iter().filter(|keyword| self.contains(keyword.name)) {
            let value = self.value(keyword.name);
            match keyword.treatment {
                Treatment::Apply(apply) => apply(&mut config, &value)?,
                Treatment::Unsupported(accepted) => {
                    let harmless =
                        accepted.iter().any(|text| value.text.eq_ignore_ascii_case(text));
                    if !harmless && !value.text.is_empty() {
                        return Err(ConfigError::UnsupportedKey { key: value.name, accepted });
                    }
                }
                Treatment::Together | Treatment::Meaningless => {}
            }
        }
        if self.client_certificate_forbidden()? {
            config.ssl_cert = None;
            config.ssl_key = None;
        }
        self.strengthen_for_system_roots(&mut config)?;
        Ok(config)
    }

    /// Whether `sslcertmode` keeps the client's certificate from being sent.
    pub(super) fn client_certificate_forbidden(&self) -> Result<bool, ConfigError> {
        if !self.contains("sslcertmode") {
            return Ok(false);
        }
        let value = self.value("sslcertmode");
        match value.text {
            "disable" => Ok(true),
            "allow" => Ok(false),
            "require" => Err(ConfigError::UnsupportedKey {
                key: value.name,
                accepted: &["disable", "allow"],
            }),
            _ => Err(value.invalid("it must be `disable` or `allow`")),
        }
    }

    /// Anybody can get a certificate that some public authority signed: without a look at the name
    /// in it, the system's roots prove nothing.
    fn strengthen_for_system_roots(&self, config: &mut Config) -> Result<(), ConfigError> {
        if config.ssl_root_cert != Some(RootCert::System) {
            return Ok(());
        }
        if !self.contains("sslmode") {
            config.ssl_mode = SslMode::VerifyFull;
        }
        if config.ssl_mode != SslMode::VerifyFull {
            return Err(ConfigError::Conflict(format!(
                "`sslrootcert=system` needs `sslmode=verify-full`; `sslmode={}` is too weak for it",
                config.ssl_mode.as_str()
            )));
        }
        Ok(())
    }
}

impl Value<'_> {
    /// The error for this value.
    pub(super) fn invalid(&self, problem: impl Into<String>) -> ConfigError {
        ConfigError::InvalidValue { key: self.name, problem: problem.into() }
    }

    pub(super) fn unless_empty(&self) -> Option<String> {
        (!self.text.is_empty()).then(|| self.text.to_owned())
    }

    pub(super) fn path(&self) -> Option<PathBuf> {
        self.unless_empty().map(PathBuf::from)
    }

    /// One of the choices, by its spelling.
    pub(super) fn one_of<T: Copy>(
        &self,
        choices: &[T],
        spelling: fn(T) -> &'static str,
    ) -> Result<T, ConfigError> {
        choices.iter().copied().find(|choice| spelling(*choice) == self.text).ok_or_else(|| {
            let spellings: Vec<_> = choices.iter().map(|choice| spelling(*choice)).collect();
            self.invalid(format!("it must be one of `{}`", spellings.join("`, `")))
        })
    }

    pub(super) fn integer(&self) -> Result<i32, ConfigError> {
        self.text.trim_ascii().parse().map_err(|_| self.invalid("it must be an integer"))
    }

    /// A number that is left to the system where it is zero or less.
    pub(super) fn positive(&self) -> Result<Option<u32>, ConfigError> {
        Ok(u32::try_from(self.integer()?).ok().filter(|number| *number > 0))
    }

    pub(super) fn seconds(&self) -> Result<Option<Duration>, ConfigError> {
        Ok(self.positive()?.map(|seconds| Duration::from_secs(u64::from(seconds))))
    }

    pub(super) fn milliseconds(&self) -> Result<Option<Duration>, ConfigError> {
        Ok(self.positive()?.map(|millis| Duration::from_millis(u64::from(millis))))
    }

    /// Any value that a server accepts will do: none of them is sent.
    pub(super) fn check_replication(&self) -> Result<(), ConfigError> {
        let lower = self.text.to_ascii_lowercase();
        let boolean = ["true", "false", "yes", "no"]
            .iter()
            .any(|word| !lower.is_empty() && word.starts_with(&lower))
            || matches!(lower.as_str(), "on" | "of" | "off" | "1" | "0");
        if boolean || self.text == "database" {
            return Ok(());
        }
        Err(self.invalid("it must be a boolean or `database`"))
    }
}
