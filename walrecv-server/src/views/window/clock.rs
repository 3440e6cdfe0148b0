//! When WAL was written: by the commits in it, as the indexes tell, and by the backups that were taken
//! within it; where there are neither, by its files.

use std::fs;

use jiff::Timestamp;
use pgwire_stream::{Lsn, SegmentName, SegmentNumber, SegmentSize, TimelineHistory, TimelineId};

use crate::catalog::{CaughtUp, Coverage, Span, WalIndex, WalIndexRecord, WalStore};
use crate::units::moment;

/// Tells the times of positions. Keeps the index that was read last: neighbours are asked for one
/// after the other.
pub(super) struct Clock<'a> {
    store: &'a WalStore,
    size: SegmentSize,
    caught_up: Option<CaughtUp>,
    /// Positions whose times are known otherwise.
    known: Vec<(TimelineId, Lsn, Timestamp)>,
    index: Option<(String, Vec<WalIndexRecord>)>,
}

impl<'a> Clock<'a> {
    pub(super) fn new(
        store: &'a WalStore,
        caught_up: Option<CaughtUp>,
        known: Vec<(TimelineId, Lsn, Timestamp)>,
    ) -> Self {
        Self { store, size: store.segment_size(), caught_up, known, index: None }
    }

    /// When a stretch begins: at its first commit, or before that with a backup.
    pub(super) fn begin_of(&mut self, span: Span) -> Option<Timestamp> {
        let written = self.after(self.name(span.timeline, self.size.segment_of(span.start)));
        self.known_in(span).chain(written).min()
    }

    /// When a stretch ends: at its last commit, or with a backup, or when nothing more was to come.
    pub(super) fn end_of(&mut self, span: Span) -> Option<Timestamp> {
        let last = self.name(span.timeline, self.size.last_byte_segment_of(span.end));
        let written = self.until(last);
        let idle = self.caught_up.filter(|caught_up| {
            caught_up.timeline == span.timeline
                && (span.start..=span.end).contains(&caught_up.lsn)
                && self.size.segment_of(caught_up.lsn) >= self.size.segment_of(span.end)
        });
        let idle = idle.and_then(|caught_up| moment(caught_up.at));
        self.known_in(span).chain(written).chain(idle).max()
    }

    fn known_in(&self, span: Span) -> impl Iterator<Item = Timestamp> {
        let within = move |(timeline, lsn): (TimelineId, Lsn)| {
            timeline == span.timeline && (span.start..=span.end).contains(&lsn)
        };
        let known = self.known.iter().filter(move |(timeline, lsn, _)| within((*timeline, *lsn)));
        known.map(|(_, _, at)| *at)
    }

    /// The last moment before a position at which a stretch ends, or within one.
    pub(super) fn before(
        &mut self,
        coverage: &Coverage,
        history: &TimelineHistory,
        lsn: Lsn,
    ) -> Option<Timestamp> {
        let before = Lsn::from_u64(lsn.as_u64().saturating_sub(1));
        let timeline = history.timeline_at(before);
        let span = coverage.spans().into_iter().find(|span| {
            history.contains(span.timeline)
                && span.timeline >= timeline
                && (span.start..span.end).contains(&before)
        })?;
        if span.end == lsn {
            return self.end_of(span);
        }
        self.until(self.name(span.timeline, self.size.last_byte_segment_of(lsn)))
    }

    /// The first moment behind a position at which a stretch begins.
    pub(super) fn behind(
        &mut self,
        coverage: &Coverage,
        history: &TimelineHistory,
        lsn: Lsn,
    ) -> Option<Timestamp> {
        let begins = |span: &Span| history.contains(span.timeline) && span.start == lsn;
        let span = coverage.spans().into_iter().find(begins)?;
        self.begin_of(span)
    }

    /// The first and the last moment of a segment.
    pub(super) fn around(
        &mut self,
        segment: SegmentName,
    ) -> (Option<Timestamp>, Option<Timestamp>) {
        (self.after(segment), self.until(segment))
    }

    fn name(&self, timeline: TimelineId, number: SegmentNumber) -> SegmentName {
        SegmentName::new(timeline, number, self.size)
    }

    /// The first commit in a segment or behind it, as far as its directory goes.
    fn after(&mut self, segment: SegmentName) -> Option<Timestamp> {
        let behind = self.records(segment).iter().filter(|r| r.file.segment >= segment);
        let first = behind
            .filter_map(|record| Some((record.file.segment, record.findings.first_commit?)))
            .min()
            .map(|(_, commit)| commit);
        first.and_then(moment).or_else(|| self.written_at(segment))
    }

    /// The last commit in a segment or before it, as far as its directory goes; of one that is not
    /// archived, when something was added to it last.
    fn until(&mut self, segment: SegmentName) -> Option<Timestamp> {
        let records = self.records(segment);
        if !records.iter().any(|record| record.file.segment == segment) {
            return self.written_at(segment);
        }
        let before = records.iter().filter(|record| record.file.segment <= segment);
        let last = before
            .filter_map(|record| Some((record.file.segment, record.findings.last_commit?)))
            .max()
            .map(|(_, commit)| commit);
        last.and_then(moment).or_else(|| self.written_at(segment))
    }

    fn written_at(&self, segment: SegmentName) -> Option<Timestamp> {
        let held = self.store.find(segment).ok()??;
        let modified = fs::metadata(held.path()).and_then(|metadata| metadata.modified()).ok()?;
        Timestamp::try_from(modified).ok()
    }

    /// What the index of its directory says; nothing if it cannot be read, which has a row of its
    /// own among the checks.
    fn records(&mut self, segment: SegmentName) -> &[WalIndexRecord] {
        let folder = segment.folder();
        if self.index.as_ref().is_none_or(|(read, _)| *read != folder) {
            let records = WalIndex::of(self.store.server(), segment).records();
            self.index = Some((folder, records.unwrap_or_default()));
        }
        self.index.as_ref().map_or(&[], |(_, records)| records)
    }
}
