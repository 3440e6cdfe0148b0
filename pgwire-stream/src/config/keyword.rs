//! The table of connection options: every keyword of libpq 18, and what becomes of it here.

use crate::proto::{ProtocolRange, ProtocolVersion};

use super::value::Value;
use super::{
    ChannelBinding, Config, ConfigError, LoadBalanceHosts, RequireAuth, RootCert, SslCertMode,
    SslMode, SslNegotiation, TargetSessionAttrs, TlsVersion,
};

/// A connection option.
pub(super) struct Keyword {
    /// Its name in connection strings.
    pub(super) name: &'static str,
    /// The environment variable that sets it where the string does not.
    pub(super) variable: Option<&'static str>,
    /// What becomes of it.
    pub(super) treatment: Treatment,
}

/// What becomes of an option.
pub(super) enum Treatment {
    /// It goes into the configuration.
    Apply(fn(&mut Config, &Value<'_>) -> Result<(), ConfigError>),
    /// It is understood together with others: the lists of hosts, and what depends on them.
    Together,
    /// It has no meaning for this library's connections, whatever its value.
    Meaningless,
    /// It is not supported. An empty value and these ask for nothing, and are accepted.
    Unsupported(&'static [&'static str]),
}

use Treatment::{Apply, Meaningless, Together, Unsupported};

const fn keyword(
    name: &'static str,
    variable: Option<&'static str>,
    treatment: Treatment,
) -> Keyword {
    Keyword { name, variable, treatment }
}

impl Keyword {
    /// Does to the configuration what the value says.
    pub(super) fn apply(&self, config: &mut Config, value: &Value<'_>) -> Result<(), ConfigError> {
        match self.treatment {
            Apply(apply) => apply(config, value),
            Unsupported(accepted) => {
                let harmless = accepted.iter().any(|text| value.text.eq_ignore_ascii_case(text));
                if harmless || value.text.is_empty() {
                    return Ok(());
                }
                Err(ConfigError::UnsupportedKey { key: value.name, accepted })
            }
            Together | Meaningless => Ok(()),
        }
    }

    /// Whether the option can have this value, whatever the others are.
    pub(super) fn check(&self, value: &Value<'_>) -> Result<(), ConfigError> {
        self.apply(&mut Config::default(), value)
    }
}

/// Every option, in the order of libpq's documentation.
pub(super) static KEYWORDS: &[Keyword] = &[
    keyword("host", Some("PGHOST"), Together),
    keyword("hostaddr", Some("PGHOSTADDR"), Together),
    keyword("port", Some("PGPORT"), Together),
    keyword("dbname", Some("PGDATABASE"), Apply(|c, v| v.text_to(&mut c.dbname))),
    keyword("user", Some("PGUSER"), Apply(|c, v| v.text_to(&mut c.user))),
    keyword("password", Some("PGPASSWORD"), Apply(|c, v| v.password_to(&mut c.password))),
    keyword("passfile", Some("PGPASSFILE"), Apply(|c, v| v.path_to(&mut c.passfile))),
    keyword("require_auth", Some("PGREQUIREAUTH"), Apply(require_auth)),
    keyword("channel_binding", Some("PGCHANNELBINDING"), Apply(channel_binding)),
    keyword(
        "connect_timeout",
        Some("PGCONNECT_TIMEOUT"),
        Apply(|c, v| v.seconds_to(&mut c.connect_timeout)),
    ),
    // Text is exchanged in UTF-8 and handed out as Rust strings, whatever the locale.
    keyword("client_encoding", Some("PGCLIENTENCODING"), Meaningless),
    keyword("options", Some("PGOPTIONS"), Apply(|c, v| v.text_to(&mut c.options))),
    keyword("application_name", Some("PGAPPNAME"), Apply(application_name)),
    keyword(
        "fallback_application_name",
        None,
        Apply(|c, v| v.text_to(&mut c.fallback_application_name)),
    ),
    keyword("keepalives", None, Apply(|c, v| v.switch_to(&mut c.keepalive.enabled))),
    keyword("keepalives_idle", None, Apply(|c, v| v.seconds_to(&mut c.keepalive.idle))),
    keyword("keepalives_interval", None, Apply(|c, v| v.seconds_to(&mut c.keepalive.interval))),
    keyword("keepalives_count", None, Apply(|c, v| v.count_to(&mut c.keepalive.count))),
    keyword("tcp_user_timeout", None, Apply(|c, v| v.millis_to(&mut c.keepalive.user_timeout))),
    // The client asks for a replication connection itself; which kind depends on the call.
    keyword("replication", None, Apply(|_, v| v.check_replication())),
    keyword("gssencmode", Some("PGGSSENCMODE"), Unsupported(&["disable", "prefer"])),
    keyword("sslmode", Some("PGSSLMODE"), Apply(ssl_mode)),
    keyword("sslnegotiation", Some("PGSSLNEGOTIATION"), Apply(ssl_negotiation)),
    keyword("sslcompression", Some("PGSSLCOMPRESSION"), Unsupported(&["0"])),
    keyword("sslcert", Some("PGSSLCERT"), Apply(|c, v| v.path_to(&mut c.ssl_cert))),
    keyword("sslkey", Some("PGSSLKEY"), Apply(|c, v| v.path_to(&mut c.ssl_key))),
    keyword("sslkeylogfile", None, Apply(|c, v| v.path_to(&mut c.ssl_key_log_file))),
    keyword("sslpassword", None, Apply(|c, v| v.password_to(&mut c.ssl_password))),
    keyword("sslcertmode", Some("PGSSLCERTMODE"), Apply(ssl_cert_mode)),
    keyword("sslrootcert", Some("PGSSLROOTCERT"), Apply(ssl_root_cert)),
    keyword("sslcrl", Some("PGSSLCRL"), Apply(|c, v| v.path_to(&mut c.ssl_crl))),
    keyword("sslcrldir", Some("PGSSLCRLDIR"), Apply(|c, v| v.path_to(&mut c.ssl_crl_dir))),
    keyword("sslsni", Some("PGSSLSNI"), Apply(ssl_sni)),
    keyword("requirepeer", Some("PGREQUIREPEER"), Apply(|c, v| v.text_to(&mut c.require_peer))),
    keyword(
        "ssl_min_protocol_version",
        Some("PGSSLMINPROTOCOLVERSION"),
        Apply(ssl_min_protocol_version),
    ),
    keyword(
        "ssl_max_protocol_version",
        Some("PGSSLMAXPROTOCOLVERSION"),
        Apply(ssl_max_protocol_version),
    ),
    // The minimum first: it decides about the default of the maximum.
    keyword("min_protocol_version", Some("PGMINPROTOCOLVERSION"), Apply(min_protocol_version)),
    keyword("max_protocol_version", Some("PGMAXPROTOCOLVERSION"), Apply(max_protocol_version)),
    keyword("krbsrvname", Some("PGKRBSRVNAME"), Unsupported(&["postgres"])),
    keyword("gsslib", Some("PGGSSLIB"), Unsupported(&["gssapi"])),
    keyword("gssdelegation", Some("PGGSSDELEGATION"), Unsupported(&["0"])),
    keyword("scram_client_key", None, Unsupported(&[])),
    keyword("scram_server_key", None, Unsupported(&[])),
    keyword("service", Some("PGSERVICE"), Together),
    keyword("target_session_attrs", Some("PGTARGETSESSIONATTRS"), Apply(target_session_attrs)),
    keyword("load_balance_hosts", Some("PGLOADBALANCEHOSTS"), Apply(load_balance_hosts)),
    keyword("oauth_issuer", None, Unsupported(&[])),
    keyword("oauth_client_id", None, Unsupported(&[])),
    keyword("oauth_client_secret", None, Unsupported(&[])),
    keyword("oauth_scope", None, Unsupported(&[])),
];

/// An empty name is kept: it hides the fallback.
fn application_name(config: &mut Config, value: &Value<'_>) -> Result<(), ConfigError> {
    config.application_name = Some(value.text.to_owned());
    Ok(())
}

fn channel_binding(config: &mut Config, value: &Value<'_>) -> Result<(), ConfigError> {
    config.channel_binding = value.one_of(&ChannelBinding::ALL, ChannelBinding::as_str)?;
    Ok(())
}

fn ssl_mode(config: &mut Config, value: &Value<'_>) -> Result<(), ConfigError> {
    config.ssl_mode = value.one_of(&SslMode::ALL, SslMode::as_str)?;
    Ok(())
}

fn ssl_root_cert(config: &mut Config, value: &Value<'_>) -> Result<(), ConfigError> {
    config.ssl_root_cert = match value.text {
        "" => None,
        "system" => Some(RootCert::System),
        path => Some(RootCert::File(path.into())),
    };
    Ok(())
}

fn require_auth(config: &mut Config, value: &Value<'_>) -> Result<(), ConfigError> {
    config.require_auth = RequireAuth::read(value)?;
    Ok(())
}

fn ssl_negotiation(config: &mut Config, value: &Value<'_>) -> Result<(), ConfigError> {
    config.ssl_negotiation = value.one_of(&SslNegotiation::ALL, SslNegotiation::as_str)?;
    Ok(())
}

fn ssl_cert_mode(config: &mut Config, value: &Value<'_>) -> Result<(), ConfigError> {
    config.ssl_cert_mode = value.one_of(&SslCertMode::ALL, SslCertMode::as_str)?;
    Ok(())
}

/// libpq takes anything but `1` for no. Such a `true` would be a surprise.
fn ssl_sni(config: &mut Config, value: &Value<'_>) -> Result<(), ConfigError> {
    config.ssl_sni = match value.text {
        "" | "1" => true,
        "0" => false,
        _ => return Err(value.invalid("it must be `0` or `1`")),
    };
    Ok(())
}

/// A minimum below TLS 1.2 is always met.
fn ssl_min_protocol_version(config: &mut Config, value: &Value<'_>) -> Result<(), ConfigError> {
    config.ssl_min_protocol_version = match value.text.to_ascii_lowercase().as_str() {
        "" | "tlsv1" | "tlsv1.1" | "tlsv1.2" => TlsVersion::V1_2,
        "tlsv1.3" => TlsVersion::V1_3,
        _ => return Err(value.invalid("it must be `TLSv1.2` or `TLSv1.3`")),
    };
    Ok(())
}

fn ssl_max_protocol_version(config: &mut Config, value: &Value<'_>) -> Result<(), ConfigError> {
    config.ssl_max_protocol_version = match value.text.to_ascii_lowercase().as_str() {
        "" | "tlsv1.3" => TlsVersion::V1_3,
        "tlsv1.2" => TlsVersion::V1_2,
        _ => {
            return Err(value.invalid("it must be `TLSv1.2` or `TLSv1.3`, which are what there is"));
        }
    };
    Ok(())
}

/// Who wants more than the first version gets the latest.
fn min_protocol_version(config: &mut Config, value: &Value<'_>) -> Result<(), ConfigError> {
    let min = protocol_version(value)?;
    let max = if min > ProtocolVersion::V3_0 { ProtocolVersion::LATEST } else { min };
    config.protocols = ProtocolRange { min, max };
    Ok(())
}

fn max_protocol_version(config: &mut Config, value: &Value<'_>) -> Result<(), ConfigError> {
    config.protocols.max = protocol_version(value)?;
    Ok(())
}

fn protocol_version(value: &Value<'_>) -> Result<ProtocolVersion, ConfigError> {
    match value.text {
        "3.0" => Ok(ProtocolVersion::V3_0),
        "3.2" => Ok(ProtocolVersion::V3_2),
        "latest" => Ok(ProtocolVersion::LATEST),
        _ => Err(value.invalid("it must be `3.0`, `3.2` or `latest`")),
    }
}

fn load_balance_hosts(config: &mut Config, value: &Value<'_>) -> Result<(), ConfigError> {
    config.load_balance_hosts = value.one_of(&LoadBalanceHosts::ALL, LoadBalanceHosts::as_str)?;
    Ok(())
}

fn target_session_attrs(config: &mut Config, value: &Value<'_>) -> Result<(), ConfigError> {
    config.target_session_attrs =
        value.one_of(&TargetSessionAttrs::ALL, TargetSessionAttrs::as_str)?;
    Ok(())
}

/// The option of this name.
pub(super) fn find(name: &str) -> Option<&'static Keyword> {
    KEYWORDS.iter().find(|keyword| keyword.name == name)
}

/// The error for a name that no option has.
pub(super) fn unknown(name: &str) -> ConfigError {
    // Anything else may be a piece of a password, or of a URI with one.
    let quotable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ' ');
    if !name.chars().all(quotable) {
        return ConfigError::Syntax {
            problem: "what precedes a `=` cannot be the name of a connection option; \
                      a URI begins with `postgresql://`"
                .to_owned(),
        };
    }
    ConfigError::UnknownKey { key: name.to_owned(), suggestion: suggestion(name) }
}

/// What people call options that have other names here.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("database", "dbname"),
    ("db", "dbname"),
    ("hostname", "host"),
    ("server", "host"),
    ("ssl", "sslmode"),
    ("timeout", "connect_timeout"),
    ("username", "user"),
];

/// The option that was probably meant by an unknown name.
fn suggestion(name: &str) -> Option<&'static str> {
    /// Longer than any option's name by enough that none can be meant.
    const LONGEST: usize = 40;
    if name.len() > LONGEST {
        return None;
    }
    let name = name.to_ascii_lowercase().replace('-', "_");
    if let Some((_, known)) = OTHER_NAMES.iter().find(|(other, _)| *other == name) {
        return Some(known);
    }
    KEYWORDS
        .iter()
        .map(|keyword| (distance(&name, keyword.name), keyword.name))
        .filter(|(distance, known)| *distance <= known.len() / 3)
        .min()
        .map(|(_, known)| known)
}

/// How many characters must be inserted, removed or replaced to make `a` of `b`.
fn distance(a: &str, b: &str) -> usize {
    // The distances of the prefixes of `a` so far to every prefix of `b`.
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (index, from) in a.chars().enumerate() {
        let mut left = index + 1;
        let mut diagonal = index;
        for (to, cell) in b.chars().zip(row.iter_mut().skip(1)) {
            let replaced = diagonal + usize::from(from != to);
            diagonal = *cell;
            left = replaced.min(left + 1).min(diagonal + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = index + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_and_variables_are_unique() {
        let names: BTreeSet<_> = KEYWORDS.iter().map(|keyword| keyword.name).collect();
        assert_eq!(names.len(), KEYWORDS.len());
        let variables: Vec<_> = KEYWORDS.iter().filter_map(|keyword| keyword.variable).collect();
        assert_eq!(variables.iter().collect::<BTreeSet<_>>().len(), variables.len());
    }

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "ab", 2),
            ("ab", "", 2),
            ("user", "user", 0),
            ("usr", "user", 1),
            ("usre", "user", 2),
            ("kitten", "sitting", 3),
            ("sunday", "saturday", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn suggests_what_was_probably_meant() {
        for (typed, meant) in [
            ("hots", None),
            ("hosts", Some("host")),
            ("ssl_mode", Some("sslmode")),
            ("SSLMODE", Some("sslmode")),
            ("sslrootcrt", Some("sslrootcert")),
            ("application-name", Some("application_name")),
            ("pasword", Some("password")),
            ("username", Some("user")),
            ("database", Some("dbname")),
            ("frobnicate", None),
        ] {
            assert_eq!(suggestion(typed), meant, "{typed}");
        }
        assert_eq!(suggestion(&"x".repeat(1 << 20)), None);
    }
}
