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
        self.shown.store(found.is_some(), Ordering::Relaxed);
        found
    }

    fn has_certs(&self) -> bool {
        self.certificate.has_certs()
    }
}
