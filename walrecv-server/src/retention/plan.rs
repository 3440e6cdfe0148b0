//! What would be removed, and why the rest stays: a value that can be shown, and executed.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use pgwire_stream::{SegmentName, SegmentSize, TimelineId};

use super::error::RetentionError;
use super::facts::{self, Facts, KnownBackup};
use super::needs::{Fate, WalNeeds};
use super::policy::{Decision, Rules, Verdict, all_stay, decide};
use crate::catalog::{
    BackupRecord, Catalog, Clock, Identity, Keep, Leases, Ranges, Span, Standing, WalStore, journal,
};
use crate::storage::{ArchivedWal, BackupId, ServerDir};

/// What would be removed, and why the rest stays.
#[derive(Debug)]
pub struct RetentionPlan {
    /// What was decided by.
    pub rules: Rules,
    /// The backups in the order in which they began, and what becomes of each.
    pub backups: Vec<(KnownBackup, Verdict)>,
    /// The WAL of each timeline.
    pub wal: Vec<WalPlan>,
    /// What time it was.
    pub clock: Clock,
    pub(super) needs: WalNeeds,
    pub(super) segment_size: SegmentSize,
}

/// What becomes of a timeline's archived WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalPlan {
    /// The timeline.
    pub timeline: TimelineId,
    /// The stretches that go.
    pub goes: Vec<Span>,
    /// How many files that is.
    pub files: u64,
    /// How much room they take.
    pub bytes: u64,
    /// What stays, and why.
    pub kept: Vec<KeptFrom>,
}

/// WAL that stays for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptFrom {
    /// The first segment.
    pub from: SegmentName,
    /// The last; `None` if all that follows stays.
    pub to: Option<SegmentName>,
    /// Why.
    pub why: Fate,
}

impl RetentionPlan {
    /// The backups that go.
    pub fn going(&self) -> impl Iterator<Item = &KnownBackup> {
        self.backups.iter().filter(|(_, verdict)| !verdict.stays).map(|(backup, _)| backup)
    }

    /// How much room the backups take that go.
    pub fn backup_bytes(&self) -> u64 {
        self.going().map(|backup| backup.size).sum()
    }

    /// How much room the WAL takes that goes.
    pub fn wal_bytes(&self) -> u64 {
        self.wal.iter().map(|wal| wal.bytes).sum()
    }

    /// How many files of WAL go.
    pub fn wal_files(&self) -> u64 {
        self.wal.iter().map(|wal| wal.files).sum()
    }

    /// Spares backups that were to go, with the WAL that each needs for itself: who keeps them wants
    /// them to be worth something.
    pub(super) fn spare(
        &mut self,
        spared: &BTreeSet<BackupId>,
        server: &ServerDir,
    ) -> Result<(), RetentionError> {
        for (backup, verdict) in &mut self.backups {
            if spared.contains(&backup.id) {
                verdict.spare(backup);
            }
        }
        self.needs = self.needs.revised(&self.backups);
        let store = WalStore::new(server, self.segment_size);
        self.wal = wal_plans(&store, &self.needs, &read_leases(server, self.clock)?)?;
        Ok(())
    }

    /// Whether a segment lies in a stretch that goes.
    pub(super) fn is_noted(&self, segment: SegmentName) -> bool {
        let Ok(number) = segment.number(self.segment_size) else { return false };
        let (start, end) = (self.segment_size.start_of(number), self.segment_size.end_of(number));
        let timeline = segment.timeline();
        let mut goes = self.wal.iter().filter(|wal| wal.timeline == timeline);
        goes.any(|wal| wal.goes.iter().any(|span| span.start <= start && end <= span.end))
    }

    /// Whether nothing goes.
    pub fn is_empty(&self) -> bool {
        self.going().next().is_none() && self.wal_files() == 0
    }
}

/// Plans what goes now. Changes nothing. `None` if nothing is stored for the server.
///
/// # Errors
/// If anything cannot be read that the plan rests on.
pub fn plan(
    server: &ServerDir,
    rules: &Rules,
    now: Timestamp,
) -> Result<Option<RetentionPlan>, RetentionError> {
    plan_by(server, rules, read_clock(server, now)?)
}

/// The same by this clock.
pub(super) fn plan_by(
    server: &ServerDir,
    rules: &Rules,
    clock: Clock,
) -> Result<Option<RetentionPlan>, RetentionError> {
    let Some(identity) = Identity::load(server)? else { return Ok(None) };
    let size = identity.segment_size;
    let leases = read_leases(server, clock)?;
    let facts = facts(server, size, &leases)?;
    let decision = decide(&facts, rules, clock);
    // Without a policy nothing goes, WAL that nobody needs included: nobody asked for it.
    let needs = WalNeeds::new(&facts, &decision, size);
    let wal = match rules.policy {
        Some(_) => wal_plans(&WalStore::new(server, size), &needs, &leases)?,
        None => Vec::new(),
    };
    let backups = facts.backups.into_iter().zip(decision.verdicts).collect();
    Ok(Some(RetentionPlan { rules: *rules, backups, wal, clock, needs, segment_size: size }))
}

/// Plans which WAL goes that no backup needs, when all of them stay. Branches stay, whatever their
/// age. Changes nothing. `None` if nothing is stored for the server.
///
/// # Errors
/// If anything cannot be read that the plan rests on.
pub(super) fn plan_wal(server: &ServerDir) -> Result<Option<RetentionPlan>, RetentionError> {
    plan_wal_without(server, &[])
}

/// The same as if these backups were gone.
///
/// # Errors
/// If anything cannot be read that the plan rests on.
pub fn plan_wal_without(
    server: &ServerDir,
    without: &[BackupId],
) -> Result<Option<RetentionPlan>, RetentionError> {
    let Some(identity) = Identity::load(server)? else { return Ok(None) };
    let size = identity.segment_size;
    let clock = read_clock(server, Timestamp::now())?;
    let leases = read_leases(server, clock)?;
    let mut facts = facts(server, size, &leases)?;
    facts.backups.retain(|backup| !without.contains(&backup.id));
    let decision: Decision = all_stay(&facts);
    let needs = WalNeeds::new(&facts, &decision, size);
    let wal = wal_plans(&WalStore::new(server, size), &needs, &leases)?;
    let backups = facts.backups.into_iter().zip(decision.verdicts).collect();
    let rules = Rules::default();
    Ok(Some(RetentionPlan { rules, backups, wal, clock, needs, segment_size: size }))
}

/// What becomes of backups whose records and standings are known already. No WAL is looked at.
///
/// # Errors
/// If the timelines' histories or the journals cannot be read.
pub fn verdicts(
    server: &ServerDir,
    backups: &[(&BackupRecord, &Standing, Option<Keep>)],
    rules: &Rules,
    now: Timestamp,
) -> Result<BTreeMap<BackupId, Verdict>, RetentionError> {
    let clock = read_clock(server, now)?;
    let leases = read_leases(server, clock)?;
    let Some(size) = backups.first().map(|(record, ..)| record.segment_size) else {
        return Ok(BTreeMap::new());
    };
    let known = backups.iter().map(|(record, standing, keep)| {
        KnownBackup::new(record, standing, keep.map(|keep| keep.target), &leases)
    });
    let facts = Facts::of(server, size, known.collect())?;
    let decision = decide(&facts, rules, clock);
    Ok(decision.verdicts.into_iter().map(|verdict| (verdict.backup, verdict)).collect())
}

/// What time it is.
pub(super) fn read_clock(server: &ServerDir, now: Timestamp) -> Result<Clock, RetentionError> {
    Clock::read(server, now).map_err(|source| RetentionError::Clock { source })
}

/// The leases, if all of them can be read.
pub(super) fn read_leases(server: &ServerDir, clock: Clock) -> Result<Leases, RetentionError> {
    let leases = Leases::at(server, clock.at_least());
    match leases.into_readable() {
        Ok(leases) => Ok(leases),
        Err(source) => Err(RetentionError::Lease { source }),
    }
}

fn facts(server: &ServerDir, size: SegmentSize, leases: &Leases) -> Result<Facts, RetentionError> {
    let backups = facts::backups(server, leases)?.into_iter().map(|(_, facts)| facts).collect();
    let vanished = Catalog::new(server).vanished()?;
    if !vanished.is_empty() {
        return Err(RetentionError::Vanished { backups: vanished, base: server.base() });
    }
    let facts = Facts::of(server, size, backups)?;
    // What goes is noted beside what has gone before.
    journal::retired(server).map_err(|source| RetentionError::Journal { source })?;
    Ok(facts)
}

/// What becomes of the archived WAL. Costs a look at the names in those directories in which
/// something may go, or something stays between what goes.
fn wal_plans(
    store: &WalStore,
    needs: &WalNeeds,
    leases: &Leases,
) -> Result<Vec<WalPlan>, RetentionError> {
    let mut plans: BTreeMap<TimelineId, Gathering> = BTreeMap::new();
    for directory in store.directories()? {
        let plan = plans.entry(directory.timeline()).or_default();
        if let Some(fate @ Fate::Backup { onward: true, .. }) =
            needs.fate_of_directory(directory, leases)
        {
            plan.keep(directory, fate);
            continue;
        }
        for file in store.files_in(directory)? {
            match needs.fate_of(file.segment, leases) {
                Fate::Goes => plan.go(store, file)?,
                fate => plan.keep(file.segment, fate),
            }
        }
    }
    let plan = |(timeline, gathered): (TimelineId, Gathering)| gathered.finish(timeline);
    Ok(plans.into_iter().map(plan).collect())
}

#[derive(Default)]
struct Gathering {
    goes: Ranges,
    files: u64,
    bytes: u64,
    kept: Vec<KeptFrom>,
    /// Whether what is kept last is followed by something else.
    closed: bool,
}

impl Gathering {
    fn go(&mut self, store: &WalStore, file: ArchivedWal) -> Result<(), RetentionError> {
        let size = store.segment_size();
        let Ok(number) = file.segment.number(size) else { return Ok(()) };
        self.goes.add(file.segment.timeline(), size.start_of(number), size.end_of(number));
        self.files += 1;
        self.bytes += store.size_of(file)?;
        self.closed = true;
        Ok(())
    }

    fn keep(&mut self, segment: SegmentName, why: Fate) {
        match self.kept.last_mut() {
            Some(last) if !self.closed && last.why == why => last.to = Some(segment),
            _ => self.kept.push(KeptFrom { from: segment, to: Some(segment), why }),
        }
        self.closed = false;
    }

    fn finish(mut self, timeline: TimelineId) -> WalPlan {
        if let Some(last) = self.kept.last_mut()
            && !self.closed
        {
            last.to = None;
        }
        let Self { goes, files, bytes, kept, .. } = self;
        WalPlan { timeline, goes: goes.spans().collect(), files, bytes, kept }
    }
}
