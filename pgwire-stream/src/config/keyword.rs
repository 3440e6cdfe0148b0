//! The table of connection options: every keyword of libpq 18, and what becomes of it here.

use super::settings::Value;
use super::{ChannelBinding, Config, ConfigError, Password, RootCert, SslMode, TargetSessionAttrs};

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
    keyword(
        "dbname",
        Some("PGDATABASE"),
        Apply(|config, value| {
            config.dbname = value.unless_empty();
            Ok(())
        }),
    ),
    keyword(
        "user",
        Some("PGUSER"),
        Apply(|config, value| {
            config.user = value.unless_empty();
            Ok(())
        }),
    ),
    keyword(
        "password",
        Some("PGPASSWORD"),
        Apply(|config, value| {
            config.password = (!value.text.is_empty()).then(|| Password::new(value.text));
            Ok(())
        }),
    ),
    keyword(
        "passfile",
        Some("PGPASSFILE"),
        Apply(|config, value| {
            config.passfile = value.path();
            Ok(())
        }),
    ),
    keyword("require_auth", Some("PGREQUIREAUTH"), Unsupported(&[])),
    keyword(
        "channel_binding",
        Some("PGCHANNELBINDING"),
        Apply(|config, value| {
            config.channel_binding = value.one_of(&ChannelBinding::ALL, ChannelBinding::as_str)?;
            Ok(())
        }),
    ),
    keyword(
        "connect_timeout",
        Some("PGCONNECT_TIMEOUT"),
        Apply(|config, value| {
            config.connect_timeout = value.seconds()?;
            Ok(())
        }),
    ),
    // Text is exchanged in UTF-8 and handed out as Rust strings, whatever the locale.
    keyword("client_encoding", Some("PGCLIENTENCODING"), Meaningless),
    keyword(
        "options",
        Some("PGOPTIONS"),
        Apply(|config, value| {
            config.options = value.unless_empty();
            Ok(())
        }),
    ),
    // An empty name is kept: it hides the fallback.
    keyword(
        "application_name",
        Some("PGAPPNAME"),
        Apply(|config, value| {
            config.application_name = Some(value.text.to_owned());
            Ok(())
        }),
    ),
    keyword(
        "fallback_application_name",
        None,
        Apply(|config, value| {
            config.fallback_application_name = value.unless_empty();
            Ok(())
        }),
    ),
    keyword(
        "keepalives",
        None,
        Apply(|config, value| {
            config.keepalive.enabled = value.integer()? != 0;
            Ok(())
        }),
    ),
    keyword(
        "keepalives_idle",
        None,
        Apply(|config, value| {
            config.keepalive.idle = value.seconds()?;
            Ok(())
        }),
    ),
    keyword(
        "keepalives_interval",
        None,
        Apply(|config, value| {
            config.keepalive.interval = value.seconds()?;
            Ok(())
        }),
    ),
    keyword(
        "keepalives_count",
        None,
        Apply(|config, value| {
            config.keepalive.count = value.positive()?;
            Ok(())
        }),
    ),
    keyword(
        "tcp_user_timeout",
        None,
        Apply(|config, value| {
            config.keepalive.user_timeout = value.milliseconds()?;
            Ok(())
        }),
    ),
    // The client asks for a replication connection itself; which kind depends on the call.
    keyword("replication", None, Apply(|_, value| value.check_replication())),
    keyword("gssencmode", Some("PGGSSENCMODE"), Unsupported(&["disable", "prefer"])),
    keyword(
        "sslmode",
        Some("PGSSLMODE"),
        Apply(|config, value| {
            config.ssl_mode = value.one_of(&SslMode::ALL, SslMode::as_str)?;
            Ok(())
        }),
    ),
    keyword("sslnegotiation", Some("PGSSLNEGOTIATION"), Unsupported(&["postgres"])),
    keyword("sslcompression", Some("PGSSLCOMPRESSION"), Unsupported(&["0"])),
    keyword(
        "sslcert",
        Some("PGSSLCERT"),
        Apply(|config, value| {
            config.ssl_cert = value.path();
            Ok(())
        }),
    ),
    keyword(
        "sslkey",
        Some("PGSSLKEY"),
        Apply(|config, value| {
            config.ssl_key = value.path();
            Ok(())
        }),
    ),
    keyword("sslkeylogfile", None, Unsupported(&[])),
    keyword("sslpassword", None, Unsupported(&[])),
    keyword("sslcertmode", Some("PGSSLCERTMODE"), Together),
    keyword(
        "sslrootcert",
        Some("PGSSLROOTCERT"),
        Apply(|config, value| {
            config.ssl_root_cert = match value.text {
                "system" => Some(RootCert::System),
                _ => value.path().map(RootCert::File),
            };
            Ok(())
        }),
    ),
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
    keyword("max_protocol_version", Some("PGMAXPROTOCOLVERSION"), Unsupported(&["3.0"])),
    keyword("krbsrvname", Some("PGKRBSRVNAME"), Unsupported(&["postgres"])),
    keyword("gsslib", Some("PGGSSLIB"), Unsupported(&["gssapi"])),
    keyword("gssdelegation", Some("PGGSSDELEGATION"), Unsupported(&["0"])),
    keyword("scram_client_key", None, Unsupported(&[])),
    keyword("scram_server_key", None, Unsupported(&[])),
    keyword("service", Some("PGSERVICE"), Unsupported(&[])),
    keyword(
        "target_session_attrs",
        Some("PGTARGETSESSIONATTRS"),
        Apply(|config, value| {
            config.target_session_attrs =
                value.one_of(&TargetSessionAttrs::ALL, TargetSessionAttrs::as_str)?;
            Ok(())
        }),
    ),
    keyword("load_balance_hosts", Some("PGLOADBALANCEHOSTS"), Unsupported(&["disable"])),
    keyword("oauth_issuer", None, Unsupported(&[])),
    keyword("oauth_client_id", None, Unsupported(&[])),
    keyword("oauth_client_secret", None, Unsupported(&[])),
    keyword("oauth_scope", None, Unsupported(&[])),
];

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
