//! The end of a backup: it is recorded, has to be there from then on, and is done once its WAL is
//! there, too.

use std::panic;
use std::thread::{self, Builder, JoinHandle};

use jiff::Timestamp;

use super::backup_record::{BackupOutcome, BackupRecord};
use super::backups::{BackupError, Catalog};
use super::status::{self, BackupStatus, Certainty, Standing};
use crate::storage::ServerLock;

/// A look at the WAL of a backup whose files may not be durable yet, on a thread of its own.
///
/// It spares a backup whose WAL is there by then to be recorded twice. No record waits for it.
#[derive(Debug, Default)]
pub struct EarlyLook(Option<JoinHandle<Result<Standing, BackupError>>>);

impl EarlyLook {
    /// Whether it has come to its end.
    fn is_over(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// What it has found; `None` if there was none. Waits for its end.
    fn standing(self) -> Result<Option<Standing>, BackupError> {
        let ended =
            self.0.map(|look| look.join().unwrap_or_else(|lost| panic::resume_unwind(lost)));
        ended.transpose()
    }
}

impl Catalog {
    /// Begins to look whether the WAL of a backup is there, and durable, that was received up to
    /// its end.
    pub fn look_early(&self, record: &BackupRecord) -> EarlyLook {
        let record = BackupRecord { outcome: BackupOutcome::Copied, ..record.clone() };
        let server = self.server().clone();
        let look = move || status::standing(&server, &record, Certainty::Durable);
        // Without a thread to be had, it is looked for later.
        EarlyLook(Builder::new().name("look".to_owned()).spawn(look).ok())
    }

    /// Records a backup that is there now, and settles it. If it cannot be told yet whether its WAL is
    /// there, it is told later: that takes no backup away. Its record is durable on return.
    ///
    /// # Errors
    /// If the record cannot be written.
    pub fn conclude(
        &self,
        record: &mut BackupRecord,
        look: EarlyLook,
        backup: &ServerLock,
    ) -> Result<(), BackupError> {
        if !look.is_over() {
            return self.record_copied(record, || look.standing(), backup);
        }
        match look.standing() {
            Ok(Some(found)) if found.status == BackupStatus::Done => {
                self.record_done(record, backup)
            }
            found => self.record_copied(record, || found, backup),
        }
    }

    /// Records that a backup is there, and done.
    fn record_done(
        &self,
        record: &mut BackupRecord,
        backup: &ServerLock,
    ) -> Result<(), BackupError> {
        let done = done_now(record);
        let (saved, entered) = side_by_side(|| self.save(&done), || self.enter([done.id], backup));
        saved?;
        match entered {
            Ok(()) => *record = done,
            // None is done that would not be missed.
            Err(error) => {
                cannot_settle(record, &error);
                self.save(record)?;
            }
        }
        Ok(())
    }

    /// Records that a backup is there, and that it is done if that is `found`, or now.
    fn record_copied(
        &self,
        record: &mut BackupRecord,
        found: impl FnOnce() -> Result<Option<Standing>, BackupError>,
        backup: &ServerLock,
    ) -> Result<(), BackupError> {
        let (saved, settled) = side_by_side(
            || self.save(record),
            || {
                let entered = self.enter([record.id], backup);
                // A failed sync is told once: WAL is not synced again that an early look has met with.
                let found = found()?;
                entered?;
                match found {
                    Some(found) if found.status == BackupStatus::Done => Ok(found),
                    _ => status::standing(self.server(), record, Certainty::Durable),
                }
            },
        );
        saved?;
        if let Err(error) = settled.and_then(|standing| self.note_done(record, standing)) {
            cannot_settle(record, &error);
        }
        Ok(())
    }

    /// What a backup is worth, and will be after a power cut. When it is found done for the first
    /// time, that is recorded. From then on it has to be there.
    ///
    /// # Errors
    /// If the WAL or the timeline histories cannot be read, something cannot be made durable, or
    /// the record cannot be written.
    pub fn settle(
        &self,
        record: &mut BackupRecord,
        backup: &ServerLock,
    ) -> Result<Standing, BackupError> {
        // Both mostly wait for the disk, and for nothing that the other does.
        let enter = || self.enter([record.id], backup);
        let look = || status::standing(self.server(), record, Certainty::Durable);
        let (entered, standing) = side_by_side(enter, look);
        entered?;
        let standing = standing?;
        self.note_done(record, standing)?;
        Ok(standing)
    }

    /// Records that a backup is done, if it is, and was not before.
    fn note_done(&self, record: &mut BackupRecord, standing: Standing) -> Result<(), BackupError> {
        if standing.status == BackupStatus::Done && record.done_at.is_none() {
            let done = done_now(record);
            self.save(&done)?;
            *record = done;
        }
        Ok(())
    }
}

fn done_now(record: &BackupRecord) -> BackupRecord {
    BackupRecord { done_at: Some(Timestamp::now()), ..record.clone() }
}

fn cannot_settle(record: &BackupRecord, error: &BackupError) {
    tracing::warn!(error = %error, backup = %record.id, "cannot tell yet whether it is done");
}

/// Does one thing on a thread of its own while another is done here.
fn side_by_side<A: Send, B>(beside: impl Fn() -> A + Sync, here: impl FnOnce() -> B) -> (A, B) {
    thread::scope(|scope| {
        let thread = Builder::new().spawn_scoped(scope, &beside);
        let done = here();
        let done_beside = match thread {
            Ok(thread) => thread.join().unwrap_or_else(|lost| panic::resume_unwind(lost)),
            // There is no thread to be had.
            Err(_) => beside(),
        };
        (done_beside, done)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::backups::tests::{MIB, Store, position, segment, store};
    use super::*;
    use crate::storage::durable;

    #[test]
    fn a_backup_that_is_there_is_recorded_with_its_wal_or_without() {
        let store = store();
        let conclude = |time: &str| {
            let mut record = store.begin(time);
            record.outcome = BackupOutcome::Copied;
            (record.begin, record.end) = (position(MIB + 40), position(MIB + 100));
            store.catalog.conclude(&mut record, EarlyLook::default(), &store.lock).unwrap();
            assert_eq!(store.catalog.load(record.id).unwrap(), record);
            record
        };
        let waiting = conclude("2026-03-05T14:00:00Z");
        assert_eq!(waiting.done_at, None);
        store.receive(1, MIB);
        let done = conclude("2026-03-05T15:00:00Z");
        assert!(done.done_at.is_some());
        // Both have to be there from now on.
        for record in [&waiting, &done] {
            let away = store.server.base().join("away");
            let path = store.server.backup(record.id);
            fs::rename(path.path(), &away).unwrap();
            assert_eq!(store.catalog.vanished().unwrap(), [record.id]);
            fs::rename(away, path.path()).unwrap();
        }
        // That this cannot be noted is no reason to lose a backup.
        fs::write(store.server.register(), b"{}").unwrap();
        conclude("2026-03-05T16:00:00Z");
    }

    /// A backup that has come to its end, and what an early look at its WAL has found.
    fn look_early(store: &Store, time: &str) -> (BackupRecord, EarlyLook) {
        let mut record = store.begin(time);
        (record.begin, record.end) = (position(MIB + 40), position(MIB + 100));
        let look = store.catalog.look_early(&record);
        while !look.is_over() {
            thread::yield_now();
        }
        record.outcome = BackupOutcome::Copied;
        (record, look)
    }

    #[test]
    fn what_an_early_look_finds_is_not_looked_for_again() {
        let store = store();
        let there = |is_there: bool| match is_there {
            true => store.receive(1, MIB),
            false => durable::remove_file(&store.server.streaming_segment(segment(1))).unwrap(),
        };
        let is_done = |time: &str, early: bool, late: bool| {
            there(early);
            let (mut record, look) = look_early(&store, time);
            there(late);
            store.catalog.conclude(&mut record, look, &store.lock).unwrap();
            assert_eq!(store.catalog.load(record.id).unwrap(), record);
            record.done_at.is_some()
        };
        assert!(is_done("2026-03-05T14:00:00Z", true, false), "found early");
        assert!(is_done("2026-03-05T15:00:00Z", false, true), "found late");
        assert!(!is_done("2026-03-05T16:00:00Z", false, false), "never found");
    }

    #[test]
    fn an_early_look_that_failed_is_not_repeated() {
        let store = store();
        // WAL that is there and cannot be looked at, for a while.
        let gaps = store.server.state().join("gaps.json");
        fs::create_dir_all(store.server.state()).unwrap();
        fs::write(&gaps, b"{").unwrap();
        let (mut record, look) = look_early(&store, "2026-03-05T14:00:00Z");
        fs::remove_file(gaps).unwrap();
        store.receive(1, MIB);
        store.catalog.conclude(&mut record, look, &store.lock).unwrap();
        assert_eq!(store.catalog.load(record.id).unwrap(), record);
        assert_eq!(record.done_at, None);
        assert_eq!(store.catalog.standing(&record).unwrap().status, BackupStatus::Done);
    }

    #[test]
    fn a_backup_that_cannot_be_entered_is_not_done_yet() {
        let store = store();
        store.receive(1, MIB);
        let (mut record, look) = look_early(&store, "2026-03-05T14:00:00Z");
        fs::write(store.server.register(), b"{}").unwrap();
        store.catalog.conclude(&mut record, look, &store.lock).unwrap();
        assert_eq!(record.done_at, None);
        assert_eq!(store.catalog.load(record.id).unwrap(), record);
    }
}
