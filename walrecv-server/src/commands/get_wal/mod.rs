//! `get-wal`: one WAL file for a recovering server, from the store, or from the daemon where the
//! user who asks may not read the store, or has no key to what is encrypted there.
//!
//! Takes no lock in the store and writes nothing but the file, and a lease that it may renew. Does
//! not listen to signals: PostgreSQL has to see a `restore_command` that was told to end die by
//! the signal.
//!
//! Recovery asks for one segment after the other, and waits for each. So those that come next are
//! made ready in the meantime (`prefetch`), and whatever goes wrong there, the file is fetched as
//! if there was nothing ready.

mod prefetch;
mod source;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use pgwire_stream::{SegmentName, SegmentSize, WalFileName};

use crate::catalog::LeaseId;
use crate::daemon::ControlError;
use crate::failure::{Class, Failure};
use crate::restore::get_wal::{GetWalError, Spool, deliver};
use crate::storage::{Home, KeyFile, ServerDir};

pub use prefetch::{fetch_ahead, start_filling};
use source::{Answer, Source};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct GetWalRequest {
    /// The file: PostgreSQL's `%f`.
    pub file: String,
    /// Where to put it: PostgreSQL's `%p`.
    pub destination: PathBuf,
    /// Whether the segment that is still being received is delivered, too.
    pub partial: bool,
    /// What opens it, if it is encrypted.
    pub keys: Option<KeyFile>,
    /// How many segments are made ready.
    pub prefetch: u32,
    /// The lease that keeps what is asked for.
    pub lease: Option<LeaseId>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetWalOutcome {
    /// The file is where it is wanted.
    Delivered,
    /// The archive was read completely and ends before this file.
    EndOfArchive,
}

/// Why the file is not delivered, although the archive does not end before it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GetWalFailure {
    /// The store was read.
    #[error(transparent)]
    Store(#[from] GetWalError),
    /// The store may not be read, and the daemon does not help.
    #[error("`{file}` cannot be read from the store, and the daemon does not deliver it")]
    Daemon {
        /// The file.
        file: WalFileName,
        /// Why not.
        source: ControlError,
    },
}

impl Failure for GetWalFailure {
    fn class(&self) -> Class {
        match self {
            Self::Store(error) => error.class(),
            Self::Daemon { source, .. } => source.class(),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Store(error) => error.exit_code(),
            Self::Daemon { source, .. } => source.get_wal_exit_code(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Daemon { source, .. } => source.hint(),
        }
    }
}

/// Puts the file where it is wanted. `fill` starts a process that makes ready what comes next.
pub fn get_wal(
    home: &Home,
    server: &ServerDir,
    request: &GetWalRequest,
    fill: &dyn Fn(),
) -> Result<GetWalOutcome, GetWalFailure> {
    let file: WalFileName = request.file.parse().map_err(GetWalError::Name)?;
    let spool = match request.prefetch {
        0 => None,
        _ => Spool::beside(&request.destination, home.path(), server.name()),
    };
    let ahead = |segment: SegmentName, size: SegmentSize| {
        if let Some(spool) = &spool {
            prefetch::start(spool, segment, size, request.prefetch, fill);
        }
    };
    if let WalFileName::Segment(segment) = file
        && let Some(size) =
            spool.as_ref().and_then(|spool| spool.take(segment, &request.destination))
    {
        ahead(segment, size);
        return Ok(GetWalOutcome::Delivered);
    }
    let mut source = Source::new(home, server, request);
    let answer = source.ask(file, request.partial)?;
    source::renew_lease(home, server, request);
    match answer {
        Answer::EndOfArchive => {
            match (&spool, file) {
                (Some(spool), WalFileName::Segment(segment)) => spool.end_at(segment),
                (Some(spool), _) => spool.remove(),
                (None, _) => {}
            }
            Ok(GetWalOutcome::EndOfArchive)
        }
        Answer::File { length, settled, mut reader } => {
            if let (Some(spool), WalFileName::Segment(segment)) = (&spool, file) {
                spool.passed(segment);
            }
            deliver(&request.file, &mut reader, length, &request.destination)?;
            if settled
                && let WalFileName::Segment(segment) = file
                && let Ok(size) = SegmentSize::new(length)
            {
                ahead(segment, size);
            }
            Ok(GetWalOutcome::Delivered)
        }
    }
}
