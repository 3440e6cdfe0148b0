use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use pgwire_stream::ManifestChecksums;

use super::*;
use crate::failure::Failure;

/// A configuration in a directory of its own.
struct Written {
    directory: tempfile::TempDir,
}

impl Written {
    fn new(text: &str) -> Self {
        let written = Self { directory: tempfile::tempdir().unwrap() };
        written.add("walrecv-server.toml", text);
        written
    }

    fn add(&self, name: &str, text: &str) {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        // Some of them have passwords.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("walrecv-server.toml")
    }

    fn typed(&self) -> Typed {
        Typed { config: Some(self.path()), ..Typed::default() }
    }

    fn load(&self) -> Result<Settings, SettingsError> {
        Settings::load(&self.typed(), &|_| None)
    }

    /// What is told about the file, without its directory.
    fn complaint(&self) -> String {
        let error = self.load().unwrap_err();
        assert_eq!(error.class().exit_code(), 2);
        let mut text = error.to_string();
        // The general one says nothing about the mistake.
        if let Some(hint) = error.hint().filter(|hint| !hint.contains("config reference")) {
            text.push_str(&format!("\nhint: {hint}"));
        }
        text.replace(&format!("{}/", self.directory.path().display()), "")
    }
}

fn complaint(text: &str) -> String {
    Written::new(text).complaint()
}

fn argument(option: &str, key: &str, value: &str) -> Argument {
    Argument { option: option.into(), key: key.into(), value: value.into() }
}

fn without_file(arguments: Vec<Argument>, servers: &[&str]) -> Typed {
    let servers = servers.iter().map(|name| name.parse().unwrap()).collect();
    // A file that says nothing, so that no test depends on this machine's.
    Typed { config: Some("/dev/null".into()), arguments, servers, scope: Scope::Servers }
}

#[test]
fn a_file_of_barmans_is_told_as_a_whole() {
    assert_eq!(
        complaint("; Barman\n[barman]\nbarman_user = barman\nbarman_home = /var/lib/barman\n"),
        "walrecv-server.toml:2: this is a configuration of Barman, and not TOML\nhint: write it \
         anew, which `walrecv-server init` helps with: [servers.NAME] for [NAME], and quotes around \
         text"
    );
}

#[test]
fn a_full_file_becomes_settings() {
    let settings = Written::new(
        r#"
home = "/srv/backups"
group_access = true
wal_readers = ["postgres", "pg2"]

[defaults]
compression = "lz4"
flush_interval = "250ms"

[servers.main]
description = "orders"
conninfo = "host=db1 user=walrecv password=geheim dbname=postgres"
slot_name = "backup"
create_slot = "manual"
slot_on_all_hosts = true
synchronous = true
compression = "gzip"
compression_level = 9
backup_compression = "none"
backup_compression_workers = 3
manifest_checksums = "sha256"
immediate_checkpoint = true
wal_validation = false
bandwidth_limit = "10MB"

[servers.web]
conninfo = "host=web"
streaming_conninfo = "host=web port=5433"
"#,
    )
    .load()
    .unwrap();
    assert_eq!(settings.home, Path::new("/srv/backups"));
    assert!(settings.group_access);
    assert_eq!(settings.wal_readers, ["postgres", "pg2"]);
    let [main, web] = settings.servers.as_slice() else { panic!("{settings:?}") };
    assert_eq!(main.name.as_str(), "main");
    assert_eq!(main.slot_name.as_str(), "backup");
    assert_eq!(main.create_slot, CreateSlot::Manual);
    assert!(main.slot_on_all_hosts && !web.slot_on_all_hosts);
    assert_eq!(main.synchronous, Synchronous::Always);
    assert_eq!(main.flush_interval, Duration::from_millis(250));
    assert_eq!((main.compression, main.compression_level), (Compression::Gzip, 9));
    assert_eq!(main.backup_compression.codec, Compression::None);
    assert_eq!(main.backup_compression.workers, 3);
    assert_eq!(main.manifest_checksums, ManifestChecksums::Sha256);
    assert!(main.immediate_checkpoint && !main.wal_validation);
    assert!(web.wal_validation);
    assert_eq!(main.bandwidth_limit_kb, Some(10_240));
    assert_eq!(web.compression, Compression::Lz4);
    assert_eq!(web.slot_name.as_str(), "walrecv");
    assert_eq!(web.streaming_conninfo(), "host=web port=5433");
    assert_eq!(web.backup_conninfo(), "host=web port=5433");
    assert!(!format!("{settings:?}").contains("geheim"));
}

#[test]
fn each_mistake_is_told_with_its_line_and_advice() {
    for (text, expected) in [
        (
            "[servers.main]\nconninfo = \"host=db\"\nslotname = \"x\"\n",
            "walrecv-server.toml:3: unknown key `slotname`\nhint: did you mean `slot_name`?",
        ),
        (
            "hoem = \"/srv\"",
            "walrecv-server.toml:1: unknown key `hoem`\nhint: did you mean `home`?",
        ),
        (
            "slot_name = \"x\"",
            "walrecv-server.toml:1: unknown key `slot_name`\n\
             hint: `slot_name` belongs into [defaults] or [servers.NAME]",
        ),
        (
            "[defaults]\nhome = \"/srv\"",
            "walrecv-server.toml:2: unknown key `home`\n\
             hint: `home` belongs to the top of the file, before any [section]",
        ),
        (
            "[sender]\nlisten = \"x\"",
            "walrecv-server.toml:1: `sender` is not supported by this version\n\
             hint: remove it: what it promises would not happen",
        ),
        (
            "[http]\nlisten = \"0.0.0.0:80\"",
            "walrecv-server.toml:2: `listen`: who can reach this address would see everything\n\
             hint: set `tls_cert_file`, `tls_key_file` and `token_file`, too, or listen on \
             127.0.0.1",
        ),
        (
            "[servers.main]\nconninfo = \"host=db\"\nretention_policy = \"REDUNDANCY\"",
            "walrecv-server.toml:3: `retention_policy`: must be \"REDUNDANCY n\", \"RECOVERY WINDOW \
             OF n DAYS|WEEKS|MONTHS\" or \"KEEP n DAILY, n WEEKLY, n MONTHLY, n YEARLY\"",
        ),
        ("home = \"backups\"", "walrecv-server.toml:1: `home`: must be an absolute path"),
        ("home = 5", "walrecv-server.toml:1: `home`: must be text in quotes"),
        ("group_access = 7", "walrecv-server.toml:1: `group_access`: must be true or false"),
        (
            "[servers.main]\nconninfo = \"host=db\"\ncompression = \"zip\"",
            "walrecv-server.toml:3: `compression`: must be one of `zstd`, `lz4`, `gzip`, `none`",
        ),
        (
            "[servers.main]\nconninfo = \"host=db\"\ncompression_level = 99",
            "walrecv-server.toml:3: `compression_level`: must be a number from 1 to 19",
        ),
        (
            "[servers.main]\nslot_name = \"x\"",
            "walrecv-server.toml:1: server `main` has no `conninfo`\n\
             hint: add conninfo = \"host=… user=… dbname=postgres\"",
        ),
        (
            "[servers.all]\nconninfo = \"host=db\"",
            "walrecv-server.toml:1: `all` cannot be a server's name: `all` stands for every \
             configured server",
        ),
        (
            "[defaults]\nconninfo = \"host=db\"",
            "walrecv-server.toml:2: `conninfo` describes one server, not all of them\n\
             hint: move it into [servers.NAME]",
        ),
        (
            "[servers.main]\nconninfo = \"hst=db\"",
            "walrecv-server.toml:2: `conninfo`: `hst` is not a connection option; \
             did you mean `host`?\n\
             hint: write it as \"host=… user=… dbname=postgres\" or \
             \"postgresql://user@host/postgres\"",
        ),
        (
            "servers = 1",
            "walrecv-server.toml:1: `servers` must be a section\nhint: write [servers.NAME]",
        ),
    ] {
        assert_eq!(complaint(text), expected);
    }
    let slot = complaint("[servers.main]\nconninfo = \"host=db\"\nslot_name = \"My-Slot\"");
    assert!(slot.starts_with("walrecv-server.toml:3: `slot_name`: "), "{slot}");
    let syntax = complaint("home = \"/srv\"\n[servers.main\n");
    assert!(syntax.starts_with("walrecv-server.toml:2: "), "{syntax}");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = complaint("hoem = \"/srv\"\n[servers.main]\nconninfo = \"\"\ncompression = 1\n");
    assert_eq!(
        text,
        "the configuration has 3 mistakes\n  \
         walrecv-server.toml:1: unknown key `hoem` (did you mean `home`?)\n  \
         walrecv-server.toml:3: `conninfo`: must not be empty\n  \
         walrecv-server.toml:4: `compression`: must be one of `zstd`, `lz4`, `gzip`, `none`"
    );
}

#[test]
fn a_mistake_among_the_defaults_is_told_once() {
    let text = complaint(
        "[defaults]\nflush_interval = \"soon\"\n[servers.a]\nconninfo = \"host=a\"\n\
         [servers.b]\nconninfo = \"host=b\"\n",
    );
    assert!(text.starts_with("walrecv-server.toml:2: `flush_interval`: must be a duration"));
}

#[test]
fn files_of_servers_d_add_servers_and_nothing_else() {
    let written = Written::new("[servers.main]\nconninfo = \"host=a\"\n");
    written.add("servers.d/web.toml", "[servers.web]\nconninfo = \"host=b\"\n");
    written.add("servers.d/ignored.txt", "nonsense");
    let names: Vec<_> =
        written.load().unwrap().servers.iter().map(|server| server.name.to_string()).collect();
    assert_eq!(names, ["main", "web"]);

    written.add("servers.d/x.toml", "home = \"/\"\n[servers.main]\nconninfo = \"host=c\"\n");
    let text = written.complaint();
    assert!(text.contains("servers.d/x.toml:1: `home` cannot be set here"), "{text}");
    assert!(text.contains("servers.d/x.toml:2: server `main` is configured in another"), "{text}");
}

#[test]
fn arguments_count_before_the_environment_and_that_before_the_file() {
    let written = Written::new(
        "[defaults]\ncompression = \"none\"\n[servers.main]\nconninfo = \"host=a\"\n\
         slot_name = \"from_file\"\n",
    );
    let environment = |name: &str| match name {
        "WALRECV_SLOT_NAME" => Some("from_environment".to_owned()),
        "WALRECV_FLUSH_INTERVAL" => Some("3s".to_owned()),
        _ => None,
    };
    let mut typed = written.typed();
    typed.servers = vec!["main".parse().unwrap()];
    let load = |typed: &Typed| Settings::load(typed, &environment).unwrap().servers.remove(0);
    let server = load(&typed);
    assert_eq!(server.slot_name.as_str(), "from_environment");
    assert_eq!(server.flush_interval, Duration::from_secs(3));
    assert_eq!(server.compression, Compression::None);
    typed.arguments = vec![argument("--slot-name", "slot_name", "from_argument")];
    assert_eq!(load(&typed).slot_name.as_str(), "from_argument");
}

#[test]
fn one_server_needs_no_file() {
    let arguments = vec![
        argument("--home", "home", "/srv/x"),
        argument("--conninfo", "conninfo", "host=db user=walrecv"),
    ];
    let settings = Settings::load(&without_file(arguments.clone(), &["main"]), &|_| None).unwrap();
    assert_eq!(settings.home, Path::new("/srv/x"));
    let main = settings.server(&"main".parse().unwrap()).unwrap();
    assert_eq!(main.streaming_conninfo(), "host=db user=walrecv");
    assert!(settings.server(&"other".parse().unwrap()).is_err());

    for servers in [&["a", "b"][..], &[]] {
        let error =
            Settings::load(&without_file(arguments.clone(), servers), &|_| None).unwrap_err();
        assert_eq!(error.to_string(), "--conninfo: this describes one server");
    }
}

#[test]
fn the_store_alone_needs_no_file_when_its_place_is_given() {
    let typed = Typed {
        arguments: vec![argument("--home", "home", "/srv/x")],
        scope: Scope::Store,
        ..Typed::default()
    };
    let unreadable = |name: &str| (name == "WALRECV_CONFIG").then(|| "/nowhere".to_owned());
    for environment in [&unreadable as Lookup<'_>, &|_| None] {
        let settings = Settings::load(&typed, environment).unwrap();
        assert_eq!((settings.home, settings.file), (PathBuf::from("/srv/x"), None));
    }
}

#[test]
fn a_named_file_must_be_there() {
    let typed = Typed { config: Some("/nowhere/x.toml".into()), ..Typed::default() };
    let error = Settings::load(&typed, &|_| None).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the configuration /nowhere/x.toml");
    assert!(error.hint().unwrap().contains("init"));
}

#[test]
fn a_password_in_an_argument_is_refused_without_repeating_it() {
    let arguments = vec![argument("--conninfo", "conninfo", "host=db password=geheim")];
    let error = Settings::load(&without_file(arguments, &["main"]), &|_| None).unwrap_err();
    assert!(error.to_string().starts_with("--conninfo: `conninfo`: a password in an argument"));
    assert!(!format!("{error:?} {error}").contains("geheim"));
    assert!(error.hint().unwrap().contains("pgpass"));
}

#[test]
fn recipients_are_public_keys_and_a_server_may_do_without() {
    use age::secrecy::ExposeSecret;

    let [a, b] = [(); 2].map(|()| age::x25519::Identity::generate());
    let keys = [&a, &b].map(|key| key.to_public().to_string());
    let text = format!(
        "[defaults]\nencryption_recipients = [\"{}\", \"{}\"]\n\
         encryption_identity = \"/root/key\"\n[servers.a]\nconninfo = \"host=a\"\n\
         [servers.b]\nconninfo = \"host=b\"\nencryption_recipients = []\n\
         [servers.c]\nconninfo = \"host=c\"\nencryption_recipients = \"{}\"\n",
        keys[0], keys[1], keys[1]
    );
    let settings = Written::new(&text).load().unwrap();
    let recipients: Vec<Vec<String>> = settings
        .servers
        .iter()
        .map(|server| server.encryption_recipients.iter().map(ToString::to_string).collect())
        .collect();
    assert_eq!(recipients, [keys.to_vec(), vec![], vec![keys[1].clone()]]);
    assert_eq!(settings.identity_file(&settings.servers[0].name), Some(Path::new("/root/key")));

    let complain = |list: &str| {
        complaint(&format!(
            "[defaults]\nencryption_recipients = {list}\n[servers.a]\nconninfo = \"\""
        ))
    };
    let secret = a.to_string();
    let text = complain(&format!("[\"{}\", \"{}\"]", keys[0], secret.expose_secret()));
    let start = "walrecv-server.toml:2: `encryption_recipients`: entry 2 is a secret key of age";
    assert!(text.contains(start), "{text}");
    assert!(!text.contains(secret.expose_secret()), "{text}");
    assert!(complain("[\"age1nonsense\"]").contains(":2: `encryption_recipients`: this is not a"));
    assert!(complain("1").contains(":2: `encryption_recipients`: must be a list of public keys"));
    let relative = "[servers.a]\nconninfo = \"host=a\"\nencryption_identity = \"key\"";
    assert!(complaint(relative).contains(":3: `encryption_identity`: must be an absolute path"));
}

#[test]
fn an_identity_file_can_be_named_for_servers_that_are_not_configured() {
    let argument = argument("--identity", "encryption_identity", "/mnt/key");
    let main: ServerName = "main".parse().unwrap();
    let typed = Typed {
        arguments: vec![self::argument("--home", "home", "/srv/x"), argument.clone()],
        scope: Scope::Store,
        servers: vec![main.clone()],
        ..Typed::default()
    };
    let settings = Settings::load(&typed, &|_| None).unwrap();
    assert_eq!(settings.identity_file(&main), Some(Path::new("/mnt/key")));
    // And counts before the one that is configured.
    let written =
        Written::new("[servers.main]\nconninfo = \"host=a\"\nencryption_identity = \"/root/key\"");
    let typed = Typed { arguments: vec![argument], servers: vec![main.clone()], ..written.typed() };
    let settings = Settings::load(&typed, &|_| None).unwrap();
    assert_eq!(settings.identity_file(&main), Some(Path::new("/mnt/key")));
}

#[test]
fn mistakes_among_the_defaults_need_no_server() {
    assert_eq!(
        complaint("[defaults]\ncompression = \"zip\"\nflush_interval = \"2h\""),
        "the configuration has 2 mistakes\n  \
         walrecv-server.toml:2: `compression`: must be one of `zstd`, `lz4`, `gzip`, `none`\n  \
         walrecv-server.toml:3: `flush_interval`: must be a duration from 1ms to 1h, as \"2s\""
    );
    // And what is right needs none either.
    assert!(Written::new("[defaults]\ncompression = \"lz4\"").load().unwrap().servers.is_empty());
}

#[test]
fn credentials_of_systemd_are_named_by_their_directory() {
    let written = Written::new(
        "[http]\ntoken_file = \"${CREDENTIALS_DIRECTORY}/token\"\n\
         [servers.main]\nconninfo = \"postgresql://u@db/?passfile=${CREDENTIALS_DIRECTORY}/pgpass\"\n\
         encryption_identity = \"${CREDENTIALS_DIRECTORY}/key\"\n\
         description = \"${CREDENTIALS_DIRECTORY}\"",
    );
    let by_systemd =
        |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| "/run/credentials/x".to_owned());
    let settings = Settings::load(&written.typed(), &by_systemd).unwrap();
    assert_eq!(settings.http.token_file.as_deref(), Some(Path::new("/run/credentials/x/token")));
    let [main] = settings.servers.as_slice() else { panic!() };
    assert_eq!(main.encryption_identity.as_deref(), Some(Path::new("/run/credentials/x/key")));
    assert_eq!(main.conninfo.as_str(), "postgresql://u@db/?passfile=/run/credentials/x/pgpass");
    // It is text elsewhere.
    assert_eq!(main.description.as_deref(), Some("${CREDENTIALS_DIRECTORY}"));
    // A command that systemd did not start looks where the daemon has them.
    let settings = written.load().unwrap();
    let token = settings.http.token_file.unwrap();
    assert_eq!(token, Path::new("/run/credentials/walrecv-server.service/token"));
}

#[test]
fn a_password_that_everybody_can_read_is_refused() {
    let text = "[servers.main]\nconninfo = \"host=db password=geheim\"";
    let written = Written::new(text);
    let mode =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    // Nobody comes so far as to read it.
    mode(written.directory.path(), 0o700);
    mode(&written.path(), 0o644);
    assert!(written.load().is_ok());
    mode(written.directory.path(), 0o755);
    let told = written.complaint();
    assert!(
        told.starts_with(
            "walrecv-server.toml:2: `conninfo`: everybody on this machine can read the password in \
             it (the file's mode is 0644)\nhint: `chmod o= walrecv-server.toml`"
        ),
        "{told}"
    );
    assert!(!told.contains("geheim"));
    mode(&written.path(), 0o640);
    assert!(written.load().is_ok());
    // Without a password it is nobody's secret.
    let written = Written::new("[servers.main]\nconninfo = \"host=db passfile=/x/password\"");
    mode(written.directory.path(), 0o755);
    mode(&written.path(), 0o644);
    assert!(written.load().is_ok());
}

#[test]
fn other_secrets_that_everybody_can_read_are_refused_too() {
    let written = Written::new("");
    let mode =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let token = written.directory.path().join("token");
    fs::write(&token, "geheim").unwrap();
    let text = format!(
        "[http]\ntoken_file = \"{}\"\n[defaults]\n\
         failure_webhook = \"https://hooks.example.com/geheim\"\n\
         [servers.main]\nconninfo = \"host=db\"\n",
        token.display()
    );
    fs::write(written.path(), text).unwrap();
    mode(written.directory.path(), 0o755);
    mode(&token, 0o644);
    mode(&written.path(), 0o644);
    let told = written.complaint();
    assert!(told.contains(":4: `failure_webhook`: everybody on this machine can read"), "{told}");
    assert!(told.contains(":2: `token_file`: everybody on this machine can read it"), "{told}");
    assert!(!told.contains("geheim"));
    mode(&token, 0o600);
    mode(&written.path(), 0o640);
    // What an editor keeps beside it is no configuration.
    let added = written.directory.path().join("servers.d");
    fs::create_dir(&added).unwrap();
    std::os::unix::fs::symlink("me@host.123", added.join(".#db.toml")).unwrap();
    assert!(written.load().is_ok());
}

#[test]
fn what_is_shown_says_where_it_comes_from_and_no_secrets() {
    let written = Written::new(
        "[defaults]\nflush_interval = \"250ms\"\ncompression = \"gzip\"\n\
         [servers.main]\nconninfo = \"host=db password=geheim\"\n\
         failure_webhook = \"https://hooks.example.com/geheim\"\n\
         [servers.web]\nconninfo = \"host=web\"\n",
    );
    let mut typed = written.typed();
    typed.arguments = vec![argument("--set slot_name", "slot_name", "x")];
    typed.servers = vec!["main".parse().unwrap()];
    let environment = |name: &str| (name == "WALRECV_SYNCHRONOUS").then(|| "false".to_owned());
    let shown = Settings::show(&typed, &environment).unwrap();
    let [main] = shown.as_slice() else { panic!() };
    assert!(!format!("{shown:?}").contains("geheim"));
    let told = |key: &str| {
        let setting = main.settings.iter().find(|setting| setting.key == key).unwrap();
        let from = setting.from();
        let from = from.rsplit('/').next().unwrap();
        format!("{} {from}", setting.text())
    };
    assert_eq!(told("flush_interval"), "250ms walrecv-server.toml:2");
    assert_eq!(told("conninfo"), "host=db password=*** walrecv-server.toml:5");
    assert_eq!(told("backup_conninfo"), "host=db password=*** default");
    assert_eq!(told("failure_webhook"), "https://hooks.example.com/*** walrecv-server.toml:6");
    assert_eq!(told("slot_name"), "x --set slot_name");
    assert_eq!(told("synchronous"), "false WALRECV_SYNCHRONOUS");
    // That of gzip, and not that of zstd.
    assert_eq!(told("compression_level"), "6 default");
    assert_eq!(told("retention_policy"), " default");
    assert_eq!(told("home"), "/var/lib/walrecv-server default");
    assert_eq!(main.settings.len(), keys::anywhere().count());

    typed.servers = vec!["mian".parse().unwrap()];
    assert!(matches!(
        Settings::show(&typed, &environment),
        Err(SettingsError::UnknownServer { .. })
    ));
    typed = written.typed();
    assert_eq!(Settings::show(&typed, &|_| None).unwrap().len(), 2);
}
