//! One file of WAL for a recovering server: finding it, and putting it where it is wanted.
//!
//! PostgreSQL takes an exit code from 1 to 125 of its `restore_command` for "the archive ends
//! here", ends the recovery and may promote. So that is said only when the archive was read
//! completely and does end there ([`Lookup::EndOfArchive`]); every error has a code of 200 or
//! more, on which PostgreSQL stops and a human looks.
//!
//! Finding and putting are apart, because the server's user may not be allowed to read the store:
//! then the daemon finds, and the user's process puts.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Buf;
use pgwire_stream::{SegmentName, WalFileName, WalNameError};

use crate::catalog::wal::WalReader;
use crate::catalog::{
    Absence, DocumentError, Held, HistoryStore, HistoryStoreError, Identity, IdentityError,
    WalError, WalIndex, WalStore,
};
use crate::failure::{Class, Failure};
use crate::settings::ServerName;
use crate::storage::{ArchivedWal, Crc32c, DecryptionError, KeyFile, ServerDir, StorageError};

/// The exit codes of `get-wal`. All but the first two make PostgreSQL stop its recovery.
pub mod exit_code {
    /// The file is where it is wanted.
    pub const DELIVERED: u8 = 0;
    /// The archive was read completely and ends before this file.
    pub const END_OF_ARCHIVE: u8 = 1;
    /// The command, the name or the configuration is wrong.
    pub const USAGE: u8 = 200;
    /// The store may not be read, and nobody serves this user.
    pub const NOT_PERMITTED: u8 = 201;
    /// What is stored is not what was received.
    pub const CORRUPT: u8 = 202;
    /// The file is missing, though WAL behind it is held.
    pub const GAP: u8 = 203;
    /// Reading or writing failed.
    pub const IO: u8 = 204;
    /// The program itself failed.
    pub const PANIC: u8 = 205;
    /// The file is encrypted, and no key that opens it is at hand.
    pub const ENCRYPTED: u8 = 206;
}

const TRIES: usize = 8;
const BUFFER: usize = 256 * 1024;

/// What there is for a name.
pub enum Lookup {
    /// A file.
    Found(WalFile),
    /// Nothing, and nothing behind it: the WAL ends here.
    EndOfArchive,
}

/// A file of WAL that can be delivered. Reading it to its end verifies it: an error of kind
/// [`io::ErrorKind::InvalidData`] means that what is stored is damaged.
pub struct WalFile {
    length: u64,
    padded_from: Option<u64>,
    reader: Box<dyn Read + Send>,
}

/// Why a file of WAL is not delivered, although the archive does not end before it.
#[derive(Debug, thiserror::Error)]
pub enum GetWalError {
    /// Nothing that an archive could hold is called so.
    #[error("get-wal was asked for something else than WAL")]
    Name(#[from] WalNameError),
    /// A `.partial` file is not asked for by its own name.
    #[error("`{name}` is the beginning of a segment, which is delivered under the segment's name")]
    PartialName {
        /// What was asked for.
        name: WalFileName,
    },
    /// Nothing was ever stored for this server.
    #[error("nothing is stored for server `{server}` in `{}`", path.display())]
    UnknownServer {
        /// The server.
        server: ServerName,
        /// Where it would be.
        path: PathBuf,
    },
    /// The store is closed to this user.
    #[error("the store may not be read by this user")]
    NotPermitted(#[source] StorageError),
    /// A file of the store is damaged.
    #[error("the stored `{name}` is damaged")]
    Corrupt {
        /// What was asked for.
        name: String,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of the store is encrypted, and no key that opens it is at hand.
    #[error("the stored `{name}` cannot be decrypted")]
    Encrypted {
        /// What was asked for.
        name: String,
        /// Why not.
        source: DecryptionError,
    },
    /// The file is lost.
    #[error("`{segment}` is {absence}, and the archive does not end there")]
    Gap {
        /// The segment.
        segment: SegmentName,
        /// How much of its beginning is held.
        held: u64,
        /// Why it is not there.
        absence: Absence,
    },
    /// The file was moved each time it was looked for.
    #[error("`{segment}` was moved {TRIES} times while it was looked for")]
    Restless {
        /// The segment.
        segment: SegmentName,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    Storage(StorageError),
}

impl GetWalError {
    /// The exit code of the program.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Name(_) | Self::PartialName { .. } | Self::UnknownServer { .. } => {
                exit_code::USAGE
            }
            Self::NotPermitted(_) => exit_code::NOT_PERMITTED,
            Self::Corrupt { .. } => exit_code::CORRUPT,
            Self::Encrypted { .. } => exit_code::ENCRYPTED,
            Self::Gap { .. } => exit_code::GAP,
            Self::Restless { .. } | Self::Storage(_) => exit_code::IO,
        }
    }

    /// Whether somebody who may read the store could still deliver the file.
    pub fn is_not_permitted(&self) -> bool {
        matches!(self, Self::NotPermitted(_))
    }

    /// Whether somebody who has a key could still deliver the file.
    pub fn is_without_keys(&self) -> bool {
        matches!(self, Self::Encrypted { source: DecryptionError::NoKeys { .. }, .. })
    }

    fn corrupt(
        name: WalFileName,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Corrupt { name: name.to_string(), source: source.into() }
    }
}

impl From<StorageError> for GetWalError {
    fn from(error: StorageError) -> Self {
        match error.source.kind() {
            io::ErrorKind::PermissionDenied => Self::NotPermitted(error),
            _ => Self::Storage(error),
        }
    }
}

impl Failure for GetWalError {
    fn class(&self) -> Class {
        match self {
            Self::Name(_) | Self::PartialName { .. } | Self::UnknownServer { .. } => Class::Usage,
            Self::Encrypted { source, .. } => source.class(),
            _ => Class::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Name(_) => "segments are called like 00000001000000A100000002, histories like \
                 00000002.history"
                .to_owned(),
            Self::PartialName { .. } => "ask for the segment's name with --partial".to_owned(),
            Self::UnknownServer { .. } => {
                "check the name of the server and the home directory".to_owned()
            }
            Self::NotPermitted(_) => {
                "run the daemon with this user among its `wal_readers`, or let the user's group \
                 read the store with `group_access = true`"
                    .to_owned()
            }
            Self::Corrupt { .. } => "check the disk of the store; recovery cannot get past this \
                                     file, but a target before it can be reached"
                .to_owned(),
            Self::Encrypted { source, .. } => return source.hint(),
            Self::Gap { .. } => {
                "recovery cannot get past this segment; a target before it can be reached, and a \
                 later backup begins behind it"
                    .to_owned()
            }
            Self::Restless { .. } => "try again".to_owned(),
            Self::Storage(error) => return error.hint(),
        })
    }
}

/// Finds what there is for a name. Takes no lock and changes nothing: the receiver and the
/// archiver may move the file meanwhile.
///
/// With `partial`, the beginning of a segment counts as the segment, padded with zeros, where the
/// WAL of its timeline ends: PostgreSQL replays it up to the last whole record. The keys are for
/// what is encrypted.
///
/// # Errors
/// If the store cannot be read completely, or what it must hold is damaged or lost.
pub fn locate(
    server: &ServerDir,
    name: &str,
    partial: bool,
    keys: Option<&KeyFile>,
) -> Result<Lookup, GetWalError> {
    let name: WalFileName = name.parse()?;
    let identity = match Identity::load(server) {
        Ok(Some(identity)) => identity,
        Ok(None) => {
            let path = server.path().to_owned();
            return Err(GetWalError::UnknownServer { server: server.name().clone(), path });
        }
        Err(IdentityError::Document(DocumentError::Storage(error))) => {
            return Err(error.into());
        }
        Err(error) => return Err(GetWalError::corrupt(name, error)),
    };
    // They are as old as the identity. If one is gone, as when a disk is not mounted, then it is
    // not the archive that ends here.
    for directory in [server.wals(), server.streaming()] {
        fs::metadata(&directory).map_err(StorageError::of("look at", &directory))?;
    }
    match name {
        WalFileName::Segment(segment) => {
            segment.number(identity.segment_size)?;
            let store = WalStore::new(server, identity.segment_size).with_keys(keys);
            locate_segment(server, &store, segment, partial)
        }
        WalFileName::History(timeline) => match HistoryStore::new(server).load(timeline) {
            Ok(Some(history)) => Ok(Lookup::Found(WalFile {
                length: history.content.len() as u64,
                padded_from: None,
                reader: Box::new(history.content.reader()),
            })),
            Ok(None) => Ok(Lookup::EndOfArchive),
            Err(HistoryStoreError::Storage(error)) => Err(error.into()),
            Err(error) => Err(GetWalError::corrupt(name, error)),
        },
        WalFileName::Partial(_) => Err(GetWalError::PartialName { name }),
    }
}

fn locate_segment(
    server: &ServerDir,
    store: &WalStore,
    segment: SegmentName,
    partial: bool,
) -> Result<Lookup, GetWalError> {
    let failed = |error| from_wal_error(segment, error);
    let size = store.segment_size();
    let number = segment.number(size)?;
    for _ in 0..TRIES {
        let (beginning, held) = match store.find(segment).map_err(failed)? {
            Some(held @ (Held::Archived { .. } | Held::Streaming { .. })) => {
                match store.open_held(&held) {
                    Ok(reader) => return Ok(Lookup::Found(whole(server, segment, &held, reader))),
                    // It has just moved on.
                    Err(error) if error.is_not_found() => continue,
                    Err(error) => return Err(failed(error)),
                }
            }
            Some(held @ Held::Partial { length, .. }) => (Some(held), length),
            None => (None, 0),
        };
        // Opened before the rest is looked at: what is opened stays, wherever its name goes.
        let beginning = match beginning.map(|held| store.open_held(&held)).transpose() {
            Ok(beginning) => beginning,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(failed(error)),
        };
        let end_of_timeline = store.end_of(segment.timeline()).map_err(failed)?.unwrap_or_default();
        // Complete by now, or only just there: look again.
        match store.find(segment).map_err(failed)? {
            Some(Held::Archived { .. } | Held::Streaming { .. }) => continue,
            Some(Held::Partial { .. }) if beginning.is_none() => continue,
            _ => {}
        }
        let from = size.start_of(number).saturating_add(held);
        let absence = store.absence(segment.timeline(), from).map_err(failed)?;
        if end_of_timeline > size.end_of(number) || absence != Absence::Missing {
            return Err(GetWalError::Gap { segment, held, absence });
        }
        if partial && let Some(file) = from_ancestor(server, store, segment, held)? {
            return Ok(Lookup::Found(file));
        }
        return Ok(match beginning {
            Some(reader) if partial && held > 0 => Lookup::Found(padded(store, reader, held)),
            _ => Lookup::EndOfArchive,
        });
    }
    Err(GetWalError::Restless { segment })
}

/// The WAL before the fork in the segment in which a timeline began, if an older timeline has more
/// of it than the `held` bytes: a server begins a timeline with a copy of that.
///
/// It matters when reception broke off just behind the switch. PostgreSQL asks for the newest
/// timeline first, and does not come back to the older one for what it did not find there; and if
/// it finds no file, it would go on along the older timeline, beyond the fork.
fn from_ancestor(
    server: &ServerDir,
    store: &WalStore,
    segment: SegmentName,
    held: u64,
) -> Result<Option<WalFile>, GetWalError> {
    let corrupt = |error| GetWalError::corrupt(WalFileName::Segment(segment), error);
    let history = match HistoryStore::new(server).load(segment.timeline()) {
        Ok(Some(history)) => history
            .parse()
            .map_err(|error| GetWalError::corrupt(WalFileName::Segment(segment), error))?,
        Ok(None) => return Ok(None),
        Err(HistoryStoreError::Storage(error)) => return Err(error.into()),
        Err(error) => return Err(corrupt(error)),
    };
    let size = store.segment_size();
    let number = segment.number(size)?;
    let (start, end) = (size.start_of(number), size.end_of(number));
    if history.switches().last().is_none_or(|switch| switch.switch_point >= end) {
        return Ok(None);
    }
    let mut best: Option<(u64, SegmentName, Held)> = None;
    for timeline in history.timelines_between(start, end) {
        let Some(fork) = history.fork_from(timeline) else { continue };
        let name = SegmentName::new(timeline, number, size);
        let found = store.find(name).map_err(|error| from_wal_error(segment, error))?;
        let Some(found) = found else { continue };
        let length = match found {
            Held::Partial { length, .. } => length,
            Held::Archived { .. } | Held::Streaming { .. } => size.bytes().into(),
        };
        let usable = length.min(fork.bytes_since(start));
        if usable > best.as_ref().map_or(held, |(most, ..)| *most) {
            best = Some((usable, name, found));
        }
    }
    let Some((usable, name, found)) = best else { return Ok(None) };
    // Should it have moved meanwhile, PostgreSQL stops and can be started again.
    let reader = store.open_held(&found).map_err(|error| from_wal_error(segment, error))?;
    let reader = whole(server, name, &found, reader).take(usable);
    Ok(Some(padded(store, reader, usable)))
}

/// The first `held` bytes of a segment, filled up with zeros.
fn padded(store: &WalStore, reader: impl Read + Send + 'static, held: u64) -> WalFile {
    let length = u64::from(store.segment_size().bytes());
    let zeros = io::repeat(0).take(length.saturating_sub(held));
    WalFile { length, padded_from: Some(held), reader: Box::new(reader.chain(zeros)) }
}

fn whole(server: &ServerDir, segment: SegmentName, held: &Held, reader: WalReader) -> WalFile {
    let length = reader.length();
    let known = match held {
        // Without an index, the size and the checksums of the codec must do.
        Held::Archived { form, .. } => WalIndex::of(server, segment)
            .find(ArchivedWal { segment, partial: false, form: *form })
            .ok()
            .flatten(),
        Held::Streaming { .. } | Held::Partial { .. } => None,
    };
    let reader: Box<dyn Read + Send> = match known {
        Some(record) => Box::new(Verified {
            source: reader,
            found: Crc32c::default(),
            expected: record.plain_crc32c,
        }),
        None => Box::new(reader),
    };
    WalFile { length, padded_from: None, reader }
}

fn from_wal_error(segment: SegmentName, error: WalError) -> GetWalError {
    match error {
        WalError::Storage(error) => error.into(),
        WalError::Decryption(source) if source.is_for_want_of_keys() => {
            GetWalError::Encrypted { name: segment.to_string(), source }
        }
        error => GetWalError::corrupt(WalFileName::Segment(segment), error),
    }
}

impl WalFile {
    /// How many bytes it has.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// From where on it is nothing but padding; `None` if all of it is WAL.
    pub fn padded_from(&self) -> Option<u64> {
        self.padded_from
    }
}

impl Read for WalFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

/// Compares what is read with what was received, when the end is reached.
struct Verified<R> {
    source: R,
    found: Crc32c,
    expected: Crc32c,
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        if length == 0 && !buffer.is_empty() && self.found != self.expected {
            let message = "its checksum is not the one it was archived with";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        self.found = self.found.with(buffer.get(..length).unwrap_or_default());
        Ok(length)
    }
}

/// Writes `length` bytes of WAL to `destination`: all of them or nothing.
///
/// Under a temporary name in the same directory first, because PostgreSQL takes a file of the
/// wrong size under the right name for a reason to stop. Not synced: PostgreSQL fetches the file
/// again if it loses it.
///
/// # Errors
/// If there are fewer or more bytes, they are damaged, or they cannot be written.
pub fn deliver(
    name: &str,
    source: &mut dyn Read,
    length: u64,
    destination: &Path,
) -> Result<(), GetWalError> {
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(destination.file_name().unwrap_or_default());
    temporary_name.push(".tmp");
    let temporary = destination.with_file_name(temporary_name);
    let delivered = write_whole(name, source, length, &temporary).and_then(|()| {
        fs::rename(&temporary, destination)
            .map_err(|source| storage_error("rename to", destination, source))
    });
    if delivered.is_err() {
        // A leftover does no harm: the next attempt writes over it.
        let _ = fs::remove_file(&temporary);
    }
    delivered
}

fn write_whole(
    name: &str,
    source: &mut dyn Read,
    length: u64,
    path: &Path,
) -> Result<(), GetWalError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| storage_error("create", path, source))?;
    let mut buffer = vec![0; BUFFER];
    let mut written = 0;
    loop {
        let read = source.read(&mut buffer).map_err(|error| read_error(name, error))?;
        let bytes = buffer.get(..read).unwrap_or_default();
        written += bytes.len() as u64;
        if bytes.is_empty() || written > length {
            break;
        }
        file.write_all(bytes).map_err(|source| storage_error("write", path, source))?;
    }
    if written == length { Ok(()) } else { Err(wrong_length(name, written, length)) }
}

pub(super) fn wrong_length(name: &str, found: u64, expected: u64) -> GetWalError {
    let message = format!("it has {found} bytes or more instead of {expected}");
    GetWalError::Corrupt { name: name.to_owned(), source: message.into() }
}

pub(super) fn read_error(name: &str, source: io::Error) -> GetWalError {
    // What the operating system did not say, a codec or a checksum did.
    if source.raw_os_error().is_none() {
        return GetWalError::Corrupt { name: name.to_owned(), source: source.into() };
    }
    GetWalError::Storage(StorageError { action: "read", path: name.into(), source })
}

/// Of the destination, where "not permitted" has nothing to do with the store.
fn storage_error(action: &'static str, path: &Path, source: io::Error) -> GetWalError {
    GetWalError::Storage(StorageError { action, path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pgwire_stream::{HistoryFile, Lsn, SegmentSize, ServerVersion, SystemId, TimelineId};

    use super::*;
    use crate::catalog::{WalFindings, WalIndexRecord, WalIndexWriters, journal};
    use crate::storage::{Access, Codec, Home, LockKind, ServerLock, Sha256Sum, durable};

    const MIB: usize = 1 << 20;

    fn store() -> (tempfile::TempDir, ServerDir) {
        let dir = tempfile::tempdir().unwrap();
        let server =
            Home::new(dir.path().join("home"), Access::Private).server(&"main".parse().unwrap());
        let identity = Identity {
            system_id: SystemId::from_u64(7),
            segment_size: SegmentSize::new(MIB as u64).unwrap(),
            server_version: ServerVersion::from_num(150_020),
            data_checksums: None,
        };
        identity.establish(&server).unwrap();
        (dir, server)
    }

    fn name(timeline: u32, number: u32) -> SegmentName {
        format!("{timeline:08X}00000000{number:08X}").parse().unwrap()
    }

    fn wal(seed: u8, length: usize) -> Vec<u8> {
        (0..length).map(|at| seed ^ (at % 251) as u8).collect()
    }

    fn archive(server: &ServerDir, segment: SegmentName, codec: Codec, content: &[u8]) {
        let path = server.archived(segment, codec);
        durable::create_dir(path.parent().unwrap(), Access::Private).unwrap();
        let content = match codec {
            Codec::Zstd => zstd::encode_all(content, 1).unwrap(),
            _ => content.to_vec(),
        };
        fs::write(path, content).unwrap();
    }

    /// The delivered bytes; `None` at the end of the archive.
    fn get(
        server: &ServerDir,
        name: impl ToString,
        partial: bool,
    ) -> Result<Option<Vec<u8>>, GetWalError> {
        let name = name.to_string();
        let dir = tempfile::tempdir().unwrap();
        let destination = dir.path().join("RECOVERYXLOG");
        let delivered = match locate(server, &name, partial, None)? {
            Lookup::EndOfArchive => return Ok(None),
            Lookup::Found(mut file) => {
                let length = file.length();
                deliver(&name, &mut file, length, &destination)
            }
        };
        if delivered.is_err() {
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        }
        delivered.map(|()| Some(fs::read(&destination).unwrap()))
    }

    #[test]
    fn segments_come_from_wherever_they_are() {
        let (_dir, server) = store();
        archive(&server, name(1, 1), Codec::Zstd, &wal(1, MIB));
        archive(&server, name(1, 2), Codec::None, &wal(2, MIB));
        fs::write(server.streaming_segment(name(1, 3)), wal(3, MIB)).unwrap();
        fs::write(server.streaming_partial(name(1, 4)), wal(4, 1000)).unwrap();
        for number in 1..=3 {
            let whole = wal(u8::try_from(number).unwrap(), MIB);
            assert_eq!(get(&server, name(1, number), false).unwrap(), Some(whole));
        }
        assert_eq!(get(&server, name(1, 4), false).unwrap(), None);
        let mut padded = wal(4, 1000);
        padded.resize(MIB, 0);
        assert_eq!(get(&server, name(1, 4), true).unwrap(), Some(padded));
        assert_eq!(get(&server, name(1, 5), true).unwrap(), None);
        // Another timeline, of which nothing is held.
        assert_eq!(get(&server, name(2, 1), true).unwrap(), None);
    }

    #[test]
    fn a_hole_is_an_error_and_not_the_end() {
        let (_dir, server) = store();
        archive(&server, name(1, 1), Codec::None, &wal(1, MIB));
        archive(&server, name(1, 3), Codec::None, &wal(3, MIB));
        fs::write(server.streaming_partial(name(2, 2)), wal(4, 1000)).unwrap();
        let error = get(&server, name(1, 2), true).unwrap_err();
        assert!(matches!(error, GetWalError::Gap { .. }), "{error}");
        assert_eq!(error.exit_code(), 203);
        // A beginning is not the end either, when there is more behind it.
        fs::write(server.streaming_partial(name(1, 2)), wal(2, 1000)).unwrap();
        assert!(matches!(get(&server, name(1, 2), true), Err(GetWalError::Gap { held: 1000, .. })));
        // Before the first that is held is a hole as well.
        assert!(matches!(get(&server, name(1, 0), true), Err(GetWalError::Gap { .. })));
    }

    #[test]
    fn what_is_known_to_be_gone_is_not_the_end() {
        let (_dir, server) = store();
        let lock = ServerLock::try_acquire(&server, LockKind::Archive).unwrap();
        let at = |mib: u64| Lsn::from_u64(mib * MIB as u64);
        let absence = |number| match get(&server, name(1, number), true) {
            Err(GetWalError::Gap { absence, .. }) => Some(absence),
            Ok(found) => {
                assert_eq!(found, None);
                None
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!(absence(1), None);
        journal::record_retired(&server, TimelineId::FIRST, at(1), at(3), &lock).unwrap();
        journal::record_gap(&server, TimelineId::FIRST, at(4), at(5)).unwrap();
        let (retired, left_out) = (Some(Absence::Retired), Some(Absence::LeftOut));
        assert_eq!([1, 2, 3, 4, 5].map(absence), [retired, retired, None, left_out, None]);
        archive(&server, name(1, 6), Codec::None, &wal(6, MIB));
        let missing = Some(Absence::Missing);
        assert_eq!([1, 2, 3, 4, 5].map(absence), [retired, retired, missing, left_out, missing]);
        assert_eq!(get(&server, name(1, 1), true).unwrap_err().exit_code(), 203);
    }

    #[test]
    fn a_part_of_the_store_that_is_gone_is_not_the_end() {
        for gone in [ServerDir::wals, ServerDir::streaming] {
            let (dir, server) = store();
            // As after moving it to a disk that is not mounted now.
            fs::remove_dir(gone(&server)).unwrap();
            std::os::unix::fs::symlink(dir.path().join("mnt/wals"), gone(&server)).unwrap();
            for wanted in [name(1, 1).to_string(), "00000002.history".to_owned()] {
                assert_eq!(get(&server, wanted, true).unwrap_err().exit_code(), exit_code::IO);
            }
        }
    }

    #[test]
    fn a_cut_tail_in_the_archive_is_the_end_of_its_timeline() {
        let (_dir, server) = store();
        archive(&server, name(1, 1), Codec::Zstd, &wal(1, MIB));
        let cut = ArchivedWal { segment: name(1, 2), partial: true, form: Codec::Zstd.into() };
        fs::write(server.archived_file(cut), zstd::encode_all(&wal(2, 500)[..], 1).unwrap())
            .unwrap();
        archive(&server, name(2, 2), Codec::Zstd, &wal(3, MIB));
        let mut padded = wal(2, 500);
        padded.resize(MIB, 0);
        assert_eq!(get(&server, name(1, 2), true).unwrap(), Some(padded));
        assert_eq!(get(&server, name(1, 2), false).unwrap(), None);
    }

    #[test]
    fn a_timeline_of_which_too_little_came_begins_with_its_parents_wal() {
        let (_dir, server) = store();
        let put = |timeline, text: &'static str| {
            let timeline = TimelineId::new(timeline).unwrap();
            let content = text.as_bytes().into();
            HistoryStore::new(&server).put(&HistoryFile { timeline, content }).unwrap();
        };
        archive(&server, name(1, 1), Codec::Zstd, &wal(1, MIB));
        archive(&server, name(1, 2), Codec::Zstd, &wal(2, MIB));
        archive(&server, name(1, 3), Codec::Zstd, &wal(3, MIB));
        // Left half-way through the second segment, and nothing came of the new one.
        put(2, "1\t0/280000\tr\n");
        let mut parents = wal(2, MIB / 2);
        parents.resize(MIB, 0);
        assert_eq!(get(&server, name(2, 2), true).unwrap(), Some(parents.clone()));
        assert_eq!(get(&server, name(2, 2), false).unwrap(), None);
        // The old timeline goes on behind the fork, the new one does not.
        assert_eq!(get(&server, name(2, 3), true).unwrap(), None);
        // Less than up to the fork.
        fs::write(server.streaming_partial(name(2, 2)), wal(2, 1000)).unwrap();
        assert_eq!(get(&server, name(2, 2), true).unwrap(), Some(parents.clone()));
        // Left again in the same segment.
        put(3, "1\t0/280000\tr\n2\t0/290000\tr\n");
        assert_eq!(get(&server, name(3, 2), true).unwrap(), Some(parents));
        // More than up to the fork is the new timeline's own.
        let mut own = wal(9, MIB / 2 + 10);
        fs::write(server.streaming_partial(name(2, 2)), &own).unwrap();
        own.resize(MIB, 0);
        assert_eq!(get(&server, name(2, 2), true).unwrap(), Some(own));
    }

    #[test]
    fn histories_are_delivered_or_end_the_search() {
        let (_dir, server) = store();
        let content = &b"1\t0/200000\tno recovery target specified\n"[..];
        let history =
            HistoryFile { timeline: TimelineId::new(2).unwrap(), content: content.into() };
        HistoryStore::new(&server).put(&history).unwrap();
        assert_eq!(get(&server, "00000002.history", false).unwrap(), Some(content.to_vec()));
        assert_eq!(get(&server, "00000003.history", false).unwrap(), None);
    }

    #[test]
    fn what_is_damaged_is_not_delivered() {
        let (_dir, server) = store();
        archive(&server, name(1, 1), Codec::Zstd, &wal(1, MIB - 1));
        archive(&server, name(1, 2), Codec::None, &wal(1, MIB + 1));
        archive(&server, name(1, 3), Codec::Zstd, &wal(1, MIB));
        let torn = server.archived(name(1, 3), Codec::Zstd);
        let whole = fs::read(&torn).unwrap();
        fs::write(&torn, &whole[..whole.len() - 3]).unwrap();
        for number in 1..=3 {
            let error = get(&server, name(1, number), true).unwrap_err();
            assert_eq!(error.exit_code(), 202, "{number}: {error}");
        }
    }

    #[test]
    fn what_is_encrypted_needs_a_key_and_is_never_the_end() {
        use age::secrecy::ExposeSecret;
        use std::os::unix::fs::PermissionsExt;

        use crate::storage::{ArchivedWriter, Method, Packing};

        let (dir, server) = store();
        let identity_file = |name: &str, secret: &age::x25519::Identity| {
            let path = dir.path().join(name);
            fs::write(&path, secret.to_string().expose_secret()).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            KeyFile::new(path)
        };
        let secret = age::x25519::Identity::generate();
        let packing = Packing::new(Method::new(Codec::Zstd, 1), &[secret.to_public().into()]);
        for (number, partial, length) in [(1, false, MIB), (2, true, 700)] {
            let file = ArchivedWal { segment: name(1, number), partial, form: packing.form() };
            durable::create_dir(&server.wal_dir(file.segment), Access::Private).unwrap();
            let path = server.archived_file(file);
            let mut writer =
                ArchivedWriter::create(&path, Access::Private, &packing, |file| file).unwrap();
            writer.write_all(&wal(3, length)).unwrap();
            writer.finish().unwrap().2.commit().unwrap();
        }
        let locate = |number, keys| locate(&server, &name(1, number).to_string(), true, keys);
        let right = identity_file("right", &secret);
        for (number, length) in [(1, MIB), (2, 700)] {
            let Lookup::Found(mut file) = locate(number, Some(&right)).unwrap() else { panic!() };
            let mut content = Vec::new();
            file.read_to_end(&mut content).unwrap();
            let mut expected = wal(3, length);
            expected.resize(MIB, 0);
            assert!(content == expected);
        }
        assert!(matches!(locate(3, Some(&right)).unwrap(), Lookup::EndOfArchive));
        // The keys are not needed to tell the end.
        assert!(matches!(locate(3, None).unwrap(), Lookup::EndOfArchive));

        let wrong = identity_file("wrong", &age::x25519::Identity::generate());
        let absent = KeyFile::new(dir.path().join("absent"));
        for keys in [None, Some(&wrong), Some(&absent)] {
            for number in [1, 2] {
                let error = locate(number, keys).err().unwrap();
                assert_eq!(error.exit_code(), exit_code::ENCRYPTED, "{error}");
                assert_eq!(error.is_without_keys(), keys.is_none());
                assert!(error.hint().is_some());
            }
        }
    }

    #[test]
    fn what_differs_from_the_index_is_not_delivered() {
        let (_dir, server) = store();
        archive(&server, name(1, 1), Codec::None, &wal(1, MIB));
        let lock = ServerLock::try_acquire(&server, LockKind::Archive).unwrap();
        let segment_size = SegmentSize::new(MIB as u64).unwrap();
        let mut indexes = WalIndexWriters::new(&server, segment_size, Arc::new(lock));
        let mut record = WalIndexRecord {
            file: ArchivedWal { segment: name(1, 1), partial: false, form: Codec::None.into() },
            plain_size: MIB as u64,
            plain_crc32c: Crc32c::of(&wal(1, MIB)),
            stored_size: MIB as u64,
            stored_sha256: Some(Sha256Sum::of(&wal(1, MIB))),
            findings: WalFindings::default(),
        };
        indexes.append(&[record.clone()]).unwrap();
        assert!(get(&server, name(1, 1), false).unwrap().is_some());
        record.plain_crc32c = Crc32c::of(b"other");
        indexes.append(&[record]).unwrap();
        assert_eq!(get(&server, name(1, 1), false).unwrap_err().exit_code(), 202);
    }

    #[test]
    fn wrong_questions_are_not_the_end_of_the_archive() {
        let (dir, server) = store();
        for name in ["", "../../etc/passwd", "000000010000000000000001.backup", "x.history"] {
            assert_eq!(get(&server, name, true).unwrap_err().exit_code(), 200, "{name}");
        }
        let name_1 = name(1, 1);
        let error = get(&server, format!("{name_1}.partial"), true).unwrap_err();
        assert!(matches!(error, GetWalError::PartialName { .. }));
        // No segment of 1 MB has this number.
        assert_eq!(get(&server, name(1, 0x1000), true).unwrap_err().exit_code(), 200);
        let other =
            Home::new(dir.path().join("home"), Access::Private).server(&"other".parse().unwrap());
        assert_eq!(get(&other, name_1, true).unwrap_err().exit_code(), 200);
        fs::write(server.identity(), b"{").unwrap();
        assert_eq!(get(&server, name_1, true).unwrap_err().exit_code(), 202);
    }

    #[test]
    fn a_short_delivery_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let destination = dir.path().join("RECOVERYXLOG");
        fs::write(&destination, b"before").unwrap();
        for length in [2, 4] {
            let error = deliver("x", &mut &b"abc"[..], length, &destination).unwrap_err();
            assert_eq!(error.exit_code(), 202);
            assert_eq!(fs::read(&destination).unwrap(), b"before");
        }
        deliver("x", &mut &b"abc"[..], 3, &destination).unwrap();
        assert_eq!(fs::read(&destination).unwrap(), b"abc");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let error = deliver("x", &mut &b"abc"[..], 3, &dir.path().join("a/b")).unwrap_err();
        assert_eq!(error.exit_code(), 204);
    }

    #[test]
    fn a_moving_segment_is_found() {
        let (_dir, server) = store();
        let segment = name(1, 1);
        let whole = wal(1, MIB);
        let partial = server.streaming_partial(segment);
        fs::write(&partial, &whole).unwrap();
        let archived = server.archived(segment, Codec::None);
        durable::create_dir(archived.parent().unwrap(), Access::Private).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let raw = server.streaming_segment(segment);
                fs::rename(&partial, &raw).unwrap();
                durable::write_file(&archived, &whole, Access::Private).unwrap();
                fs::remove_file(&raw).unwrap();
            });
            for _ in 0..200 {
                assert_eq!(get(&server, segment, true).unwrap().unwrap(), whole);
            }
        });
    }
}
