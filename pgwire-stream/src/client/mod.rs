//! A client of a server's replication commands: the paved path.

mod base_backup;
mod cancel;
mod connect;
mod events;
mod progress;
mod reporting;
mod session_attrs;
mod slot;
#[cfg(feature = "tokio-rt")]
mod spawned_wal_stream;
mod start_replication;
mod system;
mod upload_manifest;
mod wal_stream;

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

pub use base_backup::BaseBackup;
pub use cancel::CancelToken;
pub use progress::{Positions, Progress};
pub use slot::{CreatedSlot, SlotPosition};
#[cfg(feature = "tokio-rt")]
pub use spawned_wal_stream::{SpawnedWalStream, spawn_wal_stream};
pub use system::SystemIdentification;
pub use wal_stream::{StreamEnd, WalEvent, WalStream};

use crate::connection::Connection;
use crate::net::Stream;
use crate::proto::{AuthenticatedBy, Command, Event, ResultSet};
use crate::{Error, Result, ServerVersion, TimelineId, Violation};

/// A connection for replication commands.
///
/// A stream or backup consumes the client and gives it back at its end, so a command cannot be
/// sent in the middle of one.
///
/// Dropping a client, a stream or a backup closes the connection; the server then ends whatever
/// it was doing for us.
///
/// `S` is the byte stream: [`net::Stream`](crate::Stream) for connections made by
/// [`ReplicationClient::connect`], anything else for [`ReplicationClient::from_stream`].
pub struct ReplicationClient<S = Stream> {
    connection: Connection<S>,
    version: ServerVersion,
    /// The server's timeline when `IDENTIFY_SYSTEM` was last answered.
    identified: Option<TimelineId>,
    /// The last command, for messages.
    command: &'static str,
    command_timeout: Option<Duration>,
    /// Whether the server was told to verify no checksums, and cannot be told otherwise.
    verification_is_off: bool,
}

/// What the server is told about a copy whose future was dropped.
const ABANDONED: &str = "the client has abandoned the command";

/// The most that one command's rows may hold.
const MAX_RESULT: usize = 64 << 20;

impl<S: AsyncRead + AsyncWrite + Unpin> ReplicationClient<S> {
    fn new(connection: Connection<S>, version: ServerVersion) -> Self {
        let command = "the first command";
        Self {
            connection,
            version,
            identified: None,
            command,
            command_timeout: None,
            verification_is_off: false,
        }
    }

    /// The server's version.
    pub fn server_version(&self) -> ServerVersion {
        self.version
    }

    /// The last value that the server reported for a run-time parameter, such as
    /// `in_hot_standby`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.connection.session().parameter(name)
    }

    /// How the server has had us prove who we are.
    pub fn authenticated_by(&self) -> Option<AuthenticatedBy> {
        self.connection.session().authenticated_by()
    }

    /// Limits how long a command waits for the server's next message; `None`, the default, and zero
    /// wait for ever.
    ///
    /// It holds for every command and its answer, for every wait of a base backup or manifest
    /// upload, and for the beginning of a stream, which then has its own
    /// [`Intervals`](crate::Intervals). It is meant for a server or network that has died. A server
    /// may be silent for minutes while it works: before a base backup that is not
    /// [`fast_checkpoint`](crate::BaseBackupOptions::fast_checkpoint) begins, for as long as its
    /// checkpoint is spread; before a logical slot is created, until the transactions are over
    /// that were running.
    ///
    /// A command that has timed out ([`Error::Timeout`] names it) may still be executed. The next
    /// command first waits for the rest of its answer, as long again; a
    /// [`CancelToken`](crate::CancelToken) ends it sooner, and dropping the client ends both.
    pub fn set_command_timeout(&mut self, limit: Option<Duration>) {
        self.command_timeout = limit.filter(|limit| !limit.is_zero());
    }

    /// Sends plain SQL, on connections made by
    /// [`connect_database`](ReplicationClient::connect_database).
    ///
    /// Cancel-safe in that the client stays usable; the statement may have been executed.
    ///
    /// # Errors
    /// What the server reports, or if the connection fails.
    pub async fn query(&mut self, sql: &str) -> Result<ResultSet> {
        self.run(&Command::Sql(sql.to_owned())).await
    }

    /// Says goodbye and closes the connection.
    ///
    /// # Errors
    /// If the connection fails before the goodbye is sent, or takes longer than the command timeout
    /// to take it.
    pub async fn close(self) -> Result<()> {
        within(self.command_timeout, "closing the connection", self.connection.close()).await?
    }

    /// Sends a command and collects its rows. The session is idle afterwards, unless the
    /// connection failed.
    async fn run(&mut self, command: &Command) -> Result<ResultSet> {
        self.send(command).await?;
        self.collect(command, None).await
    }

    /// Collects the rows of a command, unless it has failed before: then to read the rest of its
    /// answer.
    async fn collect(
        &mut self,
        command: &Command,
        mut failure: Option<Error>,
    ) -> Result<ResultSet> {
        let mut result = ResultSet { command: command.name(), ..Default::default() };
        let mut size = 0;
        loop {
            let event = match (self.next_event().await, failure.take()) {
                (Err(error), Some(failure)) => return Err(explained(error, failure)),
                (event, before) => {
                    failure = before;
                    event?
                }
            };
            match event {
                Event::Ready => break,
                Event::Columns(columns) => {
                    result.columns = columns;
                    result.rows.clear();
                    size = 0;
                }
                Event::Row(row) => {
                    size += row.memory();
                    if size > MAX_RESULT {
                        let (length, limit) = (size as u64, MAX_RESULT as u64);
                        return Err(Violation::TooLong { length, limit }.into());
                    }
                    result.rows.push(row);
                }
                Event::Error(error) => failure = failure.or(Some(error.into())),
                Event::Complete | Event::Notice(_) => {}
                copy => {
                    // Ours ends at once, and the server's is read to its end.
                    if let Event::CopyIn | Event::CopyBoth = copy {
                        self.connection.copy_done()?;
                    }
                    let (message, state) = ("copy data".to_owned(), "answering with rows");
                    let violation = Violation::Unexpected { message, state };
                    failure = failure.or(Some(violation.into()));
                }
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(result),
        }
    }

    /// The next event of the command that was sent last.
    async fn next_event(&mut self) -> Result<Event> {
        within(self.command_timeout, self.command, self.connection.next_event()).await?
    }

    /// Sends a command, once a command that was abandoned before is over.
    async fn send(&mut self, command: &Command) -> Result<()> {
        let text = command.text(self.version)?;
        // An upload, if one was abandoned; nothing else leaves us in this state.
        let _ = self.connection.copy_fail(ABANDONED);
        while !self.connection.session().is_idle() {
            match self.next_event().await? {
                Event::CopyIn => self.connection.copy_fail(ABANDONED)?,
                Event::CopyBoth => self.connection.copy_done()?,
                Event::Error(error) if error.is_fatal() => return Err(error.into()),
                _ => {}
            }
        }
        self.command = command.name();
        // SQL may hold passwords.
        let shown = if let Command::Sql(_) = command { self.command } else { &text };
        tracing::debug!(command = shown, "sending");
        self.connection.query(&text)?;
        Ok(())
    }
}

/// Waits for the server no longer than its answer to this command may take.
async fn within<T>(
    limit: Option<Duration>,
    what: &'static str,
    wait: impl Future<Output = T>,
) -> Result<T> {
    match limit {
        None => Ok(wait.await),
        Some(limit) => {
            tokio::time::timeout(limit, wait).await.map_err(|_| Error::Timeout { what, limit })
        }
    }
}

/// Why an answer came to no end: what the server has reported explains the end of the connection,
/// as an administrator's or a shutdown's last word does, and its silence.
fn explained(end: Error, reported: Error) -> Error {
    match end {
        Error::Closed { .. } | Error::Io(_) | Error::Timeout { .. } => reported,
        end => end,
    }
}

/// The first row's bytes of a column that must be there.
fn required_bytes(rows: &ResultSet, column: &'static str) -> Result<Bytes, Error> {
    let value = rows.bytes(column)?.cloned();
    Ok(value.ok_or(Violation::Column { command: rows.command, column })?)
}

#[cfg(test)]
mod tests;
