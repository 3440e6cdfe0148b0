//! Plans of restores against an oracle that looks at every record, and against PostgreSQL, which
//! executes them, and tries what was refused.
//!
//! `WALRECV_TEST_PLANS` says how many plans are asked for, `WALRECV_TEST_PLANS_SEED` which ones,
//! `WALRECV_TEST_EXECUTIONS` how many are executed.

mod dice;
mod execution;
mod facts;
mod index;
mod oracle;
mod question;
mod variant;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;

use pgwire_stream::Lsn;
use serde_json::Value;
use walrecv_tests::run::{ScenarioResult, Scenarios, rounds};
use walrecv_tests::{Context, Failure, Installation, Result};

use crate::site::lsn;
use dice::Dice;
use execution::{judge, kind};
use facts::Facts;
use oracle::{Answer, Backup, Question, Stop, Target, Why};
use question::{options, question};
use variant::Variant;
use world::World;

/// How many plans are asked for.
const PLANS: usize = 1000;

/// How many questions are asked of a variant of the store.
const QUESTIONS: usize = 12;

/// Answers that are so common that as many questions without them would be the wrong ones.
const KINDS: [&str; 12] = [
    "latest: recovers all",
    "immediate: possible",
    "lsn: possible",
    "lsn: recovers all",
    "lsn: TooEarly",
    "lsn: NotReached",
    "time: possible",
    "time: NotReached",
    "xid: possible",
    "xid: NotReached",
    "name: possible",
    "name: NotReached",
];

/// The same, whatever the target.
const REFUSALS: [&str; 4] = ["Damaged", "History", "Keys", "Suspect"];

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios.per_major("plans_of_restores", &[18, 15, 11], plans_of_restores)
}

fn plans_of_restores(installation: &Installation) -> ScenarioResult {
    let seed = rounds("WALRECV_TEST_PLANS_SEED", 1) as u64;
    let world = World::new(installation, &mut Dice::new(seed))?;
    let scratch = tempfile::tempdir()?;
    let main = world.site.walrecv.home().join("main");
    let facts = Facts::of(&main, installation.major, scratch.path())?;
    let backups = backups(&world)?;
    let asking = Asking { world: &world, facts: &facts, backups: &backups, seed };
    let plans = rounds("WALRECV_TEST_PLANS", PLANS);
    let asked = asking.ask(plans)?;
    let absent = KINDS.iter().find(|&&kind| plans >= PLANS && !asked.contains_key(kind));
    assert_eq!(absent, None, "seed {seed} asked {asked:?}");
    let refused = |why: &&str| asked.keys().any(|kind| kind.ends_with(*why));
    let absent = REFUSALS.iter().find(|why| plans >= PLANS && !refused(why));
    assert_eq!(absent, None, "seed {seed} asked {asked:?}");
    let executions = rounds("WALRECV_TEST_EXECUTIONS", 20);
    let judged = asking.execute(executions)?;
    let by_get_wal = judged.keys().any(|kind| kind.ends_with("get-wal"));
    assert!(executions < 20 || by_get_wal, "seed {seed} executed {judged:?}");
    // What the run was worth.
    #[allow(clippy::print_stderr)]
    {
        eprintln!("seed {seed}: asked {asked:?}; executed {judged:?}");
    }
    Ok(())
}

/// How many there were of each kind.
type Counts = BTreeMap<String, usize>;

/// Somebody who asks for plans.
struct Asking<'a> {
    world: &'a World,
    facts: &'a Facts,
    backups: &'a [Backup],
    seed: u64,
}

impl Asking<'_> {
    /// Asks for so many plans.
    fn ask(&self, plans: usize) -> Result<Counts> {
        let variants = plans.div_ceil(QUESTIONS);
        let counts = Mutex::new(Counts::new());
        let ask = |number: usize| -> Result<()> {
            let (variant, mut dice) = self.variant(number)?;
            let before = variant.files()?;
            for _ in 0..QUESTIONS {
                let question = question(&variant.store, &mut dice);
                let answer = self.compare(&variant, &question)?;
                *counts.lock().unwrap().entry(kind(&question, &answer)).or_default() += 1;
            }
            assert!(variant.files()? == before, "a plan has changed something in the store");
            Ok(())
        };
        std::thread::scope(|scope| {
            let ask = &ask;
            let halves = [0, 1]
                .map(|half| scope.spawn(move || (half..variants).step_by(2).try_for_each(ask)));
            halves.into_iter().try_for_each(|half| half.join().unwrap())
        })?;
        Ok(counts.into_inner().unwrap())
    }

    /// Has so many answers judged by PostgreSQL, of all kinds that it can judge.
    fn execute(&self, executions: usize) -> Result<Counts> {
        let mut counts = Counts::new();
        let mut judged = 0;
        for number in 0..100 * executions {
            if judged >= executions {
                break;
            }
            let (variant, mut dice) = self.variant(1_000_000 + number)?;
            let question = question(&variant.store, &mut dice);
            let answer = variant.store.answer(&question);
            let delivery = if question.get_wal { ", by get-wal" } else { "" };
            let kind = kind(&question, &answer) + delivery;
            if counts.get(&kind).is_some_and(|&judged| judged > executions / 10) {
                continue;
            }
            self.compare(&variant, &question)?;
            let fits = judge(self.world, &variant, &question, &answer);
            if fits.map_err(|failure| variant.told(failure))? {
                *counts.entry(kind).or_default() += 1;
                judged += 1;
            }
        }
        Ok(counts)
    }

    fn variant(&self, number: usize) -> Result<(Variant<'_>, Dice)> {
        let seed = self.seed.wrapping_mul(1 << 32).wrapping_add(number as u64);
        let mut dice = Dice::new(seed);
        let variant = Variant::new(self.world, self.facts, self.backups, &mut dice)?;
        Ok((variant, dice))
    }

    /// The oracle's answer, which the product must give too.
    fn compare(&self, variant: &Variant<'_>, question: &Question) -> Result<Answer> {
        let expected = variant.store.answer(question);
        let cluster = &self.world.site.cluster;
        let (_, output) = variant.restore(cluster, "nowhere", question, &["--dry-run"])?;
        let plan = &output.json()?["results"][0]["plan"];
        let position = |name: &str| Some(lsn(plan["wal"][name].as_str()?).ok()?.as_u64());
        let says_suspect = plan["notes"].to_string().contains("recovery may end there");
        let agree = match &expected {
            Answer::Refused(why) => {
                output.code == 3
                    && (question.backup == "auto" || output.stderr.contains(reason(question, *why)))
            }
            Answer::Possible(course) => {
                output.code == 0
                    && plan["backup"] == course.backup.as_str()
                    && plan["timeline"] == course.timeline
                    && plan["recovers_all"] == (course.stop == Stop::Nowhere)
                    && position("held_to") == Some(variant.store.held_on(course))
                    && position("needed_to") >= Some(variant.store.needed_on(course))
                    && says_suspect == variant.store.reads_suspect(course, question)
            }
        };
        if agree {
            return Ok(expected);
        }
        Err(variant.told(Failure::new(format!(
            "seed {}: `restore {} {}` ended with {}, and the oracle says {expected:?}\n\
             {} {} {} {}\n{}",
            self.seed,
            question.backup,
            options(question).join(" "),
            output.code,
            plan["backup"],
            plan["timeline"],
            plan["recovers_all"],
            plan["wal"],
            output.stderr
        ))))
    }
}

/// What is said of a refusal, where only that will do.
fn reason(question: &Question, why: Why) -> &'static str {
    match why {
        // For others it may be looked for in what cannot be read.
        Why::Keys if matches!(question.target, Target::Latest | Target::Immediate) => "no identity",
        Why::Damaged => "damaged",
        Why::History => "is not stored",
        Why::Suspect => "is suspect",
        _ => "",
    }
}

/// The backups, oldest first.
fn backups(world: &World) -> Result<Vec<Backup>> {
    let listed = world.site.walrecv.run(&["list-backups", "main", "--minimal"])?.success()?;
    let mut backups = Vec::new();
    for id in listed.stdout.lines().map(str::trim) {
        let shown = &world.site.shown(id)?["results"][0];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let position = |name: &str| {
            let at = text(&shown[name]["lsn"]).context(|| format!("no {name}"))?;
            lsn(&at).map(Lsn::as_u64)
        };
        let timeline = shown["end"]["timeline"].as_u64().context(|| "no timeline".to_owned())?;
        backups.push(Backup {
            id: id.to_owned(),
            began_at: moment(&text(&shown["began_at"]).unwrap_or_default())?,
            ended_at: moment(&text(&shown["ended_at"]).unwrap_or_default())?,
            begin: position("begin")?,
            end: position("end")?,
            timeline: u32::try_from(timeline).context(|| "an odd timeline".to_owned())?,
            parent: text(&shown["parent"]),
        });
    }
    backups.sort_by_key(|backup| backup.began_at);
    Ok(backups)
}

/// A time such as `2026-03-05T14:11:33.250000917Z`, rounded up to microseconds.
fn moment(text: &str) -> Result<i64> {
    let (seconds, fraction) = text.trim_end_matches('Z').split_once('.').unwrap_or((text, "0"));
    let seconds: pgwire_stream::PgTimestamp =
        format!("{}Z", seconds.trim_end_matches('Z')).parse().context(|| text.to_owned())?;
    let nanos: i64 = format!("{fraction:0<9}").parse().context(|| text.to_owned())?;
    Ok(seconds.as_unix_micros() + (nanos + 999) / 1000)
}
