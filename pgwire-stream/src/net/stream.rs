//! The connection's bytes, whatever carries them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

#[cfg(feature = "tls")]
use crate::tls::TlsStream;
#[cfg(feature = "tls")]
use crate::{Endpoint, SslNegotiation};
use crate::{Result, SslCertMode, TlsError, TlsVersion};

#[cfg(feature = "tls")]
use super::TlsConfig;
use super::encryption::Encryption;
#[cfg(feature = "tls")]
use super::negotiate::{Answer, request_tls};
#[cfg(unix)]
use super::peer;
use super::route::Route;
use super::socket::{self, Address};

/// The TLS that a connection is encrypted with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsInUse {
    /// Its version.
    pub version: TlsVersion,
    /// The cipher suite, by its name in the standard.
    pub cipher: String,
}

/// A connection to a server, whatever carries it. What is written must be flushed to reach the
/// server.
pub struct Stream {
    carrier: Carrier,
    route: Route,
}

enum Carrier {
    /// TCP without TLS.
    Tcp(TcpStream),
    /// A Unix socket.
    #[cfg(unix)]
    Unix(UnixStream),
    /// TCP with TLS.
    #[cfg(feature = "tls")]
    Tls(TlsStream),
}

impl Stream {
    /// Connects to where the route leads, encrypted in one way.
    pub(super) async fn open(
        #[cfg_attr(not(feature = "tls"), expect(unused_mut))] mut route: Route,
        encryption: Encryption,
    ) -> Result<Self> {
        let carrier = match &route.address {
            Address::Tcp(address) => {
                let tcp = socket::connect_tcp(*address, &route.config.keepalive).await?;
                match encryption {
                    Encryption::Plain => Carrier::Tcp(tcp),
                    #[cfg(feature = "tls")]
                    Encryption::TlsIfOffered | Encryption::Tls => {
                        encrypt(&mut route, tcp, encryption).await?
                    }
                }
            }
            #[cfg(unix)]
            Address::Unix(path) => {
                let unix = socket::connect_unix(path).await?;
                if let Some(account) = &route.config.require_peer {
                    peer::check(&unix, account)?;
                }
                Carrier::Unix(unix)
            }
            #[cfg(not(unix))]
            Address::Unix(_) => return Err(io::Error::from(io::ErrorKind::Unsupported).into()),
        };
        let stream = Self { carrier, route };
        if !stream.is_tls() && stream.route.config.ssl_cert_mode == SslCertMode::Require {
            let reason = "the connection has no TLS";
            return Err(TlsError::CertificateNotUsed { reason }.into());
        }
        Ok(stream)
    }

    /// How it was made.
    pub(crate) fn route(&self) -> &Route {
        &self.route
    }

    /// Which TLS the connection is encrypted with.
    pub(crate) fn tls_in_use(&self) -> Option<TlsInUse> {
        match &self.carrier {
            Carrier::Tcp(_) => None,
            #[cfg(unix)]
            Carrier::Unix(_) => None,
            #[cfg(feature = "tls")]
            Carrier::Tls(tls) => tls.in_use(),
        }
    }

    /// Whether the connection is encrypted.
    pub(crate) fn is_tls(&self) -> bool {
        match self.carrier {
            Carrier::Tcp(_) => false,
            #[cfg(unix)]
            Carrier::Unix(_) => false,
            #[cfg(feature = "tls")]
            Carrier::Tls(_) => true,
        }
    }

    /// What a login can be bound to (`tls-server-end-point`); `None` without TLS, and where nothing
    /// is defined for the server's certificate.
    pub(crate) fn channel_binding(&self) -> Option<&[u8]> {
        match &self.carrier {
            Carrier::Tcp(_) => None,
            #[cfg(unix)]
            Carrier::Unix(_) => None,
            #[cfg(feature = "tls")]
            Carrier::Tls(stream) => stream.channel_binding(),
        }
    }
}

#[cfg(feature = "tls")]
async fn encrypt(route: &mut Route, mut tcp: TcpStream, encryption: Encryption) -> Result<Carrier> {
    // Before the server is asked for what we could not do.
    let tls = match &route.tls {
        Some(tls) => tls.clone(),
        // Files may take long to be read, and keys to be decrypted.
        None => {
            let config = route.config.clone();
            let read = tokio::task::spawn_blocking(move || TlsConfig::from_config(&config));
            read.await.map_err(io::Error::from)??
        }
    };
    let config = &route.config;
    if config.ssl_negotiation == SslNegotiation::Postgres {
        match request_tls(&mut tcp).await? {
            Answer::Tls => {}
            Answer::Plain if encryption == Encryption::TlsIfOffered => {
                return Ok(Carrier::Tcp(tcp));
            }
            Answer::Plain => {
                return Err(TlsError::Refused { mode: config.ssl_mode.as_str() }.into());
            }
        }
    }
    let name = match &route.host.endpoint {
        Endpoint::Tcp { name, .. } => name.as_str(),
        Endpoint::Unix(_) => "",
    };
    let stream = tls.handshake(config, name, tcp).await?;
    route.tls = Some(tls);
    Ok(Carrier::Tls(stream))
}

/// The same call for whatever carries the bytes.
macro_rules! each {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Carrier::Tcp($inner) => $call,
            #[cfg(unix)]
            Carrier::Unix($inner) => $call,
            #[cfg(feature = "tls")]
            Carrier::Tls($inner) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(&mut self.get_mut().carrier, inner => Pin::new(inner).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(&mut self.get_mut().carrier, inner => Pin::new(inner).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(&mut self.get_mut().carrier, inner => Pin::new(inner).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        each!(&self.carrier, inner => inner.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut self.get_mut().carrier, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut self.get_mut().carrier, inner => Pin::new(inner).poll_shutdown(cx))
    }
}
