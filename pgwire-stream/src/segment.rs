//! WAL segments: their size, numbers and file names.

use std::fmt;
use std::str::FromStr;

use crate::{Lsn, TimelineId};

const MIB: u64 = 1 << 20;

/// The size of a WAL segment file: a power of two from 1 MB to 1 GB, chosen at `initdb`.
///
/// Segment names depend on it, so names are made and read through it.
///
/// Follows `wal_segment_size` in PostgreSQL's documentation and
/// `src/include/access/xlog_internal.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SegmentSize(u32);

/// The number is not the size of a WAL segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a WAL segment size: a power of two from 1MB to 1GB")]
pub struct SegmentSizeError {
    text: String,
}

impl SegmentSize {
    /// 16 MB, what `initdb` chooses when it is not told otherwise.
    pub const DEFAULT: Self = Self(16 << 20);

    /// A segment size of so many bytes.
    ///
    /// # Errors
    /// If it is not a power of two from 1 MB to 1 GB.
    pub fn new(bytes: u64) -> Result<Self, SegmentSizeError> {
        match u32::try_from(bytes) {
            Ok(size) if size.is_power_of_two() && (MIB..=1024 * MIB).contains(&bytes) => {
                Ok(Self(size))
            }
            _ => Err(SegmentSizeError { text: bytes.to_string() }),
        }
    }

    /// Reads what `SHOW wal_segment_size` answers, such as `16MB` or `1GB`.
    ///
    /// # Errors
    /// If the text is not a segment size.
    pub fn from_setting(text: &str) -> Result<Self, SegmentSizeError> {
        let error = || SegmentSizeError { text: text.chars().take(40).collect() };
        let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let factor = match unit.trim() {
            "" | "B" => 1,
            "kB" => 1 << 10,
            "MB" => MIB,
            "GB" => 1 << 30,
            _ => return Err(error()),
        };
        let number: u64 = digits.parse().map_err(|_| error())?;
        number.checked_mul(factor).and_then(|bytes| Self::new(bytes).ok()).ok_or_else(error)
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u32 {
        self.0
    }

    /// The segment in which the byte at `lsn` lies.
    pub fn segment_of(self, lsn: Lsn) -> SegmentNumber {
        SegmentNumber(lsn.as_u64() / u64::from(self.0))
    }

    /// The segment of the last byte *before* `lsn`: the one that a base backup's end needs.
    pub fn last_byte_segment_of(self, lsn: Lsn) -> SegmentNumber {
        SegmentNumber(lsn.as_u64().saturating_sub(1) / u64::from(self.0))
    }

    /// How far into its segment the byte at `lsn` lies.
    pub fn offset_in_segment(self, lsn: Lsn) -> u32 {
        // A segment size is a power of two of at most 2^30, so the remainder fits.
        (lsn.as_u64() & u64::from(self.0 - 1)) as u32
    }

    /// Where a segment starts. Saturates past the end of the address space.
    pub fn start_of(self, segment: SegmentNumber) -> Lsn {
        Lsn::from_u64(segment.0.saturating_mul(u64::from(self.0)))
    }

    /// Where a segment ends, which is where the next one starts.
    pub fn end_of(self, segment: SegmentNumber) -> Lsn {
        self.start_of(segment.next())
    }

    /// Cuts WAL that begins at `start` at the borders of segments, in order: what goes into which
    /// segment file, and where. An archiver writes each piece with one `pwrite`.
    ///
    /// ```
    /// use pgwire_stream::SegmentSize;
    ///
    /// let size = SegmentSize::from_setting("1MB")?;
    /// let pieces: Vec<_> = size.cut("0/1FFFFE".parse()?, b"abc").collect();
    /// assert_eq!((pieces[0].offset, pieces[0].data, pieces[0].completes), (0xFFFFE, &b"ab"[..], true));
    /// assert_eq!((pieces[1].offset, pieces[1].data, pieces[1].completes), (0, &b"c"[..], false));
    /// assert_eq!(pieces[1].segment, pieces[0].segment.next());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cut(self, start: Lsn, data: &[u8]) -> impl Iterator<Item = SegmentPiece<'_>> {
        let mut at = start;
        let mut rest = data;
        std::iter::from_fn(move || {
            let offset = self.offset_in_segment(at);
            let room = self.0 - offset;
            let (data, later) = rest.split_at(rest.len().min(room as usize));
            if data.is_empty() {
                return None;
            }
            let piece = SegmentPiece {
                segment: self.segment_of(at),
                offset,
                data,
                completes: data.len() == room as usize,
            };
            at = at.saturating_add(data.len() as u64);
            rest = later;
            Some(piece)
        })
    }

    /// How many segments share the middle eight digits of their name.
    fn segments_per_log(self) -> u64 {
        (1 << 32) / u64::from(self.0)
    }
}

impl fmt::Display for SegmentSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 1 << 30 { f.write_str("1GB") } else { write!(f, "{}MB", self.0 >> 20) }
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for SegmentSize {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for SegmentSize {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(<u64 as serde::Deserialize>::deserialize(deserializer)?)
            .map_err(serde::de::Error::custom)
    }
}

/// WAL that belongs into one segment; see [`SegmentSize::cut`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentPiece<'a> {
    /// The segment.
    pub segment: SegmentNumber,
    /// How far into the segment it begins, in bytes.
    pub offset: u32,
    /// The bytes, never none.
    pub data: &'a [u8],
    /// Whether it ends where the segment ends.
    pub completes: bool,
}

/// A segment's number: its start position divided by the segment size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNumber(u64);

impl SegmentNumber {
    /// The segment with this number.
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The segment behind this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A segment's file name: 24 upper-case hexadecimal digits, eight for each of timeline, "log" and
/// segment within the log.
///
/// ```
/// use pgwire_stream::{SegmentName, SegmentSize, TimelineId};
///
/// let size = SegmentSize::DEFAULT;
/// let lsn = "1/2C3D4E5F".parse()?;
/// let name = SegmentName::new(TimelineId::FIRST, size.segment_of(lsn), size);
/// assert_eq!(name.to_string(), "00000001000000010000002C");
/// assert_eq!(name.start(size)?.to_string(), "1/2C000000");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Follows `XLogFileName` in `src/include/access/xlog_internal.h`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    timeline: TimelineId,
    log: u32,
    segment: u32,
}

/// The text is not the name of a file of the write-ahead log, or not with this segment size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the name of a WAL {expected}")]
pub struct WalNameError {
    text: String,
    expected: &'static str,
}

impl WalNameError {
    fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.chars().take(80).collect(), expected }
    }
}

impl SegmentName {
    /// The name of a segment on a timeline.
    pub fn new(timeline: TimelineId, number: SegmentNumber, size: SegmentSize) -> Self {
        let per_log = size.segments_per_log();
        Self {
            timeline,
            log: u32::try_from(number.0 / per_log).unwrap_or(u32::MAX),
            // Less than 4096, the segments of 1 MB in a log.
            segment: (number.0 % per_log) as u32,
        }
    }

    /// The timeline that the segment was written on.
    pub const fn timeline(self) -> TimelineId {
        self.timeline
    }

    /// The segment's number.
    ///
    /// # Errors
    /// If no segment of this size has such a name.
    pub fn number(self, size: SegmentSize) -> Result<SegmentNumber, WalNameError> {
        let per_log = size.segments_per_log();
        if u64::from(self.segment) < per_log {
            Ok(SegmentNumber(u64::from(self.log) * per_log + u64::from(self.segment)))
        } else {
            Err(WalNameError::new(&self.to_string(), "segment of this server's segment size"))
        }
    }

    /// The position of the segment's first byte.
    ///
    /// # Errors
    /// If no segment of this size has such a name.
    pub fn start(self, size: SegmentSize) -> Result<Lsn, WalNameError> {
        Ok(size.start_of(self.number(size)?))
    }

    /// The first sixteen digits, timeline and log: Barman's name for the folder of a segment.
    pub fn folder(self) -> String {
        format!("{:08X}{:08X}", self.timeline.get(), self.log)
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.get(), self.log, self.segment)
    }
}

impl fmt::Debug for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads exactly eight upper-case hexadecimal digits.
fn eight_digits(text: &str) -> Option<u32> {
    let upper = text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    if upper { u32::from_str_radix(text, 16).ok() } else { None }
}

impl FromStr for SegmentName {
    type Err = WalNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let part = |range| text.get(range).and_then(eight_digits);
        let parsed = (text.len() == 24)
            .then(|| {
                Some(Self {
                    timeline: TimelineId::new(part(0..8)?)?,
                    log: part(8..16)?,
                    segment: part(16..24)?,
                })
            })
            .flatten();
        parsed.ok_or_else(|| WalNameError::new(text, "segment"))
    }
}

#[cfg(feature = "serde")]
crate::serde_text::serde_as_text!(SegmentName);

/// The name of any file that a WAL archive holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalFileName {
    /// A complete segment.
    Segment(SegmentName),
    /// A segment that is being received, or was cut by a timeline's end: `.partial`.
    Partial(SegmentName),
    /// The history of a timeline: `0000000A.history`.
    History(TimelineId),
}

impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(name) => name.fmt(f),
            Self::Partial(name) => write!(f, "{name}.partial"),
            Self::History(timeline) => f.write_str(&timeline.history_file_name()),
        }
    }
}

impl FromStr for WalFileName {
    type Err = WalNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = if let Some(stem) = text.strip_suffix(".partial") {
            stem.parse().ok().map(Self::Partial)
        } else if let Some(stem) = text.strip_suffix(".history") {
            eight_digits(stem).and_then(TimelineId::new).map(Self::History)
        } else {
            text.parse().ok().map(Self::Segment)
        };
        parsed.ok_or_else(|| WalNameError::new(text, "segment or timeline history file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sizes() -> impl Strategy<Value = SegmentSize> {
        (20u32..=30).prop_map(|bits| SegmentSize::new(1 << bits).unwrap())
    }

    #[test]
    fn settings_are_read_as_the_server_prints_them() {
        for bits in 20..=30 {
            let size = SegmentSize::new(1 << bits).unwrap();
            assert_eq!(SegmentSize::from_setting(&size.to_string()), Ok(size));
        }
        for text in ["", "MB", "0MB", "3MB", "2GB", "16mb", "-1MB", "99999999999999999999MB"] {
            assert!(SegmentSize::from_setting(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_well_formed_names_are_read() {
        for text in [
            "",
            "00000000000000000000000A",
            "0000000100000000000000a1",
            "00000001000000000000001",
            "0000000100000000000000010",
            "../0000010000000000000001",
            "00000001000000000000000é",
        ] {
            assert!(text.parse::<SegmentName>().is_err(), "{text:?}");
        }
        assert_eq!(
            "0000000A.history".parse(),
            Ok(WalFileName::History(TimelineId::new(10).unwrap()))
        );
        assert!("0000000a.history".parse::<WalFileName>().is_err());
        assert!("000000010000000000000001.backup".parse::<WalFileName>().is_err());
    }

    #[test]
    fn a_name_beyond_the_size_is_refused() {
        let name: SegmentName = "000000010000000000000FFF".parse().unwrap();
        assert!(name.number(SegmentSize::new(1 << 20).unwrap()).is_ok());
        assert!(name.number(SegmentSize::DEFAULT).is_err());
    }

    proptest! {
        #[test]
        fn names_round_trip(size in sizes(), address: u64, timeline in 1..=u32::MAX) {
            let number = size.segment_of(Lsn::from_u64(address));
            let name = SegmentName::new(TimelineId::new(timeline).unwrap(), number, size);
            prop_assert_eq!(name.number(size), Ok(number));
            prop_assert_eq!(name.to_string().parse::<SegmentName>(), Ok(name));
            let partial = WalFileName::Partial(name);
            prop_assert_eq!(partial.to_string().parse::<WalFileName>(), Ok(partial));
        }

        #[test]
        fn a_position_lies_in_its_segment(size in sizes(), address in 1..u64::MAX) {
            let lsn = Lsn::from_u64(address);
            let segment = size.segment_of(lsn);
            let start = size.start_of(segment);
            prop_assert!(start <= lsn);
            prop_assert_eq!(lsn.bytes_since(start), u64::from(size.offset_in_segment(lsn)));
            let before = Lsn::from_u64(address - 1);
            prop_assert_eq!(size.last_byte_segment_of(lsn), size.segment_of(before));
        }

        #[test]
        fn pieces_of_wal_are_all_of_it_and_each_lies_in_one_segment(
            before in 0..40u32,
            data in proptest::collection::vec(any::<u8>(), 0..100),
            number in 0..1u64 << 40,
        ) {
            let size = SegmentSize::new(MIB).unwrap();
            let border = size.end_of(SegmentNumber(number));
            let mut at = Lsn::from_u64(border.as_u64() - u64::from(before));
            let mut together: Vec<u8> = Vec::new();
            for piece in size.cut(at, &data) {
                prop_assert!(!piece.data.is_empty());
                prop_assert_eq!(piece.segment, size.segment_of(at));
                prop_assert_eq!(piece.offset, size.offset_in_segment(at));
                at = at.saturating_add(piece.data.len() as u64);
                prop_assert_eq!(size.last_byte_segment_of(at), piece.segment);
                prop_assert_eq!(piece.completes, size.offset_in_segment(at) == 0);
                together.extend(piece.data);
            }
            prop_assert_eq!(together, data);
        }

        #[test]
        fn names_sort_as_positions(size in sizes(), a: u64, b: u64) {
            let name = |at| SegmentName::new(TimelineId::FIRST, size.segment_of(Lsn::from_u64(at)), size);
            let numbers = (size.segment_of(Lsn::from_u64(a)), size.segment_of(Lsn::from_u64(b)));
            prop_assert_eq!(name(a).cmp(&name(b)), numbers.0.cmp(&numbers.1));
        }
    }
}
