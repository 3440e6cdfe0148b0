//! `cargo xtask test`: every check of this repository, in the order in which they fail soonest.
//! Ends at the first step that fails.

mod step;
mod tally;

use std::fs;
use std::time::Instant;

use walrecv_tests::installation::NEWEST_PINNED;
use walrecv_tests::{Context, Failure, Result};

use crate::paths::workspace;
use crate::postgres;
use step::Step;
use tally::Tally;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// One PostgreSQL only (18), instead of 10 to 19.
    #[arg(long)]
    quick: bool,
}

/// The PostgreSQL of `--quick`.
const QUICK: u32 = NEWEST_PINNED;

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let begin = Instant::now();
    let majors: &[u32] = if arguments.quick { &[QUICK] } else { &[] };
    step::announce("PostgreSQL servers");
    postgres::install(majors)?;
    postgres::peers::install_for_tests()?;

    let mut tally = Tally::default();
    for step in steps(arguments)? {
        let name = step.name().to_owned();
        step::announce(&name);
        let begin = Instant::now();
        let outcome = step.run(&mut tally);
        eprintln!("    {:.1} s", begin.elapsed().as_secs_f64());
        if let Err(failure) = outcome {
            println!("{}", tally.line());
            return Err(Failure::new(format!("the step \"{name}\" failed: {failure}")));
        }
    }

    println!("\nAll steps passed in {:.0} s.", begin.elapsed().as_secs_f64());
    if !tally.skipped().is_empty() {
        println!("Skipped:");
        for skipped in tally.skipped() {
            println!("  {skipped}");
        }
    }
    println!("{}", tally.line());
    Ok(())
}

/// Everything after the servers are there.
fn steps(arguments: &Arguments) -> Result<Vec<Step>> {
    let mut system_tests =
        Step::tests("whole-system tests", &["test", "--workspace", "--no-fail-fast"]);
    for name in system_test_programs()? {
        system_tests = system_tests.arguments(&["--test", &name]);
    }
    if arguments.quick {
        system_tests = system_tests.env("WALRECV_TEST_MAJORS", &QUICK.to_string());
    }
    Ok(vec![
        Step::cargo("format", &["fmt", "--all", "--check"]),
        Step::cargo(
            "clippy",
            &["clippy", "--workspace", "--all-targets", "--all-features", "--locked"],
        )
        .arguments(&["--", "-D", "warnings"]),
        // The programs under test; `--workspace` throughout, so that all steps agree on the
        // features of the dependencies and nothing is compiled twice.
        Step::cargo("build", &["build", "--workspace", "--bins"]),
        Step::tests(
            "unit and documentation tests",
            &["test", "--workspace", "--exclude", "walrecv-tests", "--no-fail-fast"],
        )
        // All that a test needs; `fuzzing` replays the seeds of the fuzz targets.
        .arguments(&[
            "--features",
            "pgwire-stream/fuzzing,pgwire-stream/serde,pgwire-stream/tokio-rt",
        ]),
        system_tests,
        Step::cargo(
            "documentation of the library",
            &["doc", "--package", "pgwire-stream", "--no-deps", "--all-features"],
        )
        .env("RUSTDOCFLAGS", "-D warnings"),
        // Only we read this one: private items and links to them are welcome.
        Step::cargo(
            "documentation of the rest",
            &["doc", "--workspace", "--exclude", "pgwire-stream", "--no-deps"],
        )
        .arguments(&["--document-private-items"])
        .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links"),
        Step::cargo(
            "documentation of the library without features",
            &["doc", "--package", "pgwire-stream", "--no-deps", "--no-default-features"],
        )
        .env("RUSTDOCFLAGS", "-D warnings"),
        Step::cargo("library in each of its features", &["xtask", "features"]),
        Step::cargo("fuzz targets", &["check", "--manifest-path", "fuzz/Cargo.toml", "--locked"])
            .env("CARGO_TARGET_DIR", "target/fuzz"),
    ])
}

/// The programs of scenarios: each is a directory, or a file, in `tests/tests`.
fn system_test_programs() -> Result<Vec<String>> {
    let directory = workspace().join("tests/tests");
    let about = || format!("cannot read {}", directory.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).context(about)? {
        let path = entry.context(about)?.path();
        let is_program = match path.extension() {
            Some(suffix) => suffix == "rs",
            None => path.join("main.rs").exists(),
        };
        if is_program {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    if names.is_empty() {
        return Err(Failure::new(format!("no test programs in {}", directory.display())));
    }
    Ok(names)
}
