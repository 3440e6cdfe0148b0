//! Clusters of very many files: memory does not grow with them.

use std::fs;
use std::time::Duration;

use walrecv_tests::run::{ScenarioResult, Scenarios, rounds};
use walrecv_tests::{Installation, Result};

use crate::site::Site;

pub(crate) fn register(scenarios: Scenarios) -> Scenarios {
    scenarios.per_major("many_files", &[10, 18], many_files)
}

/// What a backup, its verification and its restore may take at most, in KiB.
const LIMIT: u64 = 64 << 10;

/// By how much they may take more for many files than for few, in KiB: as much as may be under way
/// in a large archive.
const MORE: u64 = 24 << 10;

fn many_files(installation: &Installation) -> ScenarioResult {
    let site = Site::new(installation)?;
    let _daemon = site.run()?;
    let few = peaks(&site, "few")?;
    // Whatever lies in a database's directory is backed up.
    let files = rounds("WALRECV_TEST_FILES", 50_000);
    let directory = site.cluster.data_directory().join("base/1");
    for number in 0..files {
        fs::write(directory.join((1_000_000 + number).to_string()), b"little")?;
    }
    let many = peaks(&site, "many")?;
    let restored = fs::read_dir(site.cluster.base_directory().join("many/base/1"))?;
    assert!(restored.count() > files);
    for ((what, few), (_, many)) in few.into_iter().zip(many) {
        assert!(
            many < LIMIT && many < few + MORE,
            "{what}: {few} KiB, {many} KiB for {files} files"
        );
    }
    Ok(())
}

/// How much memory a backup took at most, its verification, and its restore.
fn peaks(site: &Site, name: &str) -> Result<Vec<(&'static str, u64)>> {
    let backup = peak(site, &["-q", "backup", "main", "--wait", "--wait-timeout", "60"])?;
    let verification = peak(site, &["-q", "verify-backup", "main", "latest"])?;
    let destination = site.cluster.base_directory().join(name).display().to_string();
    let owner = site.cluster.account().name.clone();
    let mut restore = vec!["-q", "restore", "main", "latest", &destination, "--target-immediate"];
    if rustix::process::geteuid().is_root() {
        restore.extend(["--owner", &owner]);
    }
    let restore = peak(site, &restore)?;
    Ok(vec![("backup", backup), ("verify-backup", verification), ("restore", restore)])
}

/// Runs the program; the most memory that was resident, in KiB.
fn peak(site: &Site, arguments: &[&str]) -> Result<u64> {
    let mut program = site.walrecv.spawn(arguments)?;
    let status = format!("/proc/{}/status", program.id());
    let mut peak = 0;
    while program.is_running() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(program.wait(Duration::from_secs(1))?, 0, "{arguments:?}: {}", program.log());
    Ok(peak)
}
