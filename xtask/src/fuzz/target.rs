//! Which fuzz targets there are, and which source files each of them is about.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use walrecv_tests::{Context, Failure, Result, program};

use crate::paths;

/// One program of `fuzz/fuzz_targets`.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) name: String,
    /// The decoders that it is there for: files and directories, from the root of the workspace.
    pub(super) decoders: Vec<String>,
}

impl Target {
    /// Inputs that are part of the repository.
    pub(super) fn seeds(&self) -> PathBuf {
        paths::fuzz().join("seeds").join(&self.name)
    }

    /// Inputs that earlier runs have found worth keeping.
    pub(super) fn corpus(&self) -> PathBuf {
        paths::fuzz().join("corpus").join(&self.name)
    }

    /// Where inputs go on which it failed.
    pub(super) fn artifacts(&self) -> PathBuf {
        paths::fuzz().join("artifacts").join(&self.name)
    }

    /// Makes the directories that are not part of the repository.
    pub(super) fn make_directories(&self) -> Result<()> {
        for directory in [self.corpus(), self.artifacts()] {
            std::fs::create_dir_all(&directory)
                .context(|| format!("cannot make {}", directory.display()))?;
        }
        Ok(())
    }
}

/// How many files a directory holds; none if it is not there.
pub(super) fn count_files(directory: &Path) -> usize {
    std::fs::read_dir(directory).map_or(0, Iterator::count)
}

/// The targets of these names; all without any.
pub(super) fn choose(names: &[String]) -> Result<Vec<Target>> {
    let all = all()?;
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|known| known.name == **name)) {
        let known: Vec<&str> = all.iter().map(|target| target.name.as_str()).collect();
        let known = known.join(", ");
        return Err(Failure::new(format!("there is no fuzz target {unknown}; there are {known}")));
    }
    Ok(all.into_iter().filter(|known| names.is_empty() || names.contains(&known.name)).collect())
}

/// Every target, in the order of `fuzz/Cargo.toml`, which says what they are about too.
fn all() -> Result<Vec<Target>> {
    let mut command: Command = paths::cargo();
    command.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]);
    let text = program::run(command.arg(paths::fuzz().join("Cargo.toml")))?;
    let metadata: Value =
        serde_json::from_str(&text).context(|| "cannot read cargo's metadata".to_owned())?;
    let package = metadata.pointer("/packages/0").unwrap_or(&Value::Null);
    let binaries = package.pointer("/targets").and_then(Value::as_array);
    let names = binaries.into_iter().flatten().filter_map(|binary| binary["name"].as_str());
    names
        .map(|name| {
            let decoders = package.pointer("/metadata/decoders").and_then(|all| all.get(name));
            let decoders = decoders.and_then(Value::as_array).context(|| {
                format!("fuzz/Cargo.toml does not say what the target {name} is about")
            })?;
            let decoders = decoders.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            Ok(Target { name: name.to_owned(), decoders })
        })
        .collect()
}
