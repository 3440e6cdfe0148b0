//! A base backup as a stream of events.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{ReplicationClient, explained};
use crate::proto::{
    BackupDecoder, BackupEnd, BackupEvent, BackupStart, BackupTablespace, BaseBackupOptions,
    Command,
};
use crate::{Feature, Misuse, Result, ServerError, Violation};

/// A base backup that is being received.
///
/// Success is [`finish`](Self::finish), and nothing before it: a server that found damaged pages
/// reports its error after the last byte.
pub struct BaseBackup<S = crate::net::Stream> {
    client: ReplicationClient<S>,
    decoder: BackupDecoder,
    start: BackupStart,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ReplicationClient<S> {
    /// Starts a base backup, and waits for the checkpoint that begins it.
    ///
    /// Not cancel-safe: the client is consumed, and dropping it ends the backup on the server.
    ///
    /// # Errors
    /// What the server reports, or if the connection fails. The client is lost with the error.
    /// [`Misuse`] for a verified backup after one that was not, where the server (11 to 14) does
    /// not verify any more.
    pub async fn base_backup(mut self, options: &BaseBackupOptions) -> Result<BaseBackup<S>> {
        if self.verification_is_off && options.verify_checksums {
            return Err(Misuse::Argument(
                "after a backup that verified no checksums, this server verifies none until one \
                 connects anew",
            )
            .into());
        }
        self.send(&Command::BaseBackup(options.clone())).await?;
        // The older grammar has no word to take it back.
        self.verification_is_off = !self.version.supports(Feature::OptionLists)
            && self.version.supports(Feature::ChecksumVerification)
            && !options.verify_checksums;
        let mut decoder = BackupDecoder::new(options, self.version);
        while !decoder.headers_complete() {
            receive(&mut self, &mut decoder).await?;
        }
        match decoder.start() {
            Some(start) => Ok(BaseBackup { client: self, decoder, start }),
            None => {
                decoder.end()?;
                Err(Violation::Backup("it has no start").into())
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> BaseBackup<S> {
    /// Where the backup begins.
    pub fn start(&self) -> BackupStart {
        self.start
    }

    /// The tablespaces and, last, the data directory.
    pub fn tablespaces(&self) -> &[BackupTablespace] {
        self.decoder.tablespaces()
    }

    /// The server's warnings so far, such as failed page checksums.
    pub fn warnings(&self) -> &[ServerError] {
        self.decoder.warnings()
    }

    /// The next event; `None` when the server has said its last word, which
    /// [`finish`](Self::finish) tells.
    ///
    /// Cancel-safe: nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// If the connection fails, or the server does not keep to the protocol.
    pub async fn next(&mut self) -> Result<Option<BackupEvent>> {
        loop {
            if let Some(event) = self.decoder.next_event() {
                return Ok(Some(event));
            }
            if self.decoder.is_finished() {
                return Ok(None);
            }
            receive(&mut self.client, &mut self.decoder).await?;
        }
    }

    /// Gives the client back, and where the backup ends.
    ///
    /// # Errors
    /// What the server reported, however late; [`Misuse::NotFinished`] before
    /// [`next`](Self::next) has given `None`.
    pub fn finish(self) -> Result<(ReplicationClient<S>, BackupEnd)> {
        if !self.decoder.is_finished() {
            return Err(Misuse::NotFinished.into());
        }
        let end = self.decoder.end()?;
        Ok((self.client, end))
    }

    /// Gives the client back after an error that the server reported, such as that the backup was
    /// cancelled, and that left the session usable: [`next`](Self::next) has given `None`, and
    /// [`finish`](Self::finish) would tell the error. `None` after any other failure.
    pub fn recover(self) -> Option<ReplicationClient<S>> {
        self.client.connection.session().is_idle().then_some(self.client)
    }

    /// The error that the server has reported, if it has.
    pub fn failure(&self) -> Option<&ServerError> {
        self.decoder.failure()
    }
}

/// Feeds the decoder with the next event.
async fn receive<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut ReplicationClient<S>,
    decoder: &mut BackupDecoder,
) -> Result<()> {
    match (client.next_event().await, decoder.failure()) {
        (Ok(event), _) => decoder.handle(event),
        (Err(error), Some(failure)) => Err(explained(error, failure.clone().into())),
        (Err(error), None) => Err(error),
    }
}
