//! Reading a manifest while it arrives.

use std::mem;

use sha2::{Digest, Sha256};

use super::json::{EndOfObject, Refusal};
use super::write::last_line;
use super::{ManifestError, ManifestItem, entry, hex};

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
/// Entries are found by the structure of the JSON, not by lines, and are flat, so that the first
/// `}` outside a text ends one.
///
/// # What is accepted
///
/// Everything that a server or `pg_combinebackup` writes. Like PostgreSQL's own reader, it does not
/// care about white space, but for the last line; takes numbers in quotes; does not need
/// `Last-Modified`; and takes `NONE` for an algorithm. Unlike it, it refuses what no server writes
/// and what would only be found later, or never: parts, fields of an entry, or checksums that are
/// there twice or do not fit, a manifest without WAL ranges, timeline 0, and anything but the
/// checksum on the last line, which no checksum covers.
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
    /// Behind the `{` of an entry.
    Entry {
        list: Member,
        end: EndOfObject,
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
    ///
    /// # Errors
    /// If they cannot follow in a manifest.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<ManifestItem>, ManifestError> {
        self.lines.update(bytes);
        let mut items = Vec::new();
        let mut rest = bytes;
        while let Some((&byte, behind)) = rest.split_first() {
            if let State::Entry { list, end } = &mut self.state {
                let (list, end) = (*list, end.find(rest));
                let (part, behind) = rest.split_at(end.unwrap_or(rest.len()));
                self.position += part.len() as u64;
                if self.piece.len() + part.len() > ENTRY_LIMIT {
                    return Err(ManifestError::TooLong { at: self.position, limit: ENTRY_LIMIT });
                }
                if end.is_none() || !self.piece.is_empty() {
                    self.piece.extend_from_slice(part);
                }
                if end.is_some() {
                    self.state = State::AfterItem(list);
                    items.push(self.entry(list, part)?);
                }
                rest = behind;
            } else {
                items.extend(self.step(byte)?);
                self.position += 1;
                rest = behind;
            }
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
        let between = !matches!(self.state, State::Key | State::Number(_) | State::ChecksumText);
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
            (State::Item { list, .. }, b'{') => State::Entry { list, end: EndOfObject::default() },
            (State::Item { first: true, .. } | State::AfterItem(_), b']') => State::AfterMember,
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

    /// Reads the entry that is collected or, if it came in one piece, is `whole`.
    fn entry(&mut self, list: Member, whole: &[u8]) -> Result<ManifestItem, ManifestError> {
        let body = if self.piece.is_empty() { whole } else { &self.piece };
        let item = match list {
            Member::WalRanges => entry::wal_range(body).map(ManifestItem::WalRange),
            _ => entry::file(body).map(ManifestItem::File),
        };
        let item = item.map_err(|Refusal { at, reason }| ManifestError::Entry {
            at: self.position - body.len().saturating_sub(at.unwrap_or(0)) as u64,
            reason: reason.into_owned(),
        });
        self.piece.clear();
        item
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
        let Some((_, before_last)) = bytes.split_last() else { return };
        if self.at_start {
            self.begin();
        }
        // Only the last line that begins here can be the last of all.
        let mut line = bytes;
        if let Some(at) = before_last.iter().rposition(|&byte| byte == b'\n') {
            let (before, after) = bytes.split_at(at + 1);
            self.all.update(before);
            self.begin();
            line = after;
        }
        self.all.update(line);
        let room = Self::LAST_LIMIT.saturating_sub(self.last.len());
        self.last.extend(line.iter().take(room));
        self.at_start = bytes.ends_with(b"\n");
    }

    fn begin(&mut self) {
        self.before_last = self.all.clone();
        self.last.clear();
    }

    fn verify(self, end: u64) -> Result<(), ManifestError> {
        let computed = hex::text(&self.before_last.finalize());
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
