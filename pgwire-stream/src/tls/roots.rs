//! Which certificates a server's must lead to.
//!
//! As for OpenSSL, a chain ends at a certificate that has signed itself, is an authority, and is
//! valid now. The others in the file are links of chains, and judged as if the server had sent them.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::{self, Decode};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};

use crate::{RootCert, TlsError};

use super::{issuer, pem};

const WHAT: &str = "root certificate file";

/// The trusted certificates.
#[derive(Debug)]
pub(super) struct Roots {
    /// Those that have signed themselves; at least one.
    roots: Vec<Root>,
    /// The others.
    intermediates: Vec<CertificateDer<'static>>,
}

#[derive(Debug)]
struct Root {
    der: CertificateDer<'static>,
    certificate: Certificate,
    /// For building chains, if it may sign others.
    authority: Option<TrustAnchor<'static>>,
}

impl Roots {
    pub(super) fn load(source: &RootCert) -> Result<Self, TlsError> {
        match source {
            RootCert::File(path) => Self::from_file(path),
            RootCert::System => Self::from_system(),
        }
    }

    fn from_file(path: &Path) -> Result<Self, TlsError> {
        let mut roots = Self { roots: Vec::new(), intermediates: Vec::new() };
        for certificate in pem::certificates(WHAT, path)? {
            roots.add(certificate).map_err(|reason| pem::unusable(WHAT, path, reason))?;
        }
        if roots.roots.is_empty() {
            let reason = "no certificate in it has signed itself, as roots have";
            return Err(pem::unusable(WHAT, path, reason));
        }
        Ok(roots)
    }

    #[cfg(feature = "native-certs")]
    fn from_system() -> Result<Self, TlsError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = Self { roots: Vec::new(), intermediates: Vec::new() };
        for certificate in found.certs {
            // Old bundles have certificates that nothing can use; they take nothing from the others.
            let _ = roots.add(certificate);
        }
        if roots.roots.is_empty() {
            let reason = match found.errors.first() {
                Some(error) => error.to_string(),
                None => "it has none".into(),
            };
            return Err(system(reason));
        }
        Ok(roots)
    }

    #[cfg(not(feature = "native-certs"))]
    fn from_system() -> Result<Self, TlsError> {
        Err(system("this build cannot read them (feature `native-certs`)".into()))
    }

    fn add(&mut self, der: CertificateDer<'static>) -> Result<(), String> {
        let certificate = Certificate::from_der(&der).map_err(|error| error.to_string())?;
        if !issuer::is_self_issued(&certificate) {
            self.intermediates.push(der);
            return Ok(());
        }
        let authority = if is_authority(&certificate).map_err(|error| error.to_string())? {
            let anchor = webpki::anchor_from_trusted_cert(&der);
            Some(anchor.map_err(|error| error.to_string())?.to_owned())
        } else {
            None
        };
        self.roots.push(Root { der, certificate, authority });
        Ok(())
    }

    /// Whether the certificate is one of the roots itself.
    pub(super) fn include(&self, leaf: &CertificateDer<'_>) -> bool {
        self.roots.iter().any(|root| root.der.as_ref() == leaf.as_ref())
    }

    /// Those that may sign others.
    pub(super) fn authorities(&self, now: UnixTime) -> impl Iterator<Item = &Certificate> {
        self.usable(now).map(|(certificate, _)| certificate)
    }

    /// The same, for building chains.
    pub(super) fn anchors(&self, now: UnixTime) -> RootCertStore {
        self.usable(now).map(|(_, anchor)| anchor.clone()).collect()
    }

    fn usable(&self, now: UnixTime) -> impl Iterator<Item = (&Certificate, &TrustAnchor<'static>)> {
        let is_valid = move |root: &&Root| issuer::verify_dates(&root.certificate, now).is_ok();
        self.roots
            .iter()
            .filter(is_valid)
            .filter_map(|root| Some((&root.certificate, root.authority.as_ref()?)))
    }

    /// What chains may be built of: what the server sent, and what is at hand.
    pub(super) fn links<'a>(&'a self, sent: &'a [CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
        let links = sent.iter().chain(&self.intermediates);
        links.map(|certificate| CertificateDer::from(certificate.as_ref())).collect()
    }
}

/// Whether it may sign others, by OpenSSL's rule for roots (`check_ca`).
fn is_authority(certificate: &Certificate) -> der::Result<bool> {
    let certificate = certificate.tbs_certificate();
    let signs = certificate.get_extension::<KeyUsage>()?.map(|(_, usage)| usage.key_cert_sign());
    Ok(match (signs, certificate.get_extension::<BasicConstraints>()?) {
        (Some(false), _) => false,
        (_, Some((_, constraints))) => constraints.ca,
        (signs, None) => signs == Some(true) || certificate.version() == Version::V1,
    })
}

fn system(reason: String) -> TlsError {
    TlsError::File { what: "root certificates of the", path: "system".into(), reason }
}
