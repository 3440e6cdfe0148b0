//! `state/scrub.json`: when everything that is stored was verified last, and what was found; and beside
//! it how far one has come that was cut short.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::document::{self, DocumentError};
use crate::storage::{BackupId, ServerDir, durable};

const FORMAT: u64 = 1;

/// How old a verification may be that is gone on with. What it has read has aged since.
const FRESH: SignedDuration = SignedDuration::from_hours(2 * 24);

/// A verification of everything that is stored for a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrub {
    /// When it began.
    pub began_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// How many base backups were read.
    pub backups: u64,
    /// How many archived WAL segments were read.
    pub segments: u64,
    /// How many bytes of the store.
    pub bytes: u64,
    /// How many problems were found.
    pub problems: u64,
    /// The first of them, a line each.
    pub first_problems: Vec<String>,
}

impl Scrub {
    /// The last one; `None` if there was none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn load(server: &ServerDir) -> Result<Option<Self>, DocumentError> {
        document::load(&server.scrub(), FORMAT)
    }

    /// Notes it. Durable on return.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, server: &ServerDir) -> Result<(), DocumentError> {
        document::save(&server.scrub(), FORMAT, self, server.access())?;
        Ok(durable::remove_file(&server.begun_scrub())?)
    }
}

/// A verification of everything that is not at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BegunScrub {
    /// What it has found so far.
    pub so_far: Scrub,
    /// The backups that it has read.
    pub backups: BTreeSet<BackupId>,
    /// The last directory of the WAL archive that it has read, in the order of their names.
    pub wal: Option<String>,
    /// Whether it could look into what is encrypted.
    pub with_keys: bool,
}

impl BegunScrub {
    /// One that begins.
    pub fn at(now: Timestamp, with_keys: bool) -> Self {
        let so_far = Scrub {
            began_at: now,
            ended_at: now,
            backups: 0,
            segments: 0,
            bytes: 0,
            problems: 0,
            first_problems: Vec::new(),
        };
        Self { so_far, backups: BTreeSet::new(), wal: None, with_keys }
    }

    /// The one that was cut short, or one that begins now: also where that cannot be read, is too
    /// old, could look less or more closely, or has come to its end after all. What one has found
    /// may be mended, or gone with its backup, so one that has found something begins anew, too.
    pub fn resume(server: &ServerDir, now: Timestamp, with_keys: bool) -> Self {
        let begun: Option<Self> = document::load(&server.begun_scrub(), FORMAT).ok().flatten();
        let last = Scrub::load(server).ok().flatten().map(|last| last.began_at);
        let goes_on = |begun: &Self| {
            let began_at = begun.so_far.began_at;
            let age = now.duration_since(began_at);
            let fresh = !age.is_negative() && age < FRESH;
            let same = begun.with_keys == with_keys && begun.so_far.problems == 0;
            fresh && same && last != Some(began_at)
        };
        begun.filter(goes_on).unwrap_or_else(|| Self::at(now, with_keys))
    }

    /// Notes it. Durable on return.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, server: &ServerDir) -> Result<(), DocumentError> {
        document::save(&server.begun_scrub(), FORMAT, self, server.access())
    }

    /// Nobody goes on with it: the next one begins anew.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn give_up(server: &ServerDir) -> Result<(), DocumentError> {
        Ok(durable::remove_file(&server.begun_scrub())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Access, Home};

    #[test]
    fn one_that_was_cut_short_is_gone_on_with_unless_it_is_old_or_over() {
        let dir = tempfile::tempdir().unwrap();
        let server = Home::new(dir.path(), Access::Private).server(&"main".parse().unwrap());
        server.create().unwrap();
        let began: Timestamp = "2026-03-05T15:11:33Z".parse().unwrap();
        let later = |hours| began + SignedDuration::from_hours(hours);
        let resume = |at| BegunScrub::resume(&server, at, true);
        let new = |at| BegunScrub::at(at, true);
        let mut begun = resume(began);
        assert_eq!(begun, new(began));
        begun.wal = Some("0000000100000000".to_owned());
        begun.save(&server).unwrap();
        assert_eq!(resume(later(40)), begun);
        assert_eq!(resume(later(-1)), new(later(-1)));
        assert_eq!(resume(later(50)), new(later(50)));
        let without = BegunScrub::at(later(1), false);
        assert_eq!(BegunScrub::resume(&server, later(1), false), without);
        BegunScrub { so_far: Scrub { problems: 1, ..begun.so_far.clone() }, ..begun.clone() }
            .save(&server)
            .unwrap();
        assert_eq!(resume(later(1)), new(later(1)));
        begun.save(&server).unwrap();
        begun.so_far.save(&server).unwrap();
        assert_eq!(resume(later(1)), new(later(1)));
        // A crash in between leaves both.
        begun.save(&server).unwrap();
        assert_eq!(resume(later(1)), new(later(1)));
    }
}
