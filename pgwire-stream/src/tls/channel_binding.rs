//! `tls-server-end-point`: what binds a login to the TLS connection it takes place in.
//!
//! RFC 5929 hashes the server's certificate with the hash function of the certificate's signature,
//! or SHA-256 in place of MD5 and SHA-1. It defines nothing for signatures without a hash function
//! of their own (Ed25519); PostgreSQL cannot bind to such certificates either.

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{self, Decode, Reader, TagMode, TagNumber};
use x509_cert::spki::{AlgorithmIdentifierOwned, AlgorithmIdentifierRef};

const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");

/// The hash of the certificate that the server sent; `None` where the standard defines none.
pub(super) fn tls_server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = Certificate::from_der(certificate).ok()?;
    Some(hash_function(algorithm.signature_algorithm())?.hash(certificate))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HashFunction {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl HashFunction {
    fn hash(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha224 => Sha224::digest(bytes).to_vec(),
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Sha384 => Sha384::digest(bytes).to_vec(),
            Self::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }
}

/// The names of signature algorithms, and what they hash with.
const SIGNATURES: [(ObjectIdentifier, HashFunction); 13] = [
    // RSA (PKCS #1 v1.5) with MD5, SHA-1, and the SHA-2 family.
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.4"), HashFunction::Sha256),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5"), HashFunction::Sha256),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.14"), HashFunction::Sha224),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11"), HashFunction::Sha256),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12"), HashFunction::Sha384),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13"), HashFunction::Sha512),
    // ECDSA with SHA-1 and the SHA-2 family.
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.1"), HashFunction::Sha256),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.1"), HashFunction::Sha224),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"), HashFunction::Sha256),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3"), HashFunction::Sha384),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4"), HashFunction::Sha512),
    // The other two names of RSA with SHA-1 and MD5 (OIW), in very old certificates.
    (ObjectIdentifier::new_unwrap("1.3.14.3.2.29"), HashFunction::Sha256),
    (ObjectIdentifier::new_unwrap("1.3.14.3.2.3"), HashFunction::Sha256),
];

/// The names of hash functions, as RSASSA-PSS' parameters have them.
const HASHES: [(ObjectIdentifier, HashFunction); 6] = [
    (ObjectIdentifier::new_unwrap("1.2.840.113549.2.5"), HashFunction::Sha256),
    (ObjectIdentifier::new_unwrap("1.3.14.3.2.26"), HashFunction::Sha256),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.4"), HashFunction::Sha224),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1"), HashFunction::Sha256),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2"), HashFunction::Sha384),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3"), HashFunction::Sha512),
];

fn hash_function(signature: &AlgorithmIdentifierOwned) -> Option<HashFunction> {
    if signature.oid == RSASSA_PSS {
        return match pss_hash(signature).ok()? {
            Some(oid) => named(&HASHES, oid),
            // The parameters leave out the default, which is SHA-1.
            None => Some(HashFunction::Sha256),
        };
    }
    named(&SIGNATURES, signature.oid)
}

fn named(
    table: &[(ObjectIdentifier, HashFunction)],
    oid: ObjectIdentifier,
) -> Option<HashFunction> {
    table.iter().find(|(name, _)| *name == oid).map(|(_, function)| *function)
}

/// `RSASSA-PSS-params ::= SEQUENCE { hashAlgorithm [0] DEFAULT sha1, … }`, of RFC 4055.
fn pss_hash(signature: &AlgorithmIdentifierOwned) -> der::Result<Option<ObjectIdentifier>> {
    let Some(parameters) = &signature.parameters else { return Ok(None) };
    parameters.to_ref().sequence(|reader| {
        let hash: Option<AlgorithmIdentifierRef<'_>> =
            reader.context_specific(TagNumber(0), TagMode::Explicit)?;
        reader.drain(reader.remaining_len())?;
        Ok(hash.map(|hash| hash.oid))
    })
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn damaged_certificates_are_no_trouble(
            position in any::<prop::sample::Index>(),
            byte: u8,
            length in any::<prop::sample::Index>(),
        ) {
            let pem = include_bytes!("fixtures/rsa-pss-sha384.pem");
            let mut der = CertificateDer::from_pem_slice(pem).unwrap().to_vec();
            let position = position.index(der.len());
            der[position] = byte;
            tls_server_end_point(&der);
            let length = length.index(der.len());
            prop_assert_eq!(tls_server_end_point(&der[..length]), None);
        }
    }

    #[test]
    fn the_hash_function_is_that_of_the_certificates_signature() {
        for (pem, expected) in [
            (&include_bytes!("fixtures/rsa-sha1.pem")[..], Some(HashFunction::Sha256)),
            (include_bytes!("fixtures/rsa-sha224.pem"), Some(HashFunction::Sha224)),
            (include_bytes!("fixtures/rsa-sha256.pem"), Some(HashFunction::Sha256)),
            (include_bytes!("fixtures/rsa-sha512.pem"), Some(HashFunction::Sha512)),
            (include_bytes!("fixtures/rsa-pss-default.pem"), Some(HashFunction::Sha256)),
            (include_bytes!("fixtures/rsa-pss-sha256.pem"), Some(HashFunction::Sha256)),
            (include_bytes!("fixtures/rsa-pss-sha384.pem"), Some(HashFunction::Sha384)),
            (include_bytes!("fixtures/ecdsa-sha384.pem"), Some(HashFunction::Sha384)),
            (include_bytes!("fixtures/ecdsa-sha512.pem"), Some(HashFunction::Sha512)),
            (include_bytes!("fixtures/ed25519.pem"), None),
        ] {
            let der = CertificateDer::from_pem_slice(pem).unwrap();
            let certificate = Certificate::from_der(&der).unwrap();
            assert_eq!(hash_function(certificate.signature_algorithm()), expected);
            let data = tls_server_end_point(&der);
            assert_eq!(data, expected.map(|function| function.hash(&der)));
        }
    }

    #[test]
    fn the_whole_certificate_is_hashed() {
        let pem = include_bytes!("fixtures/rsa-pss-sha384.pem");
        let der = CertificateDer::from_pem_slice(pem).unwrap();
        // By `openssl x509 -outform der | openssl dgst -sha384`.
        let expected = "1287af092af4bafb65e4d14ae2f7e0bfaa9de06293cf0c19\
                        0244aa3de68eeb99992227e23e181320157dc7251cf8cf9c";
        let data = tls_server_end_point(&der).unwrap();
        let data: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(data, expected);
    }

    #[test]
    fn what_is_no_certificate_binds_nothing() {
        assert_eq!(tls_server_end_point(b""), None);
        assert_eq!(tls_server_end_point(&[0x30, 0x03, 0x02, 0x01]), None);
    }
}
