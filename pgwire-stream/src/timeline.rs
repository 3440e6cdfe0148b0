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
    /// The position at which it was left, as the file says. What is part of the history may end
    /// earlier: [`TimelineHistory::fork_from`].
    pub switch_point: Lsn,
    /// What the server wrote as reason; free text.
    pub reason: String,
}

/// The ancestry of a timeline: the switches that led to it, oldest first.
///
/// Timelines increase, but where they were left need not: a recovery along timeline 2 that stops
/// before timeline 2 began makes a timeline 3 whose history leaves 1 at some position and 2 at an
/// earlier one. Nothing of timeline 2 is part of that history, nor of timeline 1 what lies behind
/// the earlier position: whatever is newer counts.
///
/// Follows `readTimeLineHistory` and `tliOfPointInHistory` in
/// `src/backend/access/transam/timeline.c`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineHistory {
    timeline: TimelineId,
    switches: Vec<TimelineSwitch>,
}

/// Why a timeline history file cannot be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// A line is not `timeline <tab> position <tab> reason`.
    #[error("line {line} of the history of timeline {timeline} is not understood")]
    Line {
        /// The timeline whose history is read.
        timeline: TimelineId,
        /// The line's number, from 1.
        line: usize,
    },
    /// Timelines must increase, up to the timeline whose history it is.
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
                && switches.last().is_none_or(|last| last.timeline < switch.timeline);
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

    /// Where an ancestor was left on the way to this timeline: its first byte that is not part of
    /// the history. `None` for a timeline that is not an ancestor, and for this timeline itself.
    ///
    /// A server that streams the ancestor ends it at its [`switch_point`], which may lie behind.
    ///
    /// [`switch_point`]: TimelineSwitch::switch_point
    pub fn fork_from(&self, ancestor: TimelineId) -> Option<Lsn> {
        let left = self.switches.iter().skip_while(|switch| switch.timeline != ancestor);
        left.map(|switch| switch.switch_point).min()
    }

    /// The timelines that may have a segment from `start` to `end` of which something belongs to
    /// the history, oldest first. A timeline's first segment begins with what it inherited, so
    /// where timelines change there are several.
    pub fn timelines_between(&self, start: Lsn, end: Lsn) -> Vec<TimelineId> {
        let mut timelines = Vec::new();
        let (mut timeline, mut left) = (self.timeline, end);
        for switch in self.switches.iter().rev() {
            let began = switch.switch_point;
            if began < end && start < left {
                timelines.push(timeline);
            }
            (timeline, left) = (switch.timeline, left.min(began));
        }
        if start < left {
            timelines.push(timeline);
        }
        timelines.reverse();
        timelines
    }

    /// The timeline on which the byte at `lsn` lies in this history.
    pub fn timeline_at(&self, lsn: Lsn) -> TimelineId {
        let later = self.switches.iter().rev().take_while(|switch| lsn < switch.switch_point);
        later.last().map_or(self.timeline, |switch| switch.timeline)
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
        for content in ["3\t0/1\tr", "2\t0/1\tr\n1\t0/2\tr", "1\t0/1\tr\n1\t0/2\tr"] {
            let error = TimelineHistory::parse(tli(3), content.as_bytes());
            assert!(matches!(error, Err(HistoryError::Order { .. })), "{content:?}");
        }
    }

    /// `tliOfPointInHistory`: newest first, the first entry that has the position.
    fn of_point(history: &TimelineHistory, at: Lsn) -> TimelineId {
        let mut entries = Vec::new();
        let mut begin = Lsn::ZERO;
        for switch in history.switches() {
            entries.push((switch.timeline, begin, Some(switch.switch_point)));
            begin = switch.switch_point;
        }
        entries.push((history.timeline(), begin, None));
        let holds = |&&(_, begin, end): &&(_, Lsn, Option<Lsn>)| {
            begin <= at && end.is_none_or(|end| at < end)
        };
        entries.iter().rev().find(holds).unwrap().0
    }

    #[test]
    fn a_timeline_may_be_left_before_it_began() {
        let history = TimelineHistory::parse(tli(3), b"1\t0/900\tr\n\n2\t0/500\tr\n").unwrap();
        assert_eq!(history.timeline_at(lsn(0x4FF)), tli(1));
        assert_eq!(history.timeline_at(lsn(0x500)), tli(3));
        assert_eq!(history.timeline_at(lsn(0x900)), tli(3));
        assert_eq!(history.fork_from(tli(1)), Some(lsn(0x500)));
        assert_eq!(history.fork_from(tli(2)), Some(lsn(0x500)));
        assert!(history.contains(tli(2)));
        let between = |start, end| history.timelines_between(lsn(start), lsn(end));
        assert_eq!(between(0x400, 0x500), [tli(1)]);
        assert_eq!(between(0x400, 0x600), [tli(1), tli(3)]);
        assert_eq!(between(0x500, 0x600), [tli(3)]);
        assert_eq!(between(0x800, 0xA00), [tli(3)]);
        // The first segment of timeline 2 has what it inherited of timeline 1.
        assert_eq!(between(0x400, 0xA00), [tli(1), tli(2), tli(3)]);
        assert_eq!(history.switches()[0].switch_point, lsn(0x900));
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
            let mut timeline = 0;
            let mut switches = Vec::new();
            for (step, at, reason) in steps {
                timeline += step;
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
        fn each_byte_has_the_timeline_that_the_server_gives_it(
            switch_points in prop::collection::vec(0u64..8, 0..6),
            start in 0u64..9,
            len in 1u64..5,
        ) {
            let mut switches = Vec::new();
            for (timeline, at) in (1..).zip(switch_points) {
                let (timeline, switch_point) = (tli(timeline), lsn(at));
                switches.push(TimelineSwitch { timeline, switch_point, reason: String::new() });
            }
            let timeline = tli(switches.len() as u32 + 1);
            let history = TimelineHistory { timeline, switches };
            let between = history.timelines_between(lsn(start), lsn(start + len));
            for at in (start..start + len).map(lsn) {
                let timeline = of_point(&history, at);
                prop_assert_eq!(history.timeline_at(at), timeline);
                prop_assert!(history.fork_from(timeline).is_none_or(|fork| at < fork));
                prop_assert!(between.contains(&timeline));
            }
            prop_assert!(between.is_sorted());
            for timeline in between {
                let fork = history.fork_from(timeline);
                prop_assert!(fork.is_none_or(|fork| lsn(start) < fork));
            }
        }

        #[test]
        fn never_panics(content: Vec<u8>) {
            let _ = TimelineHistory::parse(tli(9), &content);
        }
    }
}
