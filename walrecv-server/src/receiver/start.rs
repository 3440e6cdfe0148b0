//! Where to start: a decision, made from values alone.
//!
//! Our own store comes first, because it alone knows what we have; then the slot, because it alone
//! knows what the server kept for us; then the server's current position, which is all there is
//! for a first contact without a slot.
//!
//! On the timeline we were on, reception resumes *inside* the `.partial` file, at the page on which
//! its last valid record begins: everything before it is bound together by checksums, and by now
//! is durable. Where there is none, it resumes a page before what was acknowledged. What comes
//! again is compared with what is stored. Bytes behind the acknowledged position may have been
//! damaged by a power cut; so without knowing that position either, the whole segment is received
//! again.

use pgwire_stream::{Lsn, SegmentSize, TimelineHistory, TimelineId};

use crate::failure::{Class, Failure};

/// The size of a WAL page.
const PAGE: u64 = 8192;

/// How far the store goes on the newest timeline it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) timeline: TimelineId,
    /// The position behind the last byte that is not a trailing zero of a `.partial`.
    pub(crate) end: Lsn,
    /// Whether `end` lies in a `.partial` file that can be continued.
    pub(crate) partial: bool,
    /// The last valid record of the `.partial` file, and where it ends.
    pub(crate) last_record: Option<(Lsn, Lsn)>,
    /// Whether the segment before is held as well. If not, the slot may still be where somebody
    /// else, or another timeline, has left it, and says nothing about this segment.
    pub(crate) follows: bool,
    /// How this timeline came to be, if its history is stored.
    pub(crate) history: Option<TimelineHistory>,
}

/// What the server says about itself.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) timeline: TimelineId,
    pub(crate) flushed_to: Lsn,
    pub(crate) history: TimelineHistory,
    pub(crate) segment_size: SegmentSize,
    /// A standby can be behind what it had before it was restarted.
    pub(crate) standby: bool,
}

impl Source {
    /// Whether this position of a timeline is in the server's past.
    pub(crate) fn has(&self, timeline: TimelineId, lsn: Lsn) -> bool {
        let left = self.history.fork_from(timeline);
        self.history.contains(timeline) && lsn <= left.unwrap_or(self.flushed_to)
    }
}

/// A position that we acknowledged, or from which the slot keeps WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) lsn: Lsn,
    /// Unknown before version 15.
    pub(crate) timeline: Option<TimelineId>,
    /// Whether this process has made it durable; else it is what the slot says.
    pub(crate) by_us: bool,
}

/// Where to start, and what is known about the bytes there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) timeline: TimelineId,
    pub(crate) from: Lsn,
    /// Everything we hold of this timeline before this position was durable before.
    pub(crate) durable: Lsn,
    /// The timeline that is left by starting here.
    pub(crate) switch: Option<Switch>,
}

/// The change from one timeline to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Switch {
    pub(crate) left: TimelineId,
    pub(crate) entered: TimelineId,
    /// Where the old timeline was left by the new one.
    pub(crate) fork: Lsn,
    /// How far we hold the old timeline. What lies behind the fork happened on no server that goes
    /// on; it is kept.
    pub(crate) held_to: Lsn,
}

/// Why starting would mix or lose data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The server is on a timeline that is older than ours.
    #[error("the server is on timeline {theirs}, and timeline {ours} was received already")]
    OlderTimeline {
        /// The newest timeline we hold.
        ours: TimelineId,
        /// The server's.
        theirs: TimelineId,
    },
    /// The server's timeline does not descend from ours.
    #[error(
        "the server's timeline {theirs} does not descend from timeline {ours}, which was received \
         last"
    )]
    UnrelatedTimeline {
        /// The newest timeline we hold.
        ours: TimelineId,
        /// The server's.
        theirs: TimelineId,
    },
    /// The server has another history of a timeline we hold.
    #[error(
        "the server's history leaves timeline {timeline} elsewhere than the history that is stored \
         ({stored}) says"
    )]
    OtherHistory {
        /// The timeline on which they part.
        timeline: TimelineId,
        /// Where it was left according to the store.
        stored: Lsn,
    },
    /// The server has less WAL than we have of the same timeline.
    #[error(
        "the server's WAL ends at {theirs} on timeline {timeline}, but it had sent WAL up to \
         {ours}: it was rolled back"
    )]
    RolledBack {
        /// The timeline.
        timeline: TimelineId,
        /// How far we hold it.
        ours: Lsn,
        /// How far the server has it.
        theirs: Lsn,
    },
}

impl Failure for Refusal {
    fn class(&self) -> Class {
        Class::Refused
    }

    fn hint(&self) -> Option<String> {
        Some(
            "if the connection leads to the right server, it was restored to an earlier state; \
             nothing was changed here. Receive it under a new server name, so that what is stored \
             stays restorable"
                .to_owned(),
        )
    }
}

/// The standby has not come as far as before; it will.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Undecided {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the standby has WAL up to {theirs} so far, and WAL up to {ours} was received from it")]
    StandbyBehind { ours: Lsn, theirs: Lsn },
}

/// Decides where to start.
///
/// `kept` is what is known to have been acknowledged: what this process has made durable, or else
/// the slot's position.
pub(crate) fn decide(
    held: Option<&Held>,
    source: &Source,
    kept: Option<Kept>,
) -> Result<Start, Undecided> {
    let Some(held) = held else { return Ok(first_contact(source, kept)) };
    same_history(held, source)?;
    let Some(fork) = source.history.fork_from(held.timeline) else {
        if held.end > source.flushed_to {
            let (ours, theirs) = (held.end, source.flushed_to);
            return Err(if source.standby {
                Undecided::StandbyBehind { ours, theirs }
            } else {
                Refusal::RolledBack { timeline: held.timeline, ours, theirs }.into()
            });
        }
        return Ok(resume(held, source.segment_size, kept));
    };
    let from = segment_start(source.segment_size, fork);
    // The rest of the old timeline first; but a server that knows its timeline to have been left
    // later would not end it at the fork, and need not have it up to there.
    let ends_at_fork = leaves(&source.history, held.timeline, fork);
    if held.end < fork && (ends_at_fork || held.end < from) {
        return Ok(resume(held, source.segment_size, kept));
    }
    let timeline = source.history.timeline_at(fork);
    let switch = Switch { left: held.timeline, entered: timeline, fork, held_to: held.end };
    Ok(Start { timeline, from, durable: from, switch: Some(switch) })
}

/// Nothing is stored: from the beginning of the segment from which the slot keeps WAL, or of the
/// current one.
fn first_contact(source: &Source, kept: Option<Kept>) -> Start {
    let (timeline, lsn) = match kept {
        Some(Kept { lsn, timeline: Some(timeline), .. }) if source.history.contains(timeline) => {
            (timeline, lsn)
        }
        Some(Kept { lsn, timeline: None, .. }) => (source.history.timeline_at(lsn), lsn),
        _ => (source.timeline, source.flushed_to),
    };
    let from = segment_start(source.segment_size, lsn);
    Start { timeline, from, durable: from, switch: None }
}

/// On the timeline we hold, where we are.
fn resume(held: &Held, size: SegmentSize, kept: Option<Kept>) -> Start {
    let timeline = held.timeline;
    let start = |from, durable| Start { timeline, from, durable, switch: None };
    if !held.partial {
        // The beginning of the next segment; or of the same, where its cut tail was archived.
        let from = segment_start(size, held.end);
        return start(from, from);
    }
    // `end` is behind the last byte, so that byte's segment is the one that is open.
    let first = size.start_of(size.last_byte_segment_of(held.end));
    if let Some((record, record_end)) = held.last_record.filter(|(record, _)| *record >= first) {
        return start(page_start(record), record_end.min(held.end));
    }
    let tells = |kept: &Kept| {
        (kept.by_us || held.follows)
            && kept.timeline.is_none_or(|timeline| timeline == held.timeline)
            && kept.lsn > first
    };
    match kept.filter(tells) {
        Some(kept) => {
            let acknowledged = kept.lsn.min(held.end);
            let last_byte = acknowledged.as_u64().saturating_sub(1);
            start(page_start(Lsn::from_u64(last_byte)), acknowledged)
        }
        None => start(first, first),
    }
}

fn page_start(lsn: Lsn) -> Lsn {
    Lsn::from_u64(lsn.as_u64() / PAGE * PAGE)
}

/// Refuses a server that is not on our timeline or a descendant of it.
fn same_history(held: &Held, source: &Source) -> Result<(), Refusal> {
    let (ours, theirs) = (held.timeline, source.timeline);
    if !source.history.contains(ours) {
        return Err(if theirs < ours {
            Refusal::OlderTimeline { ours, theirs }
        } else {
            Refusal::UnrelatedTimeline { ours, theirs }
        });
    }
    for switch in held.history.iter().flat_map(TimelineHistory::switches) {
        if !leaves(&source.history, switch.timeline, switch.switch_point) {
            let (timeline, stored) = (switch.timeline, switch.switch_point);
            return Err(Refusal::OtherHistory { timeline, stored });
        }
    }
    Ok(())
}

/// Whether a timeline was left there, whatever became of the one that was entered.
fn leaves(history: &TimelineHistory, timeline: TimelineId, at: Lsn) -> bool {
    let mut switches = history.switches().iter();
    switches.any(|switch| switch.timeline == timeline && switch.switch_point == at)
}

fn segment_start(size: SegmentSize, lsn: Lsn) -> Lsn {
    size.start_of(size.segment_of(lsn))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 1 << 20;

    fn tli(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn lsn(address: u64) -> Lsn {
        Lsn::from_u64(address)
    }

    fn history(timeline: u32, switches: &[(u32, u64)]) -> TimelineHistory {
        let text: String =
            switches.iter().map(|&(left, at)| format!("{left}\t{}\tx\n", lsn(at))).collect();
        TimelineHistory::parse(tli(timeline), text.as_bytes()).unwrap()
    }

    fn source(timeline: u32, flushed_to: u64, switches: &[(u32, u64)]) -> Source {
        Source {
            timeline: tli(timeline),
            flushed_to: lsn(flushed_to),
            history: history(timeline, switches),
            segment_size: SegmentSize::new(SEGMENT).unwrap(),
            standby: false,
        }
    }

    fn held(timeline: u32, end: u64, partial: bool) -> Held {
        Held {
            timeline: tli(timeline),
            end: lsn(end),
            partial,
            last_record: None,
            follows: true,
            history: None,
        }
    }

    fn kept(at: u64, timeline: Option<u32>) -> Option<Kept> {
        Some(Kept { lsn: lsn(at), timeline: timeline.map(tli), by_us: false })
    }

    fn start(timeline: u32, from: u64, durable: u64) -> Start {
        Start { timeline: tli(timeline), from: lsn(from), durable: lsn(durable), switch: None }
    }

    #[test]
    fn a_server_has_what_lies_before_its_forks_and_its_end() {
        let server = source(3, 900, &[(1, 500), (2, 600)]);
        for (timeline, has, has_not) in [(1, 500, 501), (2, 600, 601), (3, 900, 901)] {
            assert!(server.has(tli(timeline), lsn(has)));
            assert!(!server.has(tli(timeline), lsn(has_not)));
        }
        assert!(!server.has(tli(4), lsn(100)));
    }

    #[test]
    fn a_first_contact_starts_at_the_slot_or_at_the_server() {
        let two = source(2, 9 * SEGMENT + 50, &[(1, 5 * SEGMENT + 7)]);
        let begin = |timeline, from| start(timeline, from, from);
        for (kept, expected) in [
            (None, begin(2, 9 * SEGMENT)),
            (kept(7 * SEGMENT + 1, Some(2)), begin(2, 7 * SEGMENT)),
            (kept(3 * SEGMENT + 1, Some(1)), begin(1, 3 * SEGMENT)),
            (kept(3 * SEGMENT + 1, None), begin(1, 3 * SEGMENT)),
            (kept(7 * SEGMENT, None), begin(2, 7 * SEGMENT)),
            // A slot on a timeline that is not the server's says nothing.
            (kept(3 * SEGMENT, Some(9)), begin(2, 9 * SEGMENT)),
        ] {
            assert_eq!(decide(None, &two, kept).unwrap(), expected, "{kept:?}");
        }
    }

    #[test]
    fn the_same_timeline_resumes_a_page_before_what_was_acknowledged() {
        let one = source(1, 9 * SEGMENT, &[]);
        let at = 3 * SEGMENT;
        let end = at + 5 * PAGE + 100;
        for (partial, kept, expected) in [
            (true, kept(end, None), start(1, at + 5 * PAGE, end)),
            (true, kept(at + 5 * PAGE, Some(1)), start(1, at + 4 * PAGE, at + 5 * PAGE)),
            (true, kept(at + 20, Some(1)), start(1, at, at + 20)),
            // Acknowledged more than is there: only trailing zeros can be missing.
            (true, kept(end + 30, Some(1)), start(1, at + 5 * PAGE, end)),
            // Nothing of this segment is known to have been acknowledged.
            (true, kept(at, Some(1)), start(1, at, at)),
            (true, kept(at - 5, None), start(1, at, at)),
            (true, kept(end, Some(2)), start(1, at, at)),
            (true, None, start(1, at, at)),
            // The tail is archived already, as when a timeline was left.
            (false, kept(end, None), start(1, at, at)),
        ] {
            assert_eq!(decide(Some(&held(1, end, partial)), &one, kept).unwrap(), expected);
        }
        let complete = held(1, 4 * SEGMENT, false);
        let expected = start(1, 4 * SEGMENT, 4 * SEGMENT);
        assert_eq!(decide(Some(&complete), &one, None).unwrap(), expected);
        // In the first segment that we hold, the slot may be ahead of what we have acknowledged.
        let alone = Held { follows: false, ..held(1, end, true) };
        assert_eq!(decide(Some(&alone), &one, kept(end, Some(1))).unwrap(), start(1, at, at));
        let by_us = kept(end, Some(1)).map(|kept| Kept { by_us: true, ..kept });
        let expected = start(1, at + 5 * PAGE, end);
        assert_eq!(decide(Some(&alone), &one, by_us).unwrap(), expected);
        // What is valid tells more than what was acknowledged, of this segment.
        let mut valid = held(1, end, true);
        valid.last_record = Some((lsn(at + 2 * PAGE + 40), lsn(at + 3 * PAGE + 48)));
        let expected = start(1, at + 2 * PAGE, at + 3 * PAGE + 48);
        assert_eq!(decide(Some(&valid), &one, kept(end, Some(1))).unwrap(), expected);
        assert_eq!(decide(Some(&valid), &one, None).unwrap(), expected);
        valid.last_record = Some((lsn(at - 40), lsn(at + 48)));
        let expected = start(1, at + 5 * PAGE, end);
        assert_eq!(decide(Some(&valid), &one, kept(end, Some(1))).unwrap(), expected);
        // A full file that was not renamed yet.
        let full = held(1, 4 * SEGMENT, true);
        let expected = start(1, 3 * SEGMENT, 3 * SEGMENT);
        assert_eq!(decide(Some(&full), &one, None).unwrap(), expected);
    }

    #[test]
    fn a_descendant_is_followed() {
        let fork = 5 * SEGMENT + 1000;
        let two = source(2, 9 * SEGMENT, &[(1, fork)]);
        let entered = |held_to, from| Start {
            switch: Some(Switch {
                left: tli(1),
                entered: tli(2),
                fork: lsn(fork),
                held_to: lsn(held_to),
            }),
            ..start(2, from, from)
        };
        // Exactly at the fork, half a record past it, and far past it.
        for end in [fork, fork + 24, 7 * SEGMENT + 3] {
            let decided = decide(Some(&held(1, end, true)), &two, kept(end, Some(1))).unwrap();
            assert_eq!(decided, entered(end, 5 * SEGMENT));
        }
        // Not there yet: the rest of the old timeline first.
        let decided = decide(Some(&held(1, 4 * SEGMENT, false)), &two, None).unwrap();
        assert_eq!(decided.timeline, tli(1));
        // Timeline 2 was left where it began.
        let three = source(3, 9 * SEGMENT, &[(1, fork), (2, fork)]);
        let decided = decide(Some(&held(1, fork, true)), &three, None).unwrap();
        assert_eq!(decided.timeline, tli(3));
        // A server that does not reach as far as our dead tail is no rollback.
        let short = source(2, fork + 8, &[(1, fork)]);
        assert!(decide(Some(&held(1, 7 * SEGMENT, false)), &short, None).is_ok());
    }

    #[test]
    fn a_timeline_that_was_left_before_it_began_is_followed() {
        let fork = 5 * SEGMENT + 1000;
        let three = source(3, 9 * SEGMENT, &[(1, 7 * SEGMENT + 8), (2, fork)]);
        let entered = |left, end| Start {
            switch: Some(Switch {
                left: tli(left),
                entered: tli(3),
                fork: lsn(fork),
                held_to: lsn(end),
            }),
            ..start(3, 5 * SEGMENT, 5 * SEGMENT)
        };
        let mut two = held(2, 8 * SEGMENT, false);
        two.history = Some(history(2, &[(1, 7 * SEGMENT + 8)]));
        assert_eq!(decide(Some(&two), &three, None), Ok(entered(2, 8 * SEGMENT)));
        // The server may know timeline 1 to the fork only, and would go on behind it if it did not.
        for end in [5 * SEGMENT, 5 * SEGMENT + 24, fork, 7 * SEGMENT] {
            let decided = decide(Some(&held(1, end, true)), &three, None);
            assert_eq!(decided, Ok(entered(1, end)), "{end}");
        }
        let decided = decide(Some(&held(1, 4 * SEGMENT, false)), &three, None);
        assert_eq!(decided, Ok(start(1, 4 * SEGMENT, 4 * SEGMENT)));
        let slot = decide(None, &three, kept(fork - 1, None));
        assert_eq!(slot, Ok(start(1, 5 * SEGMENT, 5 * SEGMENT)));
    }

    #[test]
    fn what_would_mix_histories_is_refused() {
        let refusal = |held: Held, source: Source| match decide(Some(&held), &source, None) {
            Err(Undecided::Refused(refusal)) => refusal,
            other => panic!("{other:?}"),
        };
        let (ours, theirs) = (tli(2), tli(1));
        assert_eq!(
            refusal(held(2, SEGMENT, false), source(1, 9 * SEGMENT, &[])),
            Refusal::OlderTimeline { ours, theirs }
        );
        assert_eq!(
            refusal(held(2, SEGMENT, false), source(3, 9 * SEGMENT, &[(1, SEGMENT)])),
            Refusal::UnrelatedTimeline { ours, theirs: tli(3) }
        );
        assert_eq!(
            refusal(held(1, 3 * SEGMENT + 1, true), source(1, 3 * SEGMENT, &[])),
            Refusal::RolledBack {
                timeline: tli(1),
                ours: lsn(3 * SEGMENT + 1),
                theirs: lsn(3 * SEGMENT)
            }
        );
        let mut two = held(2, 3 * SEGMENT, false);
        two.history = Some(history(2, &[(1, 2 * SEGMENT)]));
        assert_eq!(
            refusal(two.clone(), source(3, 9 * SEGMENT, &[(1, SEGMENT), (2, 4 * SEGMENT)])),
            Refusal::OtherHistory { timeline: tli(1), stored: lsn(2 * SEGMENT) }
        );
        assert!(
            decide(
                Some(&two),
                &source(3, 9 * SEGMENT, &[(1, 2 * SEGMENT), (2, 4 * SEGMENT)]),
                None
            )
            .is_ok()
        );
    }

    #[test]
    fn a_standby_may_be_behind_for_a_while() {
        let mut standby = source(1, 3 * SEGMENT, &[]);
        standby.standby = true;
        let behind = Undecided::StandbyBehind { ours: lsn(4 * SEGMENT), theirs: lsn(3 * SEGMENT) };
        assert_eq!(decide(Some(&held(1, 4 * SEGMENT, false)), &standby, None), Err(behind));
    }
}
