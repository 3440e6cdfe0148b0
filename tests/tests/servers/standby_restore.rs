//! Backups that become standbys, and servers whose configuration lies elsewhere.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::sql::Session;
use walrecv_tests::{Cluster, Context, Installation, Result, program};

use crate::site::{PASSWORD, ROLE, Site};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios
        .every_major("standby_restore_under_load", under_load)
        .per_major("standby_restore_without_its_primary", &[10, 11, 12, 15, 18], without_a_primary)
        .per_major("standby_restore_of_dropped_databases", &[10, 11, 12, 15, 18], dropped_databases)
        .per_major("standby_restore_with_configuration", &[11, 12, 15, 18], with_configuration)
}

/// A file with the role's password, for the server's user alone.
fn passfile(cluster: &Cluster) -> Result<PathBuf> {
    let path = cluster.base_directory().join("passfile");
    let about = || "cannot write a password file".to_owned();
    fs::write(&path, format!("*:*:*:{ROLE}:{PASSWORD}\n")).context(about)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).context(about)?;
    cluster.account().owns(&path)?;
    Ok(path)
}

/// A cluster whose backup server names a password, and a file of passwords.
fn site(installation: &Installation) -> Result<Site> {
    let site = Site::around(Cluster::start_new(installation)?)?;
    site.cluster.execute("CREATE TABLE marks (mark text)")?;
    site.walrecv.configure(&format!(
        "wal_readers = [\"{}\"]\n[servers.main]\nconninfo = \"{} passfile={} application_name=we\"\n\
         immediate_checkpoint = true\n",
        site.cluster.account().name,
        site.cluster.conninfo(ROLE, PASSWORD),
        passfile(&site.cluster)?.display(),
    ))?;
    Ok(site)
}

/// Restores a standby and starts it; it answers queries.
fn standby(site: &Site, name: &str, arguments: &[&str]) -> Result<Cluster> {
    let (destination, output) = site.restore(name, &[&["latest"], arguments].concat())?;
    let said = output.success()?.stdout;
    assert!(said.contains("Standby of"), "{said}");
    for name in ["postgresql.conf", "postgresql.auto.conf", "recovery.conf"] {
        let text = fs::read_to_string(destination.join(name)).unwrap_or_default();
        assert!(!text.contains(PASSWORD), "{name}");
    }
    let mut standby = Cluster::adopt(site.cluster.installation(), &destination)?;
    standby.start()?;
    Ok(standby)
}

fn insert(cluster: &Cluster, mark: &str) -> Result<()> {
    cluster.execute(&format!("INSERT INTO marks VALUES ('{mark}')"))
}

fn has(standby: &Cluster, mark: &str) -> Result<()> {
    standby.wait_for("a row on the standby", |standby| {
        Ok(standby.value(&format!("SELECT count(*) FROM marks WHERE mark = '{mark}'"))? == "1")
    })
}

/// Waits until a standby streams from this cluster.
fn streams(primary: &Cluster) -> Result<()> {
    primary.wait_for("the standby to stream", |primary| {
        let count = "SELECT count(*) FROM pg_stat_replication \
                     WHERE state = 'streaming' AND application_name = 'walreceiver'";
        Ok(primary.value(count)? == "1")
    })
}

fn under_load(installation: &Installation) -> ScenarioResult {
    let site = site(installation)?;
    let primary = &site.cluster;
    primary.execute("SELECT pg_create_physical_replication_slot('standby')")?;
    let daemon = site.run()?;
    site.backup()?;
    let over = AtomicBool::new(false);
    let mut standby = std::thread::scope(|scope| {
        let load = scope.spawn(|| -> Result<()> {
            let mut session = primary.session()?;
            while !over.load(Ordering::Relaxed) {
                session.query(
                    "INSERT INTO marks SELECT md5(g::text) FROM generate_series(1, 500) g",
                )?;
            }
            Ok(())
        });
        let standby = standby(&site, "standby", &["--standby-mode", "--primary-slot", "standby"])
            .and_then(|standby| streams(primary).map(|()| standby));
        over.store(true, Ordering::Relaxed);
        load.join().expect("the load ends").and(standby)
    })?;
    insert(primary, "newer")?;
    has(&standby, "newer")?;
    let count = "SELECT count(*) FROM marks";
    assert_eq!(standby.value(count)?, primary.value(count)?);
    assert_eq!(standby.value("SELECT pg_is_in_recovery()")?, "t");
    let slot = "SELECT active FROM pg_replication_slots WHERE slot_name = 'standby'";
    assert_eq!(primary.value(slot)?, "t");

    // While the backup server is away, the standby needs it for nothing.
    assert_eq!(daemon.stop()?, 0);
    standby.restart()?;
    insert(primary, "alone")?;
    has(&standby, "alone")?;
    Ok(())
}

/// What the backup server received last is not lost with the primary, and a standby that cannot
/// stream keeps up with what is received.
fn without_a_primary(installation: &Installation) -> ScenarioResult {
    let mut site = site(installation)?;
    let daemon = site.run()?;
    site.backup()?;
    let unreachable = ["--standby-mode", "--primary-conninfo", "host=127.0.0.1 port=1"];
    let follower = standby(&site, "follower", &unreachable)?;
    for mark in ["first", "second"] {
        insert(&site.cluster, mark)?;
        // No segment ends meanwhile.
        has(&follower, mark)?;
    }
    insert(&site.cluster, "last")?;
    site.settle()?;
    site.cluster.kill9()?;
    let standby = standby(&site, "standby", &["--standby-mode"])?;
    has(&standby, "last")?;
    standby.promote()?;
    insert(&standby, "new")?;
    assert_eq!(standby.value("SELECT count(*) FROM marks")?, "4");
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

fn dropped_databases(installation: &Installation) -> ScenarioResult {
    let mut site = site(installation)?;
    let in_database = |cluster: &Cluster, database: &str, sql: &str| -> Result<String> {
        let conninfo = cluster.superuser_conninfo().replace("dbname=postgres", "");
        Session::connect(&format!("{conninfo} dbname={database}"))?.value(sql)
    };
    let daemon = site.run()?;
    for database in ["orders", "people"] {
        site.cluster.execute(&format!("CREATE DATABASE {database}"))?;
    }
    site.backup()?;
    for database in ["orders", "people"] {
        let conninfo = site.cluster.superuser_conninfo().replace("dbname=postgres", "");
        let mut session = Session::connect(&format!("{conninfo} dbname={database}"))?;
        session.query("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")?;
    }
    let before = site.cluster.value("SELECT pg_current_wal_insert_lsn()")?;
    for database in ["orders", "people"] {
        site.cluster.execute(&format!("DROP DATABASE {database}"))?;
    }
    site.settle()?;
    // The first record of a DROP DATABASE makes the database one that nobody can connect to.
    let target = ["--target-lsn", &before, "--exclusive", "--target-action", "promote"];
    let target = [&["latest"], &target[..]].concat();
    let restored = site.restore_and_start("restored", &target)?;
    let count = "SELECT count(*) FROM kept";
    for database in ["orders", "people"] {
        assert_eq!(in_database(&restored, database, count)?, "1000");
    }

    // What replaces the old one gets its standby anew.
    assert_eq!(daemon.stop()?, 0);
    let mut original = site.replace_cluster(restored)?;
    original.stop()?;
    let daemon = site.run()?;
    site.backup()?;
    let primary = format!(
        "postgresql://{ROLE}@127.0.0.1:{}/?passfile={}",
        site.cluster.port(),
        passfile(&site.cluster)?.display()
    );
    let options = ["--standby-mode", "--no-get-wal", "--primary-conninfo", &primary];
    let standby = standby(&site, "standby", &options)?;
    streams(&site.cluster)?;
    insert(&site.cluster, "after")?;
    has(&standby, "after")?;
    for database in ["orders", "people"] {
        assert_eq!(in_database(&standby, database, count)?, "1000");
    }
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// As Debian's packages have it: all configuration in a directory of its own.
fn with_configuration(installation: &Installation) -> ScenarioResult {
    let mut cluster = Cluster::options(installation).create()?;
    let etc = cluster.new_directory("etc")?;
    for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        fs::rename(cluster.data_directory().join(name), etc.join(name))?;
    }
    let main = etc.join("postgresql.conf");
    let trace = cluster.base_directory().join("archived");
    let text = fs::read_to_string(&main)?
        + &format!(
            "data_directory = '{}'\nhba_file = '{etc}/pg_hba.conf'\n\
             ident_file = '{etc}/pg_ident.conf'\nexternal_pid_file = '{etc}/pid'\n\
             include_dir = 'conf.d'\ninclude '{etc}/more.conf'\ninclude_dir 'empty.d'\n",
            cluster.data_directory().display(),
            etc = etc.display(),
        );
    fs::write(&main, text)?;
    for empty in ["conf.d", "empty.d"] {
        fs::create_dir(etc.join(empty))?;
    }
    let archive = format!("archive_mode = on\narchive_command = 'touch {}'\n", trace.display());
    fs::write(etc.join("conf.d/archive.conf"), archive)?;
    fs::write(etc.join("more.conf"), "work_mem = '7MB'\n")?;
    program::run(Command::new("chown").arg("-R").arg(&cluster.account().name).arg(&etc))?;
    cluster.set("config_file", &main.display().to_string());
    cluster.start()?;
    let site = Site::around(cluster)?;
    for grant in [
        "GRANT pg_read_all_settings, pg_read_server_files TO walrecv",
        "GRANT EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint) TO walrecv",
        "GRANT EXECUTE ON FUNCTION pg_show_all_file_settings() TO walrecv",
        "GRANT SELECT ON pg_file_settings TO walrecv",
    ] {
        site.cluster.execute(grant)?;
    }
    let daemon = site.run()?;
    site.backup()?;
    site.settle()?;

    let (destination, output) = site.restore("copy", &["latest"])?;
    let said = output.success()?.stdout;
    let beside = PathBuf::from(format!("{}.config", destination.display()));
    let place = |path: &Path| -> Result<PathBuf> {
        Ok(beside.join(path.strip_prefix("/").context(|| "a relative path".to_owned())?))
    };
    let restored_main = place(&main)?;
    let start = format!("-o '-c config_file={}' start", restored_main.display());
    assert!(said.contains(&start), "{said}");
    assert!(said.contains("empty.d"), "{said}");
    // It shall start from its own files alone.
    let _ = fs::remove_file(&trace);
    let mut restored = Cluster::adopt(installation, &destination)?;
    restored.set("config_file", &restored_main.display().to_string());
    restored.start()?;
    restored.wait_until_promoted()?;
    for (setting, expected) in [
        ("data_directory", destination.canonicalize()?),
        ("hba_file", place(&etc.join("pg_hba.conf"))?),
        ("ident_file", place(&etc.join("pg_ident.conf"))?),
        ("work_mem", "7MB".into()),
        ("external_pid_file", "".into()),
    ] {
        let value = restored.value(&format!("SHOW {setting}"))?;
        assert_eq!(PathBuf::from(value), expected, "{setting}");
    }
    // Even archiving again does not reach the archive of the original.
    restored.set("archive_mode", "on");
    restored.restart()?;
    restored.execute("SELECT pg_switch_wal()")?;
    std::thread::sleep(Duration::from_secs(1));
    assert!(!trace.exists());
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}
