//! One connection: from the first byte to its end, across any number of timelines.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pgwire_stream::proto::LONG_WAL_MESSAGE;
use pgwire_stream::wal::WalOptions;
use pgwire_stream::{
    Lsn, ReplicationClient, SegmentName, SegmentSize, StartReplication, StreamEnd, TimelineId,
    WalEvent, WalStream,
};
use tokio::sync::watch;
use tracing::Instrument;

use super::breath::{LITTLE, breath, is_unhurried};
use super::caught_up::CaughtUpNotes;
use super::open_segment::{SegmentError, fdatasync, replace};
use super::second_opinion::SecondOpinion;
use super::start::{Start, Switch};
use super::status::State;
use super::writer::{Assignment, FlushPolicy, Report, WalWriter, WriterError};
use super::{Receiver, ReceiverError, blocking, journal, stopped};

/// How many received bytes may wait for the disk.
const QUEUE_BUDGET: u32 = 1 << 20;

/// How often the server hears from us at least where syncs, which are reported, are seldomer, and
/// where commits wait, one of which a report may have come too early for.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// How long a server may take to end a stream that we stop.
const GOODBYE: Duration = Duration::from_secs(5);

/// How a connection ended that did not break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// We were told to stop.
    Stopped,
    /// Everything before the position up to which we were to receive is durable.
    Reached,
    /// The server shut down, and has been told that we have everything.
    ServerShutdown,
    /// Commits have begun to wait for us, and the next connection is to have its own thread.
    Waited,
}

/// Why no more events are taken from a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    /// The server ended it.
    ServerEnded,
    Stop,
    EndReached,
    /// Commits have begun to wait for us.
    Waited,
}

impl Receiver {
    /// Streams until the connection ends, following timelines.
    pub(super) async fn stream(
        &mut self,
        mut client: ReplicationClient,
        mut start: Start,
        size: SegmentSize,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<End, ReceiverError> {
        loop {
            if let Some(switch) = start.switch {
                self.record_switch(switch).await?;
            }
            self.archiver.frontier(start.timeline, size.segment_of(start.from)).await?;
            let span = tracing::info_span!("stream", timeline = %start.timeline);
            let streamed = self.stream_timeline(client, &start, size, stop).instrument(span);
            let (next, ended) = streamed.await?;
            let (timeline, fork) = match ended {
                (Leave::EndReached, _) => return Ok(End::Reached),
                (Leave::Waited, _) => return Ok(End::Waited),
                (Leave::Stop, _) | (_, StreamEnd::Stopped) => return Ok(End::Stopped),
                (_, StreamEnd::ServerShutdown) => return Ok(End::ServerShutdown),
                (_, StreamEnd::NextTimeline { timeline, start }) => (timeline, start),
            };
            client = next;
            // The history first: without it, nobody could tell how the new WAL belongs to the old.
            self.fetch_history(&mut client, timeline).await?;
            let from = size.start_of(size.segment_of(fork));
            let held_to = self.durable.map_or(fork, |(_, lsn)| lsn);
            let switch = Switch { left: start.timeline, entered: timeline, fork, held_to };
            start = Start { timeline, from, durable: from, switch: Some(switch) };
        }
    }

    async fn record_switch(&self, switch: Switch) -> Result<(), ReceiverError> {
        let Switch { left, entered, fork, held_to } = switch;
        tracing::warn!(%left, %entered, %fork, %held_to, "the server has changed its timeline");
        let dir = self.dir.clone();
        Ok(blocking(move || journal::record_switch(&dir, &switch)).await??)
    }

    /// Streams one timeline to its end, or until we leave it. Everything that was received is
    /// durable when this returns, whatever it returns, unless the error is about that.
    async fn stream_timeline(
        &mut self,
        mut client: ReplicationClient,
        start: &Start,
        size: SegmentSize,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(ReplicationClient, (Leave, StreamEnd)), ReceiverError> {
        let Start { timeline, from, durable, .. } = *start;
        let mut options = StartReplication::new(from);
        options.slot = Some(self.settings.slot_name.clone());
        options.timeline = Some(timeline);
        // Before the first byte that is wanted there is nothing that is not durable.
        options.already_flushed = from;
        if self.settings.flush_interval > STATUS_INTERVAL || self.synchrony.holds() {
            options.intervals.status = Some(STATUS_INTERVAL);
        }
        // Every standby is so; a server that does not say may be one.
        let read_only = client.show("transaction_read_only").await;
        let mut notes = CaughtUpNotes::new(&self.dir, read_only.is_ok_and(|value| value == "off"));
        let stream = client.start_replication(options).await;
        let mut stream = stream.map_err(|error| self.refused(error, timeline, from))?;
        if let Some(begun) = &mut self.begun {
            begun.agreed = true;
        }
        // Hundreds of them are received at once where all servers begin new segments.
        stream.set_receive_buffer(LONG_WAL_MESSAGE);
        self.settle().await?;
        tracing::info!(%from, "receiving WAL");
        self.tell_streaming(timeline, from);
        let assignment = Assignment {
            dir: self.dir.clone(),
            timeline,
            segment_size: size,
            from,
            durable,
            policy: FlushPolicy {
                interval: self.settings.flush_interval,
                synchronous: self.synchrony.flag(),
            },
            budget: QUEUE_BUDGET,
            archive: self.archive.clone(),
            validation: self.wal_options(timeline),
            sync_data: fdatasync(),
            workplace: self.workplace.clone(),
            crew: Arc::clone(&self.crew),
        };
        if let Some(archive) = self.archive.as_ref().filter(|_| self.settings.wal_validation) {
            archive.notes().expect(SegmentName::new(timeline, size.segment_of(from), size));
        }
        let mut writer = WalWriter::start(assignment, self.reporter(&stream, timeline)?);

        let left = match self.pump(&mut stream, &mut writer, &mut notes, stop, timeline).await {
            Err(ReceiverError::Writer(error)) => {
                let confirmed = stream.positions().flushed.max(durable);
                return Err(self.writer_failed(error, timeline, confirmed).await);
            }
            left => left,
        };
        // Whatever happened to the connection: what was received is kept. Only when the thread has
        // ended may another one write, so this is waited for in any case.
        let mut finishing = pin!(writer.finish());
        let finished = match stream.hold(&mut finishing).await {
            Ok(finished) => finished,
            Err(_) => finishing.await,
        };
        match finished {
            Ok(flushed) => self.durable = Some((timeline, flushed.max(durable))),
            Err(error) => {
                let confirmed = stream.positions().flushed.max(durable);
                return Err(self.writer_failed(error, timeline, confirmed).await);
            }
        }
        let left = left?;
        if left != Leave::ServerEnded {
            let goodbye = tokio::time::timeout(GOODBYE, say_goodbye(stream));
            return match goodbye.await {
                Ok(Ok((client, end))) => Ok((client, (left, end))),
                // All is durable here; the server may only not know it yet.
                Ok(Err(error)) => Err(ReceiverError::server("end the stream")(error)),
                Err(_) => {
                    let (action, limit) = ("end the stream", GOODBYE);
                    let source = pgwire_stream::Error::Timeout { what: "ending the stream", limit };
                    Err(ReceiverError::Server { action, source })
                }
            };
        }
        let (client, end) = stream.finish().map_err(ReceiverError::server("end the stream"))?;
        Ok((client, (left, end)))
    }

    /// Feeds the writer until the stream ends, breaks, or we leave it.
    ///
    /// The flush positions that the server hears come from the writer's thread alone. This loop
    /// never waits for the disk but in `hold`, which keeps the session alive.
    async fn pump(
        &self,
        stream: &mut WalStream,
        writer: &mut WalWriter,
        notes: &mut CaughtUpNotes,
        stop: &mut watch::Receiver<bool>,
        timeline: TimelineId,
    ) -> Result<Leave, ReceiverError> {
        let broken = |error| ReceiverError::server("receive WAL")(error);
        let unhurried = is_unhurried(self.settings.flush_interval);
        // How much has come since there was nothing to come.
        let mut came = 0;
        loop {
            if self.should_be_apart() {
                return Ok(Leave::Waited);
            }
            let may_breathe = came > 0 && unhurried && !self.synchrony.holds();
            let event = tokio::select! {
                biased;
                () = stopped(stop) => return Ok(Leave::Stop),
                error = writer.failed() => return Err(ReceiverError::Writer(error)),
                // What has come may be waited for, though nothing comes any more.
                () = self.synchrony.begun() => {
                    writer.flush();
                    continue;
                }
                event = stream.next() => event,
                () = std::future::ready(()), if may_breathe => {
                    if std::mem::take(&mut came) < LITTLE {
                        stream.hold(breath()).await.map_err(broken)?;
                    }
                    continue;
                }
            };
            let event = match event {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(Leave::ServerEnded),
                Err(error) if error.is_wal_removed() => {
                    let from = stream.positions().received;
                    return Err(self.refused(error, timeline, from));
                }
                Err(error) => return Err(broken(error)),
            };
            match event {
                WalEvent::Data(data) => {
                    let (at, end, server_end) = (data.start, data.end(), data.server_end);
                    came += data.data.len();
                    let room = match writer.try_reserve(data.data.len()) {
                        Some(room) => room,
                        None => {
                            let room = async {
                                tokio::select! {
                                    room = writer.reserve(data.data.len()) => Some(room),
                                    () = stopped(stop) => None,
                                }
                            };
                            match stream.hold(room).await {
                                Ok(Some(room)) => room.map_err(ReceiverError::Writer)?,
                                Ok(None) => return Ok(Leave::Stop),
                                Err(error) => return Err(broken(error)),
                            }
                        }
                    };
                    writer.write(at, data.data, server_end, room);
                    self.synchrony.received(end);
                    self.tell_received(end, server_end);
                    if self.options.end_at.is_some_and(|last| end >= last) {
                        return Ok(Leave::EndReached);
                    }
                }
                WalEvent::Keepalive(keepalive) => {
                    self.tell_heard(keepalive.server_end);
                    notes.heard(&keepalive, self.status.borrow().flushed, timeline);
                    if keepalive.reply_requested {
                        // A server that shuts down waits until it hears that all is durable.
                        writer.flush();
                    }
                }
                // A physical stream brings nothing else unasked.
                _ => {}
            }
        }
    }

    /// What the writer's thread calls.
    fn reporter(
        &self,
        stream: &WalStream,
        timeline: TimelineId,
    ) -> Result<impl Fn(Report) + Send + Sync + 'static, ReceiverError> {
        let opinion = self.second_opinion(timeline)?;
        let progress = stream.progress();
        let status = Arc::clone(&self.status);
        let archiver = self.archiver.handle();
        let trusted = Arc::clone(&self.trusted);
        let synchrony = Arc::clone(&self.synchrony);
        Ok(move |report| match report {
            Report::Written(lsn) => {
                progress.written(lsn);
                status.send_modify(|status| status.written = Some(lsn));
            }
            Report::Flushed(lsn) => {
                // Before the server hears of it, and somebody goes on.
                synchrony.flushed(lsn);
                if let Err(error) = progress.flushed(lsn) {
                    tracing::error!(error = %error, %timeline, "a flush position was not reported");
                }
                status.send_modify(|status| status.flush(lsn));
            }
            Report::Completed(segment) => {
                // The disk has proved itself.
                trusted.store(true, Ordering::Relaxed);
                tracing::debug!(%segment, "received a segment");
                status.send_modify(|status| status.waiting_for_archive += 1);
                archiver.wake();
            }
            Report::Archived(segment) => {
                trusted.store(true, Ordering::Relaxed);
                tracing::debug!(%segment, "received a segment into the archive");
            }
            Report::DiskFull(full) => {
                status.send_modify(|status| status.disk_full = full);
                // Archived WAL takes less room than raw.
                archiver.wake();
            }
            Report::Suspect(range) => opinion.ask(range),
        })
    }

    /// What is known of the WAL of a timeline, if it is to be validated.
    fn wal_options(&self, timeline: TimelineId) -> Option<WalOptions> {
        let mut options = self.wal.clone().filter(|_| self.settings.wal_validation)?;
        options.timeline = Some(timeline);
        Some(options)
    }

    /// Who asks again for what does not look like WAL.
    fn second_opinion(&self, timeline: TimelineId) -> Result<SecondOpinion, ReceiverError> {
        let archive = self.archive.clone().map(|archive| (archive, self.archiver.handle()));
        Ok(SecondOpinion {
            config: self.config()?,
            dir: self.dir.clone(),
            timeline,
            wal: self.wal_options(timeline),
            archive,
            status: Arc::clone(&self.status),
            places: Arc::clone(&self.opinions),
        })
    }

    /// What to do about a writer that could not go on. After a failed write or sync, a new file
    /// takes the place of the one that failed; if that is not possible, or fails again before
    /// a segment was completed, the stream ends for good.
    ///
    /// What the new file begins with may reach beyond `confirmed`: it was stored before, and not
    /// all of it had come again to be compared. So the next connection begins there.
    async fn writer_failed(
        &mut self,
        error: WriterError,
        timeline: TimelineId,
        confirmed: Lsn,
    ) -> ReceiverError {
        let WriterError::Segment { segment, durable, source } = &error else {
            return ReceiverError::Writer(error);
        };
        let (segment, durable) = (*segment, *durable);
        let failure = match source {
            SegmentError::Diverged { .. } => return ReceiverError::Writer(error),
            // Nothing was lost by it.
            source if source.is_out_of_space() => return ReceiverError::Writer(error),
            // It stays where it is, and its raw form comes again.
            SegmentError::Archive(_) => return ReceiverError::Writer(error),
            SegmentError::Storage(failure) | SegmentError::Sync(failure) => failure,
        };
        tracing::error!(
            error = %failure, cause = %failure.source, %segment, %durable,
            "a WAL segment could not be written; a new file takes its place"
        );
        self.durable = Some((timeline, confirmed));
        let first = self.trusted.swap(false, Ordering::Relaxed);
        let size = self.segment_size;
        let dir = self.dir.clone();
        let replaced = blocking(move || {
            let start = segment.start(size).unwrap_or(durable);
            replace(&dir, segment, durable.bytes_since(start))
        });
        match replaced.await {
            Ok(Ok(())) if first => ReceiverError::Writer(error),
            Ok(Ok(())) => match error {
                WriterError::Segment {
                    source: SegmentError::Storage(error) | SegmentError::Sync(error),
                    ..
                } => ReceiverError::NotDurable(error),
                error => ReceiverError::Writer(error),
            },
            Ok(Err(error)) => ReceiverError::NotDurable(error),
            Err(error) => error,
        }
    }

    fn tell_streaming(&self, timeline: TimelineId, from: Lsn) {
        let synchronous = self.synchrony.holds();
        self.status.send_modify(|status| {
            status.enter(State::Streaming);
            if status.timeline != Some(timeline) || status.flushed.is_none() {
                // How far another timeline is durable says nothing about this one.
                status.written = Some(from);
                status.flushed = Some(from);
            }
            status.timeline = Some(timeline);
            status.started_at = Some(from);
            status.received = Some(from);
            status.synchronous = synchronous;
            status.last_error = None;
            status.last_hint = None;
        });
    }

    fn tell_received(&self, end: Lsn, server_end: Lsn) {
        self.status.send_modify(|status| {
            status.received = Some(end);
            status.hear(server_end);
        });
    }

    fn tell_heard(&self, server_end: Lsn) {
        self.status.send_modify(|status| status.hear(server_end));
    }
}

/// Ends a stream from our side. What still comes was not written and is not acknowledged.
async fn say_goodbye(
    mut stream: WalStream,
) -> Result<(ReplicationClient, StreamEnd), pgwire_stream::Error> {
    stream.stop()?;
    while stream.next().await?.is_some() {}
    stream.finish()
}
