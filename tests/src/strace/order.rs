//! Whether each report of a flush position came after the sync that it stands on.
//!
//! It follows files through their names, and knows of each which bytes were written and which are
//! durable:
//!
//! * a write makes its bytes written, and, as long as nobody syncs, no longer durable;
//! * a sync that has succeeded makes durable what had been written *when it began*; so does a
//!   write through a descriptor that was opened with `O_DSYNC` or `O_SYNC`, for its own bytes;
//! * a file's name is durable after a sync of its directory that began behind the file's creation,
//!   or behind its renaming from a name under which nobody would look for WAL.
//!
//! A report counts from the moment at which its sending *begins*. All before its flush position
//! must then be durable, in a raw segment (`SEGMENT` or `SEGMENT.partial`), or in an archived one
//! that is durable as a whole.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use pgwire_stream::{Lsn, SegmentName, SegmentSize};

use super::calls::Call;
use super::ranges::Ranges;
use crate::failure::{Failure, Result};

/// What `strace -e` has to trace for this judge.
pub const CALLS: &str = "trace=open,openat,openat2,creat,close,rename,renameat,renameat2,link,\
    linkat,unlink,unlinkat,write,writev,pwrite64,pwritev,pwritev2,lseek,copy_file_range,sendfile,\
    fallocate,sendto,sendmsg,fsync,fdatasync,sync,syncfs,io_uring_setup";

/// The options of `strace` for this judge: open files by their paths, strings as bytes, and enough
/// of them to read the messages to the server.
pub const OPTIONS: [&str; 7] = ["-y", "-x", "-s", "512", "--seccomp-bpf", "-e", CALLS];

/// A standby status update within a CopyData message: its length field, its own letter.
const STATUS_UPDATE: [u8; 6] = [b'd', 0, 0, 0, 38, b'r'];

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How many reports advanced the flush position.
    pub advances: usize,
    /// The first flush position that was reported, from which on all must be proven.
    pub first: Option<Lsn>,
    /// The last one.
    pub last: Option<Lsn>,
    /// How many reports were not covered by a sync, and the first few of them in words.
    pub unproven: usize,
    /// The first few of the reports that were not covered, in words.
    pub complaints: Vec<String>,
    /// How many syncs, or writes that sync, have failed.
    pub failed_syncs: usize,
}

/// Judges the calls of a receiver that began with an empty store.
pub fn judge(calls: &[Call], size: SegmentSize) -> Result<Verdict> {
    let mut judge = Judge::new(size);
    let mut moments: Vec<(usize, bool, &Call)> = calls
        .iter()
        .flat_map(|call| [(call.entered, false, call), (call.left, true, call)])
        .collect();
    moments.sort_by_key(|(moment, leaves, _)| (*moment, *leaves));
    for (_, leaves, call) in moments {
        if leaves {
            judge.leave(call);
        } else {
            judge.enter(call)?;
        }
    }
    Ok(judge.verdict)
}

/// One file, whatever its name is just now.
#[derive(Debug, Default)]
struct FileState {
    written: Ranges,
    durable: Ranges,
    named: bool,
}

#[derive(Debug)]
struct Judge {
    size: SegmentSize,
    files: Vec<FileState>,
    names: HashMap<PathBuf, usize>,
    /// Open descriptors: where the next `write` goes, and whether writes are syncs.
    open: HashMap<u64, (u64, bool)>,
    /// What a sync under way will have made durable, by the moment at which it began.
    syncing: HashMap<usize, Vec<Synced>>,
    verdict: Verdict,
}

#[derive(Debug)]
enum Synced {
    Bytes(usize, Ranges),
    Name(usize, PathBuf),
}

impl Judge {
    fn new(size: SegmentSize) -> Self {
        Self {
            size,
            files: Vec::new(),
            names: HashMap::new(),
            open: HashMap::new(),
            syncing: HashMap::new(),
            verdict: Verdict::default(),
        }
    }

    fn enter(&mut self, call: &Call) -> Result<()> {
        match call.name.as_str() {
            "io_uring_setup" => {
                return Err(Failure::new("io_uring is used, and what goes through it is not seen"));
            }
            "fsync" | "fdatasync" => {
                let synced = call.file(0).map(|(_, path)| self.synced_by(&path));
                self.syncing.insert(call.entered, synced.unwrap_or_default());
            }
            "sync" | "syncfs" => {
                self.syncing.insert(call.entered, self.all());
            }
            "write" | "sendto" | "sendmsg" | "writev" if is_socket(call) => self.sent(call),
            _ => {
                // From now on the old bytes may be gone, and the new ones not yet durable.
                if let Some((file, begin, end)) = self.write_of(call)
                    && let Some(state) = self.files.get_mut(file)
                {
                    state.durable.remove(begin, end);
                }
            }
        }
        Ok(())
    }

    fn leave(&mut self, call: &Call) {
        let succeeded = call.returned().is_some();
        match call.name.as_str() {
            "open" | "openat" | "openat2" | "creat" => self.opened(call),
            "close" => {
                self.open.remove(&call.file(0).map_or(u64::MAX, |(number, _)| number));
            }
            "lseek" => {
                if let (Some((number, _)), Some(at)) = (call.file(0), call.returned()) {
                    self.open.entry(number).or_default().0 = at;
                }
            }
            "rename" if succeeded => self.renamed(call.path(0), call.path(1), false),
            "renameat" | "renameat2" if succeeded => {
                self.renamed(call.path(1), call.path(3), false);
            }
            "link" if succeeded => self.renamed(call.path(0), call.path(1), true),
            "linkat" if succeeded => self.renamed(call.path(1), call.path(3), true),
            "unlink" if succeeded => drop(call.path(0).and_then(|path| self.names.remove(&path))),
            "unlinkat" if succeeded => drop(call.path(1).and_then(|path| self.names.remove(&path))),
            "fsync" | "fdatasync" | "sync" | "syncfs" => {
                let synced = self.syncing.remove(&call.entered).unwrap_or_default();
                if succeeded {
                    self.durable(synced);
                } else {
                    self.verdict.failed_syncs += 1;
                }
            }
            _ => self.written(call),
        }
    }

    fn opened(&mut self, call: &Call) {
        let Some((number, path)) = call.returned_file() else { return };
        let flags = call.arguments.join(" ");
        self.open.insert(number, (0, flags.contains("O_DSYNC") || flags.contains("O_SYNC")));
        if flags.contains("O_CREAT") && !self.names.contains_key(&path) {
            self.names.insert(path, self.files.len());
            self.files.push(FileState::default());
        }
    }

    fn renamed(&mut self, from: Option<PathBuf>, to: Option<PathBuf>, keeps: bool) {
        let (Some(from), Some(to)) = (from, to) else { return };
        let Some(file) = self.names.get(&from).copied() else { return };
        let goes_on = raw_segment(&from).is_some() && raw_segment(&from) == raw_segment(&to);
        if !keeps {
            self.names.remove(&from);
        }
        self.names.insert(to, file);
        if let Some(state) = self.files.get_mut(file) {
            // Under either of the two names it is found.
            state.named &= goes_on;
        }
    }

    /// Where a call writes into a file that we follow: the file, and the range.
    fn write_of(&self, call: &Call) -> Option<(usize, u64, u64)> {
        let target = match call.name.as_str() {
            "copy_file_range" => 2,
            "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" | "sendfile" | "fallocate" => {
                0
            }
            _ => return None,
        };
        let (number, path) = call.file(target)?;
        let file = self.names.get(&path).copied()?;
        let offset = match call.name.as_str() {
            "pwrite64" | "pwritev" | "pwritev2" => call.number(3)?,
            "fallocate" => call.number(2)?,
            _ => self.open.get(&number).map_or(0, |(at, _)| *at),
        };
        let length = match call.name.as_str() {
            "fallocate" => call.number(3)?,
            "write" | "pwrite64" => call.returned().or(call.number(2))?,
            _ => call.returned().unwrap_or(u64::from(u32::MAX)),
        };
        Some((file, offset, offset.saturating_add(length)))
    }

    fn written(&mut self, call: &Call) {
        let Some((file, begin, end)) = self.write_of(call) else { return };
        let target = if call.name == "copy_file_range" { 2 } else { 0 };
        let Some((number, _)) = call.file(target) else { return };
        let descriptor = self.open.entry(number).or_default();
        let syncs = descriptor.1 || call.argument(5).contains("DSYNC");
        if call.returned().is_none() {
            self.verdict.failed_syncs += usize::from(syncs);
            return;
        }
        if matches!(call.name.as_str(), "write" | "writev" | "copy_file_range" | "sendfile") {
            descriptor.0 = end;
        }
        if let Some(state) = self.files.get_mut(file) {
            state.written.add(begin, end);
            if syncs {
                state.durable.add(begin, end);
            }
        }
    }

    /// What a sync of this path that begins now makes durable.
    fn synced_by(&self, path: &Path) -> Vec<Synced> {
        if let Some(file) = self.names.get(path) {
            let written = self.files.get(*file).map(|state| state.written.clone());
            return vec![Synced::Bytes(*file, written.unwrap_or_default())];
        }
        let within = self.names.iter().filter(|(name, _)| name.parent() == Some(path));
        within.map(|(name, file)| Synced::Name(*file, name.clone())).collect()
    }

    fn all(&self) -> Vec<Synced> {
        let bytes = self.files.iter().enumerate();
        let bytes = bytes.map(|(file, state)| Synced::Bytes(file, state.written.clone()));
        let names = self.names.iter().map(|(name, file)| Synced::Name(*file, name.clone()));
        bytes.chain(names).collect()
    }

    fn durable(&mut self, synced: Vec<Synced>) {
        for synced in synced {
            match synced {
                Synced::Bytes(file, ranges) => {
                    if let Some(state) = self.files.get_mut(file) {
                        state.durable.add_all(&ranges);
                    }
                }
                // Unless it has got another one meanwhile.
                Synced::Name(file, name) if self.names.get(&name) == Some(&file) => {
                    if let Some(state) = self.files.get_mut(file) {
                        state.named = true;
                    }
                }
                Synced::Name(..) => {}
            }
        }
    }

    /// Looks for status updates in what is sent to the server.
    fn sent(&mut self, call: &Call) {
        let bytes = call.bytes(1);
        let mut rest = bytes.as_slice();
        // Every message but the very first has a letter and its length.
        while let Some((header, _)) = rest.split_first_chunk::<5>() {
            let [_, length @ ..] = *header;
            if rest.starts_with(&STATUS_UPDATE) {
                let flushed = rest.get(14..22).and_then(|bytes| bytes.try_into().ok());
                if let Some(flushed) = flushed.map(u64::from_be_bytes) {
                    self.reported(Lsn::from_u64(flushed), call.entered);
                }
            }
            rest = rest.get(1 + u32::from_be_bytes(length) as usize..).unwrap_or_default();
        }
    }

    fn reported(&mut self, flushed: Lsn, moment: usize) {
        if flushed == Lsn::ZERO {
            return;
        }
        let Some(last) = self.verdict.last else {
            self.verdict.first = Some(flushed);
            self.verdict.last = Some(flushed);
            return;
        };
        if flushed <= last {
            return;
        }
        self.verdict.advances += 1;
        self.verdict.last = Some(flushed);
        for piece in segments(self.size, last, flushed) {
            if let Err(why) = self.prove(piece) {
                self.verdict.unproven += 1;
                if self.verdict.complaints.len() < 5 {
                    let line = moment + 1;
                    let complaint = format!("{flushed} was reported (line {line}): {why}");
                    self.verdict.complaints.push(complaint);
                }
            }
        }
    }

    /// Whether the bytes of a segment are durable, and their name.
    fn prove(&self, (number, begin, end): (u64, u64, u64)) -> Result<(), String> {
        let mut why = format!("no file holds {begin}..{end} of segment {number:x}");
        for (name, file) in &self.names {
            let Some(state) = self.files.get(*file) else { continue };
            let is_this = |segment: SegmentName| {
                segment.number(self.size).is_ok_and(|found| found.as_u64() == number)
            };
            let held = if raw_segment(name).is_some_and(is_this) {
                state.durable.cover(begin, end)
            } else if archived_segment(name).is_some_and(is_this) {
                state.written.end() > 0 && state.durable == state.written
            } else {
                continue;
            };
            match (held, state.named) {
                (true, true) => return Ok(()),
                (true, false) => why = format!("the name {} is not durable", name.display()),
                (false, _) => {
                    why = format!("{begin}..{end} of {} is not durable", name.display());
                }
            }
        }
        Err(why)
    }
}

fn is_socket(call: &Call) -> bool {
    call.argument(0).contains("<socket:") || call.argument(0).contains("<TCP")
}

/// `SEGMENT` or `SEGMENT.partial`.
fn raw_segment(path: &Path) -> Option<SegmentName> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".partial").unwrap_or(name).parse().ok()
}

/// `SEGMENT` and the suffix of a codec.
fn archived_segment(path: &Path) -> Option<SegmentName> {
    let (stem, suffix) = path.file_name()?.to_str()?.split_once('.')?;
    if suffix.starts_with("partial") { None } else { stem.parse().ok() }
}

/// The parts of segments between two positions: the segment's number, and offsets in it.
fn segments(size: SegmentSize, from: Lsn, to: Lsn) -> Vec<(u64, u64, u64)> {
    let mut found = Vec::new();
    let mut at = from;
    while at < to {
        let number = size.segment_of(at);
        let end = size.end_of(number).min(to);
        let start = size.start_of(number);
        found.push((number.as_u64(), at.bytes_since(start), end.bytes_since(start)));
        at = end;
    }
    found
}
