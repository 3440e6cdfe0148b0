//! The WAL in a store, read as a person would by hand: raw files, and archived ones by stock
//! programs. The receiver may be dead or at work.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pgwire_stream::{Lsn, SegmentName, SegmentSize, TimelineId};

use crate::failure::{Context, Failure, Result};
use crate::{program, tools};

/// How a segment may be archived: the suffix, and what reads it. [`ENCRYPTED`] may follow.
const ARCHIVED: [(&str, &[&str]); 4] = [
    ("", &["cat"]),
    (".zst", &["zstd", "-d", "-c", "-q"]),
    (".lz4", &["lz4", "-d", "-c", "-q"]),
    (".gz", &["gzip", "-d", "-c"]),
];

const ENCRYPTED: &str = ".age";

/// The WAL of one server in a store.
#[derive(Debug, Clone)]
pub struct StoredWal {
    server: PathBuf,
    decrypting: Option<Decrypting>,
}

/// Who decrypts, and where to.
#[derive(Debug, Clone)]
struct Decrypting {
    identity: PathBuf,
    into: PathBuf,
}

impl StoredWal {
    /// What lies in the directory of a server in a store.
    pub fn new(server: impl Into<PathBuf>) -> Self {
        Self { server: server.into(), decrypting: None }
    }

    /// The same, where complete segments may be encrypted to this key; stock `age` leaves what it
    /// decrypts in a directory.
    pub fn with_identity(self, identity: &Path, into: &Path) -> Self {
        let (identity, into) = (identity.to_owned(), into.to_owned());
        Self { decrypting: Some(Decrypting { identity, into }), ..self }
    }

    /// A complete segment; None if the store does not hold all of it.
    pub fn complete(&self, segment: SegmentName) -> Result<Option<Vec<u8>>> {
        // In the order in which it moves, so that it is not missed on its way.
        if let Some(raw) = read(&self.received(segment))? {
            return Ok(Some(raw));
        }
        if let Some((path, reader)) = self.archived(segment, "") {
            return decompress(&path, reader).map(Some);
        }
        let Some(Decrypting { identity, into }) = &self.decrypting else { return Ok(None) };
        let Some((path, reader)) = self.archived(segment, ENCRYPTED) else { return Ok(None) };
        let decrypted = tools::decrypt(&path, identity, into)?;
        decrypted.map(|path| decompress(&path, reader)).transpose()
    }

    /// Whether `other` has the bytes of a complete segment; None if the store does not hold all
    /// of it. For segments too large to be read.
    pub fn equals(&self, segment: SegmentName, other: &Path) -> Result<Option<bool>> {
        let received = self.received(segment);
        let (path, reader) = match self.archived(segment, "") {
            Some(archived) => archived,
            None if received.exists() => (received, &["cat"][..]),
            None => return Ok(None),
        };
        let about = || format!("cannot compare {} with {}", path.display(), other.display());
        let mut reading = reading(&path, reader).stdout(Stdio::piped()).spawn().context(about)?;
        let stdout = reading.stdout.take().context(about)?;
        let mut compare = Command::new("cmp");
        compare.args(["-s", "-"]).arg(other).stdin(stdout);
        let same = compare.status().context(about)?.success();
        let read = reading.wait().context(about)?.success();
        if !read && !path.exists() {
            // It moved on while we looked.
            return Ok(None);
        }
        Ok(Some(same && read))
    }

    fn received(&self, segment: SegmentName) -> PathBuf {
        self.server.join("streaming").join(segment.to_string())
    }

    fn archived(
        &self,
        segment: SegmentName,
        encrypted: &str,
    ) -> Option<(PathBuf, &'static [&'static str])> {
        let directory = self.server.join("wals").join(segment.folder());
        ARCHIVED.iter().find_map(|(suffix, reader)| {
            let path = directory.join(format!("{segment}{suffix}{encrypted}"));
            path.exists().then_some((path, *reader))
        })
    }

    /// What there is, with sizes.
    pub fn files(&self) -> Vec<String> {
        let (streaming, wals) = (self.server.join("streaming"), self.server.join("wals"));
        let directories = [streaming, wals.clone()].into_iter().chain(paths_in(&wals));
        let mut files: Vec<_> = directories
            .flat_map(|directory| paths_in(&directory))
            .filter_map(|path| {
                let name = path.strip_prefix(&self.server).ok()?.display().to_string();
                Some(format!("{name} ({})", path.metadata().ok()?.len()))
            })
            .collect();
        files.sort();
        files
    }

    /// The first position from `from` to `end` at which the store does not hold what the server's
    /// own `pg_wal` does; None if it holds it all.
    pub fn first_loss(
        &self,
        pg_wal: &Path,
        timeline: TimelineId,
        size: SegmentSize,
        from: Lsn,
        end: Lsn,
    ) -> Result<Option<Lsn>> {
        let mut number = size.segment_of(from);
        while size.start_of(number) < end {
            let (segment, start) =
                (SegmentName::new(timeline, number, size), size.start_of(number));
            let wanted = usize::try_from(size.end_of(number).min(end).bytes_since(start))
                .context(|| "a segment larger than the memory".to_owned())?;
            let theirs = read(&pg_wal.join(segment.to_string()))?
                .context(|| format!("the server has no {segment} any more"))?;
            let theirs = theirs.get(..wanted).unwrap_or(&theirs);
            let ours = match self.complete(segment)? {
                Some(whole) => Some(whole),
                None => read(&self.server.join("streaming").join(format!("{segment}.partial")))?,
            };
            let ours = ours.unwrap_or_default();
            let equal = theirs.iter().zip(&ours).take_while(|(a, b)| a == b).count();
            if equal < theirs.len() {
                return Ok(Some(start.saturating_add(equal as u64)));
            }
            number = size.segment_of(size.end_of(number));
        }
        Ok(None)
    }
}

fn paths_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(|| format!("cannot read {}", path.display())),
    }
}

fn reading(path: &Path, reader: &[&str]) -> Command {
    let (name, arguments) = reader.split_first().unwrap_or((&"cat", &[]));
    let mut command = Command::new(name);
    command.args(arguments).arg(path);
    command
}

fn decompress(path: &Path, reader: &[&str]) -> Result<Vec<u8>> {
    let output = program::output(&mut reading(path, reader))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!("{} cannot be read: {}", path.display(), said.trim())))
}
