//! Why WAL is not being received.

use pgwire_stream::{Advice, ConfigError, Lsn, SlotName, TimelineId};

use super::slot_view::Occupant;
use super::start::{Refusal, Undecided};
use super::writer::WriterError;
use crate::catalog::identity::IdentityError;
use crate::catalog::{HistoryStoreError, WalIndexError};
use crate::failure::{Class, Failure};
use crate::receiver::open_segment::SegmentError;
use crate::storage::{LockError, StorageError};

/// Why WAL is not being received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    /// The connection string cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server cannot be reached, or does not let us in.
    #[error(transparent)]
    Connect(pgwire_stream::Error),
    /// The server refuses something, or the connection broke.
    #[error("cannot {action}")]
    Server {
        /// What was being done.
        action: &'static str,
        /// What came of it.
        source: pgwire_stream::Error,
    },
    /// The server is not the one whose WAL is stored.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A timeline's history cannot be stored or believed.
    #[error(transparent)]
    History(#[from] HistoryStoreError),
    /// Starting would mix or lose data.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A standby that was restarted is not yet as far as it was.
    #[error("the standby has WAL up to {theirs} so far, and up to {ours} was received before")]
    StandbyBehind {
        /// How far we are.
        ours: Lsn,
        /// How far it is.
        theirs: Lsn,
    },
    /// There is no slot, and none is to be made.
    #[error("the server has no replication slot `{slot}`")]
    SlotMissing {
        /// The slot.
        slot: SlotName,
    },
    /// Somebody else uses the slot.
    #[error("the replication slot `{slot}` is in use by {by}")]
    SlotInUse {
        /// The slot.
        slot: SlotName,
        /// Who.
        by: Box<Occupant>,
        /// What the server says.
        source: pgwire_stream::Error,
    },
    /// The slot is not for WAL as it is.
    #[error("the replication slot `{slot}` is a logical one, and WAL needs a physical one")]
    SlotLogical {
        /// The slot.
        slot: SlotName,
    },
    /// The server keeps no WAL for this slot any more, and lets nobody use it.
    #[error("the server has given up the replication slot `{slot}`{}", because(.reason))]
    SlotLost {
        /// The slot.
        slot: SlotName,
        /// Why, in the server's words.
        reason: Option<String>,
        /// What it says to whoever would use it.
        source: pgwire_stream::Error,
    },
    /// The server no longer has the WAL that comes next.
    #[error(
        "the server no longer has the WAL that follows what is stored, from {from} on timeline \
         {timeline}"
    )]
    Gap {
        /// The timeline.
        timeline: TimelineId,
        /// The first byte that is missing.
        from: Lsn,
        /// What the server says.
        source: pgwire_stream::Error,
    },
    /// WAL could not be written.
    #[error(transparent)]
    Writer(WriterError),
    /// A sync failed, and then so did the file that was to take its place.
    #[error("WAL cannot be made durable")]
    NotDurable(#[source] StorageError),
    /// The WAL index cannot be used.
    #[error(transparent)]
    Index(#[from] WalIndexError),
    /// Another process has the lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A file cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A thread could not be started, or was lost.
    #[error("a background task failed: {0}")]
    Task(String),
}

impl ReceiverError {
    /// For `map_err`: the server's answer to `action`.
    pub(super) fn server(action: &'static str) -> impl FnOnce(pgwire_stream::Error) -> Self {
        move |source| Self::Server { action, source }
    }

    /// Whether trying again by itself may help.
    pub(super) fn advice(&self) -> Advice {
        match self {
            Self::Connect(source) | Self::Server { source, .. } => source.advice(),
            Self::StandbyBehind { .. } | Self::Storage(_) | Self::Task(_) => Advice::Retry,
            Self::Writer(WriterError::Segment {
                source: SegmentError::Diverged { .. }, ..
            }) => Advice::Fatal,
            Self::Writer(_) => Advice::Retry,
            _ if self.class() == Class::Refused => Advice::Fatal,
            Self::NotDurable(_) => Advice::Fatal,
            _ => Advice::RetryAfterOperator,
        }
    }

    /// Whether somebody else uses the slot: perhaps our own last connection, which the server has
    /// not yet missed.
    pub(super) fn is_slot_in_use(&self) -> bool {
        match self {
            Self::SlotInUse { .. } => true,
            Self::Server { source, .. } => source.is_slot_in_use(),
            _ => false,
        }
    }
}

fn because(reason: &Option<String>) -> String {
    reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default()
}

impl From<Undecided> for ReceiverError {
    fn from(undecided: Undecided) -> Self {
        match undecided {
            Undecided::Refused(refusal) => Self::Refused(refusal),
            Undecided::StandbyBehind { ours, theirs } => Self::StandbyBehind { ours, theirs },
        }
    }
}

impl Failure for ReceiverError {
    fn class(&self) -> Class {
        match self {
            Self::Config(error) => error.class(),
            Self::Gap { .. } => Class::Refused,
            Self::Writer(WriterError::Segment {
                source: SegmentError::Diverged { .. }, ..
            }) => Class::Refused,
            Self::Refused(refusal) => refusal.class(),
            Self::Identity(error) => error.class(),
            Self::History(error) => error.class(),
            Self::Connect(source) | Self::Server { source, .. } => source.class(),
            _ => Class::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::SlotInUse { by, .. } if by.temporary => Some(
                "it is a temporary slot of another session, and goes with that: give this \
                 receiver a `slot_name` of its own"
                    .to_owned(),
            ),
            Self::SlotInUse { by, .. } => {
                let process = by.process.map_or_else(|| "PID".to_owned(), |pid| pid.to_string());
                Some(format!(
                    "another receiver uses the slot: stop it, or give this one a `slot_name` of \
                     its own. One whose host is dead is ended by `SELECT \
                     pg_terminate_backend({process})` on the server"
                ))
            }
            Self::SlotLogical { .. } => {
                Some("name another slot: `slot_name`; it is made by itself".to_owned())
            }
            Self::SlotLost { slot, .. } => Some(format!(
                "drop it with `SELECT pg_drop_replication_slot('{slot}')`, and make it anew with \
                 `walrecv-server receive-wal SERVER --create-slot`, while the server still has the WAL \
                 that follows; or set create_slot = \"auto\", which does so where no gap arises"
            )),
            Self::Connect(source) | Self::Server { source, .. } => source.hint(),
            Self::Config(error) => error.hint(),
            Self::Identity(error) => error.hint(),
            Self::History(error) => error.hint(),
            Self::Refused(refusal) => refusal.hint(),
            Self::SlotMissing { slot } => Some(format!(
                "create it with `walrecv-server receive-wal SERVER --create-slot`, with `SELECT \
                 pg_create_physical_replication_slot('{slot}', true)`, or set create_slot = \"auto\""
            )),
            Self::Gap { .. } => Some(
                "a restore cannot cross the gap. To go on after it, run `walrecv-server \
                 receive-wal SERVER --reset`, which records it, and take a new base backup; the \
                 daemon receives on by itself then"
                    .to_owned(),
            ),
            Self::Writer(WriterError::Segment { source, .. }) => match source {
                SegmentError::Diverged { .. } => Some(
                    "the server was restored to an earlier state, or it is another one; nothing \
                     that was received was changed. Receive it under a new server name"
                        .to_owned(),
                ),
                SegmentError::Archive(error) => error.hint(),
                SegmentError::Storage(error) | SegmentError::Sync(error) => error.hint(),
            },
            Self::NotDurable(_) => Some(
                "the disk fails: nothing more is acknowledged. Look in the kernel's log, and \
                 replace the disk"
                    .to_owned(),
            ),
            Self::Index(error) => error.hint(),
            Self::Lock(error) => error.hint(),
            Self::Storage(error) => error.hint(),
            _ => None,
        }
    }
}
