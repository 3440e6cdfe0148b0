//! Making an index again from the segments in its directory.

use std::fs::File;
use std::io::{self, ErrorKind, Read};

use pgwire_stream::wal::{Start, WalOptions, WalValidator};
use pgwire_stream::{SegmentName, SegmentNumber, SegmentSize, TimelineId};

use super::line::{encode_all, parse_leniently};
use super::{WalIndex, WalIndexError, WalIndexRecord};
use crate::catalog::wal_findings::FindingsCollector;
use crate::storage::{
    ArchivedWal, Codec, Plain, ServerDir, ServerLock, Sha256Sum, StorageError, compression, durable,
};

/// How much is read at a time.
const CHUNK: usize = 256 << 10;

impl WalIndex {
    /// Makes the index again from the files in its directory, which are read and validated for it.
    /// Whatever can be read of the old one is kept for files that are as it says, and for those
    /// that are damaged.
    ///
    /// # Errors
    /// If a file cannot be read, or the index cannot be written. The old one is left as it was
    /// then.
    pub fn rebuild(
        &self,
        segment_size: SegmentSize,
        _archive: &ServerLock,
    ) -> Result<Vec<WalIndexRecord>, WalIndexError> {
        let known = match self.text() {
            Ok(text) => parse_leniently(&text),
            Err(WalIndexError::TooLarge { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut records = Vec::new();
        for fresh in self.read_files(segment_size)? {
            let file = fresh.file();
            let mut of_file = known.iter().rev().filter(|old| old.file == file);
            match fresh {
                Fresh::Read(fresh) => {
                    let same = of_file.find(|old| old.stored_sha256 == fresh.stored_sha256);
                    records.push(same.cloned().unwrap_or(*fresh));
                }
                Fresh::Damaged { error, .. } => {
                    let path = self.directory.join(file.to_string());
                    tracing::error!(path = %path.display(), error = %error, "a segment is damaged");
                    records.extend(of_file.next().cloned());
                }
            }
        }
        let text =
            encode_all(&records).map_err(StorageError::of("encode a record of", &self.path))?;
        durable::write_file(&self.path, &text, self.server.access())?;
        Ok(records)
    }

    /// Reads every file, the whole segments before the cut tails.
    fn read_files(&self, segment_size: SegmentSize) -> Result<Vec<Fresh>, WalIndexError> {
        let mut files: Vec<ArchivedWal> = durable::list_dir(&self.directory)?
            .iter()
            .filter_map(|name| name.to_str()?.parse().ok())
            .collect();
        files.sort_by_key(|file| (file.partial, *file));
        let mut judge = None;
        let mut fresh: Vec<Fresh> = Vec::new();
        // The records whose segments have been seen to their ends, but not beyond.
        let mut open: Vec<usize> = Vec::new();
        for file in files {
            let Ok(number) = file.segment.number(segment_size) else { continue };
            let goes_on = !file.partial && Judge::is_at(judge.as_ref(), number);
            if !goes_on {
                self.close(&mut judge, &mut open, &mut fresh);
            }
            let judging = judge
                .get_or_insert_with(|| Judge::new(segment_size, file.segment.timeline(), number));
            match self.examine(file, judging)? {
                Ok(record) => {
                    open.push(fresh.len());
                    fresh.push(Fresh::Read(Box::new(record)));
                }
                Err(error) => {
                    fresh.push(Fresh::Damaged { file, error });
                    self.close(&mut judge, &mut open, &mut fresh);
                    continue;
                }
            }
            open.retain(|&place| !judging.give(fresh.get_mut(place), false));
        }
        self.close(&mut judge, &mut open, &mut fresh);
        Ok(fresh)
    }

    /// Ends a run of segments that follow each other: what is still open is told from the WAL
    /// behind, if that is in the next directory, and as far as it can be.
    fn close(&self, judge: &mut Option<Judge>, open: &mut Vec<usize>, fresh: &mut [Fresh]) {
        let Some(mut judge) = judge.take() else { return };
        for place in open.drain(..) {
            let fresh = fresh.get_mut(place);
            judge.read_on(&self.server, fresh.as_deref());
            judge.give(fresh, true);
        }
    }

    /// Reads a file of the archive for what its record must say; the inner error is that of a file
    /// that is damaged.
    fn examine(
        &self,
        file: ArchivedWal,
        judge: &mut Judge,
    ) -> Result<Result<WalIndexRecord, io::Error>, StorageError> {
        let path = self.directory.join(file.to_string());
        let stored = File::open(&path)
            .and_then(Sha256Sum::of_reader)
            .map_err(StorageError::of("read", &path))?;
        let mut plain = Plain::default();
        let source = compression::open(&path, file.codec)?;
        let read = read_all(source, |bytes| {
            plain.add(bytes);
            judge.feed(bytes);
            true
        });
        match read {
            Ok(()) => Ok(Ok(WalIndexRecord::new(file, plain, stored))),
            // What the operating system did not say, the codec did.
            Err(error) if error.raw_os_error().is_none() => Ok(Err(error)),
            Err(error) => Err(StorageError::of("read", &path)(error)),
        }
    }
}

/// Opens a segment of any directory, or one that is not archived yet, whatever is there of it.
fn open_segment(server: &ServerDir, segment: SegmentName) -> Option<Box<dyn Read + Send>> {
    let archived = Codec::ALL.into_iter().map(|codec| (server.archived(segment, codec), codec));
    let raw = [server.streaming_segment(segment), server.streaming_partial(segment)];
    let raw = raw.into_iter().map(|path| (path, Codec::None));
    let tails = Codec::ALL
        .into_iter()
        .map(|codec| (server.archived_file(ArchivedWal { segment, partial: true, codec }), codec));
    archived.chain(raw).chain(tails).find_map(|(path, codec)| compression::open(&path, codec).ok())
}

/// Reads until `take` has enough.
fn read_all(mut source: impl Read, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match source.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                if !take(chunk.get(..read).unwrap_or_default()) {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What reading a file gave.
enum Fresh {
    Read(Box<WalIndexRecord>),
    Damaged { file: ArchivedWal, error: io::Error },
}

impl Fresh {
    fn file(&self) -> ArchivedWal {
        match self {
            Self::Read(record) => record.file,
            Self::Damaged { file, .. } => *file,
        }
    }
}

/// Validates segments that follow each other.
struct Judge {
    segment_size: SegmentSize,
    timeline: TimelineId,
    validator: WalValidator,
    findings: FindingsCollector,
}

impl Judge {
    fn new(segment_size: SegmentSize, timeline: TimelineId, first: SegmentNumber) -> Self {
        let start = segment_size.start_of(first);
        let mut options = WalOptions::new(segment_size);
        options.timeline = Some(timeline);
        Self {
            segment_size,
            timeline,
            validator: WalValidator::new(options, Start::Anywhere(start)),
            findings: FindingsCollector::new(segment_size, start),
        }
    }

    /// Whether this segment is the one that comes next.
    fn is_at(judge: Option<&Self>, number: SegmentNumber) -> bool {
        judge.is_some_and(|judge| {
            judge.validator.position().next == judge.segment_size.start_of(number)
        })
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.validator.feed(bytes, |finding| self.findings.add(&finding));
    }

    /// Gives a record what was found in its segment, if that is all there is or it is asked for
    /// `anyway`; whether it was given.
    fn give(&mut self, record: Option<&mut Fresh>, anyway: bool) -> bool {
        let Some(Fresh::Read(record)) = record else { return true };
        let Ok(number) = record.file.segment.number(self.segment_size) else { return true };
        let position = self.validator.position();
        if !anyway && !self.findings.is_settled(number, &position) {
            return false;
        }
        record.findings = self.findings.take(number, &position);
        true
    }

    /// Reads the segments behind the last one until all is known of this one.
    fn read_on(&mut self, server: &ServerDir, record: Option<&Fresh>) {
        let Some(Fresh::Read(record)) = record else { return };
        let Ok(number) = record.file.segment.number(self.segment_size) else { return };
        while !self.findings.is_settled(number, &self.validator.position()) {
            let next = self.validator.position().next;
            let offset = self.segment_size.offset_in_segment(next);
            let name = SegmentName::new(
                self.timeline,
                self.segment_size.segment_of(next),
                self.segment_size,
            );
            let source = if offset == 0 { open_segment(server, name) } else { None };
            let Some(source) = source else { return };
            let read = read_all(source, |bytes| {
                self.feed(bytes);
                !self.findings.is_settled(number, &self.validator.position())
            });
            if read.is_err() {
                return;
            }
        }
    }
}
