//! How much was received of a segment that is not complete.
//!
//! The file is as long as that, unless the receiver has put zeros ahead of it; see
//! [`AHEAD`].

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::storage::StorageError;

/// Zeros are put ahead of what is received so that the file's length is a multiple of this, or
/// the size of the segment.
pub const AHEAD: u64 = 1 << 20;

/// Records begin at multiples of this, so one that ends with zeros goes on to the next.
const ALIGNMENT: u64 = 8;

/// How much is read at a time when looking for the end.
const STEP: u64 = 64 << 10;

/// How much of a `.partial` segment was received; `None` if there is no such file.
///
/// Where there may be zeros ahead, that is up to behind the last byte that is not zero: perhaps a
/// few bytes less than was received, for as long as more keeps coming.
///
/// # Errors
/// If it cannot be read.
pub fn received_length(path: &Path, segment_size: u64) -> Result<Option<u64>, StorageError> {
    let look = || -> io::Result<u64> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        if !length.is_multiple_of(AHEAD) && length != segment_size {
            return Ok(length);
        }
        Ok(end_of_content(&file, length)?.next_multiple_of(ALIGNMENT).min(length))
    };
    match look() {
        Ok(length) => Ok(Some(length)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StorageError::of("read", path)(error)),
    }
}

/// The length of a file up to its last byte that is not zero. A crash of the machine may leave
/// zeros where bytes were on their way to the disk.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn length_without_zeros(path: &Path) -> Result<u64, StorageError> {
    let scan = || {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        end_of_content(&file, length)
    };
    scan().map_err(StorageError::of("read", path))
}

fn end_of_content(file: &File, length: u64) -> io::Result<u64> {
    let mut end = length;
    let mut buffer = vec![0; STEP as usize];
    while end > 0 {
        let from = end.saturating_sub(STEP);
        let chunk = buffer.get_mut(..(end - from) as usize).unwrap_or_default();
        file.read_exact_at(chunk, from)?;
        if let Some(last) = chunk.iter().rposition(|&byte| byte != 0) {
            return Ok(from + last as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn trailing_zeros_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        for (length, zeros) in [(0, 0), (0, 100_000), (1, 0), (70_000, 200_000), (65_536, 65_536)] {
            let mut content = vec![7; length];
            content.resize(length + zeros, 0);
            fs::write(&path, content).unwrap();
            assert_eq!(length_without_zeros(&path).unwrap(), length as u64);
        }
    }

    #[test]
    fn only_what_may_be_ahead_of_its_content_is_looked_through() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let received = |length: u64, content: usize| {
            let mut bytes = vec![7; content];
            bytes.resize(length as usize, 0);
            fs::write(&path, bytes).unwrap();
            received_length(&path, 16 * AHEAD).unwrap().unwrap()
        };
        assert_eq!(received(2 * AHEAD, 100), 104);
        assert_eq!(received(AHEAD, AHEAD as usize), AHEAD);
        // As long as what was received, which ends with zeros.
        assert_eq!(received(AHEAD + 64, 100), AHEAD + 64);
        assert_eq!(received(0, 0), 0);
        fs::remove_file(&path).unwrap();
        assert_eq!(received_length(&path, AHEAD).unwrap(), None);
    }
}
