//! What is asked of a store: mostly about places at which the answer changes.

use pgwire_stream::{Lsn, PgTimestamp};

use super::dice::Dice;
use super::facts::{Record, SEGMENT, What};
use super::oracle::{Along, Backup, Keys, Question, Store, Target};
use super::world::NAMES;

/// Something to ask.
pub(crate) fn question(store: &Store<'_>, dice: &mut Dice) -> Question {
    let behind: Vec<_> = store
        .backups
        .iter()
        .filter(|backup| store.suspect.iter().any(|suspect| suspect.to == backup.begin))
        .collect();
    let near = if !behind.is_empty() && dice.percent(30) {
        *dice.pick(&behind)
    } else {
        dice.pick(&store.backups)
    };
    let mut backup = match dice.below(10) {
        0..2 => "auto".to_owned(),
        2 => "latest".to_owned(),
        _ => near.id.clone(),
    };
    let along = match dice.below(10) {
        0..5 => Along::Latest,
        5..7 => Along::Current,
        _ => Along::Number(*dice.pick(&[1, 2, 3])),
    };
    let target = match dice.below(20) {
        0 => Target::Latest,
        1 => Target::Immediate,
        2..8 => Target::Lsn(some_lsn(store, near, dice)),
        8..14 => Target::Time(match dice.below(30) {
            0 => store.now + 3_600_000_000,
            // Nothing that is still to come when it is asked, and over when it is answered.
            _ => {
                let time = some_time(store, near, dice);
                (time + dice.pick(&[0, 0, 0, 1, -1, 500_000, -500_000])).min(store.now)
            }
        }),
        14..17 => Target::Xid(some_xid(store, near, dice)),
        _ => Target::Name((*dice.pick(&NAMES)).to_owned()),
    };
    let keys = *dice.pick(&[Keys::Right, Keys::Right, Keys::None, Keys::Wrong]);
    // Which backup leads there, nobody can tell who cannot read what is encrypted.
    let is_plain = keys == Keys::Right || store.encrypted.is_empty();
    if !is_plain && !matches!(target, Target::Latest | Target::Immediate) && backup == "auto" {
        backup.clone_from(&near.id);
    }
    Question {
        backup,
        target,
        inclusive: dice.percent(60),
        along,
        force: dice.percent(20),
        keys,
        get_wal: dice.percent(50),
    }
}

/// A question as options of the command.
pub(crate) fn options(question: &Question) -> Vec<String> {
    let mut options = Vec::new();
    let mut add = |words: &[&str]| options.extend(words.iter().map(|&word| word.to_owned()));
    match &question.target {
        Target::Latest => {}
        Target::Immediate => add(&["--target-immediate"]),
        Target::Lsn(lsn) => add(&["--target-lsn", &Lsn::from_u64(*lsn).to_string()]),
        Target::Time(time) => {
            add(&["--target-time", &PgTimestamp::from_unix_micros(*time).to_string()]);
        }
        Target::Xid(xid) => add(&["--target-xid", &xid.to_string()]),
        Target::Name(name) => add(&["--target-name", name]),
    }
    if !question.inclusive && question.target != Target::Latest {
        add(&["--exclusive"]);
    }
    match question.along {
        Along::Latest => {}
        Along::Current => add(&["--target-tli", "current"]),
        Along::Number(timeline) => add(&["--target-tli", &timeline.to_string()]),
    }
    if question.force {
        add(&["--force"]);
    }
    options
}

/// One of these records, often one in a backup or soon behind it.
fn some_record<'a>(
    store: &Store<'a>,
    near: &Backup,
    fits: impl Fn(&Record) -> bool,
    dice: &mut Dice,
) -> &'a Record {
    let within = near.begin..near.end + SEGMENT / 16;
    let own = store.records[&near.timeline].iter().filter(|record| fits(record));
    let own: Vec<&Record> = own.filter(|record| within.contains(&record.start)).collect();
    if !own.is_empty() && dice.percent(40) {
        return dice.pick::<&Record>(&own);
    }
    let all = store.records[dice.pick(&[1, 2, 3])].iter().filter(|record| fits(record));
    let all: Vec<&Record> = all.collect();
    // The last ones are of interest more often than others.
    let from = if dice.percent(20) { all.len().saturating_sub(3) } else { 0 };
    dice.pick::<&Record>(&all[from..])
}

/// A position at which something begins or ends, or beside it.
pub(crate) fn some_lsn(store: &Store<'_>, near: &Backup, dice: &mut Dice) -> u64 {
    let lsn = match dice.below(9) {
        0 => near.end,
        1 => {
            let switches = store.histories.values().flat_map(|history| history.switches());
            let switches: Vec<u64> = switches.map(|s| s.switch_point.as_u64()).collect();
            *dice.pick(&switches)
        }
        2 => {
            let held: Vec<(u64, u64)> = store.held.iter().map(|(&(_, n), &l)| (n, l)).collect();
            held.get(dice.below(held.len().max(1))).map_or(near.begin, |&(number, length)| {
                number * SEGMENT + *dice.pick(&[0, length, SEGMENT])
            })
        }
        3 | 4 if !store.suspect.is_empty() => {
            let suspect = dice.pick(&store.suspect);
            let mut records = store.records[&suspect.timeline].iter().rev();
            let before = records.find(|record| record.start < suspect.from);
            let before = before.map_or(suspect.from, |record| record.start);
            *dice.pick(&[before, before, suspect.from, suspect.to])
        }
        // The end of what is held.
        3..6 => {
            let timeline = some_later_timeline(store, near, dice);
            store.reach(near, timeline)
        }
        _ => {
            let record = some_record(store, near, |_| true, dice);
            if dice.percent(50) { record.start } else { record.end.next_multiple_of(8) }
        }
    };
    lsn.saturating_add_signed(*dice.pick(&[0, 0, 0, 1, -1, 8, -8]))
}

/// When something ended, in microseconds. Often it was the last thing in a backup, or on the way.
pub(crate) fn some_time(store: &Store<'_>, near: &Backup, dice: &mut Dice) -> i64 {
    let ended = |record: &Record| match record.what {
        What::End { at, .. } => Some(at),
        _ => None,
    };
    let last = |timeline: u32, end: u64| {
        let records = store.records(timeline).into_iter().map(|(_, record)| record);
        records.filter(|record| record.end <= end).filter_map(ended).max()
    };
    let time = match dice.below(10) {
        0 => None,
        1 => last(near.timeline, near.end),
        2 | 3 => {
            let timeline = some_later_timeline(store, near, dice);
            last(timeline, store.reach(near, timeline))
        }
        4 => store.caught_up.map(|seen| seen.at),
        _ => ended(some_record(store, near, |record| ended(record).is_some(), dice)),
    };
    time.unwrap_or(near.began_at)
}

fn some_later_timeline(store: &Store<'_>, near: &Backup, dice: &mut Dice) -> u32 {
    let all = store.histories.keys().copied();
    let later: Vec<u32> = all.filter(|&timeline| timeline >= near.timeline).collect();
    *dice.pick(&later)
}

/// A transaction: some are of subtransactions, or of nobody. The upper half counts wraparounds.
fn some_xid(store: &Store<'_>, near: &Backup, dice: &mut Dice) -> u64 {
    let ends = |record: &Record| matches!(record.what, What::End { xid, .. } if xid >= 3);
    let xid = match some_record(store, near, ends, dice).what {
        What::End { xid, .. } => xid.into(),
        _ => 3,
    };
    xid + *dice.pick(&[0, 0, 0, 0, 0, 1, 2, 1 << 32, 100_000])
}
