//! An identity file of age: the secret keys that open what is encrypted to their public halves.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use age::stream::StreamReader;
use age::{DecryptError, Decryptor, IdentityFile};

use super::DecryptionError;
use crate::settings::Recipient;
use crate::storage::StorageError;

/// How much of an encrypted file is read at a time.
const BUFFER: usize = 128 << 10;

/// An identity file of age, which is read when the first encrypted file is: where nothing is
/// encrypted, it need not even be there.
#[derive(Clone)]
pub struct KeyFile(Arc<Inner>);

struct Inner {
    path: PathBuf,
    keys: OnceLock<Keys>,
}

struct Keys {
    secret: Vec<Box<dyn age::Identity + Send + Sync>>,
    public: Vec<Recipient>,
}

impl KeyFile {
    /// The file at this path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(Arc::new(Inner { path: path.into(), keys: OnceLock::new() }))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The public halves of the keys in it.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn recipients(&self) -> Result<&[Recipient], DecryptionError> {
        self.keys().map(|keys| keys.public.as_slice())
    }

    /// Decrypts what was encrypted to one of the keys. Nothing but the header is read.
    pub(super) fn decrypt<R: Read>(
        &self,
        path: &Path,
        file: R,
    ) -> Result<StreamReader<BufReader<R>>, DecryptionError> {
        let keys = self.keys()?;
        let secret = keys.secret.iter().map(|key| key.as_ref() as &dyn age::Identity);
        let opened = Decryptor::new_buffered(BufReader::with_capacity(BUFFER, file))
            .and_then(|decryptor| decryptor.decrypt(secret));
        opened.map_err(|error| match error {
            DecryptError::NoMatchingKeys => {
                DecryptionError::OtherKeys { path: path.to_owned(), keys: self.path().to_owned() }
            }
            // What the operating system said; an early end it does not say.
            DecryptError::Io(source) if source.raw_os_error().is_some() => {
                StorageError::of("read", path)(source).into()
            }
            source => DecryptionError::Damaged { path: path.to_owned(), source },
        })
    }

    fn keys(&self) -> Result<&Keys, DecryptionError> {
        match self.0.keys.get() {
            Some(keys) => Ok(keys),
            None => {
                let keys = load(self.path())?;
                Ok(self.0.keys.get_or_init(|| keys))
            }
        }
    }
}

/// Shows no key.
impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyFile").field(&self.path()).finish()
    }
}

fn load(path: &Path) -> Result<Keys, DecryptionError> {
    let unreadable = |source| DecryptionError::KeysUnreadable { keys: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    // Of the file that is read, whatever becomes of its name.
    let metadata = file.metadata().map_err(unreadable)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if is_open_to_others(mode, metadata.uid()) {
        return Err(DecryptionError::KeysExposed { keys: path.to_owned(), mode });
    }
    parse(&mut file).map_err(|source| match source.raw_os_error() {
        Some(_) => unreadable(source),
        None => DecryptionError::KeysMalformed { keys: path.to_owned(), source },
    })
}

/// Whether somebody else than the one user that it is for can read a file.
fn is_open_to_others(mode: u32, owner: u32) -> bool {
    // A credential of systemd is root's, and what looks like its group is the one user that it is
    // for (an access control list).
    let credential = owner == 0 && mode == 0o440;
    mode & 0o077 != 0 && !credential
}

/// The library bounds what it reads, and names lines by their numbers.
fn parse(file: &mut impl Read) -> io::Result<Keys> {
    let file = IdentityFile::from_buffer(BufReader::new(file))?;
    let mut listed = Vec::new();
    file.write_recipients_file(&mut listed).map_err(|_| io::Error::other("it holds no key"))?;
    let listed = String::from_utf8(listed).map_err(io::Error::other)?;
    let public = listed.lines().map(str::parse).collect::<Result<_, _>>();
    Ok(Keys {
        public: public.map_err(io::Error::other)?,
        secret: file.into_identities().map_err(io::Error::other)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_of_systemd_is_closed_to_others() {
        for (mode, owner, open) in [
            (0o600, 1000, false),
            (0o400, 0, false),
            (0o440, 0, false),
            (0o440, 1000, true),
            (0o640, 0, true),
            (0o444, 0, true),
        ] {
            assert_eq!(is_open_to_others(mode, owner), open, "{mode:o} of {owner}");
        }
    }
}
