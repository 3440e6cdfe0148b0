//! Writing so that a power cut at any instant leaves either what was there before or all of what
//! was written, and so that what a function here returned from is there afterwards.
//!
//! What a file system promises, and all that is relied on:
//! * `fsync` of a file makes its bytes and its size durable, *not* the name that leads to it;
//! * `fsync` of a directory makes the names in it durable: those made, renamed and removed before;
//! * `rename` replaces a name at once for every process that looks, and after a crash the old or
//!   the new meaning is found, never none.
//!
//! Hence the order everywhere: bytes, `fsync` file, `rename`, `fsync` directory. Without the first
//! `fsync` the new name may lead to an empty file after a crash; without the second the whole
//! rename may be undone, although somebody was told that it is done. Of several files in a
//! directory, one sync of it behind the last renaming serves all.
//!
//! An `fsync` that fails is final for its file: the kernel drops the pages it could not write and
//! reports success the next time. So nobody syncs again here: the file is given up, by its name
//! never having become final.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{CWD, Mode, OFlags, RawDir, RenameFlags, renameat_with};

use super::StorageError;
#[cfg(test)]
use super::counted::count;
use super::write_back::WriteBack;

/// How often a leftover is removed before somebody else must be making them.
const MAX_ATTEMPTS: u32 = 10;

/// How many bytes of names are read from a directory at a time: all of one of the archive.
const NAMES: usize = 32 << 10;

/// Who may read what is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Only the user who stores it: 0700 and 0600.
    #[default]
    Private,
    /// The user's group as well: 0750 and 0640.
    Group,
}

impl Access {
    /// The mode of a directory.
    pub const fn directory_mode(self) -> u32 {
        match self {
            Self::Private => 0o700,
            Self::Group => 0o750,
        }
    }

    /// The mode of a file.
    pub const fn file_mode(self) -> u32 {
        match self {
            Self::Private => 0o600,
            Self::Group => 0o640,
        }
    }

    /// The permissions of a file. A new one must be given them: the umask may have taken some.
    pub fn file_permissions(self) -> Permissions {
        Permissions::from_mode(self.file_mode())
    }
}

/// A file that has its name only once it is complete and durable.
///
/// It is written under the hidden name `.<name>.tmp` beside its target, and vanishes if it is
/// dropped before [`commit`](Self::commit). The lock it holds meanwhile is how
/// [`collect_leftovers`] tells the file of a living process from that of a dead one; two writers
/// of the same target exclude each other by it.
#[derive(Debug)]
pub struct AtomicFile {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    committed: bool,
    write_back: WriteBack,
}

/// What became of a file that must not replace another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Put {
    /// The file is there now, and durable.
    Stored,
    /// Another has the name already and was left alone.
    Exists,
}

impl AtomicFile {
    /// A new, empty file that is to become `target`.
    ///
    /// # Errors
    /// If it cannot be made, or another process is writing the same target.
    pub fn create(target: &Path, access: Access) -> Result<Self, StorageError> {
        let temporary = temporary_name(target);
        let fail = |source| StorageError { action: "create", path: temporary.clone(), source };
        for _ in 0..MAX_ATTEMPTS {
            if let Some(file) = create_locked(&temporary, access).map_err(fail)? {
                let target = target.to_owned();
                let write_back = WriteBack::default();
                return Ok(Self { file, temporary, target, committed: false, write_back });
            }
            // A leftover has this name. Always a new file, because the old one's pages may be
            // among those that a failed fsync left in doubt.
            drop_leftover(&temporary).map_err(fail)?;
        }
        Err(fail(io::ErrorKind::ResourceBusy.into()))
    }

    /// The file that is being written, for those who need more than [`Write`].
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The name it will have.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Gives the file its name, replacing what has it now. Durable on return.
    ///
    /// # Errors
    /// If a sync or the renaming fails. The target is then as it was, or, if only the sync of the
    /// directory failed, in doubt between the two complete files.
    pub fn commit(self) -> Result<(), StorageError> {
        let target = self.target.clone();
        self.commit_bytes()?;
        // Until this is done, a power cut may bring the old file back.
        sync_parent(&target)
    }

    /// As [`commit`](Self::commit), but only the bytes are durable on return: the name is when the
    /// directory has been synced after it.
    ///
    /// # Errors
    /// If the sync or the renaming fails. The target is then as it was.
    pub fn commit_bytes(mut self) -> Result<(), StorageError> {
        self.sync()?;
        fs::rename(&self.temporary, &self.target)
            .map_err(StorageError::of("rename to", &self.target))?;
        self.committed = true;
        Ok(())
    }

    /// Gives the file its name unless something has it already. Durable on return either way: who
    /// finds the file of another there may rely on it.
    ///
    /// # Errors
    /// If a sync or the renaming fails.
    pub fn commit_new(mut self) -> Result<Put, StorageError> {
        self.sync()?;
        let put = rename_new(&self.temporary, &self.target)?;
        self.committed = put == Put::Stored;
        // For `Exists` too: the other writer may not have come so far yet.
        sync_parent(&self.target)?;
        Ok(put)
    }

    /// Gives the file, whose bytes its writer has made durable as far as that matters, another
    /// name than was planned, unless something has that already. The name is durable on return.
    ///
    /// # Errors
    /// If the renaming or the sync of the directory fails.
    pub fn name_durable(mut self, name: &Path) -> Result<Put, StorageError> {
        let put = rename_new(&self.temporary, name)?;
        self.committed = put == Put::Stored;
        sync_parent(name)?;
        Ok(put)
    }

    /// Before the renaming, or the name could become durable and lead to nothing.
    fn sync(&self) -> Result<(), StorageError> {
        self.file.sync_all().map_err(StorageError::of("make durable", &self.temporary))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.write_back.written(&self.file, written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.committed {
            // If this fails, the file stays hidden, and `collect_leftovers` finds it.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// `.<name>.tmp` beside the target.
fn temporary_name(target: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".tmp");
    target.with_file_name(name)
}

fn is_temporary_name(name: &str) -> bool {
    name.len() > 5 && name.starts_with('.') && name.ends_with(".tmp")
}

/// A new file under this name, locked; `None` if there is one.
fn create_locked(path: &Path, access: Access) -> io::Result<Option<File>> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(access.file_mode())
        .open(path);
    match opened {
        Ok(file) => {
            file.set_permissions(access.file_permissions())?;
            // Between the two calls somebody may have taken it for a leftover and removed it.
            let ours = matches!(file.try_lock(), Ok(())) && still_named(&file, path)?;
            Ok(ours.then_some(file))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether `path` still leads to this file.
fn still_named(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((ours.dev(), ours.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a temporary file that no living process holds.
fn drop_leftover(path: &Path) -> io::Result<()> {
    let file = match OpenOptions::new().write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) if still_named(&file, path)? => fs::remove_file(path),
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process is writing it"))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Removes the temporary files that dead processes left in a directory, and says which.
///
/// They are no part of anything, so nothing is synced: one that comes back after a power cut is
/// collected again.
///
/// # Errors
/// If the directory cannot be read or a file cannot be removed.
pub fn collect_leftovers(directory: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let mut collected = Vec::new();
    for name in list_dir(directory)? {
        if !name.to_str().is_some_and(is_temporary_name) {
            continue;
        }
        let path = directory.join(name);
        match drop_leftover(&path) {
            Ok(()) => collected.push(path),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            Err(error) => return Err(StorageError::of("remove", &path)(error)),
        }
    }
    Ok(collected)
}

/// Writes a whole file, replacing what has its name. Durable on return.
///
/// # Errors
/// As [`AtomicFile::commit`].
pub fn write_file(target: &Path, content: &[u8], access: Access) -> Result<(), StorageError> {
    let mut file = AtomicFile::create(target, access)?;
    file.write_all(content).map_err(StorageError::of("write", target))?;
    file.commit()
}

/// Writes a whole file unless something has its name. Durable on return.
///
/// # Errors
/// As [`AtomicFile::commit_new`].
pub fn put_if_absent(target: &Path, content: &[u8], access: Access) -> Result<Put, StorageError> {
    let mut file = AtomicFile::create(target, access)?;
    file.write_all(content).map_err(StorageError::of("write", target))?;
    file.commit_new()
}

/// Makes a directory and those above it that are missing. Durable on return.
///
/// Every directory on the way that had to be made is followed by a sync of the one that names it:
/// a durable file in a directory whose own name is lost is lost as well. The innermost parent is
/// synced even if nothing was made, because whoever made it may not have come so far.
///
/// # Errors
/// If one of them cannot be made or synced.
pub fn create_dir(path: &Path, access: Access) -> Result<(), StorageError> {
    let made = DirBuilder::new().mode(access.directory_mode()).create(path);
    match made {
        Ok(()) => {
            // The umask may have taken away what the group was to have.
            fs::set_permissions(path, Permissions::from_mode(access.directory_mode()))
                .map_err(StorageError::of("set the permissions of", path))?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
                create_dir(parent, access)?;
                return create_dir(path, access);
            }
            _ => return Err(StorageError::of("create", path)(error)),
        },
        Err(error) => return Err(StorageError::of("create", path)(error)),
    }
    sync_parent(path)
}

/// Makes a directory that is not there yet, of which the caller is sure, and that has its name only
/// once all is durable that `fill` puts into it, under the path that it is given. Durable on return.
///
/// If the process dies before, [`collect_hidden_dirs`] removes what there is.
///
/// # Errors
/// If it cannot be made, filled or named, and then nothing is left of it; or if the last sync fails,
/// and then it is there and may be gone after a power cut.
pub fn create_dir_with<E: From<StorageError>>(
    path: &Path,
    access: Access,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let hidden = hidden_name(path);
    // One of the same name that could not be removed is in the way.
    empty_and_remove(&hidden)?;
    let create = || {
        DirBuilder::new().mode(access.directory_mode()).create(&hidden)?;
        fs::set_permissions(&hidden, Permissions::from_mode(access.directory_mode()))
    };
    let made = || {
        create().map_err(StorageError::of("create", &hidden))?;
        fill(&hidden)?;
        fs::rename(&hidden, path).map_err(StorageError::of("rename to", path))?;
        Ok(sync_parent(path)?)
    };
    let made = made();
    if made.is_err() {
        let _ = empty_and_remove(&hidden);
    }
    made
}

/// Creates an empty file for appending that must not be there yet. Its name is durable on return.
///
/// Only for what may be seen half-written, such as a `.partial` segment, whose length says how
/// much of it is there.
///
/// # Errors
/// If it cannot be made or synced.
pub fn create_file_new(path: &Path, access: Access) -> Result<File, StorageError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(access.file_mode())
        .open(path)
        .map_err(StorageError::of("create", path))?;
    file.set_permissions(access.file_permissions())
        .map_err(StorageError::of("set the permissions of", path))?;
    sync_parent(path)?;
    Ok(file)
}

/// Renames a file whose bytes are durable already, within a directory or from one to another,
/// unless something has the new name. Durable on return.
///
/// The new name's directory is synced first: a power cut between the two leaves the file with
/// both names, never with none.
///
/// # Errors
/// If the renaming or a sync fails.
pub fn rename_file(from: &Path, to: &Path) -> Result<Put, StorageError> {
    let put = rename_new(from, to)?;
    sync_parent(to)?;
    if put == Put::Stored && from.parent() != to.parent() {
        sync_parent(from)?;
    }
    Ok(put)
}

/// Removes a file; one that is not there is no error. Durable on return.
///
/// The sync matters where a name that came back would be believed: a raw segment beside its
/// archived form, a partial one that a complete one replaced.
///
/// # Errors
/// If it cannot be removed or the sync fails.
pub fn remove_file(path: &Path) -> Result<(), StorageError> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StorageError::of("remove", path)(error)),
    }
}

/// What the name of a directory ends with whose content nobody is to see: not yet, or not any more.
const HIDDEN: &str = ".hidden";

/// `.<name>.hidden` beside the directory.
fn hidden_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{HIDDEN}"))
}

/// Takes away the name of a directory, which [`collect_hidden_dirs`] then removes. Durable on
/// return.
///
/// A power cut leaves it as a whole or as nothing that anybody looks at, never as a directory with
/// half of its files.
///
/// # Errors
/// If it cannot be renamed, or the sync fails.
pub fn hide_dir(path: &Path) -> Result<(), StorageError> {
    let hidden = hidden_name(path);
    // One of the same name that could not be removed is in the way.
    empty_and_remove(&hidden)?;
    fs::rename(path, &hidden).map_err(StorageError::of("rename", path))?;
    sync_parent(path)
}

/// Removes the directories in another that were [hidden](hide_dir), or never
/// [named](create_dir_with).
///
/// # Errors
/// If something cannot be removed.
pub fn collect_hidden_dirs(parent: &Path) -> Result<(), StorageError> {
    for name in list_dir(parent)? {
        if name.to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(HIDDEN)) {
            empty_and_remove(&parent.join(name))?;
        }
    }
    Ok(())
}

fn empty_and_remove(directory: &Path) -> Result<(), StorageError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StorageError::of("remove", directory)(error))
        }
        _ => Ok(()),
    }
}

/// Makes the names in a directory durable.
///
/// # Errors
/// If it cannot be opened or synced.
pub fn sync_dir(path: &Path) -> Result<(), StorageError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(StorageError::of("make durable", path))
}

/// Makes the bytes of a file durable that this or another process wrote, and says how many there
/// were before it began.
///
/// `fsync` writes back all dirty pages of the file, whoever dirtied them, so what was in it at
/// that moment is durable on return; more may follow at any time.
///
/// # Errors
/// If it cannot be opened or synced.
pub fn sync_file(path: &Path) -> Result<u64, StorageError> {
    let sync = || {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        file.sync_all()?;
        Ok(size)
    };
    sync().map_err(StorageError::of("make durable", path))
}

/// The names in a directory, in no order; none if it is not there.
///
/// # Errors
/// If it cannot be read.
pub fn list_dir(path: &Path) -> Result<Vec<OsString>, StorageError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StorageError::of("read the directory", path)(error)),
    };
    let names: Vec<OsString> = entries
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<io::Result<_>>()
        .map_err(StorageError::of("read the directory", path))?;
    #[cfg(test)]
    count(|counts| {
        counts.directories += 1;
        counts.names += names.len() as u64;
    });
    Ok(names)
}

/// The size of a file; `None` if it is not there.
///
/// # Errors
/// If the operating system does not tell.
pub fn file_size(path: &Path) -> Result<Option<u64>, StorageError> {
    #[cfg(test)]
    count(|counts| counts.sizes += 1);
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StorageError::of("look at", path)(error)),
    }
}

/// When a file, or the names in a directory, changed last; `None` if it is not there.
///
/// # Errors
/// If the operating system does not tell.
pub fn modified(path: &Path) -> Result<Option<SystemTime>, StorageError> {
    match fs::metadata(path).and_then(|metadata| metadata.modified()) {
        Ok(modified) => Ok(Some(modified)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StorageError::of("look at", path)(error)),
    }
}

/// Tells the names in a directory, in no order; none if it is not there. Names that are not UTF-8
/// are none that this program makes, and passed over. What [`list_dir`] gives, without an
/// allocation for each.
///
/// # Errors
/// If it cannot be read.
pub fn for_each_name(path: &Path, mut name: impl FnMut(&str)) -> Result<(), StorageError> {
    let failed =
        |error: rustix::io::Errno| StorageError::of("read the directory", path)(error.into());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    #[cfg(test)]
    count(|counts| counts.directories += 1);
    let mut buffer = Vec::with_capacity(NAMES);
    let mut entries = RawDir::new(&directory, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        match entry.map_err(failed)?.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(entry) => {
                #[cfg(test)]
                count(|counts| counts.names += 1);
                name(entry);
            }
        }
    }
    Ok(())
}

fn sync_parent(path: &Path) -> Result<(), StorageError> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => sync_dir(Path::new(".")),
    }
}

/// `rename` that never replaces: in the kernel where it can, by a link where it cannot.
fn rename_new(from: &Path, to: &Path) -> Result<Put, StorageError> {
    let renamed = match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some network file systems know no NOREPLACE. A link refuses to replace as well.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
            fs::hard_link(from, to).and_then(|()| fs::remove_file(from))
        }
        renamed => renamed.map_err(io::Error::from),
    };
    match renamed {
        Ok(()) => Ok(Put::Stored),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Put::Exists),
        Err(error) => Err(StorageError::of("rename to", to)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            list_dir(directory).unwrap().into_iter().map(|n| n.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_directory_has_its_name_when_it_is_filled_or_never() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one");
        fs::create_dir(hidden_name(&path)).unwrap();
        fs::write(hidden_name(&path).join("old"), b"").unwrap();
        let made = create_dir_with(&path, Access::Private, |hidden| {
            assert!(!path.exists());
            put_if_absent(&hidden.join("new"), b"content", Access::Private).map(|_| ())
        });
        made.unwrap();
        assert_eq!(names(&path), ["new"]);
        assert_eq!(names(dir.path()), ["one"]);

        let path = dir.path().join("two");
        let failed = create_dir_with(&path, Access::Private, |hidden| {
            fs::write(hidden.join("new"), b"").unwrap();
            Err(StorageError::of("write", hidden)(io::ErrorKind::StorageFull.into()))
        });
        failed.unwrap_err();
        // Nor does it take the place of another.
        let one = dir.path().join("one");
        let failed = create_dir_with(&one, Access::Private, |_| Ok::<_, StorageError>(()));
        failed.unwrap_err();
        assert_eq!(names(dir.path()), ["one"]);
        // A process that dies meanwhile leaves what is collected.
        fs::create_dir(hidden_name(&path)).unwrap();
        collect_hidden_dirs(dir.path()).unwrap();
        assert_eq!(names(dir.path()), ["one"]);
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("backup.json");
        let mut file = AtomicFile::create(&target, Access::Private).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(names(dir.path()), [".backup.json.tmp"]);
        drop(file);
        assert!(names(dir.path()).is_empty());

        write_file(&target, b"one", Access::Private).unwrap();
        write_file(&target, b"two", Access::Private).unwrap();
        assert_eq!(put_if_absent(&target, b"three", Access::Private).unwrap(), Put::Exists);
        assert_eq!(fs::read(&target).unwrap(), b"two");
        assert_eq!(names(dir.path()), ["backup.json"]);
    }

    #[test]
    fn modes_do_not_depend_on_the_umask() {
        let dir = tempfile::tempdir().unwrap();
        for (access, directory, file) in
            [(Access::Private, 0o700, 0o600), (Access::Group, 0o750, 0o640)]
        {
            let path = dir.path().join(format!("{directory:o}/a/b"));
            create_dir(&path, access).unwrap();
            create_dir(&path, access).unwrap();
            write_file(&path.join("f"), b"", access).unwrap();
            let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&path), directory);
            assert_eq!(mode(path.parent().unwrap()), directory);
            assert_eq!(mode(&path.join("f")), file);
        }
    }

    #[test]
    fn only_the_files_of_the_dead_are_collected() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a");
        fs::write(dir.path().join(".a.tmp"), b"left behind").unwrap();
        fs::write(dir.path().join(".b.tmp"), b"left behind").unwrap();
        let mut file = AtomicFile::create(&target, Access::Private).unwrap();
        assert_eq!(collect_leftovers(dir.path()).unwrap(), [dir.path().join(".b.tmp")]);
        let second = AtomicFile::create(&target, Access::Private).unwrap_err();
        assert_eq!(second.source.kind(), io::ErrorKind::ResourceBusy);
        file.write_all(b"x").unwrap();
        assert_eq!(file.commit_new().unwrap(), Put::Stored);
        assert_eq!(fs::read(&target).unwrap(), b"x");
    }

    #[test]
    fn renaming_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, b"a").unwrap();
        fs::write(&b, b"b").unwrap();
        assert_eq!(rename_file(&a, &b).unwrap(), Put::Exists);
        remove_file(&b).unwrap();
        remove_file(&b).unwrap();
        assert_eq!(rename_file(&a, &b).unwrap(), Put::Stored);
        assert_eq!(names(dir.path()), ["b"]);
        assert_eq!(sync_file(&b).unwrap(), 1);
    }

    #[test]
    fn errors_name_the_file() {
        let error = write_file(Path::new("/nonexistent/x"), b"", Access::Private).unwrap_err();
        assert_eq!(error.to_string(), "cannot create `/nonexistent/.x.tmp`");
        assert!(error.is_not_found());
    }
}
