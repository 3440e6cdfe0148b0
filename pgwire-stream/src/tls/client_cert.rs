//! The client's own certificate and its key.

use std::fs::{File, Metadata};
use std::path::Path;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

use crate::{Config, ConfigError, Password, Result, SslCertMode, TlsError};

use super::{encrypted_key, pem};

const CERTIFICATE: &str = "client certificate file";
const KEY: &str = "client key file";

/// Reads `sslcert` and `sslkey`, if there are any. A key alone is ignored, as libpq does.
pub(super) fn load(config: &Config, provider: &CryptoProvider) -> Result<Option<SingleCertAndKey>> {
    let path = match (&config.ssl_cert, config.ssl_cert_mode) {
        (_, SslCertMode::Disable) | (None, SslCertMode::Allow) => return Ok(None),
        (Some(path), SslCertMode::Allow | SslCertMode::Require) => path,
        (None, SslCertMode::Require) => {
            let problem = "sslcertmode=require needs a certificate: set sslcert".to_owned();
            return Err(ConfigError::Conflict(problem).into());
        }
    };
    let Some(key_path) = &config.ssl_key else {
        let problem = format!("{} needs its key: set sslkey", path.display());
        return Err(ConfigError::Conflict(problem).into());
    };
    let certificates = pem::certificates(CERTIFICATE, path)?;
    let key = read_key(key_path, config.ssl_password.as_ref())?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| pem::unusable(KEY, key_path, error))?;
    if let Some(leaf) = certificates.first()
        && !belong_together(leaf, &*key)
    {
        return Err(pem::unusable(KEY, key_path, "it is not the key of the certificate").into());
    }
    // Compared here instead of by rustls, which cannot read the version 1 certificates that
    // `openssl x509 -req` makes without an extension file.
    Ok(Some(CertifiedKey::new(certificates, key).into()))
}

fn belong_together(certificate: &[u8], key: &dyn SigningKey) -> bool {
    // What cannot be compared is the server's to judge.
    let Some(public) = key.public_key() else { return true };
    let Ok(certificate) = Certificate::from_der(certificate) else { return true };
    certificate
        .tbs_certificate()
        .subject_public_key_info()
        .to_der()
        .is_ok_and(|certified| certified == public.as_ref())
}

fn read_key(path: &Path, password: Option<&Password>) -> Result<PrivateKeyDer<'static>, TlsError> {
    let file = File::open(path).map_err(|error| pem::unusable(KEY, path, error))?;
    // Asked of the opened file, which nobody can exchange between check and use.
    let metadata = file.metadata().map_err(|error| pem::unusable(KEY, path, error))?;
    if let Some(problem) = exposed(&metadata) {
        return Err(pem::unusable(KEY, path, problem));
    }
    let text = pem::read(file).map_err(|error| pem::unusable(KEY, path, error))?;
    if encrypted_key::is_encrypted(&text) {
        return encrypted_key::decrypt(&text, password)
            .map_err(|problem| pem::unusable(KEY, path, problem));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let problem = match error {
            rustls::pki_types::pem::Error::NoItemsFound => "there is no key in it".into(),
            error => error.to_string(),
        };
        pem::unusable(KEY, path, problem)
    })
}

/// Who else could read the key: the rule of libpq.
#[cfg(unix)]
fn exposed(metadata: &Metadata) -> Option<&'static str> {
    use std::os::unix::fs::MetadataExt;

    if !metadata.is_file() {
        return Some("it is not a regular file");
    }
    exposed_by(metadata.mode(), metadata.uid())
}

#[cfg(not(unix))]
fn exposed(metadata: &Metadata) -> Option<&'static str> {
    (!metadata.is_file()).then_some("it is not a regular file")
}

#[cfg(unix)]
fn exposed_by(mode: u32, owner: u32) -> Option<&'static str> {
    // Root may share a system-wide key with a group.
    let forbidden = if owner == 0 { 0o037 } else { 0o077 };
    (mode & forbidden != 0).then_some(
        "its permissions must be u=rw (0600) or less, or u=rw,g=r (0640) or less if root owns it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_is_refused() {
        for (mode, owner, refused) in [
            (0o100_600, 1000, false),
            (0o100_400, 1000, false),
            (0o100_640, 1000, true),
            (0o100_640, 0, false),
            (0o100_660, 0, true),
            (0o100_644, 0, true),
            (0o100_604, 1000, true),
        ] {
            assert_eq!(exposed_by(mode, owner).is_some(), refused, "{mode:o} of {owner}");
        }
    }
}
