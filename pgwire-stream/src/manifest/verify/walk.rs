//! The directory, against the manifest: what is there and should not be.

use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;

use super::paths::{Ignored, PathSet, is_tablespace_link, joined, located};
use super::{Discrepancy, Problem, VerifyError};

/// Reports what the manifest does not list, and what can be in no manifest. Holds the paths of the
/// directories that are still to be read.
///
/// # Errors
/// If the directory itself cannot be read.
pub(super) fn walk(
    root: &Path,
    ignored: &Ignored<'_>,
    listed: &PathSet,
    report: &mut impl FnMut(Problem),
) -> Result<(), VerifyError> {
    let mut waiting = vec![Vec::new()];
    while let Some(directory) = waiting.pop() {
        let Some(on_disk) = located(root, &directory) else { continue };
        let entries = match fs::read_dir(&on_disk) {
            Ok(entries) => entries,
            Err(error) if directory.is_empty() => {
                return Err(VerifyError::io("read", root, &error));
            }
            Err(error) => {
                report(Discrepancy::unreadable(&error).of(&directory));
                continue;
            }
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    report(Discrepancy::unreadable(&error).of(&directory));
                    break;
                }
            };
            let path = joined(&directory, &entry.file_name());
            if ignored.covers(&path) {
                continue;
            }
            match kind(&entry, &path) {
                Ok(Kind::Directory) => waiting.push(path),
                Ok(Kind::File) if listed.contains(&path) => {}
                Ok(Kind::File) => report(Discrepancy::Extra.of(&path)),
                Ok(Kind::Other) => report(Discrepancy::NotAFile.of(&path)),
                Err(error) => report(Discrepancy::unreadable(&error).of(&path)),
            }
        }
    }
    Ok(())
}

enum Kind {
    Directory,
    File,
    Other,
}

fn kind(entry: &DirEntry, path: &[u8]) -> io::Result<Kind> {
    let file_type = entry.file_type()?;
    Ok(if file_type.is_file() {
        Kind::File
    } else if file_type.is_dir()
        || (file_type.is_symlink() && is_tablespace_link(path, &entry.path())?)
    {
        Kind::Directory
    } else {
        Kind::Other
    })
}
