//! What is uploaded: it builds by itself, and its tests do, too.

use std::fs::File;

use flate2::read::GzDecoder;
use walrecv_tests::{Context, Failure, Result};

use crate::{paths, tools};

/// What a package must hold beside its sources.
const REQUIRED: [&str; 3] = ["LICENSE-APACHE", "LICENSE-MIT", "README.md"];

pub(super) fn check() -> Result<()> {
    let mut publish = paths::cargo();
    tools::succeed(publish.args(["publish", "--dry-run", "--package", "pgwire-stream"]))?;

    let name = format!("pgwire-stream-{}", env!("CARGO_PKG_VERSION"));
    let archive = paths::workspace().join("target/package").join(format!("{name}.crate"));
    let about = || format!("cannot unpack {}", archive.display());
    let directory = tempfile::tempdir().context(about)?;
    let file = File::open(&archive).context(about)?;
    tar::Archive::new(GzDecoder::new(file)).unpack(directory.path()).context(about)?;
    let unpacked = directory.path().join(name);
    for file in REQUIRED {
        if !unpacked.join(file).is_file() {
            return Err(Failure::new(format!("the package has no {file}")));
        }
    }
    // Away from the repository, whose files it cannot use.
    let mut test = paths::cargo();
    test.current_dir(&unpacked).args(["test", "--quiet", "--all-features", "--no-run"]);
    tools::succeed(test.arg("--target-dir").arg(paths::workspace().join("target/package/tests")))
}
