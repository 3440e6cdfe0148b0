//! The WAL between the begin and the end of a backup: is it all there, is it what was stored, and
//! can it be replayed?

use std::collections::BTreeMap;
use std::path::PathBuf;

use pgwire_stream::{Lsn, SegmentName, SegmentNumber, TimelineId};

use super::{Depth, Problem, Search, VerifyError};
use crate::catalog::judge::{Judge, read_all};
use crate::catalog::{
    BackupStatus, Catalog, Held, WalIndex, WalIndexRecord, WalReader, WalStore, history_of,
};
use crate::failure::in_one_line;
use crate::storage::{ArchivedWal, Plain};

/// How often a segment is looked for that moves on while it is opened. It moves twice at most.
const LOOKS: u32 = 4;

/// WAL of one timeline that is followed, and the segments that were read of it.
struct Followed {
    timeline: TimelineId,
    judge: Judge,
    segments: Vec<SegmentName>,
}

/// The index of the directory that was read last.
#[derive(Default)]
struct Index {
    path: PathBuf,
    records: BTreeMap<ArchivedWal, WalIndexRecord>,
}

impl Search<'_> {
    pub(super) fn wal(&mut self) -> Result<(), VerifyError> {
        let record = &self.request.record;
        let (Some(begin), Some(end)) = (record.begin, record.end) else { return Ok(()) };
        let standing = Catalog::new(&self.request.server).standing(record)?;
        if let (BackupStatus::WaitingForWals, Some(gap)) = (standing.status, standing.missing) {
            self.tell(Problem::WalAwaited { from: gap.from, needed: end.lsn });
            return Ok(());
        }
        let history = history_of(&self.request.server, begin, end)?;
        let size = record.segment_size;
        let store = WalStore::new(&self.request.server, size).with_keys(self.request.keys.as_ref());
        let mut followed: Option<Followed> = None;
        let mut index = Index::default();
        let (first, last) = (size.segment_of(begin.lsn), size.last_byte_segment_of(end.lsn));
        for number in (first.as_u64()..=last.as_u64()).map(SegmentNumber::from_u64) {
            self.check_interruption()?;
            // The newest timeline that reaches into the segment has all of it that counts.
            let (from, to) =
                (size.start_of(number).max(begin.lsn), size.end_of(number).min(end.lsn));
            let Some(&timeline) = history.timelines_between(from, to).iter().max() else {
                continue;
            };
            let goes_on = followed.as_ref().is_some_and(|followed| {
                followed.timeline == timeline && Judge::is_at(Some(&followed.judge), number)
            });
            if !goes_on {
                self.tell_suspect(followed.take(), begin.lsn, end.lsn);
            }
            let follow = followed.get_or_insert_with(|| Followed {
                timeline,
                judge: Judge::of_system(record.system_id, size, timeline, number),
                segments: Vec::new(),
            });
            let segment = SegmentName::new(timeline, number, size);
            self.segment(&store, segment, to, follow, &mut index)?;
        }
        // Records lead to the end, if any could be judged: zeros are no damage, but no WAL either.
        if let Some(follow) = &followed
            && let Some(to) = follow.judge.valid_to().filter(|to| *to < end.lsn)
        {
            self.tell(Problem::WalEnds { to, needed: end.lsn });
        }
        self.tell_suspect(followed, begin.lsn, end.lsn);
        Ok(())
    }

    /// Reads one segment, as far as it is needed.
    fn segment(
        &mut self,
        store: &WalStore,
        segment: SegmentName,
        needed: Lsn,
        followed: &mut Followed,
        index: &mut Index,
    ) -> Result<(), VerifyError> {
        let Some((held, source)) = self.open_wal(store, segment)? else { return Ok(()) };
        let path = held.path().clone();
        let record = match &held {
            Held::Archived { form, .. } => {
                self.noted(ArchivedWal { segment, partial: false, form: *form }, index)
            }
            _ => None,
        };
        if let Some(noted) = record.as_ref().map(WalIndexRecord::fingerprint)
            && noted.sha256().is_some()
        {
            self.read_through(&path, Some(noted), |_| {})?;
        }
        self.found.segments = self.found.segments.map(|segments| segments + 1);
        if self.request.depth == Depth::Stored {
            return Ok(());
        }
        let Some(source) = source else { return Ok(()) };
        let mut plain = Plain::default();
        let read = read_all(source, |bytes| {
            plain.add(bytes);
            followed.judge.feed(bytes);
            true
        });
        if let Err(error) = read {
            self.tell(Problem::Unreadable { file: path, error: in_one_line(&error) });
            return Ok(());
        }
        followed.segments.push(segment);
        if record.is_some_and(|record| record.plain_crc32c != plain.crc32c) {
            self.tell(Problem::StoredChecksum { file: path });
        }
        let start = segment.start(self.request.record.segment_size).unwrap_or(needed);
        let to = start.saturating_add(plain.size);
        if to < needed {
            self.tell(Problem::WalShort { segment, to });
        }
        Ok(())
    }

    /// Where a segment is, and its plain bytes, unless only what is stored is asked for.
    fn open_wal(
        &mut self,
        store: &WalStore,
        segment: SegmentName,
    ) -> Result<Option<(Held, Option<WalReader>)>, VerifyError> {
        for _ in 0..LOOKS {
            let Some(held) = store.find(segment)? else { break };
            if self.request.depth == Depth::Stored {
                return Ok(Some((held, None)));
            }
            match store.open_held(&held) {
                Ok(source) => return Ok(Some((held, Some(source)))),
                Err(error) if error.is_not_found() => {}
                Err(error) if error.is_for_want_of_keys() => return Err(error.into()),
                Err(error) => {
                    let (file, error) = (held.path().clone(), in_one_line(&error));
                    self.tell(Problem::Unreadable { file, error });
                    return Ok(None);
                }
            }
        }
        self.tell(Problem::WalMissing { segment });
        Ok(None)
    }

    /// What was noted of an archived file. Without a record there is nothing to compare with.
    fn noted(&mut self, file: ArchivedWal, index: &mut Index) -> Option<WalIndexRecord> {
        let path = self.request.server.wal_index(file.segment);
        if index.path != path {
            let records = match WalIndex::of(&self.request.server, file.segment).records() {
                Ok(records) => records,
                Err(error) => {
                    let error = in_one_line(&error);
                    self.tell(Problem::Unreadable { file: path.clone(), error });
                    Vec::new()
                }
            };
            // The last record of a file is the one that counts.
            let records = records.into_iter().map(|record| (record.file, record)).collect();
            *index = Index { path, records };
        }
        index.records.get(&file).cloned()
    }

    /// Tells what was found in WAL that is followed no further.
    fn tell_suspect(&mut self, followed: Option<Followed>, begin: Lsn, end: Lsn) {
        let Some(Followed { mut judge, segments, .. }) = followed else { return };
        for segment in segments {
            for range in judge.findings(segment, true).unwrap_or_default().suspect {
                // What lies before the begin or behind the end is replayed for nothing.
                if range.from < end && begin < range.to {
                    let (from, to, what) = (range.from, range.to, range.what);
                    self.tell(Problem::WalSuspect { from, to, what });
                }
            }
        }
    }
}
