//! TLS to the server, as libpq does it: which certificates are trusted, which names must match, and
//! what the login is bound to.
//!
//! The names of rustls stay inside this module. The cryptography is always passed explicitly, so
//! that the process' default, which belongs to the application, neither matters nor changes.
//!
//! Follows "SSL Support" in PostgreSQL's libpq documentation.

mod channel_binding;
mod client_cert;
mod issuer;
mod names;
mod pem;
mod roots;
mod stream;
#[cfg(test)]
pub(crate) mod test_server;
#[cfg(test)]
mod tests;
mod verify;

use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig};
use tokio::net::TcpStream;

use crate::{Config, Error, Result, TlsError};

pub(crate) use stream::TlsStream;

/// What PostgreSQL's protocol is called in TLS' protocol negotiation. Servers before 17 ignore it.
const PROTOCOL: &[u8] = b"postgresql";

/// Makes TLS connections as a [`Config`] demands.
#[derive(Clone)]
pub(crate) struct TlsConnector {
    inner: tokio_rustls::TlsConnector,
}

impl TlsConnector {
    /// Reads the certificate and key files that `config` names.
    pub(crate) fn new(config: &Config) -> Result<Self> {
        let provider = Arc::new(provider()?);
        let verifier = verify::ServerVerifier::new(config, &provider)?;
        let identity = client_cert::load(config, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(handshake)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut client = match identity {
            Some(identity) => builder.with_client_cert_resolver(Arc::new(identity)),
            None => builder.with_no_client_auth(),
        };
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        // PostgreSQL keeps no TLS sessions.
        client.resumption = Resumption::disabled();
        Ok(Self { inner: Arc::new(client).into() })
    }

    /// Makes `tcp` a TLS connection to the server called `name`, which is sent to the server unless
    /// it is an address, and is what `verify-full` finds in the certificate.
    pub(crate) async fn handshake(&self, name: &str, tcp: TcpStream) -> Result<TlsStream> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Handshake {
            reason: format!("`{name}` cannot be the name of a TLS server"),
        })?;
        match self.inner.connect(name, tcp).await {
            Ok(stream) => Ok(TlsStream::new(stream)),
            Err(error) => Err(match explain(error) {
                Error::Io(error) => TlsError::Handshake { reason: broken(&error) }.into(),
                error => error,
            }),
        }
    }
}

/// The cryptography that the features provide.
fn provider() -> Result<CryptoProvider, TlsError> {
    #[cfg(feature = "aws-lc-rs")]
    return Ok(rustls::crypto::aws_lc_rs::default_provider());
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    return Ok(rustls::crypto::ring::default_provider());
    #[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
    Err(TlsError::Handshake { reason: "this build has neither `aws-lc-rs` nor `ring`".into() })
}

/// Tells TLS' own failures from the network's in what reading and writing give. A server refuses a
/// client's certificate only after the handshake, so this matters there too.
pub(crate) fn explain(error: io::Error) -> Error {
    match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(cause)) => {
            TlsError::Certificate { reason: unacceptable(cause) }.into()
        }
        Some(cause) => handshake(cause.clone()).into(),
        None => Error::Io(error),
    }
}

fn handshake(cause: rustls::Error) -> TlsError {
    TlsError::Handshake { reason: cause.to_string() }
}

fn broken(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the server closed the connection".into(),
        _ => error.to_string(),
    }
}

fn unacceptable(cause: &CertificateError) -> String {
    match cause {
        CertificateError::UnknownIssuer => "it leads to none of the trusted root certificates",
        CertificateError::BadSignature => "its signature is wrong",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired",
        CertificateError::BadEncoding => "it is malformed",
        CertificateError::NotValidForNameContext { expected, presented } => {
            let presented = match &presented[..] {
                [] => "it has no name".into(),
                names => format!("its names are: {}", names.join(", ")),
            };
            return format!("it is not for `{}`; {presented}", expected.to_str());
        }
        CertificateError::Other(cause) => return cause.0.to_string(),
        cause => return cause.to_string(),
    }
    .into()
}
