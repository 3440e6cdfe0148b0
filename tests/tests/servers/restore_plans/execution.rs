//! Plans executed by PostgreSQL, and refused ones tried by it.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use pgwire_stream::{Lsn, PgTimestamp};
use walrecv_tests::{Cluster, Context, Failure, Result};

use super::facts::What;
use super::oracle::{Answer, Course, Keys, Question, Stop, Target, Why};
use super::variant::Variant;
use super::world::World;

/// The first version that stops when its target is not in the WAL, instead of promoting.
const UNREACHED_TARGET_IS_FATAL: u32 = 13;

/// What became of a server.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It is a primary, with these transactions in its ledger.
    Promoted(Vec<u32>),
    /// It would stop before it is consistent.
    TooEarly,
    /// It did not come to its target.
    NotReached,
}

/// Has PostgreSQL judge an answer. Whether that is possible.
pub(crate) fn judge(
    world: &World,
    variant: &Variant<'_>,
    question: &Question,
    answer: &Answer,
) -> Result<bool> {
    let (outcome, expected) = match answer {
        Answer::Possible(course) => {
            let promote = ["--target-action", "promote"];
            let more = if question.target == Target::Latest { &[][..] } else { &promote };
            let outcome = recover(world, variant, question, more, |_| Ok(()))?;
            (outcome, Outcome::Promoted(ledger(world, variant, course)))
        }
        Answer::Refused(why) => {
            let everything = Question {
                target: Target::Latest,
                force: true,
                keys: Keys::Right,
                ..question.clone()
            };
            // All that is held comes along, and then the target.
            let Answer::Possible(course) = variant.store.answer(&everything) else {
                return Ok(false);
            };
            let expected = match why {
                Why::TooEarly => Outcome::TooEarly,
                Why::NotReached if world.site.cluster.major() >= UNREACHED_TARGET_IS_FATAL => {
                    Outcome::NotReached
                }
                Why::NotReached => Outcome::Promoted(ledger(world, variant, &course)),
                Why::NoBackup
                | Why::Damaged
                | Why::Timeline
                | Why::History
                | Why::Gap
                | Why::Within
                | Why::Suspect
                | Why::Keys => return Ok(false),
            };
            let set = |data: &Path| set_target(world.site.cluster.major(), data, question);
            (recover(world, variant, &everything, &[], set)?, expected)
        }
    };
    if outcome == expected {
        return Ok(true);
    }
    Err(Failure::new(format!(
        "{question:?}: {expected:?} expected for {answer:?}, not {outcome:?}"
    )))
}

/// Restores, prepares what was restored, and starts it.
fn recover(
    world: &World,
    variant: &Variant<'_>,
    question: &Question,
    more: &[&str],
    prepare: impl FnOnce(&Path) -> Result<()>,
) -> Result<Outcome> {
    let original = &world.site.cluster;
    let (data, output) = variant.restore(original, "executed", question, more)?;
    output.success()?;
    prepare(&data)?;
    let mut restored = Cluster::adopt(original.installation(), &data)?;
    let promoted = restored.start().and_then(|()| restored.wait_until_promoted());
    let log = restored.log();
    let outcome = match promoted {
        Ok(()) => Outcome::Promoted(
            restored
                .query("SELECT DISTINCT xid FROM ledger ORDER BY xid")?
                .iter()
                .map(|row| row[0].parse().context(|| format!("{row:?} in the ledger")))
                .collect::<Result<_>>()?,
        ),
        Err(_) if log.contains("requested recovery stop point is before consistent") => {
            Outcome::TooEarly
        }
        Err(_) if log.contains("recovery ended before configured recovery target was reached") => {
            Outcome::NotReached
        }
        Err(failure) => {
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(20)..].join("\n");
            return Err(Failure::new(format!("{failure}\n{last}")));
        }
    };
    drop(restored);
    fs::remove_dir_all(&data).context(|| format!("cannot remove {}", data.display()))?;
    Ok(outcome)
}

/// The transactions that are in the ledger at the end of a recovery.
fn ledger(world: &World, variant: &Variant<'_>, course: &Course) -> Vec<u32> {
    let store = &variant.store;
    let held_to = store.held_on(course);
    let replayed = store
        .records_of(&store.histories[&course.timeline])
        .into_iter()
        .filter(|(_, record)| record.end <= held_to && course.replays(record));
    let mut xids: Vec<u32> = replayed
        .filter_map(|(timeline, record)| match record.what {
            What::End { xid, committed: true, .. } => Some((timeline, xid)),
            _ => None,
        })
        .filter(|key| world.written.contains(key))
        .map(|(_, xid)| xid)
        .collect();
    xids.sort_unstable();
    xids
}

/// Tells a server where to stop, whatever the product thinks of it.
fn set_target(major: u32, data: &Path, question: &Question) -> Result<()> {
    let (setting, value) = match &question.target {
        Target::Latest => return Ok(()),
        Target::Immediate => ("recovery_target", "immediate".to_owned()),
        Target::Lsn(lsn) => ("recovery_target_lsn", Lsn::from_u64(*lsn).to_string()),
        Target::Time(time) => {
            let time = PgTimestamp::from_unix_micros(*time).to_string();
            // A server that reads its configuration knows no names of time zones yet.
            ("recovery_target_time", time.replace('T', " ").replace('Z', "+00"))
        }
        Target::Xid(xid) => ("recovery_target_xid", xid.to_string()),
        Target::Name(name) => ("recovery_target_name", name.clone()),
    };
    let file = if major >= 12 { "postgresql.auto.conf" } else { "recovery.conf" };
    let path = data.join(file);
    let about = || format!("cannot write {}", path.display());
    let mut conf = File::options().append(true).open(&path).context(about)?;
    let inclusive = question.inclusive;
    write!(
        conf,
        "{setting} = '{value}'\nrecovery_target_inclusive = {inclusive}\n\
         recovery_target_action = promote\n"
    )
    .context(about)
}

/// What kind of judgement this is, so that there are some of each.
pub(crate) fn kind(question: &Question, answer: &Answer) -> String {
    let target = match question.target {
        Target::Latest => "latest",
        Target::Immediate => "immediate",
        Target::Lsn(_) => "lsn",
        Target::Time(_) => "time",
        Target::Xid(_) => "xid",
        Target::Name(_) => "name",
    };
    let answer = match answer {
        Answer::Possible(Course { stop: Stop::Nowhere, .. }) => "recovers all".to_owned(),
        Answer::Possible(_) => "possible".to_owned(),
        Answer::Refused(why) => format!("{why:?}"),
    };
    format!("{target}: {answer}")
}
