//! Making ready what a recovering server asks for next, in a process that outlives the call.
//!
//! The server waits for its `restore_command`, and for nothing that this has started: the other
//! process has a session of its own and keeps none of the server's files open that the shell gave
//! us as input and output. It ends when the spool is full, the archive ends, or the spool is gone.
//!
//! Where the server itself is the first process of its container, orphans become its children, and
//! it takes one that was killed for a crash of its own: there, nothing is made ready.

use std::fs;
use std::process::{Command, Stdio};
use std::{env, io};

use pgwire_stream::{SegmentName, SegmentSize, WalFileName};

use super::source::{Answer, Source, renew_lease};
use super::{GetWalFailure, GetWalRequest};
use crate::restore::get_wal::{Filling, GetWalError, Spool};
use crate::storage::{Home, ServerDir};

/// What a process is called that adopts orphans and should not.
const SERVERS: [&str; 2] = ["postgres", "postmaster"];

/// The hidden option that makes a `get-wal` fill the spool.
const OPTION: &str = "--ahead";

/// Has the segments behind this one made ready, unless enough are or somebody is at it.
pub(super) fn start(
    spool: &Spool,
    segment: SegmentName,
    size: SegmentSize,
    wanted: u32,
    fill: &dyn Fn(),
) {
    let count = Spool::room_for(size, wanted);
    // Half of them are enough to go on with, so that not each call starts a process.
    let Some(middle) =
        behind(segment, size, count).nth(count.div_ceil(2).saturating_sub(1) as usize)
    else {
        return;
    };
    if spool.has(middle) || spool.is_being_filled() || adopted_by_server() {
        return;
    }
    match spool.prepare(size) {
        Ok(()) => fill(),
        Err(error) => tracing::debug!(%error, "no segments are made ready"),
    }
}

/// Starts this program once more, to fill the spool.
pub fn start_filling() {
    if let Err(error) = again() {
        tracing::debug!(%error, "no segments are made ready");
    }
}

fn again() -> io::Result<()> {
    let mut command = Command::new(env::current_exe()?);
    for argument in env::args_os().skip(1) {
        let is_command = argument == "get-wal";
        command.arg(argument);
        if is_command {
            command.arg(OPTION);
        }
    }
    // Not waited for: who starts it ends before it does.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(drop)
}

/// Whether an orphan would become a child of the database server.
fn adopted_by_server() -> bool {
    let first = fs::read_to_string("/proc/1/comm").unwrap_or_default();
    SERVERS.contains(&first.trim_end())
}

/// The segments that follow one on its timeline.
fn behind(
    segment: SegmentName,
    size: SegmentSize,
    count: u32,
) -> impl Iterator<Item = SegmentName> + use<> {
    let first = segment.number(size).ok();
    let numbers = std::iter::successors(first.map(|number| number.next()), |n| Some(n.next()));
    numbers
        .take(count as usize)
        .map(move |number| SegmentName::new(segment.timeline(), number, size))
}

/// Fills the spool with the segments behind the one that was asked for. For a process of its own,
/// which ends at once when the spool is gone.
pub fn fetch_ahead(home: &Home, server: &ServerDir, request: &GetWalRequest) {
    // Fails where we have a session of our own already.
    let _ = rustix::process::setsid();
    let watch = |filling: &Filling| {
        let abandoned = filling.abandoned()?;
        std::thread::Builder::new().spawn(move || {
            abandoned();
            // Whatever it waits for: a disk, or the daemon.
            std::process::exit(0);
        })
    };
    let filled = fill(home, server, request, |filling| {
        if let Err(error) = watch(filling) {
            tracing::debug!(%error, "the spool is not watched");
        }
    });
    if let Err(error) = filled {
        tracing::debug!(%error, "no more segments are made ready");
    }
}

pub(super) fn fill(
    home: &Home,
    server: &ServerDir,
    request: &GetWalRequest,
    begun: impl FnOnce(&Filling),
) -> Result<(), GetWalFailure> {
    let segment = match request.file.parse().map_err(GetWalError::Name)? {
        WalFileName::Segment(segment) => segment,
        _ => return Ok(()),
    };
    let Some(spool) = Spool::beside(&request.destination, home.path(), server.name()) else {
        return Ok(());
    };
    let Some(filling) = spool.fill() else { return Ok(()) };
    begun(&filling);
    let filled = fill_up(&filling, segment, request, Source::new(home, server, request));
    renew_lease(home, server, request);
    filling.finish();
    filled
}

fn fill_up(
    filling: &Filling,
    segment: SegmentName,
    request: &GetWalRequest,
    mut source: Source<'_>,
) -> Result<(), GetWalFailure> {
    let size = filling.segment_size();
    let wanted: Vec<_> = behind(segment, size, Spool::room_for(size, request.prefetch)).collect();
    // Those that were passed, and those of a timeline that was left.
    filling.keep_only(&wanted)?;
    for segment in wanted {
        if filling.has(segment) || !filling.is_ahead(segment) {
            continue;
        }
        match source.ask(WalFileName::Segment(segment), false)? {
            Answer::File { length, settled: true, mut reader }
                if length == u64::from(size.bytes()) && filling.has_room() =>
            {
                filling.put(segment, &mut reader)?;
            }
            Answer::File { .. } | Answer::EndOfArchive => break,
        }
    }
    Ok(())
}
