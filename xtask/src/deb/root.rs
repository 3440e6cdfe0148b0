//! A Debian of nothing but what every Debian has, in a directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use walrecv_tests::{Context, Failure, Result, program};

/// The oldest Debian that the package is for.
pub(super) const SUITE: &str = "bookworm";

/// The root directory; removed in the end.
pub(super) struct Root(TempDir);

impl Root {
    pub(super) fn new() -> Result<Self> {
        let Some(mmdebstrap) = program::find_on_path("mmdebstrap") else {
            return Err(Failure::new("a clean root takes mmdebstrap: apt-get install mmdebstrap"));
        };
        let directory =
            tempfile::tempdir().context(|| "cannot make a temporary directory".to_owned())?;
        // Everybody goes through it, the users of the package too.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))
            .context(|| "cannot open the root to all".to_owned())?;
        let mut make = Command::new(mmdebstrap);
        make.args(["--quiet", "--variant=minbase", "--mode=root", SUITE]).arg(directory.path());
        make.args(sources()?);
        program::run(&mut make)?;
        Ok(Self(directory))
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    pub(super) fn copy(&self, file: &Path, name: &str) -> Result<()> {
        let copied = fs::copy(file, self.path(name));
        copied.context(|| format!("cannot copy {}", file.display()))?;
        Ok(())
    }

    /// Runs a command line inside.
    pub(super) fn run(&self, line: &str) -> Result<String> {
        let mut chroot = Command::new("chroot");
        chroot.arg(self.0.path()).args(["/bin/sh", "-c", line]);
        program::run(with_environment(&mut chroot))
    }
}

/// The environment of whatever runs inside.
pub(super) fn with_environment(command: &mut Command) -> &mut Command {
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8")
}

/// The mirrors of this machine's own apt, where it names one for the suite.
fn sources() -> Result<Option<String>> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"]);
    let targets = program::run(&mut targets)?;
    let mirror = targets.lines().find_map(|line| {
        let (mirror, release) = line.split_once(' ')?;
        (release == SUITE).then(|| format!("deb {mirror} {SUITE} main"))
    });
    Ok(mirror)
}
