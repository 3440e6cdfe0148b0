//! Writing what only the recipients can read.

use std::io::{self, Write};

use age::Encryptor;
use age::stream::StreamWriter;

use crate::settings::Recipient;

/// Encrypts what is written to it, into any sink; or passes it on, if there is nobody to encrypt
/// it to.
///
/// Nothing is complete before [`finish`](Self::finish): dropped without it, the file does not
/// decrypt.
pub struct EncryptedWriter<W: Write> {
    inner: Inner<W>,
}

enum Inner<W: Write> {
    Plain(W),
    Encrypted(Box<StreamWriter<W>>),
}

impl<W: Write> EncryptedWriter<W> {
    /// Encrypts to each of the recipients, under a key that only this file has.
    ///
    /// # Errors
    /// If the header cannot be written.
    pub fn new(sink: W, recipients: &[Recipient]) -> io::Result<Self> {
        if recipients.is_empty() {
            return Ok(Self { inner: Inner::Plain(sink) });
        }
        let recipients = recipients.iter().map(|recipient| recipient.key() as &dyn age::Recipient);
        let encryptor = Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
        let stream = encryptor.wrap_output(sink)?;
        Ok(Self { inner: Inner::Encrypted(Box::new(stream)) })
    }

    /// Completes the file and gives back the sink.
    ///
    /// # Errors
    /// If what is left cannot be written.
    pub fn finish(self) -> io::Result<W> {
        match self.inner {
            Inner::Plain(sink) => Ok(sink),
            Inner::Encrypted(stream) => stream.finish(),
        }
    }
}

impl<W: Write> Write for EncryptedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Plain(sink) => sink.write(bytes),
            Inner::Encrypted(stream) => stream.write(bytes),
        }
    }

    /// Flushes the sink; the chunk that is being filled stays as it is.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.inner {
            Inner::Plain(sink) => sink.flush(),
            Inner::Encrypted(stream) => stream.flush(),
        }
    }
}
