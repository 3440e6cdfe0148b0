//! The index of an archive, compared with the archive while that is read.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::catalog::archive_index::{FORMAT, IndexLine, IndexedMember};
use crate::storage::compression::Frame;
use crate::storage::tar::Member;

/// Longer than any line that is written.
const MAX_LINE: u64 = 64 << 10;

/// The members that an index tells, and whether its frames lie one behind the other.
pub(super) struct IndexReader {
    path: PathBuf,
    lines: BufReader<File>,
    line: u64,
    /// Where the next frame has to begin: plain and stored.
    frames: (u64, u64),
}

impl IndexReader {
    /// Opens an index; an error says what is wrong with it.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let lines = BufReader::new(file);
        let mut index = Self { path: path.to_owned(), lines, line: 0, frames: (0, 0) };
        match index.next_line()? {
            Some(IndexLine::Format(FORMAT)) => Ok(index),
            _ => Err("it is of no format that is known".to_owned()),
        }
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The archive has this member next: an error says what the index has.
    pub(super) fn member(&mut self, member: &Member) -> Result<(), String> {
        match self.next_member()? {
            Some(indexed) if indexed == IndexedMember::of(member) => Ok(()),
            Some(other) => Err(format!("line {} has `{}` instead", self.line, other.path)),
            None => Err("it ends too early".to_owned()),
        }
    }

    /// The archive has ended, with so many plain and so many compressed bytes. Those of an
    /// encrypted one are not known.
    pub(super) fn finish(mut self, plain: u64, compressed: Option<u64>) -> Result<(), String> {
        if let Some(more) = self.next_member()? {
            return Err(format!("line {} has `{}`, which is not there", self.line, more.path));
        }
        let (plain_end, stored_end) = self.frames;
        if plain_end != plain || compressed.is_some_and(|size| size != stored_end) {
            return Err(format!("its frames end at byte {plain_end} instead of {plain}"));
        }
        Ok(())
    }

    fn next_member(&mut self) -> Result<Option<IndexedMember>, String> {
        loop {
            match self.next_line()? {
                Some(IndexLine::Member(member)) => return Ok(Some(member)),
                Some(IndexLine::Frame(frame)) => self.frame(&frame)?,
                Some(IndexLine::Format(_)) => return Err(self.strange()),
                None => return Ok(None),
            }
        }
    }

    fn frame(&mut self, frame: &Frame) -> Result<(), String> {
        if (frame.plain_offset, frame.stored_offset) != self.frames {
            return Err(format!("the frame in line {} is not behind the one before", self.line));
        }
        let end = |offset: u64, length: u64| offset.checked_add(length);
        let ends = end(frame.plain_offset, frame.plain_length)
            .zip(end(frame.stored_offset, frame.stored_length));
        self.frames = ends.ok_or_else(|| self.strange())?;
        Ok(())
    }

    fn next_line(&mut self) -> Result<Option<IndexLine>, String> {
        let mut line = Vec::new();
        let read = self.lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        if read.map_err(|error| error.to_string())? == 0 {
            return Ok(None);
        }
        self.line += 1;
        serde_json::from_slice(&line).map(Some).map_err(|_| self.strange())
    }

    fn strange(&self) -> String {
        format!("line {} is none that was written", self.line)
    }
}
