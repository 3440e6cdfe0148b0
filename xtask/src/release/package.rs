//! What is uploaded: it builds by itself, and its tests do, too.

use std::fs::File;

use flate2::read::GzDecoder;
use walrecv_tests::{Context, Failure, Result};

use crate::{paths, tools};

/// What a package must hold beside its sources.
const REQUIRED: [&str; 3] = ["LICENSE-APACHE", "LICENSE-MIT", "README.md"];

/// The packages, the one that others build on first.
const PACKAGES: [&str; 2] = ["pgwire-stream", "walrecv-server"];

pub(super) fn check() -> Result<()> {
    let mut publish = paths::cargo();
    publish.args(["publish", "--dry-run"]);
    tools::succeed(publish.args(PACKAGES.iter().flat_map(|name| ["--package", name])))?;
    for name in PACKAGES {
        stands_alone(name)?;
    }
    Ok(())
}

fn stands_alone(package: &str) -> Result<()> {
    let name = format!("{package}-{}", env!("CARGO_PKG_VERSION"));
    let archive = paths::workspace().join("target/package").join(format!("{name}.crate"));
    let about = || format!("cannot unpack {}", archive.display());
    let directory = tempfile::tempdir().context(about)?;
    let file = File::open(&archive).context(about)?;
    tar::Archive::new(GzDecoder::new(file)).unpack(directory.path()).context(about)?;
    let unpacked = directory.path().join(name);
    for file in REQUIRED {
        if !unpacked.join(file).is_file() {
            return Err(Failure::new(format!("the package {package} has no {file}")));
        }
    }
    // Away from the repository, whose files it cannot use, but for the other package, which is not
    // published yet.
    let library = paths::workspace().join("pgwire-stream");
    let mut test = paths::cargo();
    test.current_dir(&unpacked).args(["test", "--quiet", "--all-features", "--no-run"]);
    if package != "pgwire-stream" {
        let patch =
            format!("patch.crates-io.pgwire-stream.path={:?}", library.display().to_string());
        test.args(["--config", &patch]);
    }
    tools::succeed(test.arg("--target-dir").arg(paths::workspace().join("target/package/tests")))
}
