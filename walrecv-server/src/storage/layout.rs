//! Where everything lies. No other file of this program puts a path together.
//!
//! ```text
//! <home>/<server>/identity.json
//!                 streaming/<segment>[.partial]
//!                 wals/<16 digits>/<segment>[.partial][.zst|.lz4|.gz][.age]    wals/<16 digits>/index
//!                 wals/<timeline>.history
//!                 base/<backup id>/{backup.json,backup_manifest,<archive>[.zst|…][.age],<archive>.idx}
//!                 state/{backups,begun_scrub,caught_up,gaps,retired,schedule,scrub,switches}.json
//!                 state/leases/<id>.json
//!                 locks/  errors/
//!                 previous/<system id>/        the same for each cluster that had the name before
//! <home>/.<server>.adopting/                   on its way there
//! ```

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use pgwire_stream::{SegmentName, TimelineId, WalFileName};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Access, BackupId, Form, LockKind, StorageError, durable};
use crate::settings::ServerName;

/// The directory under which everything is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    path: PathBuf,
    access: Access,
}

impl Home {
    /// The store at `path`, whose files are made with these permissions.
    pub fn new(path: impl Into<PathBuf>, access: Access) -> Self {
        Self { path: path.into(), access }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The permissions of what is made in it.
    pub fn access(&self) -> Access {
        self.access
    }

    /// The part of the store that belongs to one server.
    pub fn server(&self, name: &ServerName) -> ServerDir {
        ServerDir { path: self.path.join(name.as_str()), name: name.clone(), access: self.access }
    }

    /// What is stored for a server while it is being set apart for another cluster.
    pub fn being_set_apart(&self, name: &ServerName) -> ServerDir {
        let path = self.path.join(format!(".{name}.adopting"));
        ServerDir { path, name: name.clone(), access: self.access }
    }

    /// The servers that something is stored for, in the order of their names.
    ///
    /// # Errors
    /// If the directory cannot be read; one that is not there holds nothing.
    pub fn servers(&self) -> Result<Vec<ServerName>, StorageError> {
        let mut names: Vec<ServerName> = durable::list_dir(&self.path)?
            .iter()
            .filter_map(|name| name.to_str()?.parse().ok())
            .filter(|name| self.server(name).identity().exists())
            .collect();
        names.sort();
        Ok(names)
    }
}

/// Everything that is stored for one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerDir {
    path: PathBuf,
    name: ServerName,
    access: Access,
}

impl ServerDir {
    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    pub fn name(&self) -> &ServerName {
        &self.name
    }

    /// The permissions of what is made in it.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Makes the directory and those in it that are always there.
    ///
    /// # Errors
    /// If one of them cannot be made durably.
    pub fn create(&self) -> Result<(), StorageError> {
        for directory in
            [self.streaming(), self.wals(), self.base(), self.state(), self.locks(), self.errors()]
        {
            durable::create_dir(&directory, self.access)?;
        }
        Ok(())
    }

    /// The stores of the clusters that had this name before, each named after its system identifier.
    pub fn previous(&self) -> Home {
        Home::new(self.path.join("previous"), self.access)
    }

    /// Which cluster this is the store of.
    pub fn identity(&self) -> PathBuf {
        self.path.join("identity.json")
    }

    /// Where WAL is received: raw segments.
    pub fn streaming(&self) -> PathBuf {
        self.path.join("streaming")
    }

    /// A segment that is being received.
    pub fn streaming_partial(&self, segment: SegmentName) -> PathBuf {
        self.streaming().join(WalFileName::Partial(segment).to_string())
    }

    /// A segment that was received completely and is not archived yet.
    pub fn streaming_segment(&self, segment: SegmentName) -> PathBuf {
        self.streaming().join(segment.to_string())
    }

    /// The WAL archive.
    pub fn wals(&self) -> PathBuf {
        self.path.join("wals")
    }

    /// The directory of the archive that holds a segment.
    pub fn wal_dir(&self, segment: SegmentName) -> PathBuf {
        self.wals().join(segment.folder())
    }

    /// A complete segment in the archive.
    pub fn archived(&self, segment: SegmentName, form: impl Into<Form>) -> PathBuf {
        self.archived_file(ArchivedWal { segment, partial: false, form: form.into() })
    }

    /// A file of the archive.
    pub fn archived_file(&self, file: ArchivedWal) -> PathBuf {
        self.wal_dir(file.segment).join(file.to_string())
    }

    /// What is known of the segments in the directory that holds this one.
    pub fn wal_index(&self, segment: SegmentName) -> PathBuf {
        self.wal_dir(segment).join("index")
    }

    /// The history of a timeline.
    pub fn history(&self, timeline: TimelineId) -> PathBuf {
        self.wals().join(WalFileName::History(timeline).to_string())
    }

    /// Where base backups lie.
    pub fn base(&self) -> PathBuf {
        self.path.join("base")
    }

    /// One base backup.
    pub fn backup(&self, id: BackupId) -> BackupDir {
        BackupDir { path: self.base().join(id.to_string()), id, access: self.access }
    }

    /// What the program remembers about itself.
    pub fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// When the server was last seen to have no more WAL than was held.
    pub fn caught_up(&self) -> PathBuf {
        self.state().join("caught_up.json")
    }

    /// The WAL that was given up on.
    pub fn gaps(&self) -> PathBuf {
        self.state().join("gaps.json")
    }

    /// The WAL that was removed because nobody needed it any more.
    pub fn retired(&self) -> PathBuf {
        self.state().join("retired.json")
    }

    /// The changes of timelines that were followed.
    pub fn switches(&self) -> PathBuf {
        self.state().join("switches.json")
    }

    /// Up to when scheduled moments have had their turn.
    pub fn schedule(&self) -> PathBuf {
        self.state().join("schedule.json")
    }

    /// How the last verification of everything went.
    pub fn scrub(&self) -> PathBuf {
        self.state().join("scrub.json")
    }

    /// How far a verification of everything has come that was cut short.
    pub fn begun_scrub(&self) -> PathBuf {
        self.state().join("begun_scrub.json")
    }

    /// The backups that have to be there.
    pub fn register(&self) -> PathBuf {
        self.state().join("backups.json")
    }

    /// What restores need to stay.
    pub fn leases(&self) -> PathBuf {
        self.state().join("leases")
    }

    /// What one of them needs; the name is one that makes no path.
    pub fn lease(&self, id: impl fmt::Display) -> PathBuf {
        self.leases().join(format!("{id}.json"))
    }

    /// Where locks lie.
    pub fn locks(&self) -> PathBuf {
        self.path.join("locks")
    }

    /// The file that carries a lock.
    pub fn lock(&self, kind: LockKind) -> PathBuf {
        self.locks().join(kind.file_name())
    }

    /// What was set apart because it cannot be believed.
    pub fn errors(&self) -> PathBuf {
        self.path.join("errors")
    }
}

/// One base backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupDir {
    path: PathBuf,
    id: BackupId,
    access: Access,
}

impl BackupDir {
    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same backup, under another name.
    pub(crate) fn at(&self, path: &Path) -> Self {
        Self { path: path.to_owned(), ..self.clone() }
    }

    /// Which backup it is.
    pub fn id(&self) -> BackupId {
        self.id
    }

    /// The permissions of what is made in it.
    pub fn access(&self) -> Access {
        self.access
    }

    /// What is known of the backup.
    pub fn record(&self) -> PathBuf {
        self.path.join("backup.json")
    }

    /// PostgreSQL's own manifest.
    pub fn manifest(&self) -> PathBuf {
        self.path.join("backup_manifest")
    }

    /// The mark on a backup that is to stay.
    pub fn keep(&self) -> PathBuf {
        self.path.join("keep.json")
    }

    /// What a verification found wrong with the backup.
    pub fn damage(&self) -> PathBuf {
        self.path.join("damage.json")
    }

    /// A tar archive, such as `base.tar`, as it is stored.
    pub fn archive(&self, name: &str, form: impl Into<Form>) -> PathBuf {
        self.path.join(format!("{name}{}", form.into()))
    }

    /// The configuration files that lie outside of the data directory.
    pub fn config_files(&self, form: impl Into<Form>) -> PathBuf {
        self.archive("config.tar", form)
    }

    /// Frames and members of a tar archive.
    pub fn archive_index(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.idx"))
    }
}

/// A file of the WAL archive: `<segment>[.partial][.zst|.lz4|.gz][.age]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArchivedWal {
    /// The segment.
    pub segment: SegmentName,
    /// Whether only its beginning is there, because its timeline was left within it.
    pub partial: bool,
    /// How it is stored.
    pub form: Form,
}

/// The text is not the name of an archived segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the name of an archived WAL segment")]
pub struct ArchivedWalError {
    text: String,
}

impl fmt::Display for ArchivedWal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let partial = if self.partial { ".partial" } else { "" };
        write!(f, "{}{partial}{}", self.segment, self.form)
    }
}

impl FromStr for ArchivedWal {
    type Err = ArchivedWalError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (plain, form) = Form::split_suffix(text);
        match plain.parse() {
            Ok(WalFileName::Segment(segment)) => Ok(Self { segment, partial: false, form }),
            Ok(WalFileName::Partial(segment)) => Ok(Self { segment, partial: true, form }),
            _ => Err(ArchivedWalError { text: text.chars().take(80).collect() }),
        }
    }
}

impl Serialize for ArchivedWal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ArchivedWal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Codec;

    #[test]
    fn paths_are_as_documented() {
        let server = Home::new("/srv", Access::Private).server(&"main".parse().unwrap());
        let segment: SegmentName = "00000001000000A100000002".parse().unwrap();
        assert_eq!(
            server.archived(segment, Codec::Zstd),
            Path::new("/srv/main/wals/00000001000000A1/00000001000000A100000002.zst")
        );
        assert_eq!(
            server.streaming_partial(segment),
            Path::new("/srv/main/streaming/00000001000000A100000002.partial")
        );
        let backup = server.backup("20260305T151133".parse().unwrap());
        assert_eq!(
            backup.archive("16386.tar", Codec::Lz4),
            Path::new("/srv/main/base/20260305T151133/16386.tar.lz4")
        );
    }

    #[test]
    fn archived_names_round_trip() {
        for text in [
            "00000001000000A100000002",
            "00000001000000A100000002.zst",
            "00000001000000A100000002.partial.gz",
            "00000001000000A100000002.partial",
            "00000001000000A100000002.zst.age",
            "00000001000000A100000002.partial.age",
        ] {
            assert_eq!(text.parse::<ArchivedWal>().unwrap().to_string(), text);
        }
        for text in [
            "index",
            "00000002.history",
            "00000001000000A100000002.zst.zst",
            "00000001000000A100000002.age.zst",
            ".x.tmp",
        ] {
            assert!(text.parse::<ArchivedWal>().is_err(), "{text}");
        }
    }
}
