//! The programs that fuzzing needs: the targets themselves, built by cargo-fuzz on nightly Rust for
//! the sake of libFuzzer's and the sanitizers' options, and LLVM's coverage tools.

use std::path::PathBuf;

use walrecv_tests::{Context, Failure, Result, program};

use super::target::Target;
use crate::paths;
use crate::tools::{nightly, plug_in, succeed};

/// Where the targets are built; apart from everything else, because sanitizers change all code.
const BUILD: &str = "target/fuzz";

/// Builds the targets with the address sanitizer, debug assertions and overflow checks, and gives
/// the directory that they are in.
pub(super) fn build(targets: &[Target]) -> Result<PathBuf> {
    let host = compiler("host")?;
    let cargo_fuzz = plug_in("cargo-fuzz")?;
    for target in targets {
        let mut command = nightly(&cargo_fuzz.to_string_lossy());
        command.args(["fuzz", "build", "--fuzz-dir", "fuzz", "--target-dir", BUILD, &target.name]);
        succeed(&mut command)?;
    }
    Ok(paths::workspace().join(BUILD).join(host).join("release"))
}

/// Builds the targets to count what they execute, and gives the directory that they are in.
pub(super) fn build_for_coverage(targets: &[Target]) -> Result<PathBuf> {
    // With a target, programs that only take part in the build are not counted.
    let host = compiler("host")?;
    let directory = paths::workspace().join(BUILD).join("coverage");
    let mut command = nightly("cargo");
    command
        .args(["build", "--release", "--manifest-path", "fuzz/Cargo.toml", "--target", &host])
        .arg("--target-dir")
        .arg(&directory)
        .env("RUSTFLAGS", "-Cinstrument-coverage");
    for target in targets {
        command.args(["--bin", &target.name]);
    }
    succeed(&mut command)?;
    Ok(directory.join(host).join("release"))
}

/// One of LLVM's programs, of the LLVM that nightly Rust was built with.
pub(super) fn llvm(name: &str) -> Result<PathBuf> {
    let version = compiler("LLVM version")?;
    let major = version.split('.').next().unwrap_or(&version);
    let sysroot = program::run(nightly("rustc").args(["--print", "target-libdir"]))?;
    let component = PathBuf::from(sysroot.trim()).with_file_name("bin").join(name);
    let found = program::find_on_path(format!("{name}-{major}"));
    found.or_else(|| component.is_file().then_some(component)).context(|| {
        format!(
            "there is no {name} of LLVM {major}\nhint: `apt-get install llvm-{major}`, or `rustup \
             component add --toolchain nightly llvm-tools`"
        )
    })
}

/// What nightly's compiler says of itself.
fn compiler(what: &str) -> Result<String> {
    let said = program::run(nightly("rustc").arg("-vV"))
        .map_err(|failure| Failure::new(format!("fuzzing needs nightly Rust: {failure}")))?;
    let value = |line: &str| Some(line.strip_prefix(what)?.strip_prefix(": ")?.to_owned());
    said.lines().find_map(value).context(|| format!("rustc does not say its {what}"))
}
