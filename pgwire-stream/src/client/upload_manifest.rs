//! `UPLOAD_MANIFEST`: what the next incremental backup is built on.

use std::io;
use std::pin::pin;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{ReplicationClient, within};
use crate::proto::{Command, Event};
use crate::{Error, Result, Violation};

/// How much is sent in one message.
const PIECE: usize = 64 << 10;

impl<S: AsyncRead + AsyncWrite + Unpin> ReplicationClient<S> {
    /// Uploads the manifest of the backup that the next
    /// [`incremental`](crate::BaseBackupOptions::incremental) one of this connection is built on
    /// (servers from 17 on). It is sent byte for byte, whatever the pieces; at most 64 KiB and the
    /// piece at hand are in memory. A later upload replaces it.
    ///
    /// Cancel-safe in that the client stays usable: the next command first tells the server that
    /// the manifest will not be complete. The server then has none.
    ///
    /// # Errors
    /// What the server reports: that it cannot use the manifest, which it may find out before the
    /// last piece, or that the role or the server's settings do not allow it.
    /// [`Error::ManifestSource`] if `manifest` gives an error; the server is told, and then has
    /// none. After both the client can be used. Otherwise, if the connection fails.
    pub async fn upload_manifest(
        &mut self,
        manifest: impl Stream<Item = io::Result<Bytes>>,
    ) -> Result<()> {
        self.send(&Command::UploadManifest).await?;
        let failure = match self.copy_in_begins().await? {
            Some(refusal) => Some(refusal),
            None => self.copy_in(manifest).await?,
        };
        self.collect(&Command::UploadManifest, failure).await.map(drop)
    }

    /// Waits until the server listens. Why it does not, if so.
    async fn copy_in_begins(&mut self) -> Result<Option<Error>> {
        loop {
            match self.next_event().await? {
                Event::CopyIn => return Ok(None),
                Event::Error(error) => return Ok(Some(error.into())),
                event => ignorable(&event)?,
            }
        }
    }

    /// Sends the manifest to its end. Why it did not come to that, if so, and the server can go on.
    async fn copy_in(
        &mut self,
        manifest: impl Stream<Item = io::Result<Bytes>>,
    ) -> Result<Option<Error>> {
        let mut manifest = pin!(manifest);
        loop {
            // A server that cannot use the manifest says so as soon as it knows.
            while let Some(event) = self.connection.buffered_event()? {
                match event {
                    Event::Error(error) => return Ok(Some(error.into())),
                    event => ignorable(&event)?,
                }
            }
            tokio::select! {
                biased;
                received = self.connection.receive() => received?,
                piece = manifest.next() => match piece {
                    Some(Ok(piece)) => {
                        for piece in piece.chunks(PIECE) {
                            self.connection.copy_data(piece)?;
                            let (limit, what) = (self.command_timeout, self.command);
                            within(limit, what, self.connection.send()).await?;
                        }
                    }
                    Some(Err(error)) => {
                        self.connection.copy_fail("the manifest cannot be read")?;
                        return Ok(Some(Error::ManifestSource(error)));
                    }
                    None => {
                        self.connection.copy_done()?;
                        return Ok(None);
                    }
                },
            }
        }
    }
}

/// Only notices may come while a manifest is uploaded.
fn ignorable(event: &Event) -> Result<()> {
    match event {
        Event::Notice(_) => Ok(()),
        _ => {
            let message = "something else than an error".to_owned();
            Err(Violation::Unexpected { message, state: "receiving a manifest" }.into())
        }
    }
}
