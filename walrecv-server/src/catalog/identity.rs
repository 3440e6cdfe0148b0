//! `identity.json`: which cluster a server's store belongs to.

use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use pgwire_stream::{SegmentSize, ServerVersion, SystemId};
use serde::{Deserialize, Serialize};

use super::document::{self, DocumentError};
use crate::failure::{Class, Failure};
use crate::storage::{ServerDir, durable::Put};

const FORMAT: u64 = 1;

/// How long another process is waited for that writes the file, and how often is looked.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// What a cluster is told from all others by, and what of it never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The system identifier.
    pub system_id: SystemId,
    /// The size of its WAL segments.
    pub segment_size: SegmentSize,
    /// The version the server had when it was last seen; this one may change.
    pub server_version: ServerVersion,
    /// Whether data checksums were on when it was last seen, if that is known; may change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_checksums: Option<bool>,
}

/// Why the store and the server do not go together.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The server runs another cluster.
    #[error(
        "the server has system identifier {theirs}, and `{}` holds the WAL and backups of {ours}",
        path.display()
    )]
    WrongSystem {
        /// The identifier of what is stored.
        ours: SystemId,
        /// The identifier that the server says.
        theirs: SystemId,
        /// The store.
        path: PathBuf,
    },
    /// The same cluster with another segment size: nothing would fit.
    #[error(
        "the server has WAL segments of {theirs}, and `{}` holds segments of {ours}",
        path.display()
    )]
    WrongSegmentSize {
        /// The size of what is stored.
        ours: SegmentSize,
        /// The size that the server says.
        theirs: SegmentSize,
        /// The store.
        path: PathBuf,
    },
    /// Nothing was ever stored for this server.
    #[error("nothing is stored in `{}`", path.display())]
    Absent {
        /// The store.
        path: PathBuf,
    },
    /// The file cannot be used.
    #[error(transparent)]
    Document(#[from] DocumentError),
}

impl Failure for IdentityError {
    fn class(&self) -> Class {
        match self {
            Self::WrongSystem { .. } | Self::WrongSegmentSize { .. } => Class::Refused,
            Self::Absent { .. } => Class::Failed,
            Self::Document(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::WrongSystem { .. } | Self::WrongSegmentSize { .. } => Some(
                "if the connection leads to the right server and it was upgraded or made anew, \
                 `walrecv-server adopt` begins anew and keeps what is stored; or configure it under \
                 a new name"
                    .to_owned(),
            ),
            Self::Absent { .. } => {
                Some("check the name of the server and the home directory".to_owned())
            }
            Self::Document(error) => error.hint(),
        }
    }
}

impl Identity {
    /// What the store says; `None` if it does not belong to any cluster yet.
    ///
    /// # Errors
    /// If the file cannot be used.
    pub fn load(server: &ServerDir) -> Result<Option<Self>, IdentityError> {
        Ok(document::load(&server.identity(), FORMAT)?)
    }

    /// What the store says, which must say something.
    ///
    /// # Errors
    /// If the store does not belong to any cluster, or the file cannot be used.
    pub fn require(server: &ServerDir) -> Result<Self, IdentityError> {
        Self::load(server)?.ok_or_else(|| IdentityError::Absent { path: server.path().to_owned() })
    }

    /// Makes the store that of this cluster, which it must be already if it is anybody's. What
    /// may change about the cluster is noted.
    ///
    /// # Errors
    /// If the store belongs to another cluster (nothing is changed then), or the files cannot be
    /// written.
    pub fn establish(&self, server: &ServerDir) -> Result<(), IdentityError> {
        // A look first: a refused server must leave no trace.
        if let Some(ours) = Self::load(server)? {
            return ours.confirm(self, server);
        }
        server.create().map_err(DocumentError::from)?;
        match self.save_new(server)? {
            Put::Stored => Ok(()),
            Put::Exists => Self::require(server)?.confirm(self, server),
        }
    }

    /// Another process may be about to say the same, as when a backup is taken as soon as the
    /// receiver runs.
    fn save_new(&self, server: &ServerDir) -> Result<Put, IdentityError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match document::save_new(&server.identity(), FORMAT, self, server.access()) {
                Err(DocumentError::Storage(error))
                    if error.source.kind() == io::ErrorKind::ResourceBusy
                        && Instant::now() < deadline =>
                {
                    thread::sleep(PAUSE);
                }
                saved => return Ok(saved?),
            }
        }
    }

    /// Refuses a server that is not the one whose store this is.
    ///
    /// # Errors
    /// If system identifier or segment size differ.
    pub fn check(&self, theirs: &Self, server: &ServerDir) -> Result<(), IdentityError> {
        let path = server.path().to_owned();
        if self.system_id != theirs.system_id {
            let (ours, theirs) = (self.system_id, theirs.system_id);
            return Err(IdentityError::WrongSystem { ours, theirs, path });
        }
        if self.segment_size != theirs.segment_size {
            let (ours, theirs) = (self.segment_size, theirs.segment_size);
            return Err(IdentityError::WrongSegmentSize { ours, theirs, path });
        }
        Ok(())
    }

    fn confirm(&self, theirs: &Self, server: &ServerDir) -> Result<(), IdentityError> {
        self.check(theirs, server)?;
        let seen = Self {
            data_checksums: theirs.data_checksums.or(self.data_checksums),
            ..theirs.clone()
        };
        if seen != *self {
            document::save(&server.identity(), FORMAT, &seen, server.access())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Access, Home};
    use std::fs;

    fn identity(id: u64) -> Identity {
        Identity {
            system_id: SystemId::from_u64(id),
            segment_size: SegmentSize::DEFAULT,
            server_version: ServerVersion::from_num(150_020),
            data_checksums: Some(true),
        }
    }

    #[test]
    fn a_store_belongs_to_one_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let server = Home::new(dir.path(), Access::Private).server(&"main".parse().unwrap());
        assert!(matches!(Identity::require(&server), Err(IdentityError::Absent { .. })));
        assert!(!server.path().exists());
        identity(7).establish(&server).unwrap();

        let upgraded = Identity {
            server_version: ServerVersion::from_num(150_021),
            data_checksums: None,
            ..identity(7)
        };
        upgraded.establish(&server).unwrap();
        let stored = Identity::require(&server).unwrap();
        assert_eq!(stored, Identity { data_checksums: Some(true), ..upgraded });

        let before = fs::read(server.identity()).unwrap();
        let error = identity(8).establish(&server).unwrap_err();
        assert!(matches!(error, IdentityError::WrongSystem { .. }), "{error}");
        assert_eq!(error.class(), Class::Refused);
        let resized = Identity { segment_size: SegmentSize::new(1 << 20).unwrap(), ..identity(7) };
        let error = resized.establish(&server).unwrap_err();
        assert!(matches!(error, IdentityError::WrongSegmentSize { .. }), "{error}");
        assert_eq!(fs::read(server.identity()).unwrap(), before);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let server = Home::new(dir.path(), Access::Private).server(&"main".parse().unwrap());
        identity(7).establish(&server).unwrap();
        for (text, message) in [
            ("{\"format\":2}", "has format 2"),
            ("", "is damaged"),
            ("{\"format\":1}", "is damaged"),
        ] {
            fs::write(server.identity(), text).unwrap();
            let error = Identity::load(&server).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
