//! Server versions, and the one table of what depends on them.

use std::fmt;

/// A server's version as `server_version_num` counts it: 150020 is 15.20, 90624 is 9.6.24.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerVersion(u32);

/// Something that not every server can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Feature {
    /// `CREATE_REPLICATION_SLOT … RESERVE_WAL`.
    ReserveWal,
    /// `SHOW`, plain SQL on `replication=database` connections, cancel requests that reach a
    /// walsender.
    ReplicationSql,
    /// `CREATE_REPLICATION_SLOT … TEMPORARY`.
    TemporarySlots,
    /// What becomes of a logical slot's snapshot is chosen; before, it is always exported.
    SnapshotChoice,
    /// `DROP_REPLICATION_SLOT … WAIT`.
    DropSlotWait,
    /// `NOVERIFY_CHECKSUMS` / `VERIFY_CHECKSUMS`.
    ChecksumVerification,
    /// Recovery settings as ordinary settings, with signal files instead of `recovery.conf`.
    SignalFiles,
    /// `backup_manifest` beside a base backup.
    Manifest,
    /// `READ_REPLICATION_SLOT`.
    ReadSlot,
    /// Options in parentheses, and a base backup as one stream of typed messages.
    OptionLists,
    /// `CREATE_REPLICATION_SLOT … TWO_PHASE`.
    TwoPhaseSlots,
    /// `BASE_BACKUP (TARGET …)`.
    BackupTargets,
    /// `BASE_BACKUP (COMPRESSION …)`.
    ServerCompression,
    /// `long` in `COMPRESSION_DETAIL`.
    LongDistanceMatching,
    /// `CREATE_REPLICATION_SLOT … FAILOVER`.
    FailoverSlots,
    /// `ALTER_REPLICATION_SLOT`.
    AlterSlot,
    /// `UPLOAD_MANIFEST` and `BASE_BACKUP (INCREMENTAL)`.
    IncrementalBackup,
    /// `ALTER_REPLICATION_SLOT … TWO_PHASE`.
    AlterTwoPhase,
    /// Protocol 3.2 with long cancel keys.
    Protocol32,
    /// Primary status messages in a stream.
    PrimaryStatus,
    /// `START TIMELINE` in `backup_label`, `STOP TIMELINE` in backup history files.
    TimelineInBackupLabel,
    /// `primary` in `backup_label`, which was `master`.
    PrimaryInBackupLabel,
    /// Backslashes in `tablespace_map` are escaped.
    EscapedBackslash,
    /// WAL positions as `%X/%08X` in everything that a server writes.
    PaddedLsn,
}

/// The first version that has each feature: the only place where versions are compared.
const GATES: &[(Feature, u32, &str)] = &[
    (Feature::ReserveWal, 90600, "RESERVE_WAL"),
    (Feature::ReplicationSql, 10_0000, "SHOW and SQL on replication connections"),
    (Feature::TemporarySlots, 10_0000, "a temporary replication slot"),
    (Feature::SnapshotChoice, 10_0000, "a choice of a logical slot's snapshot"),
    (Feature::DropSlotWait, 10_0000, "waiting to drop a replication slot"),
    (Feature::ChecksumVerification, 11_0000, "checksum verification in base backups"),
    (Feature::SignalFiles, 12_0000, "recovery.signal"),
    (Feature::Manifest, 13_0000, "backup manifests"),
    (Feature::ReadSlot, 15_0000, "READ_REPLICATION_SLOT"),
    (Feature::OptionLists, 15_0000, "option lists in replication commands"),
    (Feature::TwoPhaseSlots, 15_0000, "TWO_PHASE in CREATE_REPLICATION_SLOT"),
    (Feature::BackupTargets, 15_0000, "a base backup's target"),
    (Feature::ServerCompression, 15_0000, "compression of base backups by the server"),
    (Feature::LongDistanceMatching, 16_0000, "long-distance matching in base backups"),
    (Feature::FailoverSlots, 17_0000, "FAILOVER in CREATE_REPLICATION_SLOT"),
    (Feature::AlterSlot, 17_0000, "ALTER_REPLICATION_SLOT"),
    (Feature::IncrementalBackup, 17_0000, "incremental backup"),
    (Feature::AlterTwoPhase, 18_0000, "TWO_PHASE in ALTER_REPLICATION_SLOT"),
    (Feature::Protocol32, 18_0000, "protocol 3.2"),
    (Feature::PrimaryStatus, 19_0000, "primary status messages"),
    (Feature::TimelineInBackupLabel, 11_0000, "timelines in backup_label"),
    (Feature::PrimaryInBackupLabel, 14_0000, "the word primary in backup_label"),
    (Feature::EscapedBackslash, 14_0000, "backslashes in tablespace_map"),
    (Feature::PaddedLsn, 19_0000, "zero-padded WAL positions"),
];

/// The server is too old for what was asked of it; nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} needs PostgreSQL {needs}, and this server is {have}")]
pub struct Unsupported {
    /// What was asked for.
    pub what: &'static str,
    /// The first version that has it.
    pub needs: ServerVersion,
    /// The version of the server.
    pub have: ServerVersion,
}

impl ServerVersion {
    /// The version with this `server_version_num`.
    pub const fn from_num(num: u32) -> Self {
        Self(num)
    }

    /// The number, as `server_version_num` shows it.
    pub const fn num(self) -> u32 {
        self.0
    }

    /// Reads the free text of `server_version`: `15.20 (Debian 15.20-0+deb12u1)`, `9.6.24`,
    /// `19beta1`, `18devel`. `None` if it does not start with a version.
    pub fn parse_text(text: &str) -> Option<Self> {
        let mut parts = text.trim().splitn(3, '.').map(leading_number);
        let major = parts.next().flatten().filter(|&major| major > 0 && major < 2000)?;
        let second = parts.next().flatten().unwrap_or(0).min(99);
        let third = parts.next().flatten().unwrap_or(0).min(99);
        Some(Self(if major >= 10 {
            major * 10_000 + second
        } else {
            major * 10_000 + second * 100 + third
        }))
    }

    /// The major version as PostgreSQL counts since 10; 9 for all of 9.x.
    pub const fn major(self) -> u32 {
        self.0 / 10_000
    }

    /// Whether a server of this version has the feature.
    pub fn supports(self, feature: Feature) -> bool {
        self.require(feature).is_ok()
    }

    /// # Errors
    /// If a server of this version lacks the feature.
    pub fn require(self, feature: Feature) -> Result<(), Unsupported> {
        match GATES.iter().find(|(gated, ..)| *gated == feature) {
            Some(&(_, needs, what)) if self.0 < needs => {
                Err(Unsupported { what, needs: Self(needs), have: self })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for ServerVersion {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for ServerVersion {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(<u32 as serde::Deserialize>::deserialize(deserializer)?))
    }
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, rest) = (self.major(), self.0 % 10_000);
        match (major >= 10, rest) {
            (true, 0) => write!(f, "{major}"),
            (true, minor) => write!(f, "{major}.{minor}"),
            (false, _) if rest % 100 == 0 => write!(f, "{major}.{}", rest / 100),
            (false, _) => write!(f, "{major}.{}.{}", rest / 100, rest % 100),
        }
    }
}

impl fmt::Debug for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_servers_call_themselves() {
        for (text, num, printed) in [
            ("15.20 (Debian 15.20-0+deb12u1)", 150_020, "15.20"),
            ("9.6.24", 90_624, "9.6.24"),
            ("9.5", 90_500, "9.5"),
            ("19beta1", 190_000, "19"),
            ("18devel", 180_000, "18"),
            ("10.23", 100_023, "10.23"),
        ] {
            let version = ServerVersion::parse_text(text).unwrap();
            assert_eq!(version.num(), num);
            assert_eq!(version.to_string(), printed);
        }
        for text in ["", "devel", "0", ".1"] {
            assert_eq!(ServerVersion::parse_text(text), None, "{text:?}");
        }
    }

    #[test]
    fn gates_open_at_their_version() {
        for &(feature, needs, _) in GATES {
            assert!(ServerVersion(needs).supports(feature));
            let older = ServerVersion(needs - 1);
            assert_eq!(older.require(feature).unwrap_err().needs, ServerVersion(needs));
        }
    }

    proptest! {
        #[test]
        fn never_panics(text: String) {
            let _ = ServerVersion::parse_text(&text);
        }
    }
}
