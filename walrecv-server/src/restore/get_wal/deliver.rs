//! Putting a file of WAL where it is wanted.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::error::{GetWalError, read_error, storage_error, wrong_length};

/// How much is read and written at a time.
const BUFFER: usize = 256 * 1024;

/// Writes `length` bytes of WAL to `destination`: all of them or nothing.
///
/// A file comes under a temporary name in the same directory first, because PostgreSQL takes a file of the
/// wrong size under the right name for a reason to stop. Not synced: PostgreSQL fetches the file
/// again if it loses it.
///
/// # Errors
/// If there are fewer or more bytes, they are damaged, or they cannot be written.
pub fn deliver(
    name: &str,
    source: &mut dyn Read,
    length: u64,
    destination: &Path,
) -> Result<(), GetWalError> {
    // What is no file, such as a pipe or the link `/dev/stdout`, is written to and not replaced.
    if fs::symlink_metadata(destination).is_ok_and(|found| !found.is_file()) {
        let file = OpenOptions::new().append(true).open(destination);
        let file = file.map_err(|source| storage_error("write to", destination, source))?;
        return write_whole(name, source, length, file, destination);
    }
    let mut temporary_name = OsString::from(".");
    temporary_name.push(destination.file_name().unwrap_or_default());
    temporary_name.push(".tmp");
    let temporary = destination.with_file_name(temporary_name);
    let delivered = write_new(name, source, length, &temporary).and_then(|()| {
        fs::rename(&temporary, destination)
            .map_err(|source| storage_error("rename to", destination, source))
    });
    if delivered.is_err() {
        // A leftover does no harm: the next attempt writes over it.
        let _ = fs::remove_file(&temporary);
    }
    delivered
}

fn write_new(
    name: &str,
    source: &mut dyn Read,
    length: u64,
    path: &Path,
) -> Result<(), GetWalError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| storage_error("create", path, source))?;
    write_whole(name, source, length, file, path)
}

/// Writes `length` bytes, and reads to the end of what there is, which verifies it.
pub(super) fn write_whole(
    name: &str,
    source: &mut dyn Read,
    length: u64,
    mut file: File,
    path: &Path,
) -> Result<(), GetWalError> {
    let mut buffer = vec![0; BUFFER];
    let mut written = 0;
    loop {
        let read = source.read(&mut buffer).map_err(|error| read_error(name, error))?;
        let bytes = buffer.get(..read).unwrap_or_default();
        written += bytes.len() as u64;
        if bytes.is_empty() || written > length {
            break;
        }
        file.write_all(bytes).map_err(|source| storage_error("write", path, source))?;
    }
    if written == length { Ok(()) } else { Err(wrong_length(name, written, length)) }
}
