//! Who runs the server behind a Unix socket: `requirepeer`.

use tokio::net::UnixStream;

use crate::{AuthError, Result, account};

/// Does the server run as this account?
pub(super) fn check(stream: &UnixStream, required: &str) -> Result<()> {
    let uid = stream.peer_cred()?.uid();
    let name = account::name_of(uid);
    if name.as_deref() == Some(required) {
        return Ok(());
    }
    let actual = name.map_or_else(|| format!("user number {uid}"), |name| format!("`{name}`"));
    Err(AuthError::WrongPeer { required: required.to_owned(), actual }.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::Error;

    #[tokio::test]
    async fn the_servers_account_must_be_the_named_one() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let me = account::effective_user().unwrap();
        check(&ours, &me).unwrap();
        match check(&ours, "nobody-else") {
            Err(Error::Auth(AuthError::WrongPeer { required, actual })) => {
                assert_eq!((required.as_str(), actual), ("nobody-else", format!("`{me}`")));
            }
            outcome => panic!("{outcome:?}"),
        }
    }
}
