//! Certificates made for one test, and a server that shows them.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The name that the server's certificates have unless a test wants another.
pub(crate) const HOST: &str = "localhost";

/// A certificate and its key.
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
}

impl Identity {
    fn new(certificate: &rcgen::Certificate, key: &KeyPair) -> Self {
        Self::from_pem(&certificate.pem(), &key.serialize_pem())
    }

    pub(crate) fn from_pem(certificate: &str, key: &str) -> Self {
        Self {
            certificate: CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap(),
            key: PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            certificate_pem: certificate.into(),
            key_pem: key.into(),
        }
    }

    /// The usual self-signed certificate, which says that it is an authority.
    pub(crate) fn self_signed(tweak: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = params();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        tweak(&mut params);
        let key = KeyPair::generate().unwrap();
        Self::new(&params.self_signed(&key).unwrap(), &key)
    }
}

/// Signs certificates.
pub(crate) struct Authority {
    pub(crate) certificate_pem: String,
    pub(crate) certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        Self::made_by(None, name, |_| {})
    }

    /// One that another has signed, or itself.
    pub(crate) fn made_by(
        signer: Option<&Self>,
        name: &str,
        tweak: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        tweak(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = match signer {
            Some(signer) => params.signed_by(&key, &signer.issuer).unwrap(),
            None => params.self_signed(&key).unwrap(),
        };
        Self {
            certificate_pem: certificate.pem(),
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    /// The list of the certificates with these serial numbers, good until that year.
    pub(crate) fn revoke(&self, serials: &[u64], next_update: i32) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(next_update, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    pub(crate) fn issue(&self, tweak: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = params();
        tweak(&mut params);
        let key = KeyPair::generate().unwrap();
        Identity::new(&params.signed_by(&key, &self.issuer).unwrap(), &key)
    }
}

fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "not the host");
    params.subject_alt_names = vec![SanType::DnsName(HOST.try_into().unwrap())];
    params
}

/// Files of one test.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes a file that only its owner can read.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        }
        path
    }
}

/// What a test server does.
#[derive(Default)]
pub(crate) struct Behaviour {
    /// Asks clients for a certificate of this authority.
    pub(crate) clients_of: Option<CertificateDer<'static>>,
    /// The protocols it speaks; none ignores what clients offer, as servers before 17 do.
    pub(crate) protocols: Vec<Vec<u8>>,
    /// Instead of both.
    pub(crate) version: Option<&'static SupportedProtocolVersion>,
}

/// What the server saw, sent to the client through the encrypted connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) certificates: u8,
    pub(crate) sni: bool,
    pub(crate) protocol: bool,
}

impl Seen {
    pub(crate) async fn read(
        mut stream: impl tokio::io::AsyncRead + Unpin,
    ) -> std::io::Result<Self> {
        let mut bytes = [0; 3];
        stream.read_exact(&mut bytes).await?;
        let [certificates, sni, protocol] = bytes;
        Ok(Self { certificates, sni: sni != 0, protocol: protocol != 0 })
    }
}

/// Starts a server that talks TLS from the first byte; gives its port.
pub(crate) async fn serve(identity: &Identity, behaviour: Behaviour) -> u16 {
    let config = server_config(identity, behaviour);
    serve_with(move |tcp| greet(tcp, config.clone())).await
}

/// Starts a server that handles every connection like this; gives its port.
pub(crate) async fn serve_with<F>(handle: impl Fn(TcpStream) -> F + Send + 'static) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(handle(tcp));
        }
    });
    port
}

/// Makes a TLS connection and tells the client what was seen of it.
pub(crate) async fn greet(tcp: TcpStream, config: Arc<ServerConfig>) {
    let Ok(mut stream) = tokio_rustls::TlsAcceptor::from(config).accept(tcp).await else { return };
    let (_, session) = stream.get_ref();
    let certificates = session.peer_certificates().map_or(0, <[_]>::len);
    let seen = [
        certificates as u8,
        session.server_name().is_some().into(),
        session.alpn_protocol().is_some().into(),
    ];
    let _ = stream.write_all(&seen).await;
    let _ = stream.shutdown().await;
}

pub(crate) fn server_config(identity: &Identity, behaviour: Behaviour) -> Arc<ServerConfig> {
    let provider = Arc::new(super::provider().unwrap());
    let key = provider.key_provider.load_private_key(identity.key.clone_key()).unwrap();
    // Not checked against each other: rustls could not read a certificate of version 1.
    let shown = rustls::sign::CertifiedKey::new(vec![identity.certificate.clone()], key);
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = match behaviour.version {
        Some(version) => builder.with_protocol_versions(&[version]),
        None => builder.with_safe_default_protocol_versions(),
    }
    .unwrap();
    let builder = match behaviour.clients_of {
        Some(root) => {
            let mut roots = RootCertStore::empty();
            roots.add(root).unwrap();
            builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                    .build()
                    .unwrap(),
            )
        }
        None => builder.with_no_client_auth(),
    };
    let mut config =
        builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(shown)));
    config.alpn_protocols = behaviour.protocols;
    Arc::new(config)
}
