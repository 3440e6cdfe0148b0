//! Reads the tar archives that PostgreSQL sends, as they arrive: bytes in, members out.
//!
//! Knows no files and no sockets. PostgreSQL writes plain ustar headers for files and directories
//! (tablespace links travel in `tablespace_map`), so everything else a tar may hold is refused:
//! links, devices, sparse files, and the extension headers that readers disagree about.
//!
//! Follows `src/backend/backup/basebackup.c` and `src/port/tar.c`.

// By its path, because the fuzz targets take this file alone.
#[cfg(any(test, feature = "fuzzing"))]
#[path = "tar/fuzzing.rs"]
pub mod fuzzing;

pub use tar_core::HEADER_SIZE;
use tar_core::{EntryType, Header, HeaderError};

/// The zero blocks at the end of an archive, which servers before 15 do not send.
pub const TERMINATOR: [u8; 2 * HEADER_SIZE] = [0; 2 * HEADER_SIZE];

/// What a member of an archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
}

/// The header of a file or directory in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it belongs, relative to the root of the archive: at least one component, none of
    /// them empty, `.` or `..`; no leading or trailing slash.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: MemberKind,
    /// How many bytes of content follow; 0 for a directory.
    pub size: u64,
    /// The permission bits.
    pub mode: u32,
    /// When it was last changed, in seconds since 1970-01-01.
    pub modified: u64,
    /// Where in the archive its header begins.
    pub header_at: u64,
}

/// What [`TarReader::feed`] found next.
#[derive(Debug, PartialEq, Eq)]
pub enum TarEvent<'a> {
    /// A file or directory begins.
    Member(Member),
    /// The next bytes of the file that began last.
    Content(&'a [u8]),
    /// The member that began last is complete. Comes behind every member.
    MemberEnd,
}

/// Why bytes are not an archive as PostgreSQL sends it.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The header is damaged.
    #[error("the tar header at byte {at} is damaged")]
    Header {
        /// Where in the archive the header begins.
        at: u64,
        /// What is wrong with it.
        source: HeaderError,
    },
    /// The header is not of the format that PostgreSQL writes.
    #[error("the tar header at byte {at} is not in the ustar format that PostgreSQL writes")]
    Format {
        /// Where in the archive the header begins.
        at: u64,
    },
    /// The member is something that PostgreSQL does not send.
    #[error(
        "`{path}` in the archive is {what}; PostgreSQL sends only regular files and directories"
    )]
    Kind {
        /// The member's name.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// The name would leave the directory that the archive belongs to.
    #[error("`{path}` in the archive is not a path inside of it")]
    Path {
        /// The member's name.
        path: String,
    },
    /// The archive breaks off.
    #[error("the archive ends in the middle of a member, after {at} bytes")]
    Truncated {
        /// How many bytes there were.
        at: u64,
    },
    /// There is more behind the zero blocks that end the archive.
    #[error("the archive goes on behind its end mark, at byte {at}")]
    Trailing {
        /// Where the first such byte lies.
        at: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Collects a header block.
    Header,
    /// So many bytes of content are still to come, then so many of padding.
    Content { left: u64, padding: u64 },
    /// Skips the zeros between a member and the next header.
    Padding { left: u64 },
    /// Behind the first zero block: nothing but zeros may follow.
    End { zeros: u64 },
}

/// A push parser for one archive.
///
/// ```text
///   ┌────────► Header ──zero block──► End
///   │            │ Member
///   │            ▼
///   │         Content ──MemberEnd──┐
///   │            ▲ (Content)*      ▼
///   └────────────┴────────────── Padding
/// ```
#[derive(Debug)]
pub struct TarReader {
    state: State,
    block: [u8; HEADER_SIZE],
    filled: usize,
    position: u64,
}

impl Default for TarReader {
    fn default() -> Self {
        Self::new()
    }
}

impl TarReader {
    /// A reader at the first byte of an archive.
    pub fn new() -> Self {
        Self { state: State::Header, block: [0; HEADER_SIZE], filled: 0, position: 0 }
    }

    /// How many bytes of the archive have been read.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Takes bytes from the front of `input` up to the next event. `None` means that all of
    /// `input` has been taken and more is needed.
    ///
    /// # Errors
    /// If the bytes are not an archive as PostgreSQL sends it. The reader is of no use afterwards.
    pub fn feed<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<TarEvent<'a>>, TarError> {
        loop {
            match self.state {
                State::Header => match self.header(input)? {
                    Some(event) => return Ok(Some(event)),
                    None if self.state == State::Header => return Ok(None),
                    None => {}
                },
                State::Content { left: 0, padding } => {
                    self.state = State::Padding { left: padding };
                    return Ok(Some(TarEvent::MemberEnd));
                }
                State::Content { left, padding } => {
                    let taken = self.take(input, left);
                    if taken.is_empty() {
                        return Ok(None);
                    }
                    self.state = State::Content { left: left - taken.len() as u64, padding };
                    return Ok(Some(TarEvent::Content(taken)));
                }
                State::Padding { left: 0 } => self.state = State::Header,
                State::Padding { left } => {
                    let taken = self.take(input, left);
                    if taken.is_empty() {
                        return Ok(None);
                    }
                    self.state = State::Padding { left: left - taken.len() as u64 };
                }
                State::End { zeros } => {
                    let at = self.position;
                    let rest = self.take(input, u64::MAX);
                    if let Some(offset) = rest.iter().position(|&byte| byte != 0) {
                        return Err(TarError::Trailing { at: at + offset as u64 });
                    }
                    self.state = State::End { zeros: zeros + rest.len() as u64 };
                    return Ok(None);
                }
            }
        }
    }

    /// Says that there are no more bytes. The answer is whether the archive carried the zero
    /// blocks that end it; if not, [`TERMINATOR`] is what it lacks.
    ///
    /// # Errors
    /// If the archive breaks off within a member or a header.
    pub fn finish(self) -> Result<bool, TarError> {
        match self.state {
            State::Header | State::Padding { left: 0 } if self.filled == 0 => Ok(false),
            State::End { zeros } if zeros >= TERMINATOR.len() as u64 => Ok(true),
            _ => Err(TarError::Truncated { at: self.position }),
        }
    }

    /// Takes at most `limit` bytes.
    fn take<'a>(&mut self, input: &mut &'a [u8], limit: u64) -> &'a [u8] {
        let length = usize::try_from(limit).unwrap_or(usize::MAX).min(input.len());
        let (taken, rest) = input.split_at(length);
        *input = rest;
        self.position += length as u64;
        taken
    }

    /// Completes a header block if it can.
    fn header<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<TarEvent<'a>>, TarError> {
        let taken = self.take(input, (HEADER_SIZE - self.filled) as u64);
        for (to, from) in self.block.iter_mut().skip(self.filled).zip(taken) {
            *to = *from;
        }
        self.filled += taken.len();
        if self.filled < HEADER_SIZE {
            return Ok(None);
        }
        self.filled = 0;
        if self.block.iter().all(|&byte| byte == 0) {
            self.state = State::End { zeros: HEADER_SIZE as u64 };
            return Ok(None);
        }
        let member = decode(&self.block, self.position - HEADER_SIZE as u64)?;
        let padding = member.size.wrapping_neg() % HEADER_SIZE as u64;
        self.state = State::Content { left: member.size, padding };
        Ok(Some(TarEvent::Member(member)))
    }
}

fn decode(block: &[u8; HEADER_SIZE], at: u64) -> Result<Member, TarError> {
    let damaged = |source| TarError::Header { at, source };
    let header = Header::from_bytes(block);
    header.verify_checksum().map_err(damaged)?;
    if !header.is_ustar() || header.prefix().is_some_and(|prefix| !prefix.is_empty()) {
        return Err(TarError::Format { at });
    }
    let name = header.path_bytes();
    let size = header.entry_size().map_err(damaged)?;
    let kind = match header.entry_type() {
        EntryType::Regular => MemberKind::File,
        EntryType::Directory => MemberKind::Directory,
        other => return Err(TarError::Kind { path: lossy(name), what: describe(other) }),
    };
    if kind == MemberKind::Directory && size != 0 {
        return Err(TarError::Kind { path: lossy(name), what: "a directory with content" });
    }
    // Room for the padding behind the content, which is less than a block.
    if size > u64::MAX - HEADER_SIZE as u64 {
        return Err(TarError::Format { at });
    }
    Ok(Member {
        path: inner_path(name).ok_or_else(|| TarError::Path { path: lossy(name) })?,
        kind,
        size,
        mode: header.mode().map_err(damaged)? & 0o7777,
        modified: header.mtime().map_err(damaged)?,
        header_at: at,
    })
}

/// The name without the `./` that PostgreSQL puts before a few directories and the `/` behind
/// every one; `None` if it is not the plain relative path that it must be.
fn inner_path(name: &[u8]) -> Option<Vec<u8>> {
    let name = name.strip_prefix(b"./").unwrap_or(name);
    let name = name.strip_suffix(b"/").unwrap_or(name);
    let plain = name
        .split(|&byte| byte == b'/')
        .all(|part| !matches!(part, b"" | b"." | b"..") && !part.contains(&0));
    plain.then(|| name.to_vec())
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn describe(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Link => "a hard link",
        EntryType::Symlink => "a symbolic link",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Fifo => "a named pipe",
        EntryType::GnuSparse => "a sparse file",
        EntryType::GnuLongName
        | EntryType::GnuLongLink
        | EntryType::XHeader
        | EntryType::XGlobalHeader => "an extension header",
        _ => "of an unknown kind",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Contents = Vec<(Member, Vec<u8>)>;

    /// What a reader says about `archive`, fed in pieces of `step` bytes.
    fn read(archive: &[u8], step: usize) -> Result<(Contents, bool), TarError> {
        let mut reader = TarReader::new();
        let mut members = Contents::new();
        let mut open = false;
        for mut piece in archive.chunks(step) {
            while let Some(event) = reader.feed(&mut piece)? {
                match event {
                    TarEvent::Member(member) => {
                        assert!(!open);
                        open = true;
                        members.push((member, Vec::new()));
                    }
                    TarEvent::Content(bytes) => {
                        assert!(open && !bytes.is_empty());
                        members.last_mut().unwrap().1.extend_from_slice(bytes);
                    }
                    TarEvent::MemberEnd => {
                        assert!(open);
                        open = false;
                    }
                }
            }
            assert!(piece.is_empty());
        }
        assert_eq!(reader.position(), archive.len() as u64);
        Ok((members, reader.finish()?))
    }

    fn header(name: &str, kind: tar::EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        // Written as bytes: the crate itself refuses the hostile names wanted here.
        header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o600);
        header.set_mtime(1_772_723_493);
        header.set_cksum();
        header
    }

    fn archive(members: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, kind, content) in members {
            bytes.extend_from_slice(header(name, *kind, content.len() as u64).as_bytes());
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        bytes
    }

    const FILE: tar::EntryType = tar::EntryType::Regular;
    const DIRECTORY: tar::EntryType = tar::EntryType::Directory;

    #[test]
    fn reads_files_and_directories_in_any_pieces() {
        let long = vec![7; 1300];
        let mut bytes = archive(&[
            ("backup_label", FILE, b"START"),
            ("./pg_wal/archive_status/", DIRECTORY, b""),
            ("empty", FILE, b""),
            ("base/1/1259", FILE, &long),
            ("exact", FILE, &[1; 512]),
        ]);
        let unterminated = read(&bytes, 4096).unwrap();
        assert!(!unterminated.1);
        bytes.extend_from_slice(&TERMINATOR);
        for step in [1, 511, 512, 513, 100_000] {
            let (members, terminated) = read(&bytes, step).unwrap();
            assert!(terminated);
            assert_eq!(members, unterminated.0);
        }
        let (members, _) = unterminated;
        let names: Vec<&[u8]> = members.iter().map(|(member, _)| &member.path[..]).collect();
        let expected: [&[u8]; 5] =
            [b"backup_label", b"pg_wal/archive_status", b"empty", b"base/1/1259", b"exact"];
        assert_eq!(names, expected);
        assert_eq!(members[3].1, long);
        assert_eq!(members[1].0.kind, MemberKind::Directory);
        assert_eq!(members[1].0.header_at, 1024);
        assert_eq!((members[0].0.mode, members[0].0.modified), (0o600, 1_772_723_493));
    }

    #[test]
    fn refuses_what_postgresql_does_not_send() {
        use tar::EntryType as Kind;
        for kind in [
            Kind::Link,
            Kind::Symlink,
            Kind::Char,
            Kind::Block,
            Kind::Fifo,
            Kind::GNUSparse,
            Kind::GNULongName,
            Kind::XHeader,
            Kind::XGlobalHeader,
            Kind::new(b'?'),
        ] {
            let error = read(&archive(&[("name", kind, b"")]), 512).unwrap_err();
            assert!(matches!(error, TarError::Kind { .. }), "{kind:?}: {error}");
        }
        let error = read(&archive(&[("dir/", DIRECTORY, b"content")]), 512).unwrap_err();
        assert!(matches!(error, TarError::Kind { .. }));
    }

    #[test]
    fn refuses_paths_that_lead_out() {
        for name in ["/etc/passwd", "../x", "a/../../x", "a/..", "..", ".", "", "./", "a//b", "/"] {
            let error = read(&archive(&[(name, FILE, b"")]), 512).unwrap_err();
            assert!(matches!(error, TarError::Path { .. }), "{name}: {error}");
        }
    }

    #[test]
    fn refuses_damage() {
        let good = archive(&[("name", FILE, b"content")]);
        let mut flipped = good.clone();
        flipped[100] ^= 1;
        assert!(matches!(read(&flipped, 512), Err(TarError::Header { at: 0, .. })));
        for length in [1, 511, 512, 518, 1023] {
            let error = read(&good[..length], 512).unwrap_err();
            assert!(matches!(error, TarError::Truncated { at } if at == length as u64), "{length}");
        }
        let mut half_end = good.clone();
        half_end.extend_from_slice(&[0; 512]);
        assert!(matches!(read(&half_end, 512), Err(TarError::Truncated { .. })));
        half_end.extend_from_slice(&good);
        assert!(matches!(read(&half_end, 512), Err(TarError::Trailing { at: 1536 })));
    }

    #[test]
    fn a_prefix_or_gnu_header_is_refused() {
        let mut prefixed = header("name", FILE, 0);
        prefixed.as_ustar_mut().unwrap().prefix[0] = b'x';
        prefixed.set_cksum();
        assert!(matches!(read(prefixed.as_bytes(), 512), Err(TarError::Format { at: 0 })));
        let mut gnu = tar::Header::new_gnu();
        gnu.set_path("name").unwrap();
        gnu.set_size(0);
        gnu.set_cksum();
        assert!(matches!(read(gnu.as_bytes(), 512), Err(TarError::Format { at: 0 })));
    }

    #[test]
    fn sizes_beyond_eight_gigabytes_are_base_256() {
        let mut large = header("name", FILE, 0);
        large.set_size((8 << 30) + 3);
        large.set_cksum();
        let mut reader = TarReader::new();
        let event = reader.feed(&mut &large.as_bytes()[..]).unwrap();
        assert!(matches!(event, Some(TarEvent::Member(Member { size: 0x2_0000_0003, .. }))));
    }

    proptest! {
        #[test]
        fn never_panics(mut bytes: Vec<u8>, size in 0u64..2000, step in 1usize..600) {
            let mut all = header("name", FILE, size).as_bytes().to_vec();
            all.append(&mut bytes);
            let _ = read(&all, step);
        }
    }
}
