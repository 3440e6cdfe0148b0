//! Encrypted files that the stock program `age` opens.
//!
//! What is stored is encrypted to public keys. Their secret halves are needed to read it and for
//! nothing else, so that the host that stores it need not have them: neither its thief nor its
//! administrator reads a byte of what it has put away. Each file has a key of its own, which its
//! header holds once for each recipient, and its bytes are authenticated in chunks of 64 KiB, the
//! last of which says that it is the last: a file that was altered, or cut anywhere, does not
//! decrypt.
//!
//! The catalog has an `Identity` of its own, a cluster's. Here, what age calls an identity is a
//! key, and an identity file a [`KeyFile`].

mod error;
mod key_file;
mod writer;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use error::DecryptionError;
pub use key_file::KeyFile;
pub use writer::EncryptedWriter;

use super::{Form, StorageError, compression};

/// Reads the plain bytes of a file that is stored in this form; the keys are asked for only if it
/// is encrypted.
///
/// # Errors
/// If it cannot be opened, or none of the keys opens it.
pub fn open(
    path: &Path,
    form: Form,
    keys: Option<&KeyFile>,
) -> Result<Box<dyn Read + Send>, DecryptionError> {
    // Before the keys are missed: whoever finds the file gone looks elsewhere.
    let file = File::open(path).map_err(StorageError::of("open", path))?;
    reader(path, file, form, keys)
}

/// The same, from the bytes of that file.
///
/// # Errors
/// If none of the keys opens it.
pub fn reader<'a>(
    path: &Path,
    stored: impl Read + Send + 'a,
    form: Form,
    keys: Option<&KeyFile>,
) -> Result<Box<dyn Read + Send + 'a>, DecryptionError> {
    let compressed = compressed(path, stored, form, keys)?;
    Ok(compression::reader(compressed, form.codec).map_err(StorageError::of("open", path))?)
}

/// The compressed bytes, from the bytes of that file.
///
/// # Errors
/// If none of the keys opens it.
pub fn compressed<'a>(
    path: &Path,
    stored: impl Read + Send + 'a,
    form: Form,
    keys: Option<&KeyFile>,
) -> Result<Box<dyn Read + Send + 'a>, DecryptionError> {
    match (form.encrypted, keys) {
        (false, _) => Ok(Box::new(stored)),
        (true, Some(keys)) => Ok(Box::new(keys.decrypt(path, stored)?)),
        (true, None) => Err(DecryptionError::NoKeys { path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests;
