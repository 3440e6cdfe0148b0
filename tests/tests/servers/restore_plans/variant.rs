//! A store that has lost some of its files, and what is asked of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use pgwire_stream::{Lsn, PgTimestamp};
use walrecv_tests::walrecv::{Output, Walrecv};
use walrecv_tests::{Cluster, Context, Failure, Result, program};

use super::dice::Dice;
use super::facts::{Facts, SEGMENT, What, all_files};
use super::oracle::{Along, Backup, CaughtUp, Question, Store, Target};
use super::world::{NAMES, World};

/// A copy of a store without some of its files.
pub(crate) struct Variant<'a> {
    pub(crate) walrecv: Walrecv,
    pub(crate) store: Store<'a>,
    /// What was done to it, to be told when something is wrong.
    pub(crate) deeds: Vec<String>,
    facts: &'a Facts,
}

impl<'a> Variant<'a> {
    pub(crate) fn new(
        world: &World,
        facts: &'a Facts,
        backups: &[Backup],
        dice: &mut Dice,
    ) -> Result<Self> {
        let walrecv = Walrecv::new(
            "[servers.main]\nconninfo = \"host=127.0.0.1 user=nobody dbname=postgres\"\n",
        )?;
        let main = walrecv.home().join("main");
        fs::create_dir_all(walrecv.home()).context(|| "cannot make a home".to_owned())?;
        let original = world.site.walrecv.home().join("main");
        program::run(Command::new("cp").arg("-al").arg(original).arg(&main))?;
        let mut held = BTreeMap::new();
        for file in &facts.files {
            let length: &mut u64 = held.entry((file.timeline, file.number)).or_default();
            *length = file.length.max(*length);
        }
        let now = PgTimestamp::from(SystemTime::now()).as_unix_micros();
        let store = Store {
            histories: &facts.histories,
            records: &facts.records,
            held,
            backups: backups.to_vec(),
            caught_up: None,
            now,
        };
        let mut variant = Self { walrecv, store, deeds: Vec::new(), facts };
        variant.lose_wal(dice)?;
        variant.lose_backups(dice)?;
        variant.lose_index(dice)?;
        variant.note_caught_up(dice)?;
        Ok(variant)
    }

    /// A failure, and what was done to the store.
    pub(crate) fn told(&self, failure: Failure) -> Failure {
        Failure::new(format!("{failure}\nin a store where\n{}", self.deeds.join("\n")))
    }

    fn main(&self) -> PathBuf {
        self.walrecv.home().join("main")
    }

    fn lose_wal(&mut self, dice: &mut Dice) -> Result<()> {
        let segments: Vec<(u32, u64)> = self.store.held.keys().copied().collect();
        let mut lost = BTreeSet::new();
        if dice.percent(35) {
            lost.extend((0..1 + dice.below(4)).map(|_| *dice.pick(&segments)));
        }
        if dice.percent(20) {
            let &(timeline, number) = dice.pick(&segments);
            lost.extend(segments.iter().filter(|(of, n)| *of == timeline && *n >= number));
        }
        if dice.percent(10) {
            let &(_, number) = dice.pick(&segments);
            lost.extend(segments.iter().filter(|(_, n)| *n >= number));
        }
        for file in &self.facts.files {
            let key = (file.timeline, file.number);
            let path = self.main().join(&file.path);
            let raw = file.path.extension().is_some_and(|suffix| suffix == "partial");
            if lost.contains(&key) {
                remove(&path)?;
                self.store.held.remove(&key);
                self.deeds.push(format!("{} is lost", file.path.display()));
            } else if raw && dice.percent(30) {
                let length = dice.below(usize::try_from(file.length).unwrap_or(1).max(1));
                let mut bytes = fs::read(&path).context(|| "cannot read WAL".to_owned())?;
                bytes.truncate(length);
                remove(&path)?;
                fs::write(&path, bytes).context(|| "cannot write WAL".to_owned())?;
                self.store.held.insert(key, length as u64);
                self.deeds.push(format!("{} is cut to {length} bytes", file.path.display()));
            }
        }
        Ok(())
    }

    fn lose_backups(&mut self, dice: &mut Dice) -> Result<()> {
        let chance = *dice.pick(&[0, 0, 20, 60]);
        for backup in self.store.backups.clone() {
            if dice.percent(chance) && self.store.backups.len() > 1 {
                let path = self.main().join("base").join(&backup.id);
                fs::remove_dir_all(path).context(|| "cannot remove a backup".to_owned())?;
                self.store.backups.retain(|other| other.id != backup.id);
                self.deeds.push(format!("backup {} is lost", backup.id));
            }
        }
        Ok(())
    }

    fn lose_index(&mut self, dice: &mut Dice) -> Result<()> {
        let chance = *dice.pick(&[0, 0, 50, 100]);
        for path in all_files(&self.main(), &["wals"])? {
            if path.file_name().is_some_and(|name| name == "index") && dice.percent(chance) {
                remove(&path)?;
                self.deeds.push(format!("{} is lost", path.display()));
            }
        }
        Ok(())
    }

    fn note_caught_up(&mut self, dice: &mut Dice) -> Result<()> {
        let path = self.main().join("state/caught_up.json");
        if path.exists() {
            remove(&path)?;
        }
        if dice.percent(30) {
            return Ok(());
        }
        let at = some_time(self, dice) + *dice.pick(&[0, 0, 1, -1, 2_000_000, 60_000_000]);
        let timeline = *dice.pick(&[1, 2, 3, 3, 3]);
        let of_timeline = self.store.held.range((timeline, 0)..=(timeline, u64::MAX));
        let ends: Vec<u64> =
            of_timeline.map(|(&(_, number), length)| number * SEGMENT + length).collect();
        let lsn = match ends.last() {
            Some(&end) if dice.percent(60) => end,
            _ => some_lsn(self, dice),
        };
        let document = serde_json::json!({
            "format": 1,
            "at": PgTimestamp::from_unix_micros(at).to_string(),
            "lsn": Lsn::from_u64(lsn).to_string(),
            "timeline": timeline,
        });
        fs::write(&path, document.to_string()).context(|| "cannot write".to_owned())?;
        self.store.caught_up = Some(CaughtUp { at, lsn, timeline });
        self.deeds.push(format!("{} has {document}", path.display()));
        Ok(())
    }

    /// Something to ask of it.
    pub(crate) fn question(&self, dice: &mut Dice) -> Question {
        let backup = match dice.below(10) {
            0..2 => "auto".to_owned(),
            2 => "latest".to_owned(),
            _ => dice.pick(&self.store.backups).id.clone(),
        };
        let target = match dice.below(20) {
            0 => Target::Latest,
            1 => Target::Immediate,
            2..8 => Target::Lsn(some_lsn(self, dice)),
            8..14 => Target::Time(match dice.below(30) {
                0 => self.store.now + 3_600_000_000,
                _ => some_time(self, dice) + *dice.pick(&[0, 0, 0, 1, -1, 500_000, -500_000]),
            }),
            14..17 => Target::Xid(some_xid(self, dice)),
            _ => Target::Name((*dice.pick(&NAMES)).to_owned()),
        };
        let along = match dice.below(10) {
            0..5 => Along::Latest,
            5..7 => Along::Current,
            _ => Along::Number(*dice.pick(&[1, 2, 3])),
        };
        Question { backup, target, inclusive: dice.percent(60), along }
    }

    /// Restores, beneath the directory of a cluster.
    pub(crate) fn restore(
        &self,
        cluster: &Cluster,
        name: &str,
        question: &Question,
        more: &[&str],
    ) -> Result<(PathBuf, Output)> {
        let destination = cluster.base_directory().join(name);
        let text = destination.display().to_string();
        let owner = &cluster.account().name;
        let options = options(question);
        let mut arguments = vec!["-f", "json2", "restore", "main", &question.backup, &text];
        arguments.extend(options.iter().map(String::as_str));
        arguments.extend(["--no-get-wal"]);
        arguments.extend(more);
        if rustix::process::geteuid().is_root() {
            arguments.extend(["--owner", owner]);
        }
        Ok((destination, self.walrecv.run(&arguments)?))
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
    if !question.inclusive && !matches!(question.target, Target::Latest) {
        add(&["--exclusive"]);
    }
    match question.along {
        Along::Latest => {}
        Along::Current => add(&["--target-tli", "current"]),
        Along::Number(timeline) => add(&["--target-tli", &timeline.to_string()]),
    }
    options
}

fn remove(path: &std::path::Path) -> Result<()> {
    fs::remove_file(path).context(|| format!("cannot remove {}", path.display()))
}

/// A position at which something begins or ends, or beside it.
fn some_lsn(variant: &Variant<'_>, dice: &mut Dice) -> u64 {
    let (store, facts) = (&variant.store, variant.facts);
    let lsn = match dice.below(8) {
        0 => {
            let backup = dice.pick(&store.backups);
            if dice.percent(70) { backup.end } else { backup.begin }
        }
        1 => {
            let switches: Vec<u64> = facts
                .histories
                .values()
                .flat_map(|history| {
                    history.switches().iter().map(|switch| switch.switch_point.as_u64())
                })
                .collect();
            *dice.pick(&switches)
        }
        2 => {
            let file = dice.pick(&facts.files);
            file.number * SEGMENT + if dice.percent(50) { SEGMENT } else { 0 }
        }
        3 => {
            let held: Vec<u64> =
                store.held.iter().map(|(&(_, number), length)| number * SEGMENT + length).collect();
            held.get(dice.below(held.len().max(1))).copied().unwrap_or(SEGMENT)
        }
        4 => {
            // The last of a timeline.
            let timeline = *dice.pick(&[1, 2, 3]);
            let records = &facts.records[&timeline];
            let last = &records[records.len() - 1 - dice.below(3)];
            if dice.percent(50) { last.start } else { last.end.next_multiple_of(8) }
        }
        _ => {
            let timeline = dice.pick(&[1, 2, 3]);
            let record = dice.pick(&facts.records[timeline]);
            if dice.percent(50) { record.start } else { record.end.next_multiple_of(8) }
        }
    };
    lsn.saturating_add_signed(*dice.pick(&[0, 0, 0, 1, -1, 8]))
}

/// When something ended, in microseconds.
fn some_time(variant: &Variant<'_>, dice: &mut Dice) -> i64 {
    if dice.percent(10) {
        return dice.pick(&variant.store.backups).began_at;
    }
    if let Some(seen) = variant.store.caught_up.filter(|_| dice.percent(15)) {
        return seen.at;
    }
    let records = &variant.facts.records[dice.pick(&[1, 2, 3])];
    let times: Vec<i64> = records
        .iter()
        .filter_map(|record| match record.what {
            What::End { at, .. } => Some(at),
            _ => None,
        })
        .collect();
    // The last ones are of interest more often than others.
    let from = if dice.percent(20) { times.len().saturating_sub(3) } else { 0 };
    *dice.pick(&times[from..])
}

fn some_xid(variant: &Variant<'_>, dice: &mut Dice) -> u64 {
    let records = &variant.facts.records[dice.pick(&[1, 2, 3])];
    let xids: Vec<u64> = records
        .iter()
        .filter_map(|record| match record.what {
            What::End { xid, .. } if xid >= 3 => Some(xid.into()),
            _ => None,
        })
        .collect();
    // Some are of subtransactions, or of nobody; the upper half counts wraparounds.
    dice.pick(&xids) + *dice.pick(&[0, 0, 0, 0, 0, 1, 2, 1 << 32, 100_000])
}
