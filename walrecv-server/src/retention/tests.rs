//! Decisions about single servers, each of which was made wrongly once.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use pgwire_stream::{Lsn, SegmentSize, TimelineHistory, TimelineId};

use super::facts::{Facts, KnownBackup};
use super::lineage::Lineage;
use super::needs::{Fate, WalNeeds};
use super::policy::{Decision, Rules, all_stay, decide};
use crate::catalog::{BackupStatus, Clock, KeepTarget, Leases, Position};
use crate::storage::BackupId;

const MIB: u64 = 1 << 20;

fn now() -> Timestamp {
    "2026-03-20T12:00:00Z".parse().unwrap()
}

fn days_ago(days: i64) -> Timestamp {
    now() - SignedDuration::from_hours(24 * days)
}

fn position(timeline: u32, segment: u64) -> Position {
    let timeline = TimelineId::new(timeline).unwrap();
    Position { lsn: Lsn::from_u64(segment * MIB), timeline }
}

/// One of so many days ago that begins with this segment and needs two.
fn backup(days: i64, segment: u64) -> KnownBackup {
    on_timeline(1, days, segment)
}

fn on_timeline(timeline: u32, days: i64, segment: u64) -> KnownBackup {
    let began_at = days_ago(days);
    KnownBackup {
        id: BackupId::at(began_at),
        parent: None,
        began_at,
        ended_at: Some(began_at + SignedDuration::from_mins(10)),
        status: BackupStatus::Done,
        damaged: false,
        was_done: true,
        begin: Some(position(timeline, segment)),
        end: Some(position(timeline, segment + 2)),
        keep: None,
        restores: Vec::new(),
        size: 0,
    }
}

/// A server of one timeline.
fn facts(backups: Vec<KnownBackup>) -> Facts {
    branched(backups, [TimelineHistory::root(TimelineId::FIRST)])
}

fn branched<const N: usize>(backups: Vec<KnownBackup>, of: [TimelineHistory; N]) -> Facts {
    let held: BTreeSet<_> = of.iter().map(TimelineHistory::timeline).collect();
    Facts { backups, lineage: Lineage::new(of, held, BTreeMap::new()) }
}

/// Whether a segment of the first timeline goes.
fn goes(facts: &Facts, decision: &Decision, segment: u64) -> bool {
    let needs = WalNeeds::new(facts, decision, SegmentSize::new(MIB).unwrap());
    let [start, end] = [segment, segment + 1].map(|segment| Lsn::from_u64(segment * MIB));
    needs.fate(TimelineId::FIRST, start, end, &Leases::ignored()) == Fate::Goes
}

#[test]
fn removing_one_backup_frees_no_wal_that_another_leads_to() {
    let mut kept = backup(6, 10);
    kept.keep = Some(KeepTarget::Standalone);
    let facts = facts(vec![kept, backup(1, 50)]);
    let decision = all_stay(&facts);
    assert!(goes(&facts, &decision, 9));
    assert!(!goes(&facts, &decision, 10) && !goes(&facts, &decision, 30));
}

fn rules(policy: &str) -> Rules {
    Rules { policy: Some(policy.parse().unwrap()), minimum_redundancy: 0 }
}

/// Which of the backups stay.
fn stay(facts: &Facts, rules: &Rules) -> Vec<bool> {
    decide(facts, rules, Clock::new(now(), Some(now())))
        .verdicts
        .iter()
        .map(|verdict| verdict.stays)
        .collect()
}

#[test]
fn what_was_done_stays_as_if_it_were_whole_where_its_wal_is_lost() {
    let mut backups: Vec<_> = [9, 6, 4, 1].map(|days| backup(days, 100 - 10 * days as u64)).into();
    for lost in &mut backups[..3] {
        lost.status = BackupStatus::Broken;
    }
    let window = rules("RECOVERY WINDOW OF 5 DAYS");
    assert_eq!(stay(&facts(backups.clone()), &window), [false, true, true, true]);
    let two = rules("REDUNDANCY 2");
    assert_eq!(stay(&facts(backups.clone()), &two), [false, false, true, true]);
    let decision = decide(&facts(backups.clone()), &two, Clock::new(now(), None));
    assert!(!goes(&facts(backups.clone()), &decision, 65), "it could have been whole again");
    // What never was done is nothing that could.
    backups.iter_mut().for_each(|backup| backup.was_done = false);
    assert_eq!(stay(&facts(backups), &two), [false, false, false, true]);
}

#[test]
fn a_branch_that_was_left_does_not_count_for_the_one_that_goes_on() {
    let second = TimelineId::new(2).unwrap();
    let left = "1\t0/1400000\tr\n".as_bytes();
    let lineage =
        [TimelineHistory::root(TimelineId::FIRST), TimelineHistory::parse(second, left).unwrap()];
    let mut backups: Vec<_> = [(9, 10), (6, 30), (4, 50)].map(|(d, s)| backup(d, s)).into();
    backups.push(on_timeline(2, 1, 25));
    let facts = branched(backups, lineage);
    assert_eq!(stay(&facts, &rules("REDUNDANCY 2")), [true, false, true, true]);
    let minimum = Rules { minimum_redundancy: 2, ..rules("REDUNDANCY 1") };
    assert_eq!(stay(&facts, &minimum), [true, false, false, true]);
}

#[test]
fn a_backup_of_the_future_is_as_old_as_the_next_one() {
    let next_year = backup(-365, 20);
    let backups = vec![backup(9, 10), next_year, backup(7, 30), backup(6, 40), backup(1, 50)];
    let window = rules("RECOVERY WINDOW OF 5 DAYS");
    let lone = facts(backups.clone());
    assert_eq!(stay(&lone, &window), [false, false, false, true, true]);
    let daily = rules("KEEP 2 DAILY");
    assert_eq!(stay(&lone, &daily), [false, false, false, true, true]);
    // Where our clock was set back by years, all are of the future, and none is by the server's.
    let decision = decide(&lone, &daily, Clock::new(days_ago(9000), Some(now())));
    let stay: Vec<_> = decision.verdicts.iter().map(|verdict| verdict.stays).collect();
    assert_eq!(stay, [false, false, false, true, true]);
}

#[test]
fn a_clock_that_is_set_forwards_makes_nothing_old() {
    let facts = facts([9, 6, 4, 1].map(|days| backup(days, 100 - 10 * days as u64)).into());
    let window = rules("RECOVERY WINDOW OF 5 DAYS");
    let decide = |heard| decide(&facts, &window, Clock::new(days_ago(-30), heard));
    let stay = |decision: Decision| decision.verdicts.iter().filter(|one| one.stays).count();
    assert_eq!(stay(decide(Some(now() - SignedDuration::from_hours(24)))), 3);
    assert_eq!(stay(decide(None)), 1);
}
