//! One file of one backup of a chain, of which the blocks are written that nobody else has.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use pgwire_stream::incremental::{IncrementalError, IncrementalReader};

use super::assembly::{Assembly, Run};

/// Writes wanted blocks to their places in the whole file, while the backup's file passes by.
pub(super) struct BlockWriter {
    /// The whole file, below the data directory.
    relation: Vec<u8>,
    file: File,
    path: PathBuf,
    content: Content,
    /// How much of the backup's file has passed by.
    position: u64,
    /// How much of it was written.
    written: u64,
    /// What is still to be written, in the order in which it comes.
    runs: std::vec::IntoIter<Run>,
    current: Option<Run>,
}

enum Content {
    Whole,
    /// Not all of the header has come yet.
    Header {
        reader: IncrementalReader,
        newest: bool,
    },
    Blocks(IncrementalReader),
}

/// Why blocks were not written.
pub(super) enum BlockError {
    /// The file is not an incremental one.
    Incremental(IncrementalError),
    /// The whole file cannot be written.
    Write(io::Error),
}

impl BlockWriter {
    /// For a whole file of so many bytes.
    pub(super) fn whole(
        relation: Vec<u8>,
        file: File,
        path: PathBuf,
        size: u64,
        assembly: &mut Assembly,
    ) -> Self {
        let runs = assembly.take_whole(&relation, size);
        Self::new(relation, file, path, Content::Whole, runs)
    }

    /// For an incremental file. That of the newest backup says how long the whole file is.
    pub(super) fn incremental(
        relation: Vec<u8>,
        file: File,
        path: PathBuf,
        newest: bool,
        assembly: &mut Assembly,
    ) -> Self {
        if newest {
            assembly.begin(&relation);
        }
        let reader = IncrementalReader::new(assembly.sizes());
        Self::new(relation, file, path, Content::Header { reader, newest }, Vec::new())
    }

    fn new(relation: Vec<u8>, file: File, path: PathBuf, content: Content, runs: Vec<Run>) -> Self {
        let mut runs = runs.into_iter();
        let current = runs.next();
        Self { relation, file, path, content, position: 0, written: 0, runs, current }
    }

    /// The whole file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// The path of the whole file, for messages.
    pub(super) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Takes what follows in the backup's file; how many bytes of it were written.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        assembly: &mut Assembly,
    ) -> Result<u64, BlockError> {
        self.content = match std::mem::replace(&mut self.content, Content::Whole) {
            Content::Whole => Content::Whole,
            Content::Header { mut reader, newest } => {
                reader.feed(bytes).map_err(BlockError::Incremental)?;
                match reader.map() {
                    Some(map) => {
                        if newest {
                            let block_size = u64::from(map.files().block_size());
                            let size = u64::from(map.whole_length()) * block_size;
                            self.file.set_len(size).map_err(BlockError::Write)?;
                        }
                        self.runs = assembly.take_incremental(&self.relation, map).into_iter();
                        self.current = self.runs.next();
                        Content::Blocks(reader)
                    }
                    None => Content::Header { reader, newest },
                }
            }
            Content::Blocks(mut reader) => {
                reader.feed(bytes).map_err(BlockError::Incremental)?;
                Content::Blocks(reader)
            }
        };
        self.write(bytes).map_err(BlockError::Write)
    }

    /// Writes what is wanted of these bytes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let end = self.position + bytes.len() as u64;
        let mut written = 0;
        while let Some(run) = self.current {
            let (from, to) = (run.from.max(self.position), (run.from + run.length).min(end));
            if from < to {
                let place = |at: u64| usize::try_from(at - self.position).unwrap_or(usize::MAX);
                let wanted = bytes.get(place(from)..place(to)).unwrap_or_default();
                self.file.write_all_at(wanted, run.to + (from - run.from))?;
                written += to - from;
            }
            if run.from + run.length > end {
                break;
            }
            self.current = self.runs.next();
        }
        self.position = end;
        self.written += written;
        Ok(written)
    }

    /// The backup's file is over: the whole file, if it is to be made durable. That cannot wait for
    /// older backups where something was written: by then, the error of a failed write may be
    /// forgotten.
    pub(super) fn finish(self, assembly: &Assembly) -> Result<Option<File>, IncrementalError> {
        match self.content {
            Content::Whole => {}
            Content::Header { reader, .. } | Content::Blocks(reader) => {
                reader.finish()?;
            }
        }
        let due = self.written > 0 || !assembly.wants(&self.relation);
        Ok(due.then_some(self.file))
    }
}
