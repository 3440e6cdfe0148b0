//! The settings of one server.

use std::fmt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use jiff::tz::TimeZone;
use pgwire_stream::{ManifestChecksums, SlotName};

use super::layer::Layers;
use super::value;
use super::{
    HookScripts, Moments, Period, Recipient, RetentionPolicy, Schedule, ServerName, WebhookUrl,
};

/// The slot of a server for which none is named.
pub const DEFAULT_SLOT: &str = "walrecv";

/// What is to be done for one server, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerSettings {
    /// Its name, and its directory's.
    pub name: ServerName,
    /// What it is to its operators.
    pub description: Option<String>,
    /// How to reach it with SQL.
    pub conninfo: ConnInfo,
    /// How to reach it for WAL, if not so.
    pub streaming_conninfo: Option<ConnInfo>,
    /// How to reach it, or a standby, for base backups, if not as for WAL.
    pub backup_conninfo: Option<ConnInfo>,
    /// The physical slot that keeps the WAL we have not yet got.
    pub slot_name: SlotName,
    /// Who creates the slot.
    pub create_slot: CreateSlot,
    /// Whether the same slot is kept on every host of the conninfo.
    pub slot_on_all_hosts: bool,
    /// Whether every commit waits for us.
    pub synchronous: Synchronous,
    /// The longest time between received and durable.
    pub flush_interval: Duration,
    /// Whether WAL is looked at when it comes: is it WAL, and what does it say?
    pub wal_validation: bool,
    /// How archived WAL is stored.
    pub compression: Compression,
    /// The effort that goes into it.
    pub compression_level: i32,
    /// How base backups are stored.
    pub backup_compression: BackupCompression,
    /// Who can read what is stored: it is encrypted to all of these keys. Without any, it is not.
    pub encryption_recipients: Vec<Recipient>,
    /// The file with the secret key, on a host that is to read what it stores.
    pub encryption_identity: Option<PathBuf>,
    /// The checksums that the server puts into the manifest.
    pub manifest_checksums: ManifestChecksums,
    /// Whether a backup's checkpoint is made at once, at the price of more I/O.
    pub immediate_checkpoint: bool,
    /// The most kB per second that a backup may take; `None` is as fast as it goes.
    pub bandwidth_limit_kb: Option<u32>,
    /// What an incremental backup is built on.
    pub incremental_base: IncrementalBase,
    /// How many backups may build on a full one, each on the one before.
    pub incremental_chain_max: u32,
    /// Whether the server is backed up at all; what is stored for it can be used all the same.
    pub active: bool,
    /// When full backups are taken.
    pub backup_schedule: Option<Schedule>,
    /// When incremental backups are taken.
    pub incremental_schedule: Option<Schedule>,
    /// When what is stored is verified.
    pub verify_schedule: Option<Schedule>,
    /// The most kB per second that are read for that; `None` is as fast as it goes.
    pub verify_bandwidth_limit_kb: Option<u32>,
    /// How often the daemon checks the server; `None` is never.
    pub check_interval: Option<Duration>,
    /// How long one look at the server may take.
    pub check_timeout: Duration,
    /// Which backups stay; without a policy, all.
    pub retention_policy: Option<RetentionPolicy>,
    /// How many full backups stay whatever the policy says.
    pub minimum_redundancy: u32,
    /// How old the last backup may be.
    pub last_backup_maximum_age: Option<Period>,
    /// How many bytes the last backup has at least.
    pub last_backup_minimum_size: Option<u64>,
    /// How old the last archived WAL may be.
    pub last_wal_maximum_age: Option<Period>,
    /// How often a backup that failed is tried again.
    pub basebackup_retry_times: u32,
    /// How long is waited before that for the first time.
    pub basebackup_retry_sleep: Duration,
    /// The operator's commands around what is done.
    pub hooks: HookScripts,
    /// Where failures are told.
    pub failure_webhook: Option<WebhookUrl>,
}

/// A connection string. Its `Debug` does not show it, because it may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnInfo(String);

impl ConnInfo {
    /// A connection string; it is checked when it is used.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, with any password in it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnInfo(…)")
    }
}

/// Who creates the replication slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CreateSlot {
    /// We do, where there is nothing yet that a new slot would leave a gap behind.
    #[default]
    Auto,
    /// The operator does.
    Manual,
}

/// Whether every commit on the server waits until we have its WAL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// It does: WAL is made durable as soon as it comes.
    Always,
    /// It does not.
    Never,
    /// It does where the server names us in `synchronous_standby_names`.
    #[default]
    WhenNamed,
}

/// What an incremental backup is built on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncrementalBase {
    /// The newest backup: the least to send, the most to put together.
    #[default]
    Latest,
    /// The newest full backup.
    Full,
}

/// How stored bytes are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// Zstandard.
    #[default]
    Zstd,
    /// LZ4.
    Lz4,
    /// gzip.
    Gzip,
}

/// How base backups are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupCompression {
    /// The method.
    pub codec: Compression,
    /// The effort.
    pub level: i32,
    /// The threads that share the work.
    pub workers: u32,
    /// Who does the work.
    pub location: CompressionLocation,
}

/// Who compresses base backups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompressionLocation {
    /// We do: in pieces that can be restored side by side.
    #[default]
    Client,
    /// The server does (15 and later), which spares the network: in one piece.
    Server,
}

const COMPRESSION_LOCATION: &[(&str, CompressionLocation)] =
    &[("client", CompressionLocation::Client), ("server", CompressionLocation::Server)];

const COMPRESSIONS: &[(&str, Compression)] = &[
    ("zstd", Compression::Zstd),
    ("lz4", Compression::Lz4),
    ("gzip", Compression::Gzip),
    ("none", Compression::None),
];

const CHECKSUMS: &[(&str, ManifestChecksums)] = &[
    ("CRC32C", ManifestChecksums::Crc32c),
    ("SHA224", ManifestChecksums::Sha224),
    ("SHA256", ManifestChecksums::Sha256),
    ("SHA384", ManifestChecksums::Sha384),
    ("SHA512", ManifestChecksums::Sha512),
    ("NONE", ManifestChecksums::None),
];

const SYNCHRONOUS: &[(&str, Synchronous)] = &[
    ("true", Synchronous::Always),
    ("false", Synchronous::Never),
    ("auto", Synchronous::WhenNamed),
];

const INCREMENTAL_BASE: &[(&str, IncrementalBase)] =
    &[("latest", IncrementalBase::Latest), ("full", IncrementalBase::Full)];

const CREATE_SLOT: &[(&str, CreateSlot)] =
    &[("auto", CreateSlot::Auto), ("manual", CreateSlot::Manual)];

impl Compression {
    /// The effort where none is configured.
    pub fn default_level(self) -> i32 {
        match self {
            Self::Zstd => 1,
            Self::Gzip => 6,
            Self::Lz4 | Self::None => 0,
        }
    }

    fn levels(self) -> (i64, i64) {
        match self {
            Self::Zstd => (1, 19),
            Self::Gzip => (1, 9),
            Self::Lz4 | Self::None => (0, 0),
        }
    }
}

impl ServerSettings {
    /// A server with nothing configured but how to reach it.
    pub fn new(name: ServerName, conninfo: ConnInfo, slot_name: SlotName) -> Self {
        Self {
            name,
            description: None,
            conninfo,
            streaming_conninfo: None,
            backup_conninfo: None,
            slot_name,
            create_slot: CreateSlot::default(),
            slot_on_all_hosts: false,
            synchronous: Synchronous::default(),
            flush_interval: Duration::from_secs(1),
            compression: Compression::default(),
            compression_level: Compression::default().default_level(),
            backup_compression: BackupCompression {
                codec: Compression::default(),
                level: Compression::default().default_level(),
                workers: cores(),
                location: CompressionLocation::default(),
            },
            encryption_recipients: Vec::new(),
            encryption_identity: None,
            manifest_checksums: ManifestChecksums::default(),
            immediate_checkpoint: false,
            wal_validation: true,
            bandwidth_limit_kb: None,
            incremental_base: IncrementalBase::default(),
            incremental_chain_max: 7,
            active: true,
            backup_schedule: None,
            incremental_schedule: None,
            verify_schedule: None,
            verify_bandwidth_limit_kb: None,
            check_interval: Some(Duration::from_secs(300)),
            check_timeout: Duration::from_secs(30),
            retention_policy: None,
            minimum_redundancy: 0,
            last_backup_maximum_age: None,
            last_backup_minimum_size: None,
            last_wal_maximum_age: None,
            basebackup_retry_times: 0,
            basebackup_retry_sleep: Duration::from_secs(30),
            hooks: HookScripts::default(),
            failure_webhook: None,
        }
    }

    /// Whether WAL is received just as with these settings: what differs is of no concern to who
    /// receives it.
    pub fn receives_as(&self, other: &Self) -> bool {
        let of_no_concern = Self {
            description: other.description.clone(),
            backup_conninfo: other.backup_conninfo.clone(),
            backup_compression: other.backup_compression,
            manifest_checksums: other.manifest_checksums,
            immediate_checkpoint: other.immediate_checkpoint,
            bandwidth_limit_kb: other.bandwidth_limit_kb,
            incremental_base: other.incremental_base,
            incremental_chain_max: other.incremental_chain_max,
            basebackup_retry_times: other.basebackup_retry_times,
            basebackup_retry_sleep: other.basebackup_retry_sleep,
            backup_schedule: other.backup_schedule.clone(),
            incremental_schedule: other.incremental_schedule.clone(),
            verify_schedule: other.verify_schedule.clone(),
            verify_bandwidth_limit_kb: other.verify_bandwidth_limit_kb,
            check_interval: other.check_interval,
            check_timeout: other.check_timeout,
            retention_policy: other.retention_policy,
            minimum_redundancy: other.minimum_redundancy,
            last_backup_maximum_age: other.last_backup_maximum_age,
            last_backup_minimum_size: other.last_backup_minimum_size,
            last_wal_maximum_age: other.last_wal_maximum_age,
            failure_webhook: other.failure_webhook.clone(),
            ..self.clone()
        };
        of_no_concern == *other
    }

    /// How to reach the server for WAL.
    pub fn streaming_conninfo(&self) -> &str {
        self.streaming_conninfo.as_ref().unwrap_or(&self.conninfo).as_str()
    }

    /// How to reach the server, or its standby, for base backups.
    pub fn backup_conninfo(&self) -> &str {
        match &self.backup_conninfo {
            Some(conninfo) => conninfo.as_str(),
            None => self.streaming_conninfo(),
        }
    }

    /// The settings of this server; `None` if there is no `conninfo`, or a mistake in it.
    pub(super) fn resolve(name: ServerName, layers: &mut Layers<'_>) -> Option<Self> {
        let conninfo = layers.value("conninfo", value::conninfo);
        if layers.given("conninfo").is_none() {
            let problem = format!("server `{name}` has no `conninfo`");
            layers.missing(problem, "add conninfo = \"host=… user=… dbname=postgres\"");
        }
        let slot_name =
            layers.value("slot_name", value::slot).or_else(|| DEFAULT_SLOT.parse().ok());
        let defaults =
            Self::new(name, ConnInfo::new(conninfo.clone().unwrap_or_default()), slot_name?);

        let compression = layers
            .value("compression", |given| value::choice(given, COMPRESSIONS))
            .unwrap_or_default();
        let backup_codec = layers
            .value("backup_compression", |given| value::choice(given, COMPRESSIONS))
            .unwrap_or_default();
        let zone = layers.value("time_zone", value::time_zone);
        let settings = Self {
            description: layers.value("description", value::text),
            streaming_conninfo: layers
                .value("streaming_conninfo", value::conninfo)
                .map(ConnInfo::new),
            backup_conninfo: layers.value("backup_conninfo", value::conninfo).map(ConnInfo::new),
            create_slot: layers
                .value("create_slot", |given| value::choice(given, CREATE_SLOT))
                .unwrap_or_default(),
            slot_on_all_hosts: layers
                .value("slot_on_all_hosts", value::boolean)
                .unwrap_or_default(),
            synchronous: layers
                .value("synchronous", |given| value::choice(given, SYNCHRONOUS))
                .unwrap_or_default(),
            flush_interval: layers
                .value("flush_interval", |given| {
                    value::duration(given, Duration::from_millis(1), Duration::from_secs(3600))
                })
                .unwrap_or(defaults.flush_interval),
            compression,
            compression_level: level(layers, "compression_level", compression),
            backup_compression: BackupCompression {
                codec: backup_codec,
                level: level(layers, "backup_compression_level", backup_codec),
                workers: layers
                    .value("backup_compression_workers", |given| value::number(given, 1, 256))
                    .and_then(|workers| u32::try_from(workers).ok())
                    .unwrap_or(defaults.backup_compression.workers),
                location: layers
                    .value("backup_compression_location", |given| {
                        value::choice(given, COMPRESSION_LOCATION)
                    })
                    .unwrap_or_default(),
            },
            encryption_recipients: layers
                .value("encryption_recipients", value::recipients)
                .unwrap_or_default(),
            encryption_identity: layers.value("encryption_identity", value::path),
            manifest_checksums: layers
                .value("manifest_checksums", |given| value::choice(given, CHECKSUMS))
                .unwrap_or_default(),
            immediate_checkpoint: layers
                .value("immediate_checkpoint", value::boolean)
                .unwrap_or_default(),
            wal_validation: layers.value("wal_validation", value::boolean).unwrap_or(true),
            bandwidth_limit_kb: layers.value("bandwidth_limit", value::rate).flatten(),
            incremental_base: layers
                .value("incremental_base", |given| value::choice(given, INCREMENTAL_BASE))
                .unwrap_or_default(),
            incremental_chain_max: count(layers, "incremental_chain_max", 1, 1000)
                .unwrap_or(defaults.incremental_chain_max),
            active: layers.value("active", value::boolean).unwrap_or(true),
            backup_schedule: schedule(layers, "backup_schedule", zone.as_ref()),
            incremental_schedule: schedule(layers, "incremental_schedule", zone.as_ref()),
            verify_schedule: schedule(layers, "verify_schedule", zone.as_ref()),
            verify_bandwidth_limit_kb: layers
                .value("verify_bandwidth_limit", value::rate)
                .flatten(),
            check_interval: layers
                .value("check_interval", |given| {
                    value::duration(given, Duration::ZERO, Duration::from_secs(86400))
                })
                .map_or(defaults.check_interval, |every| (!every.is_zero()).then_some(every)),
            check_timeout: layers
                .value("check_timeout", |given| {
                    value::duration(given, Duration::from_secs(1), Duration::from_secs(3600))
                })
                .unwrap_or(defaults.check_timeout),
            retention_policy: layers.value("retention_policy", value::parsed),
            minimum_redundancy: count(layers, "minimum_redundancy", 0, 100_000)
                .unwrap_or(defaults.minimum_redundancy),
            last_backup_maximum_age: layers.value("last_backup_maximum_age", value::parsed),
            last_backup_minimum_size: layers.value("last_backup_minimum_size", value::size),
            last_wal_maximum_age: layers.value("last_wal_maximum_age", value::parsed),
            basebackup_retry_times: count(layers, "basebackup_retry_times", 0, 1000)
                .unwrap_or(defaults.basebackup_retry_times),
            basebackup_retry_sleep: layers
                .value("basebackup_retry_sleep", |given| {
                    value::duration(given, Duration::from_secs(1), Duration::from_secs(86400))
                })
                .unwrap_or(defaults.basebackup_retry_sleep),
            hooks: HookScripts::resolve(layers),
            failure_webhook: layers.value("failure_webhook", value::webhook),
            ..defaults
        };
        conninfo.map(|_| settings)
    }
}

/// When something is done, in the server's time zone; in this machine's, if it has none. To find that out
/// takes longer than all the rest.
fn schedule(layers: &mut Layers<'_>, key: &str, zone: Option<&TimeZone>) -> Option<Schedule> {
    let moments: Moments = layers.value(key, value::parsed)?;
    Some(moments.within(zone.cloned().unwrap_or_else(TimeZone::system)))
}

fn count(layers: &mut Layers<'_>, key: &str, least: i64, most: i64) -> Option<u32> {
    let count = layers.value(key, |given| value::number(given, least, most));
    count.and_then(|count| u32::try_from(count).ok())
}

fn level(layers: &mut Layers<'_>, key: &str, codec: Compression) -> i32 {
    layers
        .value(key, |given| match codec.levels() {
            // A level among the defaults is no mistake of the servers that have no use for it.
            (0, 0) => Ok(0),
            (least, most) => value::number(given, least, most),
        })
        .and_then(|level| i32::try_from(level).ok())
        .unwrap_or(codec.default_level())
}

fn cores() -> u32 {
    thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1))
}
