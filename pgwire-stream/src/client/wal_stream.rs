//! A stream of WAL, with feedback that depends neither on the disk nor on a quick consumer.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};

use super::reporting::{StatusRequest, now};
use super::{Positions, Progress, ReplicationClient, explained};
use crate::proto::{
    Action, CopyBothMessage, Event, Feedback, HotStandbyFeedback, Intervals, Keepalive,
    PrimaryStatus, ResultSet, WalData,
};
use crate::{Error, Lsn, Misuse, Result, ServerError, TimelineId, Violation};

/// What a [`WalStream`] brings.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WalEvent {
    /// WAL, right behind what came before. In a logical stream, a message of the output plugin.
    Data(WalData),
    /// A sign of life; it has been answered already if the server asked for that.
    ///
    /// A server that asks may be shutting down, and then waits until everything is confirmed:
    /// make durable all that has come, and report it.
    Keepalive(Keepalive),
    /// The answer to [`WalStream::request_primary_status`].
    PrimaryStatus(PrimaryStatus),
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

/// A stream of WAL from one position on one timeline, or of what an output plugin makes of WAL.
///
/// [`next`](Self::next) brings WAL in order and without gaps, and reports to the server on the
/// way: at once when it asks or when [`Progress::flushed`] has moved, and else by the clock of
/// [`Intervals`]. Whoever cannot take more WAL now waits inside [`hold`](Self::hold), which keeps
/// the session alive and reads nothing, so that TCP slows the server down.
///
/// # When the server shuts down
///
/// It sends everything, and asks by keepalives until the position reported as flushed (as written,
/// if nothing was ever flushed) is the end of all it has sent; only then does it stop, or when its
/// `wal_sender_timeout` has passed. So answer every [`WalEvent::Keepalive`] with `reply_requested`
/// by making durable what has come, and [`Progress::flushed`]. Whoever keeps nothing reports
/// [`Progress::written`]. The stream then ends with [`StreamEnd::ServerShutdown`].
///
/// # After an error
///
/// An error that the server reported ends the stream, but not always the session: somebody
/// cancelled it (57014), its WAL is gone (58P01), its start is ahead of the server's end (XX000).
/// [`recover`](Self::recover) gives the client back then.
pub struct WalStream<S = crate::net::Stream> {
    pub(super) client: ReplicationClient<S>,
    pub(super) feedback: Feedback,
    pub(super) progress: Progress,
    pub(super) state: State,
    kind: Kind,
    /// Invariant of a physical stream: the position that is due next.
    pub(super) received: Lsn,
    /// The flush position of the last report.
    pub(super) reported: Lsn,
    /// To be sent.
    pub(super) standby_feedback: Option<HotStandbyFeedback>,
    pub(super) status_request: StatusRequest,
    /// Rows after the end of the copy: the next timeline.
    rows: ResultSet,
    failure: Option<ServerError>,
}

/// How positions run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Without gaps, on the timeline that was asked for.
    Physical { timeline: TimelineId },
    /// From change to change.
    Logical,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
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

impl<S: AsyncRead + AsyncWrite + Unpin> WalStream<S> {
    /// A stream whose command is sent.
    pub(super) fn new(
        client: ReplicationClient<S>,
        kind: Kind,
        from: Lsn,
        already_flushed: Lsn,
        intervals: Intervals,
    ) -> Self {
        Self {
            client,
            feedback: Feedback::new(intervals, now()),
            progress: Progress::new(from, already_flushed),
            state: State::Closing { stopped: false },
            kind,
            received: from,
            reported: already_flushed,
            standby_feedback: None,
            status_request: StatusRequest::None,
            rows: ResultSet { command: "START_REPLICATION", ..ResultSet::default() },
            failure: None,
        }
    }

    /// Waits until streaming begins, or the answer is over at once.
    pub(super) async fn begin(&mut self) -> Result<()> {
        loop {
            let event = self.client.next_event().await;
            if let Ok(Event::CopyBoth) = event {
                self.state = State::Streaming;
                return Ok(());
            }
            match event {
                Ok(event) => drop(self.handle(event)?),
                Err(error) => self.handle_end(Err(error))?,
            }
            if let State::Ended(_) = self.state {
                return Ok(());
            }
        }
    }

    /// The next event; `None` at the end of the stream, when [`finish`](Self::finish) tells why.
    ///
    /// Cancel-safe: nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// What the server reports, or if the connection fails, falls silent, or brings WAL that does
    /// not follow what came before. The stream cannot be continued: what comes after an error is
    /// [`Misuse::Failed`].
    pub async fn next(&mut self) -> Result<Option<WalEvent>> {
        let event = self.next_unannounced().await;
        self.progress.received(self.received);
        event
    }

    /// As [`next`](Self::next), for a caller who passes the event on, and only then tells
    /// [`Progress`] that it was received: nobody may take for durable what they have not seen.
    pub(super) async fn next_unannounced(&mut self) -> Result<Option<WalEvent>> {
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

    /// From now on, new receive buffers have room for so many bytes, or for one message if that is
    /// longer; 256 KiB to begin with, and never under 32 KiB.
    ///
    /// What a stream holds at most is the buffer that it receives into, and those of which the
    /// caller keeps slices. For a process of many streams, a buffer of one long message
    /// ([`LONG_WAL_MESSAGE`](crate::proto::LONG_WAL_MESSAGE)) halves that. The price is paid by
    /// messages of about half that length and more: a buffer often ends with the beginning of the
    /// next one, and that is copied.
    pub fn set_receive_buffer(&mut self, bytes: usize) {
        self.client.connection.set_receive_buffer(bytes);
    }

    /// The handle by which WAL is reported as written and durable.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// How far WAL has come.
    pub fn positions(&self) -> Positions {
        self.progress.positions()
    }

    /// Asks the server to end the stream. A last report is sent before; WAL that is on its way
    /// still comes from [`next`](Self::next), until that gives `None`.
    ///
    /// Changes nothing about a stream that is being stopped or over already.
    ///
    /// # Errors
    /// [`Misuse::Failed`] if the stream has failed before.
    pub fn stop(&mut self) -> Result<(), Misuse> {
        match self.state {
            State::Streaming => {
                self.send_questions()?;
                self.report(false)?;
                self.client.connection.copy_done()?;
                self.state = State::Stopping;
                Ok(())
            }
            State::Failed => Err(Misuse::Failed),
            State::Stopping | State::Closing { .. } | State::Ended(_) => Ok(()),
        }
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

    /// Gives the client back after an error that the server reported and that left the session
    /// usable. `None` after any other failure, when the connection is worth nothing any more, and
    /// in the middle of a stream.
    pub fn recover(self) -> Option<ReplicationClient<S>> {
        self.client.connection.session().is_idle().then_some(self.client)
    }

    /// How long to listen to silence.
    pub(super) fn receive_limit(&self) -> Option<Duration> {
        self.feedback.intervals().receive
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
                    self.handle_end(received)?;
                    self.feedback.received(now());
                }
                () = progress.news() => {}
                // Only now, with nothing left to read, is silence the server's.
                () = sleep_until(deadline) => {
                    if self.due() == Action::TimedOut {
                        let limit = self.receive_limit().unwrap_or_default();
                        let what = "waiting for a sign of life from the server";
                        self.handle_end(Err(Error::Timeout { what, limit }))?;
                    }
                }
            }
        }
    }

    /// The server may have said why before the connection ended or fell silent.
    fn handle_end(&mut self, received: Result<()>) -> Result<()> {
        received.map_err(|error| match self.failure.take() {
            Some(failure) => explained(error, failure.into()),
            None => error,
        })
    }

    fn handle(&mut self, event: Event) -> Result<Option<WalEvent>> {
        match (self.state, event) {
            (State::Streaming | State::Stopping, Event::CopyData(payload)) => {
                return self.copy_both(CopyBothMessage::decode(payload)?).map(Some);
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
                if error.is_fatal() {
                    return Err(error.into());
                }
                self.failure = Some(error);
                self.state = State::Closing { stopped: false };
            }
            (_, Event::Notice(_)) => {}
            _ => return Err(unexpected("a message out of order")),
        }
        Ok(None)
    }

    fn copy_both(&mut self, message: CopyBothMessage) -> Result<WalEvent> {
        match message {
            CopyBothMessage::Data(data) => {
                match self.kind {
                    Kind::Physical { .. } if data.start != self.received => {
                        let (expected, got) = (self.received, data.start);
                        return Err(Violation::WalPosition { expected, got }.into());
                    }
                    Kind::Physical { .. } if data.data.is_empty() => {
                        return Err(unexpected("a message without WAL"));
                    }
                    Kind::Physical { .. } => self.note_received(data.end()),
                    Kind::Logical => self.note_received(data.start.max(data.server_end)),
                }
                self.progress.server_end(data.server_end);
                Ok(WalEvent::Data(data))
            }
            CopyBothMessage::Keepalive(keepalive) => {
                self.progress.server_end(keepalive.server_end);
                if let Kind::Logical = self.kind {
                    self.note_received(keepalive.server_end);
                }
                if keepalive.reply_requested {
                    self.feedback.want_report();
                }
                Ok(WalEvent::Keepalive(keepalive))
            }
            CopyBothMessage::PrimaryStatus(_) if self.status_request != StatusRequest::Sent => {
                Err(unexpected("a status that was not asked for"))
            }
            CopyBothMessage::PrimaryStatus(status) => {
                self.status_request = StatusRequest::None;
                Ok(WalEvent::PrimaryStatus(status))
            }
        }
    }

    fn note_received(&mut self, lsn: Lsn) {
        self.received = self.received.max(lsn);
    }

    fn decide_end(&self, stopped: bool) -> Result<StreamEnd> {
        if self.rows.rows.is_empty() {
            // A server that ends the copy by itself owes us the next timeline.
            let end = if stopped { Ok(StreamEnd::Stopped) } else { Err(Violation::NextTimeline) };
            return Ok(end?);
        }
        let timeline: TimelineId = self.rows.required("next_tli")?;
        let start: Lsn = self.rows.required("next_tli_startpos")?;
        match self.kind {
            Kind::Physical { timeline: current }
                if timeline > current && start <= self.received =>
            {
                Ok(StreamEnd::NextTimeline { timeline, start })
            }
            _ => Err(Violation::NextTimeline.into()),
        }
    }
}

fn unexpected(message: &str) -> Error {
    Violation::Unexpected { message: message.to_owned(), state: "streaming" }.into()
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
