//! What the system's own package manager brings: a PostgreSQL with its client programs, and the
//! programs that the other places and the tests need.

use std::fs;
use std::path::Path;
use std::process::Command;

use walrecv_tests::{Context, Result, installation, program};

use super::{Item, Outcome};

/// Debian packages, each with a program that shows that it need not be installed.
const PACKAGES: [(&str, &str); 10] = [
    ("npm", "npm"),
    ("python3-pip", "pip3"),
    ("patchelf", "patchelf"),
    ("zstd", "zstd"),
    ("age", "age"),
    // Disks that lose their power, syncs that do nothing, and a look at system calls.
    ("e2fsprogs", "mkfs.ext4"),
    ("xfsprogs", "xfs_io"),
    ("eatmydata", "eatmydata"),
    ("strace", "strace"),
    // The status page is looked at.
    ("chromium", "chromium"),
];

/// PostgreSQL, whichever major this release has.
const SERVER: [&str; 2] = ["postgresql", "postgresql-client"];

/// All of it.
pub(super) fn item() -> Item {
    Item::new("system packages".to_owned(), |_| {
        let mut missing: Vec<&str> = PACKAGES
            .iter()
            .filter(|(_, program)| program::find_system_program(program).is_none())
            .map(|(package, _)| *package)
            .collect();
        if !has_server() {
            missing.extend(SERVER);
        }
        if missing.is_empty() {
            return Ok(Outcome::Present);
        }
        install(&missing)?;
        Ok(Outcome::Installed)
    })
}

/// The system's own PostgreSQL alone.
pub(super) fn server() -> Item {
    Item::new("the system's package of PostgreSQL".to_owned(), |_| {
        if has_server() {
            return Ok(Outcome::Present);
        }
        install(&SERVER)?;
        Ok(Outcome::Installed)
    })
}

fn has_server() -> bool {
    installation::find_all().iter().any(|found| found.source == installation::Source::System)
}

/// Installs Debian packages; says what to do where it cannot.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if program::find_on_path("apt-get").is_none() {
        return super::unsuitable(&format!(
            "this is not a Debian system; please install what these Debian packages hold: {list}"
        ));
    }
    if !rustix::process::geteuid().is_root() {
        return super::unsuitable(&format!("not root; please run `apt-get install {list}`"));
    }
    // Debian's package would make and start a cluster on port 5432.
    let directory = Path::new("/etc/postgresql-common/createcluster.d");
    fs::create_dir_all(directory)
        .and_then(|()| fs::write(directory.join("10-none.conf"), "create_main_cluster = false\n"))
        .context(|| format!("cannot write into {}", directory.display()))?;

    eprintln!("installing {list} with apt-get");
    program::run(&mut apt_get(&["update"]))?;
    let mut arguments = vec!["install", "--no-install-recommends"];
    arguments.extend(packages);
    program::run(&mut apt_get(&arguments))?;
    Ok(())
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-y", "-q", "-o", "DPkg::Lock::Timeout=300"])
        .args(arguments);
    command
}
