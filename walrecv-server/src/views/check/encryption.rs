//! Who can read what is stored. Advice only: none of it keeps a server from being backed up.

use super::{Row, State};
use crate::settings::ServerSettings;
use crate::storage::KeyFile;

const ENCRYPTION: &str = "encryption";

/// What is encrypted, what is not, and whether the key that is configured opens it; nothing, where
/// nobody asks for encryption.
pub(super) fn encryption(settings: &ServerSettings) -> Option<Row> {
    let recipients = &settings.encryption_recipients;
    let keys = settings.encryption_identity.as_ref().map(KeyFile::new);
    if recipients.is_empty() && keys.is_none() {
        return None;
    }
    let public = match keys.as_ref().map(KeyFile::recipients).transpose() {
        Ok(public) => public,
        Err(error) => return Some(Row::failure(ENCRYPTION, State::Warning, &error)),
    };
    if let (Some(keys), Some(public)) = (&keys, public)
        && !recipients.is_empty()
        && !recipients.iter().any(|recipient| public.contains(recipient))
    {
        let remark = format!(
            "no identity in `{}` is that of one of the `encryption_recipients`: it does not open \
             what is stored from now on",
            keys.path().display()
        );
        return Some(Row::remark(ENCRYPTION, State::Warning, remark));
    }
    let remark = match recipients.len() {
        0 => "what is stored from now on is not encrypted: there are no `encryption_recipients`"
            .to_owned(),
        keys => format!(
            "to {keys} {}; a WAL segment is readable here until it is complete and archived",
            if keys == 1 { "key" } else { "keys" }
        ),
    };
    Some(Row::remark(ENCRYPTION, State::Ok, remark))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use age::secrecy::ExposeSecret;
    use age::x25519::Identity;

    use super::*;
    use crate::settings::ConnInfo;

    fn settings() -> ServerSettings {
        let conninfo = ConnInfo::new("host=db");
        ServerSettings::new("main".parse().unwrap(), conninfo, "walrecv".parse().unwrap())
    }

    #[test]
    fn what_stays_readable_is_told_and_a_wrong_key_is_worth_a_warning() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity");
        let (ours, others) = (Identity::generate(), Identity::generate());
        fs::write(&path, ours.to_string().expose_secret()).unwrap();
        let mode = |mode| fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        mode(0o600);

        let mut settings = settings();
        assert_eq!(encryption(&settings), None);
        settings.encryption_recipients = vec![others.to_public().into()];
        let row = encryption(&settings).unwrap();
        assert_eq!(row.state, State::Ok);
        assert!(row.remark.unwrap().starts_with("to 1 key; a WAL segment is readable here"));

        settings.encryption_identity = Some(path.clone());
        let row = encryption(&settings).unwrap();
        assert_eq!(row.state, State::Warning, "{row:?}");
        settings.encryption_recipients.push(ours.to_public().into());
        assert_eq!(encryption(&settings).unwrap().state, State::Ok);
        mode(0o644);
        let row = encryption(&settings).unwrap();
        assert_eq!(row.state, State::Warning);
        assert!(row.remark.unwrap().contains("0644"));
    }
}
