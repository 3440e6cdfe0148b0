//! What is measured, and on which server.

use std::path::{Path, PathBuf};

use walrecv_tests::installation::{self, Source};
use walrecv_tests::{Context, Failure, Installation, Result};

use crate::{paths, tools};

/// The product, optimised as it is released, unless another program is to be measured.
pub(super) fn program(other: Option<&Path>) -> Result<PathBuf> {
    if let Some(program) = other {
        let about = || format!("cannot use {}", program.display());
        return std::fs::canonicalize(program).context(about);
    }
    tools::succeed(paths::cargo().args(["build", "--release", "--package", "walrecv-server"]))?;
    Ok(paths::workspace().join("target/release/walrecv-server"))
}

/// A server that comes with these programs, which measure it or are measured.
pub(super) fn installation(
    major: Option<u32>,
    oldest: u32,
    programs: &[&str],
) -> Result<Installation> {
    let complete = installation::all().iter().filter(|found| {
        found.major >= oldest
            && major.is_none_or(|major| major == found.major)
            && programs.iter().all(|name| found.program(name).is_some())
    });
    let best = complete.max_by_key(|found| (found.source == Source::System, found.major));
    best.cloned().ok_or_else(|| {
        Failure::new(format!(
            "there is no suitable PostgreSQL of {oldest} or newer with {} on this machine\n\
             hint: `cargo xtask postgres install` gets one",
            programs.join(" and ")
        ))
    })
}
