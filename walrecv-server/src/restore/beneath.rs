//! Making files below a directory, and nowhere else.
//!
//! Every path is walked component by component from an open directory, and no component may be a
//! symbolic link: whatever an archive says, and whoever plants a link meanwhile, nothing is
//! written outside. The directory that was used last stays open, because the members of an
//! archive come directory by directory.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};

use super::owner::Owner;
use crate::storage::StorageError;

/// How a directory is opened on the way to a file.
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory that files are made below.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    directory: OwnedFd,
    /// The directory that was used last, relative to the root.
    recent: Option<(Vec<u8>, OwnedFd)>,
    owner: Option<(Uid, Gid)>,
    /// Every directory that was made or written into, and is not durable yet.
    unsynced: Vec<Vec<u8>>,
}

impl Root {
    /// Opens a directory. What is made below it is handed to `owner`, if there is one.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(super) fn open(path: &Path, owner: Option<&Owner>) -> Result<Self, StorageError> {
        // The directory itself may be reached by links: the operator chose it.
        let directory = rustix::fs::open(path, DIRECTORY, Mode::empty())
            .map_err(|errno| StorageError::of("open the directory", path)(errno.into()))?;
        let owner = owner.map(|owner| (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid)));
        Ok(Self {
            path: path.to_owned(),
            directory,
            recent: None,
            owner,
            unsynced: vec![Vec::new()],
        })
    }

    /// Where a relative path leads, for messages.
    pub(super) fn resolve(&self, path: &[u8]) -> PathBuf {
        self.path.join(std::ffi::OsStr::from_bytes(path))
    }

    /// Sets mode and owner of the directory itself.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub(super) fn set_mode(&self, mode: u32) -> Result<(), StorageError> {
        self.settle(&self.directory, mode)
            .map_err(StorageError::of("set the permissions of", &self.path))
    }

    /// Makes a directory; one that is there already is taken over.
    ///
    /// # Errors
    /// If it cannot be made, or something else has its name.
    pub(super) fn make_dir(&mut self, path: &[u8], mode: u32) -> Result<(), StorageError> {
        let made = self.with_parent(path, |root, parent, name| {
            match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            let directory = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?;
            root.settle(&directory, mode)?;
            Ok(directory)
        });
        let directory = made.map_err(|source| self.error("create the directory", path, source))?;
        self.unsynced.push(path.to_vec());
        self.recent = Some((path.to_vec(), directory));
        Ok(())
    }

    /// Makes a directory and those above it that are missing.
    ///
    /// # Errors
    /// As [`make_dir`](Self::make_dir).
    pub(super) fn make_dirs(&mut self, path: &[u8], mode: u32) -> Result<(), StorageError> {
        let ends = path.iter().enumerate().filter(|&(_, &byte)| byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]).collect::<Vec<_>>() {
            self.make_dir(path.get(..end).unwrap_or(path), mode)?;
        }
        Ok(())
    }

    /// Makes a file that must not be there yet.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn create(&mut self, path: &[u8], mode: u32) -> Result<File, StorageError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.with_parent(path, |root, parent, name| {
            let file = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?;
            root.settle(&file, mode)?;
            Ok(File::from(file))
        });
        file.map_err(|source| self.error("create", path, source))
    }

    /// Opens a file that was made here, to write more of it.
    ///
    /// # Errors
    /// If it cannot be opened, or is not beneath.
    pub(super) fn reopen(&mut self, path: &[u8]) -> Result<File, StorageError> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = self.with_parent(path, |_, parent, name| {
            let file = File::from(rustix::fs::openat(parent, name, flags, Mode::empty())?);
            // Its owner, who is not always us, may have put something else there.
            let metadata = file.metadata()?;
            if metadata.is_file() && metadata.nlink() == 1 {
                Ok(file)
            } else {
                Err(io::Error::new(io::ErrorKind::InvalidInput, "it was replaced meanwhile"))
            }
        });
        file.map_err(|source| self.error("open", path, source))
    }

    /// The content of a small file; `None` if there is none of that name.
    ///
    /// # Errors
    /// If it cannot be read, or is larger than `limit`.
    pub(super) fn read(
        &mut self,
        path: &[u8],
        limit: u64,
    ) -> Result<Option<Vec<u8>>, StorageError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let content = self.with_parent(path, |_, parent, name| {
            let file = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
                Ok(file) => File::from(file),
                Err(rustix::io::Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            };
            let mut content = Vec::new();
            file.take(limit.saturating_add(1)).read_to_end(&mut content)?;
            if content.len() as u64 > limit {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Ok(Some(content))
        });
        content.map_err(|source| self.error("read", path, source))
    }

    /// The names in a directory, in their order.
    ///
    /// # Errors
    /// If it cannot be read, or there are more than `limit`.
    pub(super) fn names(&self, path: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, StorageError> {
        let names = self.open_dir(path).and_then(|directory| {
            let mut names = Vec::new();
            for entry in rustix::fs::Dir::read_from(directory)? {
                names.push(entry?.file_name().to_bytes().to_vec());
                if names.len() > limit {
                    return Err(io::ErrorKind::QuotaExceeded.into());
                }
            }
            names.sort();
            Ok(names)
        });
        names.map_err(|source| self.error("read the directory", path, source))
    }

    /// Writes a file whole, instead of what has its name. Its bytes are durable on return, its
    /// name when [`sync`](Self::sync) returns.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn replace(
        &mut self,
        path: &[u8],
        content: &[u8],
        mode: u32,
    ) -> Result<(), StorageError> {
        let mut temporary = path.to_vec();
        temporary.extend_from_slice(b".restoring");
        let mut file = self.create(&temporary, mode)?;
        file.write_all(content)
            .and_then(|()| file.sync_all())
            .map_err(|source| self.error("write", &temporary, source))?;
        self.rename(&temporary, path)
    }

    /// Gives a file another name in the same directory, replacing what has it.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub(super) fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<(), StorageError> {
        let from_name = split(from).1.to_vec();
        let renamed = self.with_parent(to, |_, parent, name| {
            Ok(rustix::fs::renameat(parent, &from_name[..], parent, name)?)
        });
        renamed.map_err(|source| self.error("rename to", to, source))
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub(super) fn link(&mut self, target: &Path, path: &[u8]) -> Result<(), StorageError> {
        let linked = self.with_parent(path, |root, parent, name| {
            rustix::fs::symlinkat(target, parent, name)?;
            if let Some((uid, gid)) = root.owner {
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(parent, name, Some(uid), Some(gid), flags)?;
            }
            Ok(())
        });
        linked.map_err(|source| self.error("create the link", path, source))
    }

    /// Removes a file; the answer is whether there was one.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub(super) fn remove(&mut self, path: &[u8]) -> Result<bool, StorageError> {
        let removed = self.with_parent(path, |_, parent, name| {
            match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
                Ok(()) => Ok(true),
                Err(rustix::io::Errno::NOENT) => Ok(false),
                Err(errno) => Err(errno.into()),
            }
        });
        removed.map_err(|source| self.error("remove", path, source))
    }

    /// Makes the names in all directories durable that were written into, the deepest first, and
    /// the name of the root itself.
    ///
    /// # Errors
    /// If one of them cannot be synced.
    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        while let Some(path) = self.unsynced.pop() {
            let synced = match path.as_slice() {
                b"" => rustix::fs::fsync(&self.directory).map_err(io::Error::from),
                _ => self.open_dir(&path).and_then(|directory| Ok(rustix::fs::fsync(directory)?)),
            };
            synced.map_err(|source| self.error("make durable", &path, source))?;
        }
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        crate::storage::durable::sync_dir(parent.unwrap_or(Path::new(".")))?;
        // The root may be written into again.
        self.unsynced.push(Vec::new());
        Ok(())
    }

    /// Makes the names in one directory durable.
    ///
    /// # Errors
    /// If it cannot be synced.
    pub(super) fn sync_dir(&mut self, path: &[u8]) -> Result<(), StorageError> {
        let synced = self.open_dir(path).and_then(|directory| Ok(rustix::fs::fsync(directory)?));
        synced.map_err(|source| self.error("make durable", path, source))
    }

    fn error(&self, action: &'static str, path: &[u8], source: io::Error) -> StorageError {
        StorageError { action, path: self.resolve(path), source }
    }

    /// Mode, whatever the umask took away, and owner.
    fn settle(&self, file: impl AsFd, mode: u32) -> io::Result<()> {
        // The owner first: changing it clears bits of the mode.
        if let Some((uid, gid)) = self.owner {
            rustix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        Ok(())
    }

    fn with_parent<T>(
        &mut self,
        path: &[u8],
        act: impl FnOnce(&Self, &OwnedFd, &[u8]) -> io::Result<T>,
    ) -> io::Result<T> {
        let (parent, name) = split(path);
        check(name)?;
        if path.starts_with(b"/") {
            check(b"")?;
        }
        if parent.is_empty() {
            return act(self, &self.directory, name);
        }
        if self.recent.as_ref().is_none_or(|(recent, _)| recent != parent) {
            self.recent = Some((parent.to_vec(), self.open_dir(parent)?));
        }
        match &self.recent {
            Some((_, directory)) => act(self, directory, name),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn open_dir(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let mut directory: Option<OwnedFd> = None;
        for component in path.split(|&byte| byte == b'/') {
            check(component)?;
            let above = directory.as_ref().unwrap_or(&self.directory);
            directory = Some(rustix::fs::openat(above, component, DIRECTORY, Mode::empty())?);
        }
        directory.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// The directory, empty for the root, and the name in it.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => {
            let (parent, name) = path.split_at(at);
            (parent, name.strip_prefix(b"/").unwrap_or(name))
        }
        None => (b"", path),
    }
}

/// Refuses what would not stay in its directory.
fn check(component: &[u8]) -> io::Result<()> {
    let plain = !matches!(component, b"" | b"." | b"..")
        && !component.contains(&b'/')
        && !component.contains(&0);
    if plain {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "the path leads out of its directory"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn kind<T: std::fmt::Debug>(result: Result<T, StorageError>) -> io::ErrorKind {
        result.unwrap_err().source.kind()
    }

    #[test]
    fn makes_what_it_is_told_with_the_modes_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut root = Root::open(dir.path(), None).unwrap();
        root.make_dirs(b"base/1", 0o750).unwrap();
        root.make_dir(b"base", 0o700).unwrap();
        root.create(b"base/1/1259", 0o640).unwrap().write_all(b"x").unwrap();
        root.create(b"PG_VERSION", 0o600).unwrap();
        root.replace(b"PG_VERSION", b"15\n", 0o600).unwrap();
        root.link(Path::new("/elsewhere"), b"base/link").unwrap();
        root.sync().unwrap();
        assert_eq!(root.read(b"PG_VERSION", 3).unwrap().unwrap(), b"15\n");
        assert_eq!(root.read(b"absent", 3).unwrap(), None);
        assert_eq!(kind(root.read(b"PG_VERSION", 2)), io::ErrorKind::FileTooLarge);
        let names = root.names(b"base", 9).unwrap();
        assert_eq!(names, [&b"."[..], b"..", b"1", b"link"]);
        assert_eq!(kind(root.names(b"base", 3)), io::ErrorKind::QuotaExceeded);
        assert!(root.remove(b"PG_VERSION").unwrap());
        assert!(!root.remove(b"PG_VERSION").unwrap());
        let mode =
            |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("base"), mode("base/1"), mode("base/1/1259")), (0o700, 0o750, 0o640));
        assert_eq!(fs::read_link(dir.path().join("base/link")).unwrap(), Path::new("/elsewhere"));
    }

    #[test]
    fn nothing_leaves_the_root() {
        let outside = tempfile::tempdir().unwrap();
        let dir = tempfile::tempdir().unwrap();
        symlink(outside.path(), dir.path().join("out")).unwrap();
        symlink(outside.path().join("file"), dir.path().join("file")).unwrap();
        fs::write(outside.path().join("kept"), b"").unwrap();
        let mut root = Root::open(dir.path(), None).unwrap();
        for path in [&b"out/x"[..], b"../x", b"/x", b"a/../../x", b"", b".", b"..", b"file", b"a\0"]
        {
            root.create(path, 0o600).unwrap_err();
            root.make_dir(path, 0o700).unwrap_err();
        }
        root.make_dir(b"out", 0o700).unwrap_err();
        root.remove(b"out/kept").unwrap_err();
        root.read(b"out/kept", 10).unwrap_err();
        let names: Vec<_> =
            fs::read_dir(outside.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["kept"]);
    }

    #[test]
    fn a_file_is_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut root = Root::open(dir.path(), None).unwrap();
        root.create(b"once", 0o600).unwrap();
        assert_eq!(kind(root.create(b"once", 0o600)), io::ErrorKind::AlreadyExists);
    }
}
