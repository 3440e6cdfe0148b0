//! The plain bytes of a stored archive, by as many threads as have something to do.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::num::NonZeroUsize;

use super::archive_index::{IndexLine, IndexedMember, IndexedPath};
use super::backup_record::Archive;
use crate::storage::compression::{self, read_frames};
use crate::storage::{
    BackupDir, Codec, DecryptionError, Frame, KeyFile, Pieces, Sha256Sum, StorageError, encryption,
    read_ahead, tar,
};

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

/// Reads the content of one file in an archive. `None` if it is not in it, or the index that would
/// tell where is not what was written.
///
/// Reads no more of an archive with frames than those that the file lies in; of any other, all that
/// is in front of it. An encrypted one is decrypted from its beginning.
///
/// # Errors
/// If the archive cannot be opened, decrypted or read up to there.
pub fn open_member(
    backup: &BackupDir,
    archive: &Archive,
    path: &[u8],
    keys: Option<&KeyFile>,
) -> Result<Option<Box<dyn Read + Send>>, DecryptionError> {
    let wanted = IndexedPath::of(path);
    let mut frame = Frame::default();
    let mut found = None;
    for line in lines(backup, archive).into_iter().flatten() {
        let stored = backup.archive_index(&archive.name);
        match line.map_err(StorageError::of("read", &stored))? {
            IndexLine::Frame(next) if found.is_none() => frame = next,
            // A member may be noted before the frame that it begins in is.
            IndexLine::Frame(next)
                if found.as_ref().is_some_and(|m: &IndexedMember| next.plain_offset <= m.at) =>
            {
                frame = next;
            }
            IndexLine::Member(member) if member.path == wanted => found = Some(member),
            _ => {}
        }
    }
    let Some(member) = found else { return Ok(None) };
    if archive.codec == Codec::Gzip || archive.by_server {
        frame = Frame::default();
    }
    let stored = backup.archive(&archive.name, archive.form());
    let skipped = |error| StorageError::of("read", &stored)(error);
    let file = File::open(&stored).map_err(StorageError::of("open", &stored))?;
    let compressed: Box<dyn Read + Send> = if archive.encrypted {
        let mut compressed = encryption::compressed(&stored, file, archive.form(), keys)?;
        skip(&mut compressed, frame.stored_offset).map_err(skipped)?;
        compressed
    } else {
        let mut file = file;
        file.seek(SeekFrom::Start(frame.stored_offset)).map_err(skipped)?;
        Box::new(file)
    };
    let mut plain = compression::reader(compressed, archive.codec).map_err(skipped)?;
    let content = (member.at + tar::HEADER_SIZE as u64).saturating_sub(frame.plain_offset);
    skip(&mut plain, content).map_err(skipped)?;
    Ok(Some(Box::new(plain.take(member.size))))
}

fn skip(reader: &mut impl Read, bytes: u64) -> io::Result<()> {
    let skipped = io::copy(&mut reader.take(bytes), &mut io::sink())?;
    if skipped == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Where the frames of an archive lie, if it has some and its index can be believed.
fn frames(
    backup: &BackupDir,
    archive: &Archive,
) -> Option<impl Iterator<Item = io::Result<Frame>> + use<>> {
    if !matches!(archive.codec, Codec::Zstd | Codec::Lz4) || archive.by_server {
        return None;
    }
    let frame = |line: io::Result<IndexLine>| match line {
        Ok(IndexLine::Frame(frame)) => Some(Ok(frame)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    };
    Some(lines(backup, archive)?.filter_map(frame))
}

/// What is in the index of an archive, if that is what was written.
fn lines(
    backup: &BackupDir,
    archive: &Archive,
) -> Option<impl Iterator<Item = io::Result<IndexLine>> + use<>> {
    let noted = archive.index?;
    let path = backup.archive_index(&archive.name);
    let found = File::open(&path).and_then(Sha256Sum::of_reader).ok()?;
    if found != noted {
        tracing::warn!(path = %path.display(), "the index is damaged");
        return None;
    }
    let mut lines = BufReader::new(File::open(&path).ok()?);
    Some(std::iter::from_fn(move || next_line(&mut lines).transpose()))
}

fn next_line(lines: &mut impl BufRead) -> io::Result<Option<IndexLine>> {
    let mut line = Vec::new();
    match lines.take(MAX_LINE).read_until(b'\n', &mut line)? {
        0 => Ok(None),
        _ => Ok(Some(serde_json::from_slice(&line)?)),
    }
}
