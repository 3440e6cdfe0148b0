//! `backup.json`: what is known of one base backup.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pgwire_stream::{Lsn, SegmentSize, ServerVersion, SystemId, TimelineId};
use serde::{Deserialize, Serialize};

use super::document::{self, DocumentError};
use crate::settings::ServerName;
use crate::storage::{
    BackupDir, BackupId, Codec, Crc32c, Fingerprint, Form, Plain, Sha256Sum, Stored,
};

/// Raised whenever a reader of the previous format would misunderstand the new one. Fields that
/// may be absent are added without it.
const FORMAT: u64 = 1;

/// What is known of a base backup.
///
/// It is written when the backup starts and again when it ends, each time as a whole. Whether the
/// backup can be restored is not in it: that depends on the WAL that is there, and is computed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupRecord {
    /// The backup's name.
    pub id: BackupId,
    /// The server that it is of.
    pub server: ServerName,
    /// How far it came.
    pub outcome: BackupOutcome,
    /// A name that the operator gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The label that the server wrote into `backup_label`.
    pub label: String,
    /// The backup that this one is the difference to; absent in a full one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<BackupId>,
    /// The cluster.
    pub system_id: SystemId,
    /// The size of its WAL segments.
    pub segment_size: SegmentSize,
    /// The server's version.
    pub server_version: ServerVersion,
    /// Whether its data checksums were on, if the role may know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_checksums: Option<bool>,
    /// The version of the program that took it.
    pub program_version: String,
    /// When it began, by our clock. Backups are ordered by this.
    pub began_at: Timestamp,
    /// When it ended, well or not, by our clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// When WAL was seen to reach its end for the first time. Missing WAL means "not yet" before
    /// and "lost" after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_at: Option<Timestamp>,
    /// Where recovery begins; absent until the server said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begin: Option<Position>,
    /// Up to where recovery must get at least; absent until the server said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Position>,
    /// The tablespaces outside the data directory.
    #[serde(default)]
    pub tablespaces: Vec<Tablespace>,
    /// The tar archives, in the order in which the server sent them.
    #[serde(default)]
    pub archives: Vec<Archive>,
    /// The manifest; absent until it is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Manifest>,
    /// Configuration files outside of the data directory; absent if there are none, or the server
    /// does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_files: Option<ConfigFiles>,
    /// Pages that were damaged on the server, if they were looked for and there are some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged_pages: Option<DamagedPages>,
}

/// Configuration files outside of the data directory, in an archive of their own, `config.tar`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigFiles {
    /// Those that are kept.
    pub files: Vec<String>,
    /// Those that the role may not read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed: Vec<String>,
    /// Which setting names which of them all: `config_file`, `hba_file` and `ident_file`, as far as
    /// they are here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub named: BTreeMap<String, String>,
    /// How the archive is compressed.
    pub codec: Codec,
    /// Whether it is encrypted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
    /// The archive as it is stored; absent if no file could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<Stored>,
}

impl ConfigFiles {
    /// How the archive is stored.
    pub fn form(&self) -> Form {
        Form { codec: self.codec, encrypted: self.encrypted }
    }
}

/// Pages that were damaged on the server when it was backed up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedPages {
    /// How many.
    pub pages: u64,
    /// Some of the files that they are in.
    pub files: Vec<String>,
}

impl DamagedPages {
    /// How many files are named.
    const MOST_FILES: usize = 100;

    /// Adds a page of a file. Those of one file come together.
    pub fn add(&mut self, path: &str) {
        self.pages += 1;
        if self.files.len() < Self::MOST_FILES && self.files.last().is_none_or(|last| last != path)
        {
            self.files.push(path.to_owned());
        }
    }
}

/// How far a backup came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum BackupOutcome {
    /// It is being taken, or its process died.
    Started,
    /// It ended before everything was there.
    Failed {
        /// Why.
        error: String,
    },
    /// Data and manifest are there, verified and durable.
    Copied,
}

/// A place in the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The position.
    pub lsn: Lsn,
    /// The timeline it is on.
    pub timeline: TimelineId,
}

/// A tablespace outside the data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablespace {
    /// Its object identifier, which names its archive and its link in `pg_tblspc`.
    pub oid: u32,
    /// Its name, if the role may know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its directory on the server.
    pub location: String,
}

/// A stored tar archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// What the server called it: `base.tar`, `16386.tar`.
    pub name: String,
    /// The tablespace in it; absent for the data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tablespace: Option<u32>,
    /// How it is compressed, which its file name ends with.
    pub codec: Codec,
    /// Whether it is encrypted, which its file name ends with, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
    /// Whether the server has compressed it, all in one: it can be unpacked from its beginning only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_server: bool,
    /// The size of the tar archive.
    pub plain_size: u64,
    /// The size of the file.
    pub stored_size: u64,
    /// The checksum of the file, where it is encrypted or the files in it have none of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_sha256: Option<Sha256Sum>,
    /// That of any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_crc32c: Option<Crc32c>,
    /// How many files are in it.
    pub files: u64,
    /// The file that tells what lies where in it; absent in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Stored>,
}

/// The stored `backup_manifest`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Who made it.
    pub origin: ManifestOrigin,
    /// The checksum algorithm of its files, as the manifest names it; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum_algorithm: Option<String>,
    /// The size of the file.
    pub size: u64,
    /// The checksum of the file.
    pub sha256: Sha256Sum,
}

/// Who made a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ManifestOrigin {
    /// The server: every byte is what it meant to send.
    Server,
    /// We, from what arrived, for servers that know no manifests.
    Receipt,
}

/// What the paths of a tablespace's archive are below, in the data directory.
pub fn prefix(tablespace: Option<u32>) -> String {
    tablespace.map(|oid| format!("pg_tblspc/{oid}/")).unwrap_or_default()
}

impl Archive {
    /// What the paths in it are below, in the data directory: empty, or `pg_tblspc/<oid>/`.
    pub fn prefix(&self) -> String {
        prefix(self.tablespace)
    }

    /// What its file is recognised by; `None` in a record that nobody wrote so.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        let size = self.stored_size;
        let sha256 = self.stored_sha256.map(|sha256| Stored { size, sha256 }.into());
        sha256.or_else(|| Some(Fingerprint::Crc32c(Plain { size, crc32c: self.stored_crc32c? })))
    }

    /// How it is stored.
    pub fn form(&self) -> Form {
        Form { codec: self.codec, encrypted: self.encrypted }
    }
}

impl BackupRecord {
    /// Up to where recovery must get at least, as far as that is known.
    pub fn end_lsn(&self) -> Lsn {
        self.end.map(|end| end.lsn).unwrap_or_default()
    }

    /// Whether the files in it can be read with a key only.
    pub fn is_encrypted(&self) -> bool {
        self.archives.iter().any(|archive| archive.encrypted)
    }

    /// The record in a backup's directory; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read, or was written by a later version of this program.
    pub fn load(backup: &BackupDir) -> Result<Option<Self>, DocumentError> {
        document::load(&backup.record(), FORMAT)
    }

    /// Puts the record into the backup's directory in place of the one there. Durable on return.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, backup: &BackupDir) -> Result<(), DocumentError> {
        document::save(&backup.record(), FORMAT, self, backup.access())
    }

    /// The size of the archives before compression.
    pub fn plain_size(&self) -> u64 {
        self.archives.iter().map(|archive| archive.plain_size).sum()
    }

    /// The size of what is stored: archives and manifest.
    pub fn stored_size(&self) -> u64 {
        let archives: u64 = self.archives.iter().map(|archive| archive.stored_size).sum();
        archives + self.manifest.as_ref().map_or(0, |manifest| manifest.size)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::storage::{Access, Home};
    use std::fs;

    pub(in crate::catalog) fn record(id: &str, began_at: &str) -> BackupRecord {
        BackupRecord {
            id: id.parse().unwrap(),
            server: "main".parse().unwrap(),
            outcome: BackupOutcome::Started,
            name: None,
            label: "walrecv-server".to_owned(),
            parent: None,
            system_id: SystemId::from_u64(7),
            segment_size: SegmentSize::new(1 << 20).unwrap(),
            server_version: ServerVersion::from_num(150_020),
            data_checksums: None,
            program_version: "0.1.0".to_owned(),
            began_at: began_at.parse().unwrap(),
            ended_at: None,
            done_at: None,
            begin: None,
            end: None,
            tablespaces: Vec::new(),
            archives: Vec::new(),
            manifest: None,
            config_files: None,
            damaged_pages: None,
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let backup = Home::new(dir.path(), Access::Private)
            .server(&"main".parse().unwrap())
            .backup("20260305T151133".parse().unwrap());
        assert_eq!(BackupRecord::load(&backup).unwrap(), None);
        fs::create_dir_all(backup.path()).unwrap();
        let mut full = record("20260305T151133", "2026-03-05T15:11:33.5Z");
        full.save(&backup).unwrap();
        assert_eq!(BackupRecord::load(&backup).unwrap().as_ref(), Some(&full));

        let position = Position { lsn: "0/2000028".parse().unwrap(), timeline: TimelineId::FIRST };
        full.outcome = BackupOutcome::Failed { error: "connection lost".to_owned() };
        full.begin = Some(position);
        full.end = Some(position);
        full.ended_at = Some(full.began_at);
        full.done_at = Some(full.began_at);
        full.name = Some("before the upgrade".to_owned());
        full.tablespaces =
            vec![Tablespace { oid: 16386, name: None, location: "/srv/ts".to_owned() }];
        full.archives = vec![Archive {
            name: "16386.tar".to_owned(),
            tablespace: Some(16386),
            codec: Codec::Zstd,
            encrypted: true,
            by_server: true,
            plain_size: 1024,
            stored_size: 100,
            stored_sha256: Some(Sha256Sum::of(b"x")),
            stored_crc32c: None,
            files: 3,
            index: Some(Stored { size: 5, sha256: Sha256Sum::of(b"i") }),
        }];
        full.manifest = Some(Manifest {
            origin: ManifestOrigin::Server,
            checksum_algorithm: Some("CRC32C".to_owned()),
            size: 10,
            sha256: Sha256Sum::of(b"m"),
        });
        full.save(&backup).unwrap();
        assert_eq!(BackupRecord::load(&backup).unwrap().as_ref(), Some(&full));
        assert_eq!((full.plain_size(), full.stored_size()), (1024, 110));
    }

    #[test]
    fn another_format_is_refused_and_another_field_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let backup = Home::new(dir.path(), Access::Private)
            .server(&"main".parse().unwrap())
            .backup("20260305T151133".parse().unwrap());
        fs::create_dir_all(backup.path()).unwrap();
        record("20260305T151133", "2026-03-05T15:11:33Z").save(&backup).unwrap();
        let text = fs::read_to_string(backup.record()).unwrap();
        assert!(text.contains("\"format\": 1,"), "{text}");

        // Nobody but a program changes it unnoticed.
        let more = text.replace("\"format\": 1,", "\"format\": 1, \"new\": 1,");
        fs::write(backup.record(), &more).unwrap();
        let error = BackupRecord::load(&backup).unwrap_err();
        assert!(matches!(error, DocumentError::Altered { .. }), "{error}");
        fs::write(backup.record(), text.replace("150020", "150021")).unwrap();
        let error = BackupRecord::load(&backup).unwrap_err();
        assert!(matches!(error, DocumentError::Altered { .. }), "{error}");
        // Earlier versions wrote no checksum.
        let lines = more.lines().filter(|line| !line.contains("\"crc32c\""));
        let unchecked = lines.collect::<Vec<_>>().join("\n").replace(",\n}", "\n}");
        fs::write(backup.record(), unchecked).unwrap();
        assert!(BackupRecord::load(&backup).is_ok());

        fs::write(backup.record(), text.replace("\"format\": 1,", "\"format\": 2,")).unwrap();
        let error = BackupRecord::load(&backup).unwrap_err();
        assert!(matches!(error, DocumentError::UnknownFormat { found: 2, .. }), "{error}");
    }
}
