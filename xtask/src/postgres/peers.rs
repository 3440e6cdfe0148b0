//! The other backup programs that benchmarks compare the product with: Barman from PyPI, pinned, in
//! a virtual environment of its own, and pgBackRest as the system's package manager has it.

use std::path::PathBuf;
use std::process::Command;

use walrecv_tests::installation::cache_directory;
use walrecv_tests::{Context, Result, program};

use super::cache::{self, Cache};
use super::{Item, Outcome, obtain, system};

/// What Barman wants besides itself: psycopg2 in the form that needs no compiler, and its codecs.
const BARMAN: [&str; 6] = [
    "barman==3.19.1",
    "psycopg2-binary==2.9.13",
    "python-dateutil==2.9.0.post0",
    "six==1.17.0",
    "zstandard==0.25.0",
    "lz4==4.4.5",
];

/// Gets what is missing. What could not be had is told.
pub(crate) fn install() -> Result<()> {
    let items = [
        Item::new(format!("PyPI {}", BARMAN[0]), install_barman),
        package("pgbackrest"),
        package("rsync"),
    ];
    obtain(&items, &Cache::open()?, "peers");
    Ok(())
}

/// Gets Barman, whose output tests compare with ours, if it is missing.
pub(crate) fn install_for_tests() -> Result<()> {
    let barman = Item::new(format!("PyPI {}", BARMAN[0]), install_barman);
    obtain(&[barman], &Cache::open()?, "peers");
    Ok(())
}

/// Barman, if it was installed here.
pub(crate) fn barman() -> Option<PathBuf> {
    let place = barman_place().ok()?;
    cache::is_complete(&place, &BARMAN.join(" ")).then(|| place.join("bin/barman"))
}

/// pgBackRest, if this machine has it.
pub(crate) fn pgbackrest() -> Option<PathBuf> {
    program::find_on_path("pgbackrest")
}

fn barman_place() -> Result<PathBuf> {
    Ok(cache_directory()?.join("peers/barman"))
}

fn install_barman(_cache: &Cache) -> Result<Outcome> {
    if barman().is_some() {
        return Ok(Outcome::Present);
    }
    let python = program::find_on_path("python3").context(|| {
        "`python3` is not installed (on Debian: apt-get install python3-venv)".to_owned()
    })?;
    // Its programs name the interpreter by its path: it is made where it stays.
    let place = barman_place()?;
    cache::clear(&place)?;
    program::run(Command::new(python).args(["-m", "venv"]).arg(&place))?;
    program::run(
        Command::new(place.join("bin/python"))
            .args(["-m", "pip", "install", "-q", "--no-deps", "--only-binary=:all:"])
            .arg("--disable-pip-version-check")
            .args(BARMAN),
    )?;
    cache::complete(&place, &BARMAN.join(" "))?;
    Ok(Outcome::Installed)
}

/// A package of the system, whose program is called as it is.
fn package(name: &'static str) -> Item {
    Item::new(format!("the system's package of {name}"), move |_| {
        if program::find_on_path(name).is_some() {
            return Ok(Outcome::Present);
        }
        system::install(&[name])?;
        Ok(Outcome::Installed)
    })
}
