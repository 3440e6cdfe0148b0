//! Certificates that were taken back before their time: `sslcrl` and `sslcrldir`.
//!
//! As OpenSSL does for libpq, every certificate below the root must be covered by a list of its
//! issuer's that is not out of date.

use std::path::{Path, PathBuf};

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::{CertificateError, Error, OtherError, RootCertStore};
use std::fs;
use std::sync::Arc;
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationOptionsBuilder,
};

use crate::{Config, TlsError};

use super::pem;

const FILE: &str = "certificate revocation list";
const DIRECTORY: &str = "directory of certificate revocation lists";

/// Lists of revoked certificates; at least one.
#[derive(Debug)]
pub(super) struct RevocationLists(Vec<CertRevocationList<'static>>);

impl RevocationLists {
    /// Reads `sslcrl` and `sslcrldir`, if there are any.
    pub(super) fn load(config: &Config) -> Result<Option<Self>, TlsError> {
        let mut lists = Vec::new();
        if let Some(path) = &config.ssl_crl {
            lists.extend(read(path)?);
        }
        if let Some(directory) = &config.ssl_crl_dir {
            let files = hashed_files(directory)
                .map_err(|error| pem::unusable(DIRECTORY, directory, error))?;
            if files.is_empty() {
                let problem = "there is no file in it that `openssl rehash` has named";
                return Err(pem::unusable(DIRECTORY, directory, problem));
            }
            for path in files {
                lists.extend(read(&path)?);
            }
        }
        Ok(if lists.is_empty() { None } else { Some(Self(lists)) })
    }

    /// Is none of these certificates revoked? To be asked when their chain is known to be good.
    pub(super) fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        roots: &RootCertStore,
        now: UnixTime,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<(), Error> {
        let lists: Vec<_> = self.0.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&lists)
            .map_err(|_| CertificateError::UnknownRevocationStatus)?
            .with_expiration_policy(ExpirationPolicy::Enforce)
            .build();
        EndEntityCert::try_from(leaf)
            .and_then(|leaf| {
                leaf.verify_for_usage(
                    algorithms.all,
                    &roots.roots,
                    intermediates,
                    now,
                    KeyUsage::server_auth(),
                    Some(revocation),
                    None,
                )
                .map(drop)
            })
            .map_err(|error| explain(error).into())
    }
}

fn explain(error: webpki::Error) -> CertificateError {
    match error {
        webpki::Error::CertRevoked => CertificateError::Revoked,
        webpki::Error::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        webpki::Error::CrlExpired { .. } => CertificateError::ExpiredRevocationList,
        error => CertificateError::Other(OtherError(Arc::new(error))),
    }
}

fn read(path: &Path) -> Result<Vec<CertRevocationList<'static>>, TlsError> {
    let text = fs::File::open(path)
        .and_then(pem::read)
        .map_err(|error| pem::unusable(FILE, path, error))?;
    let mut lists = Vec::new();
    for der in CertificateRevocationListDer::pem_slice_iter(&text) {
        let der = der.map_err(|error| pem::unusable(FILE, path, error))?;
        let list = OwnedCertRevocationList::from_der(&der)
            .map_err(|error| pem::unusable(FILE, path, error))?;
        lists.push(list.into());
    }
    if lists.is_empty() {
        return Err(pem::unusable(FILE, path, "there is no list in it"));
    }
    Ok(lists)
}

/// The files that OpenSSL would look at: eight hexadecimal digits, `.r`, and a number.
fn hashed_files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_hashed =
            name.to_str().and_then(|name| name.split_once(".r")).is_some_and(|(hash, number)| {
                hash.len() == 8
                    && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
                    && !number.is_empty()
                    && number.bytes().all(|byte| byte.is_ascii_digit())
            });
        if is_hashed {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
