//! The package on a clean root: what it installs, whether it runs there, and what a purge leaves.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use walrecv_tests::{Context, Failure, Result, program};

use super::root::{Root, SUITE};
use super::trial;

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

    trial::check(&root)?;

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

/// What the package has put there.
impl Root {
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
        let root = format!("--root={}", self.path("").display());
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
