//! Starting a stream: `START_REPLICATION`, physical and logical.

use tokio::io::{AsyncRead, AsyncWrite};

use super::wal_stream::Kind;
use super::{ReplicationClient, WalStream};
use crate::proto::{StartLogical, StartReplication};
use crate::{Error, Result};

impl<S: AsyncRead + AsyncWrite + Unpin> ReplicationClient<S> {
    /// Starts physical streaming. A server that has nothing on the timeline from this position
    /// gives an empty stream that ends with
    /// [`StreamEnd::NextTimeline`](crate::StreamEnd::NextTimeline).
    ///
    /// The server is asked `IDENTIFY_SYSTEM` first, unless that was done on this connection.
    ///
    /// Not cancel-safe: the client is consumed.
    ///
    /// # Errors
    /// [`Error::Timeout`] if there is no answer within the receive limit, or the command timeout
    /// if that is shorter. What the server reports: [`Error::is_slot_missing`],
    /// [`Error::is_slot_in_use`], [`Error::is_wal_removed`], a position that is not in the
    /// server's history (XX000). Some of these come only from the first [`WalStream::next`]. The
    /// client is lost with the error.
    pub async fn start_replication(
        mut self,
        mut options: StartReplication,
    ) -> Result<WalStream<S>> {
        let identified = self.identified_timeline().await?;
        // Left to the server it could be a newer one, and nothing in the stream would tell.
        let timeline = *options.timeline.get_or_insert(identified);
        let kind = Kind::Physical { timeline };
        self.send(&options.command()).await?;
        let (from, flushed) = (options.from, options.already_flushed);
        begin(WalStream::new(self, kind, from, flushed, options.intervals)).await
    }

    /// Starts logical streaming, on a connection made by
    /// [`connect_database`](ReplicationClient::connect_database). What the output plugin writes
    /// comes as [`WalData`](crate::WalData), and is not looked into.
    ///
    /// A logical stream is confirmed as a physical one is, by
    /// [`Progress::flushed`](crate::Progress::flushed), and may be confirmed up to the
    /// `server_end` of a keepalive once all that came before it is durable: the server skips what
    /// the slot does not want, and would otherwise keep WAL that nobody misses. It starts where
    /// the slot was confirmed last, if that is behind `from`.
    ///
    /// Not cancel-safe: the client is consumed.
    ///
    /// # Errors
    /// As [`start_replication`](Self::start_replication); 55000 on a physical connection or slot;
    /// what the output plugin says of its options. The client is lost with the error.
    pub async fn start_logical_replication(
        mut self,
        options: StartLogical,
    ) -> Result<WalStream<S>> {
        // Servers up to 14 want to be asked who they are before any stream.
        self.identified_timeline().await?;
        self.send(&options.command()).await?;
        let (from, flushed) = (options.from, options.already_flushed);
        begin(WalStream::new(self, Kind::Logical, from, flushed, options.intervals)).await
    }
}

async fn begin<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: WalStream<S>,
) -> Result<WalStream<S>> {
    match stream.receive_limit() {
        None => stream.begin().await?,
        Some(limit) => tokio::time::timeout(limit, stream.begin())
            .await
            .map_err(|_| Error::Timeout { what: "waiting for the stream to begin", limit })??,
    }
    Ok(stream)
}
