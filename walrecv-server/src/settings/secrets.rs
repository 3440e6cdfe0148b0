//! Secrets: where systemd puts them, who else may read them, and texts without them.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::environment::Lookup;
use super::keys::{self, Kind};
use super::layer::Layer;
use super::value::{Given, Raw};

/// What stands for the directory with the credentials of systemd in a value.
const PLACE: &str = "${CREDENTIALS_DIRECTORY}";

/// The environment variable by which systemd says where it is.
const VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// Where it is while the daemon runs, for commands that were not started by systemd.
const OF_THE_DAEMON: &str = "/run/credentials/walrecv-server.service";

/// What a secret is shown as.
pub(super) const HIDDEN: &str = "***";

/// The directory with the credentials that systemd hands out (`LoadCredential=`).
pub(super) struct Credentials(String);

impl Credentials {
    pub(super) fn of(lookup: Lookup<'_>) -> Self {
        Self(lookup(VARIABLE).unwrap_or_else(|| OF_THE_DAEMON.to_owned()))
    }

    /// Fills the directory in wherever a key may name a credential.
    pub(super) fn fill_in(&self, layer: &mut Layer) {
        let may = |key: &&keys::Key| matches!(key.kind, Kind::Path | Kind::Secret | Kind::Conninfo);
        for key in keys::KEYS.iter().filter(may) {
            if let Some(Given { raw: Raw::Text(text), .. }) = layer.get_mut(key.name)
                && text.contains(PLACE)
            {
                *text = text.replace(PLACE, &self.0);
            }
        }
    }
}

/// The mode of a file that everybody on this machine can read: its own permissions allow it, and
/// those of every directory on the way. What cannot be looked at is none of theirs.
pub(super) fn open_to_everybody(path: &Path) -> Option<u32> {
    let path = path.canonicalize().ok()?;
    let mode =
        |path: &Path| fs::metadata(path).ok().map(|found| found.permissions().mode() & 0o777);
    let own = mode(&path).filter(|mode| mode & 0o004 != 0)?;
    let is_open = |directory: &Path| mode(directory).is_some_and(|mode| mode & 0o001 != 0);
    path.ancestors().skip(1).all(is_open).then_some(own)
}

/// A connection string without its passwords, whichever of the two forms it has. Where it is not
/// clear what is one, more is hidden.
pub fn without_passwords(conninfo: &str) -> String {
    let secrets = match conninfo.split_once("://") {
        Some(("postgres" | "postgresql", _)) => in_uri(conninfo),
        _ => in_pairs(conninfo),
    };
    let mut shown = String::new();
    let mut from = 0;
    for secret in secrets {
        shown.push_str(conninfo.get(from..secret.start).unwrap_or_default());
        shown.push_str(HIDDEN);
        from = secret.end;
    }
    shown.push_str(conninfo.get(from..).unwrap_or_default());
    shown
}

fn is_secret(key: &str) -> bool {
    key.contains("password") || key.contains("secret")
}

/// Where the secrets are in `scheme://user:password@host/database?key=value&…`.
fn in_uri(text: &str) -> Vec<Range<usize>> {
    let mut secrets = Vec::new();
    let start = text.find("://").map_or(0, |at| at + 3);
    let query = text.find('?').unwrap_or(text.len());
    // The last `@`: a password may have one in it that should have been written otherwise.
    let at = text.get(start..).and_then(|rest| rest.rfind('@')).map(|at| start + at);
    let mut from = query;
    if let Some(at) = at {
        let user = text.get(start..at).unwrap_or_default();
        if let Some(colon) = user.find(':') {
            secrets.push(start + colon + 1..at);
            from = from.max(at);
        }
    }
    for (offset, _) in text.match_indices(['?', '&']).filter(|(offset, _)| *offset >= from) {
        let pair = text.get(offset + 1..).unwrap_or_default();
        let pair = pair.split('&').next().unwrap_or_default();
        if let Some((key, value)) = pair.split_once('=') {
            // A key that is written in an odd way has a reason to be.
            if is_secret(&key.to_ascii_lowercase()) || key.contains('%') {
                let start = offset + 1 + key.len() + 1;
                secrets.push(start..start + value.len());
            }
        }
    }
    secrets
}

/// Where the secrets are in `key = 'value' …`, as libpq reads that.
fn in_pairs(text: &str) -> Vec<Range<usize>> {
    let mut secrets = Vec::new();
    let mut characters = text.char_indices().peekable();
    let mut next_while = |wanted: &dyn Fn(char) -> bool| {
        while characters.next_if(|(_, c)| wanted(*c)).is_some() {}
        characters.peek().copied()
    };
    while let Some((start, _)) = next_while(&char::is_whitespace) {
        let end = next_while(&|c| c != '=' && !c.is_whitespace());
        let key = text.get(start..end.map_or(text.len(), |(at, _)| at)).unwrap_or_default();
        next_while(&char::is_whitespace);
        next_while(&|c| c == '=');
        let Some((value, first)) = next_while(&char::is_whitespace) else { break };
        let escaped = std::cell::Cell::new(false);
        let quotes = std::cell::Cell::new(0);
        let quoted = first == '\'';
        let end = next_while(&|c| {
            let after_backslash = escaped.replace(c == '\\' && !escaped.get());
            match c {
                _ if after_backslash => true,
                '\'' if quoted => {
                    quotes.set(quotes.get() + 1);
                    quotes.get() <= 2
                }
                _ if quoted && quotes.get() < 2 => true,
                c => !c.is_whitespace() && !quoted,
            }
        });
        let end = end.map_or(text.len(), |(at, _)| at);
        if is_secret(&key.to_ascii_lowercase()) {
            secrets.push(value..end);
        }
    }
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden_in_both_forms() {
        for (text, shown) in [
            ("host=db password=geheim user=x", "host=db password=*** user=x"),
            ("password = 'ge heim'  host=db", "password = ***  host=db"),
            (r"password='it\'s geheim' host=db", "password=*** host=db"),
            (r"password=ge\ heim host=db", "password=*** host=db"),
            (r"password='geheim\\' host=db", "password=*** host=db"),
            ("password='geheim", "password=***"),
            ("host=db sslpassword=geheim", "host=db sslpassword=***"),
            ("host=db PASSWORD=geheim", "host=db PASSWORD=***"),
            ("host=db oauth_client_secret='geheim'", "host=db oauth_client_secret=***"),
            ("host='pass word' user=x", "host='pass word' user=x"),
            ("password=", "password="),
            ("password='' host=db", "password=*** host=db"),
            ("host=db passfile=/x/password", "host=db passfile=/x/password"),
            ("postgresql://u:geheim@db/x", "postgresql://u:***@db/x"),
            ("postgres://u:ge:he@im@db:5432/x?a=b", "postgres://u:***@db:5432/x?a=b"),
            ("postgresql://u:ge?heim@db/x", "postgresql://u:***@db/x"),
            ("postgresql://u@db/x", "postgresql://u@db/x"),
            ("postgresql://db:5432,e:5433/x", "postgresql://db:5432,e:5433/x"),
            (
                "postgresql:///x?host=db&password=geheim&sslpassword=geheim&user=u",
                "postgresql:///x?host=db&password=***&sslpassword=***&user=u",
            ),
            ("postgresql:///x?p%61ssword=geheim", "postgresql:///x?p%61ssword=***"),
            ("postgresql://u:geheim@db/?password=geheim", "postgresql://u:***@db/?password=***"),
        ] {
            assert_eq!(without_passwords(text), shown, "{text}");
        }
    }

    proptest::proptest! {
        /// What libpq's rules make a password, written in any way that says so, is hidden.
        #[test]
        fn no_password_shows(password in r"[ -~]{0,12}", before in "[a-z]{1,5}=[a-z0-9]{1,5}") {
            let secret = format!("Q{password}Z");
            let quoted = secret.replace('\\', r"\\").replace('\'', r"\'");
            for text in [
                format!("{before} password='{quoted}' host=db"),
                format!("{before} password={} host=db", quoted.replace(' ', r"\ ")),
            ] {
                let shown = without_passwords(&text);
                assert_eq!(shown, format!("{before} password=*** host=db"), "{text}");
            }
        }

        /// Nothing makes it stumble.
        #[test]
        fn any_text_is_shown(text in ".{0,40}") {
            without_passwords(&text);
            without_passwords(&format!("postgresql://{text}"));
        }
    }
}
