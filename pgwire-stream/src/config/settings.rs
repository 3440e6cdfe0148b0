//! What was set, by which name: the step between text and [`Config`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::keyword::{self, KEYWORDS, Keyword, Treatment};
use super::pair::Pair;
use super::value::Value;
use super::{
    ChannelBinding, Config, ConfigError, Keepalive, RootCert, SslMode, TargetSessionAttrs,
};
use super::{conninfo, host, uri};

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
