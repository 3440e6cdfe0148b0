//! Looking into an archive that the server has compressed: it is stored as it comes, and unpacked
//! beside that by a thread, only to be looked into.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use bytes::{Buf, Bytes};

use super::BackupError;
use super::look::{Look, Looked};
use crate::storage::{Codec, compression};

/// How much is unpacked at a time.
const PIECE: usize = 256 << 10;

/// How many messages may wait to be unpacked. A server sends some 32 KiB in one.
const MESSAGES: usize = 32;

/// An archive that is unpacked while it comes.
pub(super) struct Unpacking {
    name: String,
    bytes: SyncSender<Bytes>,
    thread: JoinHandle<Result<Looked, BackupError>>,
}

impl Unpacking {
    /// Begins to unpack an archive.
    pub(super) fn start(look: Look, codec: Codec, name: &str) -> Result<Self, BackupError> {
        let (bytes, arriving) = sync_channel(MESSAGES);
        let archive = name.to_owned();
        let thread = thread::Builder::new()
            .name("unpack".to_owned())
            .spawn(move || unpack(look, codec, Arriving::new(arriving), &archive))
            .map_err(|source| BackupError::Unpack { archive: name.to_owned(), source })?;
        Ok(Self { name: name.to_owned(), bytes, thread })
    }

    /// Takes the next bytes of the compressed archive. An error of the thread is told at the end.
    pub(super) fn feed(&self, bytes: Bytes) -> Result<(), ()> {
        self.bytes.send(bytes).map_err(drop)
    }

    /// There are no more bytes, or nobody wanted them any more.
    pub(super) fn finish(self) -> Result<Looked, BackupError> {
        let Self { name: archive, bytes, thread } = self;
        drop(bytes);
        thread.join().unwrap_or_else(|_| {
            let source = io::Error::other("the unpacking was lost");
            Err(BackupError::Unpack { archive, source })
        })
    }
}

fn unpack(
    mut look: Look,
    codec: Codec,
    arriving: Arriving,
    archive: &str,
) -> Result<Looked, BackupError> {
    let failed = |source| BackupError::Unpack { archive: archive.to_owned(), source };
    let mut plain = compression::reader(arriving, codec).map_err(failed)?;
    let mut piece = vec![0; PIECE];
    loop {
        match plain.read(&mut piece) {
            Ok(0) => return look.finish(),
            Ok(read) => look.feed(piece.get(..read).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// What comes, as something to read from.
struct Arriving {
    messages: Receiver<Bytes>,
    rest: Bytes,
}

impl Arriving {
    fn new(messages: Receiver<Bytes>) -> Self {
        Self { messages, rest: Bytes::new() }
    }
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.messages.recv() {
                Ok(message) => self.rest = message,
                Err(_) => return Ok(0),
            }
        }
        let length = buffer.len().min(self.rest.len());
        self.rest.copy_to_slice(buffer.get_mut(..length).unwrap_or_default());
        Ok(length)
    }
}
