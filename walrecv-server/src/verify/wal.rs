//! The WAL between the begin and the end of a backup: is it all there, is it what was stored, and
//! can it be replayed?

use pgwire_stream::{Lsn, SegmentName, SegmentNumber, TimelineHistory, TimelineId};

use super::{Problem, Search, VerifyError};
use crate::catalog::judge::{Judge, read_all};
use crate::catalog::{Held, HistoryStore, WalFindings, WalIndex, WalStore};
use crate::failure::in_one_line;
use crate::storage::{ArchivedWal, Plain, Stored};

impl Search<'_> {
    pub(super) fn wal(&mut self) -> Result<(), VerifyError> {
        let record = &self.request.record;
        let (Some(begin), Some(end)) = (record.begin, record.end) else { return Ok(()) };
        let history = if begin.timeline == end.timeline {
            TimelineHistory::root(end.timeline)
        } else {
            HistoryStore::new(&self.request.server).ancestry(end.timeline)?
        };
        let size = record.segment_size;
        let store = WalStore::new(&self.request.server, size).with_keys(self.request.keys.as_ref());
        let mut judges: Option<(TimelineId, Judge)> = None;
        let (first, last) = (size.segment_of(begin.lsn), size.last_byte_segment_of(end.lsn));
        for number in (first.as_u64()..=last.as_u64()).map(SegmentNumber::from_u64) {
            self.check_interruption()?;
            // The newest timeline that reaches into the segment has all of it that counts.
            let (from, to) =
                (size.start_of(number).max(begin.lsn), size.end_of(number).min(end.lsn));
            let timelines = history.timelines_between(from, to);
            let Some(&timeline) = timelines.iter().max() else { continue };
            let segment = SegmentName::new(timeline, number, size);
            let (_, judge) = match judges.take() {
                Some(goes_on)
                    if goes_on.0 == timeline && Judge::is_at(Some(&goes_on.1), number) =>
                {
                    judges.insert(goes_on)
                }
                _ => judges.insert((timeline, Judge::new(size, timeline, number))),
            };
            if let Some(findings) = self.segment(&store, segment, to, judge)? {
                self.tell_suspect(findings, begin.lsn, end.lsn);
            }
        }
        Ok(())
    }

    /// Reads one segment, as far as it is needed. What is found in it, if all of it could be read.
    fn segment(
        &mut self,
        store: &WalStore,
        segment: SegmentName,
        needed: Lsn,
        judge: &mut Judge,
    ) -> Result<Option<WalFindings>, VerifyError> {
        let Some(held) = store.find(segment)? else {
            self.tell(Problem::WalMissing { segment });
            return Ok(None);
        };
        let path = held.path().to_owned();
        let record = match &held {
            Held::Archived { form, .. } => {
                let file = ArchivedWal { segment, partial: false, form: *form };
                // Without a record there is nothing to compare with.
                WalIndex::of(&self.request.server, segment).find(file).unwrap_or_default()
            }
            _ => None,
        };
        if let Some(sha256) = record.as_ref().and_then(|record| record.stored_sha256) {
            let size = record.as_ref().map_or(0, |record| record.stored_size);
            self.read_through(&path, Some(Stored { size, sha256 }), |_| {})?;
        }
        let source = match store.open_held(&held) {
            Ok(source) => source,
            Err(error) if error.is_for_want_of_keys() => return Err(error.into()),
            Err(error) => {
                self.tell(Problem::Unreadable { file: path, error: in_one_line(&error) });
                return Ok(None);
            }
        };
        let mut plain = Plain::default();
        let read = read_all(source, |bytes| {
            plain.add(bytes);
            judge.feed(bytes);
            true
        });
        self.found.segments = self.found.segments.map(|segments| segments + 1);
        if let Err(error) = read {
            self.tell(Problem::Unreadable { file: path, error: in_one_line(&error) });
            return Ok(None);
        }
        if record.is_some_and(|record| record.plain_crc32c != plain.crc32c) {
            self.tell(Problem::StoredChecksum { file: path });
        }
        let size = self.request.record.segment_size;
        let start = segment.start(size).unwrap_or(needed);
        let to = start.saturating_add(plain.size);
        if to < needed {
            self.tell(Problem::WalShort { segment, to });
        }
        Ok(judge.findings(segment, true))
    }

    fn tell_suspect(&mut self, findings: WalFindings, begin: Lsn, end: Lsn) {
        for range in findings.suspect {
            // What lies before the begin or behind the end is replayed for nothing in this backup.
            if range.from < end && begin < range.to {
                self.tell(Problem::WalSuspect { from: range.from, to: range.to, what: range.what });
            }
        }
    }
}
