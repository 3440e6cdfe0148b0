//! A backup is recorded as copied after its files and their names are durable, and as done after the
//! WAL that it needs is, by the command's own system calls.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgwire_stream::SegmentName;
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::strace::calls::{self, Call, Moment};
use walrecv_tests::strace::order::OPTIONS;
use walrecv_tests::{Context, Installation, Result, strace};

use crate::site::Site;

const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        // Before 13, the manifest is made here.
        .per_major("sync_before_record", &[12, 18], sync_before_record)
        .per_major("wal_sync_before_done", &[18], wal_sync_before_done)
        .once("records_before_syncs_are_noticed", records_before_syncs_are_noticed)
}

fn sync_before_record(installation: &Installation) -> ScenarioResult {
    if !strace::is_possible("the order of syncs and records") {
        return Ok(());
    }
    let site = Site::new(installation)?;
    site.cluster.execute("CREATE TABLE filling AS SELECT generate_series(1, 200000) AS number")?;
    let (calls, directory) = traced_backup(&site)?;
    let files = fs::read_dir(&directory).context(|| "no backup".to_owned())?.flatten();
    let files: Vec<String> =
        files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    assert!(files.len() >= 4, "{files:?}");
    assert_eq!(complaints(&calls, &directory, &files)?, Vec::<String>::new());
    Ok(())
}

/// Another process receives, of which the backup cannot know what it has synced.
fn wal_sync_before_done(installation: &Installation) -> ScenarioResult {
    if !strace::is_possible("the order of syncs and records") {
        return Ok(());
    }
    let site = Site::new(installation)?;
    let receiver = site.walrecv.spawn(&["receive-wal", "main"])?;
    site.wait_until_streaming()?;
    let (calls, directory) = traced_backup(&site)?;
    let record = fs::read_to_string(directory.join("backup.json"));
    let record = record.context(|| "no record".to_owned())?;
    assert!(record.contains("\"done_at\""), "{record}");
    assert_eq!(wal_complaints(&calls, &directory)?, Vec::<String>::new());
    receiver.stop()?;
    Ok(())
}

/// What a backup that waits for its WAL asks the system for, and its directory.
fn traced_backup(site: &Site) -> Result<(Vec<Call>, PathBuf)> {
    let trace = site.walrecv.directory().join("calls.trace");
    // Whole records are read.
    let words = strace::in_front(&trace, &[&OPTIONS[..], &["-s", "4096"]].concat());
    let mut backup = site.walrecv.spawn_behind(&words, &["backup", "main", "--wait"])?;
    let pid = backup.id();
    assert_eq!(backup.wait(PATIENCE)?, 0, "{}", backup.log());
    let base = site.walrecv.home().join("main/base");
    let entries = fs::read_dir(&base).context(|| "no backups".to_owned())?;
    let mut backups = entries.flatten().map(|entry| entry.path());
    let directory = backups.next().context(|| "no backup".to_owned())?;
    assert_eq!(backups.next(), None);
    Ok((calls::parse(&strace::wait_for_end(&trace, pid)?)?, directory))
}

/// What the first record that says that a backup is done came before, of its WAL: the segments that
/// are not in the archive yet, and the names that lead to all of them.
fn wal_complaints(calls: &[Call], directory: &Path) -> Result<Vec<String>> {
    let hidden = directory.join(".backup.json.tmp");
    let says_done = |call: &&Call| {
        let text = call.bytes(1);
        is_write(call) && is_of(call, &hidden) && text.windows(9).any(|part| part == b"\"done_at\"")
    };
    let done = calls.iter().find(says_done).context(|| "no record says so".to_owned())?;
    let server = directory.ancestors().nth(2).context(|| "no server".to_owned())?;
    let streaming = server.join("streaming");
    let is_unsynced = |name: &&str| !synced(calls, &server.join(name), 0, done.entered);
    let unsynced = ["streaming", "wals"].into_iter().filter(is_unsynced);
    let mut complaints: Vec<String> =
        unsynced.map(|name| format!("{name} was not synced")).collect();
    let before = calls.iter().filter(|call| call.name == "openat" && call.left < done.entered);
    let mut looked_for = 0;
    for (call, path) in before.filter_map(|call| Some((call, call.path(1)?))) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // A whole segment is opened for its sync only.
        if path.parent() != Some(&streaming) || name.parse::<SegmentName>().is_err() {
            continue;
        }
        looked_for += 1;
        if call.returned_file().is_some() && !synced(calls, &path, call.entered, done.entered) {
            complaints.push(format!("{name} was not synced"));
        }
    }
    if looked_for == 0 {
        complaints.push("nobody looked for a raw segment to be synced".to_owned());
    }
    Ok(complaints)
}

/// What a record of a complete backup came before, of the files that the backup has in the end.
fn complaints(calls: &[Call], directory: &Path, files: &[String]) -> Result<Vec<String>> {
    let record = directory.join("backup.json");
    let mut complaints = Vec::new();
    if calls.iter().any(|call| call.name == "io_uring_setup") {
        complaints.push("io_uring is used, and what goes through it is not seen".to_owned());
    }
    // One says where the backup begins; the next, that it is copied.
    let mut records = calls.iter().filter(|call| target(call).as_ref() == Some(&record));
    records.next();
    let recorded = records.next().context(|| "no record".to_owned())?.entered;
    for file in files.iter().filter(|file| *file != "backup.json") {
        let hidden = directory.join(format!(".{file}.tmp"));
        let Some(named) = renamed(calls, &directory.join(file)) else {
            complaints.push(format!("{file} has never been renamed"));
            continue;
        };
        let written = calls.iter().filter(|call| is_write(call) && is_of(call, &hidden));
        let written = written.map(|call| call.left).max().unwrap_or(named.left);
        if !synced(calls, &hidden, written, named.entered) {
            complaints.push(format!("{file} had its name before it was durable"));
        }
        let own = directory.join(file);
        if calls.iter().any(|call| is_write(call) && is_of(call, &own)) {
            complaints.push(format!("{file} was written when it had its name"));
        }
        if !synced(calls, directory, named.left, recorded) {
            complaints.push(format!("the name of {file} was not durable"));
        }
    }
    Ok(complaints)
}

/// The renaming that gave a file its name.
fn renamed<'a>(calls: &'a [Call], name: &Path) -> Option<&'a Call> {
    calls.iter().find(|call| target(call).as_deref() == Some(name))
}

/// The name that a call has given.
fn target(call: &Call) -> Option<PathBuf> {
    call.returned()?;
    match call.name.as_str() {
        "rename" => call.path(1),
        "renameat" | "renameat2" => call.path(3),
        _ => None,
    }
}

fn is_write(call: &Call) -> bool {
    call.name.contains("write") || call.name == "sendfile" || call.name == "copy_file_range"
}

/// Whether a call is about an open file.
fn is_of(call: &Call, path: &Path) -> bool {
    let at = if call.name == "copy_file_range" { 2 } else { 0 };
    call.file(at).is_some_and(|(_, file)| file == path)
}

/// Whether a sync began behind one moment and had succeeded before another.
fn synced(calls: &[Call], path: &Path, behind: Moment, before: Moment) -> bool {
    calls.iter().any(|call| {
        matches!(call.name.as_str(), "fsync" | "fdatasync")
            && is_of(call, path)
            && call.returned().is_some()
            && call.entered > behind
            && call.left < before
    })
}

/// A backup as it should be.
const GOOD: &str = r#"7 rename("/b/.backup.json.tmp", "/b/backup.json") = 0
7 write(5</b/.base.tar.tmp>, "\x16\xd1"..., 8192) = 8192
7 fsync(5</b/.base.tar.tmp>) = 0
7 rename("/b/.base.tar.tmp", "/b/base.tar") = 0
7 write(6</b/.backup_manifest.tmp>, "\x16\xd1"..., 100) = 100
7 fsync(6</b/.backup_manifest.tmp>) = 0
7 rename("/b/.backup_manifest.tmp", "/b/backup_manifest") = 0
7 fsync(8</b>) = 0
7 write(9</b/.backup.json.tmp>, "\x16\xd1"..., 100) = 100
7 fsync(9</b/.backup.json.tmp>) = 0
7 rename("/b/.backup.json.tmp", "/b/backup.json") = 0
7 fsync(8</b>) = 0
"#;

/// What comes before a backup is done, of two segments, of which one is in the archive.
const GOOD_WAL: &str = r#"7 close(3) = 0
7 openat(AT_FDCWD, "/m/streaming/00000001000000000000000A", O_RDONLY) = -1 ENOENT (No such file or directory)
7 openat(AT_FDCWD, "/m/streaming/00000001000000000000000A", O_RDONLY) = 4</m/streaming/00000001000000000000000A>
7 fsync(4</m/streaming/00000001000000000000000A>) = 0
7 fsync(3</m/streaming>) = 0
7 fsync(3</m/wals>) = 0
7 write(9</m/base/b/.backup.json.tmp>, "\x22done_at\x22", 9) = 9
"#;

/// The judge's own test: it accepts what is right, and nothing that is wrong.
fn records_before_syncs_are_noticed() -> ScenarioResult {
    let files = ["base.tar", "backup_manifest", "backup.json"].map(str::to_owned);
    let judged = |trace: &str| complaints(&calls::parse(trace)?, Path::new("/b"), &files);
    assert_eq!(judged(GOOD)?, Vec::<String>::new());
    let without = |line: &str| GOOD.replacen(&format!("{line}\n"), "", 1);
    assert_eq!(judged(&without("7 fsync(5</b/.base.tar.tmp>) = 0"))?.len(), 1);
    assert_eq!(judged(&without("7 fsync(6</b/.backup_manifest.tmp>) = 0"))?.len(), 1);
    assert_eq!(judged(&without("7 fsync(8</b>) = 0"))?.len(), 2);
    let failed =
        GOOD.replacen("7 fsync(8</b>) = 0", "7 fsync(8</b>) = -1 EIO (Input/output error)", 1);
    assert_eq!(judged(&failed)?.len(), 2);
    let written_behind = GOOD.replacen(
        "7 rename(\"/b/.base.tar.tmp\"",
        "7 write(5</b/.base.tar.tmp>, \"\\x00\", 1) = 1\n7 rename(\"/b/.base.tar.tmp\"",
        1,
    );
    assert_eq!(judged(&written_behind)?.len(), 1);
    let written_named = format!("{GOOD}7 write(5</b/base.tar>, \"\\x00\", 1) = 1\n");
    assert_eq!(judged(&written_named)?.len(), 1);
    // The record that should come last, in front of the manifest.
    let record = "7 rename(\"/b/.backup.json.tmp\", \"/b/backup.json\") = 0\n";
    let manifest = "7 write(6</b/.backup_manifest.tmp>";
    let early = GOOD.replacen(manifest, &format!("{record}{manifest}"), 1);
    assert_eq!(judged(&early)?.len(), 2);
    let judged_done = |trace: &str| wal_complaints(&calls::parse(trace)?, Path::new("/m/base/b"));
    assert_eq!(judged_done(GOOD_WAL)?, Vec::<String>::new());
    for sync in GOOD_WAL.lines().filter(|line| line.contains("fsync")) {
        let behind = GOOD_WAL.replacen(&format!("{sync}\n"), "", 1) + sync + "\n";
        assert_eq!(judged_done(&behind)?.len(), 1, "{sync}");
    }
    let nobody: String =
        GOOD_WAL.split_inclusive('\n').filter(|line| !line.contains("0A")).collect();
    assert_eq!(judged_done(&nobody)?.len(), 1);
    assert_eq!(judged(&format!("{GOOD}7 io_uring_setup(8, 0x7ffe) = 9\n"))?.len(), 1);
    Ok(())
}
