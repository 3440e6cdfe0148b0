//! A control group around one server, so that all its processes can be killed at one instant.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A cgroup v2 of ours. Only root has one; others kill process by process.
#[derive(Debug)]
pub(crate) struct Cgroup {
    directory: PathBuf,
}

impl Cgroup {
    /// A new, empty group, where the system lets us make one.
    pub(crate) fn create() -> Option<Self> {
        let root = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].into_iter().map(Path::new).find(
            |root| root.join("cgroup.procs").exists() && root.join("cgroup.controllers").exists(),
        )?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = root.join(format!("walrecv-test-{}-{number}", std::process::id()));
        fs::create_dir(&directory).ok()?;
        let group = Self { directory };
        group.directory.join("cgroup.kill").exists().then_some(group)
    }

    /// Moves a process into the group; its later children follow by themselves.
    pub(crate) fn add(&self, pid: i32) -> bool {
        fs::write(self.directory.join("cgroup.procs"), pid.to_string()).is_ok()
    }

    /// SIGKILL to every member at once.
    pub(crate) fn kill(&self) -> bool {
        fs::write(self.directory.join("cgroup.kill"), "1").is_ok()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A group can be removed only when its last process has been reaped.
        for _ in 0..100 {
            if fs::remove_dir(&self.directory).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
