//! What is wrong is said in one sentence, with the server's words, a hint and the right exit code;
//! and nothing changes on disk.

use std::collections::BTreeMap;
use std::path::Path;

use pgwire_stream::{Config, Lsn, ReplicationClient, StartReplication};
use walrecv_tests::port::free_port;
use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::walrecv::{Output, Walrecv};
use walrecv_tests::{Cluster, Installation};

use crate::runtime::block_on;
use crate::site::{PASSWORD, ROLE, Site};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .per_major("bad_connection", &[10, 14, 18], bad_connection)
        .per_major("bad_slot", &[10, 14, 18], bad_slot)
        .per_major("bad_cluster", &[10, 18], bad_cluster)
        .per_major("bad_restore", &[10, 18], bad_restore)
        .once("bad_configuration", bad_configuration)
}

/// Demands an exit code, the words that matter, and a hint.
fn refused(output: &Output, code: i32, words: &[&str]) {
    let said = &output.stderr;
    assert_eq!(output.code, code, "{said}");
    assert!(output.stdout.trim().is_empty(), "something is on stdout: {}", output.stdout);
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in: {said}");
    }
    assert!(said.contains("hint: "), "no hint in: {said}");
    assert!(!said.contains(PASSWORD), "a password in: {said}");
    assert!(!said.contains("panicked"), "{said}");
    let errors = said.lines().filter(|line| line.starts_with("error")).count();
    assert_eq!(errors, 1, "one sentence is enough: {said}");
}

/// Every file and directory beneath a path, with its content.
fn tree(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![path.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            // Locks say who holds them.
            if path.ends_with("locks") {
                continue;
            }
            let content = if path.is_dir() {
                todo.push(path.clone());
                Vec::new()
            } else {
                std::fs::read(&path).unwrap_or_default()
            };
            found.insert(path.display().to_string(), content);
        }
    }
    found
}

/// A backup server for `conninfo`, with further lines for the server's section.
fn walrecv(conninfo: &str, lines: &str) -> walrecv_tests::Result<Walrecv> {
    Walrecv::new(&format!("[servers.main]\nconninfo = \"{conninfo}\"\n{lines}\n"))
}

/// Both commands that need the server refuse, and leave nothing behind.
fn both_refuse(conninfo: &str, words: &[&str]) -> ScenarioResult {
    let walrecv = walrecv(conninfo, "")?;
    for command in [vec!["backup", "main"], vec!["receive-wal", "main", "--endpos", "0/1"]] {
        let before = tree(&walrecv.home());
        refused(&walrecv.run(&command)?, 1, words);
        assert_eq!(tree(&walrecv.home()), before, "{command:?} left something behind");
    }
    Ok(())
}

fn bad_connection(installation: &Installation) -> ScenarioResult {
    let mut options = Cluster::options(installation)
        .hba("host replication unlisted 127.0.0.1/32 reject")
        .hba("host replication sealed 127.0.0.1/32 scram-sha-256");
    if installation.has_tls() {
        options = options.tls();
    }
    let cluster = options.start()?;
    cluster.create_role(ROLE, PASSWORD, "REPLICATION")?;
    cluster.create_role("unlisted", PASSWORD, "REPLICATION")?;
    cluster.create_role("unprivileged", PASSWORD, "")?;

    both_refuse(&cluster.conninfo(ROLE, "wrong"), &["password authentication failed"])?;
    both_refuse(&cluster.conninfo("unlisted", PASSWORD), &["pg_hba.conf", "the server says"])?;
    both_refuse(&cluster.conninfo("unprivileged", PASSWORD), &["ALTER ROLE", "REPLICATION"])?;
    both_refuse("host=no-such-host.invalid user=x", &["no-such-host.invalid"])?;
    let closed = format!("host=127.0.0.1 port={} user=x", free_port()?);
    both_refuse(&closed, &["127.0.0.1", "refused"])?;
    if installation.has_tls() {
        let stranger = Cluster::options(installation).tls().create()?;
        let at = |root: &Cluster, name: &str| {
            format!(
                "host={name} hostaddr=127.0.0.1 port={} user={ROLE} password={PASSWORD} \
                 sslmode=verify-full sslrootcert={}",
                cluster.port(),
                root.ca_certificate().display()
            )
        };
        both_refuse(&at(&stranger, "localhost"), &["certificate"])?;
        both_refuse(&at(&cluster, "elsewhere"), &["certificate", "elsewhere"])?;
    }
    let plain = Cluster::start_new(installation)?;
    let demanding =
        format!("host=127.0.0.1 port={} user={ROLE} password=x sslmode=require", plain.port());
    both_refuse(&demanding, &["TLS", "sslmode=require"])?;
    Ok(())
}

fn bad_slot(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    let conninfo = site.cluster.conninfo(ROLE, PASSWORD);

    let manual = walrecv(&conninfo, "create_slot = \"manual\"\nslot_name = \"absent\"")?;
    let output = manual.run(&["receive-wal", "main", "--endpos", "0/1"])?;
    refused(&output, 1, &["absent", "slot", "--create-slot"]);

    // Somebody else uses it.
    site.cluster.execute("SELECT pg_create_physical_replication_slot('busy', true)")?;
    let config: Config = conninfo.parse()?;
    block_on(async {
        let mut client = ReplicationClient::connect(&config).await?;
        let mut start = StartReplication::new(client.identify_system().await?.flushed_to);
        start.slot = Some("busy".parse()?);
        let _stream = client.start_replication(start).await?;
        let busy = walrecv(&conninfo, "slot_name = \"busy\"")?;
        let output = busy.run(&["receive-wal", "main", "--endpos", "FFFF/0"])?;
        refused(&output, 1, &["busy", "is active"]);
        let home = tree(&busy.home());
        assert!(!home.keys().any(|path| path.contains(".partial")), "{:?}", home.keys());
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;

    // The slot is created, kept if it is there, and dropped.
    let created = walrecv(&conninfo, "slot_name = \"made\"")?;
    created.run(&["receive-wal", "main", "--create-slot"])?.success()?;
    let output = created.run(&["receive-wal", "main", "--create-slot"])?;
    refused(&output, 1, &["made", "already exists"]);
    created.run(&["receive-wal", "main", "--create-slot", "--if-not-exists"])?.success()?;
    created.run(&["receive-wal", "main", "--drop-slot"])?.success()?;
    let count = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'made'";
    assert_eq!(site.cluster.value(count)?, "0");
    Ok(())
}

fn bad_cluster(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    let daemon = site.run()?;
    site.backup()?;
    assert_eq!(daemon.stop()?, 0);

    // Another cluster answers at the configured address.
    let other = Cluster::options(installation).start()?;
    other.create_role(ROLE, PASSWORD, "REPLICATION")?;
    site.walrecv.configure(&format!(
        "[servers.main]\nconninfo = \"{}\"\n",
        other.conninfo(ROLE, PASSWORD)
    ))?;
    let before = tree(&site.walrecv.home());
    for command in [vec!["backup", "main"], vec!["receive-wal", "main", "--endpos", "0/1"]] {
        let output = site.walrecv.run(&command)?;
        refused(&output, 3, &["system identifier"]);
        assert_eq!(tree(&site.walrecv.home()), before, "{command:?} changed something");
    }
    Ok(())
}

fn bad_restore(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    site.cluster.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")?;
    let daemon = site.run()?;
    let id = site.backup()?;
    let end = site.settle()?;

    let refuse = |name: &str, code: i32, arguments: &[&str], words: &[&str]| -> ScenarioResult {
        let before = tree(&site.walrecv.home().join("main/base"));
        let (destination, output) = site.restore(name, arguments)?;
        refused(&output, code, words);
        assert!(!destination.exists(), "{name} made its destination");
        assert_eq!(tree(&site.walrecv.home().join("main/base")), before);
        Ok(())
    };
    refuse("unknown", 1, &["20010101T000000"], &["20010101T000000"])?;
    let far = Lsn::from_u64(end.as_u64() + (1 << 32)).to_string();
    refuse("far", 3, &[&id, "--target-lsn", &far], &[&far])?;
    refuse("early", 3, &[&id, "--target-lsn", "0/1"], &["0/1"])?;
    refuse("before", 3, &[&id, "--target-time", "2001-01-01 00:00:00+00"], &["2001"])?;
    refuse("timeline", 3, &[&id, "--target-tli", "7"], &["7"])?;

    // A destination with something in it.
    let full = site.cluster.new_directory("full")?;
    std::fs::write(full.join("precious"), "x")?;
    let (destination, output) = site.restore("full", &[&id])?;
    refused(&output, 3, &["not empty"]);
    assert_eq!(tree(&destination).len(), 1);

    // WAL that the backup needs is gone.
    assert_eq!(daemon.stop()?, 0);
    let server = site.walrecv.home().join("main");
    std::fs::remove_dir_all(server.join("wals"))?;
    std::fs::remove_dir_all(server.join("streaming"))?;
    refuse("gap", 3, &[&id], &["WAL"])?;
    let shown = site.shown(&id)?.to_string();
    assert!(shown.contains("BROKEN"), "{shown}");
    Ok(())
}

fn bad_configuration() -> ScenarioResult {
    let typo = walrecv("host=localhost user=x", "slot_nam = \"x\"")?;
    refused(&typo.run(&["check", "main"])?, 2, &["slot_nam", "slot_name", "walrecv-server.toml:"]);

    let sslmode = walrecv("host=localhost user=x sslmod=verify-full", "")?;
    refused(&sslmode.run(&["backup", "main"])?, 2, &["sslmod", "sslmode"]);

    let fine = walrecv("host=localhost user=x", "")?;
    refused(&fine.run(&["backup", "unknown"])?, 2, &["unknown"]);

    // A password that everybody on the host could see.
    let visible =
        fine.run(&["--conninfo", "host=localhost password=backup-secret", "backup", "main"])?;
    refused(&visible, 2, &["password", "ps"]);

    // A password file that others may read, and one that is not there.
    let directory = fine.directory().to_owned();
    let passfile = directory.join("passfile");
    std::fs::write(&passfile, "*:*:*:*:backup-secret\n")?;
    set_mode(&passfile, 0o644)?;
    let open = walrecv(&format!("host=localhost user=x passfile={}", passfile.display()), "")?;
    refused(&open.run(&["backup", "main"])?, 2, &["passfile", "0600"]);
    let absent = walrecv("host=localhost user=x passfile=/nonexistent/passfile", "")?;
    refused(&absent.run(&["backup", "main"])?, 2, &["/nonexistent/passfile"]);
    for walrecv in [&typo, &sslmode, &fine, &open, &absent] {
        assert!(tree(&walrecv.home()).is_empty(), "something was made");
    }

    // `get-wal` never says "end of archive" for a mistake.
    let wal = directory.join("wal").display().to_string();
    for arguments in [
        vec!["get-wal", "main"],
        vec!["get-wal", "main", "nonsense", &wal],
        vec!["get-wal", "main", "000000010000000000000001", &wal, "--no-such-option"],
        vec!["get-wal", "elsewhere", "000000010000000000000001", &wal],
        vec!["get-wal", "main", "000000010000000000000001", &wal],
    ] {
        for walrecv in [&fine, &typo] {
            let output = walrecv.run(&arguments)?;
            assert!((200..=255).contains(&output.code), "{arguments:?}: {}", output.code);
        }
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}
