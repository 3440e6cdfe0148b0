//! What is in a store: which files of WAL, and which records, as `pg_waldump` tells them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pgwire_stream::wal::{Content, Finding, Start, WalOptions, WalValidator};
use pgwire_stream::{Lsn, PgTimestamp, SegmentName, SegmentSize, TimelineHistory, TimelineId};
use walrecv_tests::{Context, Failure, Result, program, tools};

/// The size of segments that the scenario chooses.
pub(crate) const SEGMENT: u64 = 1 << 20;
const PAGE: u64 = 8192;

/// A file of WAL.
#[derive(Clone, Debug)]
pub(crate) struct WalFile {
    /// Below the directory of the server.
    pub(crate) path: PathBuf,
    pub(crate) timeline: u32,
    pub(crate) number: u64,
    /// How much WAL is in it.
    pub(crate) length: u64,
}

/// A record of WAL, as far as recovery may stop at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) start: u64,
    /// Behind its last byte.
    pub(crate) end: u64,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A transaction, or a part of one, was committed or rolled back.
    End {
        xid: u32,
        at: i64,
        committed: bool,
    },
    RestorePoint(String),
    Other,
}

/// All WAL of a store.
pub(crate) struct Facts {
    pub(crate) files: Vec<WalFile>,
    pub(crate) histories: BTreeMap<u32, TimelineHistory>,
    pub(crate) records: BTreeMap<u32, Vec<Record>>,
}

impl Facts {
    /// Of the directory of a server of this major. `scratch` takes the segments as servers have
    /// them.
    pub(crate) fn of(server: &Path, major: u32, scratch: &Path) -> Result<Self> {
        let mut files = Vec::new();
        let mut histories = BTreeMap::from([(1, TimelineHistory::root(TimelineId::FIRST))]);
        let mut segments: BTreeMap<(u32, u64), Vec<u8>> = BTreeMap::new();
        for path in all_files(server, &["streaming", "wals"])? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let (stem, suffix) = name.split_once('.').unwrap_or((name, ""));
            if suffix == "history" {
                let number = u32::from_str_radix(stem, 16).context(|| name.to_owned())?;
                let timeline = TimelineId::new(number).context(|| name.to_owned())?;
                let history = TimelineHistory::parse(timeline, &read(&path)?);
                histories.insert(number, history.context(|| name.to_owned())?);
            } else if let Ok(segment) = stem.parse::<SegmentName>() {
                let size = SegmentSize::new(SEGMENT).context(|| "a size".to_owned())?;
                let number = segment.number(size).context(|| name.to_owned())?.as_u64();
                let timeline = segment.timeline().get();
                let mut bytes = contents(&path)?;
                let partial = suffix.starts_with("partial");
                let length = if partial { received(&bytes) } else { bytes.len() as u64 };
                // As a server gets it.
                bytes.resize(usize::try_from(SEGMENT).context(|| name.to_owned())?, 0);
                let below = path.strip_prefix(server).context(|| name.to_owned())?;
                files.push(WalFile { path: below.to_owned(), timeline, number, length });
                segments.insert((timeline, number), bytes);
            }
        }
        let mut records = BTreeMap::new();
        let judge = tools::of_major("pg_waldump", major);
        if judge.is_none() {
            tools::missing("pg_waldump", &format!("the WAL of PostgreSQL {major}"));
        }
        for &timeline in histories.keys() {
            let of_timeline = segments.range((timeline, 0)..=(timeline, u64::MAX));
            let of_timeline: Vec<_> = of_timeline.map(|(&(_, n), bytes)| (n, bytes)).collect();
            let ours = understood(&of_timeline)?;
            if let Some(judge) = &judge {
                let theirs = dumped(judge, scratch, timeline, &of_timeline)?;
                if ours != theirs {
                    return Err(difference(&ours, &theirs));
                }
            }
            records.insert(timeline, ours);
        }
        Ok(Self { files, histories, records })
    }
}

fn difference(ours: &[Record], theirs: &[Record]) -> Failure {
    let first = ours.iter().zip(theirs).find(|(ours, theirs)| ours != theirs);
    let lengths = (ours.len(), theirs.len());
    Failure::new(format!("the library and pg_waldump differ: {lengths:?} records, {first:?}"))
}

/// Every file below some directories.
pub(crate) fn all_files(top: &Path, below: &[&str]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open: Vec<PathBuf> = below.iter().map(|name| top.join(name)).collect();
    while let Some(next) = open.pop() {
        let about = || format!("cannot list {}", next.display());
        for entry in fs::read_dir(&next).context(about)? {
            let path = entry.context(about)?.path();
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).context(|| format!("cannot read {}", path.display()))
}

fn contents(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|suffix| suffix != "zst") {
        return read(path);
    }
    let output = program::output(Command::new("zstd").args(["-d", "-c", "-q"]).arg(path))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Failure::new(format!("zstd cannot read {}", path.display())))
}

/// How much was received of a segment: whoever receives may put zeros ahead, up to its end.
fn received(bytes: &[u8]) -> u64 {
    let mut length = bytes.len();
    if length as u64 == SEGMENT {
        length = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        length = length.next_multiple_of(8);
    }
    length as u64
}

/// The end of a record that begins here, of so many bytes: pages have headers.
fn end_of(start: u64, length: u64) -> u64 {
    let (mut at, mut left) = (start, length);
    loop {
        let page_end = (at / PAGE + 1) * PAGE;
        if left <= page_end - at {
            return at + left;
        }
        left -= page_end - at;
        at = page_end + if page_end.is_multiple_of(SEGMENT) { 40 } else { 24 };
    }
}

/// The records of a timeline, as the library understands them.
fn understood(segments: &[(u64, &Vec<u8>)]) -> Result<Vec<Record>> {
    let first = segments.first().context(|| "a timeline without WAL".to_owned())?.0;
    let size = SegmentSize::new(SEGMENT).context(|| "a size".to_owned())?;
    let start = Start::Anywhere(Lsn::from_u64(first * SEGMENT));
    let mut validator = WalValidator::new(WalOptions::new(size), start);
    let mut records = Vec::new();
    for (_, bytes) in segments {
        validator.feed(bytes, |finding| {
            let Finding::Record(record) = finding else { return };
            let what = match record.content {
                Some(Content::Commit { time, xid }) => {
                    What::End { xid, at: time.as_unix_micros(), committed: true }
                }
                Some(Content::Abort { time, xid }) => {
                    What::End { xid, at: time.as_unix_micros(), committed: false }
                }
                Some(Content::RestorePoint { name, .. }) => What::RestorePoint(name),
                _ => What::Other,
            };
            let start = record.start.as_u64();
            records.push(Record {
                start,
                end: end_of(start, record.header.total_len.into()),
                what,
            });
        });
    }
    Ok(records)
}

/// The same as `pg_waldump` tells them.
fn dumped(
    judge: &Path,
    scratch: &Path,
    timeline: u32,
    segments: &[(u64, &Vec<u8>)],
) -> Result<Vec<Record>> {
    let name = |number: u64| format!("{timeline:08X}{:08X}{:08X}", number >> 12, number & 0xFFF);
    let mut names = Vec::new();
    for (number, bytes) in segments {
        let path = scratch.join(name(*number));
        fs::write(&path, bytes).context(|| format!("cannot write {}", path.display()))?;
        names.push(name(*number));
    }
    let ends = names.first().zip(names.last()).context(|| "no WAL".to_owned())?;
    let mut command = Command::new(judge);
    command.env("TZ", "UTC").arg("-p").arg(scratch).args([ends.0, ends.1]);
    // It complains of where WAL ends.
    let output = program::output(&mut command)?;
    String::from_utf8_lossy(&output.stdout).lines().filter_map(dumped_record).collect()
}

/// A line such as `rmgr: Transaction len (rec/tot): 34/ 34, tx: 741, lsn: 0/01A00028, prev
/// 0/01A00000, desc: COMMIT 2026-03-05 14:11:33.250000 UTC`; nothing for what goes on from before.
fn dumped_record(line: &str) -> Option<Result<Record>> {
    let manager = line.strip_prefix("rmgr: ")?.split_whitespace().next()?;
    let between = |from: &str, to: &str| {
        let rest = line.split_once(from).map(|(_, rest)| rest);
        rest.and_then(|rest| rest.split_once(to)).map(|(word, _)| word.trim())
    };
    let parse = || -> Option<Record> {
        let length = between("len (rec/tot):", ",")?.split_once('/')?.1.trim().parse().ok()?;
        let xid = between("tx:", ",")?.parse().ok()?;
        let start = between("lsn:", ",")?.parse::<Lsn>().ok()?.as_u64();
        let description = line.split_once("desc: ")?.1;
        let (kind, rest) = description.split_once(' ').unwrap_or((description, ""));
        let what = match (manager, kind) {
            ("Transaction", "COMMIT" | "ABORT" | "COMMIT_PREPARED" | "ABORT_PREPARED") => {
                // Of a prepared one it is told which it was.
                let prepared = rest.split_once(": ").filter(|_| kind.ends_with("_PREPARED"));
                let (xid, rest) = match prepared {
                    Some((xid, rest)) => (xid.parse().ok()?, rest),
                    None => (xid, rest),
                };
                let time = rest.split_once(" UTC")?.0;
                let time: PgTimestamp = format!("{}Z", time.replace(' ', "T")).parse().ok()?;
                let committed = kind.starts_with("COMMIT");
                What::End { xid, at: time.as_unix_micros(), committed }
            }
            ("XLOG", "RESTORE_POINT") => What::RestorePoint(rest.to_owned()),
            _ => What::Other,
        };
        Some(Record { start, end: end_of(start, length), what })
    };
    Some(parse().context(|| format!("pg_waldump said: {line}")))
}
