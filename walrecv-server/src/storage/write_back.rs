//! Has the disk take what is written while more comes.
//!
//! Left alone, a system keeps gigabytes in its memory, and then whoever makes a file durable waits
//! for all of it.

use std::fs::File;
use std::ops::Range;

/// How much is begun at a time.
const STEP: u64 = 4 << 20;

/// What is not longer is soon made durable as a whole, such as a segment of WAL: that is faster.
const SHORT: u64 = 16 << 20;

/// How much is written of a file that is written from its beginning to its end.
#[derive(Debug, Default)]
pub(super) struct WriteBack {
    written: u64,
}

impl WriteBack {
    /// So many bytes more are written, behind the others.
    pub(super) fn written(&mut self, file: &File, count: u64) {
        let due = self.due(count);
        if !due.is_empty() {
            begin(file, &due);
        }
    }

    /// What is begun now: whole steps, of what is not short.
    fn due(&mut self, count: u64) -> Range<u64> {
        let whole = |length: u64| if length > SHORT { length - length % STEP } else { 0 };
        let begun = whole(self.written);
        self.written += count;
        begun..whole(self.written)
    }
}

/// Does not wait until the disk has it, but for a place in its queue. What goes wrong is told to
/// whoever makes the file durable.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no library has a safe function for this system call")]
fn begin(file: &File, range: &Range<u64>) {
    use std::os::fd::AsRawFd;

    let length = range.end - range.start;
    let (Ok(from), Ok(length)) = (range.start.try_into(), length.try_into()) else { return };
    // SAFETY: the descriptor is open, and no memory is passed.
    unsafe { libc::sync_file_range(file.as_raw_fd(), from, length, libc::SYNC_FILE_RANGE_WRITE) };
}

#[cfg(not(target_os = "linux"))]
fn begin(_file: &File, _range: &Range<u64>) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_begun_twice_and_nothing_left_out() {
        let mut write_back = WriteBack::default();
        assert_eq!(write_back.due(SHORT - 1), 0..0);
        assert_eq!(write_back.due(1), 0..0);
        let mut end = 0;
        for count in [1, STEP - 2, 1, 0, 3 * STEP + 1, STEP - 1, 7] {
            let due = write_back.due(count);
            if !due.is_empty() {
                assert_eq!(due.start, end);
                end = due.end;
            }
            assert!(end <= write_back.written && write_back.written < end + STEP);
        }
        assert_eq!((end, write_back.written), (SHORT + 5 * STEP, SHORT + 5 * STEP + 7));
    }
}
