//! A new cluster takes over the name of a server, and what is stored of the old one stays restorable.

use std::fs;
use std::path::Path;

use walrecv_tests::run::{ScenarioResult, Scenarios};
use walrecv_tests::{Cluster, Installation};

use crate::site::{PASSWORD, ROLE, Site};

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios.per_major("adopt", &[15, 18], adopt)
}

fn adopt(installation: &Installation) -> ScenarioResult {
    let mut site = Site::new(installation)?;
    let daemon = site.run()?;
    site.cluster.execute("CREATE TABLE old AS SELECT 1 AS n")?;
    let id = site.backup()?;
    site.restore("reading", &["latest"])?.1.success()?;
    let adopt = |site: &Site, yes: &[&str]| site.walrecv.run(&[&["adopt", "main"], yes].concat());
    let same = adopt(&site, &["--yes"])?.code(3)?;
    assert!(same.stderr.contains("nothing to adopt"), "{}", same.stderr);

    let new = Cluster::options(installation).start()?;
    new.create_role(ROLE, PASSWORD, "REPLICATION")?;
    let old = site.replace_cluster(new)?;
    // The daemon still receives from the old one.
    let held = adopt(&site, &["--yes"])?.code(1)?;
    assert!(held.stderr.contains("stop it first"), "{}", held.stderr);
    assert_eq!(daemon.stop()?, 0);
    // A server that was restored may still need its WAL.
    let needed = adopt(&site, &["--yes"])?.code(3)?;
    assert!(needed.stderr.contains("still needs what is stored"), "{}", needed.stderr);
    let lease = fs::read_dir(site.walrecv.home().join("main/state/leases"))?.next().unwrap()?;
    let lease = lease.path().file_stem().unwrap().to_str().unwrap().to_owned();
    let adopt = |site: &Site, yes: &[&str]| adopt(site, &[&["--ignore-leases"][..], yes].concat());
    let unsaid = adopt(&site, &[])?.code(3)?;
    assert!(unsaid.stderr.contains("`--yes` does it"), "{}", unsaid.stderr);
    assert_eq!(site.last_backup()?, id);
    site.walrecv.run(&["backup", "main"])?.code(3)?;

    let adopted = site
        .walrecv
        .run(&["-f", "json2", "adopt", "main", "--yes", "--ignore-leases"])?
        .success()?
        .json()?;
    let previous = &adopted["results"][0]["previous"];
    let (home, name) = (previous["home"].as_str().unwrap(), previous["server"].as_str().unwrap());
    let listed = site.walrecv.run(&["list-backups", "main", "--minimal"])?.success()?.stdout;
    assert_eq!(listed, "");
    let listed = site.walrecv.run(&["--home", home, "list-backups", name, "--minimal"])?;
    assert_eq!(listed.success()?.stdout.trim(), id);

    // Who was restored before reads on where its lease went: the new cluster has another segment by
    // that name, or none.
    let words = ["--home", home, "list-files", name, "latest", "--target", "wal"];
    let listed = site.walrecv.run(&words)?.success()?.stdout;
    let segment = Path::new(listed.lines().next().unwrap()).file_name().unwrap();
    let segment = segment.to_str().unwrap()[..24].to_owned();
    let into = site.walrecv.home().join("segment").display().to_string();
    let ask = ["get-wal", "--partial", "main", &segment, &into];
    let with_lease = [&ask[..2], &["--lease", &lease], &ask[2..]].concat();
    site.walrecv.run(&with_lease)?.success()?;
    fs::remove_file(&into)?;
    site.walrecv.run(&ask)?;
    assert!(!Path::new(&into).exists());

    // The new one is backed up, and the old one restored.
    let daemon = site.run()?;
    site.cluster.execute("CREATE TABLE new AS SELECT 2 AS n")?;
    site.backup()?;
    let restored = site.restore_and_start("new", &["latest"])?;
    assert_eq!(restored.value("SELECT n FROM new")?, "2");
    let destination = old.base_directory().join("old");
    let text = destination.display().to_string();
    let mut words = vec!["--home", home, "restore", name, "latest", &text, "--no-get-wal"];
    let owner = old.account().name.clone();
    if rustix::process::geteuid().is_root() {
        words.extend(["--owner", &owner]);
    }
    site.walrecv.run(&words)?.success()?;
    let mut restored = Cluster::adopt(old.installation(), &destination)?;
    restored.start()?;
    restored.wait_until_promoted()?;
    assert_eq!(restored.value("SELECT n FROM old")?, "1");
    site.walrecv.run(&["cron"])?.success()?;
    assert_eq!(daemon.stop()?, 0);
    Ok(())
}
