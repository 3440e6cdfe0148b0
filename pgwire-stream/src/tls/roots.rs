//! Which certificates a server's must lead to.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use crate::{RootCert, TlsError};

use super::pem;

const WHAT: &str = "root certificate file";

/// The trusted certificates, ready for building chains, and as they are.
#[derive(Debug)]
pub(super) struct Roots {
    pub(super) anchors: RootCertStore,
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

impl Roots {
    pub(super) fn load(source: &RootCert) -> Result<Self, TlsError> {
        match source {
            RootCert::File(path) => Self::from_file(path),
            RootCert::System => Self::from_system(),
        }
    }

    fn from_file(path: &Path) -> Result<Self, TlsError> {
        let certificates = pem::certificates(WHAT, path)?;
        let mut anchors = RootCertStore::empty();
        for certificate in &certificates {
            anchors.add(certificate.clone()).map_err(|error| pem::unusable(WHAT, path, error))?;
        }
        Ok(Self { anchors, certificates })
    }

    #[cfg(feature = "native-certs")]
    fn from_system() -> Result<Self, TlsError> {
        let found = rustls_native_certs::load_native_certs();
        let mut anchors = RootCertStore::empty();
        // Old bundles have certificates that nothing can use; they take nothing from the others.
        anchors.add_parsable_certificates(found.certs.iter().cloned());
        if anchors.is_empty() {
            let reason = match found.errors.first() {
                Some(error) => error.to_string(),
                None => "it has none".into(),
            };
            return Err(system(reason));
        }
        Ok(Self { anchors, certificates: found.certs })
    }

    #[cfg(not(feature = "native-certs"))]
    fn from_system() -> Result<Self, TlsError> {
        Err(system("this build cannot read them (feature `native-certs`)".into()))
    }
}

fn system(reason: String) -> TlsError {
    TlsError::File { what: "root certificates of the", path: "system".into(), reason }
}
