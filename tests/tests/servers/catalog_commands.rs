//! The commands on backups that there are: verified, listed, kept, removed.

use std::fs;
use std::path::{Path, PathBuf};

use pgwire_stream::{SegmentName, TimelineId};
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::walrecv::Output;
use walrecv_tests::{Context, Installation, Result, tools};

use crate::site::{Site, lsn};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .per_major("verify_backup", &[10, 14, 18], verify_backup)
        .per_major("verify_pages", &[10, 12, 18], verify_pages)
        .per_major("every_compression", &[10, 15, 18], every_compression)
        .per_major("server_compression", &[14, 15, 18], server_compression)
        .per_major("keep_and_delete", &[18], keep_and_delete)
}

/// Turns a byte over, and back when it goes.
struct Flipped {
    path: PathBuf,
    content: Vec<u8>,
}

impl Flipped {
    fn at(path: &Path, at: impl FnOnce(&[u8]) -> usize) -> Result<Self> {
        let about = || format!("cannot change {}", path.display());
        let content = fs::read(path).context(about)?;
        let mut altered = content.clone();
        altered[at(&content)] ^= 1;
        fs::write(path, altered).context(about)?;
        Ok(Self { path: path.to_owned(), content })
    }

    fn middle(path: &Path) -> Result<Self> {
        Self::at(path, |content| content.len() / 2)
    }
}

impl Drop for Flipped {
    fn drop(&mut self) {
        fs::write(&self.path, &self.content).unwrap();
    }
}

fn verify(site: &Site, id: &str, options: &[&str]) -> Result<Output> {
    site.walrecv.run(&[&["verify-backup", "main", id], options].concat())
}

/// A manifest that is lost is made again, byte for byte, and not of what is damaged.
fn manifest_again(site: &Site, id: &str, manifest: &Path, archive: &Path) -> ScenarioResult {
    let again = || site.walrecv.run(&["generate-manifest", "main", id]);
    assert!(again()?.code(3)?.stderr.contains("has its manifest"));
    let lost = fs::read(manifest)?;
    fs::remove_file(manifest)?;
    {
        let _flipped = Flipped::middle(archive)?;
        assert!(again()?.code(1)?.stderr.contains("is damaged"));
        assert!(!manifest.exists());
    }
    let shown = site.shown(id)?;
    again()?.success()?;
    assert!(fs::read(manifest)? == lost, "it is another one");
    assert_eq!(site.shown(id)?, shown);
    verify(site, id, &[])?.success()?;
    Ok(())
}

/// Whether damage is found, and where.
fn finds(site: &Site, id: &str, options: &[&str], words: &[&str]) -> ScenarioResult {
    let output = verify(site, id, options)?.code(1)?;
    for word in words {
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(said.contains(word), "{options:?} does not tell `{word}`:\n{said}");
    }
    Ok(())
}

fn verify_backup(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    let place = site.cluster.new_directory("place")?;
    site.cluster.execute(&format!("CREATE TABLESPACE place LOCATION '{}'", place.display()))?;
    site.cluster.execute(
        "CREATE TABLE t TABLESPACE place AS SELECT n, md5(n::text) FROM generate_series(1, 50000) n",
    )?;
    let oid = site.cluster.value("SELECT oid FROM pg_tablespace WHERE spcname = 'place'")?;
    let daemon = site.run()?;
    let id = site.backup()?;
    site.settle()?;
    // Everything that the backup needs is in the archive.
    site.cluster.execute("SELECT pg_switch_wal()")?;
    site.cluster.execute("CREATE TABLE after (n int)")?;
    site.settle()?;
    assert_eq!(daemon.stop()?, 0);

    for options in [&[][..], &["--stored"], &["--pages"], &["--wal"], &["--pages", "--wal"]] {
        let output = verify(&site, &id, options)?.success()?;
        assert!(output.stdout.contains(": good\n"), "{options:?}: {}", output.stdout);
    }
    let told = site.walrecv.run(&["-f", "json2", "verify", "main", "last", "--pages", "--wal"])?;
    let told = told.success()?.json()?;
    let told = &told["results"][0];
    assert_eq!(told["good"], true);
    assert!(told["pages"].as_u64() > Some(500), "{told}");
    assert!(told["wal_segments"].as_u64() >= Some(1), "{told}");
    assert!(told["files"].as_u64() > Some(500), "{told}");

    let backup = site.walrecv.home().join("main/base").join(&id);
    let file = |name: &str| backup.join(name);
    let archive = format!("{oid}.tar.zst");
    for name in ["base.tar.zst", &archive] {
        let flipped = Flipped::middle(&file(name))?;
        finds(&site, &id, &["--stored"], &[name, "checksum"])?;
        finds(&site, &id, &[], &[name])?;
        let listed =
            || -> Result<String> { Ok(site.walrecv.run(&["list-backups", "main"])?.stdout) };
        assert!(listed()?.contains("DAMAGED"), "{}", listed()?);
        let checked = site.walrecv.run(&["check", "main"])?.stdout;
        assert!(checked.contains("damaged backups: FAILED"), "{checked}");
        drop(flipped);
        // What took a closer look is not taken back by one that is not as close.
        verify(&site, &id, &["--stored"])?.success()?;
        assert!(listed()?.contains("DAMAGED"), "{}", listed()?);
        verify(&site, &id, &[])?.success()?;
        assert!(!listed()?.contains("DAMAGED"), "{}", listed()?);
    }
    for name in ["base.tar.idx", &format!("{oid}.tar.idx")] {
        let _flipped = Flipped::middle(&file(name))?;
        finds(&site, &id, &["--stored"], &[name])?;
        finds(&site, &id, &[], &[name, "does not describe its archive"])?;
    }
    {
        let _flipped = Flipped::middle(&file("backup_manifest"))?;
        finds(&site, &id, &["--stored"], &["backup_manifest"])?;
        finds(&site, &id, &[], &["backup_manifest"])?;
    }
    {
        // Still JSON, still a number.
        let _flipped = Flipped::at(&file("backup.json"), |content| {
            let text = String::from_utf8_lossy(content);
            text.find("\"plain_size\": ").unwrap() + "\"plain_size\": ".len()
        })?;
        finds(&site, &id, &[], &["backup.json", "was altered"])?;
    }
    {
        let gone = file("gone");
        fs::rename(file(&archive), &gone)?;
        finds(&site, &id, &[], &[&archive, "is missing"])?;
        fs::rename(gone, file(&archive))?;
    }
    manifest_again(&site, &id, &file("backup_manifest"), &file("base.tar.zst"))?;
    // The manifest has a file more, and one less, than the archive: with a checksum that fits.
    if installation.major >= 13 {
        forged_manifest(&site, &id, &file("backup_manifest"))?;
    }

    verify(&site, &id, &[])?.success()?;

    // The WAL that the backup needs.
    let listed = site.walrecv.run(&["list-files", "main", &id, "--target", "standalone"])?;
    let listed = listed.success()?.stdout;
    for name in ["base.tar.zst", "base.tar.idx", "backup_manifest", "backup.json", &archive] {
        assert!(listed.contains(&file(name).display().to_string()), "{name} in:\n{listed}");
    }
    let wal: Vec<&str> = listed.lines().filter(|line| line.contains("/main/wals/")).collect();
    assert!(!wal.is_empty(), "{listed}");
    for path in wal {
        let _flipped = Flipped::middle(Path::new(path))?;
        finds(&site, &id, &["--wal"], &[path])?;
        verify(&site, &id, &[])?.success()?;
    }
    let data = site.walrecv.run(&["list-files", "main", &id, "--target", "data"])?.success()?;
    assert!(!data.stdout.contains("/wals/"), "{}", data.stdout);
    let full = site.walrecv.run(&["list-files", "main", &id, "--target", "full"])?.success()?;
    assert!(full.stdout.lines().count() > listed.lines().count(), "{}", full.stdout);

    let checked = site.walrecv.run(&["check-backup", "main", &id])?.success()?;
    assert!(checked.stdout.contains("DONE"), "{}", checked.stdout);
    verify(&site, &id, &["--pages", "--wal"])?.success()?;

    // The end of its WAL in a segment that is not archived yet, of which nothing is noted. Zeros are
    // no damage to WAL; that it does not reach the end is.
    site.walrecv.run(&["backup", "main"])?.success()?;
    let second = site.last_backup()?;
    verify(&site, &second, &["--wal"])?.success()?;
    let end = site.shown(&second)?["results"][0]["end"]["lsn"].as_str().unwrap().to_owned();
    let size = site.segment_size()?;
    let number = size.last_byte_segment_of(lsn(&end)?);
    let segment = SegmentName::new(TimelineId::FIRST, number, size).to_string();
    let raw = site.walrecv.home().join("main/streaming").join(&segment);
    fs::write(&raw, vec![0; size.bytes() as usize])?;
    finds(&site, &second, &["--wal"], &["the WAL ends with a record"])?;
    fs::remove_file(&raw)?;
    verify(&site, &second, &["--wal"])?.success()?;

    // Nobody knows what builds on what while a record cannot be read.
    let _flipped =
        Flipped::middle(&site.walrecv.home().join("main/base").join(&second).join("backup.json"))?;
    let refused = site.walrecv.run(&["delete", "main", &id])?.code(3)?;
    assert!(refused.stderr.contains(&second), "{}", refused.stderr);
    Ok(())
}

/// A manifest that is one in itself, but not of this backup.
fn forged_manifest(site: &Site, id: &str, path: &Path) -> ScenarioResult {
    let content = fs::read(path)?;
    let text = String::from_utf8(content.clone())?;
    let line = text.lines().find(|line| line.contains("\"base/1/1259\"")).unwrap();
    let version = text.lines().find(|line| line.contains("\"PG_VERSION\"")).unwrap();
    let sized = version.replace("\"Size\": 3", "\"Size\": 4");
    for (from, to, word) in [
        (line.to_owned(), line.replace("1/1259", "1/1258_x"), "`base/1/1259` is in the archive"),
        (line.to_owned(), line.replace("1/1259", "1/1258_x"), "`base/1/1258_x` is in the manifest"),
        (version.to_owned(), sized, "`PG_VERSION` has 3 bytes"),
    ] {
        fs::write(path, text.replace(&from, &to))?;
        finds(site, id, &[], &[word])?;
    }
    fs::write(path, content)?;
    Ok(())
}

/// Pages that were damaged on the server already are found by their own checksums, and by nothing
/// else: the server is told not to look.
fn verify_pages(installation: &Installation) -> ScenarioResult {
    let mut site = Site::new(installation)?;
    site.cluster.execute("CREATE TABLE t AS SELECT n FROM generate_series(1, 50000) n")?;
    let path = site.cluster.value("SELECT pg_relation_filepath('t')")?;
    site.cluster.stop()?;
    let damaged = site.cluster.data_directory().join(&path);
    let _flipped = Flipped::at(&damaged, |_| 3 * 8192 + 5000)?;
    site.cluster.start()?;
    let daemon = site.run()?;
    // As things are, such a backup is refused where the server looks at its pages.
    if installation.major >= 11 {
        let refused = site.walrecv.run(&["backup", "main"])?.code(1)?;
        assert!(refused.stderr.contains("checksum"), "{}", refused.stderr);
        assert!(refused.stderr.contains(&path), "{}", refused.stderr);
        let failed = site.last_backup()?;
        assert_eq!(site.shown(&failed)?["results"][0]["status"], "FAILED");
    }
    let told = site.walrecv.run(&["backup", "main", "--accept-damaged-pages", "--wait"])?;
    let told = told.success()?.stderr;
    assert!(told.contains("1 pages of the server are damaged"), "{told}");
    assert!(told.contains(&format!("written, in {path}: ")), "{told}");
    let id = site.last_backup()?;
    assert_eq!(daemon.stop()?, 0);
    let shown = &site.shown(&id)?["results"][0];
    assert_eq!(shown["damaged_pages"]["files"][0], path.as_str());
    assert_eq!(shown["damaged_pages"]["pages"], 1);
    // It is what the server had.
    verify(&site, &id, &[])?.success()?;
    finds(&site, &id, &["--pages"], &[&format!("page 3 of `{path}`"), "1 problem"])?;
    Ok(())
}

/// However backups and WAL are compressed: they are verified, opened by hand, and restored.
fn every_compression(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    site.cluster.execute(
        "CREATE TABLE t AS SELECT n, md5(n::text) AS t FROM generate_series(1, 60000) n",
    )?;
    let rows = "SELECT count(*), md5(string_agg(t, '' ORDER BY n)) FROM t";
    for codec in ["none", "lz4", "gzip", "zstd"] {
        site.configure(&format!(
            "backup_compression = \"{codec}\"\ncompression = \"{codec}\"\n\
             backup_compression_workers = 2\n"
        ))?;
        let daemon = site.run()?;
        let id = site.backup()?;
        site.cluster.execute(&format!("INSERT INTO t VALUES (0, '{codec}')"))?;
        site.cluster.execute("SELECT pg_switch_wal()")?;
        site.settle()?;
        let expected = site.cluster.value(rows)?;
        verify(&site, &id, &["--pages", "--wal"])?.success()?;

        let backup = site.walrecv.home().join("main/base").join(&id);
        let archive = fs::read_dir(&backup)?.flatten().map(|entry| entry.path()).find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with("base.tar") && !name.ends_with(".idx")
        });
        let unpacked = site.cluster.new_directory(&format!("by_hand_{codec}"))?;
        tools::unpack(&archive.unwrap(), &unpacked)?;
        fs::copy(backup.join("backup_manifest"), unpacked.join("backup_manifest"))?;
        tools::verify_backup(installation.major, &unpacked, None)?;

        let restored = site.restore_and_start(codec, &[&id])?;
        assert_eq!(restored.value(rows)?, expected, "{codec}");
        drop(restored);
        assert_eq!(daemon.stop()?, 0);
    }
    Ok(())
}

/// Archives as the server has compressed them: stored so, verified on the way, and restored.
fn server_compression(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    site.cluster
        .execute("CREATE TABLE t AS SELECT md5(n::text) AS t FROM generate_series(1, 60000) n")?;
    let rows = "SELECT count(*), md5(string_agg(t, '' ORDER BY t)) FROM t";
    let expected = site.cluster.value(rows)?;
    for codec in ["zstd", "gzip", "lz4"] {
        site.configure(&format!(
            "backup_compression = \"{codec}\"\nbackup_compression_location = \"server\"\n\
             backup_compression_workers = 1\n"
        ))?;
        let output = site.walrecv.run(&["backup", "main"])?;
        if output.stderr.contains("does not support compression") {
            assert!(output.stderr.contains("backup_compression_location"), "{}", output.stderr);
            tools::not_judged(codec, "the server was built without it");
            continue;
        }
        let output = output.success()?;
        let id = site.last_backup()?;
        let archive = &site.shown(&id)?["results"][0]["archives"][0];
        if installation.major < 15 {
            assert!(output.stderr.contains("compressing here"), "{}", output.stderr);
            assert_eq!(archive["by_server"], serde_json::Value::Null);
            return Ok(());
        }
        assert_eq!((&archive["by_server"], &archive["codec"]), (&true.into(), &codec.into()));
        verify(&site, &id, &["--pages", "--wal"])?.success()?;
        let restored = site.restore_and_start(codec, &[&id, "--no-get-wal"])?;
        assert_eq!(restored.value(rows)?, expected, "{codec}");
    }
    Ok(())
}

fn keep_and_delete(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    let _daemon = site.run()?;
    let (first, second) = (site.backup()?, site.backup()?);
    let run = |words: &[&str]| site.walrecv.run(words);
    let shown = |id: &str| -> Result<String> {
        Ok(run(&["keep", "main", id, "--status"])?.success()?.stdout)
    };
    assert_eq!(shown(&first)?, "Keep: nokeep\n");
    run(&["keep", "main", &first])?.code(2)?;
    run(&["keep", "main", &first, "--target", "full"])?.success()?;
    assert_eq!(shown(&first)?, "Keep: full\n");
    let listed = run(&["list-backups", "main"])?.success()?.stdout;
    assert!(listed.contains(" - KEEP:FULL"), "{listed}");

    let refused = run(&["delete", "main", &first])?.code(3)?;
    assert!(refused.stderr.contains("is kept (full)"), "{}", refused.stderr);
    let dry = run(&["delete", "main", &second, "--dry-run"])?.success()?;
    assert!(dry.stdout.starts_with("Would delete"), "{}", dry.stdout);
    assert_eq!(site.last_backup()?, second);

    run(&["delete", "main", &second])?.success()?;
    assert_eq!(site.last_backup()?, first);

    // One that somebody moved away is missed until it is forgotten.
    let third = site.backup()?;
    let there = site.walrecv.home().join("main/base").join(&third);
    run(&["delete", "main", &third, "--forget"])?.code(3)?;
    fs::rename(&there, site.walrecv.home().join("away"))?;
    let checked = run(&["check", "main"])?.stdout;
    assert!(checked.contains("vanished backups: FAILED"), "{checked}");
    let deleted = run(&["delete", "main", &third, "--forget"])?.success()?;
    assert!(deleted.stdout.contains("it is not there any more"), "{}", deleted.stdout);
    assert!(!run(&["check", "main"])?.stdout.contains("vanished"));

    run(&["keep", "main", &first, "--release"])?.success()?;
    assert_eq!(shown(&first)?, "Keep: nokeep\n");
    run(&["delete", "main", "latest"])?.success()?;
    let base = site.walrecv.home().join("main/base");
    assert_eq!(fs::read_dir(&base)?.count(), 0);
    let nothing = run(&["delete", "main", &first])?.code(1)?;
    assert!(nothing.stderr.contains("has no backup"), "{}", nothing.stderr);
    Ok(())
}
