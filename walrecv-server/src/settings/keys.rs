//! Every key that a configuration may have: the one place that says so.
//!
//! From this table come the check for unknown keys, the annotated reference, the schema for editors
//! and what `show-servers` shows. That its defaults are the real ones is tested.

use super::barman_keys;
use super::error::nearest;
use Kind::{
    Choice, Conninfo, Count, Duration, Flag, FlagOr, Listen, Path, Period, Rate, Schedule, Secret,
    Size, Text, Webhook, Words,
};
use Value::{Default, DefaultAs, Unset};

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    /// At the top of the file.
    Global,
    /// In `[http]`.
    Http,
    /// In `[servers.NAME]`, and in `[defaults]` unless it describes one server.
    Server,
}

/// What kind of values a key has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One of these words.
    Choice(&'static [&'static str]),
    /// How to reach a server. It may hold a password.
    Conninfo,
    /// A number from one to the other.
    Count(i64, i64),
    /// A time, as `30s`; a bare number counts seconds.
    Duration,
    /// `true` or `false`.
    Flag,
    /// `true`, `false` or this word.
    FlagOr(&'static str),
    /// An address with a port, or `off`.
    Listen,
    /// An absolute path, or a credential of systemd.
    Path,
    /// A span of the calendar, as `4 DAYS`.
    Period,
    /// A size per second, as `20MB`; a bare number counts kB.
    Rate,
    /// Moments in cron's syntax.
    Schedule,
    /// The same, of a file that is a secret.
    Secret,
    /// A number of bytes, as `500 MiB`.
    Size,
    /// Text.
    Text,
    /// An address that may hold a secret.
    Webhook,
    /// A list of texts.
    Words,
}

/// What a key has if nothing is said, and what it might have, as TOML writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// This, which is an example at the same time.
    Default(&'static str),
    /// The first; the second is an example.
    DefaultAs(&'static str, &'static str),
    /// Nothing; this is an example.
    Unset(&'static str),
}

/// A key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) section: Section,
    pub(super) kind: Kind,
    pub(super) value: Value,
    pub(super) doc: &'static str,
    /// Whether it describes one server, and cannot be shared by several.
    pub(super) of_one_server: bool,
}

impl Key {
    /// Its default, as TOML writes it.
    pub(super) fn default(&self) -> Option<&'static str> {
        match self.value {
            Default(default) | DefaultAs(default, _) => Some(default),
            Unset(_) => None,
        }
    }

    /// A value that it might have, as TOML writes it.
    pub(super) fn example(&self) -> &'static str {
        match self.value {
            Default(example) | DefaultAs(_, example) | Unset(example) => example,
        }
    }

    /// Its default, as JSON has it.
    pub(super) fn default_as_json(&self) -> Option<serde_json::Value> {
        self.default().and_then(json)
    }

    /// A value that it might have, as JSON has it.
    pub(super) fn example_as_json(&self) -> Option<serde_json::Value> {
        json(self.example())
    }

    const fn of_one_server(self) -> Self {
        Self { of_one_server: true, ..self }
    }
}

/// A value as TOML writes it, as JSON has it.
fn json(toml: &str) -> Option<serde_json::Value> {
    let table: toml::Table = format!("value = {toml}").parse().ok()?;
    serde_json::to_value(table.get("value")?).ok()
}

const fn key(
    name: &'static str,
    section: Section,
    kind: Kind,
    value: Value,
    doc: &'static str,
) -> Key {
    Key { name, section, kind, value, doc, of_one_server: false }
}

const fn global(name: &'static str, kind: Kind, value: Value, doc: &'static str) -> Key {
    key(name, Section::Global, kind, value, doc)
}

const fn http(name: &'static str, kind: Kind, value: Value, doc: &'static str) -> Key {
    key(name, Section::Http, kind, value, doc)
}

const fn server(name: &'static str, kind: Kind, value: Value, doc: &'static str) -> Key {
    key(name, Section::Server, kind, value, doc)
}

/// All of them, in the order in which people read them.
pub(super) const KEYS: &[Key] = &[
    global(
        "home",
        Path,
        Default(r#""/var/lib/walrecv-server""#),
        "Where backups and WAL are stored, as an absolute path.",
    ),
    global(
        "group_access",
        Flag,
        Default("false"),
        "Whether the group of the store's owner may read what is stored from then on (modes \
         0750 and 0640 instead of 0700 and 0600). What is there keeps its modes, the store's \
         directory as well.",
    ),
    global(
        "wal_readers",
        Words,
        DefaultAs("[]", r#"["postgres"]"#),
        "Operating system users that restored servers run as: the daemon hands them the \
         WAL that they ask for with `get-wal`.",
    ),
    global(
        "max_parallel_backups",
        Count(1, 1000),
        Default("2"),
        "How many base backups are taken at a time, of all servers together.",
    ),
    http(
        "listen",
        Listen,
        Default(r#""127.0.0.1:8432""#),
        "Where the daemon answers browsers and monitoring, or \"off\". An address that \
         others can reach needs the three files below, too.",
    ),
    http(
        "token_file",
        Secret,
        Unset(r#""${CREDENTIALS_DIRECTORY}/http-token""#),
        "The file with the token that callers must show. Credentials \
         of systemd (`LoadCredential=`) lie in `${CREDENTIALS_DIRECTORY}`.",
    ),
    http(
        "tls_cert_file",
        Path,
        Unset(r#""/etc/walrecv-server/tls.crt""#),
        "The certificate, and those between it and its root, in PEM.",
    ),
    http(
        "tls_key_file",
        Secret,
        Unset(r#""${CREDENTIALS_DIRECTORY}/tls-key""#),
        "The certificate's key, in PEM.",
    ),
    server("description", Text, Unset(r#""orders""#), "What the server is to its operators.")
        .of_one_server(),
    server(
        "conninfo",
        Conninfo,
        Unset(r#""host=db1 user=walrecv dbname=postgres""#),
        "How to reach the server, as for psql. The password is best kept in a password \
         file (~/.pgpass, or passfile=…) of mode 0600; \
         passfile=${CREDENTIALS_DIRECTORY}/NAME is a credential of systemd.",
    )
    .of_one_server(),
    server(
        "streaming_conninfo",
        Conninfo,
        Unset(r#""host=db1 user=walrecv dbname=postgres""#),
        "How to reach it for WAL, if not so.",
    )
    .of_one_server(),
    server(
        "backup_conninfo",
        Conninfo,
        Unset(r#""host=standby1 user=walrecv dbname=postgres""#),
        "How to reach it, or a standby of it, for base backups, if not as for WAL.",
    )
    .of_one_server(),
    server(
        "active",
        Flag,
        Default("true"),
        "Whether the server is backed up at all. What is stored for it can be used all \
         the same.",
    ),
    server(
        "slot_name",
        Text,
        Default(r#""walrecv""#),
        "The physical replication slot that keeps the WAL which is not received yet.",
    ),
    server(
        "create_slot",
        Choice(&["auto", "manual"]),
        Default(r#""auto""#),
        "Who creates the slot: we do, where no gap would lie in front of it (auto), or \
         the operator (manual).",
    ),
    server(
        "slot_on_all_hosts",
        Flag,
        Default("false"),
        "Whether the same slot is kept on every host of the conninfo, for the next \
         failover.",
    ),
    server(
        "synchronous",
        FlagOr("auto"),
        Default(r#""auto""#),
        "Whether every commit waits until its WAL is durable here: true, false, or as \
         soon as the server names us in `synchronous_standby_names` (auto).",
    ),
    server(
        "flush_interval",
        Duration,
        Default(r#""1s""#),
        "The longest time between received and durable, from 1ms to 1h.",
    ),
    server(
        "wal_validation",
        Flag,
        Default("true"),
        "Whether WAL is looked at when it comes: is it WAL, and what does it say?",
    ),
    server(
        "compression",
        Choice(&["zstd", "lz4", "gzip", "none"]),
        Default(r#""zstd""#),
        "How archived WAL is compressed.",
    ),
    server(
        "compression_level",
        Count(0, 19),
        Default("1"),
        "The effort that goes into it: 1 to 19 for zstd, 1 to 9 for gzip. Each has a \
         default of its own.",
    ),
    server(
        "backup_compression",
        Choice(&["zstd", "lz4", "gzip", "none"]),
        Default(r#""zstd""#),
        "How base backups are compressed.",
    ),
    server(
        "backup_compression_level",
        Count(0, 19),
        Default("1"),
        "The effort that goes into it: 1 to 19 for zstd, 1 to 9 for gzip. Each has a \
         default of its own.",
    ),
    server(
        "backup_compression_workers",
        Count(1, 256),
        Unset("2"),
        "How many threads compress a base backup. One for each processor, if not set.",
    ),
    server(
        "backup_compression_location",
        Choice(&["client", "server"]),
        Default(r#""client""#),
        "Who compresses base backups: we do, in pieces that can be restored side by \
         side (client), or servers from 15 on, which spares the network (server).",
    ),
    server(
        "encryption_recipients",
        Words,
        DefaultAs("[]", r#"["age1pygpw8399sen5s2gfat96ertwfucppuwjkw28243hzludnw5m03qpq9lj7"]"#),
        "Public keys of age: what is stored can be read by the holder of any of the \
         secret keys, and by nobody else.",
    ),
    server(
        "encryption_identity",
        Secret,
        Unset(r#""/etc/walrecv-server/identity.txt""#),
        "The file with a secret key, on a host that is to read what it stores.",
    ),
    server(
        "backup_schedule",
        Schedule,
        Unset(r#""0 2 * * 0""#),
        "When full backups are taken, in cron's syntax.",
    ),
    server(
        "incremental_schedule",
        Schedule,
        Unset(r#""0 2 * * 1-6""#),
        "When incremental backups are taken (servers from 17 on), in cron's syntax.",
    ),
    server(
        "verify_schedule",
        Schedule,
        Unset(r#""0 5 * * *""#),
        "When what is stored is verified, in cron's syntax.",
    ),
    server(
        "time_zone",
        Text,
        Unset(r#""Europe/Berlin""#),
        "The time zone of the schedules. That of this machine, if not set.",
    ),
    server(
        "verify_bandwidth_limit",
        Rate,
        Default("0"),
        "How much is read per second for that, as \"20MB\"; a bare number counts kB, 0 \
         is unlimited. One server's store is read at a time without a limit; with one, \
         each when it is due.",
    ),
    server(
        "manifest_checksums",
        Choice(&["CRC32C", "SHA224", "SHA256", "SHA384", "SHA512", "NONE"]),
        Default(r#""CRC32C""#),
        "The checksums that the server puts into the manifest of a base backup.",
    ),
    server(
        "immediate_checkpoint",
        Flag,
        Default("false"),
        "Whether the checkpoint of a base backup is made at once, at the price of more \
         I/O.",
    ),
    server(
        "bandwidth_limit",
        Rate,
        Default("0"),
        "How much a base backup receives per second, as \"20MB\"; a bare number counts \
         kB, 0 is unlimited.",
    ),
    server(
        "basebackup_retry_times",
        Count(0, 1000),
        Default("0"),
        "How often a base backup that failed is tried again.",
    ),
    server(
        "basebackup_retry_sleep",
        Duration,
        Default(r#""30s""#),
        "How long is waited before the first time. The pauses double.",
    ),
    server(
        "incremental_base",
        Choice(&["latest", "full"]),
        Default(r#""latest""#),
        "What `backup --incremental auto` builds on: the newest backup, or the newest \
         full one.",
    ),
    server(
        "incremental_chain_max",
        Count(1, 1000),
        Default("7"),
        "How many incremental backups may follow a full one, each on the one before.",
    ),
    server(
        "retention_policy",
        Text,
        Unset(r#""RECOVERY WINDOW OF 7 DAYS""#),
        "Which backups stay: \"REDUNDANCY n\", \"RECOVERY WINDOW OF n \
         DAYS|WEEKS|MONTHS\", or \"KEEP n DAILY, n WEEKLY, n MONTHLY, n YEARLY\". All, \
         if not set.",
    ),
    server(
        "minimum_redundancy",
        Count(0, 100_000),
        Default("0"),
        "How many full backups stay whatever the policy says.",
    ),
    server(
        "last_backup_maximum_age",
        Period,
        Unset(r#""4 DAYS""#),
        "How old the last backup may be before `check` fails.",
    ),
    server(
        "last_backup_minimum_size",
        Size,
        Unset(r#""500 MiB""#),
        "How large the last backup is at least, or `check` fails.",
    ),
    server(
        "last_wal_maximum_age",
        Period,
        Unset(r#""12 HOURS""#),
        "How old the last archived WAL may be before `check` fails.",
    ),
    server(
        "check_interval",
        Duration,
        Default(r#""5m""#),
        "How often the daemon checks the server; 0 is never.",
    ),
    server(
        "check_timeout",
        Duration,
        Default(r#""30s""#),
        "How long one look at the server may take.",
    ),
    server(
        "failure_webhook",
        Webhook,
        Unset(r#""https://alerts.example.com/hooks/walrecv""#),
        "Where failures are told, as JSON. It may hold a secret, and is never shown.",
    ),
    server(
        "hook_timeout",
        Duration,
        Default(r#""10m""#),
        "How long a script may run before it is killed with all that it has started.",
    ),
    server(
        "pre_backup_script",
        Text,
        Unset(r#""/usr/local/bin/pre-backup""#),
        "A command that is run before a base backup is taken, once.",
    ),
    server(
        "pre_backup_retry_script",
        Text,
        Unset(r#""/usr/local/bin/pre-backup""#),
        "A command that is run before a base backup is taken, again and again until it \
         succeeds, or stops it.",
    ),
    server(
        "post_backup_script",
        Text,
        Unset(r#""/usr/local/bin/post-backup""#),
        "A command that is run after a base backup is taken, once.",
    ),
    server(
        "post_backup_retry_script",
        Text,
        Unset(r#""/usr/local/bin/post-backup""#),
        "A command that is run after a base backup is taken, again and again until it \
         succeeds.",
    ),
    server(
        "pre_archive_script",
        Text,
        Unset(r#""/usr/local/bin/pre-archive""#),
        "A command that is run before a WAL file is archived, once.",
    ),
    server(
        "pre_archive_retry_script",
        Text,
        Unset(r#""/usr/local/bin/pre-archive""#),
        "A command that is run before a WAL file is archived, again and again until it \
         succeeds, or stops it.",
    ),
    server(
        "post_archive_script",
        Text,
        Unset(r#""/usr/local/bin/post-archive""#),
        "A command that is run after a WAL file is archived, once.",
    ),
    server(
        "post_archive_retry_script",
        Text,
        Unset(r#""/usr/local/bin/post-archive""#),
        "A command that is run after a WAL file is archived, again and again until it \
         succeeds.",
    ),
    server(
        "pre_delete_script",
        Text,
        Unset(r#""/usr/local/bin/pre-delete""#),
        "A command that is run before a base backup is removed, once.",
    ),
    server(
        "pre_delete_retry_script",
        Text,
        Unset(r#""/usr/local/bin/pre-delete""#),
        "A command that is run before a base backup is removed, again and again until \
         it succeeds, or stops it.",
    ),
    server(
        "post_delete_script",
        Text,
        Unset(r#""/usr/local/bin/post-delete""#),
        "A command that is run after a base backup is removed, once.",
    ),
    server(
        "post_delete_retry_script",
        Text,
        Unset(r#""/usr/local/bin/post-delete""#),
        "A command that is run after a base backup is removed, again and again until it \
         succeeds.",
    ),
    server(
        "pre_wal_delete_script",
        Text,
        Unset(r#""/usr/local/bin/pre-wal-delete""#),
        "A command that is run before an archived WAL file is removed, once.",
    ),
    server(
        "pre_wal_delete_retry_script",
        Text,
        Unset(r#""/usr/local/bin/pre-wal-delete""#),
        "A command that is run before an archived WAL file is removed, again and again \
         until it succeeds, or stops it.",
    ),
    server(
        "post_wal_delete_script",
        Text,
        Unset(r#""/usr/local/bin/post-wal-delete""#),
        "A command that is run after an archived WAL file is removed, once.",
    ),
    server(
        "post_wal_delete_retry_script",
        Text,
        Unset(r#""/usr/local/bin/post-wal-delete""#),
        "A command that is run after an archived WAL file is removed, again and again \
         until it succeeds.",
    ),
    server(
        "pre_recovery_script",
        Text,
        Unset(r#""/usr/local/bin/pre-recovery""#),
        "A command that is run before a base backup is restored, once.",
    ),
    server(
        "pre_recovery_retry_script",
        Text,
        Unset(r#""/usr/local/bin/pre-recovery""#),
        "A command that is run before a base backup is restored, again and again until \
         it succeeds, or stops it.",
    ),
    server(
        "post_recovery_script",
        Text,
        Unset(r#""/usr/local/bin/post-recovery""#),
        "A command that is run after a base backup is restored, once.",
    ),
    server(
        "post_recovery_retry_script",
        Text,
        Unset(r#""/usr/local/bin/post-recovery""#),
        "A command that is run after a base backup is restored, again and again until \
         it succeeds.",
    ),
];

/// Tables beside the global keys.
pub(super) const TABLES: &[&str] = &["defaults", "http", "servers"];

/// Keys that have no effect in this version: refused rather than ignored, because somebody relies
/// on what they promise.
const NOT_SUPPORTED: &[&str] = &["sender"];

/// The keys of a section.
pub(super) fn of(section: Section) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.section == section)
}

/// The key of a section by its name.
pub(super) fn find(section: Section, name: &str) -> Option<&'static Key> {
    of(section).find(|key| key.name == name)
}

/// The keys that arguments and environment can give.
pub(super) fn anywhere() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| key.section != Section::Http)
}

/// What is wrong with a key that is not in `section`, and what to do about it.
pub(super) fn unknown(name: &str, section: Section) -> (String, Option<String>) {
    if NOT_SUPPORTED.contains(&name) {
        let hint = "remove it: what it promises would not happen".to_owned();
        return (format!("`{name}` is not supported by this version"), Some(hint));
    }
    let tables = TABLES.iter().copied().filter(|_| section == Section::Global);
    let known = of(section).map(|key| key.name).chain(tables);
    let hint = if let Some(advice) = barman_keys::advice(name) {
        Some(advice.to_owned())
    } else if find(Section::Server, name).is_some() {
        Some(format!("`{name}` belongs into [defaults] or [servers.NAME]"))
    } else if find(Section::Global, name).is_some() {
        Some(format!("`{name}` belongs to the top of the file, before any [section]"))
    } else if let Some(known) = nearest(name, known) {
        Some(format!("did you mean `{known}`?"))
    } else {
        find(Section::Http, name).map(|_| format!("`{name}` belongs into [http]"))
    };
    (format!("unknown key `{name}`"), hint)
}
