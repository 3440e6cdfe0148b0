//! What must be true of every run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use walrecv_server::catalog::{KeepTarget, journal};
use walrecv_server::retention::{RetentionError, enforce, enforce_until};
use walrecv_server::settings::{ConnInfo, Hook, HookEvent, HookKind, HookPhase, ServerSettings};
use walrecv_server::storage::BackupId;

use crate::left::Left;
use crate::world::{Event, SEGMENT, Store, Taken, World, event, tli};

pub(crate) fn settings(policy: &str, minimum: u32) -> ServerSettings {
    let mut settings = ServerSettings::new(
        "main".parse().unwrap(),
        ConnInfo::new("host=localhost"),
        "walrecv".parse().unwrap(),
    );
    settings.retention_policy = Some(policy.parse().unwrap());
    settings.minimum_redundancy = minimum;
    settings
}

fn policy() -> impl Strategy<Value = String> {
    prop_oneof![
        (1u8..9).prop_map(|days| format!("RECOVERY WINDOW OF {days} DAYS")),
        (1u8..5).prop_map(|count| format!("REDUNDANCY {count}")),
        (1u8..4).prop_map(|count| format!("KEEP {count} DAILY")),
        (1u8..4, 1u8..3).prop_map(|(d, w)| format!("KEEP {d} DAILY, {w} WEEKLY")),
        (1u8..3, 1u8..3).prop_map(|(w, m)| format!("KEEP {w} WEEKLY, {m} MONTHLY")),
    ]
}

fn life() -> impl Strategy<Value = Vec<Event>> {
    (any::<bool>(), any::<bool>()).prop_flat_map(|(clock_back, branches)| {
        prop::collection::vec(event(clock_back, branches), 1..28)
    })
}

fn cases(count: u32) -> ProptestConfig {
    ProptestConfig { cases: count, failure_persistence: None, ..ProptestConfig::default() }
}

fn number(policy: &str, word: &str) -> usize {
    let words: Vec<_> = policy.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let place = words.iter().position(|other| *other == word);
    place.map_or(0, |place| words[place - 1].parse().unwrap())
}

struct Case<'a> {
    world: &'a World,
    events: &'a [Event],
    before: &'a Left,
    after: &'a Left,
    since: Option<Timestamp>,
    /// The later of the two clocks.
    latest: Timestamp,
}

impl Case<'_> {
    fn has(&self, is_it: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(is_it)
    }

    fn clock_was_set_back(&self) -> bool {
        self.has(|event| matches!(event, Event::ClockBack { .. } | Event::ClockForward { .. }))
    }

    /// Whether nothing tells which backup of two branches is the newer one.
    fn order_is_lost(&self) -> bool {
        self.clock_was_set_back() && !self.world.parents.is_empty()
    }

    /// The backups that stay can be restored as before, and what they build on stays.
    fn what_stays_is_worth_what_it_was(&self) {
        for taken in &self.world.backups {
            if !self.after.backups.contains(&taken.id) {
                continue;
            }
            if self.world.is_done(self.before, taken) {
                assert!(self.world.is_done(self.after, taken), "{} is broken", taken.id);
            }
            for id in self.world.chain(taken.id) {
                let gone = self.before.backups.contains(&id) && !self.after.backups.contains(&id);
                assert!(!gone || !taken.copied, "{id} is gone under {}", taken.id);
            }
        }
    }

    fn marks_and_leases_are_kept(&self) {
        for taken in self.world.backups.iter().filter(|taken| taken.keep.is_some()) {
            assert!(self.after.backups.contains(&taken.id), "{} was marked", taken.id);
            if taken.keep == Some(KeepTarget::Full) {
                self.all_behind_is_as_it_was(taken);
            }
        }
        for &(backup, timeline, from) in &self.world.leases {
            for id in self.world.chain(backup) {
                assert!(self.after.backups.contains(&id), "{id} is leased");
            }
            for &(other, number) in self.before.wal.keys() {
                if other >= timeline && (number + 1) * SEGMENT > from {
                    assert!(self.after.wal.contains_key(&(other, number)), "{number} is leased");
                }
            }
        }
    }

    fn all_behind_is_as_it_was(&self, taken: &Taken) {
        for point in &self.world.points {
            let reaches = |left| self.world.reaches(left, taken, point.timeline, point.lsn);
            assert!(!reaches(self.before) || reaches(self.after), "{} to {point:?}", taken.id);
        }
    }

    fn full<'a>(&'a self, left: &'a Left) -> Vec<&'a Taken> {
        self.world.done(left).filter(|taken| taken.parent.is_none()).collect()
    }

    fn there_are_enough(&self, minimum: usize) {
        let (before, after) = (self.full(self.before).len(), self.full(self.after).len());
        assert!(after >= before.min(minimum), "{before} full backups, and then {after}");
    }

    fn window_is_reachable(&self, since: Timestamp) {
        for point in self.world.points_since(since) {
            if self.world.is_reachable(self.before, point) {
                assert!(self.world.is_reachable(self.after, point), "since {since}: {point:?}");
            }
        }
    }

    fn newest_are_there(&self, count: usize) {
        if self.order_is_lost() {
            return;
        }
        for taken in self.full(self.before).into_iter().rev().take(count) {
            self.all_behind_is_as_it_was(taken);
        }
    }

    /// When each backup began: no day has come that neither clock knows, so one of such a day is as
    /// old as the next.
    fn dates(&self) -> BTreeMap<BackupId, Timestamp> {
        let mut next = self.latest;
        let dated = self.world.backups.iter().rev().map(|taken| {
            let known = taken.ended_at <= self.latest;
            next = if known { taken.began_at } else { taken.began_at.min(next) };
            (taken.id, next)
        });
        dated.collect()
    }

    fn generations_are_there(&self, policy: &str) {
        if self.order_is_lost() {
            return;
        }
        let dates = self.dates();
        let mut finest = true;
        for (word, format) in
            [("DAILY", "%Y%m%d"), ("WEEKLY", "%G%V"), ("MONTHLY", "%Y%m"), ("YEARLY", "%Y")]
        {
            let count = number(policy, word);
            if count == 0 {
                continue;
            }
            let mut newest: BTreeMap<String, &Taken> = BTreeMap::new();
            for taken in self.world.done(self.before) {
                newest.insert(dates[&taken.id].strftime(format).to_string(), taken);
            }
            for taken in newest.into_values().rev().take(count) {
                assert!(self.world.is_done(self.after, taken), "{} for {word}", taken.id);
                if finest {
                    self.all_behind_is_as_it_was(taken);
                }
            }
            finest = false;
        }
    }

    /// Where the server is now can be reached as before.
    fn end_is_reachable(&self) {
        let Some(end) = self.world.points.last() else { return };
        let reachable = |left| self.world.is_reachable(left, end);
        assert!(!reachable(self.before) || reachable(self.after), "{end:?}");
    }

    /// In a plain world, nothing stays that nobody wants.
    fn the_rest_goes(&self, policy: &str, minimum: u32) {
        let plain = self.world.parents.is_empty() && !self.clock_was_set_back();
        let marked = self.has(|event| matches!(event, Event::Keep { .. } | Event::Lease { .. }));
        let lossy = self.has(|event| matches!(event, Event::Lose { .. } | Event::Fail));
        if !plain || marked || lossy || self.world.backups.is_empty() {
            return;
        }
        let families: BTreeSet<_> =
            self.after.backups.iter().map(|id| *self.world.chain(*id).last().unwrap()).collect();
        if policy.starts_with("REDUNDANCY") {
            let wanted = number(&format!("{policy} X"), "X").max(minimum as usize);
            assert!(families.len() <= wanted, "{families:?}");
        }
        if let Some(since) = self.since.filter(|_| policy.starts_with("RECOVERY") && minimum == 0) {
            let within = |taken: &Taken| taken.ended_at > since;
            let old = self.world.backups.iter().rfind(|taken| !within(taken));
            let mut wanted: BTreeSet<_> = self
                .world
                .backups
                .iter()
                .filter(|taken| within(taken))
                .chain(old)
                .map(|taken| *self.world.chain(taken.id).last().unwrap())
                .collect();
            wanted.retain(|root| self.before.backups.contains(root));
            assert_eq!(families, wanted);
        }
        let first =
            self.world.backups.iter().filter(|taken| self.after.backups.contains(&taken.id));
        let first = first.map(|taken| taken.begin.1).min().unwrap();
        for (_, number) in &self.after.archived {
            assert!((number + 1) * SEGMENT > first, "segment {number} is older than all");
        }
    }

    /// Nothing is missing that is not known to be retired.
    fn gaps_are_explained(&self, store: &Store) {
        let retired = journal::retired(&store.server).unwrap();
        for &(timeline, number) in self.before.archived.difference(&self.after.archived) {
            let noted = retired.iter().any(|range| {
                range.timeline == tli(timeline)
                    && range.from.as_u64() <= number * SEGMENT
                    && (number + 1) * SEGMENT <= range.to.as_u64()
            });
            assert!(noted, "segment {number} of timeline {timeline} went without a note");
        }
    }
}

fn since(policy: &str, now: Timestamp) -> Option<Timestamp> {
    let days = number(policy, "DAYS");
    (days > 0).then(|| now - SignedDuration::from_hours(24 * days as i64))
}

fn is_as_it_should_be(events: &[Event], policy: &str, minimum: u32, later: u8) {
    let _locks = with_locks();
    let world = World::of(events);
    let store = world.build();
    let before = Left::of(&store);
    let now = world.now + SignedDuration::from_hours(later.into());
    let settings = settings(policy, minimum);
    let enforced = enforce(&settings, &store.server, now, &|| false).unwrap();
    assert!(enforced.removed.finished);
    let after = Left::of(&store);
    // Of a day that only our clock tells, nothing is old.
    let since = since(policy, now.min(world.heard() + SignedDuration::from_hours(24)));
    let (world, before, after) = (&world, &before, &after);
    let latest = now.max(world.heard());
    let case = Case { world, events, before, after, since, latest };
    case.what_stays_is_worth_what_it_was();
    case.marks_and_leases_are_kept();
    case.there_are_enough(minimum as usize);
    case.end_is_reachable();
    case.gaps_are_explained(&store);
    case.the_rest_goes(policy, minimum);
    match since {
        Some(since) => case.window_is_reachable(since),
        None if policy.starts_with("KEEP") => case.generations_are_there(policy),
        None => case.newest_are_there(number(&format!("{policy} X"), "X")),
    }
    if world.done(before).next().is_none() {
        assert_eq!(before, after, "nothing could be restored, and something went");
    }
    // What has been done need not be done again, unless what went would have told the order of
    // what is left.
    if !case.order_is_lost() {
        let again = enforce(&settings, &store.server, now, &|| false).unwrap();
        assert!(again.plan.unwrap().is_empty());
        assert_eq!(Left::of(&store), *after);
    }
}

/// Broken off at a step, and run again, it ends where it would have ended.
fn ends_in_the_same(events: &[Event], policy: &str, steps: usize) {
    let _locks = with_locks();
    let world = World::of(events);
    let settings = settings(policy, 0);
    let whole = world.build();
    enforce(&settings, &whole.server, world.now, &|| false).unwrap();
    let broken_off = world.build();
    let before = Left::of(&broken_off);
    let mut left = steps;
    let mut go_on = || {
        left = left.saturating_sub(1);
        left > 0
    };
    enforce_until(&settings, &broken_off.server, world.now, &mut go_on).unwrap();
    // Whatever is there in between is worth something.
    let between = Left::of(&broken_off);
    let case = Case {
        world: &world,
        events,
        before: &before,
        after: &between,
        since: None,
        latest: world.now,
    };
    case.what_stays_is_worth_what_it_was();
    case.end_is_reachable();
    case.gaps_are_explained(&broken_off);
    enforce(&settings, &broken_off.server, world.now, &|| false).unwrap();
    if case.order_is_lost() {
        return;
    }
    let (finished, at_once) = (Left::of(&broken_off), Left::of(&whole));
    if case.has(|event| matches!(event, Event::Lose { .. })) {
        // What is counted as if it were whole may be gone by then, so more stays, and never less.
        assert!(finished.backups.is_superset(&at_once.backups));
        assert!(at_once.wal.keys().all(|segment| finished.wal.contains_key(segment)));
    } else {
        assert_eq!(finished, at_once);
    }
}

/// A script inherits the locks of everybody in this process, for the moment until it is a program
/// of its own. So it is begun while nobody else has any.
pub(crate) static LOCKS: RwLock<()> = RwLock::new(());

fn with_locks() -> RwLockReadGuard<'static, ()> {
    LOCKS.read().unwrap_or_else(PoisonError::into_inner)
}

/// A script that lets none of these backups go.
fn refuse(settings: &mut ServerSettings, backups: &[&Taken]) {
    let hook = Hook { event: HookEvent::Delete, phase: HookPhase::Pre, kind: HookKind::Retry };
    let refused: Vec<_> = backups.iter().map(|taken| taken.id.to_string()).collect();
    let names = refused.join("|");
    let command = format!("case $WALRECV_BACKUP_ID in {names}) exit 63;; esac");
    settings.hooks.commands.insert(hook, command);
}

/// What a script does not let go stays, and is worth what it was.
fn what_is_refused_stays_whole(events: &[Event], policy: &str, which: u8) {
    let _alone = LOCKS.write().unwrap_or_else(PoisonError::into_inner);
    let world = World::of(events);
    let store = world.build();
    let before = Left::of(&store);
    let numbered = world.backups.iter().enumerate();
    let refused = numbered.filter(|(place, _)| (which >> (place % 8)) & 1 == 1);
    let refused: Vec<_> = refused.map(|(_, taken)| taken).collect();
    if refused.is_empty() {
        return;
    }
    let mut settings = settings(policy, 0);
    refuse(&mut settings, &refused);
    enforce(&settings, &store.server, world.now, &|| false).unwrap();
    let after = Left::of(&store);
    let case = Case {
        world: &world,
        events,
        before: &before,
        after: &after,
        since: None,
        latest: world.now,
    };
    for taken in refused {
        assert!(after.backups.contains(&taken.id), "{} was not to go", taken.id);
    }
    case.what_stays_is_worth_what_it_was();
    case.end_is_reachable();
    case.gaps_are_explained(&store);
}

/// Which file is damaged.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Record(u8),
    Mark(u8),
    Lease(u8),
    History,
    Switches,
    Retired,
    Identity,
    Register,
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        any::<u8>().prop_map(Damage::Record),
        any::<u8>().prop_map(Damage::Mark),
        any::<u8>().prop_map(Damage::Lease),
        Just(Damage::History),
        Just(Damage::Switches),
        Just(Damage::Retired),
        Just(Damage::Identity),
        Just(Damage::Register),
    ]
}

/// Damages a file that counts, and says whether there was one.
fn is_damaged(world: &World, store: &Store, damage: Damage) -> bool {
    let server = &store.server;
    let backup = |which: u8| {
        let count = world.backups.len();
        (count > 0).then(|| server.backup(world.backups[usize::from(which) % count.max(1)].id))
    };
    let path = match damage {
        Damage::Record(which) => backup(which).map(|backup| backup.record()),
        Damage::Mark(which) => backup(which).map(|backup| backup.keep()),
        Damage::Lease(which) => Some(server.lease(which)),
        Damage::History => world.parents.keys().next().map(|first| server.history(tli(*first))),
        Damage::Switches => Some(server.switches()),
        Damage::Retired => Some(server.retired()),
        Damage::Identity => Some(server.identity()),
        Damage::Register => Some(server.register()),
    };
    let Some(path) = path else { return false };
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "{\"format\": 1, \"entr").unwrap();
    true
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn what_is_wanted_stays_and_the_rest_goes(
        events in life(), policy in policy(), minimum in 0u32..4, later in 0u8..100,
    ) {
        is_as_it_should_be(&events, &policy, minimum, later);
    }
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn an_interrupted_run_is_finished_by_the_next(
        events in life(), policy in policy(), steps in 0usize..40,
    ) {
        ends_in_the_same(&events, &policy, steps);
    }

    #[test]
    fn what_a_script_refuses_stays_whole(
        events in life(), policy in policy(), which in any::<u8>(),
    ) {
        what_is_refused_stays_whole(&events, &policy, which);
    }

    #[test]
    fn nothing_goes_on_what_cannot_be_read(
        events in life(), policy in policy(), damage in damage(),
    ) {
        let _locks = with_locks();
        let world = World::of(&events);
        let store = world.build();
        if is_damaged(&world, &store, damage) {
            let before = Left::of(&store);
            let error = enforce(&settings(&policy, 0), &store.server, world.now, &|| false).unwrap_err();
            let told = match &error {
                RetentionError::Identity(_) => matches!(damage, Damage::Identity),
                RetentionError::Mark { .. } => matches!(damage, Damage::Mark(_)),
                RetentionError::Lease { .. } => matches!(damage, Damage::Lease(_)),
                RetentionError::History { .. } | RetentionError::Backup { .. } => {
                    matches!(damage, Damage::History | Damage::Record(_) | Damage::Retired)
                }
                RetentionError::Journal { .. } => {
                    matches!(damage, Damage::Switches | Damage::Retired)
                }
                RetentionError::Catalog(_) => matches!(damage, Damage::Register),
                _ => false,
            };
            prop_assert!(told, "{damage:?}: {error:?}");
            prop_assert_eq!(Left::of(&store), before);
        }
    }
}

#[test]
fn what_was_left_at_the_moment_in_which_the_window_begins_is_in_it() {
    let events = [Event::Full { long: false }, Event::Switch { back: 1, noted: true }];
    is_as_it_should_be(&events, "RECOVERY WINDOW OF 1 DAYS", 0, 24);
}
