//! What `require_auth` lets a server do.

use super::*;
use crate::{AuthError, AuthMethod, RequireAuth};
use AuthMethod::{Md5, None, Password as Plain, ScramSha256};
use RequireAuth::{NoneOf, OneOf};

/// Whether the requirement is what ends the login at this request. Nothing is answered then.
fn forbids(require_auth: RequireAuth, request: &[u8]) -> bool {
    let mut peer = Peer::new(Credentials { require_auth, ..credentials() });
    peer.said();
    match peer.hear(&[request.to_vec()]) {
        Err(Error::Auth(AuthError::MethodNotAllowed { .. })) => {
            assert!(peer.said().is_empty());
            true
        }
        Ok(_) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn each_method_is_allowed_or_forbidden_before_anything_is_answered() {
    let requests = [
        (Plain, authentication(3, b"")),
        (Md5, authentication(5, b"salt")),
        (ScramSha256, authentication(10, b"SCRAM-SHA-256\0\0")),
        (None, authentication(0, b"")),
    ];
    for (method, request) in &requests {
        assert!(!forbids(RequireAuth::Any, request), "{method:?}");
        for (other, _) in &requests {
            let same = method == other;
            assert_eq!(forbids(OneOf(vec![*other]), request), !same, "{method:?} {other:?}");
            assert_eq!(forbids(NoneOf(vec![*other]), request), same, "{method:?} !{other:?}");
        }
    }
}

#[test]
fn a_method_that_is_asked_for_must_be_gone_through() {
    let require_auth = OneOf(vec![ScramSha256, None]);
    let mut peer = Peer::new(Credentials { require_auth, ..credentials() });
    let requests = [authentication(10, b"SCRAM-SHA-256\0\0"), authentication(0, b"")];
    let error = peer.hear(&requests).unwrap_err();
    assert!(matches!(error, Error::Auth(AuthError::Scram { .. })), "{error}");
}

#[test]
fn the_error_says_what_was_required() {
    let require_auth = NoneOf(vec![Plain, Md5]);
    let mut peer = Peer::new(Credentials { require_auth, ..credentials() });
    let error = peer.hear(&[authentication(3, b"")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the server asks for password authentication, which require_auth=!password,!md5 does not \
         allow"
    );
}
