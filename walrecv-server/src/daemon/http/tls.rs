//! TLS for those who come from elsewhere. The certificate may be renewed while the daemon runs.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::reread::Reread;

/// A certificate and its key, in their files.
pub(super) struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    config: Reread<ServerConfig>,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("`{}` cannot be used", path.display())]
    Pem { path: PathBuf, source: pem::Error },
    #[error("`{}` and `{}` do not go together", certificate.display(), key.display())]
    Pair { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    #[error(transparent)]
    Handshake(#[from] io::Error),
}

impl Tls {
    pub(super) fn new(certificate: PathBuf, key: PathBuf) -> Self {
        let config = Reread::new(vec![certificate.clone(), key.clone()]);
        Self { certificate, key, config }
    }

    /// The server's half of a handshake.
    pub(super) async fn accept(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, TlsError> {
        let config = self.config.get(|| self.read()).inspect_err(|error| {
            let source = std::error::Error::source(error).map(ToString::to_string);
            tracing::error!(error = %error, source, "no TLS");
        })?;
        Ok(TlsAcceptor::from(config).accept(stream).await?)
    }

    fn read(&self) -> Result<ServerConfig, TlsError> {
        let bad = |path: &PathBuf| {
            let path = path.clone();
            move |source| TlsError::Pem { path, source }
        };
        let chain: Vec<_> = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect)
            .map_err(bad(&self.certificate))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(bad(&self.key))?;
        let pair = |source| {
            let (certificate, key) = (self.certificate.clone(), self.key.clone());
            TlsError::Pair { certificate, key, source }
        };
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(pair)?
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .map_err(pair)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}
