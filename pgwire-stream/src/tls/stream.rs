//! The encrypted connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::rustls::ProtocolVersion;

use super::channel_binding;
use crate::TlsVersion;
use crate::net::TlsInUse;

/// A TLS connection to a server. What is written reaches the server only when it is flushed.
pub(crate) struct TlsStream {
    inner: Box<tokio_rustls::client::TlsStream<TcpStream>>,
    channel_binding: Option<Vec<u8>>,
}

impl TlsStream {
    pub(super) fn new(inner: tokio_rustls::client::TlsStream<TcpStream>) -> Self {
        let (_, session) = inner.get_ref();
        let channel_binding = session
            .peer_certificates()
            .and_then(|chain| chain.first())
            .and_then(|leaf| channel_binding::tls_server_end_point(leaf));
        Self { inner: Box::new(inner), channel_binding }
    }

    /// What was agreed on with the server.
    pub(crate) fn in_use(&self) -> Option<TlsInUse> {
        let (_, session) = self.inner.get_ref();
        let version = match session.protocol_version()? {
            ProtocolVersion::TLSv1_2 => TlsVersion::V1_2,
            ProtocolVersion::TLSv1_3 => TlsVersion::V1_3,
            _ => return None,
        };
        let cipher = session.negotiated_cipher_suite()?.suite();
        // rustls tells those of TLS 1.3 apart by a prefix that the standard does not have.
        let cipher = cipher.as_str().unwrap_or("unnamed").replacen("TLS13_", "TLS_", 1);
        Some(TlsInUse { version, cipher })
    }

    /// The data of `tls-server-end-point`, unless the server's certificate is of a kind for which
    /// none is defined.
    pub(crate) fn channel_binding(&self) -> Option<&[u8]> {
        self.channel_binding.as_deref()
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            // A server that crashes says no goodbye. Where the connection may end is known to
            // PostgreSQL's protocol, so that nobody can cut it short unnoticed.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Poll::Ready(Ok(()))
            }
            result => result,
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
