//! A position in the WAL together with the file that it lies in.

use crate::{Lsn, SegmentName, SegmentSize, ServerVersion, TimelineId};

/// A position in the WAL and the segment that it lies in: `0/2000028 (file 0000000100…)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalLocation {
    /// The position.
    pub lsn: Lsn,
    /// The name of the segment file. Which one it is depends on the cluster's segment size.
    pub segment: SegmentName,
}

impl WalLocation {
    /// The location of `lsn` in segments of this size.
    pub fn new(lsn: Lsn, timeline: TimelineId, size: SegmentSize) -> Self {
        Self { lsn, segment: SegmentName::new(timeline, size.segment_of(lsn), size) }
    }

    /// The timeline whose WAL it is.
    pub const fn timeline(&self) -> TimelineId {
        self.segment.timeline()
    }

    /// Reads the value of a `… WAL LOCATION` line. The name of the file has to fit the position as
    /// far as can be told without the segment size.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let (lsn, segment) = str::from_utf8(value).ok()?.split_once(" (file ")?;
        let lsn: Lsn = lsn.parse().ok()?;
        let segment: SegmentName = segment.strip_suffix(')')?.parse().ok()?;
        let folder = format!("{:08X}{:08X}", segment.timeline().get(), lsn.as_u64() >> 32);
        (segment.folder() == folder).then_some(Self { lsn, segment })
    }

    /// The value of a `… WAL LOCATION` line.
    pub(super) fn text(&self, version: ServerVersion) -> String {
        format!("{} (file {})", self.lsn.as_written_by(version), self.segment)
    }
}
