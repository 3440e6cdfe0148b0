//! Who may change what of a server's store: one process at a time.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::thread;
use std::time::Duration;

use super::{ServerDir, StorageError, durable};
use crate::failure::{Class, Failure};
use crate::settings::ServerName;

/// How often a lock is tried: who has it may only [look](ServerLock::is_held) whether somebody has it,
/// and the number that is written down be that of a process that died long ago.
const LOOKS: u32 = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// What a lock is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockKind {
    /// Writing into `wals/`.
    Archive,
    /// Making or removing base backups.
    Backup,
    /// Writing into `streaming/`, and being the one who acknowledges.
    Receiver,
}

impl LockKind {
    /// The name of its file.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Archive => "archive.lock",
            Self::Backup => "backup.lock",
            Self::Receiver => "receiver.lock",
        }
    }

    const fn work(self) -> &'static str {
        match self {
            Self::Archive => "archives WAL",
            Self::Backup => "works on base backups",
            Self::Receiver => "receives WAL",
        }
    }
}

/// A lock of a server's store, released when it is dropped and, by the kernel, when the process
/// ends in whatever way. So a lock that is held has a living holder.
#[derive(Debug)]
pub struct ServerLock {
    file: File,
    kind: LockKind,
    server: ServerName,
}

/// Why a lock was not given.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{} already {} of server `{server}`", describe(*.process), .kind.work())]
    Held {
        /// What the lock is for.
        kind: LockKind,
        /// Whose store it is.
        server: ServerName,
        /// The process, if it could be read.
        process: Option<u32>,
    },
    /// The lock's file cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

fn describe(process: Option<u32>) -> String {
    process.map_or_else(|| "another process".to_owned(), |id| format!("process {id}"))
}

impl Failure for LockError {
    fn class(&self) -> Class {
        Class::Failed
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Held { process: Some(id), .. } => {
                Some(format!("`ps -fp {id}` shows it; wait for it, or end it"))
            }
            Self::Held { process: None, .. } => None,
            Self::Storage(error) => error.hint(),
        }
    }
}

impl ServerLock {
    /// Takes the lock if nobody has it.
    ///
    /// # Errors
    /// If another process has it, or its file cannot be used.
    pub fn try_acquire(server: &ServerDir, kind: LockKind) -> Result<Self, LockError> {
        let mut file = open(server, kind)?;
        let mut process = None;
        for _ in 0..LOOKS {
            match file.try_lock() {
                Ok(()) => return Ok(Self::taken(file, server, kind)?),
                Err(TryLockError::WouldBlock) => {
                    process = holder(&mut file);
                    thread::sleep(BETWEEN_LOOKS);
                }
                Err(TryLockError::Error(source)) => {
                    return Err(StorageError::of("lock", &server.lock(kind))(source).into());
                }
            }
        }
        Err(LockError::Held { kind, server: server.name().clone(), process })
    }

    /// Takes the lock, waiting until nobody has it.
    ///
    /// # Errors
    /// If its file cannot be used.
    pub fn acquire(server: &ServerDir, kind: LockKind) -> Result<Self, StorageError> {
        let file = open(server, kind)?;
        file.lock().map_err(StorageError::of("lock", &server.lock(kind)))?;
        Self::taken(file, server, kind)
    }

    /// Whether another process has the lock; changes nothing on disk.
    ///
    /// # Errors
    /// If its file cannot be used.
    pub fn is_held(server: &ServerDir, kind: LockKind) -> Result<bool, StorageError> {
        let path = server.lock(kind);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(StorageError::of("open", &path)(error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(source)) => Err(StorageError::of("lock", &path)(source)),
        }
    }

    /// What the lock is for.
    pub fn kind(&self) -> LockKind {
        self.kind
    }

    /// Whose store is locked.
    pub fn server(&self) -> &ServerName {
        &self.server
    }

    /// Writes down who has it. The file itself is never removed: a new one under the same name
    /// would be another lock.
    fn taken(mut file: File, server: &ServerDir, kind: LockKind) -> Result<Self, StorageError> {
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(StorageError::of("write", &server.lock(kind)))?;
        Ok(Self { file, kind, server: server.name().clone() })
    }
}

impl Drop for ServerLock {
    fn drop(&mut self) {
        // Closing releases it as well; a number that no longer holds would only mislead.
        let _ = self.file.set_len(0);
    }
}

fn open(server: &ServerDir, kind: LockKind) -> Result<File, StorageError> {
    // Nothing of a lock has to outlive its process: a directory that is there is not synced again.
    if !server.locks().is_dir() {
        durable::create_dir(&server.locks(), server.access())?;
    }
    let path = server.lock(kind);
    let mode = server.access().file_mode();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(mode)
        .open(&path)
        .map_err(StorageError::of("open", &path))?;
    // Only its owner may; to the others it is as it is.
    let _ = file.set_permissions(Permissions::from_mode(mode));
    Ok(file)
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Access, Home};

    #[test]
    fn who_only_looks_keeps_nobody_out() {
        let dir = tempfile::tempdir().unwrap();
        let server = Home::new(dir.path(), Access::Private).server(&"main".parse().unwrap());
        drop(ServerLock::try_acquire(&server, LockKind::Backup).unwrap());
        let look = File::open(server.lock(LockKind::Backup)).unwrap();
        look.lock_shared().unwrap();
        let looking = thread::spawn(move || {
            thread::sleep(BETWEEN_LOOKS);
            drop(look);
        });
        ServerLock::try_acquire(&server, LockKind::Backup).unwrap();
        looking.join().unwrap();
    }

    #[test]
    fn one_holder_at_a_time_and_the_other_is_told_who() {
        let dir = tempfile::tempdir().unwrap();
        let server = Home::new(dir.path(), Access::Private).server(&"main".parse().unwrap());
        assert!(!ServerLock::is_held(&server, LockKind::Receiver).unwrap());
        let first = ServerLock::try_acquire(&server, LockKind::Receiver).unwrap();
        assert!(ServerLock::is_held(&server, LockKind::Receiver).unwrap());
        let error = ServerLock::try_acquire(&server, LockKind::Receiver).unwrap_err();
        let expected =
            format!("process {} already receives WAL of server `main`", std::process::id());
        assert_eq!(error.to_string(), expected);
        let _other = ServerLock::try_acquire(&server, LockKind::Backup).unwrap();
        drop(first);
        assert!(!ServerLock::is_held(&server, LockKind::Receiver).unwrap());
        drop(ServerLock::acquire(&server, LockKind::Receiver).unwrap());
        ServerLock::try_acquire(&server, LockKind::Receiver).unwrap();
    }
}
