//! Events as a [`Stream`], for those who combine streams.

use futures::Stream;
use futures::stream::try_unfold;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{BaseBackup, WalEvent, WalStream};
use crate::Result;
use crate::proto::BackupEvent;

impl<S: AsyncRead + AsyncWrite + Unpin> WalStream<S> {
    /// What [`next`](Self::next) brings, as a stream that ends with it, or with its first error.
    /// It can be dropped at any time, and begun anew: nothing is lost.
    ///
    /// A stream that is not polled is silent, and takes no [`hold`](Self::hold) either: it is for
    /// consumers that are quick, or behind a [spawned stream](crate::SpawnedWalStream).
    pub fn events(&mut self) -> impl Stream<Item = Result<WalEvent>> {
        try_unfold(self, |stream| async { Ok(stream.next().await?.map(|event| (event, stream))) })
    }
}

#[cfg(feature = "tokio-rt")]
impl<S: AsyncRead + AsyncWrite + Unpin> super::SpawnedWalStream<S> {
    /// What [`next`](Self::next) brings, as a stream that ends with it, or with its first error.
    /// It can be dropped at any time, and begun anew: nothing is lost.
    pub fn events(&mut self) -> impl Stream<Item = Result<WalEvent>> {
        try_unfold(self, |stream| async { Ok(stream.next().await?.map(|event| (event, stream))) })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> BaseBackup<S> {
    /// What [`next`](Self::next) brings, as a stream that ends with it, or with its first error.
    /// It can be dropped at any time, and begun anew: nothing is lost.
    pub fn events(&mut self) -> impl Stream<Item = Result<BackupEvent>> {
        try_unfold(self, |backup| async { Ok(backup.next().await?.map(|event| (event, backup))) })
    }
}
