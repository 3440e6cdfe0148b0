//! Whether a restore is possible, found out the slow way: by PostgreSQL's rules of where recovery
//! stops, put to every single record.
//!
//! The rules are those of `recoveryStopsBefore` and `recoveryStopsAfter` in `xlogrecovery.c`, and
//! of `checkTimeLineSwitch` and `readRecoverySignalFile` for timelines. Nothing here knows how the
//! product finds its answers, and nothing is quick.

use std::collections::{BTreeMap, BTreeSet};

use pgwire_stream::{TimelineHistory, TimelineId};

use super::facts::{Record, SEGMENT, What};

/// A backup that was completely copied.
#[derive(Clone, Debug)]
pub(crate) struct Backup {
    pub(crate) id: String,
    /// By the clock of the backup server, rounded up to microseconds.
    pub(crate) began_at: i64,
    /// The same, of its end.
    pub(crate) ended_at: i64,
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) timeline: u32,
    pub(crate) parent: Option<String>,
}

/// A moment at which nothing of the server's WAL was missing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CaughtUp {
    pub(crate) at: i64,
    pub(crate) lsn: u64,
    pub(crate) timeline: u32,
}

/// WAL of which an index says that no server could replay it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suspect {
    pub(crate) timeline: u32,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// Where recovery is to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Latest,
    Immediate,
    Lsn(u64),
    Time(i64),
    Xid(u64),
    Name(String),
}

/// Along which timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Along {
    Latest,
    Current,
    Number(u32),
}

/// With which keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    None,
    /// To other WAL.
    Wrong,
    Right,
}

/// A restore that somebody asks for.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// An id, `latest` or `auto`.
    pub(crate) backup: String,
    pub(crate) target: Target,
    pub(crate) inclusive: bool,
    pub(crate) along: Along,
    /// Across suspect WAL, too.
    pub(crate) force: bool,
    pub(crate) keys: Keys,
    /// Whether the server asks for its WAL, instead of having all of it beforehand.
    pub(crate) get_wal: bool,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Possible(Course),
    Refused(Why),
}

/// How a recovery goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Course {
    pub(crate) backup: String,
    pub(crate) timeline: u32,
    pub(crate) stop: Stop,
}

/// Where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// With all there is.
    Nowhere,
    /// Before the record that begins here.
    Before(u64),
    /// Behind the record that begins here.
    Behind(u64),
    /// As soon as all before this is replayed.
    At(u64),
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// WAL of the backup, or a backup that it builds on, is not there.
    NoBackup,
    /// It, or one that it builds on, is known to be damaged.
    Damaged,
    /// The timeline does not come from that of the backup, or from before its end.
    Timeline,
    /// Nobody knows how the timeline came to be.
    History,
    /// WAL is missing that lies before the target, or may.
    Gap,
    /// A server would stop before the backup is consistent.
    TooEarly,
    /// The target lies before the backup's end, and a server would not notice.
    Within,
    /// There is nothing to stop at.
    NotReached,
    /// WAL on the way is suspect.
    Suspect,
    /// WAL on the way is encrypted, and cannot be decrypted.
    Keys,
}

/// What a store holds.
#[derive(Clone, Debug)]
pub(crate) struct Store<'a> {
    /// How timelines came to be, as it was.
    pub(crate) histories: &'a BTreeMap<u32, TimelineHistory>,
    /// The timelines of which that is not known any more.
    pub(crate) forgotten: BTreeSet<u32>,
    /// The records of every timeline when nothing was missing.
    pub(crate) records: &'a BTreeMap<u32, Vec<Record>>,
    /// How much is held of each segment.
    pub(crate) held: BTreeMap<(u32, u64), u64>,
    /// In the order in which they began.
    pub(crate) backups: Vec<Backup>,
    /// Those that are known to be damaged.
    pub(crate) damaged: BTreeSet<String>,
    pub(crate) caught_up: Option<CaughtUp>,
    pub(crate) suspect: Vec<Suspect>,
    /// The segments that are encrypted.
    pub(crate) encrypted: BTreeSet<(u32, u64)>,
    pub(crate) now: i64,
}

/// A stretch of a timeline that belongs to a history.
struct Life {
    timeline: u32,
    from: u64,
    left: u64,
}

/// The stretches of a history.
fn lives(history: &TimelineHistory) -> Vec<Life> {
    let mut lives = Vec::new();
    let (mut timeline, mut left) = (history.timeline().get(), u64::MAX);
    for switch in history.switches().iter().rev() {
        let from = switch.switch_point.as_u64();
        lives.push(Life { timeline, from, left });
        // Whatever is newer counts.
        (timeline, left) = (switch.timeline.get(), left.min(from));
    }
    lives.push(Life { timeline, from: 0, left });
    lives
}

impl Store<'_> {
    pub(crate) fn answer(&self, question: &Question) -> Answer {
        match self.answer_with_keys(question) {
            Answer::Possible(course)
                if question.keys != Keys::Right && self.needs_keys(&course) =>
            {
                Answer::Refused(Why::Keys)
            }
            answer => answer,
        }
    }

    fn answer_with_keys(&self, question: &Question) -> Answer {
        let newest_first = || self.backups.iter().rev();
        match question.backup.as_str() {
            "auto" => newest_first()
                .map(|backup| self.from(backup, question))
                .find(|answer| matches!(answer, Answer::Possible(_)))
                .unwrap_or(Answer::Refused(Why::NoBackup)),
            "latest" => newest_first()
                .find(|backup| self.is_whole(backup) && !self.is_damaged(backup))
                .map_or(Answer::Refused(Why::NoBackup), |backup| self.from(backup, question)),
            id => self
                .backup(id)
                .map_or(Answer::Refused(Why::NoBackup), |backup| self.from(backup, question)),
        }
    }

    pub(crate) fn from(&self, backup: &Backup, question: &Question) -> Answer {
        let course = || {
            if !self.is_whole(backup) {
                return Err(Why::NoBackup);
            }
            if self.is_damaged(backup) {
                return Err(Why::Damaged);
            }
            let timeline = self.timeline(backup, question.along)?;
            let stop = self.stop(backup, timeline, question)?;
            let course = Course { backup: backup.id.clone(), timeline, stop };
            if self.reads_suspect(&course, question) && !question.force {
                return Err(Why::Suspect);
            }
            Ok(course)
        };
        course().map_or_else(Answer::Refused, Answer::Possible)
    }

    /// Whether the backup, its ancestors and its WAL are there.
    fn is_whole(&self, backup: &Backup) -> bool {
        let own = [Life { timeline: backup.timeline, from: 0, left: u64::MAX }];
        self.family(backup).is_some() && self.held_to(&own, backup.begin) >= backup.end
    }

    fn is_damaged(&self, backup: &Backup) -> bool {
        let family = self.family(backup).unwrap_or_default();
        family.iter().any(|backup| self.damaged.contains(&backup.id))
    }

    /// A backup and its ancestors, if all of them are there.
    fn family<'s>(&'s self, backup: &'s Backup) -> Option<Vec<&'s Backup>> {
        let mut family = vec![backup];
        while let Some(parent) = &family[family.len() - 1].parent {
            family.push(self.backup(parent)?);
        }
        Some(family)
    }

    /// How a timeline came to be, as far as that is known.
    fn history(&self, timeline: u32) -> TimelineHistory {
        match TimelineId::new(timeline) {
            Some(own) if self.forgotten.contains(&timeline) => TimelineHistory::root(own),
            _ => self.histories[&timeline].clone(),
        }
    }

    fn timeline(&self, backup: &Backup, along: Along) -> Result<u32, Why> {
        let lives = |timeline: u32| match self.forgotten.contains(&timeline) {
            true => Err(Why::History),
            false => Ok(lives(&self.histories[&timeline])),
        };
        let own = |life: &Life| life.timeline == backup.timeline;
        let follows =
            |lives: &[Life]| lives.iter().any(|life| own(life) && life.left >= backup.end);
        match along {
            Along::Current => Ok(backup.timeline),
            Along::Number(timeline) if timeline == backup.timeline => Ok(timeline),
            Along::Number(timeline) => match follows(&lives(timeline)?) {
                true => Ok(timeline),
                false => Err(Why::Timeline),
            },
            Along::Latest => {
                let mut dead = false;
                for &newer in self.histories.keys().rev().filter(|&&t| t > backup.timeline) {
                    // Of one that is known by nothing at all, nobody can think.
                    if self.forgotten.contains(&newer) && !self.holds_some_of(newer) {
                        continue;
                    }
                    let lives = lives(newer)?;
                    if follows(&lives) {
                        return Ok(newer);
                    }
                    // Left before its end, and by nobody behind it: its branch is dead.
                    dead |= lives.iter().any(own);
                }
                if dead { Err(Why::Timeline) } else { Ok(backup.timeline) }
            }
        }
    }

    fn holds_some_of(&self, timeline: u32) -> bool {
        self.held.iter().any(|(&(of, _), &length)| of == timeline && length > 0)
    }

    /// The first byte from here on that is not held.
    fn held_to(&self, lives: &[Life], from: u64) -> u64 {
        let mut at = from;
        loop {
            let number = at / SEGMENT;
            // The first segment of a timeline begins with what it has from its parent.
            let usable = lives
                .iter()
                .filter(|life| life.from / SEGMENT <= number && at < life.left)
                .map(|life| (self.length(life.timeline, number) + number * SEGMENT).min(life.left));
            match usable.max() {
                Some(end) if end > at => at = end,
                _ => return at,
            }
        }
    }

    fn length(&self, timeline: u32, number: u64) -> u64 {
        self.held.get(&(timeline, number)).copied().unwrap_or(0)
    }

    /// All records of a history that is known, in order.
    pub(crate) fn records(&self, timeline: u32) -> Vec<(u32, &Record)> {
        self.records_of(&self.history(timeline))
    }

    /// All records of a history, in order.
    pub(crate) fn records_of(&self, history: &TimelineHistory) -> Vec<(u32, &Record)> {
        let mut records = Vec::new();
        for life in lives(history).iter().rev() {
            let own = self.records[&life.timeline].iter();
            let own = own.filter(|record| life.from <= record.start && record.start < life.left);
            records.extend(own.map(|record| (life.timeline, record)));
        }
        assert!(records.is_sorted_by_key(|(_, record)| record.start));
        records
    }

    /// How far recovery comes along a timeline from a backup.
    pub(crate) fn reach(&self, backup: &Backup, timeline: u32) -> u64 {
        self.held_to(&lives(&self.history(timeline)), backup.begin)
    }

    /// Up to where WAL is held on a course.
    pub(crate) fn held_on(&self, course: &Course) -> u64 {
        let backup = self.backup(&course.backup);
        backup.map_or(0, |backup| self.reach(backup, course.timeline))
    }

    /// The end of what a server reads at least on a course.
    pub(crate) fn needed_on(&self, course: &Course) -> u64 {
        let records = self.records(course.timeline);
        match course.stop {
            Stop::Nowhere => self.held_on(course),
            Stop::At(end) => end,
            Stop::Before(start) | Stop::Behind(start) => {
                let stop = records.iter().find(|(_, record)| record.start == start);
                stop.map_or(u64::MAX, |(_, record)| record.end)
            }
        }
    }

    /// Whether a server has to replay suspect WAL on a course.
    pub(crate) fn reads_suspect(&self, course: &Course, question: &Question) -> bool {
        let begin = self.backup(&course.backup).map_or(0, |backup| backup.begin);
        let held_to = self.held_on(course);
        let end = match (course.stop, &question.target) {
            (Stop::Nowhere, Target::Latest) => held_to,
            // Nothing that it would miss lies behind the last record.
            (Stop::Nowhere, _) => {
                let records = self.records(course.timeline).into_iter().map(|(_, record)| record);
                let held = records.filter(|record| record.end <= held_to);
                held.map(|record| record.end).max().unwrap_or(held_to)
            }
            _ => self.needed_on(course),
        };
        let lives = lives(&self.history(course.timeline));
        self.suspect.iter().any(|suspect| {
            let mut own = lives.iter().filter(|life| life.timeline == suspect.timeline);
            own.any(|life| suspect.from.max(begin) < suspect.to.min(end).min(life.left))
        })
    }

    /// Whether anything is encrypted that a server may read on a course.
    fn needs_keys(&self, course: &Course) -> bool {
        let begin = self.backup(&course.backup).map_or(0, |backup| backup.begin);
        let segments = begin / SEGMENT..=(self.needed_on(course) - 1) / SEGMENT;
        let lives = lives(&self.history(course.timeline));
        self.encrypted.iter().any(|&(timeline, number)| {
            let mut own = lives.iter().filter(|life| life.timeline == timeline);
            segments.contains(&number)
                && own.any(|life| {
                    (life.from / SEGMENT..life.left.div_ceil(SEGMENT)).contains(&number)
                })
        })
    }

    fn backup(&self, id: &str) -> Option<&Backup> {
        self.backups.iter().find(|backup| backup.id == id)
    }

    fn stop(&self, backup: &Backup, timeline: u32, question: &Question) -> Result<Stop, Why> {
        let lives = lives(&self.history(timeline));
        let held_to = self.reach(backup, timeline);
        if held_to < backup.end {
            return Err(Why::Gap);
        }
        let lost = self.held.iter().any(|(&(of, number), &length)| {
            let start = number * SEGMENT;
            let on_the_way = lives.iter().any(|life| life.timeline == of && start < life.left);
            length > 0 && number > held_to / SEGMENT && on_the_way
        });
        let replayed = self.records(timeline).into_iter().map(|(_, record)| record);
        let replayed: Vec<&Record> =
            replayed.filter(|r| backup.begin <= r.start && r.end <= held_to).collect();
        let first = |stops: &dyn Fn(&Record) -> bool| match replayed.iter().find(|r| stops(r)) {
            Some(record) if record.start < backup.end => Err(Why::TooEarly),
            Some(record) => Ok(Some(record.start)),
            None => Ok(None),
        };
        let around = |start: u64| {
            if question.inclusive { Stop::Behind(start) } else { Stop::Before(start) }
        };
        let nothing_more = |everything: bool| match (lost, everything) {
            (true, _) => Err(Why::Gap),
            (false, true) => Ok(Stop::Nowhere),
            (false, false) => Err(Why::NotReached),
        };
        match &question.target {
            Target::Latest => nothing_more(true),
            Target::Immediate => Ok(Stop::At(backup.end)),
            &Target::Lsn(lsn) if lsn < backup.end => {
                let stop = replayed.iter().find(|record| record.start >= lsn);
                // Behind the record that ends the backup, it is consistent.
                let ends_backup = |record: &Record| {
                    question.inclusive && record.end.next_multiple_of(8) >= backup.end
                };
                match stop {
                    Some(stop) if stop.start < backup.end && !ends_backup(stop) => {
                        Err(Why::TooEarly)
                    }
                    _ => Err(Why::Within),
                }
            }
            &Target::Lsn(lsn) => first(&|record| record.start >= lsn)?
                .map_or_else(|| nothing_more(lsn <= held_to), |start| Ok(around(start))),
            &Target::Time(time) => {
                if time > self.now {
                    return Err(Why::NotReached);
                }
                let ended = |record: &Record| match record.what {
                    What::End { at, .. } => Some(at),
                    _ => None,
                };
                let stops = |at: i64| if question.inclusive { at > time } else { at >= time };
                let stop = first(&|record| ended(record).is_some_and(stops))?;
                let mut within = replayed.iter().filter(|record| record.start < backup.end);
                if !within.any(|record| ended(record).is_some()) && time < backup.ended_at {
                    return Err(Why::Within);
                }
                let seen = self.caught_up.filter(|seen| {
                    let left = |life: &Life| life.left;
                    let at = lives
                        .iter()
                        .filter(|life| life.from <= seen.lsn)
                        .map(|life| (life.timeline, left(life)));
                    let own = at.filter(|&(_, left)| seen.lsn < left).map(|(of, _)| of).max();
                    seen.at >= time && seen.lsn <= held_to && own == Some(seen.timeline)
                });
                match stop {
                    Some(start) => Ok(Stop::Before(start)),
                    None => nothing_more(seen.is_some()),
                }
            }
            &Target::Xid(xid) => {
                let wanted = u32::try_from(xid % (1 << 32)).unwrap_or_default();
                let stops =
                    |record: &Record| matches!(record.what, What::End { xid, .. } if xid == wanted);
                first(&stops)?.map_or_else(|| nothing_more(false), |start| Ok(around(start)))
            }
            Target::Name(name) => {
                let stops = |record: &Record| record.what == What::RestorePoint(name.clone());
                first(&stops)?.map_or_else(|| nothing_more(false), |at| Ok(Stop::Behind(at)))
            }
        }
    }
}

impl Course {
    /// Whether a record is replayed on this course, if it is on the way and held.
    pub(crate) fn replays(&self, record: &Record) -> bool {
        match self.stop {
            Stop::Nowhere => true,
            Stop::Before(at) | Stop::At(at) => record.start < at,
            Stop::Behind(at) => record.start <= at,
        }
    }
}
