//! What was received, file by file, kept on disk until the manifest comes.
//!
//! The manifest is the last thing that a server sends, and has the files in the order in which
//! they were sent. Kept in the same order, the results merge with it one by one, and memory does
//! not grow with the number of files. The spool has no name on disk: it is gone with the program.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::storage::StorageError;

/// Longer than any path in a tar header of PostgreSQL, and than any digest.
const FIELD_LIMIT: usize = 4096;

/// A regular file as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReceivedFile {
    /// The path below the data directory, as manifests have it.
    pub(super) path: Vec<u8>,
    pub(super) size: u64,
    /// Seconds since 1970.
    pub(super) modified: u64,
    /// Empty if no checksum is computed.
    pub(super) digest: Vec<u8>,
}

/// The spool while files are received.
#[derive(Debug)]
pub(super) struct SpoolWriter {
    file: BufWriter<File>,
    directory: PathBuf,
    files: u64,
}

impl SpoolWriter {
    /// An empty spool on the file system of `directory`.
    pub(super) fn new(directory: &Path) -> Result<Self, StorageError> {
        let file = tempfile::tempfile_in(directory)
            .map_err(StorageError::of("make a temporary file in", directory))?;
        Ok(Self { file: BufWriter::new(file), directory: directory.to_owned(), files: 0 })
    }

    pub(super) fn push(&mut self, received: &ReceivedFile) -> Result<(), StorageError> {
        self.files += 1;
        let mut put = || {
            self.file.write_all(&received.size.to_le_bytes())?;
            self.file.write_all(&received.modified.to_le_bytes())?;
            for field in [&received.path, &received.digest] {
                let length = u16::try_from(field.len()).map_err(io::Error::other)?;
                self.file.write_all(&length.to_le_bytes())?;
                self.file.write_all(field)?;
            }
            Ok(())
        };
        put().map_err(StorageError::of("write a temporary file in", &self.directory))
    }

    /// Everything is received.
    pub(super) fn into_reader(self) -> Result<SpoolReader, StorageError> {
        let rewind = |writer: BufWriter<File>| {
            let mut file = writer.into_inner().map_err(|error| error.into_error())?;
            file.rewind()?;
            Ok(BufReader::new(file))
        };
        let file = rewind(self.file)
            .map_err(StorageError::of("write a temporary file in", &self.directory))?;
        Ok(SpoolReader { file, directory: self.directory, left: self.files })
    }
}

/// The spool while it is merged with the manifest.
#[derive(Debug)]
pub(super) struct SpoolReader {
    file: BufReader<File>,
    directory: PathBuf,
    left: u64,
}

impl SpoolReader {
    /// The next file in the order in which they were received.
    pub(super) fn next(&mut self) -> Result<Option<ReceivedFile>, StorageError> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        let received =
            self.read().map_err(StorageError::of("read a temporary file in", &self.directory))?;
        Ok(Some(received))
    }

    fn read(&mut self) -> io::Result<ReceivedFile> {
        Ok(ReceivedFile {
            size: self.number()?,
            modified: self.number()?,
            path: self.field()?,
            digest: self.field()?,
        })
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn field(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 2];
        self.file.read_exact(&mut length)?;
        let length = usize::from(u16::from_le_bytes(length));
        if length > FIELD_LIMIT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut field = vec![0; length];
        self.file.read_exact(&mut field)?;
        Ok(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_back_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let files: Vec<ReceivedFile> = (0..500u64)
            .map(|n| ReceivedFile {
                path: format!("base/1/{n}").into_bytes(),
                size: n * 8192,
                modified: 1_772_723_493 + n,
                digest: if n % 7 == 0 { Vec::new() } else { n.to_le_bytes().to_vec() },
            })
            .collect();
        let mut spool = SpoolWriter::new(directory.path()).unwrap();
        for file in &files {
            spool.push(file).unwrap();
        }
        let mut reader = spool.into_reader().unwrap();
        let read: Vec<ReceivedFile> = std::iter::from_fn(|| reader.next().unwrap()).collect();
        assert_eq!(read, files);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
