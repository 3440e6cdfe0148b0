//! The timeline history files that are stored: how timelines descend from each other.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use bytes::Bytes;
use pgwire_stream::{HistoryError, HistoryFile, TimelineHistory, TimelineId, WalFileName};

use crate::failure::{Class, Failure};
use crate::storage::{ServerDir, StorageError, durable, durable::Put};

/// PostgreSQL writes a line per switch; a file of this size has thousands.
const MAX_SIZE: u64 = 1 << 20;

/// The timeline histories of one server.
#[derive(Clone, Debug)]
pub struct HistoryStore {
    server: ServerDir,
}

/// Why a timeline's history cannot be stored or used.
#[derive(Debug, thiserror::Error)]
pub enum HistoryStoreError {
    /// The server tells the history of a timeline differently than before.
    #[error(
        "the server's history of timeline {timeline} differs from the one in `{}`",
        path.display()
    )]
    Conflict {
        /// The timeline.
        timeline: TimelineId,
        /// The file that is stored.
        path: PathBuf,
    },
    /// A history that is needed was never received.
    #[error("the history of timeline {timeline} is not stored: `{}` is missing", path.display())]
    Missing {
        /// The timeline.
        timeline: TimelineId,
        /// Where it would be.
        path: PathBuf,
    },
    /// A history cannot be believed.
    #[error("`{}` is not a timeline history", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: HistoryError,
    },
    /// A file is larger than a history can be.
    #[error("`{}` is too large for a timeline history", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Failure for HistoryStoreError {
    fn class(&self) -> Class {
        match self {
            Self::Conflict { .. } => Class::Refused,
            _ => Class::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Conflict { .. } => Some(
                "two servers were promoted to the same timeline, and their WAL must not be mixed: \
                 store this one under a new server name"
                    .to_owned(),
            ),
            Self::Missing { .. } => {
                Some("it is fetched when the server's WAL is received".to_owned())
            }
            Self::Malformed { .. } | Self::TooLarge { .. } => None,
            Self::Storage(error) => error.hint(),
        }
    }
}

impl HistoryStore {
    /// The histories of this server.
    pub fn new(server: &ServerDir) -> Self {
        Self { server: server.clone() }
    }

    /// Stores a history. Durable on return.
    ///
    /// # Errors
    /// If it cannot be understood, another one is stored for this timeline, or it cannot be
    /// written. Nothing is changed then.
    pub fn put(&self, history: &HistoryFile) -> Result<(), HistoryStoreError> {
        let path = self.server.history(history.timeline);
        if history.content.len() as u64 > MAX_SIZE {
            return Err(HistoryStoreError::TooLarge { path });
        }
        history
            .parse()
            .map_err(|source| HistoryStoreError::Malformed { path: path.clone(), source })?;
        durable::create_dir(&self.server.wals(), self.server.access())?;
        let same = |ours: HistoryFile| {
            if ours.content == history.content {
                Ok(())
            } else {
                let timeline = history.timeline;
                Err(HistoryStoreError::Conflict { timeline, path: path.clone() })
            }
        };
        match self.load(history.timeline)? {
            // Whoever stored it may not have made its name durable yet.
            Some(ours) => same(ours).and_then(|()| Ok(durable::sync_dir(&self.server.wals())?)),
            None => match durable::put_if_absent(&path, &history.content, self.server.access())? {
                Put::Stored => Ok(()),
                Put::Exists => self.load(history.timeline)?.map_or_else(
                    || {
                        Err(HistoryStoreError::Missing {
                            timeline: history.timeline,
                            path: path.clone(),
                        })
                    },
                    same,
                ),
            },
        }
    }

    /// The history of a timeline as it was received; `None` if it is not stored.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn load(&self, timeline: TimelineId) -> Result<Option<HistoryFile>, HistoryStoreError> {
        let path = self.server.history(timeline);
        let mut content = Vec::new();
        match File::open(&path).and_then(|file| file.take(MAX_SIZE + 1).read_to_end(&mut content)) {
            Ok(_) if content.len() as u64 > MAX_SIZE => Err(HistoryStoreError::TooLarge { path }),
            Ok(_) => Ok(Some(HistoryFile { timeline, content: Bytes::from(content) })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StorageError::of("read", &path)(error).into()),
        }
    }

    /// The timelines whose histories are stored, oldest first.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn list(&self) -> Result<Vec<TimelineId>, HistoryStoreError> {
        let mut timelines: Vec<TimelineId> = durable::list_dir(&self.server.wals())?
            .iter()
            .filter_map(|name| match name.to_str()?.parse() {
                Ok(WalFileName::History(timeline)) => Some(timeline),
                _ => None,
            })
            .collect();
        timelines.sort();
        Ok(timelines)
    }

    /// How a timeline came to be. The first timeline has no history, and needs none.
    ///
    /// # Errors
    /// If its history is not stored or cannot be believed.
    pub fn ancestry(&self, timeline: TimelineId) -> Result<TimelineHistory, HistoryStoreError> {
        let path = self.server.history(timeline);
        match self.load(timeline)? {
            Some(history) => {
                history.parse().map_err(|source| HistoryStoreError::Malformed { path, source })
            }
            None if timeline == TimelineId::FIRST => Ok(TimelineHistory::root(timeline)),
            None => Err(HistoryStoreError::Missing { timeline, path }),
        }
    }

    /// The newest timeline that descends from this one, or this one itself.
    ///
    /// # Errors
    /// If a history cannot be read or believed.
    pub fn newest_descendant(&self, timeline: TimelineId) -> Result<TimelineId, HistoryStoreError> {
        for candidate in self.list()?.into_iter().rev().take_while(|&newer| newer > timeline) {
            if self.ancestry(candidate)?.contains(timeline) {
                return Ok(candidate);
            }
        }
        Ok(timeline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Access, Home};

    fn tli(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn history(timeline: u32, content: &'static str) -> HistoryFile {
        HistoryFile { timeline: tli(timeline), content: Bytes::from_static(content.as_bytes()) }
    }

    #[test]
    fn a_history_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let server = Home::new(dir.path(), Access::Private).server(&"main".parse().unwrap());
        let store = HistoryStore::new(&server);
        let two = history(2, "1\t0/3000000\tno recovery target specified\n");
        store.put(&two).unwrap();
        store.put(&two).unwrap();
        let error = store.put(&history(2, "1\t0/4000000\tother\n")).unwrap_err();
        assert!(matches!(error, HistoryStoreError::Conflict { .. }), "{error}");
        assert_eq!(error.class(), Class::Refused);
        assert_eq!(store.load(tli(2)).unwrap(), Some(two));
        let error = store.put(&history(3, "nonsense")).unwrap_err();
        assert!(matches!(error, HistoryStoreError::Malformed { .. }), "{error}");
        assert_eq!(store.list().unwrap(), [tli(2)]);
    }

    #[test]
    fn descent_follows_the_stored_histories() {
        let dir = tempfile::tempdir().unwrap();
        let server = Home::new(dir.path(), Access::Private).server(&"main".parse().unwrap());
        let store = HistoryStore::new(&server);
        assert_eq!(store.newest_descendant(tli(1)).unwrap(), tli(1));
        // 1 → 2 → 4, and 3 forked off 1.
        store.put(&history(2, "1\t0/3000000\tr\n")).unwrap();
        store.put(&history(3, "1\t0/2000000\tr\n")).unwrap();
        store.put(&history(4, "1\t0/3000000\tr\n2\t0/5000000\tr\n")).unwrap();
        assert_eq!(store.newest_descendant(tli(1)).unwrap(), tli(4));
        assert_eq!(store.newest_descendant(tli(2)).unwrap(), tli(4));
        assert_eq!(store.newest_descendant(tli(3)).unwrap(), tli(3));
        assert!(store.ancestry(tli(4)).unwrap().contains(tli(2)));
        assert_eq!(store.ancestry(tli(1)).unwrap(), TimelineHistory::root(tli(1)));
        let error = store.ancestry(tli(9)).unwrap_err();
        assert!(matches!(error, HistoryStoreError::Missing { .. }), "{error}");
    }
}
