//! One server's WAL: where to start, stream, write, flush, follow timelines, reconnect, archive.
//!
//! # Why no acknowledged byte can be lost
//!
//! The server forgets WAL, and reports a commit that waits for us as safe, when it hears a flush
//! position from us. That position has one source: the writer reports it after a sync has
//! succeeded (`writer`). Each link of the chain from there to a restore:
//!
//! 1. *The bytes* of a segment are synced before the position is reported, and so, when the file
//!    was created, was the directory that names it (`open_segment`). A power cut at any instant
//!    finds the file, with at least what was acknowledged.
//! 2. *Order.* A segment is synced while the next is being written, but positions are reported in
//!    order, and the next one has no name that anybody would believe before the first is durable
//!    (`writer/completions`). So what is found under its name is never the far side of a hole.
//! 3. *A failed sync* is never repeated on the same file: the work ends with the last position
//!    that was durable, and a new file takes the failed one's place with only the bytes before it.
//!    Reception goes on from there; the server still has the rest, because nobody acknowledged it.
//!    A second failure ends the stream, and acknowledging with it.
//!    Nobody knows how an earlier process ended, so what it left of a segment is written anew.
//! 4. *A crash* may leave more in the last file than was acknowledged, and a power cut may have
//!    torn that part. So reception resumes before the end of what was acknowledged (`start`), what
//!    comes again is compared, and only what was received or compared on this connection is
//!    reported as flushed.
//! 5. *What is stored is never overwritten.* A difference means that the source was rolled back
//!    and is refused. The exception is a block's tail of zeros, which no acknowledged byte can be in.
//! 6. *A complete segment* is synced before it is renamed, so its final name never leads to less
//!    than the whole. It leaves `streaming/` when the archived file, the index record and the
//!    directories that name them are durable (`archive`). One that is compressed as it comes is
//!    acknowledged when all of that is so, and not before (`writer/direct`).
//! 7. *A new timeline* begins in a file of its own, after its history is durable; the old
//!    timeline's tail is kept as it is.
//! 8. *Nobody else writes.* The receiver's lock is held for as long as the receiver runs.
//!
//! Feedback in between does not depend on the disk: while the writer's queue is full, the stream
//! is held, which answers the server and reads nothing.
//!
//! # How much memory a stream takes
//!
//! The queue of what was received (`stream::QUEUE_BUDGET`), a receive buffer of one long message,
//! and while segments are compressed as they come, for each processor a few frames of
//! `archive::FRAME` bytes; nothing grows with the backlog, the size of segments or the slowness of
//! the disk. Of its queue, an eighth is a stream's own; the rest comes out of what all have in
//! common (`writer::SHARED`).

mod archive;
mod archive_pass;
mod archiver;
mod backoff;
mod beside;
mod breath;
mod caught_up;
mod crew;
mod error;
mod held;
mod journal;
mod notes;
mod open_segment;
mod other_hosts;
mod prepare;
mod recognise;
mod second_opinion;
mod slot;
mod slot_trouble;
mod slot_view;
mod start;
mod status;
mod stream;
mod synchronous;
mod synchronous_watch;
mod workplace;
mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use pgwire_stream::wal::WalOptions;
use pgwire_stream::{Advice, Lsn, SegmentSize, TimelineId};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tracing::Instrument;

pub use archive::ArchiveError;
pub use archive_pass::{ArchivePass, ArchivePassError, archive_waiting};
pub(crate) use backoff::Backoff;
pub(crate) use breath::Hurry;
pub use breath::nap;
pub(crate) use crew::Crew;
pub use error::ReceiverError;
pub(crate) use held::newest as newest_held;
pub use open_segment::SegmentError;
pub(crate) use prepare::receiving_config;
pub use slot_view::Occupant;
pub(crate) use slot_view::{KeptWal, SlotView, view as view_slot};

pub use start::Refusal;
pub use status::{HostSlot, LeftOut, State, Status};
pub(crate) use synchronous::names as is_named;
pub use writer::WriterError;

use self::archive::Archive;
use self::archiver::Archiver;
use self::beside::Reached;
use self::prepare::{Begun, Newcomer, Prepared};
use self::stream::End;
use self::synchronous_watch::Synchrony;
use self::workplace::{OwnRuntime, Workplace};
use crate::failure::{Class, Failure, in_one_line};
use crate::settings::{CreateSlot, ServerSettings};
use crate::storage::{Home, ServerDir, ServerLock};

/// How long a receiver that gives up early waits for a slot that is in use.
const SLOT_PATIENCE: Duration = Duration::from_secs(10);

/// How long a stream must last to count as a success.
const LASTING: Duration = Duration::from_secs(1);

/// How a receiver is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReceiverOptions {
    /// Stop when everything before this position is durable.
    pub end_at: Option<Lsn>,
    /// Leave a gap if the server no longer has the WAL that comes next. It is recorded.
    pub reset: bool,
    /// Go on trying whatever goes wrong, short of a refusal; else what an operator must mend ends
    /// the receiver until it has streamed once.
    pub persistent: bool,
}

/// How a receiver ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// It was told to stop.
    Stopped,
    /// Everything before the position at which it was to stop is durable.
    EndReached,
}

/// Receives the WAL of one server.
pub struct Receiver {
    settings: ServerSettings,
    dir: ServerDir,
    options: ReceiverOptions,
    status: Arc<watch::Sender<Status>>,
    /// Held together with the lock.
    archive: Option<Arc<Archive>>,
    archiver: Archiver,
    /// Held from the first contact with the server on, or the first stream of a new store.
    lock: Option<ServerLock>,
    /// Whether what an earlier process left half-received was written anew.
    renewed: bool,
    /// The server whose store is yet to be made.
    newcomer: Option<Newcomer>,
    /// Where the first contact begins, until it is seen that something is stored.
    begun: Option<Begun>,
    /// What was to come first, and is gone from here on: whatever the slot says, it is not kept.
    gone: Option<(TimelineId, Lsn)>,
    /// Up to where this process has made WAL durable, and on which timeline.
    durable: Option<(TimelineId, Lsn)>,
    /// Whether no write or sync has failed since a segment was completed.
    trusted: Arc<AtomicBool>,
    segment_size: SegmentSize,
    /// What is known of the server's WAL.
    wal: Option<WalOptions>,
    opinions: Arc<Semaphore>,
    /// Who writes, where nobody waits for it.
    crew: Arc<Crew>,
    /// Whether commits on the server wait for us.
    synchrony: Arc<Synchrony>,
    /// Where the connection is driven, if it has a thread of its own.
    workplace: Option<Arc<Workplace>>,
    /// A connection was given up for one with its own thread, and the server may not have missed it
    /// yet.
    moves: bool,
    backoff: Backoff,
    /// The host that was reached last.
    reached: Option<Reached>,
    /// The server said so where it could not be asked before.
    slot_missing: bool,
    /// The server said that it has given the slot up, which does not always show.
    slot_lost: bool,
    /// The slot was there, and kept nothing, when it was last looked at.
    slot_keeps_nothing: bool,
    /// The WAL from here on is gone, and the operator has said to go on without it.
    given_up: Option<(TimelineId, Lsn)>,
    /// The gap behind which a stream is to begin, until the server agrees and the gap is recorded.
    left_out: Option<LeftOut>,
    /// Whether WAL has been streamed.
    streamed: bool,
}

impl Receiver {
    /// A receiver for this server, and where it tells how it is.
    pub fn new(
        settings: ServerSettings,
        home: &Home,
        options: ReceiverOptions,
    ) -> (Self, watch::Receiver<Status>) {
        let status = Status::new(settings.name.clone(), settings.slot_name.clone());
        let (status, watched) = watch::channel(status);
        let status = Arc::new(status);
        let synchronous = settings.synchronous;
        let receiver = Self {
            dir: home.server(&settings.name),
            settings,
            options,
            archive: None,
            archiver: Archiver::new(Arc::clone(&status)),
            status,
            lock: None,
            renewed: false,
            newcomer: None,
            begun: None,
            gone: None,
            durable: None,
            trusted: Arc::new(AtomicBool::new(true)),
            segment_size: SegmentSize::DEFAULT,
            wal: None,
            opinions: second_opinion::places(),
            crew: Arc::default(),
            synchrony: Arc::new(Synchrony::new(synchronous)),
            workplace: None,
            moves: false,
            backoff: Backoff::default(),
            reached: None,
            slot_missing: false,
            slot_lost: false,
            slot_keeps_nothing: false,
            given_up: None,
            left_out: None,
            streamed: false,
        };
        (receiver, watched)
    }

    /// The same, which shares its threads with others of this runtime.
    pub(crate) fn among(self, crew: &Arc<Crew>) -> Self {
        Self { crew: Arc::clone(crew), ..self }
    }

    /// The same, which comes after one that was like this: who looks at it sees what went wrong until
    /// it goes well again.
    pub(crate) fn after(self, before: &Status) -> Self {
        self.status.send_modify(|status| {
            status.last_error.clone_from(&before.last_error);
            status.last_hint.clone_from(&before.last_hint);
            (status.heard_at, status.caught_up_at) = (before.heard_at, before.caught_up_at);
        });
        self
    }

    /// Receives WAL until `stop` says so or the end position is reached, reconnecting as often as
    /// it takes. Ends with everything that was received durable and, if the server still listens,
    /// acknowledged.
    ///
    /// Not cancel-safe: dropped, it leaves work behind that finishes its writing alone.
    ///
    /// # Errors
    /// What trying again cannot mend; see [`ReceiverOptions::persistent`].
    pub async fn run(self, stop: watch::Receiver<bool>) -> Result<Finished, ReceiverError> {
        let span = tracing::info_span!(
            "receiver", server = %self.settings.name, slot = %self.settings.slot_name
        );
        let done = Box::new(self).reconnect_until_done(stop).instrument(span);
        let (mut receiver, result) = done.await?;
        // Whoever wanted so much WAL and no more wants it in the archive.
        let end = matches!(result, Ok(Finished::EndReached));
        receiver.archiver.stop(if end { archiver::End::Done } else { archiver::End::Soon }).await;
        receiver.status.send_modify(|status| match &result {
            Err(error) => {
                let refused = error.class() == Class::Refused;
                status.enter(if refused { State::Refused } else { State::Stopped });
                status.fail(error);
            }
            Ok(_) => status.enter(State::Stopped),
        });
        result
    }

    /// Fails only if the receiver was lost.
    async fn reconnect_until_done(
        mut self: Box<Self>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(Box<Self>, Result<Finished, ReceiverError>), ReceiverError> {
        let began = tokio::time::Instant::now();
        let result = loop {
            self.status.send_modify(|status| status.enter(State::Connecting));
            let ended;
            (self, ended) = self.connect(&mut stop).await?;
            let ended = match ended {
                Err(error) => tokio::select! {
                    biased;
                    error = self.understood(error) => Err(error),
                    () = stopped(&mut stop) => break Ok(Finished::Stopped),
                },
                ended => ended,
            };
            let error = match ended {
                Ok(End::Stopped) => break Ok(Finished::Stopped),
                Ok(End::Reached) => break Ok(Finished::EndReached),
                Ok(End::Waited) => {
                    self.moves = true;
                    continue;
                }
                Ok(End::ServerShutdown) => {
                    tracing::info!("the server has shut down, and has heard that all is durable");
                    None
                }
                Err(ReceiverError::Gap { timeline, from, .. }) if self.begins_anew() => {
                    tracing::warn!(
                        %timeline, %from,
                        "what was to come first is gone, and nothing is stored yet: beginning anew"
                    );
                    None
                }
                Err(error) if self.goes_on_after(&error, began.elapsed()) => Some(error),
                Err(error) => break Err(error),
            };
            let pause = self.backoff.pause();
            // What the operator gave up is told when it is left out.
            if let Some(error) = error.as_ref().filter(|_| self.given_up.is_none()) {
                tracing::warn!(
                    error = in_one_line(error),
                    hint = error.hint_about(self.settings.name.as_str()),
                    pause_ms = pause.as_millis(),
                    "WAL is not being received"
                );
            }
            self.status.send_modify(|status| {
                status.enter(State::Waiting);
                if let Some(error) = &error {
                    status.fail(error);
                }
            });
            tokio::select! {
                () = stopped(&mut stop) => break Ok(Finished::Stopped),
                () = tokio::time::sleep(pause) => {}
            }
        };
        Ok((self, result))
    }

    /// One connection, on a thread of its own if commits wait for it.
    async fn connect(
        mut self: Box<Self>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(Box<Self>, Result<End, ReceiverError>), ReceiverError> {
        if !self.synchrony.holds() {
            let ended = self.connection(stop).await;
            return Ok((self, ended));
        }
        let runtime = match OwnRuntime::new() {
            Ok(runtime) => runtime,
            Err(error) => return Ok((self, Err(error))),
        };
        let mut stop = stop.clone();
        workplace::apart(runtime, |workplace| {
            self.workplace = Some(workplace);
            let connection = async move {
                let ended = self.connection(&mut stop).await;
                self.workplace = None;
                (self, ended)
            };
            connection.in_current_span()
        })
        .await
    }

    /// Whether commits have begun to wait for a connection that shares its thread.
    fn should_be_apart(&self) -> bool {
        self.workplace.is_none() && self.synchrony.holds()
    }

    /// The runtime in which things may be left that outlive the connection.
    fn common_runtime(&self) -> Handle {
        let workplace = self.workplace.as_ref();
        workplace.map_or_else(Handle::current, |place| place.common_runtime().clone())
    }

    /// Whether a gap is none, because nothing is stored that it would follow: the slot of the first
    /// contact is gone, and then so was what it had kept. The next contact is the first once more.
    fn begins_anew(&mut self) -> bool {
        let stored = self.durable.map(|(_, lsn)| lsn);
        let nothing_came = |begun: &Begun| stored.is_none_or(|lsn| lsn <= begun.from);
        let Some(begun) = self.begun.take_if(|begun| begun.again && nothing_came(begun)) else {
            return false;
        };
        self.gone = Some((begun.timeline, begun.from));
        true
    }

    /// Whether to try again.
    fn goes_on_after(&mut self, error: &ReceiverError, after: Duration) -> bool {
        match error {
            ReceiverError::Gap { timeline, from, .. } if self.options.reset => {
                self.given_up = Some((*timeline, *from));
                return true;
            }
            ReceiverError::Server { source, .. }
                if source.is_slot_missing() && !self.slot_missing =>
            {
                self.slot_missing = true;
                return true;
            }
            ReceiverError::SlotLost { .. }
                if self.settings.create_slot == CreateSlot::Auto && !self.slot_lost =>
            {
                self.slot_lost = true;
                return true;
            }
            _ => {}
        }
        match error.advice() {
            Advice::Fatal => false,
            _ if self.options.persistent => true,
            // Perhaps the server has not yet missed our own last connection.
            _ if error.is_slot_in_use() || self.moves => self.streamed || after < SLOT_PATIENCE,
            _ => self.streamed,
        }
    }

    /// One connection, from login to its end.
    async fn connection(&mut self, stop: &mut watch::Receiver<bool>) -> Result<End, ReceiverError> {
        // Nothing is being written before the stream starts, so this may be dropped anywhere.
        let prepared = tokio::select! {
            prepared = self.prepare() => prepared?,
            () = stopped(stop) => return Ok(End::Stopped),
        };
        let (client, start) = match prepared {
            Prepared::Stream(ready) => *ready,
            Prepared::Reached => return Ok(End::Reached),
            Prepared::Waited => return Ok(End::Waited),
        };
        let size = self.segment_size;
        let _beside = self.run_beside(&client);
        let began = tokio::time::Instant::now();
        let result = self.stream(client, start, size, stop).await;
        let (state, flows) = {
            let status = self.status.borrow();
            (status.state, status.received > status.started_at)
        };
        // Until then, the WAL behind the gap may have gone as well.
        self.options.reset &= !flows;
        if state == State::Streaming {
            self.streamed = true;
            self.moves = false;
            self.slot_missing = false;
            self.slot_lost = false;
            // A connection that breaks at once is no success, or there would be no end of them.
            if began.elapsed() >= LASTING {
                self.backoff.succeeded();
            }
        }
        result
    }

    /// What it means that the server does not stream from this position.
    fn refused(
        &self,
        source: pgwire_stream::Error,
        timeline: TimelineId,
        from: Lsn,
    ) -> ReceiverError {
        if source.is_wal_removed() {
            return ReceiverError::Gap { timeline, from, source };
        }
        if source.is_slot_missing() && self.settings.create_slot == CreateSlot::Manual {
            return self.no_slot();
        }
        ReceiverError::Server { action: "start receiving WAL", source }
    }
}

/// Completes when the receiver is to stop; never if nobody can say so any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending().await
    }
}

/// Runs what blocks where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ReceiverError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ReceiverError::Task(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::ConnInfo;
    use crate::storage::Access;

    #[tokio::test]
    async fn wal_that_goes_before_anything_is_stored_is_given_up_once_it_was_asked_for_again() {
        let home = tempfile::tempdir().unwrap();
        let home = Home::new(home.path(), Access::Private);
        let slot = "walrecv".parse().unwrap();
        let server = "main".parse().unwrap();
        let settings = ServerSettings::new(server, ConnInfo::new("host=localhost"), slot);
        let (mut receiver, _) = Receiver::new(settings, &home, ReceiverOptions::default());
        let (timeline, from) = (TimelineId::FIRST, Lsn::from_u64(1 << 20));
        let first = Begun { timeline, from, agreed: true, again: false };
        let again = Begun { again: true, ..first };
        assert!(!receiver.begins_anew());
        // What the slot itself says to keep, and does not, is for the operator to look at.
        receiver.begun = Some(first);
        assert!(!receiver.begins_anew());
        receiver.begun = Some(again);
        assert!(receiver.begins_anew());
        assert!(receiver.begun.is_none());
        assert_eq!(receiver.gone, Some((timeline, from)));
        // Nor is there a beginning any more once something is stored.
        receiver.begun = Some(again);
        receiver.durable = Some((timeline, from.saturating_add(1)));
        assert!(!receiver.begins_anew());
        receiver.durable = Some((timeline, from));
        assert!(receiver.begins_anew());
    }
}
