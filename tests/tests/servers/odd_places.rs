//! Names that shells, configuration files and archives could stumble over, and settings of the
//! origin that could mislead a recovery.

use std::fs;
use std::path::PathBuf;

use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::{Cluster, Installation};

use crate::site::Site;

/// What a shell, `postgresql.conf` and `restore_command` each take for their own.
const ODD: &str = "o'dd \"100%f\" $HOME `x` \\ é;";

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios.per_major("odd_places", &[10, 13, 14, 15, 16, 18], odd_places).per_major(
        "misleading_settings",
        &[10, 12, 15, 18],
        misleading_settings,
    )
}

fn odd_places(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    let configuration = fs::read_to_string(site.walrecv.configuration())?;
    let home = site.walrecv.directory().join(ODD);
    let rest = configuration.split_once('\n').map_or("", |(_, rest)| rest);
    fs::write(site.walrecv.configuration(), format!("home = '''{}'''\n{rest}", home.display()))?;

    let mut locations = Vec::new();
    // Servers before 14 tell such a location in another form.
    let third = if installation.major >= 14 { "line\nend \\" } else { "$HOME" };
    for (number, name) in
        ["with space", "back\\slash", third, "é:/x \"%f\""].into_iter().enumerate()
    {
        let location = if name.contains('/') {
            fs::create_dir(site.cluster.base_directory().join("é:"))?;
            make_reachable(&site.cluster, "é:")?;
            site.cluster.new_directory(name)?
        } else {
            site.cluster.new_directory(name)?
        };
        site.cluster.execute(&format!(
            "CREATE TABLESPACE \"odd {number}\" LOCATION '{}'",
            location.display()
        ))?;
        site.cluster.execute(&format!(
            "CREATE TABLE t{number} TABLESPACE \"odd {number}\" AS SELECT generate_series(1, 500) AS n"
        ))?;
        locations.push(location);
    }
    if installation.major >= 16 {
        let mut session = site.cluster.session()?;
        session.query("SET allow_in_place_tablespaces = on")?;
        session.query("CREATE TABLESPACE inside LOCATION ''")?;
        session.query(
            "CREATE TABLE t_inside TABLESPACE inside AS SELECT generate_series(1, 700) AS n",
        )?;
    }
    site.cluster.execute("CREATE DATABASE \"nothing in it\"")?;
    site.cluster
        .execute("CREATE UNLOGGED TABLE forgotten AS SELECT generate_series(1, 100) AS n")?;

    let daemon = site.run()?;
    let id = site.backup()?;
    site.cluster.execute("INSERT INTO t0 SELECT generate_series(501, 600)")?;
    site.settle()?;
    let mut site = site;
    site.cluster.kill9()?;
    site.cluster.remove_data()?;
    for location in &locations {
        fs::remove_dir_all(location)?;
    }
    // Two go elsewhere, by their locations; the others back to where they were.
    let elsewhere = site.cluster.new_directory("else where:\\ 'x' \n")?;
    let mapped = format!("{}:{}", locations[2].display(), elsewhere.display());
    let moved = site.cluster.new_directory("moved")?;
    let also = format!("{}:{}", locations[3].display(), moved.display());
    let arguments = [id.as_str(), "--tablespace", &mapped, "--tablespace", &also];
    let restored = site.restore_and_start(&format!("restored {ODD}"), &arguments)?;
    for (number, count) in [(0, "600"), (1, "500"), (2, "500"), (3, "500")] {
        assert_eq!(restored.value(&format!("SELECT count(*) FROM t{number}"))?, count);
    }
    if installation.major >= 16 {
        assert_eq!(restored.value("SELECT count(*) FROM t_inside")?, "700");
    }
    assert_eq!(restored.value("SELECT count(*) FROM forgotten")?, "0");
    assert!(fs::read_dir(&moved)?.next().is_some());
    assert!(!locations[3].exists());
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}

/// Gives a directory of ours to the server's account.
fn make_reachable(cluster: &Cluster, name: &str) -> walrecv_tests::Result<()> {
    let path: PathBuf = cluster.base_directory().join(name);
    cluster.account().owns(&path)
}

fn misleading_settings(installation: &Installation) -> ScenarioResult {
    let mut site = Site::new(installation)?;
    let trace = site.cluster.base_directory().join("end_command_ran");
    let conf = site.cluster.data_directory().join("postgresql.conf");
    let mut text = fs::read_to_string(&conf)?;
    text.push_str("\narchive_mode = always\nsynchronous_standby_names = 'nobody'\nsynchronous_commit = local\n");
    if installation.major >= 12 {
        text.push_str(&format!(
            "recovery_target_name = 'never'\nrecovery_target_action = 'shutdown'\n\
             recovery_target_timeline = '1'\nrecovery_min_apply_delay = '1h'\n\
             recovery_target_inclusive = off\nrestore_command = 'false'\n\
             recovery_end_command = 'touch {0}'\narchive_cleanup_command = 'touch {0}'\n\
             primary_conninfo = 'host=192.0.2.1'\nprimary_slot_name = 'x'\n",
            trace.display()
        ));
    }
    fs::write(&conf, text)?;
    site.cluster.restart()?;
    if installation.major >= 12 {
        site.cluster.execute("ALTER SYSTEM SET recovery_target_name = 'neither'")?;
        site.cluster.execute("ALTER SYSTEM SET primary_conninfo = 'host=192.0.2.2'")?;
    }
    site.cluster.execute("CREATE TABLE marks AS SELECT 1 AS n")?;
    let daemon = site.run()?;
    let id = site.backup()?;
    site.cluster.execute("INSERT INTO marks VALUES (2)")?;
    let xid = site.cluster.value(
        "INSERT INTO marks VALUES (3) RETURNING txid_current() % (2::bigint ^ 32)::bigint",
    )?;
    site.cluster.execute("INSERT INTO marks VALUES (4)")?;
    site.settle()?;

    let count = "SELECT count(*) FROM marks";
    let promote = ["--target-action", "promote"];
    let to_xid = [&[id.as_str(), "--target-xid", &xid][..], &promote[..]].concat();
    let restored = site.restore_and_start("to-xid", &to_xid)?;
    assert_eq!(restored.value(count)?, "3");
    drop(restored);
    let restored = site.restore_and_start("to-the-end", &[&id])?;
    assert_eq!(restored.value(count)?, "4");
    assert!(!trace.exists());
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}
