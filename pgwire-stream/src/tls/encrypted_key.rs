//! Client keys that are encrypted: PKCS #8's own form, which `openssl pkcs8 -topk8` writes.

use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::der::{Decode, SecretDocument};
use rustls::pki_types::PrivateKeyDer;

use crate::Password;

const BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const END: &str = "-----END ENCRYPTED PRIVATE KEY-----";
/// The header of OpenSSL's older files, whose encryption derives its key by MD5.
const OLD_MARK: &[u8] = b"Proc-Type: 4,ENCRYPTED";

/// Whether the PEM text holds a key that is encrypted, in whatever form.
pub(super) fn is_encrypted(text: &[u8]) -> bool {
    contains(text, BEGIN.as_bytes()) || contains(text, OLD_MARK)
}

/// Decrypts the key of a PEM text.
///
/// # Errors
/// The reason, if there is no password, or it is wrong, or the encryption is not supported.
pub(super) fn decrypt(
    text: &[u8],
    password: Option<&Password>,
) -> Result<PrivateKeyDer<'static>, String> {
    if contains(text, OLD_MARK) {
        return Err("its encryption is OpenSSL's old one; make another with \
                    `openssl pkcs8 -topk8 -v2 aes-256-cbc`"
            .to_owned());
    }
    let Some(password) = password else {
        return Err("it is encrypted, and sslpassword is not set".to_owned());
    };
    let encrypted = block(text).ok_or("it is malformed")?;
    let (_, encrypted) =
        SecretDocument::from_pem(encrypted).map_err(|error| format!("it is malformed: {error}"))?;
    let encrypted = EncryptedPrivateKeyInfoRef::from_der(encrypted.as_bytes())
        .map_err(|error| format!("it is malformed, or its encryption is not supported: {error}"))?;
    let key = encrypted.decrypt(password.as_bytes()).map_err(|_| {
        "it cannot be decrypted: sslpassword is wrong, or the encryption is none of AES, with \
         PBKDF2 or scrypt"
    })?;
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.as_bytes().to_vec());
    Ok(key.into())
}

/// The lines of the key, without what else is in the file.
fn block(text: &[u8]) -> Option<&str> {
    let text = str::from_utf8(text).ok()?;
    let begin = text.find(BEGIN)?;
    let length = text.get(begin..)?.find(END)? + END.len();
    text.get(begin..begin + length)
}

fn contains(text: &[u8], mark: &[u8]) -> bool {
    text.windows(mark.len()).any(|window| window == mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = include_str!("fixtures/encrypted.key");

    #[test]
    fn a_key_is_had_with_its_password_alone() {
        let bundle = format!("Bag Attributes\n  name: x\n{KEY}trailing text\n");
        for text in [KEY, &bundle] {
            assert!(is_encrypted(text.as_bytes()));
            let key = decrypt(text.as_bytes(), Some(&Password::new("secret"))).unwrap();
            assert!(matches!(key, PrivateKeyDer::Pkcs8(_)));
        }
        for (password, reason) in
            [(None, "sslpassword is not set"), (Some("hunter2"), "sslpassword is wrong")]
        {
            let password = password.map(Password::new);
            let problem = decrypt(KEY.as_bytes(), password.as_ref()).unwrap_err();
            assert!(problem.contains(reason), "{problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }

    #[test]
    fn other_forms_are_told_apart() {
        let old = b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES\n";
        assert!(is_encrypted(old));
        let problem = decrypt(old, Some(&Password::new("x"))).unwrap_err();
        assert!(problem.contains("openssl pkcs8 -topk8"), "{problem}");
        assert!(!is_encrypted(b"-----BEGIN PRIVATE KEY-----\nMIIE\n"));
        for damaged in
            [BEGIN.to_owned(), format!("{BEGIN}\n\n{END}"), KEY.replacen("MII", "MIX", 1)]
        {
            assert!(decrypt(damaged.as_bytes(), Some(&Password::new("x"))).is_err());
        }
    }
}
