//! `cargo xtask api`: the library's public API against the list of it that is kept here, so that
//! every change of it is seen in review.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use public_api::Builder;
use walrecv_tests::{Context, Failure, Result};

use crate::{paths, tools};

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// Write the list anew instead of comparing.
    #[arg(long)]
    bless: bool,
}

/// Every feature that adds API. The others choose cryptography, which takes long to build.
const FEATURES: &str = "tls,manifest,server,tokio-rt,serde";

/// Apart from everything else, because it is built by nightly Rust.
const BUILD: &str = "target/api";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let kept = paths::workspace().join("pgwire-stream/public-api.txt");
    let about = || format!("cannot use {}", kept.display());
    let current = current()?;
    if arguments.bless {
        fs::write(&kept, current).context(about)?;
        println!("wrote {}", kept.display());
        return Ok(());
    }
    let changes = changes(&fs::read_to_string(&kept).context(about)?, &current);
    if changes.is_empty() {
        println!("the public API is as listed");
        return Ok(());
    }
    for change in &changes {
        println!("{change}");
    }
    Err(Failure::new(format!(
        "the public API is not that of {}\nhint: if it shall be so, `cargo xtask api --bless`, and a \
         line in CHANGELOG.md",
        kept.display()
    )))
}

/// The public API as text, an item in a line, as rustdoc sees it.
fn current() -> Result<String> {
    let mut rustdoc = tools::nightly("cargo");
    rustdoc.args(["rustdoc", "--quiet", "--package", "pgwire-stream", "--lib"]);
    rustdoc.args(["--no-default-features", "--features", FEATURES, "--target-dir", BUILD]);
    rustdoc.args(["--", "-Z", "unstable-options", "--output-format", "json"]);
    tools::succeed(&mut rustdoc)?;
    let json: PathBuf = paths::workspace().join(BUILD).join("doc/pgwire_stream.json");
    let api = Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .context(|| "nightly Rust and the crate public-api do not fit together".to_owned())?;
    Ok(api.to_string())
}

/// What is in one list and not in the other, each with its sign.
fn changes(kept: &str, current: &str) -> Vec<String> {
    let kept: BTreeSet<&str> = kept.lines().collect();
    let current: BTreeSet<&str> = current.lines().collect();
    let gone = kept.difference(&current).map(|line| format!("- {line}"));
    let new = current.difference(&kept).map(|line| format!("+ {line}"));
    gone.chain(new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_what_is_gone_and_what_is_new() {
        assert_eq!(changes("a\nb\nc\n", "a\nb\nc\n"), [""; 0]);
        assert_eq!(changes("a\nb\nc\n", "a\nd\nc\n"), ["- b", "+ d"]);
    }
}
