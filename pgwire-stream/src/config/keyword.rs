//! The table of connection options: every keyword of libpq 18, and what becomes of it here.

use super::value::Value;
use super::{ChannelBinding, Config, ConfigError, RootCert, SslMode, TargetSessionAttrs};

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

/// Every option, in the order of libpq's documentation.
pub(super) static KEYWORDS: &[Keyword] = &[
    keyword("host", Some("PGHOST"), Together),
    keyword("hostaddr", Some("PGHOSTADDR"), Together),
    keyword("port", Some("PGPORT"), Together),
    keyword("dbname", Some("PGDATABASE"), Apply(|c, v| v.text_to(&mut c.dbname))),
    keyword("user", Some("PGUSER"), Apply(|c, v| v.text_to(&mut c.user))),
    keyword("password", Some("PGPASSWORD"), Apply(|c, v| v.password_to(&mut c.password))),
    keyword("passfile", Some("PGPASSFILE"), Apply(|c, v| v.path_to(&mut c.passfile))),
    keyword("require_auth", Some("PGREQUIREAUTH"), Unsupported(&[])),
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
    keyword("sslnegotiation", Some("PGSSLNEGOTIATION"), Unsupported(&["postgres"])),
    keyword("sslcompression", Some("PGSSLCOMPRESSION"), Unsupported(&["0"])),
    keyword("sslcert", Some("PGSSLCERT"), Apply(|c, v| v.path_to(&mut c.ssl_cert))),
    keyword("sslkey", Some("PGSSLKEY"), Apply(|c, v| v.path_to(&mut c.ssl_key))),
    keyword("sslkeylogfile", None, Unsupported(&[])),
    keyword("sslpassword", None, Unsupported(&[])),
    keyword("sslcertmode", Some("PGSSLCERTMODE"), Together),
    keyword("sslrootcert", Some("PGSSLROOTCERT"), Apply(ssl_root_cert)),
    keyword("sslcrl", Some("PGSSLCRL"), Unsupported(&[])),
    keyword("sslcrldir", Some("PGSSLCRLDIR"), Unsupported(&[])),
    keyword("sslsni", Some("PGSSLSNI"), Unsupported(&["1"])),
    keyword("requirepeer", Some("PGREQUIREPEER"), Unsupported(&[])),
    // TLS 1.2 and 1.3 are what there is.
    keyword(
        "ssl_min_protocol_version",
        Some("PGSSLMINPROTOCOLVERSION"),
        Unsupported(&["TLSv1.2", "TLSv1.1", "TLSv1"]),
    ),
    keyword("ssl_max_protocol_version", Some("PGSSLMAXPROTOCOLVERSION"), Unsupported(&["TLSv1.3"])),
    keyword("min_protocol_version", Some("PGMINPROTOCOLVERSION"), Unsupported(&["3.0"])),
    // A maximum is kept by staying below it.
    keyword(
        "max_protocol_version",
        Some("PGMAXPROTOCOLVERSION"),
        Unsupported(&["3.0", "3.2", "latest"]),
    ),
    keyword("krbsrvname", Some("PGKRBSRVNAME"), Unsupported(&["postgres"])),
    keyword("gsslib", Some("PGGSSLIB"), Unsupported(&["gssapi"])),
    keyword("gssdelegation", Some("PGGSSDELEGATION"), Unsupported(&["0"])),
    keyword("scram_client_key", None, Unsupported(&[])),
    keyword("scram_server_key", None, Unsupported(&[])),
    keyword("service", Some("PGSERVICE"), Unsupported(&[])),
    keyword("target_session_attrs", Some("PGTARGETSESSIONATTRS"), Apply(target_session_attrs)),
    keyword("load_balance_hosts", Some("PGLOADBALANCEHOSTS"), Unsupported(&["disable"])),
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

fn target_session_attrs(config: &mut Config, value: &Value<'_>) -> Result<(), ConfigError> {
    config.target_session_attrs =
        value.one_of(&TargetSessionAttrs::ALL, TargetSessionAttrs::as_str)?;
    Ok(())
}

/// The option of this name.
pub(super) fn find(name: &str) -> Option<&'static Keyword> {
    KEYWORDS.iter().find(|keyword| keyword.name == name)
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
pub(super) fn suggestion(name: &str) -> Option<&'static str> {
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
