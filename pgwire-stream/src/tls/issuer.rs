//! Who signed a certificate, where webpki does not say it: for X.509 version 1.
//!
//! `openssl x509 -req` makes them unless it is given extensions, and PostgreSQL's documentation
//! makes server certificates that way, so there are many. They are accepted where a trusted root
//! has signed them itself; a version 1 certificate is never taken for an authority.

use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, PeerMisbehaved};
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::asn1::AnyRef;
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::NameConstraints;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

pub(super) fn is_version_1(certificate: &Certificate) -> bool {
    certificate.tbs_certificate().version() == Version::V1
}

pub(super) fn is_self_issued(certificate: &Certificate) -> bool {
    certificate.tbs_certificate().issuer() == certificate.tbs_certificate().subject()
}

/// Is the certificate valid now?
pub(super) fn verify_dates(certificate: &Certificate, now: UnixTime) -> Result<(), Error> {
    let validity = certificate.tbs_certificate().validity();
    let now = Duration::from_secs(now.as_secs());
    if now < validity.not_before.to_unix_duration() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.to_unix_duration() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// Is the certificate valid now, and has one of `roots` signed it?
pub(super) fn verify_version_1<'a>(
    certificate: &Certificate,
    roots: impl Iterator<Item = &'a Certificate>,
    now: UnixTime,
    algorithms: WebPkiSupportedAlgorithms,
) -> Result<(), Error> {
    verify_dates(certificate, now)?;
    let signed = encode(certificate.tbs_certificate())?;
    let algorithm = encode(certificate.signature_algorithm())?;
    if certificate.tbs_certificate().signature() != certificate.signature_algorithm() {
        return Err(CertificateError::BadEncoding.into());
    }
    let signature = certificate.signature().as_bytes().ok_or(CertificateError::BadEncoding)?;
    let issuers = roots
        .filter(|root| root.tbs_certificate().subject() == certificate.tbs_certificate().issuer())
        .filter(|root| !constrains_names(root));
    for issuer in issuers {
        let key = issuer.tbs_certificate().subject_public_key_info();
        let usable = algorithms
            .all
            .iter()
            .filter(|usable| usable.signature_alg_id().as_ref() == body(&algorithm));
        if verified_by_any(usable, key, &signed, signature)? {
            return Ok(());
        }
    }
    Err(CertificateError::UnknownIssuer.into())
}

pub(super) fn verify_tls12_signature(
    message: &[u8],
    certificate: &Certificate,
    signed: &DigitallySignedStruct,
    algorithms: WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let key = certificate.tbs_certificate().subject_public_key_info();
    let Some((_, usable)) = algorithms.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme)
    else {
        return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    };
    if verified_by_any(usable.iter(), key, message, signed.signature())? {
        return Ok(HandshakeSignatureValid::assertion());
    }
    Err(CertificateError::BadSignature.into())
}

pub(super) fn verify_tls13_signature(
    message: &[u8],
    certificate: &Certificate,
    signed: &DigitallySignedStruct,
    algorithms: WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let key = encode(certificate.tbs_certificate().subject_public_key_info())?;
    let key = SubjectPublicKeyInfoDer::from(key);
    verify_tls13_signature_with_raw_key(message, &key, signed, &algorithms)
}

/// Whether it may sign for some names only, which nothing here looks at.
fn constrains_names(root: &Certificate) -> bool {
    let extensions = root.tbs_certificate().extensions();
    extensions.into_iter().flatten().any(|extension| extension.extn_id == NameConstraints::OID)
}

/// Does the signature prove to be `key`'s by one of the algorithms that are for such keys?
fn verified_by_any<'a>(
    mut algorithms: impl Iterator<Item = &'a &'static dyn SignatureVerificationAlgorithm>,
    key: &SubjectPublicKeyInfoOwned,
    message: &[u8],
    signature: &[u8],
) -> Result<bool, Error> {
    let kind = encode(&key.algorithm)?;
    let key = key.subject_public_key.as_bytes().ok_or(CertificateError::BadEncoding)?;
    Ok(algorithms.any(|algorithm| {
        algorithm.public_key_alg_id().as_ref() == body(&kind)
            && algorithm.verify_signature(key, message, signature).is_ok()
    }))
}

fn encode(value: &impl Encode) -> Result<Vec<u8>, Error> {
    value.to_der().map_err(|_| CertificateError::BadEncoding.into())
}

/// What the outermost header of a DER value encloses.
fn body(der: &[u8]) -> &[u8] {
    AnyRef::from_der(der).map_or(&[], AnyRef::value)
}
