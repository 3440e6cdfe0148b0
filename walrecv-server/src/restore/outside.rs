//! Configuration files that lay outside of the data directory, restored beside it.
//!
//! They go to `<data directory>.config`, below it under the paths that they had: nothing that a
//! server may still use is written over, and what they include of one another by relative paths
//! stays where it is. A server is told of them by settings, and of its `config_file` when it is
//! started.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::beneath::Root;
use super::destination::{DestinationError, Place};
use super::error::RestoreError;
use super::owner::Owner;
use super::plan::Request;
use crate::catalog::ConfigFiles;
use crate::failure::{Class, Failure};
use crate::storage::{BackupDir, DecryptionError, KeyFile, Sha256Sum, StorageError, encryption};

/// More than a backup keeps of them, with what an archive adds.
const MOST: u64 = 16 << 20;

/// Why configuration files cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum OutsideError {
    /// The archive is not what was stored.
    #[error("the stored configuration files `{}` do not match their checksum", path.display())]
    Altered {
        /// The archive.
        path: PathBuf,
    },
    /// The archive is none.
    #[error("the stored configuration files `{}` are damaged", path.display())]
    Damaged {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// The archive holds something else than its backup knows of.
    #[error("`{name}` is in `{}`, and not in the record of the backup", path.display())]
    Unexpected {
        /// The archive.
        path: PathBuf,
        /// What is in it.
        name: String,
    },
    /// There is no place for them.
    #[error("there is no place for the configuration files that lay outside of the data directory")]
    Place(#[from] DestinationError),
    /// They are encrypted.
    #[error(transparent)]
    Decryption(#[from] DecryptionError),
    /// The archive cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Failure for OutsideError {
    fn class(&self) -> Class {
        match self {
            Self::Place(error) => error.class(),
            Self::Decryption(error) => error.class(),
            _ => Class::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        let reason = match self {
            Self::Place(error) => error.hint(),
            Self::Decryption(error) => error.hint(),
            Self::Storage(error) => error.hint(),
            _ => None,
        };
        let without = "--no-config restores the data without them";
        Some(reason.map_or(without.to_owned(), |reason| format!("{reason}; {without}")))
    }
}

/// The configuration files of a restore.
#[derive(Clone, Debug, Serialize)]
pub struct OutsideFiles {
    /// The directory beside the data directory.
    pub directory: PathBuf,
    /// Where they lay.
    pub files: Vec<String>,
    /// The `postgresql.conf` among them, where it will lie: a server is started with it.
    pub config_file: Option<PathBuf>,
    /// By the settings `hba_file` and `ident_file`: where those will lie.
    #[serde(skip)]
    pub(super) pointers: BTreeMap<&'static str, PathBuf>,
    #[serde(skip)]
    contents: Contents,
}

/// Paths, relative to the root of the origin, and what is there. Has no `Debug` worth the name:
/// configuration may hold passwords.
#[derive(Clone, Default)]
struct Contents(BTreeMap<String, Vec<u8>>);

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The directory for them, beside a data directory.
pub(super) fn directory(destination: &Path) -> PathBuf {
    let mut name = OsString::from(destination);
    name.push(".config");
    name.into()
}

/// Reads what a backup has of them, and where it will go; `None` if it has none. Changes nothing.
///
/// # Errors
/// If they are not what was stored, or there is no place for them.
pub(super) fn plan(
    kept: Option<&ConfigFiles>,
    backup: &BackupDir,
    request: &Request,
    place: impl FnOnce() -> Result<Place, DestinationError>,
    notes: &mut Vec<String>,
) -> Result<Option<OutsideFiles>, OutsideError> {
    let Some(kept) = kept.filter(|_| request.config) else { return Ok(None) };
    if !kept.closed.is_empty() {
        notes.push(format!(
            "not in the backup, because its role could not read them: {}; provide them before you \
             start the server",
            kept.closed.join(", ")
        ));
    }
    if kept.stored.is_none() {
        return Ok(None);
    }
    let contents = read(kept, backup, request.keys.as_ref())?;
    let directory = place()?.path;
    let lies = |setting: &str| {
        let path = relative(kept.named.get(setting)?);
        contents.contains_key(path).then(|| directory.join(path))
    };
    let pointers = ["hba_file", "ident_file"].into_iter();
    Ok(Some(OutsideFiles {
        files: kept.files.clone(),
        config_file: lies("config_file"),
        pointers: pointers.filter_map(|setting| Some((setting, lies(setting)?))).collect(),
        contents: Contents(contents),
        directory,
    }))
}

/// All of the archive, which is small; nothing in it but what the record names.
fn read(
    kept: &ConfigFiles,
    backup: &BackupDir,
    keys: Option<&KeyFile>,
) -> Result<BTreeMap<String, Vec<u8>>, OutsideError> {
    let path = backup.config_files(kept.form());
    let damaged = |source| OutsideError::Damaged { path: path.clone(), source };
    let mut stored = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(MOST).read_to_end(&mut stored))
        .map_err(StorageError::of("read", &path))?;
    if kept.stored.is_none_or(|noted| noted.sha256 != Sha256Sum::of(&stored)) {
        return Err(OutsideError::Altered { path });
    }
    let plain = encryption::reader(&path, stored.as_slice(), kept.form(), keys)?;
    let mut archive = tar::Archive::new(plain.take(MOST));
    let mut contents = BTreeMap::new();
    for member in archive.entries().map_err(damaged)? {
        let mut member = member.map_err(damaged)?;
        let name = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        let known = kept.files.iter().any(|file| relative(file) == name);
        if !known || !member.header().entry_type().is_file() {
            return Err(OutsideError::Unexpected { path, name });
        }
        let mut content = Vec::new();
        member.read_to_end(&mut content).map_err(damaged)?;
        contents.insert(name, content);
    }
    Ok(contents)
}

fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}

/// Writes them. Durable when the directory is synced.
///
/// # Errors
/// If they cannot be written.
pub(super) fn write(files: &OutsideFiles, owner: Option<&Owner>) -> Result<Root, RestoreError> {
    super::make_empty(&files.directory)?;
    let mut root = Root::open(&files.directory, owner)?;
    root.set_mode(0o700)?;
    for (path, content) in &files.contents.0 {
        if let Some((parent, _)) = path.rsplit_once('/') {
            root.make_dirs(parent.as_bytes(), 0o700)?;
        }
        root.replace(path.as_bytes(), content, 0o600)?;
    }
    Ok(root)
}

impl OutsideFiles {
    /// The `postgresql.conf` among them, relative to their directory.
    pub(super) fn main(&self) -> Option<&[u8]> {
        let path = self.config_file.as_ref()?.strip_prefix(&self.directory).ok()?;
        Some(path.as_os_str().as_bytes())
    }
}
