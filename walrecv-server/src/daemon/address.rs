//! The control socket's name, which daemon and commands derive from the home directory alone.
//!
//! The socket lies in Linux's abstract namespace: it needs no directory that another user could
//! not reach, vanishes with its process, and leaves nothing behind after a crash. Anybody may bind
//! any name there, so both sides look at who the other is before they believe a word.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::path::Path;

use crate::storage::Sha256Sum;

/// The name of the control socket of the store at `home`, however the path to it is written.
///
/// # Errors
/// If the directory cannot be found.
pub(super) fn of(home: &Path) -> io::Result<SocketAddr> {
    let canonical = home.canonicalize()?;
    let sum = Sha256Sum::of(canonical.as_os_str().as_encoded_bytes()).to_string();
    let prefix = sum.get(..32).unwrap_or(&sum);
    SocketAddr::from_abstract_name(format!("walrecv-server/{prefix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_depends_on_the_directory_and_not_on_its_spelling() {
        let dir = tempfile::tempdir().unwrap();
        let name = |path: &Path| of(path).unwrap().as_abstract_name().unwrap().to_vec();
        std::fs::create_dir(dir.path().join("other")).unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("other/link")).unwrap();
        assert_eq!(name(dir.path()), name(&dir.path().join("other/link")));
        assert_eq!(name(dir.path()), name(&dir.path().join("other/../.")));
        assert_ne!(name(dir.path()), name(&dir.path().join("other")));
        assert!(of(&dir.path().join("absent")).is_err());
    }
}
