//! A certificate authority for one cluster: its own root, a server certificate, and client
//! certificates on demand.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};

use crate::failure::{Context, Result};

/// The serial number of the server's certificate, by which it can be revoked.
const SERVER_SERIAL: u64 = 1;

/// The authority; its certificate is what a client trusts.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The root certificate in PEM form.
    pub(crate) certificate: String,
}

/// A certificate and its key in PEM form.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// The paths of a client's certificate and key, as `sslcert` and `sslkey` want them.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// `sslcert`.
    pub certificate: PathBuf,
    /// `sslkey`, readable for us alone.
    pub key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Result<Self> {
        let about = || "cannot make a certificate authority".to_owned();
        let mut params = CertificateParams::new(Vec::new()).context(about)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "walrecv test authority");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().context(about)?;
        let certificate = params.self_signed(&key).context(about)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// A certificate for the server: `localhost` and `127.0.0.1`.
    pub(crate) fn server(&self) -> Result<Identity> {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        self.sign("localhost", names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate for a role: its common name is what pg_hba's `cert` compares.
    pub(crate) fn client(&self, role: &str) -> Result<Identity> {
        self.sign(role, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A list of revoked certificates: with the server's on it, or with none.
    pub(crate) fn revocation_list(&self, revoke_server: bool) -> Result<String> {
        let about = || "cannot make a certificate revocation list".to_owned();
        let server = RevokedCertParams {
            serial_number: SerialNumber::from(SERVER_SERIAL),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoke_server.then_some(server).into_iter().collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).and_then(|list| list.pem()).context(about)
    }

    fn sign(
        &self,
        common_name: &str,
        names: Vec<String>,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Identity> {
        let about = || format!("cannot make a certificate for {common_name}");
        let mut params = CertificateParams::new(names).context(about)?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        if params.extended_key_usages == [ExtendedKeyUsagePurpose::ServerAuth] {
            params.serial_number = Some(SerialNumber::from(SERVER_SERIAL));
        }
        let key = KeyPair::generate().context(about)?;
        let certificate = params.signed_by(&key, &self.issuer).context(about)?.pem();
        Ok(Identity { certificate, key: key.serialize_pem() })
    }
}

/// Writes a secret so that only its owner can read it, as PostgreSQL demands of key files.
pub(crate) fn write_private(path: &Path, content: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .context(|| format!("cannot write {}", path.display()))
}
