//! What a stream tells the server, and when.

use std::time::{Duration, Instant, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite};

use super::WalStream;
use super::wal_stream::State;
use crate::proto::{Action, HotStandbyFeedback, StandbyMessage, StandbyStatus};
use crate::{Feature, Misuse, Result};

/// A server that does not take this much of our reports gets no more of them for now.
const MAX_QUEUED: usize = 4 << 10;

/// A question to the primary, from 19 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum StatusRequest {
    #[default]
    None,
    Wanted,
    Sent,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WalStream<S> {
    /// Tells the server which row versions queries on our side still need. The next
    /// [`next`](Self::next), [`hold`](Self::hold) or [`stop`](Self::stop) sends it; of several, the
    /// last. After `stop` none is sent any more.
    ///
    /// The server forgets it with the connection, but for what a slot keeps: whoever has sent any
    /// takes it back by `HotStandbyFeedback::default()` before the stream ends.
    pub fn send_hot_standby_feedback(&mut self, feedback: HotStandbyFeedback) {
        self.standby_feedback = Some(feedback);
    }

    /// Asks a primary for [`WalEvent::PrimaryStatus`](crate::WalEvent::PrimaryStatus) (servers
    /// from 19 on). The next [`next`](Self::next) or [`hold`](Self::hold) sends the question. One
    /// that is not answered yet is not asked again.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) if the server is older.
    pub fn request_primary_status(&mut self) -> Result<()> {
        self.client.version.require(Feature::PrimaryStatus)?;
        if self.status_request == StatusRequest::None {
            self.status_request = StatusRequest::Wanted;
        }
        Ok(())
    }

    /// What is due now. Nothing may follow `CopyDone`, but silence is watched to the end.
    pub(super) fn due(&mut self) -> Action {
        if self.state != State::Streaming {
            return self.feedback.poll_silence(now());
        }
        if self.progress.flushed_to() > self.reported {
            self.feedback.want_report();
        }
        self.feedback.poll(now())
    }

    /// Queues what is due. When to look again.
    pub(super) fn report_if_due(&mut self) -> Result<Option<Instant>, Misuse> {
        let full = self.client.connection.queued() > MAX_QUEUED;
        if self.state == State::Streaming && !full {
            self.send_questions()?;
        }
        match self.due() {
            // But for a question, so that a server that is silent, too, is given up in the end.
            Action::Report { ask_for_reply: false } if full => {
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

    /// Queues a status update.
    pub(super) fn report(&mut self, ask_for_reply: bool) -> Result<(), Misuse> {
        let positions = self.positions();
        self.say(StandbyMessage::Status(StandbyStatus {
            written: positions.written,
            flushed: positions.flushed,
            applied: positions.applied,
            sent_at: SystemTime::now().into(),
            reply_requested: ask_for_reply,
        }))?;
        self.feedback.reported(now(), ask_for_reply);
        self.reported = positions.flushed;
        Ok(())
    }

    /// Queues what the caller wants to be said.
    pub(super) fn send_questions(&mut self) -> Result<(), Misuse> {
        let sent_at = SystemTime::now().into();
        if let Some(feedback) = self.standby_feedback.take() {
            self.say(StandbyMessage::HotStandbyFeedback { sent_at, feedback })?;
        }
        if self.status_request == StatusRequest::Wanted {
            self.say(StandbyMessage::PrimaryStatusRequest { sent_at })?;
            self.status_request = StatusRequest::Sent;
        }
        Ok(())
    }

    fn say(&mut self, message: StandbyMessage) -> Result<(), Misuse> {
        let mut payload = Vec::with_capacity(34);
        message.encode(&mut payload);
        self.client.connection.copy_data(&payload)
    }
}

/// The runtime's clock, which tests can turn.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
