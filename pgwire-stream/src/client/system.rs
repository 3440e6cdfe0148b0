//! Who the server is: `IDENTIFY_SYSTEM`, `SHOW`, `TIMELINE_HISTORY`.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{ReplicationClient, required_bytes};
use crate::proto::Command;
use crate::{
    Error, Feature, HistoryFile, Lsn, Result, SegmentSize, SystemId, TimelineId, Violation,
    WalFileName,
};

/// The answer to `IDENTIFY_SYSTEM`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SystemIdentification {
    /// Which cluster it is.
    pub system_id: SystemId,
    /// The timeline that the server is on.
    pub timeline: TimelineId,
    /// How far its WAL is durable; on a standby, how far it was received or replayed.
    pub flushed_to: Lsn,
    /// The connection's database; `None` on a physical replication connection.
    pub database: Option<String>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ReplicationClient<S> {
    /// Asks which cluster this is and where it stands.
    ///
    /// # Errors
    /// What the server reports, or if the connection fails.
    pub async fn identify_system(&mut self) -> Result<SystemIdentification> {
        let rows = self.run(&Command::IdentifySystem).await?;
        let timeline = rows.required("timeline")?;
        self.identified = Some(timeline);
        Ok(SystemIdentification {
            system_id: rows.required("systemid")?,
            timeline,
            flushed_to: rows.required("xlogpos")?,
            database: rows.parsed("dbname")?,
        })
    }

    /// Asks for a setting (servers from 10 on).
    ///
    /// # Errors
    /// What the server reports (42704 for a setting that it does not have, 42501 for one that the
    /// role may not see), or if the connection fails.
    pub async fn show(&mut self, setting: &str) -> Result<String> {
        let rows = self.run(&Command::Show(setting.to_owned())).await?;
        let value = rows.rows.first().and_then(|row| row.text(0)).map(str::to_owned);
        Ok(value.ok_or(Violation::Column { command: "SHOW", column: "the setting" })?)
    }

    /// The size of the server's WAL segments.
    ///
    /// Servers before 10 cannot be asked and have 16 MB unless they were compiled otherwise.
    ///
    /// # Errors
    /// As [`show`](Self::show), or if the answer is not a segment size.
    pub async fn wal_segment_size(&mut self) -> Result<SegmentSize> {
        if !self.version.supports(Feature::ReplicationSql) {
            return Ok(SegmentSize::DEFAULT);
        }
        let setting = self.show("wal_segment_size").await?;
        let error = Violation::Column { command: "SHOW", column: "wal_segment_size" };
        Ok(SegmentSize::from_setting(&setting).map_err(|_| error)?)
    }

    /// Fetches a timeline's history file. Timeline 1 has none.
    ///
    /// # Errors
    /// What the server reports ([`Error::is_wal_removed`] if it has no such file), or if the
    /// connection fails.
    pub async fn timeline_history(&mut self, timeline: TimelineId) -> Result<HistoryFile> {
        let rows = self.run(&Command::TimelineHistory(timeline)).await?;
        let name: WalFileName = rows.required("filename")?;
        if name != WalFileName::History(timeline) {
            let (command, column) = ("TIMELINE_HISTORY", "filename");
            return Err(Error::Violation(Violation::Column { command, column }));
        }
        Ok(HistoryFile { timeline, content: required_bytes(&rows, "content")? })
    }

    /// The timeline that the server was on when it was last asked. Servers up to 14 refuse to
    /// stream before they were asked who they are.
    pub(super) async fn identified_timeline(&mut self) -> Result<TimelineId> {
        match self.identified {
            Some(timeline) => Ok(timeline),
            None => Ok(self.identify_system().await?.timeline),
        }
    }
}
