//! Has the disk take what is written while more comes.
//!
//! Left alone, a system keeps gigabytes in its memory, and then whoever makes a file durable waits
//! for all of it.

use std::fs::File;

/// How much is begun at a time.
const STEP: u64 = 4 << 20;

/// How much is written of a file that is written from its beginning to its end.
#[derive(Debug, Default)]
pub(super) struct WriteBack {
    written: u64,
}

impl WriteBack {
    /// So many bytes more are written, behind the others.
    pub(super) fn written(&mut self, file: &File, count: u64) {
        let begun = self.written / STEP;
        self.written += count;
        let due = self.written / STEP;
        if due > begun {
            begin(file, begun * STEP, (due - begun) * STEP);
        }
    }
}

/// Does not wait until the disk has it, but for a place in its queue. What goes wrong is told to
/// whoever makes the file durable.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no library has a safe function for this system call")]
fn begin(file: &File, from: u64, length: u64) {
    use std::os::fd::AsRawFd;

    let (Ok(from), Ok(length)) = (from.try_into(), length.try_into()) else { return };
    // SAFETY: the descriptor is open, and no memory is passed.
    unsafe { libc::sync_file_range(file.as_raw_fd(), from, length, libc::SYNC_FILE_RANGE_WRITE) };
}

#[cfg(not(target_os = "linux"))]
fn begin(_file: &File, _from: u64, _length: u64) {}
