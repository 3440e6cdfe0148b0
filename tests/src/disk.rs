//! A small disk of a test's own, which can lose its power, hang or be full.
//!
//! It is a file system in a file, mounted through the loop device, so a sync of it is a real one:
//! what was not synced is lost with the power.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::failure::{Context, Failure, Result};
use crate::{program, tools};

/// How long a mount may stay busy after its last user has died.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the disk is formatted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4.
    Ext4,
    /// XFS, which wants at least 300 MB.
    Xfs,
}

impl FileSystem {
    fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    fn format(self, image: &Path) -> Result<()> {
        let mut command = Command::new(system_program(&format!("mkfs.{}", self.name()))?);
        command.arg("-q");
        if self == Self::Ext4 {
            // Nothing in reserve for root, who may run the product.
            command.args(["-m", "0"]);
        }
        program::run(command.arg(image)).map(drop)
    }
}

/// A mounted disk. Dropping it unmounts it, and its image is gone.
///
/// Whatever has files open there must have ended before.
#[derive(Debug)]
pub struct Disk {
    mount_point: PathBuf,
    image: PathBuf,
    _directory: TempDir,
}

impl Disk {
    /// An empty disk of so many megabytes, mounted at this directory, which is made. The image
    /// takes only as much room as is written. None, and said so, where such a disk cannot be had.
    pub fn mount(
        file_system: FileSystem,
        megabytes: u64,
        mount_point: &Path,
    ) -> Result<Option<Self>> {
        let about = || "cannot make an image of a disk".to_owned();
        let directory =
            tempfile::Builder::new().prefix("walrecv-disk-").tempdir().context(about)?;
        let image = directory.path().join("image");
        File::create(&image).and_then(|file| file.set_len(megabytes << 20)).context(about)?;
        fs::create_dir_all(mount_point)
            .context(|| format!("cannot make {}", mount_point.display()))?;
        let disk = Self { mount_point: mount_point.to_owned(), image, _directory: directory };
        if let Err(failure) = file_system.format(&disk.image).and_then(|()| disk.attach()) {
            tools::not_judged(&format!("a store on {}", file_system.name()), &failure.to_string());
            return Ok(None);
        }
        // ext4 has it.
        let _ = fs::remove_dir(disk.mount_point.join("lost+found"));
        Ok(Some(disk))
    }

    fn attach(&self) -> Result<()> {
        let mut command = Command::new(system_program("mount")?);
        // The loop device goes with the mount.
        program::run(command.args(["-o", "loop"]).arg(&self.image).arg(&self.mount_point)).map(drop)
    }

    fn detach(&self) -> Result<()> {
        let begin = Instant::now();
        loop {
            let unmounted =
                program::run(Command::new(system_program("umount")?).arg(&self.mount_point));
            match unmounted {
                Ok(_) => return Ok(()),
                Err(failure) if begin.elapsed() > PATIENCE => return Err(failure),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Makes everything on it durable.
    pub fn sync(&self) -> Result<()> {
        program::run(Command::new("sync").arg("-f").arg(&self.mount_point)).map(drop)
    }

    /// Cuts its power: from now on every access fails, and what was not synced is lost.
    pub fn cut_power(&self) -> Result<()> {
        // `xfs_io` knows the ioctl, which ext4 has taken over from XFS; without an option it
        // leaves the log unflushed. `-x` is for all that is not about files.
        let mut command = Command::new(system_program("xfs_io")?);
        program::run(command.args(["-x", "-c", "shutdown"]).arg(&self.mount_point))?;
        match fs::read_dir(&self.mount_point).and_then(|_| File::create(self.probe())) {
            Ok(_) => Err(Failure::new("the disk still has power")),
            Err(_) => Ok(()),
        }
    }

    fn probe(&self) -> PathBuf {
        self.mount_point.join("has-power")
    }

    /// Gives it power again, which recovers its journal. Nobody may have files open there.
    pub fn restore_power(&self) -> Result<()> {
        self.detach()?;
        self.attach()
    }

    /// Makes it hang: whoever writes there waits until what is returned is dropped.
    pub fn freeze(&self) -> Result<Frozen> {
        fsfreeze("-f", &self.mount_point)?;
        Ok(Frozen { mount_point: self.mount_point.clone() })
    }

    /// Fills it up to the last `left` bytes; dropping what is returned makes room again.
    pub fn fill(&self, left: u64) -> Result<Ballast> {
        let about = || format!("cannot fill {}", self.mount_point.display());
        let space = rustix::fs::statvfs(&self.mount_point).context(about)?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let path = self.mount_point.join(".ballast");
        let file = File::create(&path).context(about)?;
        let ballast = Ballast { path };
        let size = free.saturating_sub(left);
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size)
            .context(about)?;
        file.sync_all().context(about)?;
        Ok(ballast)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A disk that could not be mounted has nothing to unmount.
        if is_mounted(&self.mount_point) && self.detach().is_err() {
            // Hidden at least, and gone with its last user.
            let _ = program::output(Command::new("umount").arg("-l").arg(&self.mount_point));
        }
    }
}

/// A disk that hangs. Dropping it lets it go on.
#[derive(Debug)]
pub struct Frozen {
    mount_point: PathBuf,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // It fails only where nothing is frozen.
        let _ = fsfreeze("-u", &self.mount_point);
    }
}

/// What keeps a disk full. Dropping it makes room.
#[derive(Debug)]
pub struct Ballast {
    path: PathBuf,
}

impl Drop for Ballast {
    fn drop(&mut self) {
        // The disk may have gone before.
        let _ = fs::remove_file(&self.path);
    }
}

fn fsfreeze(what: &str, mount_point: &Path) -> Result<()> {
    program::run(Command::new(system_program("fsfreeze")?).arg(what).arg(mount_point)).map(drop)
}

fn system_program(name: &str) -> Result<PathBuf> {
    program::find_system_program(name).context(|| format!("{name} is not on this machine"))
}

/// Whether something is mounted there, so that it is not unmounted twice.
fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let path = path.to_string_lossy();
    mounts.lines().any(|line| line.split(' ').nth(1) == Some(&path))
}
