//! TLS to the server, as libpq does it: which certificates are trusted, which names must match, and
//! what the login is bound to.
//!
//! The names of rustls stay inside this module, except that applications may bring a configuration
//! of their own. The cryptography is always passed explicitly, so
//! that the process' default, which belongs to the application, neither matters nor changes.
//!
//! Follows "SSL Support" in PostgreSQL's libpq documentation.

mod certificate_demand;
mod channel_binding;
mod client_cert;
mod encrypted_key;
mod issuer;
mod key_log;
mod names;
mod pem;
mod revocation;
mod roots;
mod stream;
#[cfg(test)]
pub(crate) mod test_server;
#[cfg(test)]
mod tests;
mod verify;

use std::fmt;
use std::io;
use std::net::Ipv6Addr;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, SupportedProtocolVersion};
use tokio::net::TcpStream;

use crate::{
    Config, ConfigError, Error, Result, SslCertMode, SslMode, SslNegotiation, TlsError, TlsVersion,
};

use certificate_demand::CertificateDemand;
use key_log::KeyLogFile;

pub(crate) use stream::TlsStream;

/// What PostgreSQL's protocol is called in TLS' protocol negotiation. Servers before 17 ignore it.
const PROTOCOL: &[u8] = b"postgresql";

/// How TLS connections are made: what the files say that a [`Config`] names, or another
/// configuration of rustls.
///
/// For [`ReplicationClient::connect_with`](crate::ReplicationClient::connect_with), where the files
/// should be read once only, or the server is to be verified in a way of one's own.
#[derive(Clone)]
pub struct TlsConfig {
    client: Arc<ClientConfig>,
    /// What servers are verified for; `None` where the application decides.
    mode: Option<SslMode>,
}

impl TlsConfig {
    /// Reads the certificate, key and revocation files that `config` names, and blocks meanwhile.
    /// Connections with a stronger `sslmode` than its own will refuse to use what was read.
    ///
    /// # Errors
    /// [`Error::Tls`] for files that cannot be used, [`Error::Config`] for options that contradict
    /// each other.
    pub fn from_config(config: &Config) -> Result<Self> {
        config.check()?;
        let provider = Arc::new(provider()?);
        let verifier = verify::ServerVerifier::new(config, &provider)?;
        let identity = client_cert::load(config, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions(config))
            .map_err(handshake)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut client = match identity {
            Some(identity) => builder.with_client_cert_resolver(Arc::new(identity)),
            None => builder.with_no_client_auth(),
        };
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        client.enable_sni = config.ssl_sni;
        if let Some(path) = &config.ssl_key_log_file {
            let log = KeyLogFile::open(path)
                .map_err(|error| pem::unusable("TLS key log file", path, error))?;
            client.key_log = Arc::new(log);
        }
        // PostgreSQL keeps no TLS sessions.
        client.resumption = Resumption::disabled();
        Ok(Self { client: Arc::new(client), mode: Some(config.ssl_mode) })
    }

    /// TLS by this configuration of rustls, which decides about everything that concerns
    /// certificates, names, versions and keys: of a [`Config`], `sslmode` then only decides whether
    /// TLS is asked for, and `sslnegotiation` how; `sslcertmode=require` works too. The protocol
    /// that it offers (ALPN) is always `postgresql`.
    pub fn custom(client: Arc<ClientConfig>) -> Self {
        let mut client = Arc::unwrap_or_clone(client);
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        Self { client: Arc::new(client), mode: None }
    }

    /// Makes `tcp` a TLS connection to the server called `name`, which is sent to the server unless
    /// it is an address, and is what `verify-full` finds in the certificate.
    pub(crate) async fn handshake(
        &self,
        config: &Config,
        name: &str,
        tcp: TcpStream,
    ) -> Result<TlsStream> {
        if let Some(mode) = self.mode
            && mode < config.ssl_mode
        {
            return Err(ConfigError::Conflict(format!(
                "TLS was configured for `sslmode={}`, which is too weak for `sslmode={}`",
                mode.as_str(),
                config.ssl_mode.as_str()
            ))
            .into());
        }
        let server = match ServerName::try_from(without_zone(name).to_owned()) {
            Ok(server) => server,
            // It is sent to nobody and compared with nothing.
            Err(_) if self.mode.is_some_and(|mode| mode < SslMode::VerifyFull) => {
                tcp.peer_addr()?.ip().into()
            }
            Err(_) => {
                let reason = format!("none can be for `{name}`, by TLS' rules for names");
                return Err(TlsError::Certificate { reason }.into());
            }
        };
        let direct = config.ssl_negotiation == SslNegotiation::Direct;
        let demand = match config.ssl_cert_mode {
            SslCertMode::Require => Some(CertificateDemand::of(&self.client)),
            SslCertMode::Disable | SslCertMode::Allow => None,
        };
        let client = demand.as_ref().map_or(&self.client, CertificateDemand::client).clone();
        let stream = match tokio_rustls::TlsConnector::from(client).connect(server, tcp).await {
            Ok(stream) => stream,
            Err(error) => {
                return Err(match explain(error) {
                    Error::Io(error) => {
                        TlsError::Handshake { reason: broken(&error, direct) }.into()
                    }
                    error => error,
                });
            }
        };
        let (_, session) = stream.get_ref();
        // Another protocol than ours cannot have been selected: rustls would have refused it.
        if direct && session.alpn_protocol() != Some(PROTOCOL) {
            let reason = "the server did not select the protocol `postgresql`".into();
            return Err(TlsError::Handshake { reason }.into());
        }
        if let Some(demand) = demand {
            demand.check()?;
        }
        Ok(TlsStream::new(stream))
    }
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig").finish_non_exhaustive()
    }
}

/// The zone of an address (`fe80::1%eth0`) means something to this machine alone.
fn without_zone(name: &str) -> &str {
    match name.split_once('%') {
        Some((address, _)) if address.parse::<Ipv6Addr>().is_ok() => address,
        _ => name,
    }
}

fn versions(config: &Config) -> Vec<&'static SupportedProtocolVersion> {
    let allowed = config.ssl_min_protocol_version..=config.ssl_max_protocol_version;
    [(TlsVersion::V1_3, &rustls::version::TLS13), (TlsVersion::V1_2, &rustls::version::TLS12)]
        .into_iter()
        .filter_map(|(version, supported)| allowed.contains(&version).then_some(supported))
        .collect()
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

fn broken(error: &io::Error, direct: bool) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset if direct => {
            "the server closed the connection; before PostgreSQL 17, none can do \
             sslnegotiation=direct"
                .into()
        }
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
        CertificateError::Revoked => "it has been revoked",
        CertificateError::UnknownRevocationStatus => {
            "no certificate revocation list says whether it has been revoked"
        }
        CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => {
            "the certificate revocation list is out of date"
        }
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
