//! A segment that is compressed as it comes, straight into the archive.
//!
//! Far behind the server, that spares writing every byte raw and reading it again. Nothing of such
//! a segment is acknowledged before it is complete, durable and recorded in the index. If
//! something of it must be durable sooner, what has come is unpacked into a raw file.

use std::sync::Arc;

use bytes::Bytes;
use pgwire_stream::{Lsn, SegmentName};

use super::super::archive::{Archive, Storing};
use super::super::open_segment::{OpenSegment, SegmentError};
use super::patience::{Patience, Patient};
use crate::storage::durable::AtomicFile;

/// A segment on its way into the archive.
pub(crate) struct DirectSegment {
    archive: Arc<Archive>,
    name: SegmentName,
    start: Lsn,
    storing: Storing<Patient<AtomicFile>>,
}

impl DirectSegment {
    /// Begins the archived form of a segment; `None` if that is not how this archive stores, or the
    /// segment is there already.
    pub(super) fn create(
        archive: &Arc<Archive>,
        name: SegmentName,
        start: Lsn,
        patience: Patience,
    ) -> Result<Option<Self>, SegmentError> {
        let begun = archive.begin_direct(name, |file| Patient::new(file, patience))?;
        Ok(begun.map(|storing| Self { archive: Arc::clone(archive), name, start, storing }))
    }

    pub(super) fn name(&self) -> SegmentName {
        self.name
    }

    pub(super) fn start(&self) -> Lsn {
        self.start
    }

    pub(super) fn write(&mut self, pieces: &[Bytes]) -> Result<(), SegmentError> {
        pieces.iter().try_for_each(|piece| self.storing.write(piece)).map_err(SegmentError::Storage)
    }

    /// All of it has come: makes it durable and records it.
    pub(super) fn complete(self) -> Result<(), SegmentError> {
        let stored = self.storing.finish(Patient::into_inner).map_err(SegmentError::Storage)?;
        Ok(self.archive.keep(stored)?)
    }

    /// Unpacks what has come into a raw file, and gives the archived form up.
    pub(super) fn copy_into(self, raw: &mut OpenSegment) -> Result<(), SegmentError> {
        let stored = self.storing.finish(Patient::into_inner).map_err(SegmentError::Storage)?;
        let mut offset = 0;
        stored.read_back(|piece| {
            raw.take(offset, &[Bytes::copy_from_slice(piece)])?;
            offset += piece.len() as u64;
            Ok(())
        })
    }
}
