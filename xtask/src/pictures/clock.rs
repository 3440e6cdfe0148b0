//! A clock that programs believe, by libfaketime: it can be put to another day while they run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use walrecv_tests::{Context, Result};

/// Where Debian's `libfaketime` is.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

pub(super) struct Clock {
    offset: PathBuf,
}

impl Clock {
    /// A clock that is right, in a directory that the programs may enter.
    pub(super) fn new(directory: &Path) -> Result<Self> {
        let about = || format!("{LIBRARY} is not there: install the package libfaketime");
        fs::metadata(LIBRARY).context(about)?;
        let clock = Self { offset: directory.join("offset") };
        clock.write(0)?;
        let public = |path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        public(directory, 0o755)
            .and_then(|()| public(&clock.offset, 0o644))
            .context(|| "cannot open the clock to others".to_owned())?;
        Ok(clock)
    }

    /// What makes a program believe it. Waits are as long as they are.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let variables = [
            ("LD_PRELOAD", LIBRARY),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("FAKETIME_DISABLE_SHM", "1"),
            ("FAKETIME_CACHE_DURATION", "1"),
        ];
        let mut all = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        all.push(("FAKETIME_TIMESTAMP_FILE".to_owned(), self.offset.display().to_string()));
        all
    }

    /// It is this moment now.
    pub(super) fn set(&self, at: Timestamp) -> Result<()> {
        self.write(at.as_second() - Timestamp::now().as_second())
    }

    /// It is right again.
    pub(super) fn right(&self) -> Result<()> {
        self.write(0)
    }

    fn write(&self, seconds: i64) -> Result<()> {
        let about = || format!("cannot write {}", self.offset.display());
        fs::write(&self.offset, format!("{seconds:+}\n")).context(about)?;
        // They look at it once a second.
        std::thread::sleep(Duration::from_millis(2500));
        Ok(())
    }
}
