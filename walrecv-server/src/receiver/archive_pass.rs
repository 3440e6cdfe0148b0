//! One pass over what waits to be archived, where no receiver is there to do it.

use std::sync::Mutex;

use super::archive::{Archive, ArchiveError};
use super::archiver;
use crate::catalog::{Identity, IdentityError};
use crate::failure::{Class, Failure};
use crate::hooks::Hooks;
use crate::settings::ServerSettings;
use crate::storage::{
    Codec, KeyFile, LockError, LockKind, Method, Packing, ServerDir, ServerLock, StorageError,
};

/// What became of the segments that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchivePass {
    /// Nothing is stored for the server.
    Nothing,
    /// So many were archived.
    Archived(u64),
    /// The receiver archives, as segments come; so many wait for it.
    ByReceiver(u64),
}

/// Why they wait on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchivePassError {
    /// Nobody knows whose store it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A segment cannot be archived.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The lock's file cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// What waits cannot be listed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Nobody wants it any more.
    #[error("archiving was interrupted; {left} segments wait")]
    Interrupted {
        /// How many wait on.
        left: u64,
    },
}

impl Failure for ArchivePassError {
    fn class(&self) -> Class {
        match self {
            Self::Identity(error) => error.class(),
            Self::Archive(error) => error.class(),
            Self::Lock(error) => error.class(),
            Self::Storage(error) => error.class(),
            Self::Interrupted { .. } => Class::Interrupted,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Identity(error) => error.hint(),
            Self::Archive(error) => error.hint(),
            Self::Lock(error) => error.hint(),
            Self::Storage(error) => error.hint(),
            Self::Interrupted { .. } => None,
        }
    }
}

/// Archives the complete segments that wait in `streaming/`, between the scripts around that, unless
/// a receiver does. Blocks, until `interrupted` says so: then after the files in work. The
/// segment that is being received stays, and so do tails of timelines: only a receiver knows that
/// nothing more comes for them.
///
/// # Errors
/// If some cannot be archived, and the others are; or it was interrupted.
pub fn archive_waiting(
    settings: &ServerSettings,
    server: &ServerDir,
    interrupted: &(dyn Fn() -> bool + Sync),
) -> Result<ArchivePass, ArchivePassError> {
    let Some(identity) = Identity::load(server)? else { return Ok(ArchivePass::Nothing) };
    if ServerLock::is_held(server, LockKind::Receiver)? {
        return Ok(ArchivePass::ByReceiver(archiver::complete(server)?));
    }
    let method = Method::new(Codec::from(settings.compression), settings.compression_level);
    let packing = Packing::new(method, &settings.encryption_recipients);
    let keys = settings.encryption_identity.as_ref().map(KeyFile::new);
    let archive = match Archive::open(server.clone(), identity.segment_size, packing, keys) {
        Ok(archive) => archive
            .with_validation(settings.wal_validation)
            .with_hooks(Hooks::new(&settings.name, &settings.hooks)),
        Err(LockError::Held { .. }) => {
            return Ok(ArchivePass::ByReceiver(archiver::complete(server)?));
        }
        Err(error) => return Err(error.into()),
    };
    let before = archiver::complete(server)?;
    archiver::pass(&archive, &Mutex::new(None), |_| !interrupted())?;
    match archiver::complete(server)? {
        left @ 1.. if interrupted() => Err(ArchivePassError::Interrupted { left }),
        left => Ok(ArchivePass::Archived(before.saturating_sub(left))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use pgwire_stream::{SegmentSize, ServerVersion, SystemId};

    use super::*;
    use crate::settings::{ConnInfo, Hook};
    use crate::storage::{Access, Home};

    #[test]
    fn what_waits_is_archived_unless_a_receiver_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let server = Home::new(dir.path(), Access::Private).server(&"main".parse().unwrap());
        let mut settings = ServerSettings::new(
            server.name().clone(),
            ConnInfo::new("host=localhost"),
            "walrecv".parse().unwrap(),
        );
        assert_eq!(archive_waiting(&settings, &server, &|| false).unwrap(), ArchivePass::Nothing);
        let identity = Identity {
            system_id: SystemId::from_u64(7),
            segment_size: SegmentSize::new(1 << 20).unwrap(),
            server_version: ServerVersion::from_num(180_000),
            data_checksums: None,
        };
        identity.establish(&server).unwrap();
        let segment = "000000010000000000000001".parse().unwrap();
        let raw = server.streaming_segment(segment);
        fs::write(&raw, vec![0; 1 << 20]).unwrap();

        let receiver = ServerLock::try_acquire(&server, LockKind::Receiver).unwrap();
        assert_eq!(
            archive_waiting(&settings, &server, &|| false).unwrap(),
            ArchivePass::ByReceiver(1)
        );
        drop(receiver);
        let archiver = ServerLock::try_acquire(&server, LockKind::Archive).unwrap();
        assert_eq!(
            archive_waiting(&settings, &server, &|| false).unwrap(),
            ArchivePass::ByReceiver(1)
        );
        drop(archiver);
        let interrupted = archive_waiting(&settings, &server, &|| true);
        assert!(matches!(interrupted, Err(ArchivePassError::Interrupted { left: 1 })));

        let told = dir.path().join("told");
        for kind in ["pre", "post"] {
            let key = format!("{kind}_archive_script");
            let hook = Hook::all().find(|hook| hook.to_string() == key).unwrap();
            let script = format!("echo $WALRECV_PHASE $WALRECV_SEGMENT >> {}", told.display());
            settings.hooks.commands.insert(hook, script);
        }
        settings.hooks.timeout = Duration::from_secs(60);
        assert_eq!(
            archive_waiting(&settings, &server, &|| false).unwrap(),
            ArchivePass::Archived(1)
        );
        let told = fs::read_to_string(told).unwrap();
        assert_eq!(told, format!("pre {segment}\npost {segment}\n"));
        assert!(!raw.exists() && server.archived(segment, Codec::Zstd).exists());
        assert_eq!(
            archive_waiting(&settings, &server, &|| false).unwrap(),
            ArchivePass::Archived(0)
        );
    }
}
