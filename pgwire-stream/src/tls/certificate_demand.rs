//! `sslcertmode=require`: did the server ask for the client's certificate, and get it?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};

use crate::TlsError;

/// Watches over one handshake.
pub(super) struct CertificateDemand {
    client: Arc<ClientConfig>,
    seen: Arc<Watched>,
}

/// Notes what happens to the certificate.
#[derive(Debug)]
struct Watched {
    certificate: Arc<dyn ResolvesClientCert>,
    asked: AtomicBool,
    shown: AtomicBool,
}

impl CertificateDemand {
    pub(super) fn of(client: &ClientConfig) -> Self {
        let mut client = client.clone();
        let seen = Arc::new(Watched {
            certificate: client.client_auth_cert_resolver.clone(),
            asked: AtomicBool::new(false),
            shown: AtomicBool::new(false),
        });
        client.client_auth_cert_resolver = seen.clone();
        Self { client: Arc::new(client), seen }
    }

    /// The configuration for the handshake.
    pub(super) fn client(&self) -> &Arc<ClientConfig> {
        &self.client
    }

    /// Was it met? To be asked when the handshake is over.
    pub(super) fn check(&self) -> Result<(), TlsError> {
        if !self.seen.asked.load(Ordering::Relaxed) {
            return Err(TlsError::CertificateNotUsed { reason: "the server did not ask for it" });
        }
        if !self.seen.shown.load(Ordering::Relaxed) {
            let reason = "the server wants one that is signed in another way";
            return Err(TlsError::CertificateNotUsed { reason });
        }
        Ok(())
    }
}

impl ResolvesClientCert for Watched {
    fn resolve(
        &self,
        root_hint_subjects: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        let found = self.certificate.resolve(root_hint_subjects, schemes);
        let is_usable = |found: &Arc<CertifiedKey>| found.key.choose_scheme(schemes).is_some();
        self.shown.store(found.as_ref().is_some_and(is_usable), Ordering::Relaxed);
        found
    }

    fn has_certs(&self) -> bool {
        self.certificate.has_certs()
    }
}

#[cfg(test)]
mod tests {
    use rustls::sign::SingleCertAndKey;

    use super::*;
    use crate::tls::{provider, test_server::Identity};

    #[test]
    fn a_certificate_that_the_server_cannot_use_is_not_shown() {
        let provider = provider().unwrap();
        let identity = Identity::self_signed(|_| {});
        let key = provider.key_provider.load_private_key(identity.key).unwrap();
        let certificate = CertifiedKey::new(vec![identity.certificate], key);
        let client = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)));
        for (scheme, shown) in [
            (SignatureScheme::ECDSA_NISTP256_SHA256, true),
            (SignatureScheme::RSA_PSS_SHA256, false),
        ] {
            let demand = CertificateDemand::of(&client);
            assert!(demand.check().is_err());
            demand.client().client_auth_cert_resolver.resolve(&[], &[scheme]);
            assert_eq!(demand.check().is_ok(), shown, "{scheme:?}");
        }
    }
}
