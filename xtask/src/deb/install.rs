//! The package on a clean root: what it installs, whether it runs there, and what a purge leaves.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use walrecv_tests::{Context, Failure, Result, program};

/// The oldest Debian that the package is for.
const SUITE: &str = "bookworm";

/// The daemon's unit.
const UNIT: &str = "walrecv-server.service";

/// The worst score of `systemd-analyze security` that the unit may have, times ten.
const EXPOSURE: u32 = 25;

pub(super) fn check(package: &Path) -> Result<()> {
    let root = Root::new()?;
    root.copy(package, "walrecv-server.deb")?;
    root.run("apt-get install --yes --quiet --no-install-recommends ./walrecv-server.deb")?;

    for (path, mode, owner) in [
        ("usr/bin/walrecv-server", 0o755, "root"),
        ("usr/share/bash-completion/completions/walrecv-server", 0o644, "root"),
        ("usr/share/man/man1/walrecv-server-backup.1.gz", 0o644, "root"),
        ("usr/share/doc/walrecv-server/examples/walrecv-server.toml", 0o644, "root"),
        ("etc/walrecv-server", 0o750, "root"),
        ("var/lib/walrecv-server", 0o700, "walrecv"),
    ] {
        root.expect(path, mode, owner)?;
    }
    root.unit()?;

    let version = root.run("walrecv-server --version")?;
    println!("on {SUITE}: {}", version.trim());
    // A configuration that root writes can be read by the daemon's user.
    root.run("walrecv-server init main --host 127.0.0.1 --port 1 --user walrecv; test $? = 1")?;
    let read = root.run(
        "setpriv --reuid walrecv --regid walrecv --clear-groups \
         walrecv-server list-backups main",
    )?;
    println!("as the user walrecv: {}", read.trim());

    // What is stored outlives the package.
    fs::write(root.path("var/lib/walrecv-server/kept"), "a backup")
        .context(|| "cannot write into the root".to_owned())?;
    root.run("dpkg --purge walrecv-server")?;
    for (path, stays) in [
        ("usr/bin/walrecv-server", false),
        ("etc/walrecv-server", false),
        ("var/lib/walrecv-server/kept", true),
    ] {
        if root.path(path).exists() != stays {
            let fate = if stays { "is gone" } else { "is left" };
            return Err(Failure::new(format!("/{path} {fate} after a purge")));
        }
    }
    println!("installs, runs and purges on a clean {SUITE}");
    Ok(())
}

/// A Debian of nothing but what every Debian has.
struct Root(TempDir);

impl Root {
    fn new() -> Result<Self> {
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

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn copy(&self, file: &Path, name: &str) -> Result<()> {
        let copied = fs::copy(file, self.path(name));
        copied.context(|| format!("cannot copy {}", file.display()))?;
        Ok(())
    }

    /// Runs a command line inside.
    fn run(&self, line: &str) -> Result<String> {
        let mut chroot = Command::new("chroot");
        chroot.arg(self.0.path()).args(["/bin/sh", "-c", line]);
        chroot.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        chroot.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
        program::run(&mut chroot)
    }

    /// Demands a file or directory of this mode and owner.
    fn expect(&self, path: &str, mode: u32, owner: &str) -> Result<()> {
        let metadata =
            fs::metadata(self.path(path)).context(|| format!("the package has no /{path}"))?;
        let found = self.run(&format!("stat -c %U /{path}"))?;
        if metadata.mode() & 0o7777 != mode || found.trim() != owner {
            return Err(Failure::new(format!(
                "/{path} has mode {:o} and belongs to {}, instead of {mode:o} and {owner}",
                metadata.mode() & 0o7777,
                found.trim()
            )));
        }
        Ok(())
    }

    /// What systemd thinks of the unit, if it is on this machine.
    fn unit(&self) -> Result<()> {
        let Some(analyze) = program::find_on_path("systemd-analyze") else {
            println!("SKIPPED: what systemd thinks of the unit, for want of systemd-analyze");
            return Ok(());
        };
        let root = format!("--root={}", self.0.path().display());
        let mut verify = Command::new(&analyze);
        let said = program::output(verify.args(["verify", "--man=no", &root, UNIT]))?;
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        // A minimal root has no targets that it could be started for.
        let complaints: Vec<_> =
            said.lines().filter(|line| !line.contains("Failed to create")).collect();
        if !complaints.is_empty() {
            return Err(Failure::new(format!("systemd complains:\n{}", complaints.join("\n"))));
        }
        let unit = self.path("usr/lib/systemd/system").join(UNIT);
        let mut security = Command::new(analyze);
        let threshold = format!("--threshold={EXPOSURE}");
        let judged =
            program::run(security.args(["security", "--offline=true", &threshold]).arg(unit))?;
        println!("{}", program::last_lines(judged.trim_end(), 1).trim());
        Ok(())
    }
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
