//! The binary that is released: one file that needs only libc, not too large, and quick to start.

use std::process::Command;
use std::time::{Duration, Instant};

use walrecv_tests::{Context, Failure, Result, program};

use crate::deb;

/// The largest that it may be.
const LARGEST: u64 = 20 << 20;

/// The newest glibc that it may ask for, as it is stated in `docs/installation.md`.
const NEWEST_GLIBC: (u32, u32) = (2, 34);

/// What it may need of the machine: libc in its parts, and what comes with it.
const LIBRARIES: [&str; 4] = ["libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"];

/// The longest that it may take to print its help.
const START: Duration = Duration::from_millis(20);

/// How often it is started; the best start counts, because others have other reasons.
const STARTS: usize = 10;

pub(super) fn check() -> Result<()> {
    let binary = deb::release_binary()?;
    let about = || format!("cannot look at {}", binary.display());
    let size = std::fs::metadata(&binary).context(about)?.len();
    let headers = program::run(Command::new("objdump").arg("-p").arg(&binary))?;
    let needed = needed(&headers);
    let glibc = glibc(&headers).context(|| "objdump names no version of glibc".to_owned())?;
    let mut best = Duration::MAX;
    for _ in 0..STARTS {
        let begin = Instant::now();
        program::run(Command::new(&binary).arg("--help"))?;
        best = best.min(begin.elapsed());
    }
    println!(
        "{:.1} MiB, glibc {}.{}, needs {}, starts in {:.1} ms",
        size as f64 / f64::from(1 << 20),
        glibc.0,
        glibc.1,
        needed.join(" "),
        best.as_secs_f64() * 1e3
    );
    let mut problems = Vec::new();
    if size > LARGEST {
        problems.push(format!("it is larger than {LARGEST} bytes"));
    }
    if glibc > NEWEST_GLIBC {
        let (major, minor) = NEWEST_GLIBC;
        problems.push(format!("it needs a newer glibc than {major}.{minor}"));
    }
    let others: Vec<_> = needed.iter().filter(|name| !LIBRARIES.contains(name)).copied().collect();
    if !others.is_empty() {
        problems.push(format!("it needs more than libc: {}", others.join(" ")));
    }
    if best > START {
        problems.push(format!("it takes longer than {} ms to start", START.as_millis()));
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("the binary is not fit for a release: {}", problems.join("; "))))
}

/// The libraries that it loads, as `objdump -p` lists them.
fn needed(headers: &str) -> Vec<&str> {
    headers.lines().filter_map(|line| line.trim().strip_prefix("NEEDED")).map(str::trim).collect()
}

/// The newest version of glibc that any of its symbols asks for.
fn glibc(headers: &str) -> Option<(u32, u32)> {
    let versions = headers.split_whitespace().filter_map(|word| {
        let mut numbers = word.strip_prefix("GLIBC_")?.split('.');
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    });
    versions.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_objdump_lists_is_read() {
        let headers = "Dynamic Section:\n  NEEDED               libm.so.6\n  NEEDED  libc.so.6\n\
            Version References:\n  required from libc.so.6:\n    0x09691a75 0x00 12 GLIBC_2.2.5\n    \
            0x069691b4 0x00 11 GLIBC_2.34\n    0x09691974 0x00 10 GLIBC_2.9\n";
        assert_eq!(needed(headers), ["libm.so.6", "libc.so.6"]);
        assert_eq!(glibc(headers), Some((2, 34)));
    }
}
