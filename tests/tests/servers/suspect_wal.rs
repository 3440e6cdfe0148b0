//! WAL that PostgreSQL could not replay: damaged on its way, or already where it comes from.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use walrecv_tests::corruption::{SpoilingProxy, spoil};
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::walrecv::Daemon;
use walrecv_tests::{Cluster, Context, Installation, Result};

use crate::site::{PASSWORD, ROLE, Site};

/// What is looked for in the WAL: in rows that no server compresses.
const MARK: &[u8] = b"MARK-ME-MARK-ME-";

/// What the index says of a segment.
const VALIDATED: &str = "\"validity\":\"validated\"";
const SUSPECT: &str = "\"validity\":\"suspect\"";

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios.per_major("wal_damaged_on_its_way", &[10, 15, 18], damaged_on_its_way).per_major(
        "wal_damaged_at_its_source",
        &[10, 15, 18],
        damaged_at_its_source,
    )
}

fn write_marks(cluster: &Cluster) -> Result<()> {
    cluster.execute("CREATE TABLE marked (mark text)")?;
    cluster.execute("INSERT INTO marked SELECT repeat('MARK-ME-', 50) FROM generate_series(1, 40)")
}

fn wait_until_said(daemon: &Daemon, what: &str) {
    let begin = Instant::now();
    while !daemon.log().contains(what) {
        assert!(begin.elapsed() < Duration::from_secs(30), "no `{what}` in:\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Has the server begin a new segment, and waits until the one before is archived.
fn archive(site: &Site) -> Result<()> {
    site.cluster.execute("SELECT pg_switch_wal()")?;
    site.cluster.execute("INSERT INTO marked VALUES ('another segment')")?;
    site.settle()?;
    let streaming = site.walrecv.home().join("main/streaming");
    site.cluster.wait_for("the archive", |_| {
        let listed = fs::read_dir(&streaming).context(|| "cannot list".to_owned())?;
        let names = listed.flatten().map(|entry| entry.file_name().into_string());
        Ok(names.flatten().all(|name| name.ends_with(".partial")))
    })
}

/// What the indexes of the archive say.
fn index(site: &Site) -> String {
    let mut text = String::new();
    for folder in fs::read_dir(site.walrecv.home().join("main/wals")).into_iter().flatten() {
        let path = folder.map(|folder| folder.path().join("index")).unwrap_or_default();
        text.push_str(&fs::read_to_string(path).unwrap_or_default());
    }
    text
}

fn damaged_on_its_way(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    let proxy = SpoilingProxy::start(site.cluster.port(), MARK)?;
    let direct = site.cluster.conninfo(ROLE, PASSWORD);
    let port = |port: u16| format!("port={port}");
    let conninfo = direct.replace(&port(site.cluster.port()), &port(proxy.port()));
    site.walrecv.configure(&format!("[servers.main]\nconninfo = \"{conninfo}\"\n"))?;
    let daemon = site.run()?;
    let first = site.position()?;
    write_marks(&site.cluster)?;
    site.settle()?;
    assert!(proxy.is_done(), "nothing was damaged");
    wait_until_said(&daemon, "it came right when it was asked for again");

    // What is kept is what the server has, and nothing is held against it.
    archive(&site)?;
    let segment = site.segment_size()?.segment_of(first);
    let segment = pgwire_stream::SegmentName::new(
        pgwire_stream::TimelineId::FIRST,
        segment,
        site.segment_size()?,
    );
    assert!(site.compare_with_archive(&segment)? > 0);
    let index = index(&site);
    assert!(index.contains(VALIDATED) && !index.contains(SUSPECT), "{index}");
    let apart = fs::read_dir(site.walrecv.home().join("main/errors")).into_iter().flatten().count();
    assert_eq!(apart, 1, "what was damaged is not kept");
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// The file of the server's WAL that has the mark.
fn marked_file(cluster: &Cluster) -> Result<(PathBuf, Vec<u8>)> {
    let directory = cluster.data_directory().join("pg_wal");
    for entry in fs::read_dir(&directory).context(|| "cannot list the WAL".to_owned())?.flatten() {
        if let Ok(content) = fs::read(entry.path())
            && content.windows(MARK.len()).any(|window| window == MARK)
        {
            return Ok((entry.path(), content));
        }
    }
    Err(walrecv_tests::Failure::new("the mark is in no file"))
}

fn damaged_at_its_source(installation: &Installation) -> ScenarioResult {
    let mut site = Site::new(installation)?;
    let daemon = site.run()?;
    let backup = site.backup()?;
    assert_eq!(daemon.stop()?, 0);
    write_marks(&site.cluster)?;
    // What the server sends comes from its files then, and no longer from its memory.
    site.cluster.restart()?;
    let (path, mut content) = marked_file(&site.cluster)?;
    assert!(spoil(&mut content, MARK));
    fs::write(&path, &content).context(|| "cannot damage the WAL".to_owned())?;

    // It is taken and acknowledged as any other: the server must not keep it for ever.
    let daemon = site.run()?;
    site.settle()?;
    wait_until_said(&daemon, "the server sends the same again");
    archive(&site)?;
    let index = index(&site);
    assert!(index.contains(SUSPECT) && index.contains("CRC"), "{index}");

    // Whoever looks, or wants to restore across it, is told.
    let check = site.walrecv.run(&["check", "main"])?.code(1)?;
    assert!(check.stdout.contains("suspect"), "{}", check.stdout);
    let (_, refused) = site.restore("across", &[&backup, "--dry-run"])?;
    let refused = refused.code(3)?;
    assert!(refused.stderr.contains("is suspect: the record's CRC is"), "{}", refused.stderr);
    site.restore("before", &[&backup, "--dry-run", "--target-immediate"])?.1.success()?;
    let (_, forced) = site.restore("across", &[&backup, "--dry-run", "--force"])?;
    assert!(forced.success()?.stdout.contains("recovery may end there"));
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}
