//! The control socket's door: anybody on the machine may knock, and nobody can fill the house.
//!
//! Who is told apart only when something is asked; but a connection costs a file descriptor
//! already, and a daemon without any left cannot open its WAL segments.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};

/// How many connections of each user are served at a time.
const MOST_OF_EACH: usize = 32;

type Inside = Arc<Mutex<HashMap<u32, usize>>>;

/// Accepts a bounded number of connections from each user.
pub(super) struct Door {
    listener: UnixListener,
    inside: Inside,
}

impl Door {
    pub(super) fn new(listener: UnixListener) -> Self {
        Self { listener, inside: Inside::default() }
    }

    /// `None` if there are too many of this user, or the kernel does not say who it is.
    fn admit(&self, stream: UnixStream) -> Option<Visitor> {
        let uid = stream.peer_cred().ok()?.uid();
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let count = inside.entry(uid).or_default();
        if *count >= MOST_OF_EACH {
            tracing::warn!(uid, "a user has too many connections to the control socket");
            return None;
        }
        *count += 1;
        Some(Visitor { stream, uid, inside: Arc::clone(&self.inside) })
    }
}

impl Listener for Door {
    type Io = Visitor;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Visitor, SocketAddr) {
        loop {
            // Its own errors it logs itself, and waits where that helps.
            let (stream, address) = Listener::accept(&mut self.listener).await;
            if let Some(visitor) = self.admit(stream) {
                return (visitor, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that was let in.
pub(super) struct Visitor {
    stream: UnixStream,
    uid: u32,
    inside: Inside,
}

impl Visitor {
    /// Who it is, as the kernel says.
    pub(super) fn uid(&self) -> u32 {
        self.uid
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = inside.get_mut(&self.uid) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                inside.remove(&self.uid);
            }
        }
    }
}

impl AsyncRead for Visitor {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Visitor {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn one_user_cannot_fill_the_house() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let mut door = Door::new(UnixListener::bind(&path).unwrap());
        let mut callers = Vec::new();
        let mut inside = Vec::new();
        for _ in 0..MOST_OF_EACH {
            callers.push(UnixStream::connect(&path).await.unwrap());
            inside.push(door.accept().await.0);
        }
        let mut refused = UnixStream::connect(&path).await.unwrap();
        let next = tokio::spawn(async move { door.accept().await.0 });
        assert_eq!(refused.read(&mut [0]).await.unwrap(), 0);
        inside.pop();
        let _served = UnixStream::connect(&path).await.unwrap();
        assert_eq!(next.await.unwrap().uid(), inside[0].uid());
    }
}
