//! Receives WAL into segment files, as `pg_receivewal` does: from where the directory ends, through
//! a slot, and on to every next timeline. The server forgets nothing before it is durable here.
//! ```sh
//! cargo run -p pgwire-stream-examples --bin receive_wal -- "host=localhost user=postgres" wal slot
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use pgwire_stream::{
    Config, Lsn, PhysicalSlot, ReplicationClient, SegmentName, SegmentSize, SlotName,
    StartReplication, StreamEnd, TimelineId, WalData, WalEvent, WalFileName,
};

struct Archive {
    directory: PathBuf,
    size: SegmentSize,
    /// The segment that is being received, under its name with `.partial`.
    open: Option<(SegmentName, File)>,
}

impl Archive {
    /// Behind the newest segment, or at the start of one that is not complete.
    fn resume_at(&self) -> Result<Option<(TimelineId, Lsn)>, Box<dyn std::error::Error>> {
        let mut newest = None;
        for file in self.directory.read_dir()? {
            let (name, start) = match file?.file_name().to_string_lossy().parse() {
                Ok(WalFileName::Segment(name)) => (name, self.size.end_of(name.number(self.size)?)),
                Ok(WalFileName::Partial(name)) => (name, name.start(self.size)?),
                _ => continue,
            };
            newest = newest.max(Some((name.timeline(), start)));
        }
        Ok(newest)
    }

    /// Writes WAL into its segments; true if one of them is complete.
    fn write(&mut self, timeline: TimelineId, wal: &WalData) -> io::Result<bool> {
        let mut completed = false;
        for piece in self.size.cut(wal.start, &wal.data) {
            let name = SegmentName::new(timeline, piece.segment, self.size);
            let partial = self.directory.join(WalFileName::Partial(name).to_string());
            let file = match self.open.take() {
                Some((open, file)) if open == name => file,
                // What a former run left in it comes again: the same bytes.
                _ => File::options().create(true).write(true).truncate(false).open(&partial)?,
            };
            file.write_all_at(piece.data, piece.offset.into())?;
            if !piece.completes {
                self.open = Some((name, file));
                continue;
            }
            // A file without the suffix is complete, whatever happens to this machine.
            file.sync_all()?;
            std::fs::rename(&partial, self.directory.join(name.to_string()))?;
            completed = true;
        }
        Ok(completed)
    }

    /// Makes the bytes and the names of the files durable.
    fn sync(&self) -> io::Result<()> {
        self.open.iter().try_for_each(|(_, file)| file.sync_all())?;
        File::open(&self.directory)?.sync_all()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let argument = |n| std::env::args().nth(n).ok_or("receive_wal CONNINFO DIRECTORY SLOT");
    let slot: SlotName = argument(3)?.parse()?;
    let mut client = ReplicationClient::connect(&Config::load(&argument(1)?)?).await?;
    let mut reserved = PhysicalSlot::default();
    reserved.reserve_wal = true;
    match client.create_physical_slot(&slot, reserved).await {
        Err(error) if !error.is_slot_present() => return Err(error.into()),
        _created_or_present => {}
    }
    let size = client.wal_segment_size().await?;
    let mut archive = Archive { directory: argument(2)?.into(), size, open: None };
    let system = client.identify_system().await?;
    // Never from the server's position if there is an archive: that would leave a gap.
    let position = archive.resume_at()?.unwrap_or((system.timeline, system.flushed_to));
    let (mut timeline, mut from) = position;
    loop {
        // Without its history no restore finds the way to a timeline.
        if timeline > TimelineId::FIRST {
            let path = archive.directory.join(timeline.history_file_name());
            std::fs::write(&path, client.timeline_history(timeline).await?.content)?;
            File::open(&path)?.sync_all()?;
        }
        let mut options = StartReplication::new(size.start_of(size.segment_of(from)));
        (options.timeline, options.slot) = (Some(timeline), Some(slot.clone()));
        let mut stream = client.start_replication(options).await?;
        loop {
            // `next` may be interrupted after some silence: it is cancel-safe.
            match tokio::time::timeout(Duration::from_millis(100), stream.next()).await {
                Ok(Ok(Some(WalEvent::Data(wal)))) if !archive.write(timeline, &wal)? => {}
                Ok(Ok(None)) => break,
                Ok(Err(error)) => return Err(error.into()),
                // A segment is complete, nothing comes, or the server asks: durable, then told.
                _ => {
                    archive.sync()?;
                    stream.progress().flushed(stream.positions().received)?;
                }
            }
        }
        archive.sync()?;
        match stream.finish()? {
            (idle, StreamEnd::NextTimeline { timeline: next, start }) => {
                (client, timeline, from, archive.open) = (idle, next, start, None);
            }
            _ => return Ok(()),
        }
    }
}
