//! What time it is, by two clocks: ours, and that of the server as its WAL has told it last.
//!
//! Either may be wrong. So nothing is old unless both say so, and nothing is from the future unless
//! both say so.

use jiff::{SignedDuration, Timestamp};

use super::caught_up::CaughtUp;
use super::document::DocumentError;
use super::identity::Identity;
use super::wal::WalStore;
use super::wal_index::WalIndex;
use crate::storage::ServerDir;
use crate::units::moment;

/// How far our clock may be ahead of what is known of the server's: an idle server may be heard of
/// that seldom.
const AHEAD: SignedDuration = SignedDuration::from_hours(24);

/// What both clocks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    now: Timestamp,
    heard: Option<Timestamp>,
}

impl Clock {
    /// Our clock says `now`; the server's was `heard` last.
    pub fn new(now: Timestamp, heard: Option<Timestamp>) -> Self {
        Self { now, heard }
    }

    /// Looks what the server's clock said last.
    ///
    /// # Errors
    /// If the note of that cannot be read.
    pub fn read(server: &ServerDir, now: Timestamp) -> Result<Self, DocumentError> {
        let noted = CaughtUp::load(server)?.and_then(|noted| moment(noted.at));
        let clock = Self::new(now, noted);
        // The WAL itself is asked only if that changes something.
        Ok(if noted.is_some() && clock.stands_still().is_none() {
            clock
        } else {
            Self::new(now, noted.max(newest_commit(server)))
        })
    }

    /// The same, where another store has heard of the same server's clock, too.
    #[must_use]
    pub fn or_heard(self, other: Self) -> Self {
        Self { heard: self.heard.max(other.heard), ..self }
    }

    /// The time that it is at least: what is old by then is old.
    pub fn at_least(&self) -> Timestamp {
        let heard = self.heard.and_then(|heard| heard.checked_add(AHEAD).ok());
        heard.map_or(self.now, |heard| self.now.min(heard))
    }

    /// The time that it is at most; `None` if only one clock tells.
    pub fn at_most(&self) -> Option<Timestamp> {
        self.heard.map(|heard| self.now.max(heard))
    }

    /// When the server was heard of last, if that is so long ago that no time passes any more.
    pub fn stands_still(&self) -> Option<Timestamp> {
        self.heard.filter(|_| self.at_least() < self.now)
    }
}

/// The newest commit in the archive. What cannot be read tells nothing, and time stands still earlier.
fn newest_commit(server: &ServerDir) -> Option<Timestamp> {
    let identity = Identity::load(server).ok()??;
    let directories = WalStore::new(server, identity.segment_size).directories().ok()?;
    let is_last = |place: usize| {
        let timeline = |place: usize| directories.get(place).map(|name| name.timeline());
        timeline(place) != timeline(place + 1)
    };
    let newest = directories.iter().enumerate().filter(|(place, _)| is_last(*place));
    let last = |directory| WalIndex::of(server, directory).last().ok()?;
    newest
        .filter_map(|(_, directory)| last(*directory)?.0.findings.last_commit)
        .filter_map(moment)
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Access, Home};
    use pgwire_stream::{Lsn, PgTimestamp, TimelineId};

    #[test]
    fn nothing_is_old_or_of_the_future_unless_both_clocks_say_so() {
        let at = |text: &str| format!("2026-03-{text}:00:00Z").parse::<Timestamp>().unwrap();
        let clock = |now, heard: Option<&str>| Clock::new(at(now), heard.map(at));
        let ahead = clock("20T12", Some("10T12"));
        assert_eq!(ahead.at_least(), at("11T12"));
        assert_eq!(ahead.at_most(), Some(at("20T12")));
        assert_eq!(ahead.stands_still(), Some(at("10T12")));
        let behind = clock("01T12", Some("10T12"));
        assert_eq!((behind.at_least(), behind.at_most()), (at("01T12"), Some(at("10T12"))));
        assert_eq!(behind.stands_still(), None);
        let alone = clock("20T12", None);
        assert_eq!((alone.at_least(), alone.at_most()), (at("20T12"), None));
    }

    #[test]
    fn the_servers_clock_is_what_was_noted() {
        let dir = tempfile::tempdir().unwrap();
        let server = Home::new(dir.path(), Access::Private).server(&"main".parse().unwrap());
        server.create().unwrap();
        let now: Timestamp = "2026-03-20T12:00:00Z".parse().unwrap();
        assert_eq!(Clock::read(&server, now).unwrap(), Clock::new(now, None));
        let heard = now - SignedDuration::from_hours(50);
        let at = PgTimestamp::from_unix_micros(heard.as_microsecond());
        CaughtUp { at, lsn: Lsn::ZERO, timeline: TimelineId::FIRST }.save(&server).unwrap();
        assert_eq!(Clock::read(&server, now).unwrap(), Clock::new(now, Some(heard)));
        std::fs::write(server.caught_up(), "{").unwrap();
        assert!(Clock::read(&server, now).is_err());
    }
}
