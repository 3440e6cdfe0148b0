//! Which transaction a record ends that was prepared.

use super::magic::WalFormat;
use super::record::{RecordHeader, ResourceManager};

/// The lists that may come before the transaction: the flag that one is there, and the size of an
/// item. Subtransactions, relations, statistics of dropped objects, invalidations.
const LISTS: [(u32, u64); 4] = [(1 << 1, 4), (1 << 2, 12), (DROPPED_STATS, 12), (1 << 3, 16)];
/// The database and the tablespace come before them.
const DATABASE: u32 = 1 << 0;
const DROPPED_STATS: u32 = 1 << 8;
/// The transaction is named.
const TWO_PHASE: u32 = 1 << 4;
/// From this version on the identity of statistics is longer.
const LONG_STATS: u32 = 18;

/// Looks for the transaction in the end of a prepared one, as that comes: there may be lists of any
/// length before it, so that it is not in what is kept of a record.
///
/// Follows `ParseCommitRecord` and `ParseAbortRecord` in `src/backend/access/rmgrdesc/xactdesc.c`.
#[derive(Clone, Copy, Debug)]
pub(super) struct PreparedEnd {
    major: u32,
    /// What comes behind that which is passed over.
    next: Next,
    /// How much is passed over before it.
    skip: u64,
    /// What has come of it.
    word: [u8; 4],
    have: usize,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    /// The number of a header.
    Header,
    /// What there is in the record.
    Flags,
    /// How many items there are of the list with this number.
    Count { flags: u32, list: usize },
    /// The transaction.
    Xid,
    /// Nothing that matters.
    Nothing { xid: Option<u32> },
}

impl PreparedEnd {
    /// Nothing is looked for.
    pub(super) const NOTHING: Self =
        Self { major: 0, next: Next::Nothing { xid: None }, skip: 0, word: [0; 4], have: 0 };

    /// In what follows this header.
    pub(super) fn new(header: &RecordHeader, format: Option<WalFormat>) -> Self {
        // `XLOG_XACT_HAS_INFO`, and `XLOG_XACT_COMMIT_PREPARED` or `XLOG_XACT_ABORT_PREPARED`.
        let is_one = header.resource_manager == ResourceManager::TRANSACTION
            && matches!(header.info & 0xF0, 0xB0 | 0xC0);
        match format {
            Some(format) if is_one => {
                Self { major: format.major, next: Next::Header, ..Self::NOTHING }
            }
            _ => Self::NOTHING,
        }
    }

    /// Takes a piece of the record.
    pub(super) fn feed(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let wanted = match self.next {
                Next::Nothing { .. } => return,
                Next::Header => 1,
                _ => self.word.len(),
            };
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(piece.len());
            self.skip -= skipped as u64;
            piece = piece.get(skipped..).unwrap_or_default();
            let Some((&byte, rest)) = piece.split_first() else { return };
            piece = rest;
            if let Some(place) = self.word.get_mut(self.have) {
                *place = byte;
            }
            self.have += 1;
            if self.have == wanted {
                self.have = 0;
                self.take(u32::from_le_bytes(self.word));
                self.word = [0; 4];
            }
        }
    }

    /// The transaction, if it was found.
    pub(super) fn xid(&self) -> Option<u32> {
        match self.next {
            Next::Nothing { xid } => xid,
            _ => None,
        }
    }

    fn take(&mut self, word: u32) {
        match self.next {
            // The headers of the main data are as `main_data` has them; time comes first there.
            Next::Header => match word {
                0xFF => (self.skip, self.next) = (1 + 8, Next::Flags),
                0xFE => (self.skip, self.next) = (4 + 8, Next::Flags),
                0xFD => self.skip = 2,
                0xFC => self.skip = 4,
                _ => self.next = Next::Nothing { xid: None },
            },
            Next::Flags => {
                self.skip = if word & DATABASE == 0 { 0 } else { 8 };
                self.go_on(word, 0);
            }
            Next::Count { flags, list } => {
                let item = match LISTS.get(list) {
                    Some((DROPPED_STATS, _)) if self.major >= LONG_STATS => 16,
                    Some((_, item)) => *item,
                    None => 0,
                };
                self.skip = u64::from(word) * item;
                self.go_on(flags, list + 1);
            }
            Next::Xid => self.next = Next::Nothing { xid: Some(word) },
            Next::Nothing { .. } => {}
        }
    }

    /// The next list that is there, from the one with this number on.
    fn go_on(&mut self, flags: u32, from: usize) {
        let rest = LISTS.iter().enumerate().skip(from);
        let list = rest.filter(|(_, (flag, _))| flags & flag != 0).map(|(list, _)| list).next();
        self.next = match list {
            Some(list) => Next::Count { flags, list },
            None if flags & TWO_PHASE != 0 => Next::Xid,
            None => Next::Nothing { xid: None },
        };
    }
}
