//! The plain bytes of a stored archive, by as many threads as have something to do.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::num::NonZeroUsize;

use super::archive_index::IndexLine;
use super::backup_record::Archive;
use crate::storage::compression::{self, read_frames};
use crate::storage::{BackupDir, Codec, Frame, Pieces, Sha256Sum, StorageError, read_ahead};

/// Longer than any line that is written.
const MAX_LINE: u64 = 64 << 10;

/// Reads what is compressed in an archive to its end, while `work` takes what is there already.
///
/// Where the archive has frames, and its index is still what was written, `workers` threads
/// decompress; one does otherwise.
///
/// # Errors
/// If the codec cannot be set up. What is wrong with the archive, the pieces tell.
pub fn read_archive<'a, T>(
    backup: &BackupDir,
    archive: &Archive,
    compressed: impl Read + Send + 'a,
    workers: NonZeroUsize,
    work: impl FnOnce(Pieces<'_>) -> T,
) -> Result<T, StorageError> {
    let codec = archive.codec;
    match frames(backup, archive) {
        Some(frames) => Ok(read_frames(compressed, codec, frames, workers, work)),
        None => {
            let path = backup.archive(&archive.name, archive.form());
            let plain = compression::reader(compressed, codec);
            let plain = plain.map_err(StorageError::of("open", &path))?;
            Ok(read_ahead(plain, work))
        }
    }
}

/// Where the frames of an archive lie, if it has some and its index can be believed.
fn frames(
    backup: &BackupDir,
    archive: &Archive,
) -> Option<impl Iterator<Item = io::Result<Frame>> + use<>> {
    if !matches!(archive.codec, Codec::Zstd | Codec::Lz4) || archive.by_server {
        return None;
    }
    let noted = archive.index?;
    let path = backup.archive_index(&archive.name);
    let found = File::open(&path).and_then(Sha256Sum::of_reader).ok()?;
    if found != noted {
        tracing::warn!(path = %path.display(), "the index is damaged; reading with one thread");
        return None;
    }
    let mut lines = BufReader::new(File::open(&path).ok()?);
    Some(std::iter::from_fn(move || next_frame(&mut lines).transpose()))
}

fn next_frame(lines: &mut impl BufRead) -> io::Result<Option<Frame>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if let IndexLine::Frame(frame) = serde_json::from_slice(&line)? {
            return Ok(Some(frame));
        }
    }
}
