//! Looks at a disk that may hang: neither the check nor a thread for each of them waits for ever.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How long a look may take: a large archive on a slow disk has its time.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// The kinds of looks, and at what, that go on.
static LOOKS: Mutex<BTreeSet<(&str, PathBuf)>> = Mutex::new(BTreeSet::new());

fn looks() -> MutexGuard<'static, BTreeSet<(&'static str, PathBuf)>> {
    LOOKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A look that goes on.
struct Look(&'static str, PathBuf);

impl Look {
    /// `None` if one of the same kind still hangs.
    fn begin(kind: &'static str, path: &Path) -> Option<Self> {
        looks().insert((kind, path.to_owned())).then(|| Self(kind, path.to_owned()))
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        looks().remove(&(self.0, std::mem::take(&mut self.1)));
    }
}

/// Has something done that looks at `path`; `None` if that takes longer than `patience`, or if one
/// that took longer has not ended yet.
pub(super) async fn looked<T: Send + 'static>(
    kind: &'static str,
    path: &Path,
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let look = Look::begin(kind, path)?;
    let work = spawn_blocking(move || {
        let _look = look;
        work()
    });
    match timeout(patience, work).await.ok()? {
        Ok(done) => Some(done),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_look_that_hangs_is_given_up_and_is_the_only_one() {
        let path = Path::new("/a-disk-that-hangs");
        let (release, hang) = mpsc::channel::<()>();
        let short = Duration::from_millis(5);
        let hung = looked("store", path, short, move || hang.recv().is_err()).await;
        assert_eq!(hung, None);
        let day = Duration::from_secs(86_400);
        assert_eq!(looked("store", path, day, || 1).await, None, "another thread would hang, too");
        assert_eq!(looked("disk", path, day, || 2).await, Some(2));
        drop(release);
        loop {
            if looked("store", path, day, || 3).await == Some(3) {
                break;
            }
            tokio::time::sleep(short).await;
        }
    }
}
