//! Finding a file of WAL in the store.

use std::fs;
use std::io::Read;

use bytes::Buf;
use pgwire_stream::{SegmentName, WalFileName};

use super::error::GetWalError;
use super::file::WalFile;
use crate::catalog::wal::WalReader;
use crate::catalog::{
    Absence, DocumentError, Held, HistoryStore, HistoryStoreError, Identity, IdentityError,
    LeaseId, WalError, WalIndex, WalStore,
};
use crate::storage::{ArchivedWal, KeyFile, ServerDir, StorageError};

/// How often a segment is looked for that moves on each time.
pub(super) const TRIES: usize = 8;

/// What there is for a name.
pub enum Lookup {
    /// A file.
    Found(WalFile),
    /// Nothing, and nothing behind it: the WAL ends here.
    EndOfArchive,
}

/// Which beginnings of segments count as segments, padded with zeros. PostgreSQL replays them up to the
/// last whole record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginnings {
    /// None.
    None,
    /// That where the WAL of its timeline ends.
    AtTheEnd,
    /// Those in front of a gap, too: for whoever goes by a plan, which has its target before the gap,
    /// or else the server says that it did not get there.
    BeforeGaps,
}

impl Beginnings {
    /// What whoever asks for `partial` segments gets. A lease is there where a restore was planned.
    pub fn of(partial: bool, lease: Option<&LeaseId>) -> Self {
        match (partial, lease) {
            (false, _) => Self::None,
            (true, None) => Self::AtTheEnd,
            (true, Some(_)) => Self::BeforeGaps,
        }
    }
}

/// Finds what there is for a name. Takes no lock and changes nothing: the receiver and the
/// archiver may move the file meanwhile.
///
/// The keys are for what is encrypted.
///
/// # Errors
/// If the store cannot be read completely, or what it must hold is damaged or lost.
pub fn locate(
    server: &ServerDir,
    name: &str,
    beginnings: Beginnings,
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
            locate_segment(server, &store, segment, beginnings)
        }
        WalFileName::History(timeline) => match HistoryStore::new(server).load(timeline) {
            Ok(Some(history)) => {
                let length = history.content.len() as u64;
                Ok(Lookup::Found(WalFile::new(length, history.content.reader())))
            }
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
    beginnings: Beginnings,
) -> Result<Lookup, GetWalError> {
    let failed = |error| from_wal_error(segment, error);
    let size = store.segment_size();
    let length = u64::from(size.bytes());
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
        let gap = end_of_timeline > size.end_of(number) || absence != Absence::Missing;
        if gap && (beginnings != Beginnings::BeforeGaps || held == 0) {
            return Err(GetWalError::Gap { segment, held, absence });
        }
        let partial = beginnings != Beginnings::None;
        if partial && let Some(file) = from_ancestor(server, store, segment, held)? {
            return Ok(Lookup::Found(file));
        }
        return Ok(match beginning {
            Some(reader) if partial && held > 0 => {
                Lookup::Found(WalFile::padded(length, held, reader))
            }
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
    Ok(Some(WalFile::padded(size.bytes().into(), usable, reader)))
}

fn whole(server: &ServerDir, segment: SegmentName, held: &Held, reader: WalReader) -> WalFile {
    let length = reader.length();
    match held {
        Held::Archived { form, .. } => {
            let file = ArchivedWal { segment, partial: false, form: *form };
            // Without an index, the size and the checksums of the codec must do.
            let known = WalIndex::of(server, segment).glance(file).ok().flatten();
            WalFile::archived(length, known.map(|record| record.plain_crc32c), reader)
        }
        Held::Streaming { .. } | Held::Partial { .. } => WalFile::new(length, reader),
    }
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
