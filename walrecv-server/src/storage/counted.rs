//! What the calling thread has asked the file system for, so that tests can say what a question
//! costs without measuring time.

use std::cell::Cell;

/// How often something was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Directories that were read.
    pub(crate) directories: u64,
    /// Names that were found in them.
    pub(crate) names: u64,
    /// Files whose size was asked for.
    pub(crate) sizes: u64,
    /// Bytes of indexes that were read.
    pub(crate) index_bytes: u64,
}

thread_local! {
    static COUNTS: Cell<Counts> = Cell::default();
}

pub(crate) fn count(change: impl FnOnce(&mut Counts)) {
    let mut counts = COUNTS.get();
    change(&mut counts);
    COUNTS.set(counts);
}

/// What `work` asks for, and what it returns.
pub(crate) fn counted<T>(work: impl FnOnce() -> T) -> (T, Counts) {
    COUNTS.take();
    let result = work();
    (result, COUNTS.take())
}
