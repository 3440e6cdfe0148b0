//! What the figures were measured on.

use std::fs;
use std::path::Path;
use std::process::Command;

use walrecv_tests::{Cluster, Result, program};

/// One line: the day, the processors, the memory, the kernel, the file system, the server.
pub(super) fn describe(cluster: &Cluster, stores: &Path) -> Result<String> {
    let day = cluster.value("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD')")?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned());
    let memory = field("/proc/meminfo", "MemTotal").and_then(|kib| {
        let kib: f64 = kib.split_whitespace().next()?.parse().ok()?;
        Some(format!("{:.0} GiB", kib / f64::from(1 << 20)))
    });
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let file_system = program::run(Command::new("df").args(["--output=fstype"]).arg(stores));
    Ok(format!(
        "{day}; {processors} × {model}, {} of memory, Linux {}, stores on {}; PostgreSQL {}",
        memory.unwrap_or_else(|| "unknown".to_owned()),
        kernel.trim(),
        file_system.unwrap_or_default().lines().last().unwrap_or("an unknown file system"),
        cluster.installation().version,
    ))
}

/// What a file of lines `name : value` says under this name first.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let (_, value) = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(known, _)| known.trim() == name)?;
    Some(value.trim().to_owned())
}

/// Has as much memory used and freed as what comes next needs.
///
/// A virtual machine gives memory that was free for a while back to its host, and pays for every
/// page of it when it is used again: whoever comes first would pay for all that come next.
pub(super) fn use_memory(bytes: u64) {
    drop(std::hint::black_box(vec![1_u8; usize::try_from(bytes).unwrap_or_default()]));
}
