//! What is stored is encrypted to keys whose secret halves are elsewhere: stock `age` opens it, a
//! restore with the key comes to the last byte, and without it nothing is restored, and says so.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use age::secrecy::ExposeSecret;
use pgwire_stream::{SegmentName, SegmentSize, TimelineId};
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::{Context, Installation, Result, tools};

use crate::site::{Site, lsn};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios.per_major("encrypted", &[10, 14, 18], encrypted).per_major(
        "encrypting_is_killed",
        &[18],
        encrypting_is_killed,
    )
}

/// A key pair; the secret half in a file of its own.
pub(crate) struct Key {
    pub(crate) public: String,
    identity: PathBuf,
}

impl Key {
    pub(crate) fn new(site: &Site, name: &str) -> Result<Self> {
        let secret = age::x25519::Identity::generate();
        let identity = site.cluster.base_directory().join(name);
        let about = || format!("cannot write {}", identity.display());
        fs::write(&identity, secret.to_string().expose_secret()).context(about)?;
        fs::set_permissions(&identity, fs::Permissions::from_mode(0o600)).context(about)?;
        Ok(Self { public: secret.to_public().to_string(), identity })
    }

    pub(crate) fn identity(&self) -> &str {
        self.identity.to_str().unwrap()
    }
}

fn encrypted(installation: &Installation) -> ScenarioResult {
    let mut site = Site::new(installation)?;
    let [ours, second, other] =
        ["ours", "second", "other"].map(|name| Key::new(&site, name).unwrap());
    let recipients =
        format!("encryption_recipients = [\"{}\", \"{}\"]\n", ours.public, second.public);
    site.configure(&recipients)?;
    site.cluster.execute("CREATE TABLE ledger (n serial PRIMARY KEY, t text)")?;
    let daemon = site.run()?;
    let begin = lsn(&site.cluster.value("SELECT restart_lsn FROM pg_replication_slots")?)?;
    let id = site.backup()?;
    for _ in 0..4 {
        site.cluster.execute(
            "INSERT INTO ledger (t) SELECT repeat(md5(g::text), 20) FROM generate_series(1, 3000) g",
        )?;
    }
    let rows = "SELECT count(*), md5(string_agg(t, '' ORDER BY n)) FROM ledger";
    let expected = site.cluster.value(rows)?;
    site.settle()?;

    // Only who has one of the keys can read it, with the programs that everybody has.
    let size = SegmentSize::from_setting(&site.cluster.value("SHOW wal_segment_size")?)?;
    let first = SegmentName::new(TimelineId::FIRST, size.segment_of(begin), size);
    for key in [&ours, &second] {
        let compared = site.compare_encrypted(&first, &key.identity)?;
        assert!(compared >= 2 || tools::count_missing() > 0, "{compared} segments were compared");
    }
    everything_is_encrypted(&site, &id)?;
    let check = site.walrecv.run(&["check", "main"])?.success()?;
    assert!(check.stdout.contains("encryption: OK (to 2 keys; "), "{}", check.stdout);
    let shown = site.walrecv.run(&["show-backup", "main", &id])?.success()?;
    assert!(shown.stdout.contains("Backup Encryption    : age"), "{}", shown.stdout);

    // The machine is lost.
    site.cluster.kill9()?;
    site.cluster.remove_data()?;
    refused(&site, &id, &other)?;
    let copied =
        site.restore_and_start("copied", &[&id, "--no-get-wal", "--identity", second.identity()])?;
    assert_eq!(copied.value(rows)?, expected);

    // Without the key, the WAL is not handed out, and that is not the end of the archive.
    let destination = site.walrecv.directory().join("RECOVERYXLOG").display().to_string();
    let get = |segment: &str, more: &[&str]| {
        let arguments = [&["get-wal", "main", segment, &destination], more].concat();
        site.walrecv.run(&arguments)
    };
    let segment = first.to_string();
    let nobody = get(&segment, &[])?.code(206)?;
    assert!(nobody.stderr.contains("hint: name the file with the secret key"), "{}", nobody.stderr);
    get(&segment, &["--identity", other.identity()])?.code(206)?;
    get(&segment, &["--identity", ours.identity()])?.success()?;
    get("0000000100000FFF00000001", &[])?.code(1)?;
    if rustix::process::geteuid().is_root() {
        // The server could only ask the daemon, which has no key either.
        let asking = site.restore("asking", &[&id, "--identity", ours.identity()])?.1.code(3)?;
        assert!(asking.stderr.contains("cannot decrypt the WAL of `main`"), "{}", asking.stderr);
    }

    // A daemon that has the key hands out what it has decrypted.
    assert_eq!(daemon.stop()?, 0);
    site.configure(&format!("{recipients}encryption_identity = \"{}\"\n", ours.identity()))?;
    let daemon = site.walrecv.spawn(&["run"])?;
    wait_for_daemon(&site)?;
    let served = site.restore_and_start("served", &[&id])?;
    assert_eq!(served.value(rows)?, expected);
    assert_eq!(daemon.stop()?, 0);

    // A server that may read the store has a key of its own. There is no daemon.
    site.configure(&recipients)?;
    if rustix::process::geteuid().is_root() {
        open_to_all(&site.walrecv.home())?;
        open_to_all(site.walrecv.directory())?;
        // There is a password in it, and it is not used with passwords that all can read.
        site.configure(&recipients)?;
        let unreadable = site.restore("own", &[&id, "--identity", ours.identity()])?.1.code(3)?;
        let said = format!("may not read the identity file `{}`", ours.identity());
        assert!(unreadable.stderr.contains(&said), "{}", unreadable.stderr);
    }
    site.cluster.account().owns(&ours.identity)?;
    let own = site.restore_and_start("own", &[&id, "--identity", ours.identity()])?;
    assert_eq!(own.value(rows)?, expected);
    own.execute("INSERT INTO ledger DEFAULT VALUES")?;
    Ok(())
}

/// Whatever is complete in the store is a file of age.
fn everything_is_encrypted(site: &Site, id: &str) -> ScenarioResult {
    let server = site.walrecv.home().join("main");
    let mut segments = 0;
    for folder in fs::read_dir(server.join("wals"))? {
        let folder = folder?.path();
        if !folder.is_dir() {
            continue;
        }
        for file in fs::read_dir(folder)? {
            let path = file?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name != "index" && !name.starts_with('.') {
                assert!(name.ends_with(".zst.age"), "{name}");
                assert!(fs::read(&path)?.starts_with(b"age-encryption.org/v1\n"), "{name}");
                segments += 1;
            }
        }
    }
    assert!(segments >= 2, "{segments}");
    let archive = server.join("base").join(id).join("base.tar.zst.age");
    assert!(fs::read(archive)?.starts_with(b"age-encryption.org/v1\n"));
    assert!(!server.join("base").join(id).join("base.tar.zst").exists());
    Ok(())
}

/// What cannot be decrypted is not restored, and nothing is written.
fn refused(site: &Site, id: &str, other: &Key) -> ScenarioResult {
    let (destination, output) = site.restore("refused", &[id])?;
    let output = output.code(3)?;
    assert!(output.stderr.contains("is encrypted, and no identity is given"), "{}", output.stderr);
    assert!(output.stderr.contains("--identity FILE"), "{}", output.stderr);
    let output = site.restore("refused", &[id, "--identity", other.identity()])?.1.code(3)?;
    assert!(output.stderr.contains("no identity in `"), "{}", output.stderr);
    fs::set_permissions(&other.identity, fs::Permissions::from_mode(0o644))?;
    let output = site.restore("refused", &[id, "--identity", other.identity()])?.1.code(2)?;
    assert!(output.stderr.contains("its mode is 0644"), "{}", output.stderr);
    fs::set_permissions(&other.identity, fs::Permissions::from_mode(0o600))?;
    assert!(!destination.exists());
    Ok(())
}

/// The database is gone, but the daemon answers all the same.
fn wait_for_daemon(site: &Site) -> ScenarioResult {
    for _ in 0..200 {
        let plan = site.restore("planned", &["latest", "--dry-run"])?.1;
        if plan.code == 0 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err("no daemon serves the store".into())
}

/// Lets every user of the machine read a directory and all in it.
fn open_to_all(path: &Path) -> ScenarioResult {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mode = if metadata.is_dir() { 0o755 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            open_to_all(&entry?.path())?;
        }
    }
    Ok(())
}

/// SIGKILL in the middle of archiving, again and again: what has a final name is whole.
fn encrypting_is_killed(installation: &Installation) -> ScenarioResult {
    let mut site = Site::new(installation)?;
    let key = Key::new(&site, "key")?;
    site.configure(&format!("encryption_recipients = \"{}\"\n", key.public))?;
    site.cluster.execute("CREATE TABLE load (n serial, t text)")?;
    let mut daemon = site.run()?;
    let begin = lsn(&site.cluster.value("SELECT restart_lsn FROM pg_replication_slots")?)?;
    let id = site.backup()?;
    for round in 0..8 {
        site.cluster.execute(
            "INSERT INTO load (t) SELECT repeat(md5(g::text), 20) FROM generate_series(1, 8000) g",
        )?;
        std::thread::sleep(Duration::from_millis(20 + 30 * round));
        daemon.kill9()?;
        whatever_is_archived_decrypts(&site, &key)?;
        daemon = site.walrecv.spawn(&["run"])?;
    }
    site.wait_until_streaming()?;
    site.settle()?;
    let rows = site.cluster.value("SELECT count(*) FROM load")?;
    let size = SegmentSize::from_setting(&site.cluster.value("SHOW wal_segment_size")?)?;
    let first = SegmentName::new(TimelineId::FIRST, size.segment_of(begin), size);
    let compared = site.compare_encrypted(&first, &key.identity)?;
    assert!(compared >= 8 || tools::count_missing() > 0, "{compared} segments were compared");
    site.cluster.kill9()?;
    let restored =
        site.restore_and_start("restored", &[&id, "--no-get-wal", "--identity", key.identity()])?;
    assert_eq!(restored.value("SELECT count(*) FROM load")?, rows);
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

fn whatever_is_archived_decrypts(site: &Site, key: &Key) -> ScenarioResult {
    let into = site.walrecv.directory();
    for folder in fs::read_dir(site.walrecv.home().join("main/wals"))? {
        let folder = folder?.path();
        if !folder.is_dir() {
            continue;
        }
        for file in fs::read_dir(folder)? {
            let path = file?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(".age") {
                tools::decrypt(&path, &key.identity, into)?;
            } else {
                assert!(name == "index" || name.starts_with('.'), "{name}");
            }
        }
    }
    Ok(())
}
