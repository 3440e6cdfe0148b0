//! WAL that PostgreSQL could not replay is asked for once more.
//!
//! If it comes the same, it is the source's truth: it stays as it is, and whoever restores across
//! it is told. If it comes right, it was damaged on its way here: then what is stored is no WAL
//! that any server ever had, and is put right, as long as it lies in `streaming/`. What was there
//! is set apart in `errors/`.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use pgwire_stream::wal::{Finding, Start, WalOptions, WalValidator};
use pgwire_stream::{
    Config, Lsn, ReplicationClient, SegmentName, SegmentNumber, StartReplication, TimelineId,
    WalEvent,
};
use tokio::sync::{Semaphore, watch};

use super::archive::Archive;
use super::archiver::ArchiverHandle;
use super::blocking;
use super::status::Status;
use crate::catalog::{SuspectRange, WalStore};
use crate::storage::{ServerDir, StorageError, durable};

/// The size of a WAL page.
const PAGE: u64 = 8192;

/// How many ranges are asked for at a time. More come only where everything is wrong, and are not.
const AT_A_TIME: usize = 20;

/// More than this is not asked for again: something larger than a record is wrong.
const MOST: u64 = 16 << 20;

/// What is needed to ask again for WAL of one timeline.
#[derive(Clone)]
pub(super) struct SecondOpinion {
    pub(super) config: Config,
    pub(super) dir: ServerDir,
    pub(super) timeline: TimelineId,
    pub(super) wal: Option<WalOptions>,
    pub(super) archive: Option<(Arc<Archive>, ArchiverHandle)>,
    pub(super) status: Arc<watch::Sender<Status>>,
    pub(super) places: Arc<Semaphore>,
}

/// Places for those that are asked for.
pub(super) fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(AT_A_TIME))
}

/// What asking again gave.
#[derive(Debug, PartialEq, Eq)]
enum Opinion {
    Same,
    /// It is right now, and what is stored was put right.
    Mended,
    /// It is right now, and what is stored is in the archive already.
    Stored,
    /// It differs, and is not right either.
    Other,
}

#[derive(Debug, thiserror::Error)]
enum OpinionError {
    #[error(transparent)]
    Server(#[from] pgwire_stream::Error),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("it is not held any more")]
    Gone,
    #[error("it is too much to be asked for again")]
    TooMuch,
    #[error("another cluster answers now")]
    OtherCluster,
    #[error(transparent)]
    Other(#[from] Box<dyn std::error::Error + Send + Sync>),
}

impl SecondOpinion {
    /// Asks for a range again, in a task of its own. Its segments are not archived meanwhile.
    pub(super) fn ask(&self, range: SuspectRange) {
        let Some(wal) = self.wal.clone() else { return };
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.status.send_modify(|status| status.suspect += 1);
            return;
        };
        let this = self.clone();
        let segments = this.segments(&wal, &range);
        this.hold(&segments, true, false);
        tokio::spawn(async move {
            let _place = place;
            let SuspectRange { from, to, what } = &range;
            let opinion = this.form(&wal, &range).await;
            this.hold(&segments, false, matches!(opinion, Ok(Opinion::Mended)));
            let outcome = match opinion {
                Ok(Opinion::Mended) => {
                    tracing::warn!(%from, %to, %what, "WAL was damaged on its way; it came right when it was asked for again");
                    return;
                }
                Ok(Opinion::Same) => "the server sends the same again".to_owned(),
                Ok(Opinion::Other) => "the server sends other bytes each time".to_owned(),
                Ok(Opinion::Stored) => {
                    "it was damaged on its way, and is archived already".to_owned()
                }
                Err(error) => format!("it could not be asked for again: {error}"),
            };
            tracing::error!(
                %from, %to, %what, outcome,
                hint = "a restore cannot cross it: take a new base backup, and check the server's disk",
                "PostgreSQL could not replay this WAL; it is kept as it came"
            );
            this.status.send_modify(|status| status.suspect += 1);
        });
    }

    fn segments(&self, wal: &WalOptions, range: &SuspectRange) -> Vec<SegmentName> {
        let size = wal.segment_size;
        // More than that is not asked for, and needs not be held.
        let to = range.to.min(range.from.saturating_add(MOST));
        let (first, last) = (size.segment_of(range.from), size.last_byte_segment_of(to));
        let numbers = (first.as_u64()..=last.as_u64()).map(SegmentNumber::from_u64);
        numbers.map(|number| SegmentName::new(self.timeline, number, size)).collect()
    }

    fn hold(&self, segments: &[SegmentName], held: bool, mended: bool) {
        if let Some((archive, archiver)) = &self.archive {
            for segment in segments {
                archive.notes().hold(*segment, held, mended);
            }
            if !held {
                archiver.wake();
            }
        }
    }

    async fn form(&self, wal: &WalOptions, range: &SuspectRange) -> Result<Opinion, OpinionError> {
        let from = Lsn::from_u64(range.from.as_u64() / PAGE * PAGE);
        if range.to.bytes_since(from) > MOST {
            return Err(OpinionError::TooMuch);
        }
        let again = self.receive(wal, from, range.to).await?;
        let (this, wal, to) = (self.clone(), wal.clone(), range.to);
        let compare = move || {
            let stored = this.stored(&wal, from, to)?;
            if stored == again {
                return Ok(Opinion::Same);
            }
            // From where the page before was in order, if the range begins with a page.
            let mut damaged = false;
            let mut validator = WalValidator::new(wal.clone(), Start::Anywhere(from));
            validator.feed(&again, |finding| damaged |= matches!(finding, Finding::Damage { .. }));
            if damaged {
                return Ok(Opinion::Other);
            }
            this.mend(&wal, from, &stored, &again)
        };
        let compared = blocking(compare).await;
        compared.map_err(Box::<dyn std::error::Error + Send + Sync>::from)?
    }

    /// Receives a range over a connection of its own, without the slot.
    async fn receive(&self, wal: &WalOptions, from: Lsn, to: Lsn) -> Result<Vec<u8>, OpinionError> {
        let mut client = ReplicationClient::connect(&self.config).await?;
        let system_id = client.identify_system().await?.system_id;
        if wal.system_id.is_some_and(|ours| ours != system_id) {
            return Err(OpinionError::OtherCluster);
        }
        let mut options = StartReplication::new(from);
        options.timeline = Some(self.timeline);
        let mut stream = client.start_replication(options).await?;
        let wanted = usize::try_from(to.bytes_since(from)).unwrap_or(usize::MAX);
        let mut received = Vec::new();
        while received.len() < wanted {
            match stream.next().await? {
                Some(WalEvent::Data(data)) => {
                    let left = wanted - received.len();
                    received.extend(data.data.get(..left).unwrap_or(&data.data));
                }
                Some(_) => {}
                None => break,
            }
        }
        Ok(received)
    }

    /// What is stored of a range.
    fn stored(&self, wal: &WalOptions, from: Lsn, to: Lsn) -> Result<Vec<u8>, OpinionError> {
        let size = wal.segment_size;
        let store = WalStore::new(&self.dir, size);
        let mut stored = Vec::new();
        let mut at = from;
        while at < to {
            let number = size.segment_of(at);
            let end = size.end_of(number).min(to);
            let name = SegmentName::new(self.timeline, number, size);
            let reader = store.open(name).map_err(|error| {
                OpinionError::Other(Box::<dyn std::error::Error + Send + Sync>::from(error))
            })?;
            let mut reader = reader.ok_or(OpinionError::Gone)?;
            let mut read = || {
                let skipped = u64::from(size.offset_in_segment(at));
                io::copy(&mut (&mut reader).take(skipped), &mut io::sink())?;
                (&mut reader).take(end.bytes_since(at)).read_to_end(&mut stored)
            };
            read().map_err(StorageError::of("read", &self.dir.streaming()))?;
            at = end;
        }
        Ok(stored)
    }

    /// Puts what is stored right, if it is raw.
    fn mend(
        &self,
        wal: &WalOptions,
        from: Lsn,
        stored: &[u8],
        right: &[u8],
    ) -> Result<Opinion, OpinionError> {
        let size = wal.segment_size;
        let mut raw = Vec::new();
        let mut number = size.segment_of(from);
        for piece in size.cut(from, right) {
            let name = SegmentName::new(self.timeline, number, size);
            number = number.next();
            let open = |path| OpenOptions::new().write(true).open(path);
            let file = open(self.dir.streaming_partial(name))
                .or_else(|_| open(self.dir.streaming_segment(name)));
            let Ok(file) = file else { return Ok(Opinion::Stored) };
            raw.push((file, piece.offset, piece.data));
        }
        let name = format!("{}-{from}.damaged", self.timeline).replace('/', "-");
        let apart = self.dir.errors().join(name);
        durable::write_file(&apart, stored, self.dir.access())?;
        for (file, offset, data) in raw {
            file.write_all_at(data, u64::from(offset))
                .and_then(|()| file.sync_data())
                .map_err(StorageError::of("mend", &self.dir.streaming()))?;
        }
        Ok(Opinion::Mended)
    }
}
