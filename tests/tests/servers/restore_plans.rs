//! Plans of restores against an oracle that looks at every record, and against PostgreSQL, which
//! executes them, and tries what was refused.
//!
//! `WALRECV_TEST_PLANS` says how many plans are asked for, `WALRECV_TEST_PLANS_SEED` which ones,
//! `WALRECV_TEST_EXECUTIONS` how many are executed.

mod dice;
mod facts;
mod oracle;
mod variant;
mod world;

use std::time::Instant;

use pgwire_stream::Lsn;
use serde_json::Value;
use walrecv_tests::run::{ScenarioResult, Scenarios, rounds};
use walrecv_tests::{Context, Failure, Installation, Result};

use crate::site::lsn;
use dice::Dice;
use facts::Facts;
use oracle::{Answer, Backup, Question, Stop};
use variant::{Variant, options};
use world::World;

/// How many questions are asked of a variant of the store.
const QUESTIONS: usize = 12;

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios.per_major("plans_of_restores", &[18, 15, 11], plans_of_restores)
}

fn plans_of_restores(installation: &Installation) -> ScenarioResult {
    let seed = rounds("WALRECV_TEST_PLANS_SEED", 1) as u64;
    let begin = Instant::now();
    let world = World::new(installation, &mut Dice::new(seed))?;
    let scratch = tempfile::tempdir()?;
    let main = world.site.walrecv.home().join("main");
    let facts = Facts::of(&main, installation.major, scratch.path())?;
    let backups = backups(&world)?;
    eprintln!("world: {:?} {}", begin.elapsed(), backups.len());
    let plans = rounds("WALRECV_TEST_PLANS", 1000).div_ceil(QUESTIONS * 2);
    std::thread::scope(|scope| {
        let halves = [0, 1].map(|half| {
            let (world, facts, backups) = (&world, &facts, &backups);
            scope.spawn(move || {
                (0..plans).try_for_each(|number| {
                    let number = (2 * number + half) as u64;
                    let of_variant = seed.wrapping_mul(1_000_003).wrapping_add(number);
                    ask(world, facts, backups, of_variant)
                })
            })
        });
        halves.into_iter().try_for_each(|half| half.join().unwrap())
    })?;
    eprintln!("asked: {:?}", begin.elapsed());
    Ok(())
}

/// Asks for some plans.
fn ask(world: &World, facts: &Facts, backups: &[Backup], seed: u64) -> Result<()> {
    let mut dice = Dice::new(seed);
    let variant = Variant::new(world, facts, backups, &mut dice)?;
    for _ in 0..QUESTIONS {
        let question = variant.question(&mut dice);
        compare(world, &variant, &question).map_err(|failure| told(&variant, seed, failure))?;
    }
    Ok(())
}

fn told(variant: &Variant<'_>, seed: u64, failure: Failure) -> Failure {
    let deeds = variant.deeds.join("\n");
    Failure::new(format!("{failure}\nvariant {seed}:\n{deeds}"))
}

/// The oracle's answer, which the product must give too.
fn compare(world: &World, variant: &Variant<'_>, question: &Question) -> Result<Answer> {
    let expected = variant.store.answer(question);
    let (_, output) = variant.restore(&world.site.cluster, "nowhere", question, &["--dry-run"])?;
    let plan = &output.json()?["results"][0]["plan"];
    let agree = match &expected {
        Answer::Refused(_) => output.code == 3,
        Answer::Possible(course) => {
            output.code == 0
                && plan["backup"] == course.backup.as_str()
                && plan["timeline"] == course.timeline
                && plan["recovers_all"] == (course.stop == Stop::Nowhere)
        }
    };
    if agree {
        return Ok(expected);
    }
    Err(Failure::new(format!(
        "`restore {} {}` ended with {}, and the oracle says {expected:?}\n{} {} {} {}\n{}",
        question.backup,
        options(question).join(" "),
        output.code,
        plan["backup"],
        plan["timeline"],
        plan["recovers_all"],
        plan["wal"],
        output.stderr
    )))
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
            began_at: began_at(&text(&shown["began_at"]).unwrap_or_default())?,
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
fn began_at(text: &str) -> Result<i64> {
    let (seconds, fraction) = text.trim_end_matches('Z').split_once('.').unwrap_or((text, "0"));
    let seconds: pgwire_stream::PgTimestamp =
        format!("{}Z", seconds.trim_end_matches('Z')).parse().context(|| text.to_owned())?;
    let nanos: i64 = format!("{fraction:0<9}").parse().context(|| text.to_owned())?;
    Ok(seconds.as_unix_micros() + (nanos + 999) / 1000)
}
