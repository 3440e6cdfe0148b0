//! `cargo xtask deb`: the Debian package of the server, whether it installs on a clean root, and how
//! systemd runs it there.

mod boot;
mod install;
mod root;
mod service;
mod trial;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use walrecv_tests::{Context, Failure, Result, program};

use crate::{paths, tools};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Install it on a clean root as well, have systemd run it there, and purge it (as root; needs
    /// mmdebstrap).
    #[arg(long)]
    install: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let binary = release_binary()?;
    assets(&binary)?;
    let package = build()?;
    println!("{}", package.display());
    if arguments.install {
        install::check(&package)?;
    }
    Ok(())
}

/// Builds the binary as it is released.
pub(crate) fn release_binary() -> Result<PathBuf> {
    let mut build = paths::cargo();
    build.args(["build", "--release", "--locked", "--package", "walrecv-server"]);
    tools::succeed(&mut build)?;
    Ok(paths::workspace().join("target/release/walrecv-server"))
}

/// Where the package's generated files are.
fn directory() -> PathBuf {
    paths::workspace().join("target/deb")
}

/// Has the binary write what can be generated from it: manual, completions, first configuration.
fn assets(binary: &Path) -> Result<()> {
    let directory = directory();
    let about = || format!("cannot make {}", directory.display());
    if directory.exists() {
        fs::remove_dir_all(&directory).context(about)?;
    }
    fs::create_dir_all(&directory).context(about)?;
    program::run(Command::new(binary).arg("man").arg(directory.join("man")))?;
    for (shell, name) in [
        ("bash", "walrecv-server.bash"),
        ("zsh", "_walrecv-server"),
        ("fish", "walrecv-server.fish"),
    ] {
        let script = program::run(Command::new(binary).args(["completions", shell]))?;
        fs::write(directory.join(name), script).context(about)?;
    }
    let configuration = directory.join("walrecv-server.toml");
    let mut init = Command::new(binary);
    program::run(init.env_clear().arg("--config").arg(configuration).args(["init", "main"]))?;
    Ok(())
}

/// Makes the package; where it is.
fn build() -> Result<PathBuf> {
    let mut deb = Command::new(tools::plug_in("cargo-deb")?);
    deb.current_dir(paths::workspace());
    deb.args(["deb", "--no-build", "--quiet", "--package", "walrecv-server"]);
    let said = program::run(&mut deb)?;
    let package = said.lines().last().map(PathBuf::from).filter(|path| path.is_file());
    package.ok_or_else(|| Failure::new(format!("cargo deb names no package: {said}")))
}
