//! What the daemon does for a server when its time has come.

mod backup;
mod check;
mod retention;
mod verification;

pub(super) use backup::back_up;
pub(super) use check::check;
pub(super) use retention::enforce;
pub(super) use verification::verify;

use crate::hooks::{News, Notice};
use crate::settings::ServerName;

/// How a task ended.
pub(super) enum End {
    /// It had its turn, and all is well.
    Well,
    /// It failed.
    Badly {
        /// Why, in one line.
        error: String,
        /// What others are to be told.
        notice: Option<Notice>,
        /// Whether it may well succeed a little later, though nobody has changed anything.
        may_pass: bool,
    },
    /// It was cut short, and is to come again.
    CutShort,
}

impl End {
    fn badly(error: String, notice: Option<Notice>) -> Self {
        Self::Badly { error, notice, may_pass: false }
    }

    /// That of a task in a task of its own. One that is lost has had its turn: it would be lost again.
    pub(super) async fn of(
        work: impl Future<Output = Self> + Send + 'static,
        server: &ServerName,
        news: News,
    ) -> Self {
        match tokio::spawn(work).await {
            Ok(end) => end,
            Err(error) if error.is_cancelled() => Self::CutShort,
            Err(error) => {
                let error = format!("it was lost, which is a fault of walrecv-server: {error}");
                tracing::error!(server = %server, error, "a scheduled task was lost");
                Self::badly(error.clone(), Some(Notice::new(server, news).with_error(error)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_is_lost_has_had_its_turn() {
        let server = "main".parse().unwrap();
        let lost = End::of(async { panic!("no luck") }, &server, News::BackupFailed).await;
        let End::Badly { error, notice: Some(_), may_pass: false } = lost else { panic!() };
        assert!(error.contains("no luck"), "{error}");
        assert!(matches!(
            End::of(async { End::Well }, &server, News::BackupFailed).await,
            End::Well
        ));
    }
}
