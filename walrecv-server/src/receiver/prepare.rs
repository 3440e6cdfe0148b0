//! From a connection to the position where the stream begins: who the server is, whose the store
//! is, what is held, and what the slot keeps.

use std::sync::Arc;

use pgwire_stream::wal::WalOptions;
use pgwire_stream::{
    Config, ConfigError, Feature, HistoryFile, Lsn, ReplicationClient, TimelineHistory, TimelineId,
};

use super::archive::Archive;
use super::beside::{self, Reached};
use super::open_segment::renew_inherited;
use super::slot::{self, Slot};
use super::start::{self, Held, Kept, Source, Start, Undecided};
use super::status::LeftOut;
use super::{Receiver, ReceiverError, blocking, held, journal, synchronous_watch};
use crate::catalog::{HistoryStore, Identity};
use crate::hooks::Hooks;
use crate::settings::{CreateSlot, Synchronous};
use crate::storage::compression::Method;
use crate::storage::{Codec, KeyFile, LockKind, Packing, ServerLock, durable};

/// What the server shows, and matches against `synchronous_standby_names`, if nothing is
/// configured.
const APPLICATION_NAME: &str = "walrecv";

/// A server that nothing is stored for. Its store is made when WAL begins to flow: an attempt that
/// is refused leaves no trace.
pub(super) struct Newcomer {
    identity: Identity,
    histories: Vec<HistoryFile>,
}

/// Where the first contact with a server begins, while nothing is stored of it.
#[derive(Clone, Copy)]
pub(super) struct Begun {
    pub(super) timeline: TimelineId,
    pub(super) from: Lsn,
    /// The server has agreed to stream from there: from then on, nothing that follows is to be missed.
    pub(super) agreed: bool,
    /// It begins there once more, wherever the slot is by now.
    pub(super) again: bool,
}

impl Begun {
    fn at(start: &Start, again: bool) -> Self {
        Self { timeline: start.timeline, from: start.from, agreed: again, again }
    }
}

/// What comes of a connection before WAL is asked for.
pub(super) enum Prepared {
    /// WAL is to be streamed from there.
    Stream(Box<(ReplicationClient, Start)>),
    /// There is nothing to receive any more.
    Reached,
    /// Commits wait for us, and the connection is to have a thread of its own.
    Waited,
}

impl Receiver {
    /// Connects and decides where to start.
    pub(super) async fn prepare(&mut self) -> Result<Prepared, ReceiverError> {
        let config = self.config()?;
        let mut client =
            ReplicationClient::connect(&config).await.map_err(ReceiverError::Connect)?;
        // From here on everything is about this one of the hosts.
        let config = beside::only(&config, client.host());
        let system =
            client.identify_system().await.map_err(ReceiverError::server("identify the server"))?;
        self.reached = Some(Reached { config: config.clone(), system_id: system.system_id });
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
        let mut wal = WalOptions::new(size);
        (wal.version, wal.system_id) = (Some(identity.server_version), Some(identity.system_id));
        self.wal = Some(wal);
        let dir = self.dir.clone();
        self.newcomer = match blocking(move || Identity::load(&dir)).await?? {
            Some(_) => {
                self.take_possession(identity).await?;
                None
            }
            None => Some(Newcomer { identity, histories: Vec::new() }),
        };
        self.synchrony.set(self.is_synchronous(&mut client, &config).await);
        if self.should_be_apart() {
            // The server has no use for a goodbye that cannot be sent.
            let _ = client.close().await;
            return Ok(Prepared::Waited);
        }

        let (history, histories) = self.server_history(&mut client, system.timeline).await?;
        let theirs = Some(system.flushed_to);
        self.status.send_modify(|status| status.server_end = status.server_end.max(theirs));
        let source = Source {
            timeline: system.timeline,
            flushed_to: system.flushed_to,
            history,
            segment_size: size,
            standby: client.parameter("in_hot_standby") == Some("on"),
        };
        let dir = self.dir.clone();
        let wal = self.wal.clone().filter(|_| self.settings.wal_validation);
        let held = blocking(move || held::newest(&dir, size, wal.as_ref())).await??;
        let slot = match slot::look(&mut client, &config, &self.settings.slot_name).await? {
            Slot::Unknown if self.slot_missing => Slot::Missing,
            Slot::Keeps(_) if self.slot_lost => Slot::Lost,
            slot => slot,
        };
        self.slot_keeps_nothing = matches!(slot, Slot::KeepsNothing | Slot::Lost);
        if slot == Slot::Lost && self.settings.create_slot == CreateSlot::Manual {
            tracing::warn!(
                slot = %self.settings.slot_name,
                hint = "drop it, and make it anew while the server still has the WAL that follows",
                "the server has given up the replication slot: it no longer keeps WAL for us"
            );
        }
        if let Some((timeline, from)) = self.given_up {
            // A gap is no reason to mix histories.
            start::decide(held.as_ref(), &source, None)?;
            let start =
                self.start_after_gap(&mut client, &config, &source, slot, (timeline, from)).await?;
            self.store_histories(histories).await?;
            // What is held of the last segment is no part of the gap, and what was to be left out
            // when the WAL behind it went as well still is.
            let of_gap = |held: &&Held| held.timeline == timeline;
            let held_to = held.as_ref().filter(of_gap).map(|held| held.end);
            let earlier = self.left_out.filter(|gap| gap.timeline == timeline).map(|gap| gap.from);
            let from = held_to.or(earlier).unwrap_or(from);
            self.left_out = Some(LeftOut { timeline, from, to: start.from });
            self.given_up = None;
            self.begun = held.is_none().then(|| Begun::at(&start, false));
            return Ok(Prepared::Stream(Box::new((client, start))));
        }
        // What could not be recorded is, once what follows it is begun again. Behind what is held, the
        // server refuses once more.
        if held.is_some() || !self.begun.is_some_and(|begun| begun.agreed) {
            self.left_out = None;
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
        // Only now: the history of a server that is refused would lead a restore astray.
        match &mut self.newcomer {
            Some(newcomer) => newcomer.histories = histories,
            None => self.store_histories(histories).await?,
        }
        if held.is_some() {
            (self.begun, self.gone) = (None, None);
            // Otherwise something comes that tells when it is reached.
            if self.options.end_at.is_some_and(|end| end <= start.from) {
                return Ok(Prepared::Reached);
            }
            client = self.keep_slot(client, slot, &start, &source).await?;
            return Ok(Prepared::Stream(Box::new((client, start))));
        }
        let start = self.begin(&mut client, &config, &source, slot).await?;
        Ok(Prepared::Stream(Box::new((client, start))))
    }

    /// Where to begin while nothing is stored: where the server has agreed to before, or at the slot,
    /// which is made if it is missing.
    async fn begin(
        &mut self,
        client: &mut ReplicationClient,
        config: &Config,
        source: &Source,
        slot: Slot,
    ) -> Result<Start, ReceiverError> {
        let begun = self.begun.filter(|begun| begun.agreed);
        if let Some(missing) = self.gone.filter(|_| begun.is_none()) {
            let start = self.start_after_gap(client, config, source, slot, missing).await?;
            self.begun = Some(Begun::at(&start, false));
            return Ok(start);
        }
        let again = match begun.map(|begun| (begun.timeline, begun.from)) {
            Some((timeline, from)) if source.has(timeline, from) => {
                Some(Kept { lsn: from, timeline: Some(timeline), by_us: true })
            }
            Some((timeline, ours)) if source.standby && source.timeline == timeline => {
                let theirs = source.flushed_to;
                return Err(Undecided::StandbyBehind { ours, theirs }.into());
            }
            _ => None,
        };
        let slot = self.first_slot(client, config, slot).await?;
        let start = start::decide(None, source, again.or(slot.kept()))?;
        self.begun = Some(Begun::at(&start, again.is_some()));
        Ok(start)
    }

    pub(super) fn config(&self) -> Result<Config, ReceiverError> {
        Ok(receiving_config(self.settings.streaming_conninfo())?)
    }

    /// What must be durable before any WAL is, and was put off until the server agreed to stream, as
    /// the slot might be lost meanwhile: the store of one that is new, and a gap.
    pub(super) async fn settle(&mut self) -> Result<(), ReceiverError> {
        if let Some(Newcomer { identity, histories }) = self.newcomer.take() {
            self.take_possession(identity).await?;
            self.store_histories(histories).await?;
        }
        if let Some(gap) = self.left_out {
            let LeftOut { timeline, from, to } = gap;
            tracing::warn!(%timeline, %from, %to, "going on without WAL, as the operator said");
            let dir = self.dir.clone();
            blocking(move || journal::record_gap(&dir, timeline, from, to)).await??;
            self.status.send_modify(|status| status.left_out = Some(gap));
            self.left_out = None;
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
            // Segments that were compressed as they came, at the newest end of the archive.
            if let Some(newest) =
                durable::list_dir(&dir.wals())?.into_iter().filter(is_folder).max()
            {
                durable::collect_leftovers(&dir.wals().join(newest))?;
            }
            // Renamed segments whose directory a former run did not come to sync.
            durable::sync_dir(&dir.streaming())?;
            Ok(lock)
        });
        self.lock = lock.await??.or(self.lock.take());
        if self.archive.is_none() {
            let codec = Codec::from(self.settings.compression);
            let method = Method::new(codec, self.settings.compression_level);
            let packing = Packing::new(method, &self.settings.encryption_recipients);
            let keys = self.settings.encryption_identity.as_ref().map(KeyFile::new);
            let (dir, size) = (self.dir.clone(), self.segment_size);
            let archive = blocking(move || Archive::open(dir, size, packing, keys)).await??;
            let hooks = Hooks::new(&self.settings.name, &self.settings.hooks);
            let archive = archive.with_validation(self.settings.wal_validation).with_hooks(hooks);
            let archive = Arc::new(archive);
            self.archiver.start(Arc::clone(&archive), &self.common_runtime());
            self.archive = Some(archive);
        }
        if !self.renewed {
            // With the archiver at work, which makes room where that is short.
            let (dir, size) = (self.dir.clone(), self.segment_size);
            blocking(move || renew_inherited(&dir, size)).await??;
            self.renewed = true;
        }
        Ok(())
    }

    async fn is_synchronous(&self, client: &mut ReplicationClient, config: &Config) -> bool {
        match self.settings.synchronous {
            Synchronous::Always => true,
            Synchronous::Never => false,
            Synchronous::WhenNamed => {
                let name = config.application_name().unwrap_or_default();
                match synchronous_watch::ask(client, name).await {
                    Ok(named) => named,
                    Err(error) => {
                        tracing::debug!(error = %error, "cannot ask whether commits wait for us");
                        false
                    }
                }
            }
        }
    }

    /// Stores the histories of a timeline, before anything of the timeline is stored.
    pub(super) async fn fetch_history(
        &self,
        client: &mut ReplicationClient,
        timeline: TimelineId,
    ) -> Result<(), ReceiverError> {
        let (_, files) = self.server_history(client, timeline).await?;
        self.store_histories(files).await
    }

    /// How the server's timeline came to be, and the files that say so, which are not stored yet.
    ///
    /// Among them are those of the timelines that the server went through, although nothing of them
    /// may ever be received: a recovery looks for the newest timeline by asking for one number
    /// after the other, and ends where the first is missing.
    async fn server_history(
        &self,
        client: &mut ReplicationClient,
        timeline: TimelineId,
    ) -> Result<(TimelineHistory, Vec<HistoryFile>), ReceiverError> {
        const FETCH: &str = "fetch the timeline's history";
        if timeline == TimelineId::FIRST {
            return Ok((TimelineHistory::root(timeline), Vec::new()));
        }
        let store = HistoryStore::new(&self.dir);
        let mut files = Vec::new();
        let history = match client.timeline_history(timeline).await {
            Ok(file) => {
                let history = file.parse().map_err(pgwire_stream::Error::from);
                files.push(file);
                history.map_err(ReceiverError::server("understand the timeline's history"))?
            }
            // The server may have lost it; what we have is as good.
            Err(error) if error.is_wal_removed() => {
                let store = store.clone();
                let stored = blocking(move || store.ancestry(timeline)).await?;
                stored.map_err(|_| ReceiverError::server(FETCH)(error))?
            }
            Err(error) => return Err(ReceiverError::server(FETCH)(error)),
        };
        let stored = blocking(move || store.list()).await??;
        for ancestor in history.switches().iter().map(|switch| switch.timeline) {
            if ancestor == TimelineId::FIRST || stored.contains(&ancestor) {
                continue;
            }
            match client.timeline_history(ancestor).await {
                Ok(file) => files.push(file),
                Err(error) if error.is_wal_removed() => {
                    tracing::warn!(%ancestor, "the server no longer has the history of a timeline");
                }
                Err(error) => return Err(ReceiverError::server(FETCH)(error)),
            }
        }
        Ok((history, files))
    }

    async fn store_histories(&self, files: Vec<HistoryFile>) -> Result<(), ReceiverError> {
        let store = HistoryStore::new(&self.dir);
        Ok(blocking(move || files.iter().try_for_each(|file| store.put(file))).await??)
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
            Slot::KeepsNothing | Slot::Lost if auto && gives_up_for_good(client) => {
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
        let keeps_nothing = matches!(slot, Slot::KeepsNothing | Slot::Lost);
        let given_up = keeps_nothing && auto && gives_up_for_good(&client);
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
        missing: (TimelineId, Lsn),
    ) -> Result<Start, ReceiverError> {
        let slot = self.first_slot(client, config, slot).await?;
        // Where WAL goes soon after it has come, what was the newest a moment ago is gone.
        let system = client.identify_system().await;
        let system = system.map_err(ReceiverError::server("identify the server"))?;
        let mut source = source.clone();
        if system.timeline == source.timeline {
            source.flushed_to = system.flushed_to;
        }
        Ok(start::decide(None, &source, slot.kept().filter(|kept| is_behind(*kept, missing)))?)
    }

    pub(super) fn no_slot(&self) -> ReceiverError {
        ReceiverError::SlotMissing { slot: self.settings.slot_name.clone() }
    }
}

/// How WAL is received from where a connection string leads: with a name of ours, unless it has one.
pub(crate) fn receiving_config(conninfo: &str) -> Result<Config, ConfigError> {
    let mut config = Config::load(conninfo)?;
    if config.application_name.is_none() && config.fallback_application_name.is_none() {
        config.fallback_application_name = Some(APPLICATION_NAME.to_owned());
    }
    Ok(config)
}

/// Whether this is the name of a directory of the archive, beside which there are histories.
fn is_folder(name: &std::ffi::OsString) -> bool {
    name.len() == 16 && name.as_encoded_bytes().iter().all(u8::is_ascii_hexdigit)
}

/// Whether a slot keeps WAL that comes after what the server no longer has. Before 16, a slot may say that it keeps
/// just that: the server took it from us, who said where we would begin.
fn is_behind(kept: Kept, (timeline, missing): (TimelineId, Lsn)) -> bool {
    kept.timeline.is_some_and(|of_slot| of_slot != timeline) || kept.lsn > missing
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_says_to_keep_what_is_gone_keeps_nothing() {
        let (first, second) = (TimelineId::FIRST, TimelineId::new(2).unwrap());
        let missing = (first, Lsn::from_u64(0xa0_0000));
        let kept = |lsn, timeline| Kept { lsn: Lsn::from_u64(lsn), timeline, by_us: false };
        for timeline in [Some(first), None] {
            assert!(!is_behind(kept(0x90_0000, timeline), missing));
            assert!(!is_behind(kept(0xa0_0000, timeline), missing));
            assert!(is_behind(kept(0xb0_0000, timeline), missing));
        }
        // The number is another place there.
        assert!(is_behind(kept(0x90_0000, Some(second)), missing));
    }
}
