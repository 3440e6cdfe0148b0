//! The same slot on the other hosts of the conninfo, so that whichever becomes the primary still
//! has the WAL that comes next here.
//!
//! Each host is visited every few seconds: its slot is made if it is missing and may be made, and
//! moved up to what is durable here. Never beyond that, or the host would forget what is missing
//! here; nor beyond what the host itself has, which it could not keep. A host of another cluster,
//! or on another timeline than ours, is left alone: its positions mean something else.
//!
//! Nothing that goes wrong there disturbs the stream; it is told in the status.

use std::sync::Arc;
use std::time::Duration;

use pgwire_stream::{
    Config, Error, Feature, Lsn, ReplicationClient, SegmentSize, ServerVersion, SlotName,
    StartReplication, SystemId, TimelineId,
};
use tokio::sync::watch;

use super::slot::{self, Slot};
use super::status::Status;
use super::{ReceiverError, in_one_line};

/// How often a host is visited.
const EVERY: Duration = Duration::from_secs(10);

/// How long a visit may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// One of the other hosts, and what is kept there.
pub(super) struct OtherHost {
    /// As it is called in the conninfo.
    pub(super) host: String,
    /// Leads there and nowhere else; names a database.
    pub(super) config: Config,
    pub(super) slot: SlotName,
    /// Whether a slot may be made.
    pub(super) create: bool,
    /// The cluster whose WAL is received.
    pub(super) system_id: SystemId,
    pub(super) segment_size: SegmentSize,
    pub(super) status: Arc<watch::Sender<Status>>,
    /// Whether the slot is there although it cannot be looked at.
    pub(super) sure: bool,
}

/// Why a slot is not as it should be.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Connect(Error),
    #[error("cannot {action}")]
    Server { action: &'static str, source: Error },
    #[error(transparent)]
    Slot(ReceiverError),
    #[error("it is another cluster: its system identifier is {0}")]
    OtherCluster(SystemId),
    #[error("it is on timeline {theirs}, and timeline {ours} is being received")]
    OtherTimeline { theirs: TimelineId, ours: TimelineId },
    #[error("it has no slot `{0}`")]
    Missing(SlotName),
    #[error("it has given up the slot `{0}`")]
    Lost(SlotName),
    #[error("it does not answer within {} s", PATIENCE.as_secs())]
    Silent,
}

/// What was found on a visit.
struct Found {
    timeline: TimelineId,
    end: Lsn,
    position: Option<Lsn>,
    /// How far WAL was durable here.
    durable: Lsn,
}

impl Found {
    /// What is wrong with a slot that was made when its host had forgotten what is missing here,
    /// or might have. It passes when we have caught up.
    fn too_late(&self, size: SegmentSize) -> Option<String> {
        let (position, durable) = (self.position?, self.durable);
        // WAL is kept in whole segments.
        (size.segment_of(position) > size.segment_of(durable)).then(|| {
            format!(
                "its slot keeps WAL from {position} on, and WAL is durable up to {durable} only"
            )
        })
    }
}

impl OtherHost {
    /// Visits the host for ever.
    pub(super) async fn tend(mut self) {
        loop {
            let visit = tokio::time::timeout(PATIENCE, self.visit());
            let found = visit.await.unwrap_or(Err(Trouble::Silent));
            self.tell(found);
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Brings the slot to where it should be.
    async fn visit(&mut self) -> Result<Found, Trouble> {
        let mut client =
            ReplicationClient::connect(&self.config).await.map_err(Trouble::Connect)?;
        let system = client.identify_system().await.map_err(failed("identify it"))?;
        if system.system_id != self.system_id {
            return Err(Trouble::OtherCluster(system.system_id));
        }
        // Both at one moment: a position says nothing without its timeline.
        let (ours, durable) = {
            let status = self.status.borrow();
            (status.timeline, status.flushed)
        };
        let (theirs, end) = (system.timeline, system.flushed_to);
        let (Some(ours), Some(durable)) = (ours, durable) else {
            return Ok(Found { timeline: theirs, end, position: None, durable: Lsn::ZERO });
        };
        if theirs != ours {
            return Err(Trouble::OtherTimeline { theirs, ours });
        }
        let slot = self.find_or_create(&mut client).await?;
        let target = durable.min(end);
        let position = slot.kept().map(|kept| kept.lsn);
        let position = if position.is_some_and(|position| position >= target) {
            let _ = client.close().await;
            position
        } else {
            self.advance(client, target).await?.or(position)
        };
        Ok(Found { timeline: theirs, end, position, durable })
    }

    async fn find_or_create(&mut self, client: &mut ReplicationClient) -> Result<Slot, Trouble> {
        let name = &self.slot;
        let slot = slot::look(client, &self.config, name).await.map_err(Trouble::Slot)?;
        match slot {
            Slot::Missing if self.create => {
                slot::create(client, name).await.map_err(Trouble::Slot)?;
            }
            // One that is there stays as it is.
            Slot::Unknown if self.create && !self.sure => {
                slot::create(client, name).await.map_err(Trouble::Slot)?;
                self.sure = true;
            }
            Slot::Lost if self.create => {
                slot::recreate(client, name).await.map_err(Trouble::Slot)?;
            }
            Slot::Missing => return Err(Trouble::Missing(name.clone())),
            Slot::Lost => return Err(Trouble::Lost(name.clone())),
            Slot::Keeps(_) | Slot::KeepsNothing | Slot::Unknown => return Ok(slot),
        }
        slot::look(client, &self.config, name).await.map_err(Trouble::Slot)
    }

    /// Moves the slot forward: by SQL where that is possible, or else as if WAL was received with
    /// it. Where it is then; `None` if somebody uses it, and moves it.
    async fn advance(
        &self,
        client: ReplicationClient,
        target: Lsn,
    ) -> Result<Option<Lsn>, Trouble> {
        if advances_by_sql(client.server_version()) {
            match self.advance_by_sql(target).await {
                Ok(position) => return Ok(Some(position)),
                Err(error) if error.is_slot_in_use() => return Ok(None),
                // Connections to a database may not be allowed, or a slot that was never used is
                // moved by a receiver only.
                Err(error) => {
                    tracing::debug!(host = self.host, error = %error, "no SQL to move a slot");
                }
            }
        }
        match self.advance_by_streaming(client, target).await {
            Ok(()) => Ok(Some(target)),
            Err(error) if error.is_slot_in_use() => Ok(None),
            Err(source) => Err(Trouble::Server { action: "move its slot", source }),
        }
    }

    async fn advance_by_sql(&self, target: Lsn) -> Result<Lsn, Error> {
        let mut client = ReplicationClient::connect_database(&self.config).await?;
        // A slot's name has no quotes in it.
        let sql = format!(
            "SELECT end_lsn FROM pg_catalog.pg_replication_slot_advance('{}', '{target}')",
            self.slot
        );
        let rows = client.query(&sql).await?;
        let position = rows.required("end_lsn")?;
        client.close().await?;
        Ok(position)
    }

    /// The server believes every position that it is told, and the first report tells it.
    async fn advance_by_streaming(
        &self,
        client: ReplicationClient,
        target: Lsn,
    ) -> Result<(), Error> {
        let mut options = StartReplication::new(target);
        options.slot = Some(self.slot.clone());
        options.already_flushed = target;
        let mut stream = client.start_replication(options).await?;
        stream.stop()?;
        while stream.next().await?.is_some() {}
        stream.finish()?.0.close().await
    }

    fn tell(&self, found: Result<Found, Trouble>) {
        let known = |status: &Status| {
            let mut hosts = status.other_hosts.iter();
            hosts.find(|slot| slot.host == self.host).and_then(|slot| slot.last_error.clone())
        };
        let last_error = match &found {
            Ok(found) => found.too_late(self.segment_size),
            Err(trouble) => Some(in_one_line(trouble)),
        };
        let before = known(&self.status.borrow());
        match &last_error {
            Some(error) if before.as_ref() != Some(error) => {
                tracing::warn!(host = self.host, error, "the slot of another host is not kept");
            }
            None if before.is_some() => {
                tracing::info!(host = self.host, "the slot of another host is kept again");
            }
            _ => {}
        }
        let reached = !matches!(found, Err(Trouble::Connect(_) | Trouble::Silent));
        self.status.send_modify(|status| {
            let mut hosts = status.other_hosts.iter_mut();
            let Some(slot) = hosts.find(|slot| slot.host == self.host) else { return };
            slot.reached = reached;
            slot.visited_at = Some(std::time::SystemTime::now().into());
            slot.last_error = last_error;
            // What was seen last stays, for those who look while the host is down.
            let Ok(Found { timeline, end, position, durable }) = found else { return };
            slot.timeline = Some(timeline);
            slot.server_end = Some(end);
            if let Some(position) = position {
                slot.position = Some(position);
                slot.behind_us = Some(durable.bytes_since(position));
                slot.behind_server = Some(end.bytes_since(position));
            }
        });
    }
}

fn failed(action: &'static str) -> impl FnOnce(Error) -> Trouble {
    move |source| Trouble::Server { action, source }
}

/// `pg_replication_slot_advance` came with 11.
fn advances_by_sql(version: ServerVersion) -> bool {
    version.major() >= 11 && version.supports(Feature::ReplicationSql)
}

#[cfg(test)]
mod tests {
    use super::super::status::HostSlot;
    use super::*;

    fn other(status: Status) -> OtherHost {
        OtherHost {
            host: "b:5432".to_owned(),
            config: "host=b".parse().unwrap(),
            slot: "walrecv".parse().unwrap(),
            create: true,
            system_id: SystemId::from_u64(7),
            segment_size: SegmentSize::DEFAULT,
            status: Arc::new(watch::Sender::new(status)),
            sure: false,
        }
    }

    fn found(position: u64, durable: u64) -> Found {
        Found {
            timeline: TimelineId::FIRST,
            end: Lsn::from_u64(durable + 50),
            position: Some(Lsn::from_u64(position)),
            durable: Lsn::from_u64(durable),
        }
    }

    #[test]
    fn what_was_seen_last_is_told_while_the_host_is_down() {
        let mut status = Status::new("main".parse().unwrap(), "walrecv".parse().unwrap());
        status.other_hosts = vec![HostSlot::new("a".into()), HostSlot::new("b:5432".into())];
        let other = other(status);
        other.tell(Ok(found(100, 120)));
        other.tell(Err(Trouble::Silent));
        let status = other.status.borrow();
        assert_eq!(status.other_hosts[0], HostSlot::new("a".into()));
        let slot = &status.other_hosts[1];
        assert_eq!((slot.behind_us, slot.behind_server), (Some(20), Some(70)));
        assert_eq!((slot.reached, slot.last_error.is_some()), (false, true));
    }

    #[test]
    fn a_slot_that_was_made_too_late_is_told_until_we_have_caught_up() {
        let segment = u64::from(SegmentSize::DEFAULT.bytes());
        let late = |position, durable| found(position, durable).too_late(SegmentSize::DEFAULT);
        assert!(late(5 * segment, 4 * segment).is_some());
        assert_eq!(late(4 * segment + 100, 4 * segment), None);
        assert_eq!(late(100, 4 * segment), None);
    }

    #[test]
    fn a_slot_is_advanced_by_sql_where_the_function_is() {
        assert!(!advances_by_sql(ServerVersion::from_num(10_00_23)));
        assert!(advances_by_sql(ServerVersion::from_num(11_00_00)));
    }
}
