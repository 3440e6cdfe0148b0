//! One server's WAL: where to start, stream, write, flush, follow timelines, reconnect, archive.
//!
//! # Why no acknowledged byte can be lost
//!
//! The server forgets WAL, and reports a commit that waits for us as safe, when it hears a flush
//! position from us. That position has one source: the writer's thread reports it after a sync
//! has succeeded ([`writer`]). Each link of the chain from there to a restore:
//!
//! 1. *The bytes* of a segment are synced before the position is reported, and so, when the file
//!    was created, was the directory that names it ([`open_segment`]). A power cut at any instant
//!    finds the file, at least as long as was acknowledged.
//! 2. *A failed sync* is never repeated on the same file: the thread ends with the last position
//!    that was durable, and a new file takes the failed one's place with only the bytes before it.
//!    Reception goes on from there; the server still has the rest, because nobody acknowledged it.
//!    A second failure ends the stream, and acknowledging with it.
//! 3. *A crash* may leave more in the last file than was acknowledged, and a power cut may have
//!    torn that part. So reception resumes before the end of what was acknowledged ([`start`]), what
//!    comes again is compared, and only what was received or compared on this connection is
//!    reported as flushed.
//! 4. *What is stored is never overwritten.* A difference means that the source was rolled back
//!    and is refused. The exception is a block's tail of zeros, which no acknowledged byte can be in.
//! 5. *A complete segment* is synced before it is renamed, so its final name never leads to less
//!    than the whole. It leaves `streaming/` when the archived file, the index record and the
//!    directories that name them are durable ([`archive`]).
//! 6. *A new timeline* begins in a file of its own, after its history is durable; the old
//!    timeline's tail is kept as it is.
//! 7. *Nobody else writes.* The receiver's lock is held for as long as the receiver runs.
//!
//! Feedback in between does not depend on the disk: while the writer's queue is full, the stream
//! is held, which answers the server and reads nothing.

mod archive;
mod backoff;
mod error;
mod held;
mod journal;
mod open_segment;
mod slot;
mod start;
mod status;
mod stream;
mod synchronous;
mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use pgwire_stream::{
    Advice, Config, Feature, HistoryFile, Lsn, ReplicationClient, SegmentSize, TimelineHistory,
    TimelineId,
};
use tokio::sync::watch;
use tracing::Instrument;

pub use error::ReceiverError;
pub use journal::{RecordedGap, RecordedSwitch, gaps, switches};
pub use open_segment::SegmentError;
pub use start::Refusal;
pub use status::{State, Status};
pub use writer::WriterError;

use self::archive::{Archive, Archiver};
use self::backoff::Backoff;
use self::slot::Slot;
use self::start::{Kept, Source, Start};
use self::stream::End;
use crate::catalog::{HistoryStore, Identity};
use crate::failure::{Class, Failure, in_one_line};
use crate::settings::{CreateSlot, ServerSettings, Synchronous};
use crate::storage::compression::Method;
use crate::storage::{Codec, Home, LockKind, ServerDir, ServerLock, durable};

/// What the server shows, and matches against `synchronous_standby_names`, if nothing is
/// configured.
const APPLICATION_NAME: &str = "walrecv";

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

/// A server that nothing is stored for. Its store is made when WAL begins to flow: an attempt that
/// is refused leaves no trace.
struct Newcomer {
    identity: Identity,
    history: Option<HistoryFile>,
}

/// Receives the WAL of one server.
pub struct Receiver {
    settings: ServerSettings,
    dir: ServerDir,
    options: ReceiverOptions,
    status: Arc<watch::Sender<Status>>,
    archiver: Archiver,
    /// Held from the first contact with the server on, or the first stream of a new store.
    lock: Option<ServerLock>,
    /// The server whose store is yet to be made.
    newcomer: Option<Newcomer>,
    /// Up to where this process has made WAL durable, and on which timeline.
    durable: Option<(TimelineId, Lsn)>,
    /// Whether no write or sync has failed since a segment was completed.
    trusted: Arc<AtomicBool>,
    segment_size: SegmentSize,
    synchronous: bool,
    /// The server said so where it could not be asked before.
    slot_missing: bool,
    /// The WAL from here on is gone, and the operator has said to go on without it.
    given_up: Option<(TimelineId, Lsn)>,
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
        let receiver = Self {
            dir: home.server(&settings.name),
            settings,
            options,
            archiver: Archiver::new(Arc::clone(&status)),
            status,
            lock: None,
            newcomer: None,
            durable: None,
            trusted: Arc::new(AtomicBool::new(true)),
            segment_size: SegmentSize::DEFAULT,
            synchronous: false,
            slot_missing: false,
            given_up: None,
            streamed: false,
        };
        (receiver, watched)
    }

    /// Receives WAL until `stop` says so or the end position is reached, reconnecting as often as
    /// it takes. Ends with everything that was received durable and, if the server still listens,
    /// acknowledged.
    ///
    /// Not cancel-safe: dropped, it leaves a thread behind that finishes its writing alone.
    ///
    /// # Errors
    /// What trying again cannot mend; see [`ReceiverOptions::persistent`].
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<Finished, ReceiverError> {
        let span = tracing::info_span!(
            "receiver", server = %self.settings.name, slot = %self.settings.slot_name
        );
        let result = self.reconnect_until_done(&mut stop).instrument(span).await;
        self.archiver.stop().await;
        self.status.send_modify(|status| match &result {
            Err(error) => {
                let refused = error.class() == Class::Refused;
                status.enter(if refused { State::Refused } else { State::Stopped });
                status.last_error = Some(in_one_line(error));
            }
            Ok(_) => status.enter(State::Stopped),
        });
        result
    }

    async fn reconnect_until_done(
        &mut self,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Finished, ReceiverError> {
        let mut backoff = Backoff::default();
        let began = tokio::time::Instant::now();
        loop {
            self.status.send_modify(|status| status.enter(State::Connecting));
            let error = match self.connection(stop, &mut backoff).await {
                Ok(End::Stopped) => return Ok(Finished::Stopped),
                Ok(End::Reached) => return Ok(Finished::EndReached),
                Ok(End::ServerShutdown) => {
                    tracing::info!("the server has shut down, and has heard that all is durable");
                    None
                }
                Err(error) if self.goes_on_after(&error, began.elapsed()) => Some(error),
                Err(error) => return Err(error),
            };
            let pause = backoff.pause();
            if let Some(error) = &error {
                tracing::warn!(
                    error = in_one_line(error),
                    pause_ms = pause.as_millis(),
                    "WAL is not being received"
                );
            }
            self.status.send_modify(|status| {
                status.enter(State::Waiting);
                if let Some(error) = &error {
                    status.last_error = Some(in_one_line(error));
                }
            });
            tokio::select! {
                () = stopped(stop) => return Ok(Finished::Stopped),
                () = tokio::time::sleep(pause) => {}
            }
        }
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
            _ => {}
        }
        match error.advice() {
            Advice::Fatal => false,
            _ if self.options.persistent => true,
            // Perhaps the server has not yet missed our own last connection.
            _ if error.is_slot_in_use() => self.streamed || after < SLOT_PATIENCE,
            _ => self.streamed,
        }
    }

    /// One connection, from login to its end.
    async fn connection(
        &mut self,
        stop: &mut watch::Receiver<bool>,
        backoff: &mut Backoff,
    ) -> Result<End, ReceiverError> {
        // Nothing is being written before the stream starts, so this may be dropped anywhere.
        let prepared = tokio::select! {
            prepared = self.prepare() => prepared?,
            () = stopped(stop) => return Ok(End::Stopped),
        };
        let Some((client, start)) = prepared else { return Ok(End::Reached) };
        let size = self.segment_size;
        let began = tokio::time::Instant::now();
        let result = self.stream(client, start, size, stop).await;
        let state = self.status.borrow().state;
        if state == State::Streaming {
            self.streamed = true;
            self.slot_missing = false;
            // A connection that breaks at once is no success, or there would be no end of them.
            if began.elapsed() >= LASTING {
                backoff.succeeded();
            }
        }
        result
    }

    /// Connects and decides where to start; `None` if there is nothing to receive any more.
    async fn prepare(&mut self) -> Result<Option<(ReplicationClient, Start)>, ReceiverError> {
        let config = self.config()?;
        let mut client =
            ReplicationClient::connect(&config).await.map_err(ReceiverError::Connect)?;
        let system =
            client.identify_system().await.map_err(ReceiverError::server("identify the server"))?;
        let size = client
            .wal_segment_size()
            .await
            .map_err(ReceiverError::server("ask for the size of WAL segments"))?;
        let identity = Identity {
            system_id: system.system_id,
            segment_size: size,
            server_version: client.server_version(),
            data_checksums: data_checksums(&mut client).await,
        };
        self.segment_size = size;
        let dir = self.dir.clone();
        self.newcomer = match blocking(move || Identity::load(&dir)).await?? {
            Some(_) => {
                self.take_possession(identity).await?;
                None
            }
            None => Some(Newcomer { identity, history: None }),
        };
        self.synchronous = self.is_synchronous(&mut client, &config).await;

        let history = self.fetch_history(&mut client, system.timeline).await?;
        let source = Source {
            timeline: system.timeline,
            flushed_to: system.flushed_to,
            history,
            segment_size: size,
            standby: client.parameter("in_hot_standby") == Some("on"),
        };
        let dir = self.dir.clone();
        let held = blocking(move || held::newest(&dir, size)).await??;
        let slot = match slot::look(&mut client, &config, &self.settings.slot_name).await? {
            Slot::Unknown if self.slot_missing => Slot::Missing,
            slot => slot,
        };
        if let Some((timeline, from)) = self.given_up {
            let start = self.start_after_gap(&mut client, &config, &source, slot).await?;
            // What is held of the last segment is no part of the gap.
            let held_to = held.filter(|held| held.timeline == timeline).map(|held| held.end);
            let (dir, from, to) = (self.dir.clone(), held_to.unwrap_or(from), start.from);
            tracing::warn!(%timeline, %from, %to, "going on without WAL, as the operator said");
            blocking(move || journal::record_gap(&dir, timeline, from, to)).await??;
            self.given_up = None;
            self.options.reset = false;
            return Ok(Some((client, start)));
        }
        let kept = |slot: Slot| {
            let of_held = |&(timeline, _): &(TimelineId, Lsn)| {
                held.as_ref().is_some_and(|held| held.timeline == timeline)
            };
            let by_us = self.durable.filter(of_held).map(|(timeline, lsn)| Kept {
                lsn,
                timeline: Some(timeline),
                by_us: true,
            });
            by_us.or(slot.kept())
        };
        let start = start::decide(held.as_ref(), &source, kept(slot))?;
        if held.is_some() {
            // Otherwise something comes that tells when it is reached.
            if self.options.end_at.is_some_and(|end| end <= start.from) {
                return Ok(None);
            }
            client = self.keep_slot(client, slot, &start, &source).await?;
            return Ok(Some((client, start)));
        }
        let slot = self.first_slot(&mut client, &config, slot).await?;
        let start = start::decide(None, &source, kept(slot))?;
        Ok(Some((client, start)))
    }

    fn config(&self) -> Result<Config, ReceiverError> {
        let mut config = Config::load(self.settings.streaming_conninfo())?;
        if config.application_name.is_none() && config.fallback_application_name.is_none() {
            config.fallback_application_name = Some(APPLICATION_NAME.to_owned());
        }
        Ok(config)
    }

    /// Makes the store of a server that is new.
    async fn settle(&mut self) -> Result<(), ReceiverError> {
        let Some(Newcomer { identity, history }) = self.newcomer.take() else { return Ok(()) };
        self.take_possession(identity).await?;
        if let Some(history) = history {
            let store = HistoryStore::new(&self.dir);
            blocking(move || store.put(&history)).await??;
        }
        Ok(())
    }

    /// Takes the lock, makes sure that the store is this cluster's, and begins to archive.
    async fn take_possession(&mut self, identity: Identity) -> Result<(), ReceiverError> {
        let dir = self.dir.clone();
        let locked = self.lock.is_some();
        let lock = blocking(move || -> Result<_, ReceiverError> {
            // Before anything is made: a server that is not ours must leave no trace.
            if let Some(ours) = Identity::load(&dir)? {
                ours.check(&identity, &dir)?;
            }
            let lock = match locked {
                true => None,
                false => Some(ServerLock::try_acquire(&dir, LockKind::Receiver)?),
            };
            identity.establish(&dir)?;
            durable::collect_leftovers(&dir.streaming())?;
            // Renamed segments whose directory a former run did not come to sync.
            durable::sync_dir(&dir.streaming())?;
            Ok(lock)
        });
        self.lock = lock.await??.or(self.lock.take());
        let codec = Codec::from(self.settings.compression);
        let method = Method::new(codec, self.settings.compression_level);
        self.archiver.start(Archive::new(self.dir.clone(), self.segment_size, method));
        Ok(())
    }

    async fn is_synchronous(&self, client: &mut ReplicationClient, config: &Config) -> bool {
        match self.settings.synchronous {
            Synchronous::Always => true,
            Synchronous::Never => false,
            Synchronous::WhenNamed => {
                let name = config
                    .application_name
                    .as_ref()
                    .or(config.fallback_application_name.as_ref())
                    .map_or(APPLICATION_NAME, String::as_str);
                match client.show("synchronous_standby_names").await {
                    Ok(setting) => synchronous::names(&setting, name),
                    Err(error) => {
                        tracing::debug!(error = %error, "cannot ask for synchronous_standby_names");
                        false
                    }
                }
            }
        }
    }

    /// The history of a timeline, stored before anything of the timeline is.
    async fn fetch_history(
        &mut self,
        client: &mut ReplicationClient,
        timeline: TimelineId,
    ) -> Result<TimelineHistory, ReceiverError> {
        if timeline == TimelineId::FIRST {
            return Ok(TimelineHistory::root(timeline));
        }
        let store = HistoryStore::new(&self.dir);
        match (client.timeline_history(timeline).await, &mut self.newcomer) {
            (Ok(file), Some(newcomer)) => {
                let history = file.parse().map_err(pgwire_stream::Error::from);
                newcomer.history = Some(file);
                history.map_err(ReceiverError::server("understand the timeline's history"))
            }
            (Ok(file), None) => {
                Ok(blocking(move || store.put(&file).and_then(|()| store.ancestry(timeline)))
                    .await??)
            }
            // The server may have lost it; what we have is as good.
            (Err(error), _) if error.is_wal_removed() => {
                let stored = blocking(move || store.ancestry(timeline)).await?;
                stored.map_err(|_| ReceiverError::server("fetch the timeline's history")(error))
            }
            (Err(error), _) => Err(ReceiverError::server("fetch the timeline's history")(error)),
        }
    }

    /// The slot of a store without WAL: no gap is possible.
    async fn first_slot(
        &self,
        client: &mut ReplicationClient,
        config: &Config,
        slot: Slot,
    ) -> Result<Slot, ReceiverError> {
        let name = &self.settings.slot_name;
        let auto = self.settings.create_slot == CreateSlot::Auto;
        match slot {
            Slot::Missing if !auto => return Err(self.no_slot()),
            // Unknown: if it is there, nothing is changed.
            Slot::Missing | Slot::Unknown if auto => slot::create(client, name).await?,
            Slot::KeepsNothing if auto && gives_up_for_good(client) => {
                slot::recreate(client, name).await?;
            }
            _ => return Ok(slot),
        }
        slot::look(client, config, name).await
    }

    /// The slot of a store with WAL: one that is missing is made only if the server still has the
    /// WAL that comes next.
    async fn keep_slot(
        &self,
        client: ReplicationClient,
        slot: Slot,
        start: &Start,
        source: &Source,
    ) -> Result<ReplicationClient, ReceiverError> {
        let auto = self.settings.create_slot == CreateSlot::Auto;
        let given_up = slot == Slot::KeepsNothing && auto && gives_up_for_good(&client);
        match slot {
            Slot::Missing if !auto => return Err(self.no_slot()),
            Slot::Missing => {}
            _ if given_up => {}
            _ => return Ok(client),
        }
        // Where we have all that the server has, nothing can be missing.
        let behind = start.timeline != source.timeline || start.from < source.flushed_to;
        let mut client = if behind {
            slot::probe(client, start.timeline, start.from)
                .await
                .map_err(|error| self.refused(error, start.timeline, start.from))?
        } else {
            client
        };
        if given_up {
            slot::recreate(&mut client, &self.settings.slot_name).await?;
        } else {
            slot::create(&mut client, &self.settings.slot_name).await?;
        }
        Ok(client)
    }

    /// As on a first contact, because what we have leads nowhere.
    async fn start_after_gap(
        &self,
        client: &mut ReplicationClient,
        config: &Config,
        source: &Source,
        slot: Slot,
    ) -> Result<Start, ReceiverError> {
        let slot = self.first_slot(client, config, slot).await?;
        Ok(start::decide(None, source, slot.kept())?)
    }

    fn no_slot(&self) -> ReceiverError {
        ReceiverError::SlotMissing { slot: self.settings.slot_name.clone() }
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

/// From 16 on, a slot that the server has given up never keeps WAL again.
fn gives_up_for_good(client: &ReplicationClient) -> bool {
    client.server_version().major() >= 16
}

async fn data_checksums(client: &mut ReplicationClient) -> Option<bool> {
    if !client.server_version().supports(Feature::ReplicationSql) {
        return None;
    }
    client.show("data_checksums").await.ok().map(|setting| setting == "on")
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
