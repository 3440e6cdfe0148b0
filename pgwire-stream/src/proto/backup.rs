//! A base backup as one list of events, in both of the protocol's generations.

use std::collections::{BTreeSet, VecDeque};

use bytes::{Buf, Bytes};

use super::command::{BackupTarget, BaseBackupOptions, CompressionMethod, ServerCompression};
use super::rows::{Columns, ResultSet, Row};
use super::session::Event;
use crate::{DecodeError, Error, Feature, Lsn, ServerError, ServerVersion, TimelineId, Violation};

/// How a server sends a base backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Generation {
    /// Up to 14: one copy per tablespace, then one for the manifest if there is one.
    CopyPerArchive,
    /// From 15 on: one copy of typed messages.
    TypedMessages,
}

/// Where a base backup begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupStart {
    /// The first position whose WAL is needed.
    pub lsn: Lsn,
    /// The timeline it lies on.
    pub timeline: TimelineId,
}

/// Where a base backup ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupEnd {
    /// WAL up to here is needed before the backup is consistent.
    pub lsn: Lsn,
    /// The timeline it lies on.
    pub timeline: TimelineId,
}

/// A tablespace of the backed-up cluster, or its data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupTablespace {
    /// Its identifier; `None` is the data directory itself.
    pub oid: Option<u32>,
    /// Where it lies on the server; relative for tablespaces within the data directory.
    pub location: Option<String>,
    /// The server's estimate, if it was asked for one. Never a length to rely on.
    pub size_kb: Option<u64>,
}

/// A tar archive: the data directory's or a tablespace's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// `base.tar`, or `<oid>.tar`, and `.gz`, `.lz4` or `.zst` if the server has compressed it.
    /// Checked: it can be used as a file name.
    pub name: String,
    /// The tablespace's identifier; `None` is the data directory.
    pub tablespace: Option<u32>,
    /// Where the tablespace lies on the server.
    pub location: Option<String>,
    /// How the server has compressed it.
    pub compression: Option<CompressionMethod>,
    /// Whether the server sends the two blocks of zeros that end a tar archive. Up to 14 it does
    /// not, and whoever stores the archive must add them.
    pub terminated: bool,
}

/// What happens in a base backup, in this order: for each archive `ArchiveStart`, any number of
/// `ArchiveData` and `ArchiveEnd`; then, if asked for, `ManifestStart` and `ManifestData`.
///
/// Of a backup that goes to another target than the client there is only `Progress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupEvent {
    /// An archive begins.
    ArchiveStart(Archive),
    /// Bytes of the archive; cut anywhere.
    ArchiveData(Bytes),
    /// The archive is complete.
    ArchiveEnd,
    /// The manifest begins.
    ManifestStart,
    /// Bytes of the manifest; cut anywhere.
    ManifestData(Bytes),
    /// How many bytes the server has read for all archives so far; servers from 15 on.
    Progress(u64),
}

/// How many warnings are kept, and how long the text of all may be; the server itself stops after
/// five per file.
const MAX_WARNINGS: usize = 1000;
const MAX_WARNING_TEXT: usize = 1 << 20;

/// The most that the rows of one answer may hold: one row per tablespace.
const MAX_ROWS: usize = 16 << 20;

/// Makes [`BackupEvent`]s of a session's [`Event`]s after `BASE_BACKUP`.
///
/// ```text
///  Start ─rows─▶ Tablespaces ─rows─▶ Between ◀────── c ──────┐
///                                      │  ▲   (up to 14: H) ▶ Archive / Manifest
///                                      │  └──────────────── c ── Typed ◀─H─ (from 15 on)
///                                      └─rows─▶ Ended ─ready─▶ Finished
/// ```
///
/// The rows with the end position are not success: a server that found damaged pages reports its
/// error only afterwards. [`BackupDecoder::end`] is `Some` only when the command is complete.
#[derive(Debug)]
pub struct BackupDecoder {
    generation: Generation,
    compression: Option<CompressionMethod>,
    /// Whether archives and manifest come to us.
    to_client: bool,
    /// Whether a manifest was asked for and has not come yet.
    awaits_manifest: bool,
    state: State,
    rows: ResultSet,
    rows_memory: usize,
    start: Option<BackupStart>,
    tablespaces: Vec<BackupTablespace>,
    /// Archives still to come, in the order of the tablespaces.
    expected: VecDeque<Archive>,
    end: Option<BackupEnd>,
    warnings: Vec<ServerError>,
    warning_text: usize,
    failure: Option<ServerError>,
    /// Events made of one message, in order.
    pending: VecDeque<BackupEvent>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    Tablespaces,
    Between,
    Archive,
    Manifest,
    /// In the copy of typed messages, and what its data belong to.
    Typed(Option<Part>),
    Ended,
    Finished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Archive,
    Manifest,
}

impl BackupDecoder {
    /// A decoder for a server's answer to `BASE_BACKUP` with these options.
    pub fn new(options: &BaseBackupOptions, version: ServerVersion) -> Self {
        let generation = if version.supports(Feature::OptionLists) {
            Generation::TypedMessages
        } else {
            Generation::CopyPerArchive
        };
        Self {
            generation,
            compression: options.compression.map(ServerCompression::method),
            // Only the second generation knows of other targets.
            to_client: generation == Generation::CopyPerArchive
                || options.target == BackupTarget::Client,
            awaits_manifest: options.manifest.is_some(),
            state: State::Start,
            rows: ResultSet { command: "BASE_BACKUP", ..ResultSet::default() },
            rows_memory: 0,
            start: None,
            tablespaces: Vec::new(),
            expected: VecDeque::new(),
            end: None,
            warnings: Vec::new(),
            warning_text: 0,
            failure: None,
            pending: VecDeque::new(),
        }
    }

    /// Where the backup begins, once the server has said so.
    pub fn start(&self) -> Option<BackupStart> {
        self.start
    }

    /// The tablespaces and, last, the data directory. Complete when the first archive begins.
    pub fn tablespaces(&self) -> &[BackupTablespace] {
        &self.tablespaces
    }

    /// The server's warnings so far, such as failed page checksums.
    pub fn warnings(&self) -> &[ServerError] {
        &self.warnings
    }

    /// Whether the headers are complete: start and tablespaces are known.
    pub fn headers_complete(&self) -> bool {
        !matches!(self.state, State::Start | State::Tablespaces)
    }

    /// Whether the command is over, well or not.
    pub fn is_finished(&self) -> bool {
        self.state == State::Finished && self.pending.is_empty()
    }

    /// Where the backup ends, once the command is over and has succeeded.
    ///
    /// # Errors
    /// What the server reported, or that it ended without saying where.
    pub fn end(&self) -> Result<BackupEnd, Error> {
        match (&self.failure, self.state, self.end) {
            (Some(failure), ..) => Err(failure.clone().into()),
            (None, State::Finished, Some(end)) => Ok(end),
            _ => Err(Violation::Backup("it ended without its end position").into()),
        }
    }

    /// What the server reported as an error, if it did.
    pub fn failure(&self) -> Option<&ServerError> {
        self.failure.as_ref()
    }

    /// The next event that was decoded.
    pub fn next_event(&mut self) -> Option<BackupEvent> {
        self.pending.pop_front()
    }

    /// Takes the session's next event; what it means comes out of
    /// [`next_event`](Self::next_event).
    ///
    /// # Errors
    /// If the event cannot come now, or is malformed.
    pub fn handle(&mut self, event: Event) -> Result<(), Error> {
        match (self.state, event) {
            (_, Event::Notice(notice)) => self.note_warning(notice),
            // The first is the cause of those that follow.
            (_, Event::Error(error)) => {
                self.failure.get_or_insert(error);
            }
            (_, Event::Ready) => self.state = State::Finished,
            (State::Finished, _) => return Err(out_of_order()),
            (_, Event::Columns(columns)) => self.begin_rows(columns),
            (_, Event::Row(row)) => self.add_row(row)?,
            (_, Event::Complete) => self.complete_rows()?,
            (State::Between, Event::CopyOut) => self.begin_copy()?,
            (State::Archive, Event::CopyData(data)) if !data.is_empty() => {
                self.pending.push_back(BackupEvent::ArchiveData(data));
            }
            (State::Manifest, Event::CopyData(data)) if !data.is_empty() => {
                self.pending.push_back(BackupEvent::ManifestData(data));
            }
            // Some servers send empty pieces.
            (State::Archive | State::Manifest, Event::CopyData(_)) => {}
            (State::Typed(part), Event::CopyData(data)) => self.typed(part, data)?,
            (State::Archive | State::Typed(Some(Part::Archive)), Event::CopyDone) => {
                if self.to_client {
                    self.pending.push_back(BackupEvent::ArchiveEnd);
                }
                self.state = State::Between;
            }
            (State::Manifest | State::Typed(_), Event::CopyDone) => self.state = State::Between,
            _ => return Err(out_of_order()),
        }
        Ok(())
    }

    fn note_warning(&mut self, notice: ServerError) {
        let details = notice.detail.iter().chain(&notice.hint).chain(&notice.context);
        let text = notice.message.len() + details.map(String::len).sum::<usize>();
        if notice.severity == "WARNING"
            && self.warnings.len() < MAX_WARNINGS
            && self.warning_text + text <= MAX_WARNING_TEXT
        {
            self.warning_text += text;
            self.warnings.push(notice);
        }
    }

    fn begin_rows(&mut self, columns: Columns) {
        self.rows.columns = columns;
        self.rows.rows.clear();
        self.rows_memory = 0;
    }

    fn add_row(&mut self, row: Row) -> Result<(), Error> {
        self.rows_memory += row.memory();
        if self.rows_memory > MAX_ROWS {
            let (length, limit) = (self.rows_memory as u64, MAX_ROWS as u64);
            return Err(Violation::TooLong { length, limit }.into());
        }
        self.rows.rows.push(row);
        Ok(())
    }

    fn complete_rows(&mut self) -> Result<(), Error> {
        if self.rows.rows.is_empty() {
            return Ok(());
        }
        match self.state {
            State::Start => {
                let (lsn, timeline) = self.position()?;
                self.start = Some(BackupStart { lsn, timeline });
                self.state = State::Tablespaces;
            }
            State::Tablespaces => {
                self.tablespaces = self.decode_tablespaces()?;
                self.expected = self.tablespaces.iter().map(archive_of).collect();
                self.state = State::Between;
            }
            State::Between if self.expected.is_empty() && !self.awaits_manifest => {
                let (lsn, timeline) = self.position()?;
                self.end = Some(BackupEnd { lsn, timeline });
                self.state = State::Ended;
            }
            State::Between => {
                return Err(Violation::Backup("it lacks an archive or its manifest").into());
            }
            _ => return Err(out_of_order()),
        }
        self.rows.rows.clear();
        Ok(())
    }

    fn position(&self) -> Result<(Lsn, TimelineId), Violation> {
        Ok((self.rows.required("recptr")?, self.rows.required("tli")?))
    }

    fn decode_tablespaces(&self) -> Result<Vec<BackupTablespace>, Violation> {
        let column = |name: &'static str| {
            let error = Violation::Column { command: "BASE_BACKUP", column: name };
            self.rows.columns.position(name).ok_or(error)
        };
        let (oid, location, size) = (column("spcoid")?, column("spclocation")?, column("size")?);
        let number = |row: &Row, position: usize, name: &'static str| {
            row.bytes(position)
                .map(|_| row.text(position).and_then(|text| text.parse::<u64>().ok()))
                .map(|value| {
                    value.ok_or(Violation::Column { command: "BASE_BACKUP", column: name })
                })
                .transpose()
        };
        let decode = |row: &Row| {
            let oid = number(row, oid, "spcoid")?
                .map(u32::try_from)
                .transpose()
                .map_err(|_| Violation::Column { command: "BASE_BACKUP", column: "spcoid" })?;
            Ok(BackupTablespace {
                oid,
                location: row.bytes(location).map(|l| String::from_utf8_lossy(l).into_owned()),
                size_kb: number(row, size, "size")?,
            })
        };
        let tablespaces: Vec<_> = self.rows.rows.iter().map(decode).collect::<Result<_, _>>()?;
        let distinct: BTreeSet<_> = tablespaces.iter().map(|tablespace| tablespace.oid).collect();
        if distinct.len() != tablespaces.len() {
            return Err(Violation::Backup("two tablespaces are the same"));
        }
        Ok(tablespaces)
    }

    fn begin_copy(&mut self) -> Result<(), Error> {
        self.state = match self.generation {
            Generation::TypedMessages if self.expected.is_empty() => {
                return Err(Violation::Backup("it has too many archives").into());
            }
            Generation::TypedMessages => State::Typed(None),
            Generation::CopyPerArchive => match self.expected.pop_front() {
                Some(archive) => {
                    self.pending.push_back(BackupEvent::ArchiveStart(archive));
                    State::Archive
                }
                None if std::mem::take(&mut self.awaits_manifest) => {
                    self.pending.push_back(BackupEvent::ManifestStart);
                    State::Manifest
                }
                None => return Err(Violation::Backup("it has too many archives").into()),
            },
        };
        Ok(())
    }

    fn typed(&mut self, part: Option<Part>, mut message: Bytes) -> Result<(), Error> {
        let malformed = |problem| DecodeError { message: "backup message", problem };
        let kind = message.try_get_u8().map_err(|_| malformed("it is empty"))?;
        match (kind, part) {
            (b'n', None | Some(Part::Archive)) => {
                let name = cstring(&mut message).ok_or_else(|| malformed("it has no name"))?;
                let location =
                    cstring(&mut message).ok_or_else(|| malformed("it has no location"))?;
                let archive = self.named_archive(&name, location)?;
                self.begin_part(part, Part::Archive, BackupEvent::ArchiveStart(archive));
            }
            (b'm', None | Some(Part::Archive)) if std::mem::take(&mut self.awaits_manifest) => {
                self.begin_part(part, Part::Manifest, BackupEvent::ManifestStart);
            }
            (b'd', Some(part)) => {
                let data = message.split_to(message.len());
                match part {
                    _ if data.is_empty() => {}
                    _ if !self.to_client => {
                        return Err(Violation::Backup("its data were to go elsewhere").into());
                    }
                    Part::Archive => self.pending.push_back(BackupEvent::ArchiveData(data)),
                    Part::Manifest => self.pending.push_back(BackupEvent::ManifestData(data)),
                }
            }
            (b'p', _) => {
                let done = message.try_get_u64().map_err(|_| malformed("it is too short"))?;
                self.pending.push_back(BackupEvent::Progress(done));
            }
            (b'n' | b'm' | b'd', _) => return Err(out_of_order()),
            _ => return Err(malformed("its kind is unknown").into()),
        }
        if message.has_remaining() {
            return Err(malformed("it is too long").into());
        }
        Ok(())
    }

    /// Ends the part before, and begins another.
    fn begin_part(&mut self, before: Option<Part>, next: Part, event: BackupEvent) {
        if self.to_client {
            let end = before.map(|_| BackupEvent::ArchiveEnd);
            self.pending.extend(end.into_iter().chain([event]));
        }
        self.state = State::Typed(Some(next));
    }

    /// The archive that the server announced by name, checked against the tablespaces that it
    /// announced before. Each comes once.
    fn named_archive(&mut self, name: &str, location: String) -> Result<Archive, Error> {
        let suffix = self.compression.map_or("", CompressionMethod::suffix);
        let stem = name.strip_suffix(suffix).and_then(|name| name.strip_suffix(".tar"));
        let oid = match stem {
            Some("base") => None,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some(
                digits.parse().map_err(|_| Violation::Backup("an archive's name is impossible"))?,
            ),
            _ => return Err(Violation::Backup("an archive's name is impossible").into()),
        };
        let position = self.expected.iter().position(|archive| archive.tablespace == oid);
        let expected = position.and_then(|position| self.expected.remove(position));
        let expected = expected.ok_or(Violation::Backup("an archive belongs to no tablespace"))?;
        let location = (!location.is_empty()).then_some(location);
        let name = expected.name + suffix;
        Ok(Archive { name, location, compression: self.compression, terminated: true, ..expected })
    }
}

fn archive_of(tablespace: &BackupTablespace) -> Archive {
    Archive {
        name: tablespace.oid.map_or_else(|| "base.tar".to_owned(), |oid| format!("{oid}.tar")),
        tablespace: tablespace.oid,
        location: tablespace.location.clone(),
        compression: None,
        terminated: false,
    }
}

fn out_of_order() -> Error {
    Violation::Backup("a message came out of order").into()
}

fn cstring(bytes: &mut Bytes) -> Option<String> {
    let end = bytes.iter().position(|&b| b == 0)?;
    let text = String::from_utf8_lossy(&bytes.split_to(end)).into_owned();
    bytes.advance(1);
    Some(text)
}
