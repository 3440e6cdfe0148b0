//! Whether a recovery gets somewhere, found out by going there.

use jiff::Timestamp;

use crate::left::Left;
use crate::world::{Point, SEGMENT, Taken, World};

/// WAL on the way to a place, of one timeline.
struct Leg {
    timeline: u32,
    from: u64,
    to: u64,
}

impl World {
    /// The way to a place from the beginning of all WAL, oldest timeline first.
    fn way(&self, timeline: u32, lsn: u64) -> Vec<Leg> {
        let mut legs = Vec::new();
        let (mut at, mut to) = (timeline, lsn);
        loop {
            let parent = self.parents.get(&at).copied();
            let from = parent.map_or(0, |(_, fork)| fork);
            legs.push(Leg { timeline: at, from: from.min(to), to });
            let Some((parent, fork)) = parent else { break };
            (at, to) = (parent, to.min(fork));
        }
        legs.reverse();
        legs
    }

    /// Whether a byte range of one leg is there: in the file of its own timeline, or in the first
    /// file of one that follows on the way, which begins with a copy.
    fn is_there(&self, left: &Left, way: &[Leg], leg: &Leg, from: u64, to: u64) -> bool {
        let (mut at, mut all) = (from, true);
        while at < to {
            let number = at / SEGMENT;
            let end = to.min((number + 1) * SEGMENT);
            let needed = end - number * SEGMENT;
            all &= way.iter().filter(|other| other.timeline >= leg.timeline).any(|other| {
                let begins = self.parents.get(&other.timeline).map_or(0, |(_, fork)| *fork);
                (other.timeline == leg.timeline || begins / SEGMENT == number)
                    && left.wal.get(&(other.timeline, number)).is_some_and(|held| *held >= needed)
            });
            at = end;
        }
        all
    }

    /// Whether a backup can be recovered to a place.
    pub(crate) fn reaches(&self, left: &Left, taken: &Taken, timeline: u32, lsn: u64) -> bool {
        let chain_is_there = self.chain(taken.id).iter().all(|id| {
            left.backups.contains(id)
                && self.backups.iter().any(|other| other.id == *id && other.copied)
        });
        let way = self.way(timeline, lsn);
        let on_the_way = |(timeline, lsn): (u32, u64)| {
            way.iter().any(|leg| leg.timeline == timeline && lsn <= leg.to)
        };
        chain_is_there
            && on_the_way(taken.begin)
            && on_the_way(taken.end)
            && way.iter().all(|leg| {
                let from = leg.from.max(taken.begin.1);
                leg.timeline < taken.begin.0 || self.is_there(left, &way, leg, from, leg.to)
            })
    }

    /// Whether a backup can be restored at all.
    pub(crate) fn is_done(&self, left: &Left, taken: &Taken) -> bool {
        taken.copied && self.reaches(left, taken, taken.end.0, taken.end.1)
    }

    pub(crate) fn done<'a>(&'a self, left: &'a Left) -> impl Iterator<Item = &'a Taken> + 'a {
        self.backups.iter().filter(|taken| self.is_done(left, taken))
    }

    /// Whether any backup that can be restored can be recovered to a place.
    pub(crate) fn is_reachable(&self, left: &Left, point: &Point) -> bool {
        self.done(left).any(|taken| self.reaches(left, taken, point.timeline, point.lsn))
    }

    /// The places that were written since a moment: behind the last at which our clock said less.
    pub(crate) fn points_since(&self, since: Timestamp) -> &[Point] {
        let before = self.points.iter().rposition(|point| point.stamp < since);
        &self.points[before.map_or(0, |before| before + 1)..]
    }
}
