//! Small JSON files that say which version of their format they are.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::storage::{Access, StorageError, durable};

/// More than any of them needs: what is larger was not written by this program.
const MAX_SIZE: u64 = 64 << 20;

/// Why such a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It was written by a later version of this program.
    #[error("`{}` has format {found}, and this program knows format {known}", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// The format it says it has.
        found: u64,
        /// The format that is known.
        known: u64,
    },
    /// It is not what this program writes.
    #[error("`{}` is damaged", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It is too large to be what this program writes.
    #[error("`{}` is damaged: it has {size} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// It cannot be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Failure for DocumentError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownFormat { .. } => {
                Some("use the version of walrecv-server that wrote it, or a later one".to_owned())
            }
            Self::Malformed { .. } | Self::TooLarge { .. } => None,
            Self::Storage(error) => error.hint(),
        }
    }
}

#[derive(Deserialize)]
struct Format {
    format: u64,
}

#[derive(Serialize)]
struct Versioned<'a, T> {
    format: u64,
    #[serde(flatten)]
    content: &'a T,
}

/// Reads a document; `None` if there is none.
pub(super) fn load<T: DeserializeOwned>(
    path: &Path,
    known: u64,
) -> Result<Option<T>, DocumentError> {
    let mut text = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_SIZE + 1).read_to_end(&mut text)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StorageError::of("read", path)(error).into()),
    }
    if text.len() as u64 > MAX_SIZE {
        return Err(DocumentError::TooLarge { path: path.to_owned(), size: text.len() as u64 });
    }
    let malformed = |source| DocumentError::Malformed { path: path.to_owned(), source };
    // The format first: what it means for the rest is not known before.
    let Format { format: found } = serde_json::from_slice(&text).map_err(malformed)?;
    if found != known {
        return Err(DocumentError::UnknownFormat { path: path.to_owned(), found, known });
    }
    serde_json::from_slice(&text).map(Some).map_err(malformed)
}

/// Writes a document in place of the one that is there.
pub(super) fn save<T: Serialize>(
    path: &Path,
    format: u64,
    content: &T,
    access: Access,
) -> Result<(), DocumentError> {
    Ok(durable::write_file(path, &encode(path, format, content)?, access)?)
}

/// Writes a document unless there is one.
pub(super) fn save_new<T: Serialize>(
    path: &Path,
    format: u64,
    content: &T,
    access: Access,
) -> Result<durable::Put, DocumentError> {
    Ok(durable::put_if_absent(path, &encode(path, format, content)?, access)?)
}

fn encode<T: Serialize>(path: &Path, format: u64, content: &T) -> Result<Vec<u8>, DocumentError> {
    let mut text = serde_json::to_vec_pretty(&Versioned { format, content })
        .map_err(|source| DocumentError::Malformed { path: path.to_owned(), source })?;
    text.push(b'\n');
    Ok(text)
}
