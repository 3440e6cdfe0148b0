//! Load by `pgbench`, and what it says of it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use walrecv_tests::{Cluster, Context, Failure, Result, program, tools};

use super::super::figures::percentile;

/// Commits as clients see them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Commits {
    pub(super) per_second: f64,
    pub(super) mean_ms: f64,
    pub(super) p99_ms: f64,
}

/// `pgbench -i`.
pub(in crate::bench) fn initialise(cluster: &Cluster, scale: u64) -> Result<()> {
    program::run(pgbench(cluster)?.args(["-i", "-q", "-s", &scale.to_string(), "postgres"]))?;
    Ok(())
}

/// Some transactions whose commits nobody waits for.
pub(super) fn transactions(cluster: &Cluster, clients: u32, each: u64) -> Result<()> {
    let mut pgbench = pgbench(cluster)?;
    pgbench.env("PGOPTIONS", "-c synchronous_commit=off").args(["-n", "-c"]);
    pgbench.arg(clients.to_string()).args(["-t", &each.to_string(), "postgres"]);
    program::run(&mut pgbench)?;
    Ok(())
}

/// A load of so many commits a second, which waits for no receiver; how many there were.
pub(super) fn paced(cluster: &Cluster, rate: u32, seconds: u32) -> Result<f64> {
    let mut pgbench = pgbench(cluster)?;
    pgbench.args(["-n", "-N", "-c", "4", "-R", &rate.to_string(), "-T", &seconds.to_string()]);
    said(&program::run(pgbench.arg("postgres"))?, "tps = ")
}

/// Small commits as fast as they go. `alive` is asked all the while: commits that wait for a
/// receiver that is gone would wait for ever.
pub(super) fn commits(
    cluster: &Cluster,
    clients: u32,
    seconds: u32,
    mut alive: impl FnMut() -> Result<()>,
) -> Result<Commits> {
    let about = || "cannot run pgbench".to_owned();
    let directory = tempfile::tempdir().context(about)?;
    let mut pgbench = pgbench(cluster)?;
    pgbench.args(["-n", "-N", "-l", "-c", &clients.to_string(), "-j", "2"]);
    let output = fs::File::create(directory.path().join("output")).context(about)?;
    pgbench
        .args(["-T", &seconds.to_string(), "postgres"])
        .current_dir(directory.path())
        .stdout(output.try_clone().context(about)?)
        .stderr(output);
    let mut child = pgbench.spawn().context(about)?;
    let status = loop {
        if let Some(status) = child.try_wait().context(about)? {
            break status;
        }
        if let Err(failure) = alive() {
            let _ = child.kill();
            let _ = child.wait();
            return Err(failure);
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let output = fs::read_to_string(directory.path().join("output")).context(about)?;
    if !status.success() {
        return Err(Failure::new(format!("pgbench ended with {status}: {output}")));
    }
    let p99 = percentile(latencies(directory.path())?, 99);
    Ok(Commits {
        per_second: said(&output, "tps = ")?,
        mean_ms: said(&output, "latency average = ")?,
        p99_ms: p99.context(|| "pgbench has logged nothing".to_owned())?,
    })
}

fn pgbench(cluster: &Cluster) -> Result<Command> {
    let program = cluster.installation().program("pgbench");
    let program = program.context(|| "there is no pgbench".to_owned())?;
    Ok(tools::client(program, cluster))
}

/// The number that follows these words.
fn said(output: &str, words: &str) -> Result<f64> {
    let number = output.split_once(words).and_then(|(_, rest)| rest.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .context(|| format!("pgbench has not said `{words}`: {output}"))
}

/// The latencies in ms that lie in the logs in this directory.
fn latencies(directory: &Path) -> Result<Vec<f64>> {
    let about = || format!("cannot read {}", directory.display());
    let mut latencies = Vec::new();
    for entry in fs::read_dir(directory).context(about)? {
        let entry = entry.context(about)?;
        if entry.file_name().to_string_lossy().starts_with("pgbench_log.") {
            let log = fs::read_to_string(entry.path()).context(about)?;
            latencies.extend(log.lines().filter_map(latency));
        }
    }
    Ok(latencies)
}

/// The third field of a line, which is in microseconds, in ms.
fn latency(line: &str) -> Option<f64> {
    let microseconds: f64 = line.split(' ').nth(2)?.parse().ok()?;
    Some(microseconds / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pgbench_says_is_understood() {
        let output = "latency average = 0.881 ms\ninitial connection time = 1.9 ms\n\
                      tps = 1135.25 (without initial connection time)\n";
        assert_eq!(said(output, "tps = ").unwrap(), 1135.25);
        assert_eq!(said(output, "latency average = ").unwrap(), 0.881);
        assert!(said(output, "skipped = ").is_err());
        assert_eq!(latency("0 199 2241 0 1175850568 995598"), Some(2.241));
        assert_eq!(latency("0 5 skipped 0 1175850569 608"), None);
    }
}
