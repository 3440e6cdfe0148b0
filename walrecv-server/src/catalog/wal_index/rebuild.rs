//! Making an index again from the segments in its directory.

use std::error::Error;
use std::fs::File;

use pgwire_stream::SegmentSize;

use super::line::{encode_all, parse_leniently};
use super::{WalIndex, WalIndexError, WalIndexRecord};
use crate::catalog::judge::{Judge, read_all};
use crate::storage::{
    ArchivedWal, DecryptionError, KeyFile, Plain, ServerLock, Sha256Sum, StorageError, Stored,
    durable, encryption,
};

impl WalIndex {
    /// Makes the index again from the files in its directory, which are read and validated for it.
    /// Whatever can be read of the old one is kept for files that are as it says, and for those
    /// that are damaged. A file that is encrypted, and that no key opens, is left out if the old
    /// one does not know it.
    ///
    /// # Errors
    /// If a file cannot be read, or the index cannot be written. The old one is left as it was
    /// then.
    pub fn rebuild(
        &self,
        segment_size: SegmentSize,
        keys: Option<&KeyFile>,
        _archive: &ServerLock,
    ) -> Result<Vec<WalIndexRecord>, WalIndexError> {
        let known = match self.text() {
            Ok(text) => parse_leniently(&text),
            Err(WalIndexError::TooLarge { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut records = Vec::new();
        for fresh in self.read_files(segment_size, keys)? {
            let file = fresh.file();
            let mut of_file = known.iter().rev().filter(|old| old.file == file);
            match fresh {
                Fresh::Read(fresh) => {
                    let same = of_file.find(|old| old.describes(&fresh));
                    records.push(same.cloned().unwrap_or(*fresh));
                }
                Fresh::Sealed { stored, .. } => {
                    let same = of_file.find(|old| old.stored_sha256 == Some(stored.sha256));
                    if same.is_none() {
                        tracing::warn!(%file, "its WAL cannot be summed up without its key");
                    }
                    records.extend(same.cloned());
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
    fn read_files(
        &self,
        segment_size: SegmentSize,
        keys: Option<&KeyFile>,
    ) -> Result<Vec<Fresh>, WalIndexError> {
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
                self.close(&mut judge, keys, &mut open, &mut fresh);
            }
            let judging = judge
                .get_or_insert_with(|| Judge::new(segment_size, file.segment.timeline(), number));
            let examined = self.examine(file, keys, judging)?;
            if !matches!(examined, Fresh::Read(_)) {
                fresh.push(examined);
                self.close(&mut judge, keys, &mut open, &mut fresh);
                continue;
            }
            open.push(fresh.len());
            fresh.push(examined);
            open.retain(|&place| !give(judging, fresh.get_mut(place), false));
        }
        self.close(&mut judge, keys, &mut open, &mut fresh);
        Ok(fresh)
    }

    /// Ends a run of segments that follow each other: what is still open is told from the WAL
    /// behind, if that is in the next directory, and as far as it can be.
    fn close(
        &self,
        judge: &mut Option<Judge>,
        keys: Option<&KeyFile>,
        open: &mut Vec<usize>,
        fresh: &mut [Fresh],
    ) {
        let Some(mut judge) = judge.take() else { return };
        for place in open.drain(..) {
            let fresh = fresh.get_mut(place);
            if let Some(Fresh::Read(record)) = fresh.as_deref() {
                judge.read_on(&self.server, keys, record.file.segment);
            }
            give(&mut judge, fresh, true);
        }
    }

    /// Reads a file of the archive for what its record must say.
    fn examine(
        &self,
        file: ArchivedWal,
        keys: Option<&KeyFile>,
        judge: &mut Judge,
    ) -> Result<Fresh, StorageError> {
        let path = self.directory.join(file.to_string());
        let stored = File::open(&path)
            .and_then(Sha256Sum::of_reader)
            .map_err(StorageError::of("read", &path))?;
        let mut plain = Plain::default();
        let source = match encryption::open(&path, file.form, keys) {
            Ok(source) => source,
            Err(DecryptionError::Storage(error)) => return Err(error),
            Err(error) if error.is_for_want_of_keys() => return Ok(Fresh::Sealed { file, stored }),
            Err(error) => return Ok(Fresh::Damaged { file, error: error.into() }),
        };
        let read = read_all(source, |bytes| {
            plain.add(bytes);
            judge.feed(bytes);
            true
        });
        match read {
            Ok(()) => Ok(Fresh::Read(Box::new(WalIndexRecord::new(file, plain, stored)))),
            // What the operating system did not say, the codec did.
            Err(error) if error.raw_os_error().is_none() => {
                Ok(Fresh::Damaged { file, error: error.into() })
            }
            Err(error) => Err(StorageError::of("read", &path)(error)),
        }
    }
}

/// What reading a file gave.
enum Fresh {
    Read(Box<WalIndexRecord>),
    /// It is encrypted, and no key opens it.
    Sealed {
        file: ArchivedWal,
        stored: Stored,
    },
    Damaged {
        file: ArchivedWal,
        error: Box<dyn Error + Send + Sync>,
    },
}

impl Fresh {
    fn file(&self) -> ArchivedWal {
        match self {
            Self::Read(record) => record.file,
            Self::Sealed { file, .. } | Self::Damaged { file, .. } => *file,
        }
    }
}

/// Gives a record what was found in its segment, if that is all there is or it is asked for
/// `anyway`; whether it was given.
fn give(judge: &mut Judge, record: Option<&mut Fresh>, anyway: bool) -> bool {
    let Some(Fresh::Read(record)) = record else { return true };
    match judge.findings(record.file.segment, anyway) {
        Some(findings) => {
            record.findings = findings;
            true
        }
        None => false,
    }
}
