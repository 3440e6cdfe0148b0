//! The decision: facts of backups in, a verdict with its reasons for each of them out. Knows no
//! files and no clock.
//!
//! Chains stay whole and go whole. What is wanted of one of their backups holds all of them: it builds
//! on those before it, and those behind it are worth little without it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use pgwire_stream::TimelineId;

use super::damaged::decide_both;
use super::facts::{Facts, KnownBackup};
use super::lineage::Leaving;
use super::reason::{Generation, Reason};
use super::whole;
use crate::catalog::{BackupStatus, Clock, KeepTarget};
use crate::settings::{Generations, RetentionPolicy, ServerSettings};
use crate::storage::BackupId;

/// What an operator wants to stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The policy; without one, everything stays.
    pub policy: Option<RetentionPolicy>,
    /// How many full backups stay whatever the policy says.
    pub minimum_redundancy: u32,
}

impl From<&ServerSettings> for Rules {
    fn from(settings: &ServerSettings) -> Self {
        Self { policy: settings.retention_policy, minimum_redundancy: settings.minimum_redundancy }
    }
}

/// What Barman calls the retention of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// The policy wants it.
    Valid,
    /// It goes.
    Obsolete,
    /// The policy does not want it, and it stays nevertheless.
    PotentiallyObsolete,
    /// It is marked.
    Kept(KeepTarget),
    /// There is no policy, or it cannot be restored.
    None,
}

/// Which WAL stays with a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WalNeed {
    /// None: there is nothing to recover.
    Nothing,
    /// What leads from its begin to its end.
    Own,
    /// All from its begin on.
    Onward,
}

/// What becomes of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The backup.
    pub backup: BackupId,
    /// Whether it stays.
    pub stays: bool,
    /// Why; the first says most.
    pub reasons: Vec<Reason>,
    /// Which WAL stays with it.
    pub wal: WalNeed,
    /// What Barman calls that.
    pub label: Label,
}

impl Verdict {
    /// Lets a backup stay that was to go.
    pub(super) fn spare(&mut self, backup: &KnownBackup) {
        self.stays = true;
        self.reasons.insert(0, Reason::Spared);
        let done = backup.status == BackupStatus::Done;
        self.wal = if done { WalNeed::Own } else { need_of(backup) };
        self.label = if done { Label::PotentiallyObsolete } else { Label::None };
    }
}

/// What becomes of all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// In the order of the facts.
    pub(super) verdicts: Vec<Verdict>,
    /// The timelines that were left before the policy begins to count: what lies on them and leads to
    /// no backup that stays is of no use.
    pub(super) left_behind: BTreeSet<TimelineId>,
}

/// Decides.
pub(super) fn decide(facts: &Facts, rules: &Rules, clock: Clock) -> Decision {
    let dated = clock.at_most().map(|latest| facts.dated(latest));
    let facts = dated.as_ref().unwrap_or(facts);
    match rules.policy {
        Some(policy) => decide_both(facts, |facts| {
            whole::once_done(facts, |facts| {
                Deciding::new(facts).run(policy, rules.minimum_redundancy, clock.at_least())
            })
        }),
        None => all_stay(facts),
    }
}

/// Everything stays, with all WAL behind it. That goes for a backup that is kept `standalone`, too:
/// only a policy tells from when on nobody wants the WAL that leads away from it.
pub(super) fn all_stay(facts: &Facts) -> Decision {
    let verdict = |backup: &KnownBackup| {
        let mut reasons = marks(backup);
        reasons.push(Reason::NoPolicy);
        let wal = need_of(backup);
        let label = backup.keep.map_or(Label::None, Label::Kept);
        Verdict { backup: backup.id, stays: true, reasons, wal, label }
    };
    Decision { verdicts: facts.backups.iter().map(verdict).collect(), left_behind: BTreeSet::new() }
}

/// What is needed of a backup that stays for itself.
fn need_of(backup: &KnownBackup) -> WalNeed {
    match backup.status {
        BackupStatus::Failed => WalNeed::Nothing,
        _ => WalNeed::Onward,
    }
}

/// Why a backup stays in any case.
fn marks(backup: &KnownBackup) -> Vec<Reason> {
    let kept = backup.keep.map(Reason::Kept);
    let taken = (backup.status == BackupStatus::Started).then_some(Reason::BeingTaken);
    kept.into_iter().chain(taken).chain(backup.restores.iter().cloned()).collect()
}

struct Deciding<'a> {
    facts: &'a Facts,
    by_id: BTreeMap<BackupId, &'a KnownBackup>,
    /// Those that can be restored, in the order in which they were taken.
    done: Vec<&'a KnownBackup>,
    wanted: BTreeMap<BackupId, Vec<Reason>>,
    /// Those from which on all WAL stays because the policy, or the redundancy, wants it.
    onward: BTreeSet<BackupId>,
}

impl<'a> Deciding<'a> {
    fn new(facts: &'a Facts) -> Self {
        let by_id = facts.backups.iter().map(|backup| (backup.id, backup)).collect();
        let done = facts.in_order_of_wal();
        Self { facts, by_id, done, wanted: BTreeMap::new(), onward: BTreeSet::new() }
    }

    fn run(mut self, policy: RetentionPolicy, minimum: u32, now: Timestamp) -> Decision {
        let window = match policy {
            RetentionPolicy::RecoveryWindow(period) => Some(period.before(now)),
            RetentionPolicy::Redundancy(_) | RetentionPolicy::Generations(_) => None,
        };
        let mut left_behind = BTreeSet::new();
        match policy {
            RetentionPolicy::RecoveryWindow(period) => {
                left_behind = self.window(period.before(now))
            }
            RetentionPolicy::Redundancy(count) => self.redundancy(count),
            RetentionPolicy::Generations(generations) => self.generations(generations),
        }
        self.newest_timeline();
        for backup in &self.facts.backups {
            for reason in marks(backup) {
                self.want(backup.id, reason);
            }
        }
        self.minimum(minimum);
        if window.is_none() {
            left_behind = self.left_before_anchors();
        }
        if self.done.is_empty() {
            for backup in &self.facts.backups {
                self.want(backup.id, Reason::NothingDone);
            }
        }
        self.not_done();
        self.whole_chains();
        let verdicts = self.facts.backups.iter().map(|backup| self.verdict(backup, policy, window));
        Decision { verdicts: verdicts.collect(), left_behind }
    }

    fn want(&mut self, backup: BackupId, reason: Reason) {
        let reasons = self.wanted.entry(backup).or_default();
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }

    fn want_onward(&mut self, backup: BackupId, reason: Reason) {
        self.want(backup, reason);
        self.onward.insert(backup);
    }

    fn anchors(&self) -> impl Iterator<Item = &'a KnownBackup> + '_ {
        self.done.iter().copied().filter(|backup| self.onward.contains(&backup.id))
    }

    /// Each timeline that was not left before the window has the newest backup that ended before
    /// it, and all newer ones. A clock that was set back makes none older than the one before it.
    fn window(&mut self, since: Timestamp) -> BTreeSet<TimelineId> {
        let ended_within =
            |backup: &&&KnownBackup| backup.ended_at.is_none_or(|ended| ended > since);
        let within: Vec<_> = self.done.iter().filter(ended_within).copied().collect();
        let (before, newer): (Vec<_>, Vec<_>) = self.done.clone().into_iter().partition(|backup| {
            !within.iter().any(|other| other.id == backup.id || self.facts.is_before(other, backup))
        });
        for backup in newer {
            self.want_onward(backup.id, Reason::Window(since));
        }
        // Where it was not noted, the backup tells that leads to where the server is.
        let newest = self.facts.lineage.newest_held();
        let newest = newest.and_then(|newest| self.newest_to(&before, newest)?.end);
        let was_left = |timeline: &TimelineId| match self.facts.lineage.leaving(*timeline) {
            Leaving::At(left) => left < since,
            Leaving::CameBack => false,
            Leaving::Unknown => newest.is_some_and(|newest| newest.timeline > *timeline),
        };
        let (left_behind, alive): (BTreeSet<_>, BTreeSet<_>) =
            self.facts.lineage.held().partition(was_left);
        for timeline in alive {
            if let Some(newest) = self.newest_to(&before, timeline).map(|newest| newest.id) {
                self.want_onward(newest, Reason::Window(since));
            }
        }
        left_behind
    }

    /// The newest of these backups from which the WAL of a timeline goes on.
    fn newest_to(
        &self,
        backups: &[&'a KnownBackup],
        timeline: TimelineId,
    ) -> Option<&'a KnownBackup> {
        let leads_there = |backup: &&&KnownBackup| {
            backup.end.is_some_and(|end| self.facts.lineage.leads_to(end, timeline))
        };
        let leading = backups.iter().filter(leads_there);
        leading.max_by_key(|backup| (backup.begin.map(|begin| begin.lsn), backup.began_at)).copied()
    }

    /// The timelines that were left before the oldest backup began that the policy wants. Where that
    /// was not noted, all of them must be on newer ones.
    fn left_before_anchors(&self) -> BTreeSet<TimelineId> {
        let anchors: Vec<_> = self.anchors().collect();
        let was_left = |timeline: &TimelineId| {
            anchors.iter().all(|anchor| match self.facts.lineage.leaving(*timeline) {
                Leaving::At(left) => left <= anchor.began_at,
                Leaving::CameBack => false,
                Leaving::Unknown => anchor.begin.is_some_and(|begin| begin.timeline > *timeline),
            })
        };
        if anchors.is_empty() {
            return BTreeSet::new();
        }
        self.facts.lineage.held().filter(was_left).collect()
    }

    fn is_counted(backup: &KnownBackup) -> bool {
        backup.parent.is_none()
    }

    /// The full backups from which WAL leads to where the server is: not those of a branch that it
    /// has left by being restored to an earlier point.
    fn leading(&self, full: &[&'a KnownBackup]) -> Vec<&'a KnownBackup> {
        let Some(newest) = self.facts.lineage.newest_held() else { return Vec::new() };
        let lead = |backup: &&KnownBackup| {
            backup.end.is_some_and(|end| self.facts.lineage.leads_to(end, newest))
        };
        full.iter().copied().filter(lead).collect()
    }

    fn redundancy(&mut self, count: u32) {
        let full: Vec<_> =
            self.done.iter().copied().filter(|backup| Self::is_counted(backup)).collect();
        let leading = self.leading(&full);
        let newest = |of: &[&KnownBackup]| -> Vec<_> {
            of.iter().rev().take(count as usize).map(|backup| backup.id).collect()
        };
        let stay: BTreeSet<_> = newest(&full).into_iter().chain(newest(&leading)).collect();
        // Those that are not counted are measured by the oldest that is.
        let oldest = if stay.len() < full.len() {
            self.done.iter().position(|backup| stay.contains(&backup.id))
        } else {
            Some(0)
        };
        for (place, backup) in self.done.clone().into_iter().enumerate() {
            if stay.contains(&backup.id) {
                self.want_onward(backup.id, Reason::NewestFull(count));
            } else if oldest.is_some_and(|oldest| place >= oldest)
                && !full.iter().any(|full| full.id == self.root(backup))
            {
                self.want_onward(backup.id, Reason::NotOlder);
            }
        }
    }

    /// Every moment since the oldest backup of the finest generation can be reached; of coarser
    /// ones, the moment at which each ended.
    fn generations(&mut self, generations: Generations) {
        let Generations { daily, weekly, monthly, yearly } = generations;
        let mut finest = true;
        for (count, generation) in [
            (daily, Generation::Day),
            (weekly, Generation::Week),
            (monthly, Generation::Month),
            (yearly, Generation::Year),
        ] {
            if count == 0 {
                continue;
            }
            let mut newest = BTreeMap::new();
            for backup in &self.done {
                newest.insert(generation.of(backup.began_at), backup.id);
            }
            for (name, backup) in newest.into_iter().rev().take(count as usize) {
                self.want(backup, Reason::NewestOf(generation, name));
                if finest {
                    self.onward.insert(backup);
                }
            }
            finest = false;
        }
        if let Some(newest) = self.done.last().map(|newest| newest.id) {
            if !self.wanted.contains_key(&newest) {
                self.want(newest, Reason::NotOlder);
            }
            self.onward.insert(newest);
        }
    }

    /// Where the server is can be reached, if any backup leads there: a server that was restored to
    /// an earlier point has left the newest backups behind on another branch.
    fn newest_timeline(&mut self) {
        let Some(timeline) = self.facts.lineage.newest_held() else { return };
        // An older one might come to a gap.
        if let Some(newest) = self.newest_to(&self.done, timeline).map(|newest| newest.id) {
            if !self.wanted.contains_key(&newest) {
                self.want(newest, Reason::LeadsTo(timeline));
            }
            self.onward.insert(newest);
        }
    }

    /// What restores need, they need for a while only, so it does not count.
    fn minimum(&mut self, minimum: u32) {
        let lasting = |reason: &Reason| reason.is_policy() || matches!(reason, Reason::Kept(_));
        let families: BTreeSet<_> = self
            .wanted
            .iter()
            .filter(|(_, reasons)| reasons.iter().any(lasting))
            .filter_map(|(id, _)| Some(self.root(self.by_id.get(id)?)))
            .collect();
        let full: Vec<_> =
            self.done.iter().copied().filter(|backup| Self::is_counted(backup)).collect();
        for of in [self.leading(&full), full] {
            let is_there = |backup: &&KnownBackup| {
                families.contains(&backup.id) || self.onward.contains(&backup.id)
            };
            let (stay, others): (Vec<_>, Vec<_>) = of.into_iter().partition(is_there);
            let lacking = (minimum as usize).saturating_sub(stay.len());
            for backup in others.into_iter().rev().take(lacking) {
                self.want_onward(backup.id, Reason::MinimumRedundancy(minimum));
            }
        }
    }

    /// What cannot be restored, or not yet, stays as long as it is not older than what the policy
    /// wants.
    fn not_done(&mut self) {
        let anchors: Vec<_> = self.anchors().collect();
        for backup in &self.facts.backups {
            let is_older = |anchor: &&KnownBackup| {
                backup.began_at < anchor.began_at && !self.facts.is_before(anchor, backup)
            };
            if backup.status != BackupStatus::Done && !anchors.iter().all(is_older) {
                self.want(backup.id, Reason::NotDone(backup.status));
            }
        }
    }

    fn parent(&self, backup: &KnownBackup) -> Option<&'a KnownBackup> {
        self.by_id.get(&backup.parent?).copied()
    }

    /// The first backup of a chain; of one that is broken, the first that is left.
    fn root(&self, backup: &KnownBackup) -> BackupId {
        let mut seen = BTreeSet::from([backup.id]);
        let mut root = backup.id;
        let mut at = backup;
        while let Some(parent) = self.parent(at)
            && seen.insert(parent.id)
        {
            (root, at) = (parent.id, parent);
        }
        root
    }

    fn whole_chains(&mut self) {
        // One that failed has nothing that builds on anything.
        let is_there = |backup: &KnownBackup| backup.status != BackupStatus::Failed;
        let wanted: Vec<_> = self
            .wanted
            .keys()
            .filter_map(|id| self.by_id.get(id).copied())
            .filter(|backup| is_there(backup))
            .collect();
        let mut roots = BTreeSet::new();
        for backup in wanted {
            roots.insert(self.root(backup));
            let mut seen = BTreeSet::from([backup.id]);
            let mut child = backup;
            while let Some(parent) = self.parent(child)
                && seen.insert(parent.id)
            {
                if !self.wanted.contains_key(&parent.id) {
                    self.want(parent.id, Reason::BuiltUpon(child.id));
                }
                child = parent;
            }
        }
        for backup in self.facts.backups.iter().filter(|backup| is_there(backup)) {
            let root = self.root(backup);
            if roots.contains(&root) && !self.wanted.contains_key(&backup.id) {
                self.want(backup.id, Reason::Chain(root));
            }
        }
    }

    fn verdict(
        &self,
        backup: &KnownBackup,
        policy: RetentionPolicy,
        window: Option<Timestamp>,
    ) -> Verdict {
        let done = backup.status == BackupStatus::Done;
        let Some(reasons) = self.wanted.get(&backup.id) else {
            let root = self.root(backup);
            let reason = match (policy, window) {
                _ if !done => Reason::OfNoUse(backup.status),
                _ if root != backup.id => Reason::GoesWith(root),
                (RetentionPolicy::Redundancy(count), _) => Reason::MoreThan(count),
                (RetentionPolicy::RecoveryWindow(_), Some(since)) => Reason::BeforeWindow(since),
                _ => Reason::NewestOfNothing,
            };
            let label = if done { Label::Obsolete } else { Label::None };
            let wal = WalNeed::Nothing;
            return Verdict { backup: backup.id, stays: false, reasons: vec![reason], wal, label };
        };
        let wal = if self.onward.contains(&backup.id) || backup.keep == Some(KeepTarget::Full) {
            WalNeed::Onward
        } else if done || reasons.iter().all(|reason| matches!(reason, Reason::Chain(_))) {
            WalNeed::Own
        } else {
            need_of(backup)
        };
        let label = match backup.keep {
            Some(target) => Label::Kept(target),
            None if !done => Label::None,
            None if self.is_valid(backup) => Label::Valid,
            None => Label::PotentiallyObsolete,
        };
        Verdict { backup: backup.id, stays: true, reasons: reasons.clone(), wal, label }
    }

    /// Whether the policy wants it, or one of its chain.
    fn is_valid(&self, backup: &KnownBackup) -> bool {
        let root = self.root(backup);
        let family = self.facts.backups.iter().filter(|other| self.root(other) == root);
        family.filter_map(|other| self.wanted.get(&other.id)).flatten().any(Reason::is_policy)
    }
}

impl Label {
    /// As Barman writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Valid => "VALID",
            Self::Obsolete => "OBSOLETE",
            Self::PotentiallyObsolete => "OBSOLETE*",
            Self::Kept(KeepTarget::Full) => "KEEP:FULL",
            Self::Kept(KeepTarget::Standalone) => "KEEP:STANDALONE",
            Self::None => "-",
        }
    }
}
