//! Small JSON files that say which version of their format they are, and carry a checksum of what
//! they say: a flipped bit in a number would make another number.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::storage::durable::{AtomicFile, Put};
use crate::storage::{Access, Crc32c, StorageError, durable};

/// More than any of them needs: what is larger was not written by this program.
const MAX_SIZE: u64 = 64 << 20;

/// The member that has the checksum of all others. Files that were written before there was one
/// have none.
const CHECKSUM: &str = "crc32c";

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
    /// It does not say any more what was written.
    #[error("`{}` was altered: it does not match its checksum", path.display())]
    Altered {
        /// The file.
        path: PathBuf,
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
            Self::Malformed { .. } | Self::TooLarge { .. } | Self::Altered { .. } => None,
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

#[derive(Serialize)]
struct Checked<'a, T> {
    #[serde(flatten)]
    versioned: Versioned<'a, T>,
    #[serde(rename = "crc32c")]
    checksum: Crc32c,
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
    let mut content: Map<String, Value> = serde_json::from_slice(&text).map_err(malformed)?;
    if let Some(noted) = content.remove(CHECKSUM)
        && noted != checksum(&content).to_string()
    {
        return Err(DocumentError::Altered { path: path.to_owned() });
    }
    serde_json::from_value(Value::Object(content)).map(Some).map_err(malformed)
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
) -> Result<Put, DocumentError> {
    Ok(durable::put_if_absent(path, &encode(path, format, content)?, access)?)
}

/// Writes a document that must not be there yet, and that nobody else can lock, before it has its
/// name, until the file that is returned is dropped.
pub(super) fn save_new_locked<T: Serialize>(
    path: &Path,
    format: u64,
    content: &T,
    access: Access,
) -> Result<File, DocumentError> {
    let mut file = AtomicFile::create(path, access)?;
    file.write_all(&encode(path, format, content)?).map_err(StorageError::of("write", path))?;
    let locked = file.file().try_clone().map_err(StorageError::of("lock", path))?;
    match file.commit_new()? {
        Put::Stored => Ok(locked),
        Put::Exists => {
            Err(StorageError::of("create", path)(io::ErrorKind::AlreadyExists.into()).into())
        }
    }
}

fn encode<T: Serialize>(path: &Path, format: u64, content: &T) -> Result<Vec<u8>, DocumentError> {
    let malformed = |source| DocumentError::Malformed { path: path.to_owned(), source };
    let versioned = Versioned { format, content };
    let written = serde_json::to_value(&versioned).map_err(malformed)?;
    let checksum = written.as_object().map(checksum).unwrap_or_default();
    let mut text =
        serde_json::to_vec_pretty(&Checked { versioned, checksum }).map_err(malformed)?;
    text.push(b'\n');
    Ok(text)
}

/// The checksum of what a document says, however it is laid out: its members come in the order of
/// their names.
fn checksum(content: &Map<String, Value>) -> Crc32c {
    let mut text = String::new();
    put_sorted(content, &mut text);
    Crc32c::of(text.as_bytes())
}

fn put_sorted(members: &Map<String, Value>, text: &mut String) {
    let members: BTreeMap<_, _> = members.iter().collect();
    text.push('{');
    for (name, value) in members {
        text.push_str(name);
        text.push(':');
        put(value, text);
    }
    text.push('}');
}

fn put(value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => put_sorted(members, text),
        Value::Array(values) => {
            text.push('[');
            values.iter().for_each(|value| put(value, text));
            text.push(']');
        }
        plain => text.push_str(&format!("{plain},")),
    }
}
