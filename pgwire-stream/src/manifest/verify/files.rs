//! The manifest, against the directory: whether each file is there, and is the same.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::paths::{is_tablespace_link, located};
use super::{Discrepancy, Problem, READ_SIZE, next_bytes};
use crate::SystemId;
use crate::control_file::{self, ControlFile};
use crate::manifest::ManifestFile;

/// Verifies file by file.
#[derive(Debug)]
pub(super) struct Files<'a> {
    root: &'a Path,
    checksums: bool,
    system_id: Option<SystemId>,
    /// The directory that was last found to be one, because the next file is mostly beside it.
    directory: Vec<u8>,
    buffer: Vec<u8>,
    bytes_read: u64,
}

impl<'a> Files<'a> {
    pub(super) fn new(root: &'a Path, checksums: bool, system_id: Option<SystemId>) -> Self {
        Self {
            root,
            checksums,
            system_id,
            directory: Vec::new(),
            buffer: vec![0; READ_SIZE],
            bytes_read: 0,
        }
    }

    /// How many bytes were read for their checksums.
    pub(super) const fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Reports how the file differs from what is listed.
    pub(super) fn verify(&mut self, listed: &ManifestFile, report: &mut impl FnMut(Problem)) {
        match self.differs(listed) {
            Ok(None) => {}
            Ok(Some(discrepancy)) => report(discrepancy.of(&listed.path)),
            Err(error) => report(Discrepancy::unreadable(&error).of(&listed.path)),
        }
    }

    fn differs(&mut self, listed: &ManifestFile) -> io::Result<Option<Discrepancy>> {
        let Some(on_disk) = located(self.root, &listed.path) else {
            return Ok(Some(Discrepancy::Missing));
        };
        if !self.is_reachable(&listed.path)? {
            return Ok(Some(Discrepancy::Missing));
        }
        let metadata = match fs::symlink_metadata(&on_disk) {
            Ok(metadata) if metadata.is_file() => metadata,
            // What is there instead was reported by the walk.
            Ok(_) => return Ok(Some(Discrepancy::Missing)),
            Err(error) if is_absence(&error) => return Ok(Some(Discrepancy::Missing)),
            Err(error) => return Err(error),
        };
        if metadata.len() != listed.size {
            let on_disk = metadata.len();
            return Ok(Some(Discrepancy::Size { on_disk, listed: listed.size }));
        }
        if let Some(system_id) = self.system_id
            && listed.path == control_file::FILE_NAME.as_bytes()
            && let Some(discrepancy) = foreign(&on_disk, system_id)?
        {
            return Ok(Some(discrepancy));
        }
        if self.checksums { self.compare(listed, &on_disk) } else { Ok(None) }
    }

    /// Whether the file lies below the directory without symbolic links on the way, but for that
    /// of its tablespace. A path such as `../a` or `a//b` is that of no file.
    fn is_reachable(&mut self, path: &[u8]) -> io::Result<bool> {
        if path.split(|&byte| byte == b'/').any(|name| matches!(name, b"" | b"." | b"..")) {
            return Ok(false);
        }
        let Some(end) = path.iter().rposition(|&byte| byte == b'/') else { return Ok(true) };
        let parent = path.get(..end).unwrap_or_default();
        if parent == self.directory {
            return Ok(true);
        }
        let ends = parent.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([parent.len()]) {
            let directory = parent.get(..end).unwrap_or_default();
            match leads_on(self.root, directory) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) if is_absence(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        parent.clone_into(&mut self.directory);
        Ok(true)
    }

    fn compare(
        &mut self,
        listed: &ManifestFile,
        on_disk: &Path,
    ) -> io::Result<Option<Discrepancy>> {
        let Some((algorithm, digest)) = &listed.checksum else { return Ok(None) };
        let mut file = File::open(on_disk)?;
        let mut hasher = algorithm.hasher();
        let mut length = 0;
        loop {
            let bytes = next_bytes(&mut file, &mut self.buffer)?;
            if bytes.is_empty() {
                break;
            }
            hasher.update(bytes);
            length += bytes.len() as u64;
        }
        self.bytes_read += length;
        Ok(if length != listed.size {
            Some(Discrepancy::Size { on_disk: length, listed: listed.size })
        } else if hasher.finish() != *digest {
            Some(Discrepancy::Checksum { algorithm: *algorithm })
        } else {
            None
        })
    }
}

/// Whether this is a directory of the backup, or its link to that of a tablespace.
fn leads_on(root: &Path, directory: &[u8]) -> io::Result<bool> {
    let Some(on_disk) = located(root, directory) else { return Ok(false) };
    let metadata = fs::symlink_metadata(&on_disk)?;
    Ok(metadata.is_dir() || (metadata.is_symlink() && is_tablespace_link(directory, &on_disk)?))
}

/// How the control file is not one of this cluster.
fn foreign(on_disk: &Path, listed: SystemId) -> io::Result<Option<Discrepancy>> {
    let mut content = Vec::new();
    File::open(on_disk)?.take(8192).read_to_end(&mut content)?;
    Ok(match ControlFile::parse(&content) {
        Ok(control) if control.system_id == listed => None,
        Ok(control) => Some(Discrepancy::SystemId { on_disk: control.system_id, listed }),
        Err(error) => Some(Discrepancy::ControlFile(error)),
    })
}

/// Whether there is nothing at the path.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
