//! Timelines and their histories.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use bytes::Bytes;

use crate::{Lsn, LsnParseError, ServerVersion};

/// A timeline: one branch of a cluster's history. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimelineId(NonZeroU32);

impl TimelineId {
    /// The timeline that `initdb` makes.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// The timeline with this number; 0 is none.
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The name of the file that tells how this timeline came to be, such as `00000002.history`.
    pub fn history_file_name(self) -> String {
        format!("{:08X}.history", self.0)
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a timeline: a decimal number from 1 on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a timeline, a number from 1 on")]
pub struct TimelineParseError {
    text: String,
}

impl FromStr for TimelineId {
    type Err = TimelineParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits
            .then(|| text.parse().ok().and_then(Self::new))
            .flatten()
            .ok_or_else(|| TimelineParseError { text: text.chars().take(40).collect() })
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for TimelineId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.get())
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for TimelineId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = <u32 as serde::Deserialize>::deserialize(deserializer)?;
        Self::new(number).ok_or_else(|| serde::de::Error::custom("timeline 0 does not exist"))
    }
}

/// A timeline history file as the server keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryFile {
    /// The timeline whose history this is.
    pub timeline: TimelineId,
    /// The file, byte for byte.
    pub content: Bytes,
}

impl HistoryFile {
    /// Reads the file.
    ///
    /// # Errors
    /// If it is not a history file of this timeline.
    pub fn parse(&self) -> Result<TimelineHistory, HistoryError> {
        TimelineHistory::parse(self.timeline, &self.content)
    }
}

/// Where one timeline was left for the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineSwitch {
    /// The timeline that was left.
    pub timeline: TimelineId,
    /// The position at which it was left: its first byte that is not part of the history.
    pub switch_point: Lsn,
    /// What the server wrote as reason; free text.
    pub reason: String,
}

/// The ancestry of a timeline: the switches that led to it, oldest first.
///
/// Follows `readTimeLineHistory` in `src/backend/access/transam/timeline.c`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineHistory {
    timeline: TimelineId,
    switches: Vec<TimelineSwitch>,
}

/// Why a timeline history file cannot be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// A line is not `timeline <tab> position <tab> reason`.
    #[error("line {line} of the history of timeline {timeline} is not understood")]
    Line {
        /// The timeline whose history is read.
        timeline: TimelineId,
        /// The line's number, from 1.
        line: usize,
    },
    /// Timelines and positions must increase, up to the timeline whose history it is.
    #[error("line {line} of the history of timeline {timeline} is out of order")]
    Order {
        /// The timeline whose history is read.
        timeline: TimelineId,
        /// The line's number, from 1.
        line: usize,
    },
}

impl TimelineHistory {
    /// The history of a timeline without ancestors.
    pub fn root(timeline: TimelineId) -> Self {
        Self { timeline, switches: Vec::new() }
    }

    /// Reads a history file.
    ///
    /// # Errors
    /// If a line is not understood, or the timelines do not increase up to `timeline`.
    pub fn parse(timeline: TimelineId, content: &[u8]) -> Result<Self, HistoryError> {
        let mut switches: Vec<TimelineSwitch> = Vec::new();
        for (index, line) in content.split(|&b| b == b'\n').enumerate() {
            let line_number = index + 1;
            let text = String::from_utf8_lossy(line);
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let switch =
                parse_switch(text).ok_or(HistoryError::Line { timeline, line: line_number })?;
            let in_order = switch.timeline < timeline
                && switches.last().is_none_or(|last| {
                    last.timeline < switch.timeline && last.switch_point <= switch.switch_point
                });
            if !in_order {
                return Err(HistoryError::Order { timeline, line: line_number });
            }
            switches.push(switch);
        }
        Ok(Self { timeline, switches })
    }

    /// The history file as servers of this version write it. Line breaks in reasons are left out,
    /// because they would end the line.
    pub fn write(&self, version: ServerVersion) -> Vec<u8> {
        let mut content = String::new();
        for TimelineSwitch { timeline, switch_point, reason } in &self.switches {
            // A server copies the file of the parent and adds a line to it, after an empty one.
            if !content.is_empty() {
                content.push('\n');
            }
            let switch_point = switch_point.as_written_by(version);
            let reason = reason.replace('\n', "");
            content.push_str(&format!("{timeline}\t{switch_point}\t{reason}\n"));
        }
        content.into_bytes()
    }

    /// The timeline whose history this is.
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The switches that led to this timeline, oldest first.
    pub fn switches(&self) -> &[TimelineSwitch] {
        &self.switches
    }

    /// Whether `timeline` is this timeline or one of its ancestors.
    pub fn contains(&self, timeline: TimelineId) -> bool {
        timeline == self.timeline || self.fork_from(timeline).is_some()
    }

    /// Where an ancestor was left on the way to this timeline; `None` for a timeline that is not
    /// an ancestor, and for this timeline itself.
    pub fn fork_from(&self, ancestor: TimelineId) -> Option<Lsn> {
        self.switches.iter().find(|switch| switch.timeline == ancestor).map(|s| s.switch_point)
    }

    /// The timelines that may have a segment from `start` to `end`, oldest first. A timeline's first
    /// segment begins with what it inherited, so where timelines change there are several.
    pub fn timelines_between(&self, start: Lsn, end: Lsn) -> Vec<TimelineId> {
        let mut began = Lsn::ZERO;
        let mut timelines = Vec::new();
        for switch in &self.switches {
            if began < end && switch.switch_point > start {
                timelines.push(switch.timeline);
            }
            began = switch.switch_point;
        }
        if began < end {
            timelines.push(self.timeline);
        }
        timelines
    }

    /// The timeline on which the byte at `lsn` lies in this history.
    pub fn timeline_at(&self, lsn: Lsn) -> TimelineId {
        self.switches
            .iter()
            .find(|switch| lsn < switch.switch_point)
            .map_or(self.timeline, |switch| switch.timeline)
    }
}

/// Reads a line as the server does, to which any white space is a tabulator.
fn parse_switch(text: &str) -> Option<TimelineSwitch> {
    let (timeline, rest) = text.split_once(|c: char| c.is_ascii_whitespace())?;
    let rest = rest.trim_start();
    let (switch_point, reason) =
        rest.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((rest, ""));
    let switch_point: Result<Lsn, LsnParseError> = switch_point.parse();
    Some(TimelineSwitch {
        timeline: timeline.parse().ok()?,
        switch_point: switch_point.ok()?,
        reason: reason.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tli(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn lsn(address: u64) -> Lsn {
        Lsn::from_u64(address)
    }

    #[test]
    fn reads_what_a_server_writes() {
        let content = b"1\t0/3000148\tno recovery target specified\n\n\
            2\t0/50000A0\tbefore 2026-01-02 03:04:05+00\n# a comment\n";
        let history = TimelineHistory::parse(tli(4), content).unwrap();
        assert_eq!(history.switches().len(), 2);
        assert_eq!(history.fork_from(tli(2)), Some(lsn(0x0500_00A0)));
        assert_eq!(history.fork_from(tli(3)), None);
        assert!(history.contains(tli(4)) && history.contains(tli(1)) && !history.contains(tli(3)));
        assert_eq!(history.timeline_at(lsn(0x0300_0147)), tli(1));
        assert_eq!(history.timeline_at(lsn(0x0300_0148)), tli(2));
        assert_eq!(history.timeline_at(lsn(0x0500_00A0)), tli(4));
        let segment = |start| history.timelines_between(lsn(start), lsn(start + 0x0100_0000));
        assert_eq!(segment(0x0200_0000), [tli(1)]);
        assert_eq!(segment(0x0300_0000), [tli(1), tli(2)]);
        assert_eq!(segment(0x0400_0000), [tli(2)]);
        assert_eq!(segment(0x0500_0000), [tli(2), tli(4)]);
        assert_eq!(segment(0x0600_0000), [tli(4)]);
        // A switch between two segments.
        assert_eq!(history.timelines_between(lsn(0x0500_00A0), lsn(0x0600_0000)), [tli(4)]);
    }

    #[test]
    fn refuses_what_cannot_be() {
        for (content, line) in [("1\n", 1), ("\nx\t0/1\tr", 2), ("1\t0-1\tr", 1)] {
            let error = TimelineHistory::parse(tli(3), content.as_bytes());
            assert_eq!(error, Err(HistoryError::Line { timeline: tli(3), line }), "{content:?}");
        }
        for content in ["3\t0/1\tr", "2\t0/1\tr\n1\t0/2\tr", "1\t0/2\tr\n2\t0/1\tr"] {
            let error = TimelineHistory::parse(tli(3), content.as_bytes());
            assert!(matches!(error, Err(HistoryError::Order { .. })), "{content:?}");
        }
    }

    #[test]
    fn white_space_is_a_tabulator() {
        let spaced = TimelineHistory::parse(tli(2), b" 1 \t 0/3000148\r\n").unwrap();
        assert_eq!(spaced.fork_from(tli(1)), Some(lsn(0x0300_0148)));
        assert_eq!(spaced.switches()[0].reason, "");
    }

    #[test]
    fn a_file_is_written_as_servers_write_it() {
        let content = "1\t0/3000148\tno recovery target specified\n\n2\t0/50000A0\tat \"x\"\n";
        let history = TimelineHistory::parse(tli(3), content.as_bytes()).unwrap();
        assert_eq!(history.write(ServerVersion::from_num(180_004)), content.as_bytes());
        let padded = history.write(ServerVersion::from_num(190_000));
        assert_eq!(padded, content.replace("0/", "0/0").as_bytes());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            steps in prop::collection::vec((1u32..5, 0u64..1 << 40, "[!-~]([ -~]{0,20}[!-~])?"), 0..5),
        ) {
            let (mut timeline, mut at) = (0, 0);
            let mut switches = Vec::new();
            for (step, bytes, reason) in steps {
                (timeline, at) = (timeline + step, at + bytes);
                let switch_point = lsn(at);
                switches.push(TimelineSwitch { timeline: tli(timeline), switch_point, reason });
            }
            let history = TimelineHistory { timeline: tli(timeline + 1), switches };
            for version in [100_023, 190_000] {
                let content = history.write(ServerVersion::from_num(version));
                let read = TimelineHistory::parse(history.timeline, &content);
                prop_assert_eq!(read, Ok(history.clone()));
            }
        }

        #[test]
        fn never_panics(content: Vec<u8>) {
            let _ = TimelineHistory::parse(tli(9), &content);
        }
    }
}
