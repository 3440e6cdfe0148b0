//! Reading certificate files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use crate::TlsError;

/// More than any bundle of certificates has.
const LIMIT: u64 = 16 << 20;

/// The certificates in a PEM file, of which there is at least one.
pub(super) fn certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = File::open(path).and_then(read).map_err(|error| unusable(what, path, error))?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(what, path, error))?;
    if found.is_empty() {
        return Err(unusable(what, path, "there is no certificate in it"));
    }
    Ok(found)
}

/// The whole of an opened file, wiped from memory when dropped.
pub(super) fn read(file: File) -> io::Result<Zeroizing<Vec<u8>>> {
    let length = file.metadata()?.len();
    if length > LIMIT {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is too large"));
    }
    // With room for all of it, no copy of a key stays behind in memory that was outgrown.
    let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1));
    file.take(LIMIT).read_to_end(&mut text)?;
    Ok(text)
}

/// `path` cannot be used as a `what`.
pub(super) fn unusable(what: &'static str, path: &Path, reason: impl ToString) -> TlsError {
    TlsError::File { what, path: path.display().to_string(), reason: reason.to_string() }
}
