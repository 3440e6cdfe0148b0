//! Reading a manifest while it arrives.

use std::mem;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::hex::{from_hex, hex};
use super::write::last_line;
use super::{ChecksumAlgorithm, ManifestError, ManifestFile, ManifestItem, WalRange};
use crate::{Lsn, TimelineId};

/// The longest entry that is taken: a path of `PATH_MAX` bytes with every byte escaped, and then
/// some.
const ENTRY_LIMIT: usize = 64 * 1024;

/// A push parser for a manifest. Holds one entry at a time, however long the manifest is.
///
/// Feed the bytes as they come, in pieces of any size, then call [`finish`](Self::finish): what
/// the items say is to be believed only when that succeeds. An error is final.
///
/// ```text
/// Open ──`{`──▶ Member ──key──▶ Colon ──▶ Value ─┬─ number or text ─▶ AfterMember ─┬─`,`─▶ Member
///                                                └─`[`─▶ Item ──▶ AfterItem ─`]`──▲└─`}`─▶ Closed
/// ```
///
/// Entries are found by the structure of the JSON, not by lines, and are then handed to a JSON
/// parser one by one. They are flat, so that the first `}` outside a text ends one.
#[derive(Debug)]
pub struct ManifestReader {
    state: State,
    /// The key, number or entry that is being collected.
    piece: Vec<u8>,
    position: u64,
    version: Option<u32>,
    seen: Vec<Member>,
    lines: Lines,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Version,
    SystemId,
    Files,
    WalRanges,
    Checksum,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Open,
    Member,
    Key,
    Colon(Member),
    Value(Member),
    Number(Member),
    ChecksumText,
    /// `first`: the list may end here.
    Item {
        list: Member,
        first: bool,
    },
    Entry {
        list: Member,
        in_text: bool,
        escaped: bool,
    },
    AfterItem(Member),
    AfterMember,
    Closed,
}

impl Default for ManifestReader {
    fn default() -> Self {
        Self::new()
    }
}

impl ManifestReader {
    /// A reader at the start of a manifest.
    pub fn new() -> Self {
        Self {
            state: State::Open,
            piece: Vec::new(),
            position: 0,
            version: None,
            seen: Vec::new(),
            lines: Lines::new(),
        }
    }

    /// Takes the next bytes in, and returns the items that end in them.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<ManifestItem>, ManifestError> {
        self.lines.update(bytes);
        let mut items = Vec::new();
        for &byte in bytes {
            items.extend(self.step(byte)?);
            self.position += 1;
        }
        Ok(items)
    }

    /// Verifies that the manifest is complete and that its checksum is right.
    pub fn finish(self) -> Result<(), ManifestError> {
        if !matches!(self.state, State::Closed) {
            return Err(ManifestError::Incomplete { missing: "its end" });
        }
        let required = [
            (Member::Version, "the version"),
            (Member::Files, "the list of files"),
            (Member::WalRanges, "the list of WAL ranges"),
            (Member::Checksum, "the checksum"),
        ];
        for (member, missing) in required {
            if !self.seen.contains(&member) {
                return Err(ManifestError::Incomplete { missing });
            }
        }
        if self.version == Some(2) && !self.seen.contains(&Member::SystemId) {
            return Err(ManifestError::Incomplete { missing: "the system identifier" });
        }
        self.lines.verify(self.position)
    }

    fn step(&mut self, byte: u8) -> Result<Option<ManifestItem>, ManifestError> {
        // Between the parts, white space means nothing; within one, it is collected.
        let between = !matches!(
            self.state,
            State::Key | State::Number(_) | State::ChecksumText | State::Entry { .. }
        );
        if between && matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            return Ok(None);
        }
        self.state = match (self.state, byte) {
            (State::Open, b'{') => State::Member,
            (State::Member, b'"') => State::Key,
            (State::Key, b'"') => State::Colon(self.key()?),
            (State::Key, _) => {
                self.collect(byte)?;
                State::Key
            }
            (State::Colon(member), b':') => State::Value(member),
            (State::Value(list @ (Member::Files | Member::WalRanges)), b'[') => {
                State::Item { list, first: true }
            }
            (State::Value(Member::Checksum), b'"') => State::ChecksumText,
            (State::Value(member @ (Member::Version | Member::SystemId)), b'0'..=b'9')
            | (State::Number(member), b'0'..=b'9') => {
                self.collect(byte)?;
                State::Number(member)
            }
            (State::Number(member), b',' | b'}' | b' ' | b'\t' | b'\n' | b'\r') => {
                let item = self.number(member)?;
                self.state = State::AfterMember;
                self.step(byte)?;
                return Ok(Some(item));
            }
            (State::ChecksumText, b'"') => State::AfterMember,
            // Compared as a part of the last line.
            (State::ChecksumText, b'0'..=b'9' | b'a'..=b'f') => State::ChecksumText,
            (State::Item { list, .. }, b'{') => {
                self.collect(byte)?;
                State::Entry { list, in_text: false, escaped: false }
            }
            (State::Item { first: true, .. } | State::AfterItem(_), b']') => State::AfterMember,
            (State::Entry { list, in_text: false, .. }, b'}') => {
                self.collect(byte)?;
                self.state = State::AfterItem(list);
                return self.entry(list).map(Some);
            }
            (State::Entry { list, in_text, escaped }, _) => {
                self.collect(byte)?;
                State::Entry {
                    list,
                    in_text: in_text != (byte == b'"' && !escaped),
                    escaped: in_text && !escaped && byte == b'\\',
                }
            }
            (State::AfterItem(list), b',') => State::Item { list, first: false },
            (State::AfterMember, b',') => State::Member,
            (State::AfterMember, b'}') => State::Closed,
            (state, _) => return Err(self.malformed(state.rule())),
        };
        Ok(None)
    }

    fn collect(&mut self, byte: u8) -> Result<(), ManifestError> {
        if self.piece.len() >= ENTRY_LIMIT {
            return Err(ManifestError::TooLong { at: self.position, limit: ENTRY_LIMIT });
        }
        self.piece.push(byte);
        Ok(())
    }

    fn key(&mut self) -> Result<Member, ManifestError> {
        let member = match mem::take(&mut self.piece).as_slice() {
            b"PostgreSQL-Backup-Manifest-Version" => Member::Version,
            b"System-Identifier" if self.version != Some(1) => Member::SystemId,
            b"Files" => Member::Files,
            b"WAL-Ranges" => Member::WalRanges,
            b"Manifest-Checksum" => Member::Checksum,
            _ => return Err(self.malformed("the name of this part is unknown")),
        };
        if self.seen.is_empty() != (member == Member::Version) {
            return Err(self.malformed("the version comes first, and once"));
        }
        if self.seen.contains(&member) {
            return Err(self.malformed("this part is there twice"));
        }
        self.seen.push(member);
        Ok(member)
    }

    fn number(&mut self, member: Member) -> Result<ManifestItem, ManifestError> {
        let digits = String::from_utf8_lossy(&mem::take(&mut self.piece)).into_owned();
        if member == Member::SystemId {
            return match digits.parse() {
                Ok(id) => Ok(ManifestItem::SystemId(id)),
                Err(_) => Err(self.malformed("the system identifier is a number of 64 bits")),
            };
        }
        match digits.parse() {
            Ok(version @ (1 | 2)) => {
                self.version = Some(version);
                Ok(ManifestItem::Version(version))
            }
            _ => Err(ManifestError::UnknownVersion { version: digits.chars().take(20).collect() }),
        }
    }

    fn entry(&mut self, list: Member) -> Result<ManifestItem, ManifestError> {
        let piece = mem::take(&mut self.piece);
        let item = match list {
            Member::WalRanges => wal_range(&piece).map(ManifestItem::WalRange),
            _ => file(&piece).map(ManifestItem::File),
        };
        // The allocation serves the next entry.
        self.piece = piece;
        self.piece.clear();
        item.map_err(|reason| ManifestError::Entry { at: self.position, reason })
    }

    fn malformed(&self, rule: &'static str) -> ManifestError {
        ManifestError::Malformed { at: self.position, rule }
    }
}

impl State {
    /// What the state waits for.
    fn rule(self) -> &'static str {
        match self {
            Self::Open => "a manifest begins with `{`",
            Self::Member | Self::Key => "the name of a part is expected here",
            Self::Colon(_) => "`:` is expected here",
            Self::Value(Member::Version | Member::SystemId) | Self::Number(_) => {
                "a number is expected here"
            }
            Self::Value(Member::Files | Member::WalRanges) => "`[` is expected here",
            Self::Value(Member::Checksum) | Self::ChecksumText => {
                "a checksum in lower-case hexadecimal is expected here"
            }
            Self::Item { .. } | Self::Entry { .. } => "`{` is expected here",
            Self::AfterItem(_) => "`,` or `]` is expected here",
            Self::AfterMember => "`,` or `}` is expected here",
            Self::Closed => "nothing may follow the manifest",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Last-Modified")]
    modified: String,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<String>,
    #[serde(rename = "Checksum")]
    checksum: Option<String>,
}

fn file(json: &[u8]) -> Result<ManifestFile, String> {
    let entry: FileEntry = serde_json::from_slice(json).map_err(|err| err.to_string())?;
    let path = match (entry.path, entry.encoded_path) {
        (Some(path), None) => path.into_bytes(),
        (None, Some(encoded)) => from_hex(&encoded).ok_or("the encoded path is not hexadecimal")?,
        (Some(_), Some(_)) => return Err("the file has a path and an encoded path".to_owned()),
        (None, None) => return Err("the file has no path".to_owned()),
    };
    if path.is_empty() {
        return Err("the path of the file is empty".to_owned());
    }
    let checksum = match (entry.algorithm, entry.checksum) {
        (None, None) => None,
        (Some(algorithm), Some(checksum)) => {
            let algorithm: ChecksumAlgorithm = algorithm
                .parse()
                .map_err(|err: super::UnknownChecksumAlgorithm| err.to_string())?;
            let digest = from_hex(&checksum)
                .filter(|digest| digest.len() == algorithm.digest_len())
                .ok_or_else(|| format!("the checksum is not one of {algorithm}"))?;
            Some((algorithm, digest))
        }
        _ => return Err("a checksum and its algorithm belong together".to_owned()),
    };
    Ok(ManifestFile { path, size: entry.size, modified: entry.modified, checksum })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RangeEntry {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: String,
    #[serde(rename = "End-LSN")]
    end: String,
}

fn wal_range(json: &[u8]) -> Result<WalRange, String> {
    let entry: RangeEntry = serde_json::from_slice(json).map_err(|err| err.to_string())?;
    let lsn = |text: &str| text.parse::<Lsn>().map_err(|err| err.to_string());
    Ok(WalRange {
        timeline: TimelineId::new(entry.timeline).ok_or("timeline 0 does not exist")?,
        start: lsn(&entry.start)?,
        end: lsn(&entry.end)?,
    })
}

/// The checksum of all lines but the last, and the last line.
#[derive(Debug)]
struct Lines {
    all: Sha256,
    before_last: Sha256,
    last: Vec<u8>,
    at_start: bool,
}

impl Lines {
    /// Longer than the last line of any manifest.
    const LAST_LIMIT: usize = 128;

    fn new() -> Self {
        Self { all: Sha256::new(), before_last: Sha256::new(), last: Vec::new(), at_start: true }
    }

    fn update(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.at_start {
                self.before_last = self.all.clone();
                self.last.clear();
            }
            self.all.update(part);
            let room = Self::LAST_LIMIT.saturating_sub(self.last.len());
            self.last.extend(part.iter().take(room));
            self.at_start = part.ends_with(b"\n");
        }
    }

    fn verify(self, end: u64) -> Result<(), ManifestError> {
        let computed = hex(&self.before_last.finalize());
        if self.last == last_line(&computed).as_bytes() {
            return Ok(());
        }
        let stated = String::from_utf8_lossy(&self.last).into_owned();
        match stated.strip_prefix("\"Manifest-Checksum\": \"").and_then(|s| s.strip_suffix("\"}\n"))
        {
            Some(stated) => Err(ManifestError::Altered { stated: stated.to_owned(), computed }),
            None => Err(ManifestError::Malformed {
                at: end,
                rule: "the last line is the checksum and nothing else",
            }),
        }
    }
}
