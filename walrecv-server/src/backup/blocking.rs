//! Disk work away from the threads that serve sockets.

use std::panic;

use tokio::task;

/// Runs work that blocks on a thread of its own; its panic is ours.
///
/// Not cancel-safe: dropped, it leaves the work running to its end.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    finished(task::spawn_blocking(work).await)
}

/// The result of work on such a thread, or of a task that nobody aborts.
pub(super) fn finished<T>(joined: Result<T, task::JoinError>) -> T {
    match joined {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panicked) => panic::resume_unwind(panicked),
            // Nobody aborts what is waited for, and the runtime outlives us.
            Err(error) => panic::resume_unwind(Box::new(error.to_string())),
        },
    }
}
