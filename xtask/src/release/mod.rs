//! `cargo xtask release-check`: everything that must hold before library and server are published, beyond
//! what `cargo xtask test` checks.

pub(crate) mod api;
mod binary;
mod package;

use std::process::Command;

use walrecv_tests::{Failure, Result, program};

use crate::{features, paths, tools};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Do without the database of advisories, which is fetched from GitHub.
    #[arg(long)]
    offline: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    announce("public API");
    api::run(&api::Arguments::default())?;
    announce("semantic versioning");
    semantic_version()?;
    announce("features");
    features::run(&features::Arguments { pairs: true })?;
    announce("documentation as on docs.rs");
    let mut doc = tools::nightly("cargo");
    doc.args(["doc", "--quiet", "--package", "pgwire-stream", "--no-deps", "--all-features"]);
    doc.args(["--target-dir", "target/docs.rs"]).env("RUSTDOCFLAGS", "--cfg docsrs -D warnings");
    tools::succeed(&mut doc)?;
    announce("dependencies");
    let mut deny = Command::new(tools::plug_in("cargo-deny")?);
    deny.current_dir(paths::workspace()).args(["check", "bans", "licenses", "sources"]);
    if !arguments.offline {
        deny.arg("advisories");
    }
    tools::succeed(&mut deny)?;
    announce("packages");
    package::check()?;
    announce("binary");
    binary::check()?;
    println!("\nLibrary and server can be published.");
    Ok(())
}

fn announce(what: &str) {
    eprintln!("\n==> {what}");
}

/// Whether the version's number says truly what has changed since the last release.
fn semantic_version() -> Result<()> {
    let mut tags = Command::new("git");
    tags.current_dir(paths::workspace()).args(["tag", "--list", "--sort=-version:refname"]);
    let tags = program::run(tags.arg("pgwire-stream-v*"))?;
    let Some(last) = tags.lines().next() else {
        println!("there is no tag pgwire-stream-v*: nothing was released to compare with");
        return Ok(());
    };
    let mut check = Command::new(tools::plug_in("cargo-semver-checks")?);
    check.current_dir(paths::workspace()).args(["semver-checks", "--package", "pgwire-stream"]);
    tools::succeed(check.args(["--baseline-rev", last]))
        .map_err(|failure| Failure::new(format!("since {last}: {failure}")))
}
