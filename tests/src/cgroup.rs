//! A control group around processes that belong together, so that all of them can be killed at one
//! instant.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A cgroup v2 of ours. Only root has one; others kill process by process.
#[derive(Debug)]
pub struct Cgroup {
    directory: PathBuf,
}

impl Cgroup {
    /// A new, empty group, where the system lets us make one.
    pub fn create() -> Option<Self> {
        let root = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].into_iter().map(Path::new).find(
            |root| root.join("cgroup.procs").exists() && root.join("cgroup.controllers").exists(),
        )?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = root.join(format!("walrecv-test-{}-{number}", std::process::id()));
        fs::create_dir(&directory).ok()?;
        let group = Self { directory };
        group.directory.join("cgroup.kill").exists().then_some(group)
    }

    /// Where it is in the file system.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Moves a process into the group; its later children follow by themselves.
    pub(crate) fn add(&self, pid: i32) -> bool {
        fs::write(self.directory.join("cgroup.procs"), pid.to_string()).is_ok()
    }

    /// SIGKILL to every member at once, and to those of the groups below it.
    pub fn kill(&self) -> bool {
        fs::write(self.directory.join("cgroup.kill"), "1").is_ok()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A group can be removed only when its last process has been reaped.
        for _ in 0..100 {
            if remove(&self.directory).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Removes a group, and first those that its members have made below it.
fn remove(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(directory)
}
