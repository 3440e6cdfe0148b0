//! Lists of revoked certificates.

use super::*;
use rcgen::SerialNumber;

struct Case {
    files: Files,
    authority: Authority,
    /// A certificate with the serial number 7.
    server: Identity,
}

impl Case {
    fn new() -> Self {
        let authority = Authority::new("root");
        let server = authority.issue(|params| params.serial_number = Some(SerialNumber::from(7)));
        Self { files: Files::new(), authority, server }
    }

    fn config(&self, mode: SslMode) -> Config {
        let root = self.files.write("root.crt", &self.authority.certificate_pem);
        Config { ssl_root_cert: Some(RootCert::File(root)), ..config(mode, &[]) }
    }

    /// Why the server is refused, if it is.
    async fn refusal(&self, config: &Config) -> Option<String> {
        let port = serve(&self.server, Behaviour::default()).await;
        match connect(config, HOST, port).await {
            Ok(_) => None,
            Err(Error::Tls(TlsError::Certificate { reason })) => Some(reason),
            Err(error) => panic!("{error}"),
        }
    }
}

const UNKNOWN: &str = "no certificate revocation list says whether it has been revoked";

#[tokio::test]
async fn a_revoked_certificate_is_refused_wherever_the_chain_matters() {
    let case = Case::new();
    let crl = case.files.write("root.crl", &case.authority.revoke(&[5, 7], 3000));
    for mode in [SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull] {
        let config = Config { ssl_crl: Some(crl.clone()), ..case.config(mode) };
        let reason = case.refusal(&config).await;
        assert_eq!(reason.as_deref(), Some("it has been revoked"), "{mode:?}");
    }
    // As in libpq, lists say nothing where nobody asks who signed the certificate.
    let unverified = Config { ssl_crl: Some(crl), ..config(SslMode::Require, &[]) };
    assert_eq!(case.refusal(&unverified).await, None);
}

#[tokio::test]
async fn every_certificate_must_be_on_a_list_that_is_up_to_date() {
    let case = Case::new();
    let other = Authority::new("other");
    for (list, reason) in [
        (case.authority.revoke(&[5], 3000), None),
        (other.revoke(&[], 3000) + &case.authority.revoke(&[5], 3000), None),
        (other.revoke(&[], 3000), Some(UNKNOWN)),
        (case.authority.revoke(&[], 2021), Some("the certificate revocation list is out of date")),
    ] {
        let crl = case.files.write("root.crl", &list);
        let config = Config { ssl_crl: Some(crl), ..case.config(SslMode::VerifyCa) };
        assert_eq!(case.refusal(&config).await.as_deref(), reason);
    }
}

#[tokio::test]
async fn lists_in_a_directory_are_those_with_hashed_names() {
    let case = Case::new();
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, serials: &[u64]| {
        std::fs::write(directory.path().join(name), case.authority.revoke(serials, 3000)).unwrap();
    };
    let config =
        Config { ssl_crl_dir: Some(directory.path().into()), ..case.config(SslMode::VerifyCa) };
    write("revoked.crl", &[7]);
    assert!(matches!(TlsConfig::from_config(&config), Err(Error::Tls(TlsError::File { .. }))));
    write("0123abcd.r0", &[5]);
    assert_eq!(case.refusal(&config).await, None);
    write("0123abcd.r0", &[7]);
    assert_eq!(case.refusal(&config).await.as_deref(), Some("it has been revoked"));
}

#[tokio::test]
async fn what_cannot_be_looked_up_counts_as_revoked() {
    let files = Files::new();
    let crl = files.write("root.crl", &Authority::new("any").revoke(&[], 3000));
    let own_root = Identity::self_signed(|_| {});
    let version_1 = Identity::from_pem(
        include_str!("../fixtures/version-1.pem"),
        include_str!("../fixtures/version-1.key"),
    );
    let root_of_version_1 = include_str!("../fixtures/version-1-root.pem");
    for (server, root) in
        [(&own_root, own_root.certificate_pem.as_str()), (&version_1, root_of_version_1)]
    {
        let config = Config {
            ssl_root_cert: Some(RootCert::File(files.write("root.crt", root))),
            ssl_crl: Some(crl.clone()),
            ..config(SslMode::VerifyCa, &[])
        };
        let port = serve(server, Behaviour::default()).await;
        match connect(&config, HOST, port).await {
            Err(Error::Tls(TlsError::Certificate { reason })) => assert_eq!(reason, UNKNOWN),
            outcome => panic!("{outcome:?}"),
        }
    }
}

#[test]
fn lists_that_cannot_be_read_are_named() {
    let case = Case::new();
    let missing = case.files.write("x", "").with_file_name("missing");
    let empty = case.files.write("empty", &case.authority.certificate_pem);
    for (path, reason) in [(missing, "No such file"), (empty, "there is no list in it")] {
        let config = Config { ssl_crl: Some(path.clone()), ..case.config(SslMode::VerifyCa) };
        let error = TlsConfig::from_config(&config).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains(reason), "{error}");
    }
}
