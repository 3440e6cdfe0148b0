//! From plain WAL to a file of the archive, in one pass.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::compression::{CompressedWriter, Method};
use super::durable::AtomicFile;
use super::encryption::EncryptedWriter;
use super::{Access, Form, HashingWriter, StorageError, Stored};
use crate::settings::Recipient;

/// How a file is packed: compressed, and then encrypted if there is anybody to encrypt it to.
#[derive(Clone, Debug)]
pub struct Packing {
    method: Method,
    recipients: Arc<[Recipient]>,
}

impl Packing {
    /// Compresses by this method, and encrypts to these recipients; to none, if there are none.
    pub fn new(method: Method, recipients: &[Recipient]) -> Self {
        Self { method, recipients: recipients.into() }
    }

    /// The form in which a file is then stored.
    pub fn form(&self) -> Form {
        Form { codec: self.method.codec, encrypted: !self.recipients.is_empty() }
    }

    /// Packs what is written to it, into this sink.
    ///
    /// # Errors
    /// If the codec refuses its settings, or the beginning cannot be written.
    pub fn writer<W: Write>(&self, sink: W) -> io::Result<CompressedWriter<EncryptedWriter<W>>> {
        CompressedWriter::new(EncryptedWriter::new(sink, &self.recipients)?, self.method)
    }
}

/// Writes a file of the archive.
///
/// ```text
/// plain bytes ─▶ size, hash ─▶ compressor ─▶ age ─▶ size, hash ─▶ AtomicFile
/// ```
///
/// Nothing has the file's name before it is committed, and nothing is complete before
/// [`finish`](Self::finish).
pub struct ArchivedWriter {
    plain: HashingWriter<CompressedWriter<EncryptedWriter<HashingWriter<AtomicFile>>>>,
}

impl ArchivedWriter {
    /// A file that is to become `target`, whose name must be that of the packing's form.
    ///
    /// # Errors
    /// If it cannot be made, or another process is writing it.
    pub fn create(target: &Path, access: Access, packing: &Packing) -> Result<Self, StorageError> {
        let file = HashingWriter::new(AtomicFile::create(target, access)?);
        let packed = packing.writer(file).map_err(StorageError::of("write", target))?;
        Ok(Self { plain: HashingWriter::new(packed) })
    }

    /// How many plain bytes were written so far.
    pub fn size(&self) -> u64 {
        self.plain.size()
    }

    /// Completes the file: what went in, what came out, and the file, to be committed.
    ///
    /// # Errors
    /// If what is left cannot be written.
    pub fn finish(self) -> io::Result<(Stored, Stored, AtomicFile)> {
        let (packed, plain) = self.plain.finish();
        let (encrypted, _) = packed.finish()?;
        let (file, stored) = encrypted.finish()?.finish();
        Ok((plain, stored, file))
    }
}

impl Write for ArchivedWriter {
    fn write(&mut self, plain: &[u8]) -> io::Result<usize> {
        self.plain.write(plain)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.plain.flush()
    }
}
