//! Trying again: a backup that failed for a reason that may pass is taken anew from its beginning.

use std::time::Duration;

use pgwire_stream::Advice;
use tokio::sync::watch;
use tokio::time;

use super::receive::raised;
use super::{BackupError, BackupRequest, take};
use crate::catalog::BackupRecord;
use crate::failure::in_one_line;
use crate::progress::ProgressSink;
use crate::settings::ServerSettings;

/// The longest pause between two attempts.
const LONGEST: Duration = Duration::from_secs(3600);

/// How often a backup is tried again that has failed, and after which pauses, which double.
#[derive(Debug)]
pub struct Retries {
    left: u32,
    pause: Duration,
    longest: Duration,
}

impl Retries {
    /// As the settings say.
    pub fn new(settings: &ServerSettings) -> Self {
        Self {
            left: settings.basebackup_retry_times,
            pause: settings.basebackup_retry_sleep,
            longest: LONGEST.max(settings.basebackup_retry_sleep),
        }
    }

    /// The pause before the next attempt, which is told; `None` if there is none after this failure.
    pub fn after(&mut self, error: &BackupError, progress: &dyn ProgressSink) -> Option<Duration> {
        if self.left == 0 || !may_pass(error) {
            return None;
        }
        self.left -= 1;
        let pause = self.pause;
        self.pause = pause.saturating_mul(2).min(self.longest);
        progress.note(&format!(
            "the backup failed: {}; trying again in {} seconds, {} more times after that",
            in_one_line(error),
            pause.as_secs(),
            self.left
        ));
        Some(pause)
    }
}

/// Takes a backup, and tries again as often as the settings say, with pauses that double. Each
/// attempt is a backup of its own; those that failed are recorded, and take no space.
///
/// # Errors
/// That of the last attempt, or one that would be the same the next time.
pub async fn take_with_retries(
    request: &BackupRequest,
    progress: &dyn ProgressSink,
    interrupted: watch::Receiver<bool>,
) -> Result<BackupRecord, BackupError> {
    let mut retries = Retries::new(&request.settings);
    loop {
        let error = match take(request, progress, interrupted.clone()).await {
            Ok(record) => return Ok(record),
            Err(error) => error,
        };
        let Some(pause) = retries.after(&error, progress) else { return Err(error) };
        let mut interrupted = interrupted.clone();
        tokio::select! {
            () = time::sleep(pause) => {}
            () = raised(&mut interrupted) => return Err(BackupError::Interrupted),
        }
    }
}

/// Whether the next attempt may well succeed, though nobody has changed anything.
fn may_pass(error: &BackupError) -> bool {
    match error {
        BackupError::Server(error) => error.advice() == Advice::Retry,
        // Spoilt on the way.
        BackupError::Archive { .. }
        | BackupError::Unpack { .. }
        | BackupError::CutFile { .. }
        | BackupError::Manifest(_)
        | BackupError::MissingFile { .. }
        | BackupError::ExtraFile { .. }
        | BackupError::FileSize { .. }
        | BackupError::FileChecksum { .. }
        | BackupError::Disorder { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let cut = BackupError::CutFile { archive: String::new(), path: String::new() };
        let closed = pgwire_stream::Error::Closed { during: "a backup" };
        for error in [cut, closed.into(), BackupError::Disorder { what: "nonsense" }] {
            assert!(may_pass(&error), "{error}");
        }
        let refused = pgwire_stream::ServerError::new("ERROR", "42501", "permission denied");
        let refused = pgwire_stream::Error::from(refused).into();
        for error in [BackupError::Interrupted, refused] {
            assert!(!may_pass(&error), "{error}");
        }
    }
}
