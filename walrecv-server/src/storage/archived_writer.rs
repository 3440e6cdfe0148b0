//! From plain WAL to a file of the archive, in one pass.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::compression::{CompressedWriter, Method, Workers};
use super::durable::AtomicFile;
use super::encryption::EncryptedWriter;
use super::{Access, Crc32cWriter, Form, HashingWriter, Plain, StorageError, Stored};
use crate::settings::Recipient;

/// How a file is packed: compressed, and then encrypted if there is anybody to encrypt it to.
#[derive(Clone, Debug)]
pub struct Packing {
    method: Method,
    recipients: Arc<[Recipient]>,
    /// Of all that is packed so.
    workers: Workers,
}

impl Packing {
    /// Compresses by this method, and encrypts to these recipients; to none, if there are none.
    pub fn new(method: Method, recipients: &[Recipient]) -> Self {
        Self { method, recipients: recipients.into(), workers: Workers::default() }
    }

    /// To the same recipients, compressed by another method, and so by other threads.
    #[must_use]
    pub fn with_method(&self, method: Method) -> Self {
        Self { method, workers: Workers::default(), ..self.clone() }
    }

    /// How it compresses.
    pub fn method(&self) -> Method {
        self.method
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
        let encrypted = EncryptedWriter::new(sink, &self.recipients)?;
        CompressedWriter::with_workers(encrypted, self.method, &self.workers)
    }
}

/// Writes a file of the archive.
///
/// ```text
/// plain bytes ─▶ size, CRC-32C ─▶ compressor ─▶ age ─▶ size, SHA-256 ─▶ sink
/// ```
///
/// Nothing is complete before [`finish`](Self::finish), and nothing has the file's name before it
/// is committed.
pub struct ArchivedWriter<W: Write> {
    plain: Crc32cWriter<CompressedWriter<EncryptedWriter<HashingWriter<W>>>>,
}

impl<W: Write> ArchivedWriter<W> {
    /// A file that is to become `target`, whose name must be that of the packing's form; what
    /// comes out goes through this sink into it.
    ///
    /// # Errors
    /// If it cannot be made, or another process is writing it.
    pub fn create(
        target: &Path,
        access: Access,
        packing: &Packing,
        sink: impl FnOnce(AtomicFile) -> W,
    ) -> Result<Self, StorageError> {
        let sink = HashingWriter::new(sink(AtomicFile::create(target, access)?));
        let packed = packing.writer(sink).map_err(StorageError::of("write", target))?;
        Ok(Self { plain: Crc32cWriter::new(packed) })
    }

    /// Completes the file: what went in, what came out, and the sink, whose file is to be
    /// committed.
    ///
    /// # Errors
    /// If what is left cannot be written.
    pub fn finish(self) -> io::Result<(Plain, Stored, W)> {
        let (packed, plain) = self.plain.finish();
        let (encrypted, _) = packed.finish()?;
        let (sink, stored) = encrypted.finish()?.finish();
        Ok((plain, stored, sink))
    }
}

impl<W: Write> Write for ArchivedWriter<W> {
    fn write(&mut self, plain: &[u8]) -> io::Result<usize> {
        self.plain.write(plain)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.plain.flush()
    }
}
