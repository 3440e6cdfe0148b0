//! `cargo xtask features`: the library in each of its features alone, and without any.

use walrecv_tests::{Context, Failure, Result, program};

use crate::{paths, tools};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Every two features together, too.
    #[arg(long)]
    pub(crate) pairs: bool,
}

/// What a build without features does without.
const ABSENT: [&str; 5] = ["tokio", "rustls", "tokio-rustls", "socket2", "serde"];

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let features = features()?;
    let mut sets = vec![String::new()];
    sets.extend(features.iter().cloned());
    if arguments.pairs {
        for (at, first) in features.iter().enumerate() {
            let rest = features.iter().skip(at + 1);
            sets.extend(rest.map(|second| format!("{first},{second}")));
        }
    }
    for set in &sets {
        eprintln!("features: {}", if set.is_empty() { "none" } else { set });
        let mut clippy = paths::cargo();
        clippy.args(["clippy", "--quiet", "--package", "pgwire-stream", "--no-default-features"]);
        clippy.args(["--features", set, "--", "-D", "warnings"]);
        tools::succeed(&mut clippy)?;
    }
    println!("{} sets of features build without warnings", sets.len());
    small_tree()
}

/// The names of the library's features.
fn features() -> Result<Vec<String>> {
    let mut metadata = paths::cargo();
    metadata.args(["metadata", "--format-version=1", "--no-deps"]);
    let metadata: serde_json::Value = serde_json::from_str(&program::run(&mut metadata)?)
        .context(|| "cargo metadata is not JSON".to_owned())?;
    let packages = metadata.get("packages").and_then(|packages| packages.as_array());
    let library = packages
        .into_iter()
        .flatten()
        .find(|package| package.get("name").is_some_and(|name| name == "pgwire-stream"))
        .context(|| "there is no package pgwire-stream".to_owned())?;
    let features = library.get("features").and_then(|features| features.as_object());
    let features: Vec<String> = features
        .into_iter()
        .flat_map(|features| features.keys())
        .filter(|name| *name != "default")
        .cloned()
        .collect();
    if features.is_empty() {
        return Err(Failure::new("the library has no features"));
    }
    Ok(features)
}

/// Without features, there is no runtime among the dependencies.
fn small_tree() -> Result<()> {
    let mut tree = paths::cargo();
    tree.args(["tree", "--package", "pgwire-stream", "--no-default-features"]);
    tree.args(["--edges", "normal", "--prefix", "none", "--format", "{p}"]);
    let tree = program::run(&mut tree)?;
    for line in tree.lines() {
        let name = line.split(' ').next().unwrap_or_default();
        if ABSENT.contains(&name) {
            return Err(Failure::new(format!("the library without features depends on {line}")));
        }
    }
    println!("without features it depends on none of {}", ABSENT.join(", "));
    Ok(())
}
