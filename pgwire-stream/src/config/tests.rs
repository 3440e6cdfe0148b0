//! Connection strings from text to [`Config`].

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use proptest::prelude::*;

use crate::proto::ProtocolVersion;

use super::environment::Environment;
use super::*;

fn config(text: &str) -> Config {
    text.parse().unwrap()
}

fn refusal(text: &str) -> ConfigError {
    text.parse::<Config>().unwrap_err()
}

/// Loads with these variables and this home directory, as the user `operator`.
fn load(text: &str, variables: &[(&str, &str)], home: &Path) -> Result<Config, ConfigError> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    let environment = Environment {
        variable: &|name| variables.get(name).map(OsString::from),
        user_name: &|| Some("operator".to_owned()),
        home: Some(home.to_owned()),
        socket_directories: vec!["/tmp".into()],
    };
    Config::load_in(text, &environment)
}

fn nowhere() -> &'static Path {
    Path::new("/nonexistent")
}

fn write_private(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn an_empty_string_has_libpqs_defaults() {
    let config = config("");
    assert_eq!(config.hosts.len(), 1);
    assert_eq!(config.hosts[0].to_string(), "/var/run/postgresql/.s.PGSQL.5432");
    assert_eq!(config.user, None);
    assert_eq!(config.ssl_mode, SslMode::Prefer);
    assert_eq!(config.channel_binding, ChannelBinding::Prefer);
    assert_eq!(config.target_session_attrs, TargetSessionAttrs::Any);
    assert_eq!(config.keepalive, TcpKeepalive::default());
    assert_eq!(config.connect_timeout, None);
    assert_eq!(config.application_name(), None);
}

#[test]
fn every_supported_option_arrives() {
    let config = config(
        "host=db1,db2 hostaddr=10.0.0.1,10.0.0.2 port=1,2 dbname=d user=u password='p w' \
         passfile=/pass channel_binding=require connect_timeout=7 options='-c a=b' \
         application_name=app fallback_application_name=other keepalives=0 keepalives_idle=1 \
         keepalives_interval=2 keepalives_count=3 tcp_user_timeout=4 sslmode=verify-ca \
         sslcert=/cert sslkey=/key sslrootcert=/root target_session_attrs=standby \
         sslnegotiation=direct sslcertmode=require sslpassword=k sslcrl=/crl sslcrldir=/crls \
         sslsni=0 sslkeylogfile=/log ssl_min_protocol_version=TLSv1.3 \
         ssl_max_protocol_version=tlsv1.3 requirepeer=postgres require_auth=scram-sha-256,none \
         load_balance_hosts=random min_protocol_version=3.0 max_protocol_version=3.2",
    );
    assert_eq!(config.hosts.iter().map(Host::to_string).collect::<Vec<_>>(), ["db1:1", "db2:2"]);
    assert_eq!(config.dbname.as_deref(), Some("d"));
    assert_eq!(config.user.as_deref(), Some("u"));
    assert_eq!(config.password, Some(Password::new("p w")));
    assert_eq!(config.passfile, Some("/pass".into()));
    assert_eq!(config.channel_binding, ChannelBinding::Require);
    assert_eq!(config.connect_timeout, Some(Duration::from_secs(7)));
    assert_eq!(config.options.as_deref(), Some("-c a=b"));
    assert_eq!(config.application_name(), Some("app"));
    assert_eq!(
        config.keepalive,
        TcpKeepalive {
            enabled: false,
            idle: Some(Duration::from_secs(1)),
            interval: Some(Duration::from_secs(2)),
            count: Some(3),
            user_timeout: Some(Duration::from_millis(4)),
        }
    );
    assert_eq!(config.ssl_mode, SslMode::VerifyCa);
    assert_eq!(config.ssl_cert, Some("/cert".into()));
    assert_eq!(config.ssl_key, Some("/key".into()));
    assert_eq!(config.ssl_root_cert, Some(RootCert::File("/root".into())));
    assert_eq!(config.target_session_attrs, TargetSessionAttrs::Standby);
    assert_eq!(config.ssl_negotiation, SslNegotiation::Direct);
    assert_eq!(config.ssl_cert_mode, SslCertMode::Require);
    assert_eq!(config.ssl_password, Some(Password::new("k")));
    assert_eq!(config.ssl_crl, Some("/crl".into()));
    assert_eq!(config.ssl_crl_dir, Some("/crls".into()));
    assert!(!config.ssl_sni);
    assert_eq!(config.ssl_key_log_file, Some("/log".into()));
    assert_eq!(config.ssl_min_protocol_version, TlsVersion::V1_3);
    assert_eq!(config.ssl_max_protocol_version, TlsVersion::V1_3);
    assert_eq!(config.require_peer.as_deref(), Some("postgres"));
    let required = vec![AuthMethod::ScramSha256, AuthMethod::None];
    assert_eq!(config.require_auth, RequireAuth::OneOf(required));
    assert_eq!(config.load_balance_hosts, LoadBalanceHosts::Random);
    assert_eq!(config.protocols, protocols(ProtocolVersion::V3_0, ProtocolVersion::V3_2));
}

#[test]
fn a_uri_and_a_string_mean_the_same() {
    assert_eq!(
        config("postgresql://u:p%20w@db1:1,[::1]:2/d?sslmode=require&target_session_attrs=primary"),
        config(
            "host=db1,::1 port=1,2 user=u password='p w' dbname=d sslmode=require \
             target_session_attrs=primary"
        ),
    );
}

#[test]
fn the_last_of_two_settings_counts() {
    assert_eq!(config("user=a user=b").user.as_deref(), Some("b"));
    assert_eq!(config("sslmode=disable requiressl=1").ssl_mode, SslMode::Require);
    assert_eq!(config("requiressl=1 sslmode=disable").ssl_mode, SslMode::Disable);
}

#[test]
fn every_spelling_of_the_choices_is_understood() {
    for mode in SslMode::ALL {
        assert_eq!(config(&format!("sslmode={}", mode.as_str())).ssl_mode, mode);
    }
    for binding in ChannelBinding::ALL {
        let text = format!("channel_binding={}", binding.as_str());
        assert_eq!(config(&text).channel_binding, binding);
    }
    for target in TargetSessionAttrs::ALL {
        let text = format!("target_session_attrs={}", target.as_str());
        assert_eq!(config(&text).target_session_attrs, target);
    }
}

#[test]
fn numbers_are_read_as_libpq_reads_them() {
    for (text, expected) in [("0", None), ("-1", None), ("' 5 '", Some(5)), ("+5", Some(5))] {
        let expected = expected.map(Duration::from_secs);
        assert_eq!(config(&format!("connect_timeout={text}")).connect_timeout, expected, "{text}");
    }
    assert!(config("keepalives=1").keepalive.enabled);
    assert_eq!(config("keepalives_count=0").keepalive.count, None);
}

#[test]
fn impossible_values_are_refused_and_not_quoted() {
    for (text, key) in [
        ("sslmode=hunter2", "sslmode"),
        ("sslmode=", "sslmode"),
        ("channel_binding=hunter2", "channel_binding"),
        ("target_session_attrs=hunter2", "target_session_attrs"),
        ("connect_timeout=hunter2", "connect_timeout"),
        ("connect_timeout=5s", "connect_timeout"),
        ("connect_timeout=99999999999", "connect_timeout"),
        ("keepalives=", "keepalives"),
        ("port=hunter2", "port"),
        ("hostaddr=hunter2", "hostaddr"),
        ("replication=hunter2", "replication"),
        ("replication=Database", "replication"),
        ("sslcertmode=hunter2", "sslcertmode"),
        ("sslnegotiation=hunter2", "sslnegotiation"),
        ("sslsni=hunter2", "sslsni"),
        ("min_protocol_version=3.1", "min_protocol_version"),
        ("max_protocol_version=", "max_protocol_version"),
        ("ssl_min_protocol_version=hunter2", "ssl_min_protocol_version"),
        ("ssl_max_protocol_version=TLSv1.1", "ssl_max_protocol_version"),
        ("load_balance_hosts=hunter2", "load_balance_hosts"),
        ("service=hunter2", "service"),
    ] {
        match refusal(text) {
            ConfigError::InvalidValue { key: named, problem } => {
                assert_eq!(named, key, "{text}");
                assert!(!problem.contains("hunter2"), "{problem}");
            }
            other => panic!("{text}: {other}"),
        }
    }
}

#[test]
fn unknown_options_are_refused_with_a_suggestion() {
    assert_eq!(refusal("frobnicate=db").to_string(), "`frobnicate` is not a connection option");
    assert_eq!(
        refusal("sslmod=require").to_string(),
        "`sslmod` is not a connection option; did you mean `sslmode`?"
    );
    assert_eq!(
        refusal("postgresql://h?ssl=yes").to_string(),
        "`ssl` is not a connection option; did you mean `sslmode`?"
    );
}

#[test]
fn pieces_of_a_password_are_not_quoted() {
    for text in ["password=a hunter2", "password=a hunter2=b", "password=a hunter2 host=b"] {
        let error = refusal(text);
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    // What is a URI for people only.
    for text in [
        " postgresql://u:hunter2@h/d?sslmode=require",
        "postgresqls://u:hunter2@h/d?sslmode=require",
        "POSTGRES://u:hunter2@h/d?sslmode=require",
        "host=a //u:hunter2@h/d?sslmode=require",
    ] {
        let error = Config::from_str(text).unwrap_err();
        assert!(error.to_string().contains("begins with `postgresql://`"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    assert!(!format!("{:?}", config("password=hunter2")).contains("hunter2"));
}

#[test]
fn unsupported_options_are_refused_unless_they_ask_for_nothing() {
    for text in [
        "gssencmode=prefer",
        "gssencmode=disable",
        "sslcompression=0",
        "krbsrvname=postgres",
        "service=",
        "client_encoding=LATIN1",
    ] {
        assert_eq!(config(text), config(""), "{text}");
    }
    for (text, key) in [
        ("gssencmode=require", "gssencmode"),
        ("sslcompression=1", "sslcompression"),
        ("gssdelegation=1", "gssdelegation"),
        ("scram_client_key=x", "scram_client_key"),
        ("oauth_issuer=x", "oauth_issuer"),
    ] {
        match refusal(text) {
            ConfigError::UnsupportedKey { key: named, .. } => assert_eq!(named, key, "{text}"),
            other => panic!("{text}: {other}"),
        }
    }
    assert_eq!(
        refusal("gssencmode=require").to_string(),
        "the connection option `gssencmode` is not supported, other than with `disable` or `prefer`"
    );
}

#[test]
fn replication_is_left_to_the_client() {
    for value in ["true", "on", "1", "y", "F", "off", "database"] {
        assert_eq!(config(&format!("replication={value}")), config(""), "{value}");
    }
}

#[test]
fn the_systems_roots_need_a_look_at_the_name() {
    let strengthened = config("sslrootcert=system");
    assert_eq!(strengthened.ssl_mode, SslMode::VerifyFull);
    assert_eq!(strengthened.ssl_root_cert, Some(RootCert::System));
    assert_eq!(config("sslrootcert=system sslmode=verify-full"), strengthened);
    for mode in ["disable", "prefer", "require", "verify-ca"] {
        let error = refusal(&format!("sslrootcert=system sslmode={mode}"));
        assert!(matches!(error, ConfigError::Conflict(_)), "{mode}");
    }
}

fn protocols(min: ProtocolVersion, max: ProtocolVersion) -> ProtocolRange {
    ProtocolRange { min, max }
}

#[test]
fn a_minimum_of_the_protocol_raises_the_maximum() {
    use ProtocolVersion as V;
    for (text, min, max) in [
        ("", V::V3_0, V::V3_0),
        ("min_protocol_version=3.0", V::V3_0, V::V3_0),
        ("min_protocol_version=3.2", V::V3_2, V::LATEST),
        ("max_protocol_version=3.2 min_protocol_version=3.2", V::V3_2, V::V3_2),
        ("max_protocol_version=latest", V::V3_0, V::LATEST),
    ] {
        assert_eq!(config(text).protocols, protocols(min, max), "{text}");
    }
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    for text in [
        "sslnegotiation=direct",
        "sslnegotiation=direct sslmode=prefer",
        "ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2",
        "min_protocol_version=3.2 max_protocol_version=3.0",
    ] {
        assert!(matches!(refusal(text), ConfigError::Conflict(_)), "{text}");
    }
}

#[test]
fn a_configuration_without_text_is_that_of_the_text() {
    assert_eq!(Config::default(), config(""));
    assert_eq!(Config::new("db", 6543, "u"), config("host=db port=6543 user=u"));
    assert_eq!(Config::new("/tmp", 5432, "u"), config("host=/tmp user=u"));
}

#[test]
fn strangers_can_set_what_they_may_and_nothing_else() {
    let allowed = ["host", "user", "dbname", "sslmode"];
    for text in ["host=h user=u dbname=d", "postgresql://u@h/d?ssl=true", "requiressl=1"] {
        assert_eq!(Config::from_untrusted(text, &allowed), text.parse(), "{text}");
    }
    for (text, named) in [
        ("host=h passfile=/etc/shadow", "passfile"),
        ("postgresql://u:p@h", "password"),
        ("postgresql://h:5432", "port"),
        ("postgresql://h?sslk%65y=/key", "sslkey"),
        ("service=prod", "service"),
    ] {
        let refused = Config::from_untrusted(text, &allowed);
        assert_eq!(refused, Err(ConfigError::ForbiddenKey { key: named }), "{text}");
    }
}

#[test]
fn no_client_certificate_where_it_is_forbidden() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join(".postgresql")).unwrap();
    fs::write(home.path().join(".postgresql/postgresql.crt"), "").unwrap();
    let config = load("sslcertmode=disable", &[], home.path()).unwrap();
    assert_eq!((config.ssl_cert, config.ssl_key), (None, None));
}

#[test]
fn nul_characters_are_refused() {
    assert!(matches!(refusal("user=a\0b"), ConfigError::Syntax { .. }));
    assert!(matches!(refusal("postgresql://a%00@h"), ConfigError::Syntax { .. }));
}

#[test]
fn the_environment_fills_in_what_the_string_leaves_open() {
    let variables = [
        ("PGHOST", "env-host"),
        ("PGPORT", "6543"),
        ("PGUSER", "env-user"),
        ("PGDATABASE", "env-db"),
        ("PGPASSWORD", "env-password"),
        ("PGAPPNAME", "env-app"),
        ("PGOPTIONS", "-c x=y"),
        ("PGSSLMODE", "require"),
        ("PGCHANNELBINDING", "disable"),
        ("PGCONNECT_TIMEOUT", "9"),
        ("PGTARGETSESSIONATTRS", "read-write"),
        ("PGGSSENCMODE", "disable"),
    ];
    let filled = load("", &variables, nowhere()).unwrap();
    assert_eq!(
        filled,
        load(
            "host=env-host port=6543 user=env-user dbname=env-db password=env-password \
             application_name=env-app options='-c x=y' sslmode=require channel_binding=disable \
             connect_timeout=9 target_session_attrs=read-write",
            &[],
            nowhere(),
        )
        .unwrap()
    );
    let given = load("postgresql://u@h/d", &variables, nowhere()).unwrap();
    assert_eq!(given.hosts[0].to_string(), "h:6543");
    assert_eq!(given.user.as_deref(), Some("u"));
    assert_eq!(given.dbname.as_deref(), Some("d"));
    assert_eq!(given.password, Some(Password::new("env-password")));
}

#[test]
fn a_mistake_in_the_environment_names_the_variable() {
    for (name, value) in [("PGSSLMODE", "always"), ("PGPORT", "x"), ("PGREQUIREAUTH", "md6")] {
        let message = load("", &[(name, value)], nowhere()).unwrap_err().to_string();
        assert!(message.contains(name), "{message}");
    }
    let message = load("host=a,b", &[("PGPORT", "1,2,3")], nowhere()).unwrap_err().to_string();
    assert!(message.contains("PGPORT"), "{message}");
}

#[test]
fn requiressl_in_the_environment_yields_to_sslmode() {
    let mode = |variables| load("", variables, nowhere()).unwrap().ssl_mode;
    assert_eq!(mode(&[("PGREQUIRESSL", "1")]), SslMode::Require);
    assert_eq!(mode(&[("PGREQUIRESSL", "0")]), SslMode::Prefer);
    assert_eq!(mode(&[("PGREQUIRESSL", "1"), ("PGSSLMODE", "disable")]), SslMode::Disable);
}

#[test]
fn the_user_is_the_operating_systems_by_default() {
    assert_eq!(load("", &[], nowhere()).unwrap().user.as_deref(), Some("operator"));
    // Set to nothing, it is as in libpq not looked for in the environment either.
    let config = load("user=''", &[("PGUSER", "env")], nowhere()).unwrap();
    assert_eq!(config.user.as_deref(), Some("operator"));
}

#[test]
fn a_user_that_nobody_knows_is_an_error() {
    let environment = Environment {
        variable: &|_| None,
        user_name: &|| None,
        home: None,
        socket_directories: Vec::new(),
    };
    assert!(matches!(
        Config::load_in("host=h", &environment),
        Err(ConfigError::InvalidValue { key: "user", .. })
    ));
    assert!(Config::load_in("host=h user=u", &environment).is_ok());
}

#[test]
fn default_certificates_are_used_where_they_exist() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join(".postgresql");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("root.crt"), "").unwrap();
    fs::write(directory.join("postgresql.key"), "").unwrap();
    let config = load("", &[], home.path()).unwrap();
    assert_eq!(config.ssl_root_cert, Some(RootCert::File(directory.join("root.crt"))));
    assert_eq!(config.ssl_cert, None);
    assert_eq!(config.ssl_key, Some(directory.join("postgresql.key")));
    assert_eq!(config.ssl_crl, None);
    let crl = directory.join("root.crl");
    fs::write(&crl, "").unwrap();
    for (text, used) in [
        ("", Some(crl)),
        ("sslcrl=/crl", Some("/crl".into())),
        ("sslcrldir=/crls", None),
        ("sslrootcert=system", None),
    ] {
        assert_eq!(load(text, &[], home.path()).unwrap().ssl_crl, used, "{text}");
    }
    let config = load("sslrootcert=/other sslkey=/key", &[], home.path()).unwrap();
    assert_eq!(config.ssl_root_cert, Some(RootCert::File("/other".into())));
    assert_eq!(config.ssl_key, Some("/key".into()));
}

#[test]
fn every_host_gets_its_password_from_the_file() {
    let home = tempfile::tempdir().unwrap();
    write_private(
        &home.path().join(".pgpass"),
        "db1:5432:*:operator:one\ndb2:5432:replication:operator:two\ndb3:5432:app:operator:three\n",
    );
    let config = load("host=db1,db2,db3,db4 dbname=app", &[], home.path()).unwrap();
    let passwords: Vec<_> =
        config.hosts.iter().map(|host| config.password_for(host).cloned()).collect();
    let expected = [Some("one"), Some("two"), Some("three"), None];
    assert_eq!(passwords, expected.map(|password| password.map(Password::new)));
}

#[test]
fn a_given_password_makes_the_file_irrelevant() {
    let home = tempfile::tempdir().unwrap();
    // Readable by others, but nobody looks.
    fs::write(home.path().join(".pgpass"), "*:*:*:*:file").unwrap();
    let config = load("host=db password=given", &[], home.path()).unwrap();
    assert_eq!(config.password_for(&config.hosts[0]), Some(&Password::new("given")));
}

#[test]
fn a_named_password_file_must_exist_and_a_default_one_need_not() {
    let home = tempfile::tempdir().unwrap();
    assert!(load("host=db", &[], home.path()).is_ok());
    let path = home.path().join("none");
    let text = path.to_str().unwrap();
    for result in [
        load(&format!("host=db passfile='{text}'"), &[], home.path()),
        load("host=db", &[("PGPASSFILE", text)], home.path()),
    ] {
        match result {
            Err(ConfigError::File { path: named, .. }) => assert_eq!(named, path),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_hosts_own_password_comes_first() {
    let mut config = config("host=a,b password=all");
    config.hosts[0].password = Some(Password::new("own"));
    assert_eq!(config.password_for(&config.hosts[0]), Some(&Password::new("own")));
    assert_eq!(config.password_for(&config.hosts[1]), Some(&Password::new("all")));
}

#[test]
fn the_application_name_falls_back_unless_it_is_empty() {
    let name = |text| config(text).application_name().map(str::to_owned);
    assert_eq!(name("fallback_application_name=f").as_deref(), Some("f"));
    assert_eq!(name("fallback_application_name=f application_name=a").as_deref(), Some("a"));
    assert_eq!(name("fallback_application_name=f application_name=''"), None);
}

proptest! {
    #[test]
    fn parsing_never_panics(text in any::<String>()) {
        let _ = text.parse::<Config>();
    }

    #[test]
    fn parsing_what_is_almost_right_never_panics(
        text in r"(postgresql://)?((host|port|hostaddr|user|ssl|sslmode|=|,|:|/|@|\?|&|'|\\| |%2F|[a-z0-9]{1,3})){0,12}"
    ) {
        if let Ok(config) = text.parse::<Config>() {
            prop_assert!(!config.hosts.is_empty());
        }
    }
}
