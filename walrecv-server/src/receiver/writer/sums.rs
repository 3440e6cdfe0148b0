//! Checksums of segments as they come, for an archive that keeps them so: nothing has to be read
//! again for its record.

use pgwire_stream::{Lsn, SegmentNumber, SegmentSize};

use crate::storage::Plain;

/// The checksum of the segment that comes, if its first byte has.
#[derive(Debug)]
pub(super) struct Sums {
    size: SegmentSize,
    begun: Option<(SegmentNumber, Plain)>,
}

impl Sums {
    pub(super) fn new(size: SegmentSize) -> Self {
        Self { size, begun: None }
    }

    /// Takes what follows, and tells the sum of each segment that is complete by it.
    pub(super) fn feed(
        &mut self,
        mut at: Lsn,
        bytes: &[u8],
        mut tell: impl FnMut(SegmentNumber, Plain),
    ) {
        for piece in self.size.cut(at, bytes) {
            let number = self.size.segment_of(at);
            if at == self.size.start_of(number) {
                self.begun = Some((number, Plain::default()));
            }
            if let Some((_, sum)) = &mut self.begun {
                sum.add(piece.data);
            }
            if piece.completes
                && let Some((number, sum)) = self.begun.take()
            {
                tell(number, sum);
            }
            at = at.saturating_add(piece.data.len() as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_come_from_its_first_byte_has_a_sum() {
        let size = SegmentSize::new(1 << 20).unwrap();
        let mut sums = Sums::new(size);
        let wal: Vec<u8> = (0..3_500_000_u32).map(|at| (at / 7) as u8).collect();
        let mut told = Vec::new();
        for (index, piece) in wal.chunks(300_000).enumerate() {
            let at = Lsn::from_u64(5 << 20).saturating_add(500_000 + index as u64 * 300_000);
            sums.feed(at, piece, |number, sum| told.push((number.as_u64(), sum)));
        }
        let first = (1 << 20) - 500_000;
        let of = |index: usize| Plain::of(&wal[first + (index << 20)..first + ((index + 1) << 20)]);
        assert_eq!(told, [(6, of(0)), (7, of(1))]);
    }
}
