//! What the daemon does for a server when its time has come.

mod backup;
mod check;
mod retention;
mod verification;

pub(super) use backup::back_up;
pub(super) use check::check;
pub(super) use retention::enforce;
pub(super) use verification::verify;

/// How a task ended.
pub(super) enum End {
    /// It had its turn, well or not: why not, in one line.
    Settled(Option<String>),
    /// It was cut short, and is to come again.
    CutShort,
}
