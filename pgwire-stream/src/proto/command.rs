//! Replication commands as text, in the grammar of each server version.
//!
//! Follows `src/backend/replication/repl_gram.y`: keywords are upper case, a single quote in a
//! string is doubled and a backslash is literal.

use std::fmt::Write as _;

use crate::proto::feedback::Intervals;
use crate::{Feature, Lsn, Misuse, ServerVersion, SlotName, TimelineId, Unsupported};

/// How a physical slot is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhysicalSlot {
    /// The slot ends with the connection.
    pub temporary: bool,
    /// WAL is kept from the last checkpoint on, rather than from the first status update.
    pub reserve_wal: bool,
}

/// What to do about a slot that somebody uses when it is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DropSlot {
    /// Fail.
    #[default]
    FailIfActive,
    /// Wait until it is free.
    Wait,
}

/// Where and how physical streaming begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartReplication {
    /// The slot that keeps WAL for us.
    pub slot: Option<SlotName>,
    /// The first byte wanted. Any position; a whole segment needs its start.
    pub from: Lsn,
    /// The timeline wanted; the server's current one by default.
    pub timeline: Option<TimelineId>,
    /// What was durable before: reported as flushed from the start, and the least that
    /// [`Progress::flushed`](crate::Progress::flushed) accepts whatever has been received.
    pub already_flushed: Lsn,
    /// How often to report, and how long to listen to silence.
    pub intervals: Intervals,
}

impl StartReplication {
    /// Streaming from this position, without a slot and with nothing durable yet.
    pub fn new(from: Lsn) -> Self {
        Self {
            slot: None,
            from,
            timeline: None,
            already_flushed: Lsn::ZERO,
            intervals: Intervals::default(),
        }
    }
}

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

/// What a base backup shall contain. It never waits for the server's own WAL archiving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseBackupOptions {
    /// Shown in `backup_label`, at most 1024 bytes; control characters are left out.
    pub label: String,
    /// Checkpoint at once instead of spread over time.
    pub fast_checkpoint: bool,
    /// Estimate the size first, which walks the whole cluster.
    pub progress: bool,
    /// The server's limit in kB/s, 32 to 1048576.
    pub max_rate_kb: Option<u32>,
    /// Send a `tablespace_map` instead of symbolic links.
    pub tablespace_map: bool,
    /// Send a manifest with these checksums (servers from 13 on).
    pub manifest: Option<ManifestChecksums>,
    /// Verify page checksums while reading (servers from 11 on).
    pub verify_checksums: bool,
}

impl Default for BaseBackupOptions {
    fn default() -> Self {
        Self {
            label: "base backup".to_owned(),
            fast_checkpoint: false,
            progress: true,
            max_rate_kb: None,
            tablespace_map: true,
            manifest: Some(ManifestChecksums::default()),
            verify_checksums: true,
        }
    }
}

/// A replication command, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The command's name, for messages.
    pub name: &'static str,
    /// The text to send.
    pub text: String,
}

impl Command {
    fn new(name: &'static str, text: String) -> Self {
        Self { name, text }
    }

    /// `IDENTIFY_SYSTEM`.
    pub fn identify_system() -> Self {
        Self::new("IDENTIFY_SYSTEM", "IDENTIFY_SYSTEM".to_owned())
    }

    /// `SHOW`.
    ///
    /// # Errors
    /// If the server is too old, or the name is not a setting's.
    pub fn show(setting: &str, version: ServerVersion) -> Result<Self, crate::Error> {
        version.require(Feature::ReplicationSql)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'.';
        if setting.is_empty() || !setting.bytes().all(plain) {
            return Err(Misuse::Argument("this cannot be the name of a setting").into());
        }
        Ok(Self::new("SHOW", format!("SHOW {setting}")))
    }

    /// `TIMELINE_HISTORY`.
    pub fn timeline_history(timeline: TimelineId) -> Self {
        Self::new("TIMELINE_HISTORY", format!("TIMELINE_HISTORY {timeline}"))
    }

    /// `CREATE_REPLICATION_SLOT … PHYSICAL`.
    ///
    /// # Errors
    /// If the server is too old for an option.
    pub fn create_physical_slot(
        slot: &SlotName,
        options: PhysicalSlot,
        version: ServerVersion,
    ) -> Result<Self, Unsupported> {
        let mut text = format!("CREATE_REPLICATION_SLOT \"{slot}\"");
        if options.temporary {
            version.require(Feature::ReplicationSql)?;
            text.push_str(" TEMPORARY");
        }
        text.push_str(" PHYSICAL");
        if options.reserve_wal {
            version.require(Feature::ReserveWal)?;
            // The form without parentheses is accepted by every version so far.
            text.push_str(if version.supports(Feature::OptionLists) {
                " (RESERVE_WAL)"
            } else {
                " RESERVE_WAL"
            });
        }
        Ok(Self::new("CREATE_REPLICATION_SLOT", text))
    }

    /// `READ_REPLICATION_SLOT`.
    ///
    /// # Errors
    /// If the server is too old.
    pub fn read_slot(slot: &SlotName, version: ServerVersion) -> Result<Self, Unsupported> {
        version.require(Feature::ReadSlot)?;
        Ok(Self::new("READ_REPLICATION_SLOT", format!("READ_REPLICATION_SLOT \"{slot}\"")))
    }

    /// `DROP_REPLICATION_SLOT`.
    ///
    /// # Errors
    /// If the server is too old to wait.
    pub fn drop_slot(
        slot: &SlotName,
        active: DropSlot,
        version: ServerVersion,
    ) -> Result<Self, Unsupported> {
        let mut text = format!("DROP_REPLICATION_SLOT \"{slot}\"");
        if active == DropSlot::Wait {
            version.require(Feature::ReplicationSql)?;
            text.push_str(" WAIT");
        }
        Ok(Self::new("DROP_REPLICATION_SLOT", text))
    }

    /// `START_REPLICATION … PHYSICAL`.
    pub fn start_replication(options: &StartReplication) -> Self {
        let mut text = "START_REPLICATION".to_owned();
        if let Some(slot) = &options.slot {
            let _ = write!(text, " SLOT \"{slot}\"");
        }
        let _ = write!(text, " PHYSICAL {}", options.from);
        if let Some(timeline) = options.timeline {
            let _ = write!(text, " TIMELINE {timeline}");
        }
        Self::new("START_REPLICATION", text)
    }

    /// `BASE_BACKUP`, in the grammar of the server's version.
    ///
    /// Options whose default is sticky or waits are always spelled out.
    ///
    /// # Errors
    /// If the server is too old for an option, or the rate is out of its range.
    pub fn base_backup(
        options: &BaseBackupOptions,
        version: ServerVersion,
    ) -> Result<Self, crate::Error> {
        if options.manifest.is_some() {
            version.require(Feature::Manifest)?;
        }
        if options.max_rate_kb.is_some_and(|rate| !(32..=1_048_576).contains(&rate)) {
            return Err(Misuse::Argument("the rate must be from 32 to 1048576 kB/s").into());
        }
        let text = if version.supports(Feature::OptionLists) {
            format!("BASE_BACKUP ({})", option_list(options).join(", "))
        } else {
            format!("BASE_BACKUP {}", legacy_options(options, version).join(" "))
        };
        Ok(Self::new("BASE_BACKUP", text))
    }
}

/// The options of servers from 15 on.
fn option_list(options: &BaseBackupOptions) -> Vec<String> {
    let flag = |name: &str, value: bool| format!("{name} {value}");
    let checkpoint = if options.fast_checkpoint { "fast" } else { "spread" };
    let mut list = vec![
        format!("LABEL {}", quoted(&label(&options.label))),
        flag("PROGRESS", options.progress),
        format!("CHECKPOINT '{checkpoint}'"),
        flag("WAIT", false),
        flag("TABLESPACE_MAP", options.tablespace_map),
        flag("VERIFY_CHECKSUMS", options.verify_checksums),
    ];
    list.extend(options_with_values(options));
    list
}

/// The keywords of servers up to 14.
fn legacy_options(options: &BaseBackupOptions, version: ServerVersion) -> Vec<String> {
    let mut list = vec![format!("LABEL {}", quoted(&label(&options.label)))];
    let mut keyword = |name: &str, wanted: bool| {
        if wanted {
            list.push(name.to_owned());
        }
    };
    keyword("PROGRESS", options.progress);
    keyword("FAST", options.fast_checkpoint);
    keyword("NOWAIT", true);
    keyword("TABLESPACE_MAP", options.tablespace_map);
    // Older servers do not verify, and do not know the word.
    let verifies = version.supports(Feature::ChecksumVerification);
    keyword("NOVERIFY_CHECKSUMS", verifies && !options.verify_checksums);
    list.extend(options_with_values(options));
    list
}

/// What is spelled alike in both grammars.
fn options_with_values(options: &BaseBackupOptions) -> Vec<String> {
    let mut list = Vec::new();
    if let Some(rate) = options.max_rate_kb {
        list.push(format!("MAX_RATE {rate}"));
    }
    if let Some(checksums) = options.manifest {
        list.push("MANIFEST 'yes'".to_owned());
        list.push(format!("MANIFEST_CHECKSUMS '{}'", checksums.name()));
    }
    list
}

/// A line break in a label would add lines to `backup_label`; the server does not look.
fn label(text: &str) -> String {
    let mut label: String = text.chars().filter(|c| !c.is_control()).collect();
    while label.len() > 1024 {
        label.pop();
    }
    label
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn version(major: u32) -> ServerVersion {
        ServerVersion::from_num(major * 10_000)
    }

    fn slot() -> SlotName {
        "walrecv".parse().unwrap()
    }

    #[test]
    fn slots_are_created_in_each_grammar() {
        let create = |options, major| {
            Command::create_physical_slot(&slot(), options, version(major)).unwrap().text
        };
        let reserved = PhysicalSlot { temporary: false, reserve_wal: true };
        assert_eq!(
            create(reserved, 10),
            "CREATE_REPLICATION_SLOT \"walrecv\" PHYSICAL RESERVE_WAL"
        );
        assert_eq!(
            create(reserved, 18),
            "CREATE_REPLICATION_SLOT \"walrecv\" PHYSICAL (RESERVE_WAL)"
        );
        let temporary = PhysicalSlot { temporary: true, reserve_wal: false };
        assert_eq!(create(temporary, 14), "CREATE_REPLICATION_SLOT \"walrecv\" TEMPORARY PHYSICAL");
    }

    #[test]
    fn a_server_that_is_too_old_is_told_so_before_anything_is_sent() {
        let error = Command::read_slot(&slot(), version(14)).unwrap_err();
        assert_eq!((error.needs, error.have), (version(15), version(14)));
        let options = BaseBackupOptions::default();
        assert!(Command::base_backup(&options, version(12)).is_err());
    }

    #[test]
    fn streaming_names_slot_position_and_timeline() {
        let mut start = StartReplication::new(Lsn::from_u64(0x0300_0000));
        assert_eq!(Command::start_replication(&start).text, "START_REPLICATION PHYSICAL 0/3000000");
        start.slot = Some(slot());
        start.timeline = TimelineId::new(2);
        assert_eq!(
            Command::start_replication(&start).text,
            "START_REPLICATION SLOT \"walrecv\" PHYSICAL 0/3000000 TIMELINE 2"
        );
    }

    #[test]
    fn base_backups_are_asked_for_in_both_grammars() {
        let options = BaseBackupOptions {
            label: "it's\nnight".into(),
            fast_checkpoint: true,
            max_rate_kb: Some(10_240),
            ..BaseBackupOptions::default()
        };
        let text = |options: &BaseBackupOptions, major| {
            Command::base_backup(options, version(major)).unwrap().text
        };
        assert_eq!(
            text(&options, 15),
            "BASE_BACKUP (LABEL 'it''snight', PROGRESS true, CHECKPOINT 'fast', WAIT false, \
             TABLESPACE_MAP true, VERIFY_CHECKSUMS true, MAX_RATE 10240, MANIFEST 'yes', \
             MANIFEST_CHECKSUMS 'CRC32C')"
        );
        assert_eq!(
            text(&options, 14),
            "BASE_BACKUP LABEL 'it''snight' PROGRESS FAST NOWAIT TABLESPACE_MAP MAX_RATE 10240 \
             MANIFEST 'yes' MANIFEST_CHECKSUMS 'CRC32C'"
        );
        let unverified =
            BaseBackupOptions { manifest: None, verify_checksums: false, ..options.clone() };
        assert!(text(&unverified, 11).contains("NOVERIFY_CHECKSUMS"));
        assert!(!text(&unverified, 10).contains("CHECKSUMS"));
        let wild = BaseBackupOptions { max_rate_kb: Some(1), ..options };
        assert!(Command::base_backup(&wild, version(15)).is_err());
    }

    #[test]
    fn settings_cannot_smuggle_commands() {
        assert_eq!(Command::show("wal_level", version(10)).unwrap().text, "SHOW wal_level");
        assert!(Command::show("a; DROP", version(10)).is_err());
    }
}
