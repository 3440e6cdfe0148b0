//! Programs beside the cargo that runs us: nightly Rust, and cargo's plug-ins.

use std::path::PathBuf;
use std::process::Command;

use walrecv_tests::{Context, Failure, Result, program};

use crate::paths;

/// A program of nightly Rust, in the root of the workspace.
pub(crate) fn nightly(program: &str) -> Command {
    let mut command = Command::new("rustup");
    // What the stable cargo above us has set would speak of the stable compiler.
    for variable in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(variable);
    }
    command.args(["run", "nightly", program]).current_dir(paths::workspace());
    command
}

/// A plug-in of cargo, such as `cargo-fuzz`: the one on the search path, else our own, which is
/// installed when it is missing.
pub(crate) fn plug_in(name: &str) -> Result<PathBuf> {
    if let Some(found) = program::find_on_path(name) {
        return Ok(found);
    }
    let root = paths::workspace().join("target/tools");
    let own = root.join("bin").join(name);
    if !own.is_file() {
        eprintln!("installing {name} into {}", root.display());
        let mut install = paths::cargo();
        succeed(install.args(["install", "--locked", name, "--root"]).arg(&root))?;
    }
    Ok(own)
}

/// Runs a program whose output the user is to see.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let line = program::command_line(command);
    let status = command.status().context(|| format!("cannot run `{line}`"))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("`{line}` ended with {status}")))
}
