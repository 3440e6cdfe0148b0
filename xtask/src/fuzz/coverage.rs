//! How much of its decoders a target reaches: every input that is kept, replayed in a program that
//! counts.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use walrecv_tests::{Context, Result, program};

use super::target::Target;
use super::tools;
use crate::paths;

/// The regions of one source file: stretches of code without a branch.
#[derive(Debug)]
pub(super) struct Coverage {
    /// From the root of the workspace.
    pub(super) file: String,
    pub(super) regions: u64,
    pub(super) reached: u64,
}

impl Coverage {
    pub(super) fn percent(&self) -> String {
        format!("{:.1} %", 100.0 * self.reached as f64 / self.regions.max(1) as f64)
    }
}

/// What the seeds and the corpus of a target reach of its decoders.
pub(super) fn measure(target: &Target, binaries: &Path) -> Result<Vec<Coverage>> {
    target.make_directories()?;
    let program = binaries.join(&target.name);
    let raw = program.with_extension("profraw");
    let profile = program.with_extension("profdata");
    let mut replay = Command::new(&program);
    replay.arg("-runs=0").args([target.corpus(), target.seeds()]);
    program::run(replay.env("LLVM_PROFILE_FILE", &raw))?;
    let mut merge = Command::new(tools::llvm("llvm-profdata")?);
    program::run(merge.args(["merge", "-sparse", "-o"]).args([&profile, &raw]))?;

    let mut export = Command::new(tools::llvm("llvm-cov")?);
    export.args(["export", "-summary-only", "-instr-profile"]).args([&profile, &program]);
    let report: Value = serde_json::from_str(&program::run(&mut export)?)
        .context(|| format!("cannot read the coverage of {}", target.name))?;
    let files = report.pointer("/data/0/files").and_then(Value::as_array);
    Ok(files.into_iter().flatten().filter_map(|file| read_file(file, &target.decoders)).collect())
}

/// The coverage of a file that is one of these decoders, or lies in one.
fn read_file(file: &Value, decoders: &[String]) -> Option<Coverage> {
    // A file that is compiled from elsewhere has a way through `..` in its name.
    let path = Path::new(file.get("filename")?.as_str()?).canonicalize().ok()?;
    let path = path.strip_prefix(paths::workspace().canonicalize().ok()?).ok()?;
    if !decoders.iter().any(|decoder| path.starts_with(decoder)) {
        return None;
    }
    let regions = file.pointer("/summary/regions")?;
    Some(Coverage {
        file: path.display().to_string(),
        regions: regions.get("count")?.as_u64()?,
        reached: regions.get("covered")?.as_u64()?,
    })
}

/// The sum over some files.
pub(super) fn total(files: &[Coverage]) -> Coverage {
    Coverage {
        file: "together".to_owned(),
        regions: files.iter().map(|file| file.regions).sum(),
        reached: files.iter().map(|file| file.reached).sum(),
    }
}
