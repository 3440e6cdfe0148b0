//! All the WAL that a recovery needs, copied into the new data directory beforehand.

use std::io::{Read, Write};

use pgwire_stream::{SegmentName, SegmentNumber, WalFileName};
use tokio::sync::watch;

use super::beneath::Root;
use super::error::RestoreError;
use super::extract::ExtractError;
use super::get_wal::{self, Beginnings, GetWalError, Lookup, WalFile};
use super::plan::Plan;
use super::syncer::Syncer;
use crate::catalog::{Absence, HistoryStore};
use crate::progress::ProgressSink;
use crate::storage::StorageError;

const BUFFER: usize = 256 * 1024;

/// Copies segments, decompressed and with the tail padded, and the histories of their timelines.
/// Returns how many files there were.
pub(super) fn copy(
    plan: &Plan,
    directory: &str,
    root: &mut Root,
    syncer: &Syncer,
    progress: &dyn ProgressSink,
    interrupted: &watch::Receiver<bool>,
) -> Result<u64, RestoreError> {
    let size = plan.sources.record.segment_size;
    let first = size.segment_of(plan.wal.needed_from).as_u64();
    let last = size.last_byte_segment_of(plan.wal.needed_to).as_u64();
    let mut files = 0;
    progress.begin(
        "copying WAL",
        Some(plan.wal.needed_to.bytes_since(size.start_of(SegmentNumber::from_u64(first)))),
    );
    for number in (first..=last).map(SegmentNumber::from_u64) {
        let (segment, file) = newest(plan, number)?;
        write(&format!("{directory}/{segment}"), &segment.to_string(), file, root, syncer)?;
        files += 1;
        progress.advance_to(files * u64::from(size.bytes()));
        if *interrupted.borrow() {
            return Err(ExtractError::Interrupted.into());
        }
    }
    let histories = HistoryStore::new(&plan.sources.server);
    for timeline in histories.list()? {
        if !plan.sources.history.contains(timeline) {
            continue;
        }
        let name = WalFileName::History(timeline).to_string();
        if let Lookup::Found(file) = locate(plan, &name)? {
            write(&format!("{directory}/{name}"), &name, file, root, syncer)?;
            files += 1;
        }
    }
    progress.finish();
    Ok(files)
}

/// A segment as the newest timeline has it: its beginning is that of the older ones.
fn newest(plan: &Plan, number: SegmentNumber) -> Result<(SegmentName, WalFile), RestoreError> {
    let size = plan.sources.record.segment_size;
    let mut gap = None;
    let history = &plan.sources.history;
    let timelines = history.timelines_between(size.start_of(number), size.end_of(number));
    for timeline in timelines.into_iter().rev() {
        let segment = SegmentName::new(timeline, number, size);
        match locate(plan, &segment.to_string()) {
            Ok(Lookup::Found(file)) => return Ok((segment, file)),
            Ok(Lookup::EndOfArchive) => {}
            // The older timeline may have all that is needed of it.
            Err(error @ RestoreError::CopyWal { source: GetWalError::Gap { .. }, .. }) => {
                gap = gap.or(Some(error));
            }
            Err(error) => return Err(error),
        }
    }
    let segment = SegmentName::new(plan.timeline, number, size);
    Err(gap.unwrap_or_else(|| RestoreError::CopyWal {
        name: segment.to_string(),
        source: GetWalError::Gap { segment, held: 0, absence: Absence::Missing },
    }))
}

fn locate(plan: &Plan, name: &str) -> Result<Lookup, RestoreError> {
    let (server, keys) = (&plan.sources.server, plan.sources.keys.as_ref());
    get_wal::locate(server, name, Beginnings::BeforeGaps, keys)
        .map_err(|source| RestoreError::CopyWal { name: name.to_owned(), source })
}

fn write(
    path: &str,
    name: &str,
    mut file: WalFile,
    root: &mut Root,
    syncer: &Syncer,
) -> Result<(), RestoreError> {
    let mut copy = root.create(path.as_bytes(), 0o600)?;
    let target = root.resolve(path.as_bytes());
    let failed = |source| RestoreError::CopyWal { name: name.to_owned(), source };
    let mut buffer = vec![0; BUFFER];
    let mut written = 0;
    loop {
        let read =
            file.read(&mut buffer).map_err(|error| failed(get_wal::read_error(name, error)))?;
        let bytes = buffer.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        copy.write_all(bytes).map_err(StorageError::of("write", &target))?;
        written += bytes.len() as u64;
    }
    if written != file.length() {
        return Err(failed(get_wal::wrong_length(name, written, file.length())));
    }
    syncer.sync(copy, target);
    Ok(())
}
