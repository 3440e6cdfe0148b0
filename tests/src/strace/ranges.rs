//! Sets of byte positions.

/// Ranges that neither touch nor overlap, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds the positions from `begin` to before `end`.
    pub(super) fn add(&mut self, mut begin: u64, mut end: u64) {
        if begin >= end {
            return;
        }
        self.0.retain(|&(from, to)| {
            let touches = from <= end && begin <= to;
            if touches {
                begin = begin.min(from);
                end = end.max(to);
            }
            !touches
        });
        self.0.push((begin, end));
        self.0.sort_unstable();
    }

    /// Takes the positions from `begin` to before `end` away.
    pub(super) fn remove(&mut self, begin: u64, end: u64) {
        let before = std::mem::take(&mut self.0);
        for (from, to) in before {
            self.add(from, to.min(begin));
            self.add(from.max(end), to);
        }
    }

    /// Adds all of another set.
    pub(super) fn add_all(&mut self, other: &Self) {
        for &(from, to) in &other.0 {
            self.add(from, to);
        }
    }

    /// Whether all positions from `begin` to before `end` are in it.
    pub(super) fn cover(&self, begin: u64, end: u64) -> bool {
        begin >= end || self.0.iter().any(|&(from, to)| from <= begin && end <= to)
    }

    /// The position behind the last one.
    pub(super) fn end(&self) -> u64 {
        self.0.last().map_or(0, |&(_, to)| to)
    }
}
