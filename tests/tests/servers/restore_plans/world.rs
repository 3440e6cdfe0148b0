//! A cluster to which all kinds of things happened, and the store that received them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use walrecv_tests::sql::Session;
use walrecv_tests::walrecv::Daemon;
use walrecv_tests::{Cluster, Context, Installation, Result, program};

use super::dice::Dice;
use crate::encryption::Key;
use crate::site::Site;

/// The restore points: few names, so that they are repeated.
pub(crate) const NAMES: [&str; 5] = ["alpha", "beta", "gamma", "delta", "epsilon"];

/// A store at rest, and what was written into the ledger.
pub(crate) struct World {
    pub(crate) site: Site,
    /// Timeline and number of each transaction that wrote its number into the ledger, whether it
    /// was committed or not.
    pub(crate) written: BTreeSet<(u32, u32)>,
    /// What some of the WAL may be encrypted to, and the key to that.
    pub(crate) recipient: age::x25519::Recipient,
    pub(crate) key: Key,
    /// A key to nothing.
    pub(crate) other_key: Key,
    /// What the last cluster was restored beneath of.
    _former: Cluster,
}

impl World {
    /// Three timelines with some backups each. The third leaves the second at a place from which
    /// that went on, or even at one from before the second began.
    pub(crate) fn new(installation: &Installation, dice: &mut Dice) -> Result<Self> {
        // One that archives would begin a segment at its stop, and a switch lie at its beginning.
        let mut options = Cluster::options(installation)
            .wal_segment_megabytes(1)
            .config("autovacuum = off")
            .config("max_prepared_transactions = 20")
            .config("max_wal_size = 64MB");
        if installation.major >= 17 {
            options = options.config("summarize_wal = on");
        }
        let mut site = Site::around(options.start()?)?;
        site.cluster.execute("CREATE TABLE ledger (xid bigint)")?;
        let daemon = site.run()?;
        let mut written = BTreeSet::new();
        let mut life = |site: &Site, timeline: u32, backups: usize, dice: &mut Dice| {
            live(site, timeline, backups, dice, &mut |xid| {
                written.insert((timeline, xid));
            })
        };
        let before_second = dice.percent(50);
        let first = life(&site, 1, 4, dice)?;
        site.cluster.stop()?;
        site.cluster.recover_onto_a_new_timeline()?;
        site.cluster.start()?;
        site.cluster.wait_until_promoted()?;
        site.wait_until_streaming()?;
        let second = life(&site, 2, 4, dice)?;
        let place = if before_second { first } else { second };
        let former = go_back(&mut site, daemon, &place)?;
        let daemon = site.run()?;
        life(&site, 3, 3, dice)?;
        site.cluster.kill9()?;
        assert_eq!(daemon.stop()?, 0);
        // Restored servers ask for their WAL.
        program::run(Command::new("chmod").args(["-R", "a+rX"]).arg(site.walrecv.home()))?;
        let [key, other_key] = ["right.key", "wrong.key"].map(|name| Key::new(&site, name));
        let (key, other_key) = (key?, other_key?);
        for key in [&key, &other_key] {
            site.cluster.account().owns(Path::new(key.identity()))?;
        }
        let recipient = key.public.parse().context(|| "a key that is none".to_owned())?;
        Ok(Self { site, written, recipient, key, other_key, _former: former })
    }
}

/// Somewhere behind a backup.
struct Place {
    backup: String,
    lsn: String,
}

/// The cluster is lost, and restored to an earlier place. Returns the lost one.
fn go_back(site: &mut Site, daemon: Daemon, place: &Place) -> Result<Cluster> {
    site.cluster.kill9()?;
    let target = ["--target-lsn", &place.lsn, "--target-action", "promote"];
    let second = ["--target-tli", "2"];
    let restored = site.restore_and_start(
        "forked",
        &[&[place.backup.as_str()], &target[..], &second[..]].concat(),
    )?;
    assert_eq!(daemon.stop()?, 0);
    site.replace_cluster(restored)
}

/// So many backups, with work between and, at times, beside them. Where the server was between the
/// second and the third.
fn live(
    site: &Site,
    timeline: u32,
    backups: usize,
    dice: &mut Dice,
    written: &mut impl FnMut(u32),
) -> Result<Place> {
    let mut session = site.cluster.session()?;
    // Those of the timeline before, if it was left with some.
    finish_prepared(&mut session, usize::MAX, dice, written)?;
    let mut place = None;
    for number in 0..backups {
        work(&mut session, 25, dice, written)?;
        // The third timeline may leave the second before that began, of which the summarizer makes
        // nothing.
        let incremental = number > 0 && timeline < 3 && site.cluster.major() >= 17;
        take_backup(site, dice.percent(50), incremental, written)?;
        work(&mut session, 15, dice, written)?;
        if number == 1 {
            // A server that replays a switch of timelines looks for what it knows of prepared
            // transactions in the old one's segments, and does not restore the one of the switch.
            session.query("SELECT pg_switch_wal()")?;
            for _ in 0..1 + dice.below(5) {
                written(commit(&mut session)?);
            }
            let lsn = session.value("SELECT pg_current_wal_insert_lsn()")?;
            place = Some(Place { backup: site.last_backup()?, lsn });
        }
    }
    work(&mut session, 20, dice, written)?;
    finish_prepared(&mut session, usize::MAX, dice, written)?;
    written(commit(&mut session)?);
    site.settle()?;
    Ok(place.unwrap())
}

/// Takes a backup, with other clients at work if it is to be `busy`.
fn take_backup(
    site: &Site,
    busy: bool,
    incremental: bool,
    written: &mut impl FnMut(u32),
) -> Result<()> {
    let mut arguments = vec!["backup", "main", "--wait", "--wait-timeout", "60"];
    if incremental {
        arguments.extend(["--incremental", "auto"]);
    }
    let over = AtomicBool::new(false);
    let xids = std::thread::scope(|scope| -> Result<Vec<u32>> {
        let client = scope.spawn(|| -> Result<Vec<u32>> {
            let mut session = site.cluster.session()?;
            let mut xids = Vec::new();
            while busy && !over.load(Ordering::Relaxed) {
                xids.push(commit(&mut session)?);
                if xids.len() % 10 == 3 {
                    session.query("SELECT pg_create_restore_point('epsilon')")?;
                }
                std::thread::sleep(Duration::from_millis(30));
            }
            Ok(xids)
        });
        let taken = site.walrecv.run(&arguments).and_then(|output| output.success());
        over.store(true, Ordering::Relaxed);
        let xids = client.join().unwrap()?;
        taken.map(|_| xids)
    })?;
    xids.into_iter().for_each(written);
    Ok(())
}

fn commit(session: &mut Session) -> Result<u32> {
    let xid = session.value("INSERT INTO ledger VALUES (txid_current()) RETURNING xid")?;
    Ok(xid.parse().unwrap())
}

/// Small things in any order.
fn work(
    session: &mut Session,
    steps: usize,
    dice: &mut Dice,
    written: &mut impl FnMut(u32),
) -> Result<()> {
    for _ in 0..steps {
        match dice.below(22) {
            0..7 => written(commit(session)?),
            7..9 => {
                session.query("BEGIN")?;
                written(commit(session)?);
                session.query("ROLLBACK")?;
            }
            9..12 => {
                let name = dice.pick(&NAMES[..4]);
                session.query(&format!("SELECT pg_create_restore_point('{name}')"))?;
            }
            12 => session.query("SELECT pg_switch_wal()").map(drop)?,
            13..15 => {
                let bytes = 1000 + dice.below(400_000);
                session.query(&format!(
                    "SELECT pg_logical_emit_message(false, 'bulk', repeat('walrecv ', {bytes} / 8))"
                ))?;
            }
            15..17 => {
                session.query("BEGIN")?;
                let xid = commit(session)?;
                session.query("SAVEPOINT undone")?;
                session.query("INSERT INTO ledger VALUES (-1)")?;
                session.query("ROLLBACK TO undone")?;
                session.query("SAVEPOINT done")?;
                session.query("INSERT INTO ledger VALUES (txid_current())")?;
                session.query("RELEASE done")?;
                session.query(if dice.percent(70) { "COMMIT" } else { "ROLLBACK" })?;
                written(xid);
            }
            17 => session.query("CHECKPOINT").map(drop)?,
            18 => prepare(session, dice)?,
            19 => finish_prepared(session, 1, dice, written)?,
            _ => {
                let pause = u64::try_from(dice.below(8)).unwrap();
                std::thread::sleep(Duration::from_millis(pause));
            }
        }
    }
    Ok(())
}

/// Prepares a transaction, which holds on until it is finished, across backups and timelines. There
/// may be much in the record of that.
fn prepare(session: &mut Session, dice: &mut Dice) -> Result<()> {
    session.query("BEGIN")?;
    let xid = commit(session)?;
    for _ in 0..*dice.pick(&[0, 0, 1, 40]) {
        session.query("SAVEPOINT one")?;
        session.query("INSERT INTO ledger VALUES (txid_current())")?;
        session.query("RELEASE one")?;
    }
    if dice.percent(40) {
        session.query(&format!("CREATE TABLE prepared_{xid} (id serial PRIMARY KEY, t text)"))?;
    }
    session.query(&format!("PREPARE TRANSACTION 'of {xid}'")).map(drop)
}

/// Commits or rolls back so many prepared transactions.
fn finish_prepared(
    session: &mut Session,
    most: usize,
    dice: &mut Dice,
    written: &mut impl FnMut(u32),
) -> Result<()> {
    let prepared = "SELECT transaction, gid FROM pg_prepared_xacts ORDER BY prepared";
    for row in session.query(prepared)?.iter().take(most) {
        let how = if dice.percent(70) { "COMMIT" } else { "ROLLBACK" };
        session.query(&format!("{how} PREPARED '{}'", row[1]))?;
        written(row[0].parse().unwrap());
    }
    Ok(())
}
