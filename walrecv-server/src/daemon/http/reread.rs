//! Small files that may change while the daemon runs: certificates that are renewed, tokens.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// What is made of some files, and made again when they have changed.
pub(super) struct Reread<T> {
    paths: Vec<PathBuf>,
    made: Mutex<Option<Made<T>>>,
}

/// What was made, and when the files were written then.
struct Made<T> {
    of: Vec<Option<SystemTime>>,
    value: Arc<T>,
}

impl<T> Reread<T> {
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, made: Mutex::new(None) }
    }

    /// What they are worth now. Where the new ones cannot be used, what was made before holds.
    pub(super) fn get<E: std::error::Error>(
        &self,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let modified = |path: &PathBuf| fs::metadata(path).and_then(|found| found.modified()).ok();
        let times: Vec<_> = self.paths.iter().map(modified).collect();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Made { of, value }) = &*made
            && *of == times
        {
            return Ok(Arc::clone(value));
        }
        match (make(), &mut *made) {
            (Ok(value), _) => {
                let value = Arc::new(value);
                *made = Some(Made { of: times, value: Arc::clone(&value) });
                Ok(value)
            }
            (Err(error), Some(Made { of, value })) => {
                tracing::error!(error = %error, "going on with what was read before");
                *of = times;
                Ok(Arc::clone(value))
            }
            (Err(error), None) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::time::Duration;

    #[test]
    fn what_has_changed_is_read_again_and_what_is_broken_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let file = Reread::new(vec![path.clone()]);
        let read = || file.get(|| fs::read_to_string(&path)).map(|text| text.to_string());
        assert!(read().is_err());
        let put = |text: &str, second| {
            fs::write(&path, text).unwrap();
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            fs::File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
        };
        put("one", 1);
        assert_eq!(read().unwrap(), "one");
        put("two", 2);
        assert_eq!(read().unwrap(), "two");
        let never = || Err::<String, _>(io::Error::other("not to be read"));
        assert_eq!(*file.get(never).unwrap(), "two");
        put("three", 3);
        assert_eq!(*file.get(never).unwrap(), "two");
    }
}
