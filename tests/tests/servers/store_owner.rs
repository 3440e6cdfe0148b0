//! Root's commands on the store of another user, as with `sudo walrecv-server …`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use walrecv_tests::Installation;
use walrecv_tests::run::{ScenarioResult, Scenarios};

use crate::site::Site;

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios.per_major("root_leaves_nothing_of_its_own_in_a_store", &[18], root)
}

fn root(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    let account = site.cluster.account();
    let (home, configuration) = (site.walrecv.home(), site.walrecv.configuration());
    fs::create_dir(&home)?;
    for path in [&home, &configuration, &site.walrecv.directory().to_owned()] {
        account.owns(path)?;
    }
    let owner = fs::metadata(&home)?.uid();
    let is_root = rustix::process::geteuid().is_root();
    assert_ne!((is_root, owner), (true, 0), "nobody else owns the store");

    site.cluster.execute("GRANT EXECUTE ON FUNCTION pg_switch_wal() TO walrecv")?;
    let daemon = site.run()?;
    let id = site.backup()?;
    for command in [
        &["keep", "--target", "full", "main", &id][..],
        &["keep", "--release", "main", &id],
        &["check-backup", "main", &id],
        &["verify-backup", "main", &id],
        &["list-backups", "main"],
        &["cron"],
        &["switch-wal", "--archive", "main"],
    ] {
        site.walrecv.run(command)?.success()?;
    }
    daemon.stop()?;
    for command in [&["archive-wal", "main"][..], &["delete", "main", &id]] {
        site.walrecv.run(command)?.success()?;
    }
    let foreign: Vec<PathBuf> = below(&home)?
        .into_iter()
        .filter(|path| fs::symlink_metadata(path).is_ok_and(|found| found.uid() != owner))
        .collect();
    assert!(foreign.is_empty(), "not of the store's owner: {foreign:?}");

    if is_root {
        // One who cannot read the configuration is told so, and not by a riddle.
        std::os::unix::fs::chown(&configuration, Some(0), Some(0))?;
        let refused = site.walrecv.run(&["list-backups", "main"])?.code(2)?;
        assert!(refused.stderr.contains("cannot read the configuration"), "{}", refused.stderr);
    }
    Ok(())
}

fn below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if fs::symlink_metadata(&path)?.is_dir() {
            found.extend(below(&path)?);
        }
        found.push(path);
    }
    Ok(found)
}
