//! What a raw file of WAL is to one in the archive: byte by byte where the archived one can be
//! read, and by the checksums of its record where it is encrypted to somebody else.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::catalog::WalIndexRecord;
use crate::storage::{DecryptionError, Form, KeyFile, Plain, StorageError, durable, encryption};

/// How much is read at a time.
const CHUNK: usize = 256 << 10;

/// How two files with WAL of the same segment compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Same,
    /// The raw one goes on where the archived one ends.
    RawIsLonger,
    ArchivedIsLonger,
    Different,
}

/// Reads both.
pub(super) fn compare(
    raw: &Path,
    archived: &Path,
    form: Form,
    keys: Option<&KeyFile>,
) -> Result<Comparison, DecryptionError> {
    let mut left = File::open(raw).map_err(StorageError::of("open", raw))?;
    let mut right = encryption::open(archived, form, keys)?;
    let (mut a, mut b) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let a = fill(&mut left, &mut a).map_err(StorageError::of("read", raw))?;
        let b = fill(&mut right, &mut b).map_err(StorageError::of("read", archived))?;
        if a == b {
            if a.is_empty() {
                return Ok(Comparison::Same);
            }
        } else if a.starts_with(b) {
            return Ok(Comparison::RawIsLonger);
        } else if b.starts_with(a) {
            return Ok(Comparison::ArchivedIsLonger);
        } else {
            return Ok(Comparison::Different);
        }
    }
}

/// Fills the buffer as far as the source goes.
pub(super) fn fill<'a>(source: &mut impl Read, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(buffer.get(..filled).unwrap_or_default())
}

/// Reads the raw one only; `None` if it goes less far than the record, whose checksum is that of
/// all the archived WAL and says nothing of a part.
pub(super) fn compare_with_record(
    raw: &Path,
    record: &WalIndexRecord,
) -> Result<Option<Comparison>, StorageError> {
    let read = |source| StorageError::of("read", raw)(source);
    let mut file = File::open(raw).map_err(StorageError::of("open", raw))?;
    let beginning = Plain::of_reader((&mut file).take(record.plain_size)).map_err(read)?;
    if beginning.size < record.plain_size {
        return Ok(None);
    }
    if beginning.crc32c != record.plain_crc32c {
        return Ok(Some(Comparison::Different));
    }
    let more = durable::file_size(raw)?.is_some_and(|size| size > record.plain_size);
    Ok(Some(if more { Comparison::RawIsLonger } else { Comparison::Same }))
}
