//! What in the file of roots may vouch for a server, and what may only stand in between.

use super::*;
use rcgen::{IsCa, SerialNumber};

/// The modes that accept the server with these certificates as roots.
async fn accepted_with(roots: &[&str], server: &Identity) -> String {
    accepted_by(&Files::new(), Some(&roots.concat()), server, HOST).await
}

#[tokio::test]
async fn a_root_out_of_its_time_vouches_for_nobody() {
    let expired =
        Authority::made_by(None, "root", |params| params.not_after = date_time_ymd(2020, 1, 1));
    let early =
        Authority::made_by(None, "root", |params| params.not_before = date_time_ymd(3000, 1, 1));
    for authority in [expired, early] {
        let server = authority.issue(|_| {});
        assert_eq!(accepted_with(&[&authority.certificate_pem], &server).await, "ap");
    }
}

#[tokio::test]
async fn a_certificate_that_is_no_authority_vouches_for_nobody_else() {
    let root = Authority::new("root");
    let is_leaf = |params: &mut rcgen::CertificateParams| {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages.clear();
    };
    // A server's certificate in front of its root's, as in the file that the server itself has.
    let server = Authority::made_by(Some(&root), "server", is_leaf);
    let forged = server.issue(|_| {});
    let roots = [server.certificate_pem.as_str(), &root.certificate_pem];
    assert_eq!(accepted_with(&roots, &forged).await, "ap");
    assert_eq!(accepted_with(&roots, &root.issue(|_| {})).await, "apRCF");
    // One that has signed itself stands for itself alone.
    let server = Authority::made_by(None, "server", is_leaf);
    let forged = server.issue(|_| {});
    assert_eq!(accepted_with(&[&server.certificate_pem], &forged).await, "ap");
}

#[tokio::test]
async fn an_intermediate_in_the_file_leads_to_its_root() {
    let root = Authority::new("root");
    let between = Authority::made_by(Some(&root), "between", |_| {});
    let server = between.issue(|_| {});
    let both = [between.certificate_pem.as_str(), &root.certificate_pem];
    assert_eq!(accepted_with(&both, &server).await, "apRCF");
    assert_eq!(accepted_with(&[&root.certificate_pem], &server).await, "ap");
    let expired = Authority::made_by(Some(&root), "between", |params| {
        params.not_after = date_time_ymd(2020, 1, 1);
    });
    let both = [expired.certificate_pem.as_str(), &root.certificate_pem];
    assert_eq!(accepted_with(&both, &expired.issue(|_| {})).await, "ap");
}

#[tokio::test]
async fn an_intermediate_in_the_file_can_be_revoked() {
    let files = Files::new();
    let root = Authority::new("root");
    let between = Authority::made_by(Some(&root), "between", |params| {
        params.serial_number = Some(SerialNumber::from(7));
    });
    let port = serve(&between.issue(|_| {}), Behaviour::default()).await;
    let roots = files.write("root.crt", &(between.certificate_pem.clone() + &root.certificate_pem));
    for (serials, revoked) in [(&[5], false), (&[7], true)] {
        let lists = root.revoke(serials, 3000) + &between.revoke(&[], 3000);
        let config = Config {
            ssl_root_cert: Some(RootCert::File(roots.clone())),
            ssl_crl: Some(files.write("root.crl", &lists)),
            ..config(SslMode::VerifyCa, &[])
        };
        let outcome = connect(&config, HOST, port).await;
        assert_eq!(outcome.is_err(), revoked, "{outcome:?}");
    }
}

#[test]
fn a_file_without_a_root_is_told() {
    let files = Files::new();
    let between = Authority::made_by(Some(&Authority::new("root")), "between", |_| {});
    let path = files.write("root.crt", &between.certificate_pem);
    let config =
        Config { ssl_root_cert: Some(RootCert::File(path)), ..config(SslMode::VerifyCa, &[]) };
    let error = TlsConfig::from_config(&config).unwrap_err().to_string();
    assert!(error.contains("has signed itself"), "{error}");
}
