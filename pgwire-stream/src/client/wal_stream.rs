//! A stream of WAL, with feedback that depends neither on the disk nor on a quick consumer.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Positions, Progress, ReplicationClient};
use crate::proto::{
    Action, CopyBothMessage, Event, Feedback, Keepalive, ResultSet, StandbyStatus,
    StartReplication, WalData,
};
use crate::{Error, Lsn, Misuse, Result, ServerError, TimelineId, Violation};

/// A server that does not take this much of our reports gets no more of them for now.
const MAX_QUEUED: usize = 4 << 10;

/// What a [`WalStream`] brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalEvent {
    /// WAL, right behind what came before.
    Data(WalData),
    /// A sign of life; it has been answered already if the server asked for that.
    Keepalive(Keepalive),
}

/// Why a [`WalStream`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// The timeline ends here, and goes on as another.
    NextTimeline {
        /// The next timeline.
        timeline: TimelineId,
        /// Where it begins. It may lie before what was received: half a record at the end of the
        /// old timeline is not part of the new one.
        start: Lsn,
    },
    /// The server shut down after it had sent everything. The connection is closed.
    ServerShutdown,
    /// We stopped it.
    Stopped,
}

/// A stream of WAL from one position on one timeline.
///
/// [`next`](Self::next) brings WAL in order and without gaps, and reports to the server on the
/// way: at once when it asks or when [`Progress::flushed`] has moved, and else by the clock of
/// [`Intervals`](crate::Intervals). Whoever cannot take more WAL now waits inside
/// [`hold`](Self::hold), which keeps the session alive and reads nothing, so that TCP slows the
/// server down.
pub struct WalStream<S = crate::net::Stream> {
    pub(super) client: ReplicationClient<S>,
    feedback: Feedback,
    progress: Progress,
    /// The timeline that was asked for, or the server's own at that time.
    timeline: TimelineId,
    received: Lsn,
    server_end: Lsn,
    /// The flush position of the last report.
    reported: Lsn,
    state: State,
    /// Rows after the end of the copy: the next timeline.
    rows: ResultSet,
    failure: Option<ServerError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Streaming,
    /// We have said that we stop; WAL may still be on its way.
    Stopping,
    /// The copy is over on both sides; rows may follow.
    Closing {
        stopped: bool,
    },
    Ended(StreamEnd),
    Failed,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ReplicationClient<S> {
    /// Starts physical streaming. A server that has nothing on the timeline from this position
    /// gives an empty stream that ends with [`StreamEnd::NextTimeline`].
    ///
    /// Not cancel-safe: the client is consumed.
    ///
    /// # Errors
    /// [`Error::Timeout`] if there is no answer within the receive limit. What the server reports: [`Error::is_slot_missing`], [`Error::is_slot_in_use`],
    /// [`Error::is_wal_removed`], a position that is not in the server's history (XX000). Some of
    /// these come only from the first [`WalStream::next`]. The client is lost with the error.
    pub async fn start_replication(mut self, options: StartReplication) -> Result<WalStream<S>> {
        let current = self.identified_timeline().await?;
        self.send(&options.command()).await?;
        let mut stream = WalStream {
            client: self,
            feedback: Feedback::new(options.intervals, now()),
            progress: Progress::new(options.from, options.already_flushed),
            timeline: options.timeline.unwrap_or(current),
            received: options.from,
            server_end: Lsn::ZERO,
            reported: options.already_flushed,
            state: State::Closing { stopped: false },
            rows: ResultSet { command: "START_REPLICATION", ..ResultSet::default() },
            failure: None,
        };
        let limit = stream.feedback.intervals().receive;
        match limit {
            None => stream.begin().await?,
            Some(limit) => tokio::time::timeout(limit, stream.begin())
                .await
                .map_err(|_| Error::Timeout { what: "waiting for the stream to begin", limit })??,
        }
        Ok(stream)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WalStream<S> {
    /// The next event; `None` at the end of the stream, when [`finish`](Self::finish) tells why.
    ///
    /// Cancel-safe: nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// What the server reports, or if the connection fails, falls silent, or brings WAL that does
    /// not follow what came before. The stream cannot be continued: what comes after an error is
    /// [`Misuse::Failed`].
    pub async fn next(&mut self) -> Result<Option<WalEvent>> {
        let result = self.receive().await;
        if result.is_err() {
            self.state = State::Failed;
        }
        result
    }

    /// Waits for something else while the session is kept alive and nothing is read. Should the
    /// connection fail meanwhile, [`next`](Self::next) tells afterwards: the future is always
    /// brought to its end.
    ///
    /// The server's silence meanwhile is not held against it.
    ///
    /// Cancel-safe if `future` is.
    ///
    /// # Errors
    /// [`Misuse::Failed`] if the stream has failed before.
    pub async fn hold<F: Future>(&mut self, future: F) -> Result<F::Output> {
        if self.state == State::Failed {
            return Err(Misuse::Failed.into());
        }
        let mut future = pin!(future);
        self.feedback.pause(now());
        loop {
            let deadline = self.report_if_due()?;
            let progress = self.progress.clone();
            tokio::select! {
                biased;
                output = &mut future => {
                    self.feedback.resume(now());
                    return Ok(output);
                }
                () = self.client.connection.send(), if self.client.connection.has_output() => {}
                () = progress.news() => {}
                () = sleep_until(deadline) => {}
            }
        }
    }

    /// The handle by which WAL is reported as written and durable.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// How far WAL has come.
    pub fn positions(&self) -> Positions {
        self.progress.positions(self.server_end)
    }

    /// Asks the server to end the stream. A last report is sent before; WAL that is on its way
    /// still comes from [`next`](Self::next), until that gives `None`.
    ///
    /// # Errors
    /// If the stream is over already on the server's side: then `next` tells.
    pub fn stop(&mut self) -> Result<(), Misuse> {
        if self.state == State::Streaming {
            self.report(false)?;
            self.client.connection.copy_done()?;
            self.state = State::Stopping;
        }
        Ok(())
    }

    /// Gives the client back at the end of the stream, and why it ended.
    ///
    /// After [`StreamEnd::ServerShutdown`] the client's connection is closed.
    ///
    /// # Errors
    /// [`Misuse::NotFinished`] before [`next`](Self::next) has given `None`.
    pub fn finish(self) -> Result<(ReplicationClient<S>, StreamEnd)> {
        match self.state {
            State::Ended(end) => Ok((self.client, end)),
            _ => Err(Misuse::NotFinished.into()),
        }
    }

    /// Waits until streaming begins, or the answer is over at once.
    async fn begin(&mut self) -> Result<()> {
        loop {
            let event = self.client.connection.next_event().await;
            if let Ok(Event::CopyBoth) = event {
                self.state = State::Streaming;
                return Ok(());
            }
            self.handle_end(event)?;
            if let State::Ended(_) = self.state {
                return Ok(());
            }
        }
    }

    async fn receive(&mut self) -> Result<Option<WalEvent>> {
        self.feedback.resume(now());
        loop {
            match self.state {
                State::Ended(_) => return Ok(None),
                State::Failed => return Err(Misuse::Failed.into()),
                State::Streaming | State::Stopping | State::Closing { .. } => {}
            }
            if let Some(event) = self.client.connection.buffered_event()? {
                let event = self.handle(event)?;
                // Answers do not wait for the caller to come back.
                self.report_if_due()?;
                if self.client.connection.has_output() {
                    self.client.connection.try_send().await;
                }
                match event {
                    Some(event) => return Ok(Some(event)),
                    None => continue,
                }
            }
            let deadline = self.report_if_due()?;
            let progress = self.progress.clone();
            tokio::select! {
                biased;
                received = self.client.connection.receive() => {
                    self.handle_closed(received)?;
                    self.feedback.received(now());
                }
                () = progress.news() => {}
                // Only now, with nothing left to read, is silence the server's.
                () = sleep_until(deadline) => {
                    if self.due() == Action::TimedOut {
                        let limit = self.feedback.intervals().receive.unwrap_or_default();
                        let what = "waiting for a sign of life from the server";
                        return Err(Error::Timeout { what, limit });
                    }
                }
            }
        }
    }

    fn handle_end(&mut self, event: Result<Event>) -> Result<Option<WalEvent>> {
        match event {
            Ok(event) => self.handle(event),
            Err(error) => self.handle_closed(Err(error)).map(|()| None),
        }
    }

    /// The server may have said why before the connection ended.
    fn handle_closed(&mut self, received: Result<()>) -> Result<()> {
        match (received, self.failure.take()) {
            (Err(Error::Closed { .. } | Error::Io(_)), Some(failure)) => Err(failure.into()),
            (received, failure) => {
                self.failure = failure;
                received
            }
        }
    }

    fn handle(&mut self, event: Event) -> Result<Option<WalEvent>> {
        match (self.state, event) {
            (State::Streaming | State::Stopping, Event::CopyData(payload)) => {
                return self.copy_both(CopyBothMessage::decode(payload)?);
            }
            (State::Streaming, Event::CopyDone) => self.state = State::Closing { stopped: false },
            (State::Stopping, Event::CopyDone) => self.state = State::Closing { stopped: true },
            // Without CopyDone before it: the server shuts down, and has sent everything.
            (State::Streaming | State::Stopping, Event::Complete) => {
                self.state = State::Ended(StreamEnd::ServerShutdown);
            }
            (State::Closing { .. }, Event::Columns(columns)) => self.rows.columns = columns,
            (State::Closing { .. }, Event::Row(row)) if self.rows.rows.is_empty() => {
                self.rows.rows.push(row);
            }
            (State::Closing { .. }, Event::Complete) => {}
            (State::Closing { stopped }, Event::Ready) => {
                if let Some(failure) = self.failure.take() {
                    return Err(failure.into());
                }
                self.state = State::Ended(self.decide_end(stopped)?);
            }
            (_, Event::Error(error)) => {
                // Fatal errors are followed by the end of the connection instead of "ready".
                let fatal = error.severity == "FATAL" || error.severity == "PANIC";
                if fatal {
                    return Err(error.into());
                }
                self.failure = Some(error);
                self.state = State::Closing { stopped: false };
            }
            (_, Event::Notice(_)) => {}
            _ => {
                let (message, state) = ("a message out of order".to_owned(), "streaming");
                return Err(Violation::Unexpected { message, state }.into());
            }
        }
        Ok(None)
    }

    fn copy_both(&mut self, message: CopyBothMessage) -> Result<Option<WalEvent>> {
        match message {
            CopyBothMessage::Data(data) => {
                if data.start != self.received {
                    let (expected, got) = (self.received, data.start);
                    return Err(Violation::WalPosition { expected, got }.into());
                }
                self.received = data.end();
                self.progress.received(self.received);
                self.server_end = self.server_end.max(data.server_end);
                Ok(Some(WalEvent::Data(data)))
            }
            CopyBothMessage::Keepalive(keepalive) => {
                self.server_end = self.server_end.max(keepalive.server_end);
                if keepalive.reply_requested {
                    self.feedback.want_report();
                }
                Ok(Some(WalEvent::Keepalive(keepalive)))
            }
        }
    }

    fn decide_end(&self, stopped: bool) -> Result<StreamEnd> {
        if self.rows.rows.is_empty() {
            // A server that ends the copy by itself owes us the next timeline.
            let end = if stopped { Ok(StreamEnd::Stopped) } else { Err(Violation::NextTimeline) };
            return Ok(end?);
        }
        let timeline: TimelineId = self.rows.required("next_tli")?;
        let start: Lsn = self.rows.required("next_tli_startpos")?;
        if timeline <= self.timeline || start > self.received {
            return Err(Violation::NextTimeline.into());
        }
        Ok(StreamEnd::NextTimeline { timeline, start })
    }

    /// What is due now. No status update may follow `CopyDone`, but silence is watched to the end.
    fn due(&mut self) -> Action {
        if self.state != State::Streaming {
            return self.feedback.poll_silence(now());
        }
        if self.progress.flushed_to() > self.reported {
            self.feedback.want_report();
        }
        self.feedback.poll(now())
    }

    /// Queues a status update if one is due. When to look again.
    fn report_if_due(&mut self) -> Result<Option<Instant>, Misuse> {
        match self.due() {
            Action::Report { .. } if self.client.connection.queued() > MAX_QUEUED => {
                Ok(now().checked_add(Duration::from_secs(1)))
            }
            Action::Report { ask_for_reply } => {
                self.report(ask_for_reply)?;
                self.report_if_due()
            }
            Action::Wait(deadline) => Ok(deadline),
            Action::TimedOut => Ok(Some(now())),
        }
    }

    fn report(&mut self, ask_for_reply: bool) -> Result<(), Misuse> {
        let positions = self.positions();
        let status = StandbyStatus {
            written: positions.written,
            flushed: positions.flushed,
            applied: positions.applied,
            sent_at: SystemTime::now().into(),
            reply_requested: ask_for_reply,
        };
        self.client.connection.copy_data(&status.encode())?;
        self.feedback.reported(now(), ask_for_reply);
        self.reported = positions.flushed;
        Ok(())
    }
}

/// The runtime's clock, which tests can turn.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
