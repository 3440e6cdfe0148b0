//! A verification of everything that is due.

use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::sync::watch;

use super::End;
use crate::daemon::blocking;
use crate::daemon::board::Ongoing;
use crate::failure::{Failure, in_one_line};
use crate::hooks::{News, Notice};
use crate::settings::ServerSettings;
use crate::storage::{KeyFile, Pace, ServerDir};
use crate::verify::{Everything, VerifyError, verify_everything};

/// Reads all that is stored for a server, and notes what was found.
pub(in crate::daemon) async fn verify(
    settings: &ServerSettings,
    store: &ServerDir,
    ongoing: Arc<Ongoing>,
    stop: &watch::Receiver<bool>,
) -> End {
    let request = Everything {
        server: store.clone(),
        keys: settings.encryption_identity.as_ref().map(KeyFile::new),
        // It has time, and others have work.
        jobs: NonZeroUsize::MIN,
        pace: settings.verify_bandwidth_limit_kb.map(Pace::kilobytes).map(Arc::new),
    };
    let (server, here, stop) = (settings.name.clone(), store.clone(), stop.clone());
    let work = move || {
        let verified = verify_everything(&request, &*ongoing, &stop);
        let noted = match &verified {
            Ok(scrub) => scrub.save(&here),
            Err(_) => Ok(()),
        };
        (verified, noted)
    };
    let (verified, noted) = blocking(work).await;
    if let Err(error) = noted {
        let error = in_one_line(&error);
        tracing::error!(server = %server, error, "a verification cannot be noted");
    }
    match verified {
        Err(VerifyError::Interrupted) => End::CutShort,
        Err(error) => {
            let (line, hint) =
                (in_one_line(&error), error.hint_about(server.as_str()).unwrap_or_default());
            tracing::error!(server = %server, error = line, hint, "verification failed");
            let notice = Notice::of(&server, News::VerificationFailed, &error);
            End::badly(line, Some(notice))
        }
        Ok(scrub) if scrub.problems > 0 => {
            for problem in &scrub.first_problems {
                tracing::error!(server = %server, "{problem}");
            }
            let line = format!("{} problems were found", scrub.problems);
            let first = scrub.first_problems.first().cloned().unwrap_or_default();
            let notice = Notice::new(&server, News::VerificationFailed);
            let notice = notice.with_error(format!("{line}; the first: {first}"));
            End::badly(line, Some(notice))
        }
        Ok(scrub) => {
            let (backups, segments) = (scrub.backups, scrub.segments);
            tracing::info!(server = %server, backups, segments, "all that is stored is as it was");
            End::Well
        }
    }
}
