//! What the daemon does for a server when its time has come.

mod backup;
mod check;
mod retention;
mod verification;

pub(super) use backup::back_up;
pub(super) use check::check;
pub(super) use retention::enforce;
pub(super) use verification::verify;

use crate::hooks::Notice;

/// How a task ended.
pub(super) enum End {
    /// It had its turn, and all is well.
    Well,
    /// It had its turn, and failed: why, in one line, and what others are to be told.
    Badly(String, Option<Notice>),
    /// It was cut short, and is to come again.
    CutShort,
}
