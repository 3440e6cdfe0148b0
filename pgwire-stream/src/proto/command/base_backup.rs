//! `BASE_BACKUP`, in both of its grammars.

use super::grammar;
use crate::{Error, Feature, Misuse, ServerVersion, Unsupported};

/// The rates that a server accepts, in kB/s (`MAX_RATE_LOWER`, `MAX_RATE_UPPER`).
pub(super) const RATES: std::ops::RangeInclusive<u32> = 32..=1_048_576;

/// The longest label (`MAXPGPATH`).
pub(super) const MAX_LABEL: usize = 1024;

/// The checksum that a manifest has for each file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ManifestChecksums {
    /// None.
    None,
    /// CRC-32C: finds accidents, costs next to nothing.
    #[default]
    Crc32c,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl ManifestChecksums {
    #[cfg(feature = "server")]
    pub(super) const ALL: [Self; 6] =
        [Self::None, Self::Crc32c, Self::Sha224, Self::Sha256, Self::Sha384, Self::Sha512];

    /// The name in commands and manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Crc32c => "CRC32C",
            Self::Sha224 => "SHA224",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        }
    }
}

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompressionMethod {
    /// gzip, one member.
    Gzip,
    /// An LZ4 frame.
    Lz4,
    /// A Zstandard frame. With long-distance matching its window is up to 128 MiB.
    Zstd,
}

impl CompressionMethod {
    #[cfg(feature = "server")]
    pub(super) const ALL: [Self; 3] = [Self::Gzip, Self::Lz4, Self::Zstd];

    /// The name in commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// What a compressed archive's name ends with, after `.tar`.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Gzip => ".gz",
            Self::Lz4 => ".lz4",
            Self::Zstd => ".zst",
        }
    }
}

/// How the server compresses archives before it sends or stores them (servers from 15 on). Not
/// every server is built with every method; one that is not says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerCompression {
    /// gzip.
    Gzip {
        /// 1 to 9; the server's default by default.
        level: Option<i32>,
    },
    /// LZ4.
    Lz4 {
        /// 1 to 12; the server's default by default.
        level: Option<i32>,
    },
    /// Zstandard.
    Zstd {
        /// Up to 22, and below 0 for speed; the server's default by default.
        level: Option<i32>,
        /// How many threads compress; the server's own process by default.
        workers: Option<u32>,
        /// Looks for repetitions far back (servers from 16 on). Whoever decompresses needs a
        /// window of up to 128 MiB.
        long: bool,
    },
}

impl ServerCompression {
    /// A method with all its defaults.
    pub fn new(method: CompressionMethod) -> Self {
        match method {
            CompressionMethod::Gzip => Self::Gzip { level: None },
            CompressionMethod::Lz4 => Self::Lz4 { level: None },
            CompressionMethod::Zstd => Self::Zstd { level: None, workers: None, long: false },
        }
    }

    /// The method.
    pub fn method(self) -> CompressionMethod {
        match self {
            Self::Gzip { .. } => CompressionMethod::Gzip,
            Self::Lz4 { .. } => CompressionMethod::Lz4,
            Self::Zstd { .. } => CompressionMethod::Zstd,
        }
    }

    /// `COMPRESSION_DETAIL`, unless all is left to the server.
    fn detail(self) -> Option<String> {
        let (level, workers, long) = match self {
            Self::Gzip { level } | Self::Lz4 { level } => (level, None, false),
            Self::Zstd { level, workers, long } => (level, workers, long),
        };
        let parts: Vec<String> = [
            level.map(|level| format!("level={level}")),
            workers.map(|workers| format!("workers={workers}")),
            long.then(|| "long".to_owned()),
        ]
        .into_iter()
        .flatten()
        .collect();
        (!parts.is_empty()).then(|| parts.join(","))
    }
}

/// Where the server puts the archives of a base backup. Everywhere but to the client needs a
/// server from 15 on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackupTarget {
    /// It sends them.
    #[default]
    Client,
    /// It writes them into a new or empty directory of its own machine, which is named by its
    /// absolute path. The role needs `pg_write_server_files`.
    Server(String),
    /// It throws them away: how fast can it read?
    Blackhole,
    /// It gives them to an extension's target, such as `basebackup_to_shell`'s.
    Extension {
        /// The target's name.
        name: String,
        /// What the target makes of it (`TARGET_DETAIL`).
        detail: Option<String>,
    },
}

/// What a base backup shall contain, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BaseBackupOptions {
    /// Shown in `backup_label`, at most 1024 bytes; control characters are left out.
    pub label: String,
    /// Checkpoint at once instead of spread over time.
    pub fast_checkpoint: bool,
    /// Add the WAL that the backup needs to the data directory's archive.
    pub wal: bool,
    /// Wait at the end until the server has archived the WAL that the backup needs. With an
    /// archive command that fails this takes for ever.
    pub wait: bool,
    /// Estimate the size first, which walks the whole cluster.
    pub progress: bool,
    /// The server's limit in kB/s, 32 to 1048576; it counts what is left after compression.
    pub max_rate_kb: Option<u32>,
    /// Send a `tablespace_map` instead of symbolic links.
    pub tablespace_map: bool,
    /// Send a manifest with these checksums (servers from 13 on).
    pub manifest: Option<ManifestChecksums>,
    /// Spell every path in the manifest in hexadecimal, not only those that are not UTF-8: a test
    /// for whoever reads it.
    pub force_encode: bool,
    /// Verify page checksums while reading, which servers from 11 on do. A server remembers it for
    /// the next backup of the connection: it is told each time, but one up to 14 cannot be told
    /// to verify again.
    pub verify_checksums: bool,
    /// Compress the archives (servers from 15 on).
    pub compression: Option<ServerCompression>,
    /// Where the archives go.
    pub target: BackupTarget,
    /// Send only what has changed since the backup whose manifest was uploaded before on this
    /// connection (servers from 17 on).
    pub incremental: bool,
}

impl Default for BaseBackupOptions {
    /// A full backup of every tablespace, sent to the client as it is: with a manifest (which
    /// servers up to 12 do not have), a `tablespace_map`, an estimate of its size and page checksums
    /// verified; without WAL, and after a checkpoint that is spread over time.
    fn default() -> Self {
        Self {
            label: "base backup".to_owned(),
            fast_checkpoint: false,
            wal: false,
            wait: false,
            progress: true,
            max_rate_kb: None,
            tablespace_map: true,
            manifest: Some(ManifestChecksums::default()),
            force_encode: false,
            verify_checksums: true,
            compression: None,
            target: BackupTarget::Client,
            incremental: false,
        }
    }
}

pub(super) fn text(options: &BaseBackupOptions, version: ServerVersion) -> Result<String, Error> {
    require_features(options, version)?;
    if options.max_rate_kb.is_some_and(|rate| !RATES.contains(&rate)) {
        return Err(Misuse::Argument("the rate must be from 32 to 1048576 kB/s").into());
    }
    Ok(if version.supports(Feature::OptionLists) {
        format!("BASE_BACKUP ({})", option_list(options).join(", "))
    } else {
        format!("BASE_BACKUP {}", keywords(options, version).join(" "))
    })
}

fn require_features(
    options: &BaseBackupOptions,
    version: ServerVersion,
) -> Result<(), Unsupported> {
    let long = matches!(options.compression, Some(ServerCompression::Zstd { long: true, .. }));
    for (wanted, feature) in [
        (options.manifest.is_some(), Feature::Manifest),
        (options.target != BackupTarget::Client, Feature::BackupTargets),
        (options.compression.is_some(), Feature::ServerCompression),
        (long, Feature::LongDistanceMatching),
        (options.incremental, Feature::IncrementalBackup),
    ] {
        if wanted {
            version.require(feature)?;
        }
    }
    Ok(())
}

/// The options of servers from 15 on.
fn option_list(options: &BaseBackupOptions) -> Vec<String> {
    let checkpoint = if options.fast_checkpoint { "fast" } else { "spread" };
    let mut list = vec![
        format!("LABEL {}", label(options)),
        format!("PROGRESS {}", options.progress),
        format!("CHECKPOINT '{checkpoint}'"),
        format!("WAL {}", options.wal),
        format!("WAIT {}", options.wait),
        format!("TABLESPACE_MAP {}", options.tablespace_map),
        format!("VERIFY_CHECKSUMS {}", options.verify_checksums),
    ];
    list.extend(options_with_values(options));
    match &options.target {
        BackupTarget::Client => {}
        BackupTarget::Server(path) => list.extend(target("server", Some(path))),
        BackupTarget::Blackhole => list.extend(target("blackhole", None)),
        BackupTarget::Extension { name, detail } => list.extend(target(name, detail.as_deref())),
    }
    if let Some(compression) = options.compression {
        list.push(format!("COMPRESSION {}", grammar::string(compression.method().name())));
        let detail = compression.detail();
        list.extend(detail.map(|d| format!("COMPRESSION_DETAIL {}", grammar::string(&d))));
    }
    if options.incremental {
        list.push("INCREMENTAL true".to_owned());
    }
    list
}

fn target(name: &str, detail: Option<&str>) -> impl Iterator<Item = String> {
    let detail = detail.map(|detail| format!("TARGET_DETAIL {}", grammar::string(detail)));
    std::iter::once(format!("TARGET {}", grammar::string(name))).chain(detail)
}

/// The keywords of servers up to 14.
fn keywords(options: &BaseBackupOptions, version: ServerVersion) -> Vec<String> {
    // Older servers do not verify, and do not know the word.
    let verifies = version.supports(Feature::ChecksumVerification);
    let mut list = vec![format!("LABEL {}", label(options))];
    let keywords = [
        (options.progress, "PROGRESS"),
        (options.fast_checkpoint, "FAST"),
        (options.wal, "WAL"),
        (!options.wait, "NOWAIT"),
        (options.tablespace_map, "TABLESPACE_MAP"),
        (verifies && !options.verify_checksums, "NOVERIFY_CHECKSUMS"),
    ];
    list.extend(keywords.iter().filter(|(wanted, _)| *wanted).map(|(_, word)| (*word).to_owned()));
    list.extend(options_with_values(options));
    list
}

/// What is spelled alike in both grammars.
fn options_with_values(options: &BaseBackupOptions) -> Vec<String> {
    let mut list = Vec::new();
    if let Some(rate) = options.max_rate_kb {
        // In quotes it would not be a number.
        list.push(format!("MAX_RATE {rate}"));
    }
    if let Some(checksums) = options.manifest {
        let kind = if options.force_encode { "force-encode" } else { "yes" };
        list.push(format!("MANIFEST '{kind}'"));
        list.push(format!("MANIFEST_CHECKSUMS '{}'", checksums.name()));
    }
    list
}

/// A line break in a label would add lines to `backup_label`; the server does not look.
fn label(options: &BaseBackupOptions) -> String {
    let mut label: String = options.label.chars().filter(|c| !c.is_control()).collect();
    while label.len() > MAX_LABEL {
        label.pop();
    }
    grammar::string(&label)
}
