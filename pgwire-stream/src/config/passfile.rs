//! The password file: lines of `host:port:database:user:password`.
//!
//! Follows "The Password File" in PostgreSQL's libpq documentation, but does not pass over a file
//! that cannot be used: a backup that fails for want of a password should say why.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

use super::environment::SOCKET_DIRECTORIES;
use super::{ConfigError, Endpoint, Host, Password};

/// Far beyond any real file; a wrong path should not fill the memory.
const LARGEST: u64 = 4 << 20;

/// The content of a password file.
pub(super) struct PassFile(Zeroizing<Vec<u8>>);

impl PassFile {
    /// Reads the file; `None` if it does not exist.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, ConfigError> {
        let refused = |problem: String| ConfigError::File {
            what: "password file",
            path: path.to_owned(),
            problem,
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(refused(error.to_string())),
        };
        let metadata = file.metadata().map_err(|error| refused(error.to_string()))?;
        if !metadata.is_file() {
            return Err(refused("it is not a plain file".to_owned()));
        }
        check_permissions(&metadata).map_err(&refused)?;
        if metadata.len() > LARGEST {
            return Err(refused(format!("it is larger than {LARGEST} bytes")));
        }
        // With room for all of it, no copy is left behind in memory that was outgrown.
        let capacity = usize::try_from(metadata.len()).unwrap_or_default() + 1;
        let mut content = Zeroizing::new(Vec::with_capacity(capacity));
        file.take(LARGEST).read_to_end(&mut content).map_err(|error| refused(error.to_string()))?;
        Ok(Some(Self(content)))
    }

    #[cfg(feature = "fuzzing")]
    pub(super) fn from_content(content: Vec<u8>) -> Self {
        Self(Zeroizing::new(content))
    }

    /// The password on the first line that fits.
    pub(super) fn password(&self, host: &Host, database: &str, user: &str) -> Option<Password> {
        let port = host.port.to_string();
        let names = search_names(&host.endpoint);
        for line in self.0.split(|byte| *byte == b'\n') {
            if line.starts_with(b"#") {
                continue;
            }
            let line = strip_carriage_returns(line);
            let password = names
                .iter()
                .filter_map(|name| strip_field(line, name.as_bytes()))
                .filter_map(|rest| strip_field(rest, port.as_bytes()))
                .filter_map(|rest| strip_field(rest, database.as_bytes()))
                .find_map(|rest| strip_field(rest, user.as_bytes()));
            if let Some(password) = password {
                let password = Password::new(unescape(password));
                return (!password.as_bytes().is_empty()).then_some(password);
            }
        }
        None
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(unix)]
fn check_permissions(metadata: &std::fs::Metadata) -> Result<(), String> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    let mode = metadata.permissions().mode() & 0o7777;
    // A credential of systemd is root's, and what looks like its group is the one user that it is
    // for (an access control list).
    let credential = metadata.uid() == 0 && mode == 0o440;
    if mode & 0o077 == 0 || credential {
        return Ok(());
    }
    Err(format!(
        "its mode is {mode:04o}, open to group or others; passwords in it are only believed at \
         0600 or less (`chmod 0600`)"
    ))
}

#[cfg(not(unix))]
fn check_permissions(_: &std::fs::Metadata) -> Result<(), String> {
    Ok(())
}

/// What the host is called in the file. The directories where servers listen by default, which are
/// different from one packager to the next, are `localhost`.
fn search_names(endpoint: &Endpoint) -> Vec<String> {
    match endpoint {
        Endpoint::Tcp { name, .. } => vec![name.clone()],
        Endpoint::Unix(directory) => {
            let mut names = vec![directory.to_string_lossy().into_owned()];
            if SOCKET_DIRECTORIES.iter().any(|default| Path::new(default) == directory) {
                names.push("localhost".to_owned());
            }
            names
        }
    }
}

/// The line without carriage returns at its end.
fn strip_carriage_returns(line: &[u8]) -> &[u8] {
    let mut line = line;
    while let Some(shorter) = line.strip_suffix(b"\r") {
        line = shorter;
    }
    line
}

/// What follows a field of the line, if the field is `*` or the token.
fn strip_field<'a>(line: &'a [u8], token: &[u8]) -> Option<&'a [u8]> {
    if let Some(rest) = line.strip_prefix(b"*:") {
        return Some(rest);
    }
    let mut line = line;
    let mut token = token;
    loop {
        let (byte, escaped, rest) = match line {
            [b'\\', byte, rest @ ..] => (byte, true, rest),
            [byte, rest @ ..] => (byte, false, rest),
            [] => return None,
        };
        match token {
            [] if *byte == b':' && !escaped => return Some(rest),
            // A colon need not be escaped where the token has one, as in an IPv6 address.
            [first, others @ ..] if first == byte => token = others,
            _ => return None,
        }
        line = rest;
    }
}

/// The last field, up to the end or a bare colon.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut password = Vec::with_capacity(field.len());
    let mut rest = field;
    loop {
        rest = match rest {
            [] | [b':', ..] => return password,
            [b'\\', byte, rest @ ..] | [byte, rest @ ..] => {
                password.push(*byte);
                rest
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(name: &str, port: u16) -> Host {
        let endpoint = if name.starts_with(['/', '@']) {
            Endpoint::Unix(name.into())
        } else {
            Endpoint::Tcp { name: name.to_owned(), address: None }
        };
        Host { endpoint, port, password: None }
    }

    fn look_up(content: &str, name: &str, port: u16, database: &str, user: &str) -> Option<String> {
        PassFile(Zeroizing::new(content.as_bytes().to_vec()))
            .password(&host(name, port), database, user)
            .map(|password| String::from_utf8(password.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn the_first_line_that_fits_counts() {
        for (content, expected) in [
            ("", None),
            ("db:5432:d:u:secret", Some("secret")),
            ("db:5432:d:u:secret\n", Some("secret")),
            ("db:5432:d:u:secret\r\n", Some("secret")),
            ("# db:5432:d:u:no\n\ndb:5432:d:u:secret", Some("secret")),
            ("#db:5432:d:u:no", None),
            ("other:5432:d:u:no\ndb:5432:d:u:secret", Some("secret")),
            ("db:5433:d:u:no", None),
            ("db:5432:e:u:no", None),
            ("db:5432:d:v:no", None),
            ("*:*:*:*:any", Some("any")),
            ("db:*:*:u:first\n*:*:*:*:second", Some("first")),
            // A line that fits ends the search, be its password empty.
            ("db:5432:d:u:\n*:*:*:*:second", None),
            (r"db:5432:d:u:a\:b\\c", Some(r"a:b\c")),
            ("db:5432:d:u:secret:more", Some("secret")),
            (r"\d\b:5432:d:u:secret", Some("secret")),
            // Short of fields.
            ("db:5432:d:u", None),
            ("*", None),
            ("**:5432:d:u:no", None),
            (r"db\:5432:d:u:no", None),
        ] {
            assert_eq!(look_up(content, "db", 5432, "d", "u").as_deref(), expected, "{content:?}");
        }
    }

    #[test]
    fn colons_and_backslashes_in_names_may_be_escaped() {
        assert_eq!(look_up(r"\:\:1:5432:d:u:s", "::1", 5432, "d", "u").as_deref(), Some("s"));
        assert_eq!(look_up("::1:5432:d:u:s", "::1", 5432, "d", "u").as_deref(), Some("s"));
        assert_eq!(look_up(r"h:5432:d:a\\b:s", "h", 5432, "d", r"a\b").as_deref(), Some("s"));
    }

    #[test]
    fn default_socket_directories_are_localhost() {
        let local = "localhost:5432:d:u:s";
        assert_eq!(look_up(local, "/var/run/postgresql", 5432, "d", "u").as_deref(), Some("s"));
        assert_eq!(look_up(local, "/tmp", 5432, "d", "u").as_deref(), Some("s"));
        assert_eq!(look_up(local, "/srv/pg", 5432, "d", "u"), None);
        assert_eq!(look_up("/srv/pg:5432:d:u:s", "/srv/pg", 5432, "d", "u").as_deref(), Some("s"));
        assert_eq!(look_up("/tmp:5432:d:u:s", "/tmp", 5432, "d", "u").as_deref(), Some("s"));
    }

    #[cfg(unix)]
    #[test]
    fn files_that_others_can_read_are_refused_by_name() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pass");
        std::fs::write(&path, "*:*:*:*:secret").unwrap();
        for (mode, accepted) in [
            (0o600, true),
            (0o400, true),
            (0o700, true),
            (0o440, std::fs::metadata(&path).unwrap().uid() == 0),
            (0o640, false),
            (0o444, false),
            (0o604, false),
            (0o620, false),
        ] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let read = PassFile::read(&path);
            assert_eq!(read.is_ok(), accepted, "{mode:o}");
            if let Err(error) = read {
                let message = error.to_string();
                assert!(message.contains(path.to_str().unwrap()), "{message}");
                assert!(message.contains(&format!("{mode:04o}")), "{message}");
            }
        }
    }

    #[test]
    fn a_missing_file_is_no_error_and_a_directory_is() {
        let directory = tempfile::tempdir().unwrap();
        assert!(PassFile::read(&directory.path().join("none")).unwrap().is_none());
        assert!(PassFile::read(directory.path()).is_err());
    }

    #[test]
    fn a_file_of_absurd_size_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(LARGEST + 1).unwrap();
        assert!(matches!(PassFile::read(file.path()), Err(ConfigError::File { .. })));
    }

    fn escape(text: &str) -> String {
        text.replace('\\', r"\\").replace(':', r"\:")
    }

    proptest! {
        #[test]
        fn escaped_fields_come_back(
            name in r"[a-z:\\*]{1,8}", database in r"[a-z:\\]{1,8}", user in r"[a-z:\\]{1,8}",
            password in "[^\0\r\n]{1,12}",
        ) {
            let line = [name.as_str(), "1", &database, &user, &password].map(escape).join(":");
            prop_assert_eq!(look_up(&line, &name, 1, &database, &user), Some(password));
        }

        #[test]
        fn never_panics(content in any::<Vec<u8>>()) {
            let _ = PassFile(Zeroizing::new(content)).password(&host("h", 1), "d", "u");
        }
    }
}
