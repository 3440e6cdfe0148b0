//! How long work tells how far it is, without knowing who listens.

/// Somebody who wants to know how far a long piece of work is.
pub trait ProgressSink: Send + Sync {
    /// A piece of work of `total` bytes begins; `None` if nobody knows how many.
    fn begin(&self, what: &str, total: Option<u64>);

    /// So many bytes of it are done.
    fn advance_to(&self, done: u64);

    /// The piece of work is over, well or not.
    fn finish(&self);

    /// A line worth reading while the work goes on.
    fn note(&self, line: &str);
}

/// Nobody listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl ProgressSink for Silent {
    fn begin(&self, _what: &str, _total: Option<u64>) {}
    fn advance_to(&self, _done: u64) {}
    fn finish(&self) {}
    fn note(&self, _line: &str) {}
}
