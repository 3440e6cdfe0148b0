//! A store that has lost some of its files, and what is asked of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use pgwire_stream::{Lsn, PgTimestamp};
use walrecv_tests::walrecv::{Output, Walrecv};
use walrecv_tests::{Cluster, Context, Failure, Result, program};

use super::dice::Dice;
use super::facts::{Facts, SEGMENT, all_files};
use super::index;
use super::oracle::{Backup, CaughtUp, Keys, Question, Store, Suspect};
use super::question::{options, some_lsn, some_time};
use super::world::World;

/// A copy of a store without some of its files.
pub(crate) struct Variant<'a> {
    pub(crate) walrecv: Walrecv,
    pub(crate) store: Store<'a>,
    /// What was done to it, to be told when something is wrong.
    pub(crate) deeds: Vec<String>,
    facts: &'a Facts,
    world: &'a World,
}

impl<'a> Variant<'a> {
    pub(crate) fn new(
        world: &'a World,
        facts: &'a Facts,
        backups: &[Backup],
        dice: &mut Dice,
    ) -> Result<Self> {
        let walrecv = Walrecv::new(
            "[servers.main]\nconninfo = \"host=127.0.0.1 user=nobody dbname=postgres\"\n",
        )?;
        // Restored servers ask for their WAL, whoever they run as.
        fs::set_permissions(walrecv.directory(), Permissions::from_mode(0o755))
            .context(|| "cannot open a home".to_owned())?;
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
            forgotten: BTreeSet::new(),
            records: &facts.records,
            held,
            backups: backups.to_vec(),
            damaged: BTreeSet::new(),
            caught_up: None,
            suspect: Vec::new(),
            encrypted: BTreeSet::new(),
            now,
        };
        let mut variant = Self { walrecv, store, deeds: Vec::new(), facts, world };
        variant.lose_wal(dice)?;
        variant.lose_backups(dice)?;
        variant.damage_backups(dice)?;
        variant.lose_histories(dice)?;
        variant.lose_index(dice)?;
        variant.suspect_wal(dice)?;
        variant.encrypt_wal(dice)?;
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
                // Often to less than a record, or to nothing.
                let whole = usize::try_from(file.length).unwrap_or(1).max(1);
                let most = if dice.percent(40) { whole.min(150) } else { whole };
                let length = dice.below(most);
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

    /// Notes of backups that they are damaged, which they are not; at times so that nobody can read it.
    fn damage_backups(&mut self, dice: &mut Dice) -> Result<()> {
        let chance = *dice.pick(&[0, 0, 0, 15, 40]);
        for backup in &self.store.backups {
            if !dice.percent(chance) {
                continue;
            }
            let path = self.main().join("base").join(&backup.id).join("damage.json");
            let note = serde_json::json!({
                "format": 1,
                "found_at": "2026-03-05T14:11:33Z",
                "problems": 1,
                "first": "of the test's making",
                "contents": dice.percent(50),
            });
            let note = if dice.percent(80) { note.to_string() } else { String::new() };
            fs::write(&path, &note).context(|| format!("cannot write {}", path.display()))?;
            self.store.damaged.insert(backup.id.clone());
            self.deeds.push(format!("{} has `{note}`", path.display()));
        }
        Ok(())
    }

    fn lose_histories(&mut self, dice: &mut Dice) -> Result<()> {
        let chance = *dice.pick(&[0, 0, 0, 60]);
        for &timeline in self.store.histories.keys().filter(|&&timeline| timeline > 1) {
            if dice.percent(chance) {
                let path = self.main().join(format!("wals/{timeline:08X}.history"));
                remove(&path)?;
                self.store.forgotten.insert(timeline);
                self.deeds.push(format!("{} is lost", path.display()));
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

    /// Has indexes say of WAL that no server could replay it, which is not so.
    fn suspect_wal(&mut self, dice: &mut Dice) -> Result<()> {
        for _ in 0..*dice.pick(&[0, 0, 0, 1, 1, 2, 5]) {
            let (timeline, number) = self.some_segment(dice);
            let (start, end) = (number * SEGMENT, (number + 1) * SEGMENT);
            let records = self.store.records[&timeline].iter().map(|record| record.start);
            let places: Vec<u64> =
                records.filter(|at| (start..end).contains(at)).chain([start, end]).collect();
            let mut place = || *dice.pick(&places);
            let (from, to) = (place(), place());
            let (from, to) = (from.min(to), from.max(to));
            // Often up to where a backup begins.
            let own = |backup: &&Backup| backup.timeline == timeline;
            let mut begins = self.store.backups.iter().filter(own).map(|backup| backup.begin);
            let begin = begins.find(|at| (start + 1..end).contains(at));
            let (from, to) = match begin {
                Some(begin) if dice.percent(50) => (start, begin),
                _ => (from, to),
            };
            if from == to {
                continue;
            }
            if index::add_suspect(&self.main(), (timeline, number), from, to)? {
                self.store.suspect.push(Suspect { timeline, from, to });
                let (from, to) = (Lsn::from_u64(from), Lsn::from_u64(to));
                self.deeds.push(format!("{from} to {to} of timeline {timeline} is suspect"));
            }
        }
        Ok(())
    }

    /// Often one of a backup, or soon behind it.
    fn some_segment(&self, dice: &mut Dice) -> (u32, u64) {
        let near = dice.pick(&self.store.backups);
        let begin = (near.timeline, near.begin / SEGMENT);
        let near: Vec<_> = self.store.held.range(begin..).take(3).map(|(&key, _)| key).collect();
        if !near.is_empty() && dice.percent(40) {
            return *dice.pick(&near);
        }
        let all: Vec<_> = self.store.held.keys().copied().collect();
        *dice.pick(&all)
    }

    /// Encrypts some of the archive, as it would be if that had been asked for at times.
    fn encrypt_wal(&mut self, dice: &mut Dice) -> Result<()> {
        let most = *dice.pick(&[0, 0, 0, 2, 6, 20]);
        let chosen: BTreeSet<_> = (0..most).map(|_| self.some_segment(dice)).collect();
        for file in &self.facts.files {
            let key = (file.timeline, file.number);
            let whole = file.path.extension().is_some_and(|suffix| suffix == "zst")
                && file.length == SEGMENT;
            if !whole || !chosen.contains(&key) {
                continue;
            }
            let path = self.main().join(&file.path);
            let plain = fs::read(&path).context(|| "cannot read WAL".to_owned())?;
            let sealed = age::encrypt(&self.world.recipient, &plain);
            let sealed = sealed.context(|| "cannot encrypt WAL".to_owned())?;
            fs::write(path.with_extension("zst.age"), sealed)
                .context(|| "cannot write WAL".to_owned())?;
            remove(&path)?;
            self.store.encrypted.insert(key);
            self.deeds.push(format!("{} is encrypted", file.path.display()));
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
        let near = dice.pick(&self.store.backups).clone();
        let at = some_time(&self.store, &near, dice)
            + *dice.pick(&[0, 1, -1, 3_000_000, 6_000_000, 9_000_000]);
        let timeline = *dice.pick(&[1, 2, 3, 3, 3]);
        let of_timeline = self.store.held.range((timeline, 0)..=(timeline, u64::MAX));
        let ends: Vec<u64> =
            of_timeline.map(|(&(_, number), length)| number * SEGMENT + length).collect();
        let lsn = match ends.last() {
            Some(&end) if dice.percent(60) => end,
            _ => some_lsn(&self.store, &near, dice),
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

    /// Every file of it, with its size and when it was written.
    pub(crate) fn files(&self) -> Result<Vec<(PathBuf, u64, SystemTime)>> {
        let look = |path: PathBuf| {
            let about = || format!("cannot look at {}", path.display());
            let metadata = fs::metadata(&path).context(about)?;
            let written = metadata.modified().context(about)?;
            Ok((path, metadata.len(), written))
        };
        all_files(&self.walrecv.home(), &["."])?.into_iter().map(look).collect()
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
        if !question.get_wal {
            arguments.push("--no-get-wal");
        }
        match question.keys {
            Keys::None => {}
            Keys::Wrong => arguments.extend(["--identity", self.world.other_key.identity()]),
            Keys::Right => arguments.extend(["--identity", self.world.key.identity()]),
        }
        arguments.extend(more);
        if rustix::process::geteuid().is_root() {
            arguments.extend(["--owner", owner]);
        }
        Ok((destination, self.walrecv.run(&arguments)?))
    }
}

fn remove(path: &std::path::Path) -> Result<()> {
    fs::remove_file(path).context(|| format!("cannot remove {}", path.display()))
}
