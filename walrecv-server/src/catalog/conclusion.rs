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
    pub(super) fn is_over(&self) -> bool {
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
        let done = BackupRecord { done_at: Some(Timestamp::now()), ..record.clone() };
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
            let done = BackupRecord { done_at: Some(Timestamp::now()), ..record.clone() };
            self.save(&done)?;
            *record = done;
        }
        Ok(())
    }
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
