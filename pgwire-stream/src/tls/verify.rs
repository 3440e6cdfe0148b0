//! How far a server's certificate is believed, by `sslmode`.
//!
//! The handshake's signatures are verified in every mode: the peer always owns the key of the
//! certificate that it shows, which channel binding rests on.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::{Config, ConfigError, Result, SslMode};

use super::issuer;
use super::names::Names;
use super::revocation::RevocationLists;
use super::roots::Roots;

/// Verifies server certificates as one `sslmode` demands.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    trust: Trust,
    revoked: Option<RevocationLists>,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
enum Trust {
    /// Whoever answers.
    Anybody,
    /// Whoever has a certificate that leads to these roots.
    Chain(Roots),
    /// The same, if the certificate names the host.
    ChainAndName(Roots),
}

impl ServerVerifier {
    pub(super) fn new(config: &Config, provider: &CryptoProvider) -> Result<Self> {
        let trust = match (config.ssl_mode, &config.ssl_root_cert) {
            // `prefer` would go on without TLS where the chain is wrong, which helps nobody.
            (SslMode::Disable | SslMode::Allow | SslMode::Prefer, _) => Trust::Anybody,
            (SslMode::Require, None) => Trust::Anybody,
            // libpq does so since the time when it was the only way to have the chain verified.
            (SslMode::Require | SslMode::VerifyCa, Some(source)) => {
                Trust::Chain(Roots::load(source)?)
            }
            (SslMode::VerifyFull, Some(source)) => Trust::ChainAndName(Roots::load(source)?),
            (SslMode::VerifyCa | SslMode::VerifyFull, None) => {
                return Err(ConfigError::Conflict(
                    "sslmode=verify-ca and verify-full need root certificates: set sslrootcert to \
                     their file, or to `system` with verify-full"
                        .into(),
                )
                .into());
            }
        };
        let revoked = match trust {
            Trust::Anybody => None,
            Trust::Chain(_) | Trust::ChainAndName(_) => RevocationLists::load(config)?,
        };
        Ok(Self { trust, revoked, algorithms: provider.signature_verification_algorithms })
    }

    fn verify_chain(
        &self,
        roots: &Roots,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let certificate = parse(leaf)?;
        let is_root = roots.include(leaf);
        if self.revoked.is_some() && (is_root || issuer::is_version_1(&certificate)) {
            // webpki can look up neither.
            return Err(CertificateError::UnknownRevocationStatus.into());
        }
        // The usual self-signed certificate is its own root. webpki would have none of it, because
        // such a certificate says that it is an authority.
        if is_root {
            return issuer::verify_dates(&certificate, now);
        }
        let anchors = roots.anchors(now);
        if anchors.is_empty() {
            let cause = "no trusted root certificate is valid now and may sign others";
            let cause = Box::<dyn std::error::Error + Send + Sync>::from(cause);
            return Err(CertificateError::Other(OtherError(cause.into())).into());
        }
        if issuer::is_version_1(&certificate) {
            let authorities = roots.authorities(now);
            return issuer::verify_version_1(&certificate, authorities, now, self.algorithms);
        }
        let links = roots.links(intermediates);
        let verified = verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(leaf)?,
            &anchors,
            &links,
            now,
            self.algorithms.all,
        );
        // webpki's complaint about other people's self-signed certificates is about their form.
        if verified.is_err() && issuer::is_self_issued(&certificate) {
            return Err(CertificateError::UnknownIssuer.into());
        }
        verified?;
        match &self.revoked {
            Some(lists) => lists.check(leaf, &links, &anchors, now, self.algorithms),
            None => Ok(()),
        }
    }
}

fn parse(certificate: &CertificateDer<'_>) -> Result<Certificate, Error> {
    Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding.into())
}

fn verify_name(leaf: &CertificateDer<'_>, host: &ServerName<'_>) -> Result<(), Error> {
    let names = Names::of(&parse(leaf)?).map_err(|_| CertificateError::BadEncoding)?;
    if names.include(&host.to_str()) {
        return Ok(());
    }
    Err(CertificateError::NotValidForNameContext {
        expected: host.to_owned(),
        presented: names.listed(),
    }
    .into())
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.trust {
            Trust::Anybody => {}
            Trust::Chain(roots) => self.verify_chain(roots, leaf, intermediates, now)?,
            Trust::ChainAndName(roots) => {
                self.verify_chain(roots, leaf, intermediates, now)?;
                verify_name(leaf, host)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match parse(leaf) {
            Ok(certificate) if issuer::is_version_1(&certificate) => {
                issuer::verify_tls12_signature(message, &certificate, signed, self.algorithms)
            }
            _ => rustls::crypto::verify_tls12_signature(message, leaf, signed, &self.algorithms),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match parse(leaf) {
            Ok(certificate) if issuer::is_version_1(&certificate) => {
                issuer::verify_tls13_signature(message, &certificate, signed, self.algorithms)
            }
            _ => rustls::crypto::verify_tls13_signature(message, leaf, signed, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
