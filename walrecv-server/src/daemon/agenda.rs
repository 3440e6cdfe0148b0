//! What is due when: schedules, and which of their moments have had their turn.
//!
//! No clock and no file: the time and the turns are arguments.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::board::Task;
use crate::catalog::{Turn, Turns};
use crate::settings::{Schedule, ServerName, ServerSettings};

/// Servers with the same schedule begin within so many seconds, each always at the same one.
const SPREAD: u32 = 60;

/// Tasks that do not go on at the same time for one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Base backups.
    Backups,
    /// Verifications.
    Verifications,
}

impl Line {
    /// Its tasks; one that is due takes the turn of those behind it.
    pub(super) const fn tasks(self) -> &'static [Task] {
        match self {
            // A full backup makes the incremental one of the same night needless.
            Self::Backups => &[Task::Backup, Task::IncrementalBackup],
            Self::Verifications => &[Task::Verification],
        }
    }
}

/// The schedule of a task, if it has one.
pub(super) fn schedule(task: Task, settings: &ServerSettings) -> Option<&Schedule> {
    match task {
        Task::Backup => settings.backup_schedule.as_ref(),
        Task::IncrementalBackup => settings.incremental_schedule.as_ref(),
        Task::Verification => settings.verify_schedule.as_ref(),
        Task::Retention | Task::Check => None,
    }
}

/// How a task is called in the record of turns.
const fn name(task: Task) -> &'static str {
    match task {
        Task::Backup => "backup",
        Task::IncrementalBackup => "incremental_backup",
        Task::Verification => "verification",
        Task::Retention => "retention",
        Task::Check => "check",
    }
}

/// Takes in what is new: a schedule without turns, or another than before, begins now; and so does
/// one whose last turn lies in the future, because the clock was set back. Says whether anything
/// changed.
pub(super) fn align(turns: &mut Turns, settings: &ServerSettings, now: Timestamp) -> bool {
    let mut changed = false;
    for task in [Line::Backups, Line::Verifications].into_iter().flat_map(Line::tasks) {
        let Some(schedule) = schedule(*task, settings) else { continue };
        let text = schedule.to_string();
        let goes_on = turns
            .of(name(*task))
            .is_some_and(|turn| turn.schedule == text && turn.until <= now + ONE_DAY);
        if !goes_on {
            turns.set(name(*task), Turn { schedule: text, until: now });
            changed = true;
        }
    }
    changed
}

/// Clocks are corrected by less.
const ONE_DAY: SignedDuration = SignedDuration::from_hours(24);

/// When each task of a line comes next; a moment in the past was missed, and comes now.
pub(super) fn planned(
    line: Line,
    turns: &Turns,
    settings: &ServerSettings,
) -> BTreeMap<Task, Timestamp> {
    let next = |task: &Task| {
        let turn = turns.of(name(*task))?;
        let moment = schedule(*task, settings)?.next_after(turn.until)?;
        Some((*task, moment + spread(&settings.name)))
    };
    line.tasks().iter().filter_map(next).collect()
}

/// The next moment of a line after `now`, whatever is due already.
pub(super) fn next(line: Line, settings: &ServerSettings, now: Timestamp) -> Option<Timestamp> {
    let moments = line.tasks().iter().filter_map(|task| schedule(*task, settings)?.next_after(now));
    moments.min().map(|moment| moment + spread(&settings.name))
}

/// The task of a line that is due at `now`; the first of those that are.
pub(super) fn due(line: Line, planned: &BTreeMap<Task, Timestamp>, now: Timestamp) -> Option<Task> {
    line.tasks().iter().copied().find(|task| planned.get(task).is_some_and(|at| *at <= now))
}

/// A task has had its turn at `now`, however many of its moments were missed before; and with it
/// those that it makes needless.
pub(super) fn settle(
    line: Line,
    turns: &mut Turns,
    task: Task,
    settings: &ServerSettings,
    now: Timestamp,
) {
    let done = line.tasks().iter().skip_while(|other| **other != task);
    for task in done {
        if let Some(schedule) = schedule(*task, settings) {
            turns.set(name(*task), Turn { schedule: schedule.to_string(), until: now });
        }
    }
}

/// How long after its moment a server begins: so that many with the same schedule do not all begin
/// at once, and each knows its time.
pub(super) fn spread(server: &ServerName) -> Duration {
    Duration::from_secs((crc32c::crc32c(server.as_str().as_bytes()) % SPREAD).into())
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::settings::{ConnInfo, Moments};

    fn at(text: &str) -> Timestamp {
        format!("2026-03-{text}:00Z").parse().unwrap()
    }

    fn schedule(text: &str) -> Option<Schedule> {
        Some(text.parse::<Moments>().unwrap().within(TimeZone::UTC))
    }

    fn settings(full: &str, incremental: &str) -> ServerSettings {
        let name = "main".parse().unwrap();
        let mut settings =
            ServerSettings::new(name, ConnInfo::new("host=x"), "walrecv".parse().unwrap());
        settings.backup_schedule = schedule(full);
        settings.incremental_schedule = schedule(incremental);
        settings
    }

    /// Runs what is due each minute of these days, and says what began when.
    fn run(settings: &ServerSettings, turns: &mut Turns, from: &str, to: &str) -> Vec<String> {
        let (mut now, end) = (at(from), at(to));
        let mut ran = Vec::new();
        while now <= end {
            align(turns, settings, now);
            let planned = planned(Line::Backups, turns, settings);
            if let Some(task) = due(Line::Backups, &planned, now) {
                ran.push(format!("{} {}", now.strftime("%d %H"), name(task)));
                settle(Line::Backups, turns, task, settings, now);
            }
            now += SignedDuration::from_mins(1);
        }
        ran
    }

    #[test]
    fn a_full_backup_takes_the_place_of_the_incremental_one_of_its_night() {
        // 8 March 2026 is a Sunday.
        let settings = settings("0 2 * * SUN", "0 2 * * *");
        let ran = run(&settings, &mut Turns::default(), "06T12:00", "09T12:00");
        assert_eq!(ran, ["07 02 incremental_backup", "08 02 backup", "09 02 incremental_backup"]);
    }

    #[test]
    fn nothing_is_due_at_the_first_start_and_what_was_missed_comes_once() {
        let settings = settings("0 2 * * *", "0 14 * * *");
        let mut turns = Turns::default();
        assert_eq!(run(&settings, &mut turns, "06T12:00", "06T13:00"), Vec::<String>::new());
        // Nobody was there for three days.
        let ran = run(&settings, &mut turns, "09T12:00", "09T15:00");
        assert_eq!(ran, ["09 12 backup", "09 14 incremental_backup"]);
    }

    #[test]
    fn another_schedule_begins_anew() {
        let mut turns = Turns::default();
        let before = settings("0 2 * * *", "0 14 * * *");
        run(&before, &mut turns, "06T00:00", "06T15:00");
        // Eight o'clock has passed before anybody wanted it.
        let after = settings("0 8 * * *", "0 14 * * *");
        let ran = run(&after, &mut turns, "06T15:00", "07T09:00");
        assert_eq!(ran, ["07 08 backup"]);
    }

    #[test]
    fn a_clock_that_was_set_back_stops_nothing() {
        let settings = settings("0 2 * * *", "0 14 * * *");
        let mut turns = Turns::default();
        run(&settings, &mut turns, "20T00:00", "20T12:00");
        let ran = run(&settings, &mut turns, "05T12:00", "06T03:00");
        assert_eq!(ran, ["05 14 incremental_backup", "06 02 backup"]);
    }

    #[test]
    fn servers_with_the_same_schedule_are_spread_and_keep_their_place() {
        let name = |number: u32| format!("server{number}").parse::<ServerName>().unwrap();
        let places: std::collections::BTreeSet<_> =
            (0..40).map(|number| spread(&name(number))).collect();
        assert!(places.len() > 15, "{places:?}");
        assert!(places.iter().all(|place| *place < Duration::from_secs(SPREAD.into())));
        assert_eq!(spread(&name(1)), spread(&name(1)));
    }
}
