//! The directory that keeps the servers between runs.
//!
//! An installation is built under a name with a leading dot and renamed when it is complete
//! where its files do not care, or marked by a file `.complete` where they carry their own path.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use walrecv_tests::installation::{Source, cache_directory};
use walrecv_tests::{Context, Result};

/// The cache, held for us alone: two installations at once would spoil each other.
pub(crate) struct Cache {
    root: PathBuf,
    _lock: File,
}

impl Cache {
    pub(crate) fn open() -> Result<Self> {
        let root = cache_directory()?;
        fs::create_dir_all(&root).context(|| format!("cannot make {}", root.display()))?;
        // The servers run as another user than root, who must get through.
        make_readable(&root)?;
        let path = root.join(".lock");
        let lock = File::create(&path).context(|| format!("cannot open {}", path.display()))?;
        if lock.try_lock().is_err() {
            eprintln!("waiting for another installation into {}", root.display());
            lock.lock().context(|| format!("cannot lock {}", path.display()))?;
        }
        Ok(Self { root, _lock: lock })
    }

    /// Where a major from a source belongs.
    pub(crate) fn place(&self, source: Source, major: u32) -> PathBuf {
        self.root.join(source.word()).join(major.to_string())
    }

    /// A fresh scratch directory on the same file system.
    pub(crate) fn scratch(&self) -> Result<tempfile::TempDir> {
        tempfile::Builder::new()
            .prefix(".new-")
            .tempdir_in(&self.root)
            .context(|| format!("cannot make a directory in {}", self.root.display()))
    }
}

/// Whether the installation in `place` was finished, in this version.
pub(crate) fn is_complete(place: &Path, version: &str) -> bool {
    fs::read_to_string(place.join(".complete")).is_ok_and(|marked| marked == version)
}

/// Makes everything in `place` readable for all users and marks it as finished.
pub(crate) fn complete(place: &Path, version: &str) -> Result<()> {
    make_tree_readable(place)?;
    let marker = place.join(".complete");
    fs::write(&marker, version).context(|| format!("cannot write {}", marker.display()))
}

/// Makes room for an installation: nothing in `place`, its parent there.
pub(crate) fn clear(place: &Path) -> Result<()> {
    if place.exists() {
        fs::remove_dir_all(place).context(|| format!("cannot remove {}", place.display()))?;
    }
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent).context(|| format!("cannot make {}", parent.display()))?;
        make_readable(parent)?;
    }
    Ok(())
}

fn make_tree_readable(path: &Path) -> Result<()> {
    let about = || format!("cannot make {} readable", path.display());
    let kind = fs::symlink_metadata(path).context(about)?.file_type();
    if kind.is_symlink() {
        return Ok(());
    }
    make_readable(path)?;
    if kind.is_dir() {
        for entry in fs::read_dir(path).context(about)? {
            make_tree_readable(&entry.context(about)?.path())?;
        }
    }
    Ok(())
}

/// `chmod a+rX`.
fn make_readable(path: &Path) -> Result<()> {
    let about = || format!("cannot change the mode of {}", path.display());
    let mode = fs::metadata(path).context(about)?.permissions().mode();
    let execute = if path.is_dir() || mode & 0o111 != 0 { 0o111 } else { 0 };
    let wanted = mode | 0o444 | execute;
    if wanted != mode {
        fs::set_permissions(path, Permissions::from_mode(wanted)).context(about)?;
    }
    Ok(())
}
