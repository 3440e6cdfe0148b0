//! A check that is due.

use jiff::Timestamp;

use crate::daemon::board::Board;
use crate::daemon::herald::Herald;
use crate::hooks::{News, Notice};
use crate::receiver::Status;
use crate::settings::ServerSettings;
use crate::storage::ServerDir;
use crate::views::check::{self, CheckOutcome, Row, State};

/// Checks a server, and tells when it begins to fail, or to be well again.
pub(in crate::daemon) async fn check(
    settings: &ServerSettings,
    store: &ServerDir,
    board: &Board,
    herald: &Herald,
) {
    let server = &settings.name;
    let receiver = board.status(server);
    let mut outcome = check::check(settings, store, receiver.as_ref()).await;
    outcome.rows.extend(board.refused().map(refused));
    let was_well = board.check(server).is_none_or(|before| before.outcome.is_ok());
    match (was_well, outcome.is_ok()) {
        (true, false) => {
            let failed = failed(&outcome);
            tracing::error!(server = %server, failed, "the server is not backed up as it should be");
            herald.tell(settings, Notice::new(server, News::CheckFailed).with_error(failed));
        }
        (false, true) => {
            tracing::info!(server = %server, "the server is backed up as it should be");
            herald.tell(settings, Notice::new(server, News::CheckRecovered));
        }
        _ => {}
    }
    let suspect = receiver.as_ref().map_or(0, |status: &Status| status.suspect);
    if suspect > board.suspect(server) {
        let error = format!("{suspect} ranges of WAL could not be replayed by PostgreSQL");
        herald.tell(settings, Notice::new(server, News::SuspectWal).with_error(error));
    }
    board.saw_suspect(server, suspect);
    board.checked(outcome, Timestamp::now());
}

/// That the daemon does not do what its configuration says.
fn refused(error: String) -> Row {
    let remark = format!("refused when it was read again, and the one before holds: {error}");
    Row {
        name: "configuration",
        state: State::Warning,
        remark: Some(remark),
        advisory: true,
        measured: None,
    }
}

/// The rows that failed, in one line.
fn failed(outcome: &CheckOutcome) -> String {
    let rows = outcome.rows.iter().filter(|row| row.state == State::Failed);
    let told = rows.map(|row| match &row.remark {
        Some(remark) => format!("{}: {remark}", row.name),
        None => row.name.to_owned(),
    });
    told.collect::<Vec<_>>().join("; ")
}
