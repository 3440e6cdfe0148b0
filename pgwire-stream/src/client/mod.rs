//! A client of a server's replication commands: the paved path.

mod base_backup;
mod connect;
mod progress;
mod session_attrs;
mod slot;
mod system;
mod wal_stream;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

pub use base_backup::BaseBackup;
pub use progress::{Positions, Progress};
pub use slot::{CreatedSlot, SlotPosition};
pub use system::SystemIdentification;
pub use wal_stream::{StreamEnd, WalEvent, WalStream};

use crate::connection::Connection;
use crate::net::Stream;
use crate::proto::{Command, Event, ResultSet};
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
}

/// The most that one command's rows may hold.
const MAX_RESULT: usize = 64 << 20;

impl<S: AsyncRead + AsyncWrite + Unpin> ReplicationClient<S> {
    /// The server's version.
    pub fn server_version(&self) -> ServerVersion {
        self.version
    }

    /// The last value that the server reported for a run-time parameter, such as
    /// `in_hot_standby`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.connection.session().parameter(name)
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
    /// If the connection fails before the goodbye is sent.
    pub async fn close(self) -> Result<()> {
        self.connection.close().await
    }

    /// Sends a command and collects its rows. The session is idle afterwards, unless the
    /// connection failed.
    async fn run(&mut self, command: &Command) -> Result<ResultSet> {
        self.send(command).await?;
        let mut result = ResultSet { command: command.name(), ..Default::default() };
        let mut failure: Option<Error> = None;
        let mut size = 0;
        loop {
            let event = match (self.connection.next_event().await, failure.take()) {
                // An administrator's or a shutdown's last word explains the end.
                (Err(Error::Closed { .. } | Error::Io(_)), Some(failure)) => return Err(failure),
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

    /// Sends a command, once a command that was abandoned before is over.
    async fn send(&mut self, command: &Command) -> Result<()> {
        let text = command.text(self.version)?;
        while !self.connection.session().is_idle() {
            match self.connection.next_event().await? {
                Event::CopyIn | Event::CopyBoth => self.connection.copy_done()?,
                _ => {}
            }
        }
        tracing::debug!(command = text, "sending");
        self.connection.query(&text)?;
        Ok(())
    }
}

/// The first row's bytes of a column that must be there.
fn required_bytes(rows: &ResultSet, column: &'static str) -> Result<Bytes, Error> {
    let value = rows.bytes(column)?.cloned();
    Ok(value.ok_or(Violation::Column { command: rows.command, column })?)
}

#[cfg(test)]
mod tests;
